package control

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/orch-dev/orch/consensus/store"
	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/manager"
	"github.com/orch-dev/orch/pkg/network"
	"github.com/orch-dev/orch/pkg/orchestrator"
	"github.com/orch-dev/orch/tests/anything"
)

// machine is the managers' state machine without Raft: what its entries make of
// the state. Entries that it refuses as a whole are the proposer's fault.
type machine struct {
	*store.Store
	t     *testing.T
	index api.Index
}

func (m *machine) commit(who string, changes []api.Change) {
	m.t.Helper()
	data, err := store.Encode(changes)
	if err != nil {
		m.t.Fatalf("%s: %v", who, err)
	}
	m.index++
	if answer := m.Apply(m.index, data); answer != nil {
		m.t.Fatalf("%s is refused by the store: %v", who, answer)
	}
}

// fuzzMachine is a cluster of two nodes with one stack.
func fuzzMachine(t *testing.T) *machine {
	m := &machine{Store: store.New(), t: t}
	var changes []api.Change
	for i, id := range []api.NodeID{"n1", "n2"} {
		changes = append(changes, api.Change{Node: &api.Node{
			ID: id, Hostname: string(id), Role: api.RoleManager, Availability: api.AvailabilityActive, State: api.NodeReady,
			Addr: netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}), APIPort: 2377, GossipPort: 7946,
			Info: api.NodeInfo{OS: "linux", Arch: "amd64", CPUs: 4, MemoryBytes: 8 << 30},
		}})
	}
	from := state()
	for _, c := range everything(from) {
		switch { // as new objects
		case c.Service != nil:
			c.Service.Meta = api.Meta{}
		case c.Network != nil:
			c.Network.Meta = api.Meta{}
		}
		changes = append(changes, c)
	}
	m.commit("the first state", changes)
	return m
}

// plan does what the leader does until nothing is left to do, within reason.
func (m *machine) plan(now time.Time, newID func() string) {
	for range 5 {
		snap := m.Snapshot()
		planned := new(manager.Planner).Plan(orchestrator.Input{
			Snapshot: snap, Now: now, Acked: snap.Index, Fenced: func(api.NodeID) bool { return true },
			NewID: func() api.TaskID { return api.TaskID(newID()) },
		})
		if len(planned.Changes) == 0 {
			return
		}
		m.commit("what the leader plans", planned.Changes)
	}
}

// words are those that specs and reports are made of.
var words = []string{
	"blog", "blog_web", "blog_default", "blog_db", "web", "i:1", "n1", "node.role", "node.labels.zone", "manager", "==", "!=",
	"replicated", "global", "replicated-job", "global-job", "vip", "dnsrr", "tcp", "udp", "ingress", "host", "secret", "config",
	"any", "on-failure", "none", "start-first", "stop-first", "pause", "continue", "rollback", "volume", "bind", "tmpfs", "linux", "amd64",
	"service_started", "service_healthy", "service_completed_successfully", "10.128.0.9", "::1", "CMD",
	"192.0.2.7:2377", "192.0.2.2:1", "[2001:db8::1]:2377",
	"pending", "assigned", "preparing", "starting", "running", "complete", "failed", "rejected", "shutdown", "orphaned",
}

// FuzzDeploy looks for stacks, and for what nodes report of their tasks, that
// bring a manager or a node down: a panic in what all of them do with the state
// would follow them through every restart.
func FuzzDeploy(f *testing.F) {
	f.Add([]byte("one service"), []byte{}, []byte{1, 2, 3})
	f.Add(bytes.Repeat([]byte{1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233}, 40), []byte{0, 4, 1, 3}, bytes.Repeat([]byte{1, 47, 0, 2}, 30))
	f.Add(bytes.Repeat([]byte{3, 17, 1, 0, 201, 9}, 100), bytes.Repeat([]byte{1, 9, 2}, 20), bytes.Repeat([]byte{2, 50, 1}, 30))
	f.Fuzz(func(t *testing.T, spec, more, report []byte) {
		req, err := anything.Of[api.DeployRequest](spec, words...)
		if err != nil {
			t.Fatal(err)
		}
		plausible(req, more)
		if req.Validate() != nil {
			return
		}
		tasks := 0
		for _, s := range req.Services {
			tasks += s.Replicas
		}
		if tasks > 20 {
			return // possible, but slow
		}
		m, newID, now := fuzzMachine(t), ids(), t0
		changes, _, err := planDeploy(m.Snapshot(), req, newID, now)
		if err != nil {
			return
		}
		m.commit("the stack", changes)
		for range 3 {
			m.plan(now, newID)
			m.report(report, now)
			now = now.Add(time.Minute)
		}
		m.plan(now, newID)
		m.readBack()
	})
}

