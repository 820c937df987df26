package api

import (
	"net/netip"
	"strings"
)

// Unmet returns the first constraint that the node does not satisfy, or false
// if it satisfies all of them.
func (p Placement) Unmet(n *Node) (Constraint, bool) {
	for _, c := range p.Constraints {
		if !c.Matches(n) {
			return c, true
		}
	}
	return Constraint{}, false
}

// Matches reports whether the node satisfies the constraint. Values compare
// without regard to case; node.ip also takes a CIDR. An attribute or label that
// the node does not have equals only the empty value.
func (c Constraint) Matches(n *Node) bool {
	var equal bool
	if c.Key == "node.ip" {
		equal = inRange(n.Addr, c.Value)
	} else {
		equal = strings.EqualFold(Attribute(n, c.Key), canonical(c.Key, c.Value))
	}
	return equal == (c.Op != OpNotEqual)
}

// Attribute is the value of what a constraint's key names.
func Attribute(n *Node, key string) string {
	if label, ok := strings.CutPrefix(key, "node.labels."); ok {
		return n.Labels[label]
	}
	if label, ok := strings.CutPrefix(key, "engine.labels."); ok {
		return n.Info.EngineLabels[label]
	}
	switch key {
	case "node.id":
		return string(n.ID)
	case "node.hostname":
		return n.Hostname
	case "node.role":
		return string(n.Role)
	case "node.platform.os":
		return n.Info.OS
	case "node.platform.arch":
		return canonical(key, n.Info.Arch)
	}
	return ""
}

// canonical gives the two common machine names their Go spelling.
func canonical(key, value string) string {
	if key != "node.platform.arch" {
		return value
	}
	switch strings.ToLower(value) {
	case "x86_64":
		return "amd64"
	case "aarch64":
		return "arm64"
	}
	return value
}

// Runs reports whether the node is of the platform. A node that has not said
// what it is may be of any.
func (p Platform) Runs(n *Node) bool {
	is := func(want, have string) bool {
		return want == "" || have == "" || strings.EqualFold(want, have)
	}
	return is(p.OS, n.Info.OS) && is(canonical("node.platform.arch", p.Arch), canonical("node.platform.arch", n.Info.Arch))
}

// inRange reports whether addr is the address or in the CIDR that value spells.
func inRange(addr netip.Addr, value string) bool {
	if want, err := netip.ParseAddr(value); err == nil {
		return addr == want
	}
	prefix, err := netip.ParsePrefix(value)
	return err == nil && prefix.Contains(addr)
}
