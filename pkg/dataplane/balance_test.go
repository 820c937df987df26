package dataplane_test

import (
	"net/netip"
	"testing"

	"github.com/orch-dev/orch/pkg/api"
)

// applyTo gives every node the plan with these backends, and each frontend what
// set says.
func (c *cluster) applyTo(set func(*api.Frontend), backends ...api.Backend) {
	c.t.Helper()
	for _, n := range c.nodes {
		plan := c.plan(n, backends...)
		for i := range plan.Frontends {
			set(&plan.Frontends[i])
		}
		n.apply(plan)
	}
}

// All flows of one client go to one task, and those of many are spread.
func testAffinity(t *testing.T, c *cluster) {
	c.applyTo(func(f *api.Frontend) { f.Affinity = true }, c.backends(1, 2, 3)...)
	n := c.nodes[0]
	for what, ask := range map[string]func() (string, netip.AddrPort, error){
		"published": func() (string, netip.AddrPort, error) { return c.client.who(n.published()) },
		"virtual":   func() (string, netip.AddrPort, error) { return c.caller.who(virtual(appPort)) },
	} {
		first, _, err := ask()
		if err != nil {
			t.Fatal(err)
		}
		for range 30 {
			if name, _, err := ask(); err != nil || name != first {
				t.Fatalf("%s: %q after %q, %v", what, name, first, err)
			}
		}
	}
	traced := n.trace(netip.AddrPortFrom(clientAddr, 0), netip.Addr{}, publishedPort)
	if name, _, err := c.client.who(n.published()); err != nil || c.taskAt(traced.Backend) != name {
		t.Errorf("%q answers (%v), traced %+v", name, err, traced)
	}
	tasks := make(map[string]bool)
	for i := range byte(60) {
		trace := n.trace(netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, i}), 0), netip.Addr{}, publishedPort)
		tasks[c.taskAt(trace.Backend)] = true
	}
	if len(tasks) != len(c.web) {
		t.Errorf("60 clients go to %v", tasks)
	}
}

// Flows are spread by weight. A backend without one gets none while another
// serves.
func testWeights(t *testing.T, c *cluster) {
	backends := c.backends(1, 2, 3)
	backends[0].Weight, backends[1].Weight, backends[2].Weight = 3, 1, 0
	c.apply(backends...)
	const connections = 400
	count := make(map[string]int)
	for range connections {
		name, _, err := c.client.who(c.nodes[0].published())
		if err != nil {
			t.Fatal(err)
		}
		count[name]++
	}
	if n := count["web1"]; n < connections*65/100 || n > connections*85/100 || count["web3"] != 0 {
		t.Errorf("weights 3, 1, 0: %v of %d", count, connections)
	}
	c.apply(backends[2])
	if name, _, err := c.client.who(c.nodes[0].published()); err != nil || name != "web3" {
		t.Errorf("the last one: %q, %v", name, err)
	}
}
