package rpc

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/pki"
)

// Caller is who calls a procedure: a node or a user, by a certificate, or
// somebody at this node's local socket. The zero Caller has shown nothing.
type Caller struct {
	pki.Identity
	Local bool
	// By is who passes the call on for another, "" if the caller calls itself. Its
	// certificate says that it is a manager; whether it still is one the state says.
	By api.NodeID
}

type (
	callerKey struct{} // of a request
	peerKey   struct{} // of a connection
)

// CallerOf returns who calls the procedure that ctx was given to.
func CallerOf(ctx context.Context) Caller {
	caller, _ := ctx.Value(callerKey{}).(Caller)
	return caller
}

// WithCaller has calls of procedures, made in this process, be those of c.
func WithCaller(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

func withCaller(r *http.Request, c Caller) *http.Request {
	return r.WithContext(WithCaller(r.Context(), c))
}

// Anonymous reports whether nothing is known of the caller.
func (c Caller) Anonymous() bool { return !c.Local && c.Identity == pki.Identity{} }

// May tells why the caller may not call a procedure, if so. Of a user the
// certificate does not say whether they are an admin: the state does.
func (c Caller) May(procedure string) error {
	access := api.AccessTo(procedure)
	switch {
	case c.Local, access == api.AccessAnyone:
		return nil
	case c.Anonymous():
		return api.Errorf(api.CodeDenied, "the caller is not a member of this cluster")
	case access == api.AccessKnown, access == api.AccessMember && c.Role != api.RoleUser, access.ManagersOnly() && c.Role == api.RoleManager:
		return nil
	case c.Role != api.RoleUser:
	case access == api.AccessAdmin, access == api.AccessViewer:
		return nil
	default:
		return api.Errorf(api.CodeDenied, "users may not call %s", procedure)
	}
	return api.Errorf(api.CodeDenied, "node %s is a %s and may not call %s", c.Node, c.Role, procedure)
}

// callerHeader says for whom a manager passes a request on: an identity, or nobody
// that is known. A request of a manager's own users is the manager's.
const (
	callerHeader = "Orch-Caller"
	forNobody    = "nobody"
	forSelf      = "self"
)

// forwardFor is what a request that is passed on says of its caller.
func forwardFor(c Caller) string {
	switch {
	case c.Local:
		return forSelf
	case c.Anonymous():
		return forNobody
	}
	return c.String()
}

// withPeer notes who is at the other end of a connection on the API port, which
// the gate has let through.
func withPeer(ctx context.Context, conn net.Conn) context.Context {
	var peer Caller
	if shown := conn.(*tls.Conn).ConnectionState().PeerCertificates; len(shown) > 0 {
		peer.Identity, _ = pki.IdentityOf(shown[0]) // checkPeer has looked at it
	}
	return context.WithValue(ctx, peerKey{}, peer)
}

func peerOf(r *http.Request) Caller {
	peer, _ := r.Context().Value(peerKey{}).(Caller)
	return peer
}

// remoteCaller returns who sent a request on the API port. Managers, by their
// certificates, are believed when they say that they pass on another's: who looks
// up the caller has to look up Caller.By, too.
func remoteCaller(r *http.Request) (Caller, error) {
	peer := peerOf(r)
	forwarded := r.Header.Get(callerHeader)
	switch {
	case forwarded == "":
		return peer, nil
	case peer.Role != api.RoleManager:
		return peer, api.Errorf(api.CodeDenied, "only managers pass on what others ask")
	case forwarded == forSelf:
		return peer, nil
	case forwarded == forNobody:
		return Caller{By: peer.Node}, nil
	}
	id, err := pki.ParseIdentity(forwarded)
	if err != nil || id.Cluster != peer.Cluster {
		return peer, api.Errorf(api.CodeDenied, "passed on for %q, which is no member", forwarded)
	}
	if id.Node == peer.Node { // perhaps by a certificate from before
		return Caller{Identity: id}, nil
	}
	return Caller{Identity: id, By: peer.Node}, nil
}
