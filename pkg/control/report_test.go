package control

import (
	"net/netip"
	"testing"
	"time"

	"github.com/orch-dev/orch/pkg/api"
)

// A node that has another address says so with what it is; it cannot have that of
// another node.
func TestReportedAddress(t *testing.T) {
	old := netip.MustParseAddrPort("192.0.2.1:2377")
	snap := &api.Snapshot{Nodes: map[api.NodeID]*api.Node{
		"a": {ID: "a", Addr: old.Addr(), APIPort: old.Port()},
		"b": {ID: "b", Addr: netip.MustParseAddr("192.0.2.2"), APIPort: 2377},
	}}
	report := func(addr string) *api.Report {
		r := &api.Report{Node: "a", Info: &api.NodeInfo{}}
		if addr != "" {
			r.Addr = netip.MustParseAddrPort(addr)
		}
		return r
	}
	for addr, changes := range map[string]int{"": 0, old.String(): 0, "192.0.2.7:2377": 1, "192.0.2.1:2378": 1} {
		got := planReport(snap, report(addr), time.Time{})
		if len(got) != changes {
			t.Errorf("%q: %+v", addr, got)
		}
		if changes == 1 && got[0].Node.APIAddr() != addr {
			t.Errorf("%q: the node is at %s", addr, got[0].Node.APIAddr())
		}
	}
	if other := holder(snap, report("192.0.2.2:2377")); other == nil || other.ID != "b" {
		t.Errorf("the address of another node is %+v's", other)
	}
	if other := holder(snap, report("")); other != nil {
		t.Errorf("no address is %s's", other.ID)
	}
}
