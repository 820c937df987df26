package rpc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	"connectrpc.com/connect"

	"github.com/orch-dev/orch/pkg/api"
)

// idleTime is how long a connection is kept that nobody uses.
const idleTime = 90 * time.Second

// Client calls one daemon.
type Client struct {
	http *http.Client
	// most is how large a message of an answer may be, 0 if that is not bounded:
	// a manager is believed, and its state may be large.
	most int
}

func (c *Client) options() []connect.ClientOption {
	return []connect.ClientOption{connect.WithCodec(codec{}), connect.WithReadMaxBytes(c.most), connect.WithAcceptCompression("gzip", nil, nil)}
}

// NewLocalClient calls the daemon that listens on a unix socket.
func NewLocalClient(socket string) *Client {
	return newClient(func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "unix", socket)
		if err != nil {
			return nil, fmt.Errorf("no orch daemon answers on %s (is `orch daemon` running? may you read the socket?): %w", socket, err)
		}
		return conn, nil
	})
}

// newClient speaks HTTP/2 without TLS of its own: what it dials is secured
// already.
func newClient(dial func(context.Context) (net.Conn, error)) *Client {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	return &Client{http: &http.Client{Transport: &http.Transport{
		DialContext:     func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		Protocols:       protocols,
		HTTP2:           pings,
		IdleConnTimeout: idleTime,
	}}}
}

// pings find a peer whose machine is gone, from either side.
var pings = &http.HTTP2Config{SendPingTimeout: 2 * time.Second, PingTimeout: 2 * time.Second}

// Close drops the idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

const baseURL = "http://orch"

// Call calls a unary procedure. An error is an *api.Error if the daemon
// answered, and names the connection otherwise.
func Call[Req, Res any](ctx context.Context, c *Client, procedure string, req *Req) (*Res, error) {
	client := connect.NewClient[Req, Res](c.http, baseURL+procedure, c.options()...)
	request := connect.NewRequest(req)
	setRead(ctx, request.Header())
	res, err := client.CallUnary(ctx, request)
	if err != nil {
		return nil, clientError(err)
	}
	return res.Msg, nil
}

// Stream calls a procedure that answers with a stream and hands every message
// to each, until the stream or ctx ends or each returns an error.
func Stream[Req, Res any](ctx context.Context, c *Client, procedure string, req *Req, each func(*Res) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	client := connect.NewClient[Req, Res](c.http, baseURL+procedure, c.options()...)
	request := connect.NewRequest(req)
	setRead(ctx, request.Header())
	stream, err := client.CallServerStream(ctx, request)
	if err != nil {
		return clientError(err)
	}
	defer func() { cancel(); _ = stream.Close() }()
	begun := false
	for stream.Receive() {
		begun = true
		if err := each(stream.Msg()); err != nil {
			return err
		}
	}
	err = clientError(stream.Err())
	var answered *api.Error
	if err != nil && begun && ctx.Err() == nil && !errors.As(err, &answered) {
		return fmt.Errorf("whoever sent this has gone away: %w", err)
	}
	return err
}

// clientError strips what the HTTP client wraps around an error of the
// connection.
func clientError(err error) error {
	if err == nil {
		return nil
	}
	err = fromWire(err)
	var answered *api.Error
	var request *url.Error
	switch {
	case errors.As(err, &answered):
		return answered
	case errors.As(err, &request):
		return request.Err
	}
	return err
}
