package rpc

import (
	"errors"
	"net/http"
	"net/http/httputil"
	"strconv"

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
// and its answer back.
func (c *Client) Forward(w http.ResponseWriter, r *http.Request) {
	caller := CallerOf(r.Context())
	proxy := &httputil.ReverseProxy{
		Transport:     c.http.Transport,
		FlushInterval: -1,
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL.Scheme, p.Out.URL.Host = "http", "orch"
			p.Out.Header.Set(forwardedHeader, strconv.Itoa(Hops(p.In)+1))
			p.Out.Header.Set(callerHeader, forwardFor(caller))
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if errors.As(err, new(*unreached)) {
				WriteError(w, r, api.Undone("the manager that should answer cannot be reached: %v", err))
				return
			}
			WriteError(w, r, api.Errorf(api.CodeUnavailable, "the manager that should answer has gone away: %v; whether it was done will show", err))
		},
	}
	proxy.ServeHTTP(w, r)
}

// WriteError answers a request with an error, in the form its client expects.
func WriteError(w http.ResponseWriter, r *http.Request, err error) {
	_ = connect.NewErrorWriter().Write(w, r, toWire(err))
}
