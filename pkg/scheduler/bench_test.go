package scheduler

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/orch-dev/orch/pkg/api"
)

// BenchmarkPlan places ten tasks on loaded nodes: what the leader does most often.
func BenchmarkPlan(b *testing.B) {
	const nodes, perService = 10_000, 1000
	c := newCluster()
	for i := range nodes {
		id := api.NodeID(fmt.Sprintf("node%021d", i))
		c.Nodes[id] = &api.Node{ID: id, State: api.NodeReady, Info: api.NodeInfo{CPUs: 64}}
	}
	for s := range 10 * nodes / perService {
		id := fmt.Sprintf("service%018d", s)
		c.service(id, nil)
		for i := range perService {
			node := fmt.Sprintf("node%021d", (s*perService+i)*7%nodes)
			c.task(fmt.Sprintf("task%012d-%08d", s, i), id, i+1, node, reserving(1))
		}
	}
	ran := c.With([]api.Change{{Cluster: &api.Cluster{}}})
	deployed := newCluster().service("new", func(s *api.Service) {
		s.Spec.Placement.Constraints = []api.Constraint{{Key: "node.role", Op: api.OpNotEqual, Value: "manager"}}
	})
	for i := range 10 {
		deployed.task(fmt.Sprint(i), "new", i+1, "", func(t *api.Task) {
			t.Endpoint.Addr = netip.AddrFrom4([4]byte{10, 1, 0, byte(i)})
		})
	}
	changes := []api.Change{{Service: deployed.Services["new"]}}
	for _, t := range deployed.Tasks {
		changes = append(changes, api.Change{Task: t})
	}
	var m Memory
	m.Plan(ran, now)
	for b.Loop() {
		if n := len(m.Plan(ran.With(changes), now)); n != 10 {
			b.Fatalf("%d changes", n)
		}
	}
}
