package dataplane_test

import (
	"net/netip"
	"testing"

	"github.com/orch-dev/orch/pkg/dataplane"
)

// Each connection's handshake is counted once, where its client enters, and what
// goes to a node never becomes less, also when its backends go.
func testHandshakesAndPairs(t *testing.T, c *cluster) {
	c.apply(c.backends(1, 2)...)
	entry := c.nodes[0]
	before, elsewhere, pairs := handshakesOf(entry), handshakesOf(c.nodes[1]), pairsOf(entry)
	const connections = 40
	for range connections {
		for _, to := range []netip.AddrPort{entry.published(), entry.published6()} {
			if _, _, err := c.client.who(to); err != nil {
				t.Fatal(err)
			}
		}
	}
	after := handshakesOf(entry)
	if got := after.count() - before.count(); got != 2*connections {
		t.Errorf("%d handshakes of %d connections are counted", got, 2*connections)
	}
	if after.Total <= before.Total {
		t.Errorf("they took no time: %v, then %v", before.Total, after.Total)
	}
	if got := handshakesOf(c.nodes[1]); got != elsewhere {
		t.Errorf("on the backend's node there are %+v, then %+v", elsewhere, got)
	}
	now := pairsOf(entry)
	flows := uint64(0)
	for _, n := range c.nodes[:2] {
		flows += now[n.addr].Flows - pairs[n.addr].Flows
		if now[n.addr].Packets < pairs[n.addr].Packets+4 {
			t.Errorf("%s got %+v, then %+v", n.name, pairs[n.addr], now[n.addr])
		}
	}
	if flows != 2*connections {
		t.Errorf("%d flows of %d went to the two nodes", flows, 2*connections)
	}
	c.apply(c.backends(3)...) // with no backend left on these
	for addr, was := range now {
		if got := pairsOf(entry)[addr]; got.Flows < was.Flows || got.Packets < was.Packets || got.Bytes < was.Bytes {
			t.Errorf("%s got %+v, and without its backends %+v", addr, was, got)
		}
	}
}

type handshakes struct{ dataplane.Handshakes }

func (h handshakes) count() (sum uint64) {
	for _, n := range h.Counts {
		sum += n
	}
	return sum
}

// handshakesOf are those of the published TCP port.
func handshakesOf(n *node) handshakes {
	for _, f := range n.stats().Frontends {
		if f.Port == publishedPort && f.Protocol == "tcp" {
			return handshakes{f.Handshakes}
		}
	}
	return handshakes{}
}

func pairsOf(n *node) map[netip.Addr]dataplane.PairStats {
	all := make(map[netip.Addr]dataplane.PairStats)
	for _, p := range n.stats().Pairs {
		all[p.Node] = p
	}
	return all
}
