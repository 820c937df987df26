package dataplane_test

import (
	"fmt"
	"testing"

	"github.com/orch-dev/orch/pkg/dataplane"
)

// A node that is found under another hardware address gets its packets there: what
// the routing table said is not relied on for long.
func TestNextHopChanges(t *testing.T) {
	for _, mode := range []dataplane.Mode{dataplane.ModeXDP, dataplane.ModeTC} {
		t.Run(string(mode), func(t *testing.T) {
			c := newCluster(t, mode)
			c.apply(c.backends(2)...)
			a, b := c.nodes[0], c.nodes[1]
			answers := func() bool {
				name, _, err := c.client.who(a.published())
				return err == nil && name == "web2"
			}
			c.await(answers, "no answer")
			const mac = "02:00:00:00:77:02"
			b.ip(fmt.Sprintf("link set eth0 address %s\n", mac))
			for _, s := range []*space{a.space, c.client} {
				s.ip(fmt.Sprintf("neigh replace %s lladdr %s dev eth0 nud permanent\n", b.addr, mac))
			}
			c.await(answers, "no answer since %s has another hardware address", b.addr)
		})
	}
}
