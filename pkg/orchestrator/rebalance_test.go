package orchestrator_test

import (
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/orch-dev/orch/pkg/api"
)

func (c *cluster) spreadOf(id api.ServiceID) []int {
	on := map[api.NodeID]int{}
	for n := range c.snap.Nodes {
		on[n] = 0
	}
	for _, t := range c.snap.Tasks {
		if t.ServiceID == id && !t.Status.State.Terminal() {
			on[t.NodeID]++
		}
	}
	return slices.Sorted(maps.Values(on))
}

func back(n *api.Node) { n.State, n.Rebalance = api.NodeReady, true }

// A node that comes back gets its part again, one task of the service at a time,
// and none of them is missed on the way.
func TestRebalance(t *testing.T) {
	for _, order := range []api.UpdateOrder{api.StopFirst, api.StartFirst} {
		c := newCluster(3)
		c.service("web", func(s *api.ServiceSpec) { s.Replicas, s.Update.Order = 9, order })
		c.settle(func() {})
		expect := func(want ...int) {
			t.Helper()
			if diff := cmp.Diff(want, c.spreadOf("web")); diff != "" {
				t.Errorf("tasks of each node (-want +got):\n%s", diff)
			}
		}
		expect(3, 3, 3)
		c.changeNode("n2", func(n *api.Node) { n.State = api.NodeDown })
		c.settle(func() {})
		expect(0, 4, 5)
		c.changeNode("n2", back)
		most := 0
		c.settle(func() {
			running := 0
			for _, task := range c.snap.Tasks {
				if !task.Status.State.Terminal() {
					running++
				}
			}
			if most = max(most, running); c.serving("web") < 8 { // those of an index that not all nodes know do not count
				t.Errorf("%d serve", c.serving("web"))
			}
		})
		expect(3, 3, 3)
		if most != 10 {
			t.Errorf("up to %d tasks at the same time, want one more than there are slots", most)
		}
		if slices.ContainsFunc(api.Sorted(c.snap.Nodes), func(n *api.Node) bool { return n.Rebalance }) {
			t.Error("it does not end")
		}
	}
}

func TestRebalanceLeavesAlone(t *testing.T) {
	tests := []struct {
		name string
		spec func(*api.ServiceSpec)
		want []int
	}{
		{"what differs by one", func(s *api.ServiceSpec) { s.Replicas = 1 }, []int{0, 1}},
		{"what has its data on its node", func(s *api.ServiceSpec) {
			s.Replicas = 4
			s.Task.Mounts = []api.Mount{{Type: api.MountVolume, Source: "data", Target: "/data"}}
		}, []int{0, 4}},
		{"what the node is not for", func(s *api.ServiceSpec) {
			s.Replicas = 4
			s.Placement.Constraints = []api.Constraint{{Key: "node.id", Op: api.OpEqual, Value: "n0"}}
		}, []int{0, 4}},
		{"nothing else", func(s *api.ServiceSpec) { s.Replicas = 4 }, []int{2, 2}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := newCluster(2)
			c.changeNode("n1", func(n *api.Node) { n.State = api.NodeDown })
			c.service("web", tt.spec)
			c.settle(func() {})
			c.changeNode("n1", back)
			if !c.settle(func() {}) {
				t.Fatal("does not settle")
			}
			if diff := cmp.Diff(tt.want, c.spreadOf("web")); diff != "" {
				t.Errorf("tasks of each node (-want +got):\n%s", diff)
			}
		})
	}
}

// Where the tasks do not run on the node that is back, they stay where they are,
// and it is not tried for ever.
func TestRebalanceGivesUp(t *testing.T) {
	c := newCluster(2)
	c.changeNode("n1", func(n *api.Node) { n.State = api.NodeDown })
	c.service("web", func(s *api.ServiceSpec) { s.Replicas = 4 })
	c.settle(func() {})
	c.changeNode("n1", back)
	lowest := 4
	settled := c.settleWith(func() { lowest = min(lowest, c.serving("web")) }, func(task *api.Task) (api.TaskStatus, bool) {
		if task.NodeID == "n1" && task.Status.State == api.TaskStarting {
			return api.TaskStatus{State: api.TaskFailed, Message: "exited with code 1"}, true
		}
		return c.next(task)
	})
	if !settled {
		t.Fatal("does not settle")
	}
	if diff := cmp.Diff([]int{0, 4}, c.spreadOf("web")); diff != "" || lowest < 4 {
		t.Errorf("at least %d served, tasks of each node (-want +got):\n%s", lowest, diff)
	}
}

// From whatever spread, services become even, also over the values of what they
// are to be spread over.
func TestRebalanceEvens(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes := rapid.IntRange(2, 6).Draw(t, "nodes")
		c := newCluster(nodes)
		racks := map[api.NodeID]string{}
		for id := range c.snap.Nodes {
			c.changeNode(id, func(n *api.Node) { n.State = api.NodeDown })
		}
		for _, n := range api.Sorted(c.snap.Nodes) {
			racks[n.ID] = rapid.SampledFrom([]string{"a", "b"}).Draw(t, "rack")
			c.changeNode(n.ID, func(n *api.Node) { n.Labels = map[string]string{"rack": racks[n.ID]} })
		}
		c.changeNode("n0", back)
		c.service("web", func(s *api.ServiceSpec) {
			s.Replicas = rapid.IntRange(1, 12).Draw(t, "replicas")
			if rapid.Bool().Draw(t, "preference") {
				s.Placement.Preferences = []string{"node.labels.rack"}
			}
		})
		c.settle(func() {})
		for _, n := range api.Sorted(c.snap.Nodes)[1:] {
			c.changeNode(n.ID, back)
			if !c.settle(func() {}) {
				t.Fatal("does not settle")
			}
		}
		preferred := len(c.snap.Services["web"].Spec.Placement.Preferences) > 0
		byRack, byNode := map[string]int{}, map[string][]int{}
		for _, n := range c.snap.Nodes {
			count := 0
			for _, task := range c.snap.Tasks {
				if task.NodeID == n.ID && !task.Status.State.Terminal() {
					count++
				}
			}
			group := ""
			if preferred {
				group = racks[n.ID]
				byRack[group] += count
			}
			byNode[group] = append(byNode[group], count)
		}
		counts := slices.Sorted(maps.Values(byRack))
		if len(counts) > 1 && counts[1]-counts[0] > 1 {
			t.Fatalf("racks have %v", byRack)
		}
		for group, counts := range byNode {
			if slices.Max(counts)-slices.Min(counts) > 1 {
				t.Fatalf("nodes of rack %q have %v", group, counts)
			}
		}
	})
}