// plausible makes a request more like one that is not refused at first sight,
// where the bytes say so.
func plausible(req *api.DeployRequest, more []byte) {
	say := func(i int) bool { return i >= len(more) || more[i]&1 == 0 }
	if say(0) {
		req.Stack = "blog"
	}
	if len(req.Services) == 0 {
		req.Services = make([]api.ServiceSpec, 1)
	}
	for i := range req.Services {
		s := &req.Services[i]
		if say(1) {
			s.Name, s.Task.Image = fmt.Sprint("blog_s", i), "i:1"
		}
		if say(2) && !slices.Contains([]api.Mode{api.ModeGlobal, api.ModeGlobalJob, api.ModeReplicatedJob}, s.Mode) {
			s.Mode = api.ModeReplicated
		}
		if say(3) {
			s.Replicas = max(0, min(s.Replicas, 5))
		}
		if say(4) {
			for _, name := range s.Networks {
				if !slices.ContainsFunc(req.Networks, func(n api.NetworkSpec) bool { return n.Name == name }) {
					req.Networks = append(req.Networks, api.NetworkSpec{Name: name})
				}
			}
		}
		if say(5) {
			s.Update, s.Rollback = api.UpdateConfig{}, api.UpdateConfig{}
		}
		for p := range s.Ports {
			if say(6) {
				s.Ports[p].Target, s.Ports[p].Protocol = 80, api.TCP
			}
		}
	}
}

// report has each node report the same of its tasks, in turn.
func (m *machine) report(text []byte, now time.Time) {
	for _, node := range []api.NodeID{"n1", "n2"} {
		said := must(anything.Of[api.Report](text, words...))
		req := &api.Report{Node: node, Addr: said.Addr, Info: said.Info, Statuses: make(map[api.TaskID]api.TaskStatus)}
		names := api.SortedKeys(said.Statuses)
		for i, t := range m.TasksByNode(node) {
			if len(names) > 0 {
				req.Statuses[t.ID] = said.Statuses[names[i%len(names)]]
			}
		}
		if checkMove(m.Snapshot(), req) != nil {
			req.Addr = netip.AddrPort{}
		}
		m.commit("a report", planReport(m.Snapshot(), req, now))
	}
}

// readBack is what nodes and managers that start later do with the state.
func (m *machine) readBack() {
	view := (&api.Snapshot{}).With(fullView("n1", m.Snapshot()).Changes)
	view.Index = m.index
	links := make(map[api.TaskID]int)
	for id := range view.Tasks {
		links[id] = len(links) + 1
	}
	plan := network.Plan(view, "n1", map[api.NodeID]bool{"n2": true}, links)
	if a, b := plan.Members[0].Addr, plan.Members[1].Addr; a == b || !a.Is4() || !b.Is4() {
		m.t.Fatalf("the nodes are at %s and %s", a, b)
	}
	network.Names(view, "n1")

	var saved, again bytes.Buffer
	for _, step := range []struct {
		from *store.Store
		to   *bytes.Buffer
	}{{m.Store, &saved}, {store.New(), &again}} {
		if step.to == &again {
			if err := step.from.Restore(bytes.NewReader(saved.Bytes())); err != nil {
				m.t.Fatalf("the state cannot be read back: %v", err)
			}
		}
		if err := must(step.from.Save())(step.to); err != nil {
			m.t.Fatal(err)
		}
	}
	if !bytes.Equal(saved.Bytes(), again.Bytes()) {
		m.t.Fatalf("saved, read back and saved again the state is another:\n%s\n%s", saved.Bytes(), again.Bytes())
	}
}
