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

func TestNetworksOfAStack(t *testing.T) {
	for name, test := range map[string]struct {
		networks []string
		want     string
	}{
		"two":       {[]string{"a", "Any.Name"}, ""},
		"twice":     {[]string{"a", "b", "a"}, "network a is there twice"},
		"no name":   {[]string{""}, `network "": its name has 1 to 255 bytes`},
		"too long":  {[]string{strings.Repeat("x", 256)}, "its name has 1 to 255 bytes"},
		"long ones": {[]string{strings.Repeat("x", 255)}, ""},
	} {
		req := DeployRequest{Stack: "blog", Services: []ServiceSpec{{Name: "blog_web", Mode: ModeReplicated, Task: TaskSpec{Image: "i"}}}}
		for _, n := range test.networks {
			req.Networks = append(req.Networks, NetworkSpec{Name: n})
		}
		if err := req.Validate(); (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
}
