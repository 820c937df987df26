package orchestrator_test

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/orch-dev/orch/pkg/api"
)

// byValue compares all but what is only told to people (see TestHistory).
var byValue = cmp.Options{cmpopts.EquateComparable(netip.Addr{}), cmpopts.IgnoreFields(api.Task{}, "History")}

var desiredOrder = map[api.DesiredState]int{api.DesiredRun: 0, api.DesiredDrain: 1, api.DesiredStop: 2, api.DesiredRemove: 3}
var endpointOrder = map[api.EndpointState]int{
	api.EndpointPending: 0, api.EndpointReady: 1, api.EndpointDraining: 2, api.EndpointGone: 3,
}

// checkInvariants compares two states around one step of the planners.
func checkInvariants(t *rapid.T, before *api.Snapshot, acked api.Index, after *api.Snapshot) {
	held := map[netip.Addr]string{}
	hold := func(addr netip.Addr, who string) {
		if other, taken := held[addr]; taken && addr.IsValid() {
			t.Fatalf("%s is held by %s and %s", addr, other, who)
		}
		held[addr] = who
	}
	for _, s := range after.Services {
		hold(s.VIP, "service "+s.Spec.Name)
	}
	active := map[string]int{}
	for _, task := range after.Tasks {
		if task.Endpoint.State != api.EndpointGone {
			hold(task.Endpoint.Addr, "task "+string(task.ID))
		}
		if task.Desired == api.DesiredRun && !task.Status.State.Terminal() {
			key := fmt.Sprintf("%s.%d", task.ServiceID, task.Slot)
			if task.Slot == 0 {
				key += string(task.NodeID)
			}
			if active[key]++; active[key] > 2 {
				t.Fatalf("slot %s has %d tasks that are to run", key, active[key])
			}
		}
		if task.Status.State.Terminal() && task.Endpoint.State != api.EndpointGone {
			t.Fatalf("task %s is %s with endpoint %s", task.ID, task.Status.State, task.Endpoint.State)
		}
		if task.Endpoint.State == api.EndpointReady && task.Status.State != api.TaskRunning {
			t.Fatalf("task %s is %s with endpoint ready", task.ID, task.Status.State)
		}
		old := before.Tasks[task.ID]
		if old == nil {
			continue
		}
		if desiredOrder[task.Desired] < desiredOrder[old.Desired] || endpointOrder[task.Endpoint.State] < endpointOrder[old.Endpoint.State] ||
			task.Status.State.Before(old.Status.State) || old.NodeID != "" && task.NodeID != old.NodeID {
			t.Fatalf("task moved back:\n%s", cmp.Diff(old, task, byValue))
		}
		ordered := task.Desired == api.DesiredStop && old.Desired != api.DesiredStop
		if ordered && old.Endpoint.State == api.EndpointReady ||
			ordered && old.Endpoint.State == api.EndpointDraining && acked < old.Endpoint.Since {
			t.Fatalf("task %s is stopped while nodes may send it new flows", task.ID)
		}
	}
}

