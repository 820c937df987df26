package manager

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/orch-dev/orch/pkg/api"
)

func TestPlanAlone(t *testing.T) {
	node := func(id api.NodeID, role api.Role, addr string) *api.Node {
		return &api.Node{ID: id, Role: role, Addr: netip.MustParseAddr(addr), APIPort: 2377, Meta: api.Meta{Modified: 7}}
	}
	snap := &api.Snapshot{Cluster: &api.Cluster{Epoch: 3}, Nodes: map[api.NodeID]*api.Node{
		"m1": node("m1", api.RoleManager, "10.0.0.1"), "m2": node("m2", api.RoleManager, "10.0.0.2"),
		"w1": node("w1", api.RoleWorker, "10.0.0.3"), "w2": node("w2", api.RoleWorker, "10.0.0.4"),
	}}
	snap.Nodes["m1"].Labels = map[string]string{"zone": "a"}
	tests := []struct {
		name string
		self *api.Node
		gone []api.NodeID
		kept map[string]string
	}{
		{"one of them", node("m1", api.RoleManager, "10.0.0.9"), []api.NodeID{"m2"}, map[string]string{"zone": "a"}},
		{"another machine", node("new", api.RoleManager, "10.0.0.1"), []api.NodeID{"m1", "m2"}, nil},
		{"on what was a worker", node("new", api.RoleManager, "10.0.0.4"), []api.NodeID{"m1", "m2", "w2"}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var gone []api.NodeID
			var self *api.Node
			for _, c := range PlanAlone(snap, tt.self, 4) {
				switch {
				case c.Cluster != nil && c.Cluster.Epoch != 4:
					t.Errorf("the epoch is %d", c.Cluster.Epoch)
				case c.Cluster != nil:
				case c.Delete:
					gone = append(gone, c.Node.ID)
				default:
					self = c.Node
				}
			}
			if diff := cmp.Diff(tt.gone, gone); diff != "" {
				t.Errorf("removed (-want +got):\n%s", diff)
			}
			if self == nil || self.ID != tt.self.ID || self.Addr != tt.self.Addr || !cmp.Equal(self.Labels, tt.kept) {
				t.Errorf("it is %+v", self)
			}
		})
	}
}
