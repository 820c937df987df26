package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/orch-dev/orch/pkg/api"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var addr = netip.MustParseAddr("10.128.0.5")

func assigned(id api.TaskID, node api.NodeID) *api.Task {
	return &api.Task{
		ID: id, ServiceID: "s", ServiceName: "web", Slot: 1, NodeID: node, Networks: []api.NetworkID{"net"},
		Spec: api.TaskSpec{Image: "i"}, Desired: api.DesiredRun,
		Status:   api.TaskStatus{State: api.TaskAssigned},
		Endpoint: api.Endpoint{Addr: addr, State: api.EndpointPending},
	}
}

func reaches(t *testing.T, c *cluster, id api.TaskID, state api.TaskState) api.TaskStatus {
	t.Helper()
	await(t, fmt.Sprintf("task %s is %s", id, state), func() bool { return c.status(id).State == state })
	return c.status(id)
}

// A task's whole life, in the order in which things must happen: the network is
// in the kernel before the first instruction runs.
func TestLife(t *testing.T) {
	m, c := newMachine(), newCluster()
	m.health = api.HealthStarting
	run(t, m, c)
	c.put(assigned("a", "n1"))
	reaches(t, c, "a", api.TaskStarting)
	m.set("a", func(s *api.ContainerState) { s.Health = api.HealthHealthy })
	reaches(t, c, "a", api.TaskRunning)
	c.want("a", api.DesiredDrain)
	await(t, "the drain is acknowledged", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.acked == c.snap.Index
	})
	c.want("a", api.DesiredStop)
	reaches(t, c, "a", api.TaskShutdown)
	c.want("a", api.DesiredRemove)
	await(t, "it is removed", func() bool { return c.status("a").Removed })
	want := []string{"sandbox a", "attach a to /ns/a", "start a, network ready: true", "stop a", "remove a"}
	if diff := cmp.Diff(want, m.history()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A task that passes its healthcheck runs at once, not only when the runtime has
// come to look.
func TestEarlyHealth(t *testing.T) {
	m, c := newMachine(), newCluster()
	m.health, m.healthyAfter = api.HealthStarting, 3
	run(t, m, c)
	c.put(assigned("a", "n1"))
	reaches(t, c, "a", api.TaskRunning)
	if m.probes != 3 {
		t.Errorf("ran after %d probes, want 3", m.probes)
	}
	m.set("a", func(s *api.ContainerState) { s.Health = api.HealthUnhealthy })
	reaches(t, c, "a", api.TaskFailed)
}

// A task without a healthcheck runs when it listens on what its service publishes: who
// is sent to it earlier is refused.
func TestReadyWhenItListens(t *testing.T) {
	m, c := newMachine(), newCluster()
	m.deaf = 3
	c.snap.Services["s"].Ports = []api.Port{{Target: 80, Protocol: api.TCP}, {Target: 53, Protocol: api.UDP}, {Published: 8080, Target: 80, Protocol: api.TCP}}
	run(t, m, c)
	c.put(assigned("a", "n1"))
	reaches(t, c, "a", api.TaskRunning)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.deaf >= 0 {
		t.Errorf("runs, and would have listened only when asked %d times more", m.deaf+1)
	}
	if diff := cmp.Diff([]uint16{80}, m.heard); diff != "" {
		t.Errorf("ports that were asked for (-want +got):\n%s", diff)
	}
}

// One that never listens may be of use all the same.
func TestReadyThoughDeaf(t *testing.T) {
	m, c, now := newMachine(), newCluster(), time.Now()
	m.deaf = 1 << 30
	a := New(Config{Links: m, Now: func() time.Time { return now }, Log: slog.New(slog.DiscardHandler)})
	a.view.Set(c.snap)
	w, task := newWorker(a, "a"), assigned("a", "n1")
	var pauses []time.Duration
	for began := now; !w.serves(task, api.ContainerState{}); {
		if now.Sub(began) >= listenPatience {
			t.Fatalf("not ready %v after its start", now.Sub(began))
		}
		pause, due := w.probes.next(now)
		if !due || pause <= 0 || pause > maxListen {
			t.Fatalf("asked again after %v (%v)", pause, due)
		}
		pauses, now = append(pauses, pause), now.Add(pause)
	}
	if _, due := w.probes.next(now); due || len(pauses) > 30 {
		t.Errorf("asked after %v, and again: %v", pauses, due)
	}
}

func TestEndings(t *testing.T) {
	tests := []struct {
		name    string
		prepare func(*machine)
		then    func(*api.ContainerState)
		state   api.TaskState
		message string
	}{
		{"no image", func(m *machine) { m.imageErr = errors.New("no such image: i") }, nil, api.TaskRejected, "no such image: i"},
		{"does not start", func(m *machine) { m.startErr = errors.New("exec: nosuch: not found") }, nil, api.TaskRejected, "exec: nosuch: not found"},
		{"exits with an error", nil, func(s *api.ContainerState) { s.Phase, s.ExitCode = api.ContainerExited, 3 },
			api.TaskFailed, "exited with code 3: cannot reach the database"},
		{"exits well", nil, func(s *api.ContainerState) { s.Phase = api.ContainerExited }, api.TaskComplete, ""},
		{"out of memory", nil, func(s *api.ContainerState) {
			s.Phase, s.ExitCode, s.OOMKilled = api.ContainerExited, 137, true
		}, api.TaskFailed, "out of memory: cannot reach the database"},
		{"unhealthy", nil, func(s *api.ContainerState) {
			s.Health, s.HealthOutput = api.HealthUnhealthy, "connection refused\n"
		}, api.TaskFailed, "unhealthy: connection refused"},
		{"sandbox dies", nil, func(s *api.ContainerState) { s.SandboxRunning = false }, api.TaskFailed, "its sandbox died, and its network with it"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m, c := newMachine(), newCluster()
			if tt.prepare != nil {
				tt.prepare(m)
			}
			run(t, m, c)
			c.put(assigned("a", "n1"))
			if tt.then != nil {
				reaches(t, c, "a", api.TaskRunning)
				m.set("a", tt.then)
			}
			if got := reaches(t, c, "a", tt.state); got.Message != tt.message {
				t.Errorf("message %q, want %q", got.Message, tt.message)
			}
			c.mu.Lock()
			defer c.mu.Unlock()
			if told := slices.Contains(c.hints, "a"); told != (tt.then != nil) {
				t.Errorf("other nodes were told by gossip: %v", told)
			}
		})
	}
}

