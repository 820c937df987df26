package rpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/user"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"

	"github.com/orch-dev/orch/pkg/api"
)

// Limits on what is read: maxMessage bounds a request, for which a stack of
// thousands of services is small enough, and maxGuestMessage one of a caller
// without a certificate, and a user's that asks what not only admins may.
const (
	maxMessage      = 16 << 20
	maxGuestMessage = 64 << 10
	maxHeader       = 64 << 10
)

// Mux holds procedures.
type Mux struct {
	http     *http.ServeMux
	bodyTime time.Duration
}

func NewMux() *Mux { return &Mux{http: http.NewServeMux(), bodyTime: bodyTime} }

// handle has a procedure's requests arrive in time, and count while they are large.
func (m *Mux) handle(procedure string, h http.Handler) {
	m.http.HandleFunc(procedure, func(w http.ResponseWriter, r *http.Request) {
		if _, arrived := r.Body.(heldBody); arrived {
			h.ServeHTTP(w, r)
			return
		}
		if err := http.NewResponseController(w).SetReadDeadline(time.Now().Add(m.bodyTime)); err != nil {
			WriteError(w, r, fmt.Errorf("bound the time of a request: %w", err))
			return
		}
		defer countBody(r)()
		h.ServeHTTP(w, r)
	})
}

// options are those of all handlers. Nothing is compressed: on a local network that
// costs more than it gains, and what is small cannot become large.
func options() []connect.HandlerOption {
	return []connect.HandlerOption{connect.WithCodec(codec{}), connect.WithReadMaxBytes(maxMessage), connect.WithCompression("gzip", nil, nil)}
}

// ServeHTTP answers a request for one of the mux's procedures.
func (m *Mux) ServeHTTP(w http.ResponseWriter, r *http.Request) { m.http.ServeHTTP(w, r) }

// Handle answers a unary procedure.
func Handle[Req, Res any](m *Mux, procedure string, fn func(context.Context, *Req) (*Res, error)) {
	m.handle(procedure, connect.NewUnaryHandler(procedure,
		func(ctx context.Context, req *connect.Request[Req]) (*connect.Response[Res], error) {
			res, err := fn(ctx, req.Msg)
			if err != nil {
				return nil, toWire(err)
			}
			return connect.NewResponse(res), nil
		}, options()...))
}

// HandleStream answers a procedure with a stream of messages. A client may read
// them as slowly as it likes.
func HandleStream[Req, Res any](m *Mux, procedure string, fn func(context.Context, *Req, func(*Res) error) error) {
	HandleStreamWithin(m, procedure, 0, fn)
}

// HandleStreamWithin is HandleStream for a client that has to take each message
// within a time, unless that is 0: the stream of one that does not is cut.
func HandleStreamWithin[Req, Res any](m *Mux, procedure string, within time.Duration, fn func(context.Context, *Req, func(*Res) error) error) {
	m.handle(procedure, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		connect.NewServerStreamHandler(procedure,
			func(ctx context.Context, req *connect.Request[Req], stream *connect.ServerStream[Res]) error {
				return toWire(fn(ctx, req.Msg, func(message *Res) error {
					if within == 0 {
						return stream.Send(message)
					}
					if err := control.SetWriteDeadline(time.Now().Add(within)); err != nil {
						return fmt.Errorf("bound the time of a message: %w", err)
					}
					err := stream.Send(message)
					return errors.Join(err, control.SetWriteDeadline(time.Time{}))
				}))
			}, options()...).ServeHTTP(w, r)
	}))
}

// HandlePrefix answers every procedure under prefix that has no handler of its
// own.
func (m *Mux) HandlePrefix(prefix string, h http.Handler) { m.http.Handle(prefix, h) }

// Server serves a Mux on the local socket and on the node's API port.
type Server struct {
	mux *Mux
	sec *Security
	log *slog.Logger
}

func NewServer(mux *Mux, sec *Security, log *slog.Logger) *Server {
	return &Server{mux: mux, sec: sec, log: log}
}

// ServeLocal answers on a unix socket that root may use, and a group of users if
// this machine has one of that name, until ctx ends.
func (s *Server) ServeLocal(ctx context.Context, path, group string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove stale socket %s: %w", path, err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", path, err)
	}
	if err := shareSocket(path, group); err != nil {
		return err
	}
	srv := s.server(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Del(callerHeader)
		s.mux.ServeHTTP(w, withCaller(r, Caller{Local: true}))
	})
	srv.Protocols.SetUnencryptedHTTP2(true) // without pings: a client that was suspended is not gone
	return serve(ctx, srv, l)
}

