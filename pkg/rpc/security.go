package rpc

import (
	"context"
	"crypto/subtle"
	"net"
	"net/http"
	"time"
)

// Security protects what passes between nodes. The API and Raft use nothing
// else of the network, so that a mutually authenticated TLS slots in here.
type Security interface {
	// Dial connects to a node's API port.
	Dial(ctx context.Context, addr string) (net.Conn, error)
	// Listen wraps the listener of the node's API port.
	Listen(l net.Listener) net.Listener
	// Credential is what a client of this node sends with each call, and Admit
	// whether a caller's is good.
	Credential() string
	Admit(credential string) bool
}

// Plain is Security without encryption: callers show a secret that only members
// of the cluster hold. It keeps strangers out of a network that nobody listens
// on, no more.
type Plain struct {
	// Secret is asked at each call, since a node has none before it joins.
	Secret func() string
}

// dialTimeout is how long a node that does not even refuse is called.
const dialTimeout = 4 * time.Second

func (Plain) Dial(ctx context.Context, addr string) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTimeout}
	return d.DialContext(ctx, "tcp", addr)
}

func (Plain) Listen(l net.Listener) net.Listener { return l }

func (p Plain) Credential() string { return p.Secret() }

func (p Plain) Admit(credential string) bool {
	secret := p.Secret()
	return secret != "" && subtle.ConstantTimeCompare([]byte(secret), []byte(credential)) == 1
}

const credentialHeader = "Orch-Credential"

func credentialOf(r *http.Request) string { return r.Header.Get(credentialHeader) }