// checkConverged asserts that the cluster is what its services say.
func checkConverged(t *rapid.T, c *cluster) {
	if changes := c.plan(); len(changes) > 0 {
		t.Fatalf("a settled cluster still plans: %s", cmp.Diff([]api.Change(nil), changes, byValue))
	}
	type key struct {
		service api.ServiceID
		slot    int
		node    api.NodeID
	}
	got, want := map[key]int{}, map[key]int{}
	for _, task := range c.snap.Tasks {
		svc := c.snap.Services[task.ServiceID]
		if svc == nil {
			t.Fatalf("task %s outlived its service", task.ID)
		}
		if task.Status.State.Terminal() {
			continue
		}
		if task.Status.State != api.TaskRunning || task.Endpoint.State != api.EndpointReady || task.Desired != api.DesiredRun ||
			task.SpecVersion != svc.SpecVersion {
			t.Fatalf("task %s of version %d of %s: %s, endpoint %s, desired %s, reason %q", task.ID, task.SpecVersion,
				svc.Spec.Name, task.Status.State, task.Endpoint.State, task.Desired, task.Reason)
		}
		k := key{task.ServiceID, task.Slot, ""}
		if task.Slot == 0 {
			k.node = task.NodeID
		}
		got[k]++
	}
	for id, svc := range c.snap.Services {
		if svc.Update.Running() || svc.Update.Paused() {
			t.Fatalf("service %s has settled and is %s: %s", svc.Spec.Name, svc.Update.State, svc.Update.Message)
		}
		if svc.Spec.Mode == api.ModeGlobal {
			for n, node := range c.snap.Nodes {
				if node.State == api.NodeReady && node.Availability == api.AvailabilityActive {
					want[key{id, 0, n}] = 1
				}
			}
			continue
		}
		for i := range svc.Spec.Replicas {
			want[key{id, i + 1, ""}] = 1
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("tasks by slot (-want +got):\n%s", diff)
	}
	checkEven(t, c)
	ended := map[key]int{}
	for _, task := range c.snap.Tasks {
		if task.Status.State.Terminal() && task.Status.Removed {
			k := key{task.ServiceID, task.Slot, task.NodeID}
			if task.Slot != 0 {
				k.node = ""
			}
			if ended[k]++; ended[k] > 5 {
				t.Fatalf("%d ended tasks are kept for %v", ended[k], k)
			}
		}
	}
}

// checkEven asserts that no node has two tasks more of a service than another, as
// far as tasks can be moved: those that failed to move once are not tried again.
func checkEven(t *rapid.T, c *cluster) {
	for id, svc := range c.snap.Services {
		on, ended := map[api.NodeID]int{}, false
		for n := range c.snap.Nodes {
			on[n] = 0
		}
		for _, task := range c.snap.Tasks {
			switch {
			case task.ServiceID != id:
			case task.Status.State.Terminal():
				ended = true
			default:
				on[task.NodeID]++
			}
		}
		counts := slices.Sorted(maps.Values(on))
		if svc.Spec.Mode == api.ModeReplicated && !ended && counts[len(counts)-1]-counts[0] > 1 {
			t.Fatalf("service %s is uneven: %v", svc.Spec.Name, on)
		}
	}
	for _, n := range c.snap.Nodes {
		if n.Rebalance {
			t.Fatalf("node %s is never done with rebalancing", n.ID)
		}
	}
}

// Whatever happens to a cluster, in any order, no step breaks an invariant, and
// once it is left alone it becomes what was asked for and stays so.
func TestClusterConverges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := newCluster(3)
		nodes := 3
		var steps int
		step := func() {
			before, acked := c.snap, c.lowestAck()
			planned, again := c.plan(), c.plan()
			if diff := cmp.Diff(planned, again, byValue); diff != "" {
				t.Fatalf("two plans of one state differ:\n%s", diff)
			}
			c.step()
			checkInvariants(t, before, acked, c.snap)
			steps++
		}
		pickNode := func(t *rapid.T) api.NodeID {
			if len(c.snap.Nodes) == 0 {
				t.Skip("no node")
			}
			return rapid.SampledFrom(api.Sorted(c.snap.Nodes)).Draw(t, "node").ID
		}
		pickTask := func(t *rapid.T, label string, is func(*api.Task) bool) *api.Task {
			var some []*api.Task
			for _, task := range api.Sorted(c.snap.Tasks) {
				if is(task) {
					some = append(some, task)
				}
			}
			if len(some) == 0 {
				t.Skip("no such task")
			}
			return rapid.SampledFrom(some).Draw(t, label)
		}
		names := []string{"web", "db", "agent"}
		pickService := func(t *rapid.T, names []string) *api.Service {
			svc := c.snap.Services[api.ServiceID(rapid.SampledFrom(names).Draw(t, "service"))]
			if svc == nil {
				t.Skip("no such service")
			}
			return svc
		}
		t.Repeat(map[string]func(*rapid.T){
			"plan": func(*rapid.T) { step() },
			"settle a little": func(t *rapid.T) {
				for range rapid.IntRange(1, 6).Draw(t, "rounds") {
					step()
					for _, task := range api.Sorted(c.snap.Tasks) {
						if status, ok := c.next(task); ok {
							c.report(task.ID, status)
						}
					}
					c.ackAll()
				}
			},
			"progress": func(t *rapid.T) {
				task := pickTask(t, "task", func(task *api.Task) bool { _, ok := c.next(task); return ok })
				status, _ := c.next(task)
				c.report(task.ID, status)
			},
			"fail": func(t *rapid.T) {
				task := pickTask(t, "task", func(task *api.Task) bool {
					return task.NodeID != "" && task.Status.State != api.TaskPending && !task.Status.State.Terminal()
				})
				state := rapid.SampledFrom([]api.TaskState{api.TaskFailed, api.TaskRejected, api.TaskComplete}).Draw(t, "state")
				c.report(task.ID, api.TaskStatus{State: state, Message: "exit code 1"})
			},
			"acknowledge": func(t *rapid.T) { c.acked[pickNode(t)] = c.snap.Index },
			"time":        func(t *rapid.T) { c.now = c.now.Add(time.Duration(rapid.IntRange(1, 20).Draw(t, "s")) * time.Second) },
			"node goes or comes": func(t *rapid.T) {
				c.changeNode(pickNode(t), func(n *api.Node) {
					n.State = rapid.SampledFrom([]api.NodeState{api.NodeReady, api.NodeDown}).Draw(t, "state")
				})
			},
			"availability": func(t *rapid.T) {
				c.changeNode(pickNode(t), func(n *api.Node) {
					n.Availability = rapid.SampledFrom([]api.Availability{
						api.AvailabilityActive, api.AvailabilityPause, api.AvailabilityDrain}).Draw(t, "availability")
				})
			},
			"remove node": func(t *rapid.T) {
				c.commit([]api.Change{{Node: c.snap.Nodes[pickNode(t)], Delete: true}})
			},
			"add node": func(t *rapid.T) {
				if len(c.snap.Nodes) < 4 {
					c.commit([]api.Change{{Node: node(nodes)}})
					nodes++
				}
			},
			"deploy": func(t *rapid.T) {
				c.service(rapid.SampledFrom(names).Draw(t, "service"), func(s *api.ServiceSpec) {
					s.Task.Image = rapid.SampledFrom([]string{"v1", "v2", "v3"}).Draw(t, "image")
					s.Replicas = rapid.IntRange(0, 4).Draw(t, "replicas")
					s.Mode = rapid.SampledFrom([]api.Mode{api.ModeReplicated, api.ModeReplicated, api.ModeGlobal}).Draw(t, "mode")
					s.Update.Order = rapid.SampledFrom([]api.UpdateOrder{api.StartFirst, api.StopFirst}).Draw(t, "order")
					s.Update.Parallelism = rapid.IntRange(0, 2).Draw(t, "parallelism")
					s.Update.Delay = time.Duration(rapid.IntRange(0, 10).Draw(t, "delay")) * time.Second
					s.Update.Monitor = time.Duration(rapid.IntRange(0, 10).Draw(t, "monitor")) * time.Second
					s.Update.MaxFailureRatio = rapid.SampledFrom([]float64{0, 0, 0.3, 1}).Draw(t, "ratio")
					s.Update.FailureAction = rapid.SampledFrom([]api.FailureAction{
						"", api.FailurePause, api.FailureContinue, api.FailureRollback}).Draw(t, "action")
					s.Rollback = s.Update
					s.ProgressDeadline = time.Duration(rapid.IntRange(0, 30).Draw(t, "deadline")) * time.Second
				})
			},
			"roll back": func(t *rapid.T) {
				if back := pickService(t, names).RolledBack("asked to", c.now); back != nil {
					c.commit([]api.Change{{Service: back}})
				}
			},
			"pause": func(t *rapid.T) {
				if svc := pickService(t, names); svc.Update.Running() {
					state := api.UpdatePaused
					if svc.Update.Back() {
						state = api.RollbackPaused
					}
					c.commit([]api.Change{{Service: svc.WithUpdate(state, "asked to", c.now)}})
				}
			},
			"resume": func(t *rapid.T) { c.resume(pickService(t, names)) },
			"remove service": func(t *rapid.T) {
				if svc := c.snap.Services[api.ServiceID(rapid.SampledFrom(names).Draw(t, "service"))]; svc != nil {
					c.commit([]api.Change{{Service: svc, Delete: true}})
				}
			},
		})

		for id := range c.snap.Nodes {
			c.changeNode(id, func(n *api.Node) {
				n.State, n.Availability, n.Rebalance = api.NodeReady, api.AvailabilityActive, true
			})
		}
		c.now = c.now.Add(10 * time.Minute) // what failed is forgotten
		if len(c.snap.Nodes) == 0 {
			c.commit([]api.Change{{Node: node(nodes)}})
		}
		if !c.settle(func() {}) {
			t.Fatal("the cluster does not settle")
		}
		for c.resumeAll() {
			if !c.settle(func() {}) {
				t.Fatal("the cluster does not settle once its updates were resumed")
			}
		}
		checkConverged(t, c)
	})
}
