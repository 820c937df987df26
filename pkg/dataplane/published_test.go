package dataplane_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/orch-dev/orch/pkg/api"
)

// publish applies a plan with one published port to every node: at the address,
// and with the backends, that each has.
func (c *cluster) publish(host bool, at func(*node) (netip.Addr, []api.Backend)) {
	c.t.Helper()
	for _, n := range c.nodes {
		plan := c.plan(n)
		plan.Frontends = nil
		if addr, backends := at(n); len(backends) > 0 {
			plan.Frontends = []api.Frontend{{
				FrontendKey: api.FrontendKey{Addr: addr, Port: publishedPort, Protocol: api.TCP},
				Service:     "web", Host: host, Backends: backends,
			}}
		}
		n.apply(plan)
	}
}

// A port that is published on one address is open there, and on no other one of
// the same node.
func testPublishedOnAnAddress(t *testing.T, c *cluster) {
	for _, addr := range []netip.Addr{c.nodes[0].addr, outer6(c.nodes[0].addr)} {
		c.publish(false, func(*node) (netip.Addr, []api.Backend) { return addr, c.backends(2) })
		for _, to := range []netip.Addr{c.nodes[0].addr, outer6(c.nodes[0].addr), c.nodes[1].addr} {
			name, _, err := c.client.who(netip.AddrPortFrom(to, publishedPort))
			if open := to == addr; open && name != "web2" || !open && err == nil {
				t.Errorf("published on %s, asked at %s: %q, %v", addr, to, name, err)
			}
		}
	}
}

// A port of mode host is open on the nodes that run a task, and leads to that
// one, also for tasks, which reach it on other nodes by their node's routes.
func testHostPort(t *testing.T, c *cluster) {
	local := func(n *node) []api.Backend {
		for i, w := range c.web[:2] {
			if w.node == n {
				return c.backends(i + 1)
			}
		}
		return nil
	}
	c.publish(true, func(n *node) (netip.Addr, []api.Backend) { return netip.IPv4Unspecified(), local(n) })
	for _, n := range c.nodes {
		for _, to := range []netip.AddrPort{n.published(), n.published6()} {
			name, client, err := c.client.who(to)
			switch {
			case len(local(n)) == 0:
				if err == nil {
					t.Errorf("%s has no task, and %q answers at %s", n.name, name, to)
				}
			case err != nil || client.Addr().Is4() && client.Addr() != clientAddr:
				t.Errorf("at %s: %q sees %s: %v", to, name, client, err)
			}
		}
	}
	own, other := c.caller.node, c.nodes[1]
	if name, _, err := c.caller.who(own.published()); err != nil || name != "web1" {
		t.Errorf("from a task to its own node: %q, %v", name, err)
	}
	before := own.stats().Verdicts["passed-outside"].Packets
	// No answer can come here, where nobody masquerades: it is the way that counts.
	if conn, err := c.caller.dialFrom(netip.AddrPort{}, other.published(), 100*time.Millisecond); err == nil {
		conn.Close()
	}
	if after := own.stats().Verdicts["passed-outside"].Packets; after == before {
		t.Errorf("what a task sent to another node's port of mode host was taken for its own node's: verdicts %v", nonZero(own))
	}
}

// One service on two ports, and one client with one source port for both.
func testTwoPortsOneSource(t *testing.T, c *cluster) {
	second := uint16(publishedPort + 1)
	for _, n := range c.nodes {
		plan := c.plan(n, c.backends(2)...)
		again := plan.Frontends[0]
		again.Port = second
		plan.Frontends = append(plan.Frontends, again)
		n.apply(plan)
	}
	for _, family := range []struct{ client, node netip.Addr }{
		{clientAddr, c.nodes[0].addr},
		{outer6(clientAddr), outer6(c.nodes[0].addr)},
	} {
		from := netip.AddrPortFrom(family.client, 45700)
		seen := make(map[string]bool)
		for _, port := range []uint16{publishedPort, second} {
			conn, err := c.client.dialFrom(from, netip.AddrPortFrom(family.node, port), patience)
			if err != nil {
				t.Fatalf("from %s to port %d: %v", from, port, err)
			}
			defer conn.Close()
			answer, err := ask(conn, "who")
			if err != nil || !strings.HasPrefix(answer, "web2 ") || !strings.Contains(answer, family.client.String()) {
				t.Errorf("from %s to port %d: %q, %v", from, port, answer, err)
			}
			seen[answer] = true
		}
		if len(seen) != 2 {
			t.Errorf("the task cannot tell the two connections of %s apart: %v", from, seen)
		}
	}
}
