package dataplane_test

import (
	"net/netip"
	"syscall"
	"testing"
)

func (n *node) published6() netip.AddrPort { return netip.AddrPortFrom(outer6(n.addr), publishedPort) }

// A client on IPv6 reaches the task through any node, and the task sees its
// address.
func testIngress6(t *testing.T, c *cluster) {
	client := outer6(clientAddr)
	for i, w := range c.web {
		c.apply(c.backends(i + 1)...)
		for _, n := range c.nodes {
			name, seen, err := c.client.who(n.published6())
			if err != nil || name != w.name || seen.Addr() != client {
				t.Errorf("through %s: %q for client %s: %v; verdicts %v, %v", n.name, name, seen, err, nonZero(n), nonZero(w.node))
			}
			u, err := c.client.datagrams(n.published6())
			if err != nil {
				t.Fatal(err)
			}
			defer u.Close()
			for _, length := range []int{100, 1400, 1452, 4000, 20000} {
				name, addr, err := exchange(u, length)
				if err != nil || name != w.name || addr != client {
					t.Errorf("udp through %s, %d bytes: %q for client %s: %v; verdicts %v, %v", n.name, length, name, addr, err, nonZero(n), nonZero(w.node))
				}
			}
		}
		const bytes = 4 << 20
		if err := c.client.download(c.nodes[0].published6(), bytes); err != nil {
			t.Errorf("from %s: %v", w.name, err)
		}
		if err := c.client.upload(c.nodes[0].published6(), bytes); err != nil {
			t.Errorf("to %s: %v", w.name, err)
		}
	}
}

func testEastWest6(t *testing.T, c *cluster) {
	caller := inner6(c.caller.addr)
	virtual6 := netip.AddrPortFrom(inner6(virtualIP), appPort)
	for i, w := range c.web {
		c.apply(c.backends(i + 1)...)
		c.caller.asks(virtual6, w.name, caller)
		c.caller.asks(netip.AddrPortFrom(inner6(w.addr), appPort), w.name, caller)
		w.asks(virtual6, w.name, inner6(virtualIP)) // which calls itself
		c.caller.asks(c.nodes[0].published6(), w.name, caller)
	}
	c.other.refused(virtual6, syscall.EACCES)
	c.other.refused(netip.AddrPortFrom(inner6(c.web[1].addr), appPort), syscall.EACCES)
	c.nodes[0].wantDrop("isolated")
	c.caller.refused(netip.AddrPortFrom(inner6(netip.MustParseAddr("10.190.1.1")), appPort), syscall.EHOSTUNREACH)
	c.nodes[0].wantDrop("unknown-destination")
	// Where no route leads, the port is no published one of the node.
	c.nodes[0].ip("route add unreachable ::/0 metric 4294967295\n")
	c.caller.refused(netip.AddrPortFrom(netip.MustParseAddr("2001:db8:99::1"), publishedPort), syscall.EHOSTUNREACH)
	c.nodes[0].wantDrop("no-route")
}
