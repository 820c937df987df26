package api

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

// check refuses what is neither; whose names the one that asks for it.
func (r Return) check(whose string) error {
	if r != "" && r != ReturnTunnel && r != ReturnDSR {
		return Errorf(CodeInvalid, "%s: unknown return %q: use tunnel or dsr", whose, r)
	}
	return nil
}
