package manager

import (
	"net/netip"
	"testing"

	"github.com/orch-dev/orch/consensus"
	"github.com/orch-dev/orch/pkg/api"
)

func TestPlanMembers(t *testing.T) {
	node := func(id api.NodeID, role api.Role, addr string) *api.Node {
		at := netip.MustParseAddrPort(addr)
		return &api.Node{ID: id, Role: role, Addr: at.Addr(), APIPort: at.Port()}
	}
	snap := &api.Snapshot{Nodes: map[api.NodeID]*api.Node{
		"a": node("a", api.RoleManager, "192.0.2.1:2377"),
		"b": node("b", api.RoleManager, "192.0.2.2:2377"),
		"w": node("w", api.RoleWorker, "192.0.2.3:2377"),
	}}
	a, b := consensus.Peer{ID: "a", Addr: "192.0.2.1:2377", Voter: true}, consensus.Peer{ID: "b", Addr: "192.0.2.2:2377", Voter: true}
	for _, tt := range []struct {
		name    string
		peers   []consensus.Peer
		remove  api.NodeID
		moved   api.NodeID
		waiting int
	}{
		{"as it should be", []consensus.Peer{a, b}, "", "", 0},
		{"a worker now", []consensus.Peer{a, b, {ID: "w", Addr: "192.0.2.3:2377", Voter: true}}, "w", "", 0},
		{"no member any more", []consensus.Peer{a, b, {ID: "gone", Addr: "192.0.2.9:2377"}}, "gone", "", 0},
		{"without a vote", []consensus.Peer{a, {ID: "b", Addr: b.Addr}}, "", "", 1},
		{"moved", []consensus.Peer{a, {ID: "b", Addr: "192.0.2.8:2377", Voter: true}}, "", "b", 0},
		{"moved before it got its vote", []consensus.Peer{a, {ID: "b", Addr: "192.0.2.8:2377"}}, "", "b", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			remove, moved, waiting := planMembers(snap, tt.peers)
			if remove != tt.remove || (moved == nil) != (tt.moved == "") || moved != nil && moved.ID != tt.moved || len(waiting) != tt.waiting {
				t.Errorf("remove %q, moved %+v, waiting %v", remove, moved, waiting)
			}
		})
	}
}
