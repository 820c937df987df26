package orchestrator_test

import (
	"strings"
	"testing"
	"time"

	"github.com/orch-dev/orch/pkg/api"
)

// midUpdate is a cluster in the middle of a stop-first update to v2, with agents
// that do all but get images.
func midUpdate(t *testing.T, action api.FailureAction) *cluster {
	t.Helper()
	c := newCluster(2)
	c.service("web", func(s *api.ServiceSpec) { s.Replicas = 2 })
	c.settle(func() {})
	c.now = c.now.Add(time.Minute)
	c.service("web", func(s *api.ServiceSpec) {
		s.Task.Image, s.Update.FailureAction, s.ProgressDeadline = "v2", action, time.Minute
	})
	for range 10 {
		c.step()
		c.ackAll()
	}
	return c
}

// Nothing is stopped until the node has the image of what comes next; then all
// goes on.
func TestStopFirstGetsTheImageFirst(t *testing.T) {
	c := midUpdate(t, api.FailurePause)
	if n := c.serving("web"); n != 2 {
		t.Fatalf("%d serve while the image is on its way", n)
	}
	for _, task := range c.snap.Tasks {
		if task.Fetch == nil || task.Fetch.Image != "v2" {
			t.Errorf("the node of %s was not asked for the image: %+v", task.ID, task.Fetch)
		}
	}
	if !c.settle(func() {}) {
		t.Fatal("does not settle")
	}
	for _, task := range c.snap.Tasks {
		if !task.Status.State.Terminal() && task.Spec.Image != "v2" {
			t.Errorf("%s runs %s", task.ID, task.Spec.Image)
		}
	}
}

// An image that does not come stops no task, and fails the update.
func TestStopFirstWithoutTheImage(t *testing.T) {
	without := map[string]func(*cluster){
		"it cannot be had": func(c *cluster) {
			for _, task := range api.Sorted(c.snap.Tasks) {
				s := task.Status
				s.Fetched, s.FetchError = task.Fetch.Round, "the registry has no such image"
				c.report(task.ID, s)
			}
		},
		"it does not come": func(c *cluster) { c.now = c.now.Add(2 * time.Minute) },
	}
	for name, happens := range without {
		for action, state := range map[api.FailureAction]api.UpdateState{
			api.FailurePause: api.UpdatePaused, api.FailureRollback: api.RollbackComplete, api.FailureContinue: api.UpdateCompleted,
		} {
			t.Run(name+", "+string(action), func(t *testing.T) {
				c := midUpdate(t, action)
				happens(c)
				for range 10 {
					c.step()
					c.ackAll()
					c.now = c.now.Add(10 * time.Second)
				}
				svc := c.snap.Services["web"]
				if svc.Update.State != state || !strings.Contains(svc.Update.Message, "goes on with the old image") {
					t.Errorf("%s: %s, want %s", svc.Update.State, svc.Update.Message, state)
				}
				if n := c.serving("web"); n != 2 {
					t.Errorf("%d serve", n)
				}
			})
		}
	}
}

// A resumed update asks again.
func TestResumedUpdateFetchesAgain(t *testing.T) {
	c := midUpdate(t, api.FailurePause)
	for _, task := range api.Sorted(c.snap.Tasks) {
		s := task.Status
		s.Fetched, s.FetchError = task.Fetch.Round, "no such image"
		c.report(task.ID, s)
	}
	c.step()
	if !c.resume(c.snap.Services["web"]) {
		t.Fatal("it was not paused")
	}
	if !c.settle(func() {}) {
		t.Fatal("does not settle")
	}
	if state := c.snap.Services["web"].Update.State; state != api.UpdateCompleted {
		t.Errorf("the update is %s: %s", state, c.snap.Services["web"].Update.Message)
	}
}
