package agent

import (
	"errors"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/orch-dev/orch/pkg/api"
)

// lease stands for a fence whose guard never has to do anything.
type lease struct {
	mu      sync.Mutex
	start   time.Time
	until   time.Duration
	guarded map[api.TaskID]string
}

func newLease() *lease { return &lease{start: time.Now(), guarded: map[api.TaskID]string{}} }

func (l *lease) Now() time.Duration { return time.Since(l.start) }

func (l *lease) Left() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.until - l.Now()
}

func (l *lease) Renew(until time.Duration) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.until = max(l.until, until)
	return nil
}

func (l *lease) Guard(task api.TaskID, container string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.guarded[task] = container
	return nil
}

func (l *lease) Release(task api.TaskID) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.guarded, task)
	return nil
}

func (l *lease) all() map[api.TaskID]string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.guarded)
}

func singleton(id api.TaskID) *api.Task {
	t := assigned(id, "n1")
	t.Spec.Singleton, t.Spec.StopGrace = true, time.Second
	return t
}

func (c *cluster) grant(fence time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fence = fence
}

// A singleton's task waits for a lease, is under guard while it runs, and not any
// more once it has ended.
func TestSingletonWaitsForALease(t *testing.T) {
	m, c, l := newMachine(), newCluster(), newLease()
	runWith(t, m, c, l)
	c.put(singleton("a"))
	await(t, "it is under guard before it runs", func() bool { _, ok := l.all()["a"]; return ok })
	if s := m.state("a"); s.Phase != api.ContainerNone {
		t.Errorf("it was started without a lease: %+v", s)
	}
	c.grant(time.Minute)
	reaches(t, c, "a", api.TaskRunning)
	await(t, "the guard knows its container", func() bool { return l.all()["a"] != "" })
	m.set("a", func(s *api.ContainerState) { s.Phase = api.ContainerExited })
	reaches(t, c, "a", api.TaskComplete)
	await(t, "it is released", func() bool { return cmp.Equal(map[api.TaskID]string{}, l.all()) })
}

// A node that hears nothing of the managers stops its singletons in good order
// before its lease ends, and nothing else.
func TestSingletonIsStoppedBeforeTheLeaseEnds(t *testing.T) {
	m, c, l := newMachine(), newCluster(), newLease()
	c.snap.Cluster.LeaseTimeout = 2 * time.Second
	c.grant(c.snap.Cluster.FenceLease())
	runWith(t, m, c, l)
	c.put(singleton("a"))
	c.put(assigned("b", "n1"))
	reaches(t, c, "a", api.TaskRunning)
	reaches(t, c, "b", api.TaskRunning)
	c.mu.Lock()
	c.reportErr = errors.New("no manager answers")
	c.mu.Unlock()
	await(t, "it is stopped", func() bool { return m.state("a").Phase == api.ContainerExited })
	if left := l.Left(); left <= 0 {
		t.Errorf("it was stopped %v after the end of the lease", -left)
	}
	if m.state("b").Phase != api.ContainerRunning {
		t.Error("what is no singleton was stopped, too")
	}
	c.mu.Lock()
	c.reportErr = nil
	c.mu.Unlock()
	reaches(t, c, "a", api.TaskFailed)
}

func (m *machine) state(id api.TaskID) api.ContainerState {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.states[id]
}
