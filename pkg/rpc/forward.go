package rpc

import (
	"net/http"
	"net/http/httputil"

	"connectrpc.com/connect"

	"github.com/orch-dev/orch/pkg/api"
)

// forwardedHeader marks a request that a node has passed on, so that it is
// passed on at most once.
const forwardedHeader = "Orch-Forwarded"

// Forwarded reports whether another node passed this request on.
func Forwarded(r *http.Request) bool { return r.Header.Get(forwardedHeader) != "" }

// Forward passes a request, unary or streaming, on to c's node and its answer
// back.
func (c *Client) Forward(w http.ResponseWriter, r *http.Request) {
	proxy := &httputil.ReverseProxy{
		Transport:     c.http.Transport,
		FlushInterval: -1,
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL.Scheme, p.Out.URL.Host = "http", "orch"
			p.Out.Header.Set(credentialHeader, c.credential())
			p.Out.Header.Set(forwardedHeader, "1")
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			WriteError(w, r, api.Errorf(api.CodeUnavailable, "the manager that should answer cannot be reached: %v", err))
		},
	}
	proxy.ServeHTTP(w, r)
}

// WriteError answers a request with an error, in the form its client expects.
func WriteError(w http.ResponseWriter, r *http.Request, err error) {
	_ = connect.NewErrorWriter().Write(w, r, toWire(err))
}
