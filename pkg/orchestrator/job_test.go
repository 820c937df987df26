package orchestrator_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/orch-dev/orch/pkg/api"
)

func asJob(completions, concurrent int) func(*api.Service) {
	return func(s *api.Service) {
		s.Spec.Mode, s.Spec.Replicas, s.Spec.MaxConcurrent = api.ModeReplicatedJob, completions, concurrent
	}
}

func TestJobs(t *testing.T) {
	done := task("t21", 1, "a", api.TaskComplete, at(ago(5)))
	runPlans(t, []planTest{
		{"a task for each completion", state(asJob(2, 0)), []api.Change{made(1, 1, ""), made(2, 2, "")}},
		{"no more of them than may run at the same time", state(asJob(3, 1)), []api.Change{made(1, 1, "")}},
		{"what is done makes room for the next", state(asJob(3, 1), done), []api.Change{made(1, 2, "")}},
		{"what runs does not", state(asJob(3, 1), done, task("t22", 2, "a", api.TaskRunning)), nil},
		{"all is done", state(asJob(1, 0), done), nil},
		{"a new spec is done anew", state(asJob(1, 0), task("t9", 1, "a", api.TaskComplete, old)),
			[]api.Change{made(1, 1, "", reason("the service was updated"))}},
		{"a failure is tried again", state(asJob(1, 0), task("t21", 1, "a", api.TaskFailed, at(ago(5)))),
			[]api.Change{made(1, 1, "", reason("the last task failed"))}},
		{"not where the policy says so", state(func(s *api.Service) {
			asJob(1, 0)(s)
			s.Spec.Restart.Condition = api.RestartNone
		}, task("t21", 1, "a", api.TaskFailed, at(ago(5)))), nil},
		{"nor more often than it says", state(func(s *api.Service) {
			asJob(1, 0)(s)
			s.Spec.Restart.MaxAttempts = 1
		}, task("t21", 1, "a", api.TaskFailed, at(ago(9))), task("t22", 1, "a", api.TaskFailed, at(ago(5)))), nil},
	})
}

// Whatever happens to nodes and tasks, each of a job's slots is done in the end,
// none is done again once it was, none has two tasks, and never do more run than
// may.
func TestJobsAreDoneOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := newCluster(3)
		completions, concurrent := rapid.IntRange(1, 6).Draw(t, "completions"), rapid.IntRange(0, 3).Draw(t, "concurrent")
		c.service("job", func(s *api.ServiceSpec) {
			s.Mode, s.Replicas, s.MaxConcurrent = api.ModeReplicatedJob, completions, concurrent
		})
		done := map[int]bool{}
		step := func() {
			made := c.snap
			c.step()
			busy := map[int]int{}
			for _, task := range c.snap.Tasks {
				if made.Tasks[task.ID] == nil && done[task.Slot] {
					t.Fatalf("slot %d was done and gets another task", task.Slot)
				}
				if !task.Status.State.Terminal() {
					busy[task.Slot]++
				}
			}
			for slot, n := range busy {
				if n > 1 {
					t.Fatalf("slot %d has %d tasks", slot, n)
				}
			}
			if concurrent > 0 && len(busy) > concurrent {
				t.Fatalf("%d tasks run, %d may", len(busy), concurrent)
			}
		}
		act := func(fail bool) {
			for _, task := range api.Sorted(c.snap.Tasks) {
				status, ok := c.next(task)
				if task.Status.State == api.TaskRunning && task.Desired == api.DesiredRun && c.snap.Nodes[task.NodeID].State == api.NodeReady {
					status, ok = api.TaskStatus{State: api.TaskComplete}, true
					if fail && rapid.Bool().Draw(t, "fails") {
						status.State = api.TaskFailed
					}
				}
				if ok {
					c.report(task.ID, status)
				}
				if task := c.snap.Tasks[task.ID]; task.Status.State == api.TaskComplete {
					done[task.Slot] = true
				}
			}
			c.ackAll()
			c.now = c.now.Add(6 * time.Second)
		}
		nodes := 3
		for range rapid.IntRange(0, 30).Draw(t, "rounds") {
			step()
			act(true)
			at := rapid.SampledFrom(api.Sorted(c.snap.Nodes)).Draw(t, "node").ID
			switch rapid.IntRange(0, 5).Draw(t, "what") {
			case 0:
				c.changeNode(at, func(n *api.Node) { n.State = api.NodeDown })
			case 1:
				c.changeNode(at, func(n *api.Node) { n.State, n.Availability = api.NodeReady, api.AvailabilityActive })
			case 2:
				c.changeNode(at, func(n *api.Node) { n.Availability = api.AvailabilityDrain })
			case 3:
				c.commit([]api.Change{{Node: c.snap.Nodes[at], Delete: true}, {Node: node(nodes)}})
				nodes++
			}
		}
		for id := range c.snap.Nodes {
			c.changeNode(id, func(n *api.Node) { n.State, n.Availability = api.NodeReady, api.AvailabilityActive })
		}
		for range 100 {
			step()
			act(false)
		}
		if len(done) != completions {
			t.Fatalf("%d of %d are done", len(done), completions)
		}
		if changes := c.plan(); len(changes) > 0 {
			t.Fatalf("a job that is done still plans %d changes", len(changes))
		}
	})
}
