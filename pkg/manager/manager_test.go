package manager

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/orch-dev/orch/consensus"
	"github.com/orch-dev/orch/consensus/store"
	"github.com/orch-dev/orch/pkg/api"
)

// lead starts the manager of a cluster of one, on a real log in a directory of
// the test.
func lead(t *testing.T) (*Replica, *Tracker) {
	t.Helper()
	return leadWith(t, func() string { return api.NewID(rand.Reader) })
}

// leadWith is lead with what gives tasks their IDs.
func leadWith(t *testing.T, newID func() string) (*Replica, *Tracker) {
	t.Helper()
	addr := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}
	state := store.New()
	log := slog.New(slog.DiscardHandler)
	raft, err := consensus.New(consensus.Config{
		ID: "n1", Addr: addr.String(), Dir: t.TempDir(), FSM: state, Log: log,
		Transport: consensus.NewStreamLayer(addr, func(context.Context, string) (net.Conn, error) {
			return nil, errors.New("there are no others")
		}),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := raft.Bootstrap(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	replica, tracker := &Replica{Store: state, Raft: raft}, NewTracker()
	done := make(chan error, 1)
	m := New(replica, tracker, newID, rand.Reader, time.Now, log)
	go func() { done <- m.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, raft.Shutdown()); err != nil {
			t.Error(err)
		}
	})
	wait, stop := context.WithTimeout(ctx, 30*time.Second)
	defer stop()
	if _, _, err := raft.WaitLeader(wait); err != nil {
		t.Fatal(err)
	}
	return replica, tracker
}

// await waits until the state is as cond says.
func await(t *testing.T, r *Replica, what string, cond func(*api.Snapshot) bool) *api.Snapshot {
	t.Helper()
	timeout := time.After(30 * time.Second)
	for {
		changed := r.Changed()
		snap := r.Snapshot()
		if cond(snap) {
			return snap
		}
		select {
		case <-changed:
		case <-timeout:
			t.Fatalf("not in time: %s", what)
		}
	}
}

// One service goes from its spec to running tasks and away again, with the test
// in the place of the agent.
func TestServiceFromSpecToNothing(t *testing.T) {
	r, tracker := lead(t)
	ctx := context.Background()
	svc := &api.Service{ID: "s", Spec: api.ServiceSpec{
		Name: "web", Mode: api.ModeReplicated, Replicas: 2, Networks: []string{"net"},
		Task: api.TaskSpec{Image: "i"}, Ports: []api.Port{{Published: 8080, Target: 80, Protocol: api.TCP}},
	}}
	if _, err := r.Commit(ctx, []api.Change{
		{Cluster: &api.Cluster{ID: "c", Pool: api.DefaultPool, LeaseTimeout: time.Minute}},
		{Node: &api.Node{ID: "n1", Hostname: "n1", State: api.NodeDown, Role: api.RoleManager, Availability: api.AvailabilityActive}},
		{Network: &api.Network{ID: "net", Name: "net"}},
		{Service: svc},
	}); err != nil {
		t.Fatal(err)
	}
	await(t, r, "two tasks wait for a node", func(s *api.Snapshot) bool { return len(s.Tasks) == 2 })

	acknowledge := func() {
		index := r.Snapshot().Index
		tracker.Reported("n1", index, index, time.Now())
	}
	acknowledge()
	snap := await(t, r, "the node is ready and has the tasks, with addresses", func(s *api.Snapshot) bool {
		n := 0
		for _, task := range s.Tasks {
			if task.NodeID == "n1" && task.Status.State == api.TaskAssigned && task.Endpoint.Addr.IsValid() {
				n++
			}
		}
		return n == 2
	})
	if got := snap.Services["s"]; !got.VIP.IsValid() || len(got.Ports) != 1 || snap.Networks["net"].Number == 0 {
		t.Errorf("not all is allocated: vip %v, ports %v, network %d", got.VIP, got.Ports, snap.Networks["net"].Number)
	}

	setAll(t, r, api.TaskStatus{State: api.TaskRunning})
	await(t, r, "running tasks are ready", func(s *api.Snapshot) bool {
		for _, task := range s.Tasks {
			if task.Endpoint.State != api.EndpointReady {
				return false
			}
		}
		return true
	})
	acknowledge()

	if _, err := r.Update(ctx, func(s *api.Snapshot) ([]api.Change, error) {
		return []api.Change{{Service: s.Services["s"], Delete: true}}, nil
	}); err != nil {
		t.Fatal(err)
	}
	snap = await(t, r, "the tasks drain", func(s *api.Snapshot) bool { return every(s, api.DesiredDrain) })
	for _, task := range snap.Tasks {
		if task.Endpoint.State != api.EndpointDraining {
			t.Errorf("task %s drains, its endpoint is %s", task.ID, task.Endpoint.State)
		}
	}
	acknowledge()
	await(t, r, "acknowledged, they are stopped", func(s *api.Snapshot) bool { return every(s, api.DesiredStop) })
	setAll(t, r, api.TaskStatus{State: api.TaskShutdown})
	await(t, r, "stopped, they are removed", func(s *api.Snapshot) bool { return every(s, api.DesiredRemove) })
	setAll(t, r, api.TaskStatus{State: api.TaskShutdown, Removed: true})
	await(t, r, "nothing is left", func(s *api.Snapshot) bool { return len(s.Tasks) == 0 })
}