// shareSocket gives a socket to a group, if there is one, and to nobody else.
func shareSocket(path, group string) error {
	if err := os.Chmod(path, 0o600); err != nil {
		return fmt.Errorf("set mode of %s: %w", path, err)
	}
	g, err := user.LookupGroup(group)
	if errors.As(err, new(user.UnknownGroupError)) {
		return nil
	}
	var gid int
	if err == nil {
		gid, err = strconv.Atoi(g.Gid)
	}
	if err == nil {
		err = os.Chown(path, -1, gid)
	}
	if err == nil {
		err = os.Chmod(path, 0o660)
	}
	if err != nil {
		return fmt.Errorf("give %s to the group %s: %w", path, group, err)
	}
	return nil
}

// ServePeers answers on a listener that other nodes dial, until ctx ends. It
// hands connections of managers' Raft to raft, unless that is nil.
func (s *Server) ServePeers(ctx context.Context, l net.Listener, raft func(net.Conn)) error {
	gate := newGate(l, s.sec, raft, s.log)
	srv := s.server(s.guard(s.mux))
	srv.Protocols.SetHTTP2(true)
	srv.ConnContext, srv.HTTP2 = withPeer, pings
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return gate.run(ctx) })
	g.Go(func() error { return serve(ctx, srv, gate) })
	return g.Wait()
}

// guard lets callers do what they may.
func (s *Server) guard(next http.Handler) http.HandlerFunc {
	limit, calls := newGuestLimiter(s.sec.Now), newQuota(maxCalls)
	return func(w http.ResponseWriter, r *http.Request) {
		switch peer := peerOf(r); {
		case peer.Anonymous():
			if !limit.Allow(sourceOf(r.RemoteAddr)) {
				WriteError(w, r, api.Errorf(api.CodeUnavailable, "too many attempts to join from %s: wait a moment", sourceOf(r.RemoteAddr)))
				return
			}
			r.Body = http.MaxBytesReader(w, r.Body, maxGuestMessage)
		case peer.Role != api.RoleManager:
			leave, ok := calls.enter(peer.Node)
			if !ok {
				WriteError(w, r, api.Errorf(api.CodeUnavailable, "%s %s has %d calls in progress, more are not possible: wait a moment", peer.Role, peer.Node, maxCalls))
				return
			}
			defer leave()
			switch {
			case peer.Role == api.RoleWorker:
				r.Body = http.MaxBytesReader(w, r.Body, maxWorkerMessage)
			case api.AccessTo(r.URL.Path) != api.AccessAdmin:
				r.Body = http.MaxBytesReader(w, r.Body, maxGuestMessage)
			}
		}
		caller, err := remoteCaller(r)
		if err == nil {
			err = caller.May(r.URL.Path)
		}
		if err != nil {
			s.log.Warn("refused a call", "from", r.RemoteAddr, "node", caller.Node, "procedure", r.URL.Path, "err", err)
			WriteError(w, r, err)
			return
		}
		next.ServeHTTP(w, withCaller(r, caller))
	}
}

// server is one for HTTP/2, of a protocol that the caller sets.
func (s *Server) server(h http.HandlerFunc) *http.Server {
	return &http.Server{
		Handler:           h,
		Protocols:         new(http.Protocols),
		ReadHeaderTimeout: 10 * time.Second,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
}

// partingTime is how long a server that stops takes at most to answer its clients,
// and to tell them which of their requests it has not looked at.
const partingTime = 500 * time.Millisecond

// serve answers until ctx ends. Then streams end, other calls are answered, and a
// client whose request comes too late is told so.
func serve(ctx context.Context, srv *http.Server, l net.Listener) error {
	calls, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	srv.BaseContext = func(net.Listener) context.Context { return calls }
	handler := srv.Handler
	srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if IsStream(r) {
			stream, cancel := context.WithCancel(r.Context())
			defer cancel()
			defer context.AfterFunc(ctx, cancel)()
			r = r.WithContext(stream)
		}
		handler.ServeHTTP(w, r)
	})
	parted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(parted)
		limit, cancel := context.WithTimeout(calls, partingTime)
		defer cancel()
		if srv.Shutdown(limit) != nil {
			_ = srv.Close()
		}
	})
	err := srv.Serve(l)
	if stop() {
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	}
	<-parted
	return nil
}

// IsStream reports whether a request is answered by a stream of messages.
func IsStream(r *http.Request) bool {
	return strings.HasPrefix(r.Header.Get("Content-Type"), "application/connect+")
}