// An engine that is away says nothing about a task: it starts once it is back.
func TestRuntimeUnavailable(t *testing.T) {
	m, c := newMachine(), newCluster()
	m.imageErr = fmt.Errorf("look up image: %w", api.ErrRuntimeUnavailable)
	run(t, m, c)
	c.put(assigned("a", "n1"))
	reaches(t, c, "a", api.TaskPreparing)
	m.mu.Lock()
	m.imageErr = nil
	m.mu.Unlock()
	reaches(t, c, "a", api.TaskRunning)
}

// An agent that starts again leaves running containers as they are, and removes
// those that the cluster no longer knows.
func TestAdoption(t *testing.T) {
	m, c := newMachine(), newCluster()
	stop := run(t, m, c)
	other := assigned("b", "n1")
	other.Endpoint.Addr = addr.Next()
	c.put(assigned("a", "n1"), other)
	reaches(t, c, "a", api.TaskRunning)
	reaches(t, c, "b", api.TaskRunning)
	stop()
	before := len(m.history())
	c.forget("b")
	run(t, m, c)
	await(t, "what is not known is removed", func() bool { return slices.Contains(m.history(), "remove b") })
	m.set("a", func(s *api.ContainerState) { s.Phase, s.ExitCode = api.ContainerExited, 1 })
	reaches(t, c, "a", api.TaskFailed) // it is looked after again
	if diff := cmp.Diff([]string{"remove b"}, m.history()[before:]); diff != "" {
		t.Errorf("done after the restart (-want +got):\n%s", diff)
	}
}

// A container that ended while no agent ran is noticed.
func TestEndedMeanwhile(t *testing.T) {
	m, c := newMachine(), newCluster()
	stop := run(t, m, c)
	c.put(assigned("a", "n1"))
	reaches(t, c, "a", api.TaskRunning)
	stop()
	m.set("a", func(s *api.ContainerState) { s.Phase, s.ExitCode = api.ContainerExited, 1 })
	run(t, m, c)
	reaches(t, c, "a", api.TaskFailed)
}

func TestTasksOfOthersAreLeftAlone(t *testing.T) {
	m, c := newMachine(), newCluster()
	run(t, m, c)
	waits := assigned("waits", "n1")
	waits.Status.State = api.TaskPending // has a node, waits for its turn
	c.put(assigned("other", "n2"), waits, assigned("mine", "n1"))
	reaches(t, c, "mine", api.TaskRunning)
	for _, done := range m.history() {
		if strings.Contains(done, "other") || strings.Contains(done, "waits") {
			t.Errorf("did %q", done)
		}
	}
}

