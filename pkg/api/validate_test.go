package api

import (
	"net/netip"
	"strings"
	"testing"
)

func TestNodeValidate(t *testing.T) {
	good := Node{ID: NodeID(strings.Repeat("a", IDLength)), Hostname: "web-1.example", Addr: netip.MustParseAddr("192.0.2.1"), APIPort: 2377, GossipPort: 7946}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	bad := map[string]func(*Node){
		"no ID":               func(n *Node) { n.ID = "" },
		"a path as ID":        func(n *Node) { n.ID = "../../../../../../etc/abcd" },
		"no name":             func(n *Node) { n.Hostname = "" },
		"escapes in the name": func(n *Node) { n.Hostname = "a\x1b[2J" },
		"a long name":         func(n *Node) { n.Hostname = strings.Repeat("a", 300) },
		"no address":          func(n *Node) { n.Addr = netip.Addr{} },
		"any address":         func(n *Node) { n.Addr = netip.IPv4Unspecified() },
		"IPv6":                func(n *Node) { n.Addr = netip.IPv6Loopback() },
		"no gossip port":      func(n *Node) { n.GossipPort = 0 },
	}
	for name, edit := range bad {
		n := good
		edit(&n)
		if err := n.Validate(); CodeOf(err) != CodeInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}
