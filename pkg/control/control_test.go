package control

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/rpc"
)

var comparable = cmpopts.EquateComparable(netip.Addr{})

// ids makes id1, id2, ...
func ids() func() string {
	n := 0
	return func() string { n++; return fmt.Sprintf("id%d", n) }
}

func spec(name string, published ...uint16) api.ServiceSpec {
	s := api.ServiceSpec{Name: name, Mode: api.ModeReplicated, Replicas: 2, Task: api.TaskSpec{Image: "i:1"}}
	for _, p := range published {
		s.Ports = append(s.Ports, api.Port{Published: p, Target: 80, Protocol: api.TCP})
	}
	return s
}

// state is a cluster with one stack "blog" of one service "blog_web" on 8080.
func state() *api.Snapshot {
	web := &api.Service{ID: "web", Stack: "blog", Spec: spec("blog_web", 8080), SpecVersion: 5, Meta: api.Meta{Created: 5, Modified: 5}}
	web.Ports = web.Spec.Ports
	return &api.Snapshot{
		Index:    9,
		Cluster:  &api.Cluster{ID: "c", Pool: api.DefaultPool, WorkerToken: "w", ManagerToken: "m", GossipKey: []byte("k"), Authority: api.Authority{Key: []byte("a")}},
		Services: map[api.ServiceID]*api.Service{"web": web},
		Networks: map[api.NetworkID]*api.Network{"net": {ID: "net", Name: "blog_default", Stack: "blog", Number: 1, Meta: api.Meta{Modified: 4}}},
	}
}

func TestPlanDeploy(t *testing.T) {
	changed := spec("blog_web", 8080)
	changed.Task.Image = "i:2"
	tests := []struct {
		name    string
		req     api.DeployRequest
		changes []string
		actions []api.ServiceChange
		err     string
	}{
		{"the same again changes nothing",
			api.DeployRequest{Stack: "blog", Services: []api.ServiceSpec{spec("blog_web", 8080)}, Networks: []api.NetworkSpec{{Name: "blog_default"}}},
			nil, []api.ServiceChange{{Name: "blog_web", Action: "unchanged"}}, ""},
		{"a new spec updates",
			api.DeployRequest{Stack: "blog", Services: []api.ServiceSpec{changed}},
			[]string{"put service web"}, []api.ServiceChange{{Name: "blog_web", Action: "updated"}}, ""},
		{"what is missing is made",
			api.DeployRequest{Stack: "blog", Services: []api.ServiceSpec{spec("blog_web", 8080), spec("blog_db")}, Networks: []api.NetworkSpec{{Name: "blog_back"}}},
			[]string{"put network id1", "put service id3"}, []api.ServiceChange{{Name: "blog_web", Action: "unchanged"}, {Name: "blog_db", Action: "created"}}, ""},
		{"what is not named stays",
			api.DeployRequest{Stack: "blog", Services: []api.ServiceSpec{spec("blog_db")}},
			[]string{"put service id1"}, []api.ServiceChange{{Name: "blog_db", Action: "created"}}, ""},
		{"what is not named goes when asked",
			api.DeployRequest{Stack: "blog", Prune: true, Services: []api.ServiceSpec{spec("blog_db")}},
			[]string{"delete service web", "put service id1"}, []api.ServiceChange{{Name: "blog_web", Action: "removed"}, {Name: "blog_db", Action: "created"}}, ""},
		{"what one has that goes is free",
			api.DeployRequest{Stack: "blog", Prune: true, Services: []api.ServiceSpec{spec("blog_new", 8080)}},
			[]string{"delete service web", "put service id1"}, []api.ServiceChange{{Name: "blog_web", Action: "removed"}, {Name: "blog_new", Action: "created"}}, ""},
		{"a port of another service",
			api.DeployRequest{Stack: "shop", Services: []api.ServiceSpec{spec("shop_web", 8080)}}, nil, nil, "8080/tcp is already published by service blog_web"},
		{"a port twice in one stack",
			api.DeployRequest{Stack: "shop", Services: []api.ServiceSpec{spec("shop_a", 81), spec("shop_b", 81)}}, nil, nil, "81/tcp is already published by service shop_a"},
		{"a service of another stack",
			api.DeployRequest{Stack: "shop", Services: []api.ServiceSpec{spec("blog_web")}}, nil, nil, `belongs to stack "blog"`},
		{"an external network that is not there",
			api.DeployRequest{Stack: "shop", Services: []api.ServiceSpec{spec("shop_a")}, Networks: []api.NetworkSpec{{Name: "x", External: true}}}, nil, nil, "network x is external but does not exist"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			changes, actions, err := planDeploy(state(), &tt.req, ids(), time.Time{})
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("error %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.changes, describe(changes)); diff != "" {
				t.Errorf("changes (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.actions, actions); diff != "" {
				t.Errorf("actions (-want +got):\n%s", diff)
			}
		})
	}
}