// Gossip takes backends away at once, without a manager; only the managers' state
// brings them back.
func TestGossipTakesAway(t *testing.T) {
	m, c := newMachine(), newCluster()
	ready := func(id api.TaskID, node api.NodeID, a netip.Addr) *api.Task {
		task := assigned(id, node)
		task.Status.State, task.Endpoint = api.TaskRunning, api.Endpoint{Addr: a, State: api.EndpointReady}
		return task
	}
	c.put(ready("b", "n2", addr), ready("c", "n2", addr.Next()), ready("d", "n3", addr.Next().Next()))
	run(t, m, c)
	backends := func() (open, draining int) {
		plan, ok := m.lastPlan()
		if !ok || len(plan.Frontends) == 0 {
			return 0, 0
		}
		for _, b := range plan.Frontends[0].Backends {
			if b.Draining {
				draining++
			} else {
				open++
			}
		}
		return open, draining
	}
	is := func(wantOpen, wantDraining int) func() bool {
		return func() bool { open, draining := backends(); return open == wantOpen && draining == wantDraining }
	}
	await(t, "three backends", is(3, 0))
	c.rumour(nil, map[api.TaskID]bool{"c": true})
	await(t, "the one that died is out", is(2, 0))
	c.rumour(map[api.NodeID]bool{"n2": true}, nil)
	await(t, "a suspected node's get nothing new", is(1, 2))
	c.rumour(nil, nil)
	await(t, "a wrong suspicion passes", is(3, 0))
}

// What is not in the kernel is not acknowledged.
func TestNoAcknowledgementWithoutTheKernel(t *testing.T) {
	m, c := newMachine(), newCluster()
	m.planErr = errors.New("map is full")
	run(t, m, c)
	c.put(assigned("a", "n1"))
	reaches(t, c, "a", api.TaskPreparing) // reports come
	c.mu.Lock()
	acked := c.acked
	c.mu.Unlock()
	if acked != 0 {
		t.Errorf("acknowledged %d, and nothing is applied", acked)
	}
	m.mu.Lock()
	m.planErr = nil
	m.mu.Unlock()
	reaches(t, c, "a", api.TaskRunning)
}

func TestReportsAreSentAgain(t *testing.T) {
	m, c := newMachine(), newCluster()
	run(t, m, c)
	await(t, "it follows the managers", func() bool { _, ok := m.lastPlan(); return ok })
	c.mu.Lock()
	c.reportErr = errors.New("no leader")
	c.mu.Unlock()
	c.put(assigned("a", "n1"))
	await(t, "it starts all the same", func() bool { return len(m.history()) == 3 })
	c.mu.Lock()
	c.reportErr = nil
	c.mu.Unlock()
	reaches(t, c, "a", api.TaskRunning)
}

// A manager that was just restarted sends what it knows from long ago. What runs
// is not taken for what the cluster does not know.
func TestStateFromLongAgo(t *testing.T) {
	m, c := newMachine(), newCluster()
	old := c.snap
	stop := run(t, m, c)
	c.put(assigned("a", "n1"))
	reaches(t, c, "a", api.TaskRunning)
	before := m.history()

	c.lag(old) // the stream goes on with another manager
	stop()
	run(t, m, c) // and after a restart begins with it
	await(t, "it reports", func() bool { c.mu.Lock(); defer c.mu.Unlock(); return c.acked == 0 })
	c.lag(nil)
	await(t, "it follows the managers again", func() bool { c.mu.Lock(); defer c.mu.Unlock(); return c.acked == c.snap.Index })
	if diff := cmp.Diff(before, m.history()); diff != "" {
		t.Errorf("done since (-want +got):\n%s", diff)
	}
}

// Managers that were restored from a backup are followed though they know less: a
// task that the backup has goes on, one that came later ends.
func TestManagersRestored(t *testing.T) {
	m, c := newMachine(), newCluster()
	run(t, m, c)
	c.put(assigned("a", "n1"))
	reaches(t, c, "a", api.TaskRunning)
	c.mu.Lock()
	backup := *c.snap
	c.mu.Unlock()
	c.put(assigned("b", "n1"))
	reaches(t, c, "b", api.TaskRunning)

	restored := *backup.Cluster
	restored.Epoch = 7
	backup.Cluster = &restored
	c.restore(&backup)
	await(t, "it acknowledges what the restored ones say", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.acked == backup.Index && c.ackedEpoch == restored.Epoch
	})
	await(t, "the task that they do not know is gone", func() bool { return slices.Contains(m.history(), "remove b") })
	if slices.Contains(m.history(), "remove a") {
		t.Errorf("the task that they know is gone: %v", m.history())
	}
}