// A manager that wins a later term while it still plans in an earlier one does not
// answer as its leader before it has begun that.
func TestTermThatIsWonWhilePlanning(t *testing.T) {
	planning, goOn := make(chan struct{}), make(chan struct{})
	hold := sync.OnceFunc(func() { close(planning); <-goOn })
	resume := sync.OnceFunc(func() { close(goOn) })
	r, tracker := leadWith(t, func() string { hold(); return api.NewID(rand.Reader) })
	t.Cleanup(resume) // before the manager is waited for
	if _, err := r.Commit(context.Background(), []api.Change{
		{Cluster: &api.Cluster{ID: "c", Pool: api.DefaultPool, LeaseTimeout: time.Minute}},
		{Service: &api.Service{ID: "s", Spec: api.ServiceSpec{Name: "web", Mode: api.ModeReplicated, Replicas: 1, Task: api.TaskSpec{Image: "i"}}}},
	}); err != nil {
		t.Fatal(err)
	}
	<-planning
	if !r.Leads(tracker) {
		t.Error("it does not lead the term that it plans in")
	}
	term := r.Raft.Term()
	if err := r.Raft.Retime(2 * api.DefaultElectionTimeout); err != nil {
		t.Fatal(err)
	}
	wait, stop := context.WithTimeout(context.Background(), 30*time.Second)
	defer stop()
	if _, _, err := r.Raft.WaitLeader(wait); err != nil {
		t.Fatal(err)
	}
	if now := r.Raft.Term(); now <= term || !r.Raft.IsLeader() {
		t.Fatalf("it has not won a later term, but is in %d after %d", now, term)
	}
	if r.Leads(tracker) {
		t.Error("it answers as the leader of a term that it has not begun")
	}
	resume()
	for !r.Leads(tracker) {
		select {
		case <-wait.Done():
			t.Fatal("it does not begin the later term")
		case <-time.After(time.Millisecond):
		}
	}
}

// More changes than one entry should hold are made in several.
func TestMoreThanAnEntryHolds(t *testing.T) {
	r, _ := lead(t)
	const replicas = 5
	if _, err := r.Commit(context.Background(), []api.Change{
		{Cluster: &api.Cluster{ID: "c", Pool: api.DefaultPool, LeaseTimeout: time.Minute}},
		{Service: &api.Service{ID: "s", Spec: api.ServiceSpec{
			Name: "web", Mode: api.ModeReplicated, Replicas: replicas,
			Task: api.TaskSpec{Image: "i", Labels: map[string]string{"large": strings.Repeat("x", entrySize/2)}},
		}}},
	}); err != nil {
		t.Fatal(err)
	}
	snap := await(t, r, "all tasks are there", func(s *api.Snapshot) bool { return len(s.Tasks) == replicas })
	entries := make(map[api.Index]bool)
	for _, task := range snap.Tasks {
		entries[task.Meta.Created] = true
	}
	if len(entries) < 3 {
		t.Errorf("made in %d entries", len(entries))
	}
}

func every(s *api.Snapshot, desired api.DesiredState) bool {
	for _, task := range s.Tasks {
		if task.Desired != desired {
			return false
		}
	}
	return len(s.Tasks) > 0
}

func setAll(t *testing.T, r *Replica, status api.TaskStatus) {
	t.Helper()
	if _, err := r.Update(context.Background(), func(s *api.Snapshot) (changes []api.Change, err error) {
		for _, task := range api.Sorted(s.Tasks) {
			next := *task
			next.Status = task.Status.Advance(status)
			changes = append(changes, api.Change{Task: &next})
		}
		return changes, nil
	}); err != nil {
		t.Fatal(err)
	}
}

func TestUpdateTriesAgainAfterAConflict(t *testing.T) {
	r, _ := lead(t)
	ctx := context.Background()
	if _, err := r.Commit(ctx, []api.Change{{Network: &api.Network{ID: "n", Name: "n"}}}); err != nil {
		t.Fatal(err)
	}
	calls := 0
	_, err := r.Update(ctx, func(s *api.Snapshot) ([]api.Change, error) {
		if calls++; calls == 1 { // somebody else comes between
			other := *s.Networks["n"]
			other.Internal = true
			if _, err := r.Commit(ctx, []api.Change{{Network: &other}}); err != nil {
				return nil, err
			}
		}
		next := *s.Networks["n"]
		next.Number = 7
		return []api.Change{{Network: &next}}, nil
	})
	if got := r.Snapshot().Networks["n"]; err != nil || calls != 2 || !got.Internal || got.Number != 7 {
		t.Errorf("after %d calls: %+v, %v; want both updates after 2", calls, got, err)
	}
}

func TestUpdateKeepsTheErrorOfItsFunction(t *testing.T) {
	r, _ := lead(t)
	want := fmt.Errorf("no")
	if _, err := r.Update(context.Background(), func(*api.Snapshot) ([]api.Change, error) { return nil, want }); !errors.Is(err, want) {
		t.Errorf("got %v", err)
	}
}

// A manager that cannot be reached is known not to have become one.
func TestManagerThatDoesNotAnswer(t *testing.T) {
	r, _ := lead(t)
	node := &api.Node{ID: "n2", Addr: netip.MustParseAddr("192.0.2.2"), APIPort: 2377}
	if err := r.AddMember(context.Background(), node); api.CodeOf(err) != api.CodeInvalid {
		t.Errorf("code %s: %v", api.CodeOf(err), err)
	}
}
