package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/network"
)

// machine stands for a node's kernel and container runtime. It keeps state as
// they do, over restarts of the agent, and notes what was done to it.
type machine struct {
	mu     sync.Mutex
	states map[api.TaskID]api.ContainerState
	links  map[api.TaskID]int
	plans  []api.NetworkPlan
	done   []string
	images []string // that were asked for
	notify func(api.TaskID)
	open   int // connections to tasks
	asked  int // how often they were counted
	deaf   int // how often tasks are asked before they listen
	heard  []uint16

	files map[api.TaskID][]string // what was placed and not removed

	imageErr, startErr, planErr error
	tunnelErr                   error
	health                      api.ContainerHealth // of containers that start
	probes, healthyAfter        int                 // probes that were run; from which on they pass, 0: never
	hangs                       bool                // does not say what it is
}

func newMachine() *machine {
	return &machine{states: make(map[api.TaskID]api.ContainerState), links: make(map[api.TaskID]int), files: make(map[api.TaskID][]string)}
}

func (m *machine) did(format string, args ...any) {
	m.done = append(m.done, fmt.Sprintf(format, args...))
}

func (m *machine) history() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]string(nil), m.done...)
}

// set changes a task's container as if by itself, with an event.
func (m *machine) set(id api.TaskID, edit func(*api.ContainerState)) {
	m.mu.Lock()
	s := m.states[id]
	edit(&s)
	m.states[id] = s
	notify := m.notify
	m.mu.Unlock()
	if notify != nil {
		notify(id)
	}
}

func (m *machine) Tasks(context.Context) (map[api.TaskID]api.ContainerState, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.states), nil
}

func (m *machine) Task(_ context.Context, id api.TaskID) (api.ContainerState, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.states[id], nil
}

func (m *machine) Info(ctx context.Context) api.NodeInfo {
	if m.hangs {
		<-ctx.Done()
	}
	return api.NodeInfo{OS: "linux"}
}

func (m *machine) Watch(ctx context.Context, notify func(api.TaskID)) error {
	m.mu.Lock()
	m.notify = notify
	m.mu.Unlock()
	notify("")
	<-ctx.Done()
	return ctx.Err()
}

func (m *machine) Logs(_ context.Context, _ api.TaskID, _ api.LogOptions, stdout, _ io.Writer) error {
	_, err := io.WriteString(stdout, "cannot reach the database\n")
	return err
}

func (m *machine) Probe(context.Context, string) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.probes++
	return m.probes >= m.healthyAfter && m.healthyAfter > 0, nil
}

func (m *machine) EnsureImage(_ context.Context, spec *api.TaskSpec) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.images = append(m.images, spec.Image)
	return m.imageErr
}

func (m *machine) ImportImage(ctx context.Context, id, name string, from api.ImageContent, progress func(done, total int64)) error {
	_, err := from.Manifest(ctx, id)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.did("copy %s (%s): %v", name, id, err)
	progress(1, 2)
	return err
}

func (m *machine) CreateSandbox(_ context.Context, t *api.Task, _ api.SandboxNet) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.did("sandbox %s", t.ID)
	m.states[t.ID] = api.ContainerState{SandboxRunning: true, NetNS: "/ns/" + string(t.ID)}
	return "/ns/" + string(t.ID), nil
}

func (m *machine) PlaceFiles(t *api.Task, contents [][]byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.files[t.ID] = nil
	for i, f := range t.Spec.Files {
		m.files[t.ID] = append(m.files[t.ID], f.Target+"="+string(contents[i]))
	}
	m.did("files of %s: %v", t.ID, m.files[t.ID])
	return nil
}

func (m *machine) RemoveFiles(id api.TaskID) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.files[id]; ok {
		m.did("remove files of %s", id)
	}
	delete(m.files, id)
	return nil
}

// StartTask fails the test's expectation if the network is not ready before it.
func (m *machine) StartTask(_ context.Context, t *api.Task) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.startErr != nil {
		return m.startErr
	}
	known := false
	if n := len(m.plans); n > 0 {
		for _, e := range m.plans[n-1].Endpoints {
			known = known || e.Addr == t.Endpoint.Addr && e.IfIndex == m.links[t.ID] && e.IfIndex != 0
		}
	}
	m.did("start %s, network ready: %v", t.ID, known)
	s := m.states[t.ID]
	s.Phase, s.Health, s.ContainerID = api.ContainerRunning, m.health, "c-"+string(t.ID)
	m.states[t.ID] = s
	return nil
}

