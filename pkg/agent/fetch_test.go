package agent

import (
	"errors"
	"slices"
	"testing"

	"github.com/orch-dev/orch/pkg/api"
)

// A node gets the image of what comes next while the task goes on running, and
// says how that ended, once for each time that it is asked.
func TestFetch(t *testing.T) {
	m, c := newMachine(), newCluster()
	run(t, m, c)
	c.put(assigned("a", "n1"))
	began := reaches(t, c, "a", api.TaskRunning)
	ask := func(round int64, image string) {
		c.mu.Lock()
		task := *c.snap.Tasks["a"]
		c.mu.Unlock()
		task.Fetch = &api.Fetch{Round: round, Image: image}
		c.put(&task)
	}
	answer := func(round int64) api.TaskStatus {
		t.Helper()
		var s api.TaskStatus
		await(t, "the node answers", func() bool {
			c.mu.Lock()
			defer c.mu.Unlock()
			s = c.snap.Tasks["a"].Status
			return s.Fetched == round
		})
		return s
	}
	ask(1, "next")
	if s := answer(1); s.FetchError != "" || s.State != api.TaskRunning || !s.At.Equal(began.At) {
		t.Errorf("status %+v, want running since %v", s, began.At)
	}
	m.mu.Lock()
	if !slices.Contains(m.images, "next") {
		t.Errorf("images: %v", m.images)
	}
	m.imageErr = errors.New("no such image: other")
	m.mu.Unlock()
	ask(2, "other")
	if s := answer(2); s.FetchError != "no such image: other" || s.State != api.TaskRunning {
		t.Errorf("status %+v", s)
	}
	m.mu.Lock()
	m.imageErr = nil
	m.mu.Unlock()
	ask(3, "other")
	if s := answer(3); s.FetchError != "" {
		t.Errorf("status %+v", s)
	}
}
