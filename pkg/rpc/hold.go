package rpc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"time"

	"github.com/orch-dev/orch/pkg/api"
)

// undoneHeader marks an answer that says that nothing was done: the same request
// may be sent to another manager.
const undoneHeader = "Orch-Undone"

// Held is a request that is kept, so that it can be tried more than once.
type Held struct {
	request *http.Request
	body    []byte
	leave   func()
}

// Hold reads a request, which has to arrive in time. The caller calls Release once
// it is answered.
func Hold(w http.ResponseWriter, r *http.Request) (*Held, error) {
	if err := http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTime)); err != nil {
		return nil, fmt.Errorf("bound the time of a request: %w", err)
	}
	leave := countBody(r)
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxMessage))
	if err == nil {
		return &Held{r, body, leave}, nil
	}
	leave()
	if refused := new(api.Error); errors.As(err, &refused) {
		return nil, refused
	}
	return nil, api.Errorf(api.CodeInvalid, "read the request, of %d bytes at most: %v", maxMessage, err)
}

// Release makes room for the requests of others.
func (r *Held) Release() { r.leave() }

// heldBody is a body that has arrived.
type heldBody struct{ *bytes.Reader }

func (heldBody) Close() error { return nil }

// Try lets h answer the request on w. If h says that nothing was done, nothing is
// answered, and Try returns false.
func (r *Held) Try(w http.ResponseWriter, h http.HandlerFunc) (answered bool) {
	request := r.request.Clone(r.request.Context())
	// Whoever goes away may say that he has not looked at it: then it is sent again.
	request.GetBody = func() (io.ReadCloser, error) { return heldBody{bytes.NewReader(r.body)}, nil }
	request.Body, _ = request.GetBody()
	a := &attempt{ResponseWriter: w, header: make(http.Header)}
	h(a, request)
	return !a.undone
}

// attempt is an answer that does not go out if nothing was done.
type attempt struct {
	http.ResponseWriter
	header       http.Header // until it goes out
	sent, undone bool
}

func (a *attempt) Header() http.Header {
	if a.sent {
		return a.ResponseWriter.Header()
	}
	return a.header
}

func (a *attempt) WriteHeader(status int) {
	if a.sent || a.undone {
		return
	}
	if a.header.Get(undoneHeader) != "" {
		a.undone = true
		return
	}
	a.sent = true
	maps.Copy(a.ResponseWriter.Header(), a.header)
	a.ResponseWriter.WriteHeader(status)
}

func (a *attempt) Write(b []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	if a.undone {
		return len(b), nil
	}
	return a.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (a *attempt) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// Flush implements http.Flusher.
func (a *attempt) Flush() {
	if a.WriteHeader(http.StatusOK); !a.undone {
		_ = http.NewResponseController(a.ResponseWriter).Flush()
	}
}

// readHeader says how new the state has to be that a call is answered from.
const readHeader = "Orch-Read"

type readKey struct{}

// WithRead has calls made with ctx be answered from a state that is as new as read says.
func WithRead(ctx context.Context, read api.Read) context.Context {
	return context.WithValue(ctx, readKey{}, read)
}

// setRead notes what WithRead says in a request's header.
func setRead(ctx context.Context, header http.Header) {
	if read, _ := ctx.Value(readKey{}).(api.Read); read != api.ReadLeased {
		header.Set(readHeader, string(read))
	}
}

// ReadOf returns how new the state has to be that the request is answered from.
func ReadOf(r *http.Request) api.Read { return api.Read(r.Header.Get(readHeader)) }
