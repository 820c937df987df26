package rpc

import (
	"context"
	"errors"
	"net/http"
	"net/http/httputil"
	"strconv"
	"sync"

	"connectrpc.com/connect"

	"github.com/orch-dev/orch/pkg/api"
)

// forwardedHeader counts how often managers have passed a request on, so that it
// does not go round.
const forwardedHeader = "Orch-Forwarded"

// Hops is how often managers have passed this request on.
func Hops(r *http.Request) int {
	n, _ := strconv.Atoi(r.Header.Get(forwardedHeader))
	return n
}

// Forward passes a request, unary or streaming, on to c's node, for its caller,
// and its answer back. The request has to be [Held]: of one that is still arriving
// the rest never comes if the answer, an error, is there first, and the proxy would
// wait for it.
func (c *Client) Forward(w http.ResponseWriter, r *http.Request) {
	c.forward(func(err error) error {
		return api.Errorf(api.CodeUnavailable, "the manager that should answer has gone away: %v; whether it was done will show", err)
	}, nil).ServeHTTP(w, r)
}

// ForwardRead is Forward for a unary request that changes nothing: if no answer
// comes, nothing was done. None is waited for after giveUp has ended.
func (c *Client) ForwardRead(giveUp context.Context, w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	stop := context.AfterFunc(giveUp, cancel)
	defer stop()
	c.forward(func(err error) error {
		return api.Undone("the manager that should answer has gone away: %v", err)
	}, func(*http.Response) error {
		if !stop() {
			return giveUp.Err()
		}
		return nil
	}).ServeHTTP(w, r.WithContext(ctx))
}

// forward is a proxy to c's node. What it answers when no answer came is told by
// lost, and answered is called when one comes.
func (c *Client) forward(lost func(error) error, answered func(*http.Response) error) http.Handler {
	return &httputil.ReverseProxy{
		Transport:      c.http.Transport,
		BufferPool:     &copyBuffers,
		ModifyResponse: answered,
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL.Scheme, p.Out.URL.Host = "http", "orch"
			p.Out.Header.Set(forwardedHeader, strconv.Itoa(Hops(p.In)+1))
			p.Out.Header.Set(callerHeader, forwardFor(CallerOf(p.In.Context())))
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if errors.As(err, new(*unreached)) {
				WriteError(w, r, api.Undone("the manager that should answer cannot be reached: %v", err))
				return
			}
			WriteError(w, r, lost(err))
		},
	}
}

// copyBuffers are what answers are copied with: most of them are a hundred bytes,
// for which a buffer of its own would be garbage of 32 KB.
var copyBuffers bufferPool

type bufferPool struct{ pool sync.Pool }

const copyBuffer = 32 << 10

func (p *bufferPool) Get() []byte {
	if b, _ := p.pool.Get().(*[copyBuffer]byte); b != nil {
		return b[:]
	}
	return make([]byte, copyBuffer)
}

func (p *bufferPool) Put(b []byte) { p.pool.Put((*[copyBuffer]byte)(b)) }

// WriteError answers a request with an error, in the form its client expects.
func WriteError(w http.ResponseWriter, r *http.Request, err error) {
	_ = connect.NewErrorWriter().Write(w, r, toWire(err))
}