// A task whose network never gets into the kernel can be stopped.
func TestStopBeforeTheNetworkIsReady(t *testing.T) {
	m, c := newMachine(), newCluster()
	m.planErr = errors.New("map is full")
	run(t, m, c)
	c.put(assigned("a", "n1"))
	await(t, "it waits for its network", func() bool { return slices.Contains(m.history(), "attach a to /ns/a") })
	c.want("a", api.DesiredStop)
	reaches(t, c, "a", api.TaskShutdown)
	c.want("a", api.DesiredRemove)
	await(t, "it is removed", func() bool { return c.status("a").Removed })
}

// What happens elsewhere in the cluster makes nobody ask the runtime.
func TestOthersChangesCostNothing(t *testing.T) {
	m, c := newMachine(), newCluster()
	a := New(Config{Node: "n1", Runtime: m, Links: m, Dataplane: m, Tunnels: wires{m}, Names: m, Gossip: c, Managers: c, Fence: newLease(), Now: time.Now})
	w := newWorker(a, "a")
	task := assigned("a", "n1")
	w.tell(task)
	_, changed := w.wish.Get()
	w.tell(task)
	select {
	case <-changed:
		t.Error("the worker was woken for what it knew")
	default:
	}
}

// A node whose container runtime hangs keeps its lease.
func TestReportsDoNotWaitForTheRuntime(t *testing.T) {
	m, c := newMachine(), newCluster()
	m.hangs = true
	run(t, m, c)
	await(t, "it reports", func() bool { c.mu.Lock(); defer c.mu.Unlock(); return c.reports > 0 })

	m, c = newMachine(), newCluster()
	run(t, m, c)
	await(t, "it says what it is", func() bool { c.mu.Lock(); defer c.mu.Unlock(); return c.info != nil && c.info.OS == "linux" })
}

func TestLag(t *testing.T) {
	t0 := time.Unix(0, 0)
	l := lag{patience: time.Second}
	steps := []struct {
		have, newest api.Index
		at           time.Duration
		want         bool
	}{
		{5, 5, 0, false},
		{5, 6, time.Second, false},
		{6, 7, 3 * time.Second, false}, // what was waited for came: it only runs behind
		{6, 8, 3500 * time.Millisecond, false},
		{6, 9, 4 * time.Second, true},
		{6, 9, 4500 * time.Millisecond, false}, // the next manager gets its time
		{6, 9, 5500 * time.Millisecond, true},
	}
	for _, s := range steps {
		if got := l.tooLong(api.Version{Index: s.have}, api.Version{Index: s.newest}, t0.Add(s.at)); got != s.want {
			t.Errorf("at %v: %v, want %v", s.at, got, s.want)
		}
	}
}

// A task that is to stop goes on for as long as connections to it are open, but
// not longer than its grace period.
func TestStopWaitsForConnections(t *testing.T) {
	const never = time.Hour
	for _, tt := range []struct {
		name  string
		grace time.Duration
		end   bool // the connections do
	}{{"they end", never, true}, {"the grace period does", 400 * time.Millisecond, false}} {
		t.Run(tt.name, func(t *testing.T) {
			m, c := newMachine(), newCluster()
			m.open = 1
			run(t, m, c)
			task := assigned("a", "n1")
			task.Spec.StopGrace = tt.grace
			c.put(task)
			reaches(t, c, "a", api.TaskRunning)
			start := time.Now()
			c.want("a", api.DesiredStop)
			await(t, "the connections are looked at twice", func() bool { m.mu.Lock(); defer m.mu.Unlock(); return m.asked >= 2 })
			if s := c.status("a").State; s != api.TaskRunning {
				t.Fatalf("the task is %s with open connections", s)
			}
			if tt.end {
				m.mu.Lock()
				m.open = 0
				m.mu.Unlock()
			}
			reaches(t, c, "a", api.TaskShutdown)
			if took := time.Since(start); !tt.end && took < tt.grace {
				t.Errorf("it was stopped after %v, want %v", took, tt.grace)
			}
		})
	}
}