func (m *machine) StopTask(_ context.Context, id api.TaskID, grace time.Duration) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.did("stop %s", id)
	s := m.states[id]
	s.Phase = api.ContainerExited
	m.states[id] = s
	return nil
}

func (m *machine) RemoveTask(_ context.Context, id api.TaskID) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.states[id]; ok {
		m.did("remove %s", id)
	}
	delete(m.states, id)
	delete(m.files, id)
	return nil
}

func (m *machine) Attach(_ context.Context, task api.TaskID, netns string, _ netip.Addr, _ bool) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.links[task] == 0 {
		m.links[task] = 100 + len(m.links)
		m.did("attach %s to %s", task, netns)
	}
	return m.links[task], nil
}

func (m *machine) Detach(_ context.Context, task api.TaskID) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.links, task)
	return nil
}

func (m *machine) GuardMembers([]netip.Addr) error { return nil }

func (m *machine) OpenConnections(string) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked++
	return m.open, nil
}

func (m *machine) Listens(_ string, ports []uint16) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.heard = ports
	m.deaf--
	return m.deaf < 0, nil
}

func (m *machine) List(context.Context) (map[api.TaskID]int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.links), nil
}

func (m *machine) Apply(_ context.Context, plan api.NetworkPlan) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.planErr != nil {
		return m.planErr
	}
	m.plans = append(m.plans, plan)
	return nil
}

// noPorts is of a node on which nothing needs to be reserved.
type noPorts struct{}

func (noPorts) ReservePorts([]uint16) error { return nil }
func (noPorts) ReleasePorts([]uint16) error { return nil }

// wires are a machine's devices that encrypt: each has 40 and its epoch as index.
type wires struct{ *machine }

func (w wires) Apply(plan api.NetworkPlan) ([]int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.tunnelErr != nil {
		return make([]int, len(plan.Tunnels.Epochs)), w.tunnelErr
	}
	var devices []int
	for _, epoch := range plan.Tunnels.Epochs {
		devices = append(devices, 40+int(epoch))
	}
	return devices, nil
}

func (m *machine) lastPlan() (api.NetworkPlan, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.plans) == 0 {
		return api.NetworkPlan{}, false
	}
	return m.plans[len(m.plans)-1], true
}

func (m *machine) Set(network.Zone) {}

// cluster stands for the managers and the gossip: it sends the agent states and
// stores its reports as the leader does.
type cluster struct {
	mu         sync.Mutex
	snap       *api.Snapshot
	late       *api.Snapshot // what a manager that lags sends instead
	changed    chan struct{}
	acked      api.Index
	ackedEpoch uint64
	reports    int
	info       *api.NodeInfo
	suspects   map[api.NodeID]bool
	died       map[api.TaskID]bool
	gossip     chan struct{}
	hints      []api.TaskID
	reportErr  error
	fence      time.Duration // what reports are answered with
	files      map[api.FileID]string
	filesErr   error
}

func newCluster() *cluster {
	return &cluster{changed: make(chan struct{}), gossip: make(chan struct{}), snap: &api.Snapshot{
		Index:   1,
		Cluster: &api.Cluster{Pool: api.DefaultPool},
		Nodes: map[api.NodeID]*api.Node{
			"n1": {ID: "n1", Addr: netip.MustParseAddr("192.0.2.1"), State: api.NodeReady},
			"n2": {ID: "n2", Addr: netip.MustParseAddr("192.0.2.2"), State: api.NodeReady},
			"n3": {ID: "n3", Addr: netip.MustParseAddr("192.0.2.3"), State: api.NodeReady},
		},
		Networks: map[api.NetworkID]*api.Network{"net": {ID: "net", Number: 1}},
		Services: map[api.ServiceID]*api.Service{"s": {ID: "s", Spec: api.ServiceSpec{Name: "web", Ports: nil},
			Ports: []api.Port{{Published: 80, Target: 80, Protocol: api.TCP}}}},
		Tasks: map[api.TaskID]*api.Task{},
	}}
}

// put changes the state, as one entry.
func (c *cluster) put(tasks ...*api.Task) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.putLocked(tasks...)
}

func (c *cluster) putLocked(tasks ...*api.Task) {
	var changes []api.Change
	for _, t := range tasks {
		changes = append(changes, api.Change{Task: t})
	}
	next := *c.snap.With(changes)
	next.Index++
	c.snap = &next
	c.announce()
}

