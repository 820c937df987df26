package api

import "cmp"

// Return is which way replies take from a backend's node to a client outside the
// cluster that entered at another node.
type Return string

const (
	// ReturnTunnel: in VXLAN to the node of entry, and from there to the client.
	// Works on every network.
	ReturnTunnel Return = "tunnel"
	// ReturnDSR (direct server return): straight to the client, from the address
	// that it used, which is the entry node's. The network must let that pass.
	ReturnDSR Return = "dsr"
)

// Valid reports whether it is one of those, or "" for whatever is the rule.
func (r Return) Valid() bool { return r == "" || r == ReturnTunnel || r == ReturnDSR }

// Or is what holds where the cluster's rule is another: the tunnel if that says
// nothing either.
func (r Return) Or(rule Return) Return {
	return cmp.Or(r, rule, ReturnTunnel)
}