func describe(changes []api.Change) (out []string) {
	for _, c := range changes {
		verb := "put"
		if c.Delete {
			verb = "delete"
		}
		out = append(out, fmt.Sprintf("%s %s %s", verb, c.Ref().Kind, c.Ref().ID))
	}
	return out
}

func TestStatus(t *testing.T) {
	running := api.TaskStatus{State: api.TaskRunning}
	ready := api.Endpoint{State: api.EndpointReady, Since: 7}
	up := func(slot int) *api.Task {
		return &api.Task{ID: api.TaskID(fmt.Sprint("t", slot)), ServiceID: "web", ServiceName: "blog_web", Slot: slot, Desired: api.DesiredRun, SpecVersion: 5, Status: running, Endpoint: ready}
	}
	with := func(t *api.Task, edit func(*api.Task)) *api.Task { edit(t); return t }
	type test struct {
		name  string
		tasks []*api.Task
		acked api.Index
		want  api.ServiceStatus
		edit  func(*api.ServiceSpec)
	}
	tests := []test{
		{"all run", []*api.Task{up(1), up(2)}, 7, api.ServiceStatus{Desired: 2, Running: 2, Updated: 2, Converged: true}, nil},
		{"not every node knows yet", []*api.Task{up(1), up(2)}, 6, api.ServiceStatus{Desired: 2, Running: 2}, nil},
		{"one is of an old spec", []*api.Task{up(1), with(up(2), func(t *api.Task) { t.SpecVersion = 4 })}, 7,
			api.ServiceStatus{Desired: 2, Running: 2, Updated: 1}, nil},
		{"one too many still leaves", []*api.Task{up(1), up(2), with(up(3), func(t *api.Task) { t.Desired = api.DesiredDrain })}, 7,
			api.ServiceStatus{Desired: 2, Running: 2, Updated: 2}, nil},
		{"the old task of a slot serves beside the new one", []*api.Task{up(1), up(2), with(up(2), func(t *api.Task) { t.ID, t.SpecVersion = "old", 4 })}, 7,
			api.ServiceStatus{Desired: 2, Running: 2, Updated: 2}, nil},
		{"one finds no node", []*api.Task{up(1), with(up(2), func(t *api.Task) {
			t.Status, t.Endpoint, t.Reason = api.TaskStatus{State: api.TaskPending}, api.Endpoint{}, "no suitable node: 3 are drained"
		})}, 7, api.ServiceStatus{Desired: 2, Running: 1, Updated: 1, Reason: "no suitable node: 3 are drained", Unplaceable: true}, nil},
		{"one waits for another service", []*api.Task{up(1), with(up(2), func(t *api.Task) {
			t.Status, t.Endpoint, t.Reason = api.TaskStatus{State: api.TaskPending}, api.Endpoint{}, "waits for blog_db to be healthy"
		})}, 7, api.ServiceStatus{Desired: 2, Running: 1, Updated: 1, Reason: "waits for blog_db to be healthy"}, nil},
		{"one fails", []*api.Task{up(1), with(up(2), func(t *api.Task) {
			t.Status, t.Desired = api.TaskStatus{State: api.TaskFailed, Message: "exited with code 1"}, api.DesiredRemove
		})}, 7, api.ServiceStatus{Desired: 2, Running: 1, Updated: 1, Reason: "blog_web.2: exited with code 1", Failures: 1}, nil},
		{"a failure that was made good is forgotten", []*api.Task{up(1), up(2), with(up(2), func(t *api.Task) {
			t.ID, t.Status, t.Desired = "old", api.TaskStatus{State: api.TaskFailed, Message: "x"}, api.DesiredRemove
		})}, 7, api.ServiceStatus{Desired: 2, Running: 2, Updated: 2, Converged: true}, nil},
	}
	once := func(s *api.ServiceSpec) { s.Restart.Condition = api.RestartNone }
	global := func(s *api.ServiceSpec) { s.Mode = api.ModeGlobal }
	job := func(s *api.ServiceSpec) { s.Mode, s.MaxConcurrent = api.ModeReplicatedJob, 1 }
	ended := func(slot int, state api.TaskState) *api.Task {
		return with(up(slot), func(t *api.Task) { t.Status, t.Desired = api.TaskStatus{State: state, Message: "x"}, api.DesiredRemove })
	}
	special := []test{
		{"two did their work, for good", []*api.Task{ended(1, api.TaskComplete), ended(2, api.TaskComplete)}, 7,
			api.ServiceStatus{Desired: 2, Completed: 2, Converged: true}, once},
		{"one ended and will be started again", []*api.Task{up(1), ended(2, api.TaskComplete)}, 7,
			api.ServiceStatus{Desired: 2, Running: 1, Updated: 1}, nil},
		{"one failed for good", []*api.Task{up(1), ended(2, api.TaskFailed)}, 7,
			api.ServiceStatus{Desired: 2, Running: 1, Updated: 1, Reason: "blog_web.2: x", Failures: 1, GaveUp: true}, once},
		{"a global service that has no task yet", nil, 7, api.ServiceStatus{Desired: 1}, global},
		{"a job has not converged while it runs", []*api.Task{up(1), ended(2, api.TaskComplete)}, 7,
			api.ServiceStatus{Desired: 2, Running: 1, Updated: 1, Completed: 1, MaxConcurrent: 1}, job},
		{"a job that is done", []*api.Task{ended(1, api.TaskComplete), ended(2, api.TaskComplete)}, 7,
			api.ServiceStatus{Desired: 2, Completed: 2, MaxConcurrent: 1, Converged: true}, job},
	}
	for _, tt := range append(tests, special...) {
		t.Run(tt.name, func(t *testing.T) {
			snap := state()
			snap.Nodes = map[api.NodeID]*api.Node{
				"n1": {ID: "n1", State: api.NodeReady, Availability: api.AvailabilityActive},
				"n2": {ID: "n2", State: api.NodeReady, Availability: api.AvailabilityDrain},
				"n3": {ID: "n3", State: api.NodeDown, Availability: api.AvailabilityActive},
			}
			if tt.edit != nil {
				tt.edit(&snap.Services["web"].Spec)
			}
			snap.Tasks = make(map[api.TaskID]*api.Task)
			for _, task := range tt.tasks {
				snap.Tasks[task.ID] = task
			}
			want := tt.want
			want.Name, want.Mode, want.Image, want.Ports = "blog_web", snap.Services["web"].Spec.Mode, "i:1", snap.Services["web"].Ports
			if diff := cmp.Diff([]api.ServiceStatus{want}, statuses(snap, "blog", tt.acked), comparable); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// What a node is sent of the cluster has no secrets in it, and of other nodes'
// tasks only where they can be reached.
func TestViewHasNoSecrets(t *testing.T) {
	const secret = "PLANTED"
	snap := state()
	snap.Cluster.WorkerToken, snap.Cluster.ManagerToken = secret, secret
	snap.Cluster.UnlockKey, snap.Cluster.Authority.Key, snap.Cluster.RotatedTokens = []byte(secret), []byte(secret), [][]byte{[]byte(secret)}
	snap.Cluster.GossipKey, snap.Cluster.NextGossipKey, snap.Cluster.OldGossipKey = []byte(secret), []byte(secret), []byte(secret)
	snap.Services["web"].Spec.Task.Env = []string{"PASSWORD=" + secret}
	task := func(id api.TaskID, node api.NodeID) *api.Task {
		return &api.Task{ID: id, ServiceID: "web", NodeID: node, Networks: []api.NetworkID{"net"},
			Spec: api.TaskSpec{Env: []string{"PASSWORD=" + secret}}, Endpoint: api.Endpoint{Addr: netip.MustParseAddr("10.128.0.3")}}
	}
	snap.Tasks = map[api.TaskID]*api.Task{"mine": task("mine", "n1"), "other": task("other", "n2")}
	u := fullView("n1", snap)
	for _, c := range u.Changes {
		text := fmt.Sprintf("%+v %+v %+v", c.Cluster, c.Service, c.Task)
		text += strings.ReplaceAll(text, fmt.Sprint([]byte(secret)), secret)
		if own := c.Task != nil && c.Task.ID == "mine"; strings.Contains(text, secret) != own {
			t.Errorf("%v: secret sent: %v, want %v", c.Ref(), !own, own)
		}
		if c.Task != nil && (!c.Task.Endpoint.Addr.IsValid() || len(c.Task.Networks) == 0) {
			t.Errorf("%v has no address or networks", c.Ref())
		}
	}
	if snap.Cluster.WorkerToken != secret || snap.Tasks["other"].Spec.Env == nil {
		t.Error("the state itself was changed")
	}
}

func TestPlanReport(t *testing.T) {
	snap := state()
	task := func(id api.TaskID, node api.NodeID, s api.TaskState) *api.Task {
		return &api.Task{ID: id, NodeID: node, Status: api.TaskStatus{State: s}}
	}
	snap.Nodes = map[api.NodeID]*api.Node{"n1": {ID: "n1"}}
	snap.Tasks = map[api.TaskID]*api.Task{
		"starts": task("starts", "n1", api.TaskPreparing), "ended": task("ended", "n1", api.TaskFailed), "foreign": task("foreign", "n2", api.TaskRunning),
		"newer": task("newer", "n1", api.TaskPending),
	}
	got := planReport(snap, &api.Report{Node: "n1", Info: &api.NodeInfo{Kernel: "6"}, Statuses: map[api.TaskID]api.TaskStatus{
		"starts":  {State: api.TaskRunning},
		"ended":   {State: api.TaskRunning},  // a task never moves back
		"foreign": {State: api.TaskShutdown}, // and a node reports only its own
		"unknown": {State: api.TaskRunning},
		"newer":   {State: "hibernating"}, // a state of a newer orch
	}}, t0)
	started := task("starts", "n1", api.TaskRunning)
	started.Note(t0, "running")
	want := []api.Change{
		{Node: &api.Node{ID: "n1", Info: api.NodeInfo{Kernel: "6"}}},
		{Task: started},
	}
	if diff := cmp.Diff(want, got, comparable); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestRoleOf(t *testing.T) {
	rotated := sha256.Sum256([]byte("old"))
	c := &api.Cluster{WorkerToken: "worker", ManagerToken: "manager", RotatedTokens: [][]byte{rotated[:]}}
	for secret, want := range map[string]string{
		"worker": "worker", "manager": "manager", "old": "error: replaced", "": "error: wrong", "worke": "error: wrong", "x": "error: wrong",
	} {
		role, err := roleOf(c, secret)
		problem, denied := strings.CutPrefix(want, "error: ")
		switch {
		case denied && (role != "" || err == nil || api.CodeOf(err) != api.CodeDenied || !strings.Contains(err.Error(), problem)):
			t.Errorf("%q: role %q, %v; want an error that says %q", secret, role, err, problem)
		case !denied && (err != nil || string(role) != want):
			t.Errorf("%q: role %q, %v; want %s", secret, role, err, want)
		}
	}
	if role, err := roleOf(&api.Cluster{}, ""); err == nil {
		t.Errorf("no secret is the %s's of a cluster without tokens", role)
	}
}

func TestFind(t *testing.T) {
	nodes := []*api.Node{{ID: "abc1", Hostname: "n1"}, {ID: "abd2", Hostname: "n2"}, {ID: "n1x", Hostname: "n3"}, {ID: "x4", Hostname: "twin"}, {ID: "x5", Hostname: "twin"}}
	key := func(n *api.Node) (string, string) { return n.Hostname, string(n.ID) }
	for ref, want := range map[string]string{
		"n1": "abc1", "abd2": "abd2", "abc": "abc1", "ab": "error: beginning of the IDs of 2 nodes", "zz": "error: no node is called", "": "error: no node is called", "twin": `error: 2 nodes are called "twin"`,
	} {
		n, err := find("node", ref, slices.Values(nodes), key)
		problem, isErr := strings.CutPrefix(want, "error: ")
		if isErr != (err != nil) || err != nil && !strings.Contains(err.Error(), problem) || err == nil && string(n.ID) != want {
			t.Errorf("%q: %v, %v; want %s", ref, n, err, want)
		}
	}
}

func TestPlanAdmit(t *testing.T) {
	id := func(c string) api.NodeID { return api.NodeID(strings.Repeat(c, api.IDLength)) }
	node := func(c, addr string, edit func(*api.Node)) api.Node {
		n := api.Node{ID: id(c), Hostname: "n-" + c, Addr: netip.MustParseAddr(addr), APIPort: 2377, GossipPort: 7946}
		if edit != nil {
			edit(&n)
		}
		return n
	}
	member := func(state api.NodeState, role api.Role) *api.Node {
		n := node("a", "192.0.2.1", func(n *api.Node) {
			n.Meta.Modified, n.State, n.Role, n.Availability = 5, state, role, api.AvailabilityDrain
			n.Labels = map[string]string{"disk": "fast"}
		})
		return &n
	}
	again := member(api.NodeDown, api.RoleWorker)
	again.Addr = netip.MustParseAddr("192.0.2.9")
	tests := []struct {
		name string
		old  *api.Node
		node api.Node
		want *api.Node
		err  string
	}{
		{"again, from another address, keeps what was set", member(api.NodeDown, api.RoleWorker), node("a", "192.0.2.9", nil), again, ""},
		{"a copy of a member", member(api.NodeReady, api.RoleWorker), node("a", "192.0.2.9", nil), nil, "has this node's ID"},
		{"again with another role", member(api.NodeDown, api.RoleManager), node("a", "192.0.2.1", nil), nil, "admitted as a manager"},
		{"an address that is taken", member(api.NodeReady, api.RoleWorker), node("b", "192.0.2.1", nil), nil, "already has the address"},
		{"an address that is taken, with another port", member(api.NodeReady, api.RoleWorker), node("b", "192.0.2.1", func(n *api.Node) { n.APIPort = 1 }), nil, "already has the address"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			snap := &api.Snapshot{Nodes: map[api.NodeID]*api.Node{tt.old.ID: tt.old}}
			changes, err := planAdmit(snap, tt.node, api.RoleWorker)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("error %v, want %q", err, tt.err)
				}
				return
			}
			if diff := cmp.Diff([]api.Change{{Node: tt.want}}, changes, comparable); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// A node that reports news without end is refused them, other nodes are not, and
// its heartbeats are taken.
func TestReportsAreBounded(t *testing.T) {
	s := newSite(t)
	s.reports = rpc.NewLimiter[api.NodeID](3, time.Hour, time.Now)
	ctx := t.Context()
	for _, id := range []api.NodeID{"w", "v"} {
		must(s.Replica.Commit(ctx, []api.Change{
			{Node: &api.Node{ID: id, Role: api.RoleWorker}}, {Task: &api.Task{ID: api.TaskID(id), ServiceID: "s", NodeID: id, Status: api.TaskStatus{State: api.TaskRunning}}},
		}))
	}
	report := func(node api.NodeID, message string) error {
		_, err := s.Report(onSocket(ctx), &api.Report{Node: node, Statuses: map[api.TaskID]api.TaskStatus{api.TaskID(node): {State: api.TaskRunning, Message: message}}})
		return err
	}
	for i := range 4 {
		if err := report("w", fmt.Sprint("news ", i)); (err != nil) != (i == 3) || err != nil && api.CodeOf(err) != api.CodeUnavailable {
			t.Errorf("report %d: %v", i, err)
		}
	}
	if got := s.Replica.Task("w").Status.Message; got != "news 2" {
		t.Errorf("stored: %q", got)
	}
	if err := report("w", "news 2"); err != nil {
		t.Errorf("nothing new: %v", err)
	}
	if err := report("v", "news"); err != nil {
		t.Errorf("another node: %v", err)
	}
}