// announce has the streams look at the state; c.mu is held.
func (c *cluster) announce() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// forget deletes a task from the state.
func (c *cluster) forget(id api.TaskID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := *c.snap.With([]api.Change{{Task: &api.Task{ID: id}, Delete: true}})
	next.Index++
	c.snap = &next
	c.announce()
}

// lag makes managers send a state of before, or no longer if it is nil.
func (c *cluster) lag(state *api.Snapshot) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.late = state
	c.announce()
}

// restore makes a state of before that of the managers, of another group.
func (c *cluster) restore(state *api.Snapshot) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.snap = state
	c.announce()
}

// want sets what is desired of a task.
func (c *cluster) want(id api.TaskID, desired api.DesiredState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := *c.snap.Tasks[id]
	next.Desired = desired
	c.putLocked(&next)
}

func (c *cluster) status(id api.TaskID) api.TaskStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t := c.snap.Tasks[id]; t != nil {
		return t.Status
	}
	return api.TaskStatus{}
}

// Session sends the whole state each time.
func (c *cluster) Session(ctx context.Context, each func(*api.Update) error) error {
	for {
		c.mu.Lock()
		snap, changed := c.snap, c.changed
		if c.late != nil {
			snap = c.late
		}
		c.mu.Unlock()
		u := &api.Update{Index: snap.Index, Reset: true, Changes: []api.Change{{Cluster: snap.Cluster}}}
		for _, n := range snap.Nodes {
			u.Changes = append(u.Changes, api.Change{Node: n})
		}
		for _, n := range snap.Networks {
			u.Changes = append(u.Changes, api.Change{Network: n})
		}
		for _, s := range snap.Services {
			u.Changes = append(u.Changes, api.Change{Service: s})
		}
		for _, t := range snap.Tasks {
			u.Changes = append(u.Changes, api.Change{Task: t})
		}
		if err := each(u); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

func (c *cluster) Report(_ context.Context, r *api.Report) (*api.ReportResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reportErr != nil {
		return nil, c.reportErr
	}
	c.acked, c.ackedEpoch = r.Applied, r.Epoch
	c.reports++
	if r.Info != nil {
		c.info = r.Info
	}
	for id, s := range r.Statuses {
		if t := c.snap.Tasks[id]; t != nil {
			next := *t
			if next.Status = t.Status.Advance(s); next.Status != t.Status {
				c.putLocked(&next)
			}
		}
	}
	return &api.ReportResponse{Version: c.snap.Version(), Fence: c.fence, Lease: c.snap.Cluster.LeaseTimeout}, nil
}

func (c *cluster) TaskFiles(_ context.Context, id api.TaskID) ([]api.File, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.filesErr != nil {
		return nil, c.filesErr
	}
	var files []api.File
	for _, ref := range c.snap.Tasks[id].Spec.Files {
		files = append(files, api.File{ID: ref.ID, Data: []byte(c.files[ref.ID])})
	}
	return files, nil
}

func (c *cluster) MoveOn()       {}
func (c *cluster) Know([]string) {}

func (c *cluster) Suspects() map[api.NodeID]bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.suspects)
}

func (c *cluster) Died() map[api.TaskID]bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.died)
}

func (c *cluster) Changed() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.gossip
}

func (c *cluster) SetKeys([][]byte) {}

func (c *cluster) Broadcast(id api.TaskID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hints = append(c.hints, id)
}

// rumour changes what gossip says.
func (c *cluster) rumour(suspects map[api.NodeID]bool, died map[api.TaskID]bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.suspects, c.died = suspects, died
	close(c.gossip)
	c.gossip = make(chan struct{})
}

// run starts an agent on a machine in a cluster and returns what stops it.
func run(t *testing.T, m *machine, c *cluster) (stop func()) {
	t.Helper()
	return runWith(t, m, c, newLease())
}

func runWith(t *testing.T, m *machine, c *cluster, l *lease) (stop func()) {
	t.Helper()
	a := New(Config{
		Node: "n1", Runtime: m, Links: m, Dataplane: m, Tunnels: wires{m}, Ports: noPorts{}, Names: m, Gossip: c, Managers: c, Fence: l,
		DNS: netip.MustParseAddr("169.254.20.53"), Info: m.Info,
		Now: time.Now, Log: slog.New(slog.DiscardHandler),
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
				t.Errorf("agent: %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

func await(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}
