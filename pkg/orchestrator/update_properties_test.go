package orchestrator_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/orch-dev/orch/pkg/api"
)

// While nothing fails, an update or a drain never takes more than it may: no
// replica with start-first, Parallelism of them with stop-first.
func TestUpdateKeepsServing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		replicas := rapid.IntRange(1, 6).Draw(t, "replicas")
		parallelism := rapid.IntRange(0, 3).Draw(t, "parallelism")
		order := rapid.SampledFrom([]api.UpdateOrder{api.StartFirst, api.StopFirst}).Draw(t, "order")
		what := rapid.SampledFrom([]string{"update", "drain", "both"}).Draw(t, "what")
		c := newCluster(3)
		c.service("web", func(s *api.ServiceSpec) {
			s.Replicas, s.Update.Parallelism, s.Update.Order = replicas, parallelism, order
			s.Update.Delay = time.Duration(rapid.IntRange(0, 3).Draw(t, "delay")) * time.Second
		})
		if !c.settle(func() {}) {
			t.Fatal("the first version does not settle")
		}
		c.ackAll()

		image := "v1"
		if what != "drain" {
			image = "v2"
			c.service("web", func(s *api.ServiceSpec) { s.Task.Image = image })
		}
		if what != "update" {
			c.changeNode("n1", func(n *api.Node) { n.Availability = api.AvailabilityDrain })
		}
		least, most := replicas, 2*replicas
		if parallelism > 0 {
			most = replicas + parallelism
		}
		if order == api.StopFirst {
			least, most = max(0, replicas-parallelism), replicas
			if parallelism == 0 {
				least = 0
			}
		}
		settled := c.settle(func() {
			ready, live := 0, 0
			for _, task := range c.snap.Tasks {
				if task.Endpoint.State == api.EndpointReady {
					ready++
				}
				if !task.Status.State.Terminal() {
					live++
				}
			}
			if n := c.serving("web"); n < least || ready > most {
				t.Fatalf("%d tasks serve and %d are ready, want at least %d and at most %d", n, ready, least, most)
			}
			if order == api.StopFirst && live > replicas {
				t.Fatalf("%d tasks have not ended, want at most %d", live, replicas)
			}
		})
		if !settled {
			t.Fatal("the update does not settle")
		}
		for _, task := range c.snap.Tasks {
			if !task.Status.State.Terminal() && (task.Spec.Image != image || what != "update" && task.NodeID == "n1") {
				t.Fatalf("task %s runs %s on %s", task.ID, task.Spec.Image, task.NodeID)
			}
		}
	})
}

// An update to a version that does not work takes no more than one that works,
// and ends as its rules say: paused, or with the earlier version everywhere. No
// task that works is replaced on the way back.
func TestBadUpdate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		replicas := rapid.IntRange(1, 6).Draw(t, "replicas")
		parallelism := rapid.IntRange(1, 3).Draw(t, "parallelism")
		back := rapid.IntRange(1, 3).Draw(t, "parallelism of the rollback")
		orders := []api.UpdateOrder{api.StartFirst, api.StopFirst}
		order := rapid.SampledFrom(orders).Draw(t, "order")
		action := rapid.SampledFrom([]api.FailureAction{api.FailurePause, api.FailureRollback}).Draw(t, "action")
		how := rapid.SampledFrom([]string{"ends while it starts", "ends while it serves", "never becomes healthy"}).Draw(t, "how it fails")
		c := newCluster(3)
		c.service("web", func(s *api.ServiceSpec) {
			s.Replicas = replicas
			s.Update = api.UpdateConfig{Parallelism: parallelism, Order: order, Monitor: 5 * time.Second, FailureAction: action}
			s.Rollback = api.UpdateConfig{Parallelism: back, Order: rapid.SampledFrom(orders).Draw(t, "order of the rollback"), Monitor: 5 * time.Second}
		})
		if !c.settle(func() {}) {
			t.Fatal("the first version does not settle")
		}
		var good []api.TaskID
		for id := range c.snap.Tasks {
			good = append(good, id)
		}
		c.service("web", func(s *api.ServiceSpec) { s.Task.Image = "v2" })

		least, most := replicas, replicas+max(parallelism, back)
		if order == api.StopFirst {
			least = max(0, replicas-max(parallelism, back))
		}
		if how == "ends while it serves" {
			least = 0 // it has taken the place of one that worked
		}
		check := func() {
			wanted := 0
			for _, task := range c.snap.Tasks {
				if task.Desired == api.DesiredRun && !task.Status.State.Terminal() && task.Status.State != api.TaskPending {
					wanted++
				}
			}
			if n := c.serving("web"); n < least || wanted > most {
				t.Fatalf("%d tasks serve and %d are to run, want at least %d and at most %d", n, wanted, least, most)
			}
		}
		settled := c.settleWith(check, func(task *api.Task) (api.TaskStatus, bool) {
			state, paused := task.Status.State, c.snap.Services["web"].Update.Paused()
			failed := api.TaskStatus{State: api.TaskFailed, Message: "exit code 1"}
			switch {
			case task.Spec.Image != "v2" || task.Desired != api.DesiredRun || paused: // it heals, or this would go on for ever
			case how == "ends while it starts" && state == api.TaskStarting, how == "ends while it serves" && state == api.TaskRunning:
				return failed, true
			case how == "never becomes healthy" && state == api.TaskStarting:
				return task.Status, false
			}
			return c.next(task)
		})
		svc := c.snap.Services["web"]
		if !settled {
			t.Fatalf("the update does not settle: %+v", svc.Update)
		}
		want := map[api.FailureAction]api.UpdateState{api.FailurePause: api.UpdatePaused, api.FailureRollback: api.RollbackComplete}[action]
		if svc.Update.State != want || svc.Update.Message == "" {
			t.Fatalf("the update is %s: %q, want %s", svc.Update.State, svc.Update.Message, want)
		}
		if action == api.FailurePause {
			return
		}
		checkConverged(t, c)
		replaced := 0
		for _, id := range good {
			if task := c.snap.Tasks[id]; task == nil || task.Desired != api.DesiredRun {
				replaced++
			}
		}
		if allowed := replicas - least; replaced > allowed {
			t.Fatalf("%d tasks that worked were replaced, want at most %d", replaced, allowed)
		}
	})
}
