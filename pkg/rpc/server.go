package rpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"

	"github.com/orch-dev/orch/pkg/api"
)

// maxMessage bounds a request, in bytes: a stack of thousands of services fits;
// maxOpen one of a caller that is no member.
const (
	maxMessage = 16 << 20
	maxOpen    = 64 << 10
)

// Mux holds procedures.
type Mux struct {
	http *http.ServeMux
	open map[string]bool
}

func NewMux() *Mux { return &Mux{http: http.NewServeMux(), open: make(map[string]bool)} }

// ServeHTTP answers a request for one of the mux's procedures.
func (m *Mux) ServeHTTP(w http.ResponseWriter, r *http.Request) { m.http.ServeHTTP(w, r) }

// Handle answers a unary procedure.
func Handle[Req, Res any](m *Mux, procedure string, fn func(context.Context, *Req) (*Res, error)) {
	m.http.Handle(procedure, connect.NewUnaryHandler(procedure,
		func(ctx context.Context, req *connect.Request[Req]) (*connect.Response[Res], error) {
			res, err := fn(ctx, req.Msg)
			if err != nil {
				return nil, toWire(err)
			}
			return connect.NewResponse(res), nil
		}, connect.WithCodec(codec{}), connect.WithReadMaxBytes(maxMessage)))
}

// HandleStream answers a procedure with a stream of messages.
func HandleStream[Req, Res any](m *Mux, procedure string, fn func(context.Context, *Req, func(*Res) error) error) {
	m.http.Handle(procedure, connect.NewServerStreamHandler(procedure,
		func(ctx context.Context, req *connect.Request[Req], stream *connect.ServerStream[Res]) error {
			return toWire(fn(ctx, req.Msg, stream.Send))
		}, connect.WithCodec(codec{}), connect.WithReadMaxBytes(maxMessage)))
}

// HandlePrefix answers every procedure under prefix that has no handler of its
// own.
func (m *Mux) HandlePrefix(prefix string, h http.Handler) { m.http.Handle(prefix, h) }

// Open lets callers that are no members call procedure on the TCP port.
func (m *Mux) Open(procedure string) { m.open[procedure] = true }

// Server serves a Mux on the local socket and on the node's API port.
type Server struct {
	mux *Mux
	sec Security
	log *slog.Logger
}

func NewServer(mux *Mux, sec Security, log *slog.Logger) *Server {
	return &Server{mux: mux, sec: sec, log: log}
}

// ServeLocal answers on a unix socket that root may use, until ctx ends.
func (s *Server) ServeLocal(ctx context.Context, path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove stale socket %s: %w", path, err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", path, err)
	}
	if err := os.Chmod(path, 0o660); err != nil {
		return fmt.Errorf("set mode of %s: %w", path, err)
	}
	return s.serve(ctx, l, s.mux, nil) // a client that was suspended is not gone
}

// ServePeers answers on a listener that other nodes dial, until ctx ends. It
// hands connections of Raft to raft.
func (s *Server) ServePeers(ctx context.Context, l net.Listener, raft func(net.Conn)) error {
	split := newSplitter(s.sec.Listen(l), s.sec, raft, s.log)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return split.run(ctx) })
	g.Go(func() error { return s.serve(ctx, split, s.authenticate(s.mux), pings) })
	return g.Wait()
}

// authenticate refuses callers that are no members, save for open procedures.
func (s *Server) authenticate(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.sec.Admit(credentialOf(r)) {
			if !s.mux.open[r.URL.Path] {
				WriteError(w, r, api.Errorf(api.CodeDenied, "the caller is not a member of this cluster"))
				return
			}
			r.Body = http.MaxBytesReader(w, r.Body, maxOpen)
		}
		next.ServeHTTP(w, r)
	})
}

func (s *Server) serve(ctx context.Context, l net.Listener, h http.Handler, http2 *http.HTTP2Config) error {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	srv := &http.Server{
		Handler:           h,
		Protocols:         protocols,
		HTTP2:             http2,
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	if err := srv.Serve(l); ctx.Err() == nil {
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	}
	return nil
}
