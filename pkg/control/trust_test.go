package control

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/orch-dev/orch/consensus"
	"github.com/orch-dev/orch/consensus/store"
	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/manager"
	"github.com/orch-dev/orch/pkg/pki"
	"github.com/orch-dev/orch/pkg/rpc"
)

// site is a cluster of one manager, answering by TLS on loopback, on a real log.
type site struct {
	*Server
	addr string
	log  *logged
	sec  *rpc.Security
	own  atomic.Pointer[ownKey] // what the manager shows
}

// ownKey is credentials and the key that they are for.
type ownKey struct {
	*pki.Credentials
	key []byte
}

// logged keeps what is logged.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func newID() string { return api.NewID(rand.Reader) }

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// keyed is a node's key and its request.
type keyed struct{ key, request []byte }

func newKeyed() keyed {
	key := must(pki.NewKey(rand.Reader))
	return keyed{key, must(pki.Request(key))}
}

func newSite(t testing.TB) *site {
	t.Helper()
	listener := must(net.Listen("tcp", "127.0.0.1:0"))
	addr := listener.Addr().(*net.TCPAddr).AddrPort()
	s := &site{addr: addr.String(), log: &logged{}}
	log := slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	self := api.NodeID(newID())

	authority := must(pki.NewAuthority(rand.Reader, newID(), time.Now()))
	cluster := &api.Cluster{
		ID: newID(), Pool: api.DefaultPool, Authority: must(authority.Store()), CertificateLife: pki.DefaultLife,
		WorkerToken: newID(), ManagerToken: newID(), GossipKey: []byte(newID()), LeaseTimeout: time.Minute,
	}
	own := newKeyed()
	cert := must(authority.Issue(rand.Reader, own.request, pki.Identity{Cluster: cluster.ID, Role: api.RoleManager, Node: self}, cluster.CertificateLife, time.Now()))
	credentials := must(pki.NewCredentials(own.key, api.Certificate{Node: cert, Roots: [][]byte{cluster.Authority.Certificate}}))
	s.own.Store(&ownKey{credentials, own.key})
	sec := &rpc.Security{Credentials: func() *pki.Credentials { return s.own.Load().Credentials }, Now: time.Now}
	s.sec = sec

	state := store.New()
	raft := must(consensus.New(consensus.Config{
		ID: self, Addr: s.addr, Dir: t.TempDir(), FSM: state, Log: log,
		Transport: consensus.NewStreamLayer(listener.Addr(), func(context.Context, string) (net.Conn, error) {
			return nil, errors.New("there are no others")
		}),
	}))
	s.Server = New(Config{
		Node: self, Replica: &manager.Replica{Store: state, Raft: raft}, Tracker: manager.NewTracker(),
		Peers: rpc.NewPool(sec), NewID: newID, Rand: rand.Reader, Now: time.Now, Log: log,
	})
	if err := raft.Bootstrap(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	mux := rpc.NewMux()
	mux.HandlePrefix("/orch.cluster/", s.Server)
	go func() { done <- rpc.NewServer(mux, sec, log).ServePeers(ctx, listener, nil) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, raft.Shutdown()); err != nil {
			t.Error(err)
		}
	})
	wait, stop := context.WithTimeout(ctx, 30*time.Second)
	defer stop()
	must2(raft.WaitLeader(wait))
	must(s.Replica.Commit(wait, []api.Change{{Cluster: cluster}, {Node: &api.Node{
		ID: self, Hostname: "first", Role: api.RoleManager, Addr: addr.Addr(), APIPort: addr.Port(),
	}}}))
	s.Tracker.Lead(s.Replica.Raft.Term(), s.Replica.Snapshot().Nodes, time.Now())
	return s
}

func must2[A, B any](_ A, _ B, err error) {
	if err != nil {
		panic(err)
	}
}

// joiner is a node that wants to join, or has.
type joiner struct {
	keyed
	node   api.Node
	client *rpc.Client // once it has
	sec    *rpc.Security
}

var nextPort uint16 = 10000

func newJoiner() *joiner {
	nextPort++
	return &joiner{keyed: newKeyed(), node: api.Node{
		ID: api.NodeID(newID()), Hostname: fmt.Sprint("node", nextPort), Addr: netip.AddrFrom4([4]byte{10, 0, byte(nextPort >> 8), byte(nextPort)}), APIPort: nextPort, GossipPort: 7946,
		// What it is not to decide:
		Role: api.RoleManager, State: api.NodeReady, Labels: map[string]string{"zone": "mine"}, Meta: api.Meta{Modified: 1},
	}}
}

// join joins with a token.
func (s *site) join(t *testing.T, j *joiner, text string) (*api.AdmitResponse, error) {
	t.Helper()
	token, err := pki.ParseToken(text)
	if err != nil {
		return nil, err
	}
	client := rpc.NewJoinClient(token, time.Now)
	defer client.Close()
	res, err := rpc.Call[api.AdmitRequest, api.AdmitResponse](deadline(t), client, api.ProcAdmit,
		&api.AdmitRequest{Secret: token.Secret, Node: j.node, Request: j.request})
	if err != nil {
		return nil, err
	}
	j.use(s, must(pki.NewCredentials(j.key, res.Certificate)))
	return res, nil
}

// use has the node show these from now on.
func (j *joiner) use(s *site, own *pki.Credentials) {
	j.sec = &rpc.Security{Credentials: func() *pki.Credentials { return own }, Now: time.Now}
	j.client = rpc.NewPool(j.sec).Manager(s.addr)
}

func (s *site) tokens(t *testing.T) *api.JoinTokens {
	t.Helper()
	return must(s.JoinTokens(deadline(t), &api.Empty{}))
}

// member is a node that has joined.
func (s *site) member(t *testing.T, role api.Role) *joiner {
	t.Helper()
	token := s.tokens(t).Worker
	if role == api.RoleManager {
		token = s.tokens(t).Manager
	}
	j := newJoiner()
	if _, err := s.join(t, j, token); err != nil {
		t.Fatal(err)
	}
	return j
}

func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestJoin(t *testing.T) {
	s := newSite(t)
	for role, token := range map[api.Role]string{api.RoleWorker: s.tokens(t).Worker, api.RoleManager: s.tokens(t).Manager} {
		j := newJoiner()
		res, err := s.join(t, j, token)
		if err != nil {
			t.Fatal(err)
		}
		want := pki.Identity{Cluster: res.ClusterID, Role: role, Node: j.node.ID}
		if got := j.sec.Credentials().Identity; got != want || res.Role != role {
			t.Errorf("joined as %s, a %s; want %s", got, res.Role, want)
		}
		node := s.Replica.Snapshot().Nodes[j.node.ID]
		if node.Role != role || node.State != api.NodeDown || len(node.Labels) > 0 {
			t.Errorf("the node decided on more than it may: %+v", node)
		}
		if _, err := s.join(t, j, token); err != nil {
			t.Errorf("a node that lost the answer cannot join again: %v", err)
		}
		if _, err := rpc.Call[api.Report, api.ReportResponse](deadline(t), j.client, api.ProcReport, &api.Report{Node: j.node.ID}); err != nil {
			t.Errorf("%s: %v", role, err)
		}
	}
}

// Who has no good token stays out, and is told why.
func TestJoinRefused(t *testing.T) {
	s, other := newSite(t), newSite(t)
	good := must(pki.ParseToken(s.tokens(t).Worker))
	wrong, foreign := good, must(pki.ParseToken(other.tokens(t).Worker))
	wrong.Secret, foreign.Addr = newID(), s.addr
	if _, err := s.RotateToken(deadline(t), &api.RotateTokenRequest{Role: api.RoleWorker}); err != nil {
		t.Fatal(err)
	}
	member := s.member(t, api.RoleManager)
	stolen, nameless, odd := newJoiner(), newJoiner(), newJoiner()
	stolen.node.ID = member.node.ID
	nameless.node.Hostname = ""
	odd.node.ID = "../../manager"
	before := len(s.Replica.Snapshot().Nodes)
	for _, tt := range []struct {
		name, token string
		node        *joiner
		says        string
	}{
		{"no token", s.addr, newJoiner(), "begins with orch1-"},
		{"wrong token", wrong.String(), newJoiner(), "is wrong"},
		{"token of another cluster", foreign.String(), newJoiner(), "of another cluster"},
		{"rotated token", good.String(), newJoiner(), "good no longer"},
		{"the ID of a member", s.tokens(t).Worker, stolen, "with another key"},
		{"a manager as worker", s.tokens(t).Worker, member, "was admitted as a manager before"},
		{"no name", s.tokens(t).Worker, nameless, "node name"},
		{"an ID that is none", s.tokens(t).Worker, odd, "node ID"},
	} {
		_, err := s.join(t, tt.node, tt.token)
		if err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v, want an error that says %q", tt.name, err, tt.says)
		}
	}
	if got := len(s.Replica.Snapshot().Nodes); got != before {
		t.Errorf("%d nodes, want %d", got, before)
	}
	if _, err := s.join(t, newJoiner(), s.tokens(t).Worker); err != nil {
		t.Errorf("the new token: %v", err)
	}
}

// A worker reports and asks only for itself.
func TestWorkerMay(t *testing.T) {
	s := newSite(t)
	worker, other, manager := s.member(t, api.RoleWorker), s.member(t, api.RoleWorker), s.member(t, api.RoleManager)
	enough := errors.New("enough")
	session := func(c *rpc.Client, id api.NodeID) error {
		err := rpc.Stream(deadline(t), c, api.ProcSession, &api.SessionRequest{Node: id}, func(*api.Update) error { return enough })
		if errors.Is(err, enough) {
			return nil
		}
		return err
	}
	report := func(c *rpc.Client, id api.NodeID) error {
		_, err := rpc.Call[api.Report, api.ReportResponse](deadline(t), c, api.ProcReport, &api.Report{Node: id})
		return err
	}
	for name, call := range map[string]func(*rpc.Client, api.NodeID) error{"session": session, "report": report} {
		if err := call(worker.client, worker.node.ID); err != nil {
			t.Errorf("%s for itself: %v", name, err)
		}
		for _, j := range []*joiner{worker, manager} {
			if err := call(j.client, other.node.ID); api.CodeOf(err) != api.CodeDenied || err == nil || !strings.Contains(err.Error(), "only for itself") {
				t.Errorf("%s of a %s for another: %v", name, j.sec.Credentials().Identity.Role, err)
			}
		}
	}
	// Everything else is denied, and known to be before it is looked at.
	for _, procedure := range []string{
		api.ProcAddMember, api.ProcJoinTokens, api.ProcRotateToken, api.ProcNodes, api.ProcUpdateNode, api.ProcDeploy, api.ProcWatchStack,
		api.ProcStacks, api.ProcRemoveStack, api.ProcServices, api.ProcTasks, api.ProcScale, api.ProcServiceLogs,
	} {
		if _, err := rpc.Call[api.Empty, api.Empty](deadline(t), worker.client, procedure, &api.Empty{}); err == nil || api.CodeOf(err) != api.CodeDenied {
			t.Errorf("%s: %v, want it denied", procedure, err)
		}
	}
	if nodes, err := rpc.Call[api.Empty, api.NodeList](deadline(t), manager.client, api.ProcNodes, &api.Empty{}); err != nil || len(nodes.Nodes) != 4 {
		t.Errorf("a manager: %v", err)
	}
}

// The state counts for more than the certificate, which is renewed to follow it.
func TestRoleFollowsState(t *testing.T) {
	s := newSite(t)
	j := s.member(t, api.RoleManager)
	call := func() error {
		_, err := rpc.Call[api.Empty, api.NodeList](deadline(t), j.client, api.ProcNodes, &api.Empty{})
		return err
	}
	renew := func() pki.Identity {
		t.Helper()
		fresh := newKeyed()
		res, err := rpc.Call[api.RenewRequest, api.Certificate](deadline(t), j.client, api.ProcRenew, &api.RenewRequest{Request: fresh.request})
		if err != nil {
			t.Fatal(err)
		}
		j.use(s, must(pki.NewCredentials(fresh.key, *res)))
		return j.sec.Credentials().Identity
	}
	set := func(edit func(*api.Node) api.Change) {
		t.Helper()
		if _, err := s.Replica.Update(deadline(t), func(snap *api.Snapshot) ([]api.Change, error) {
			next := *snap.Nodes[j.node.ID]
			return []api.Change{edit(&next)}, nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	if err := call(); err != nil {
		t.Fatal(err)
	}
	set(func(n *api.Node) api.Change { n.Role = api.RoleWorker; return api.Change{Node: n} })
	if err := call(); api.CodeOf(err) != api.CodeDenied {
		t.Errorf("demoted, with the old certificate: %v", err)
	}
	if id := renew(); id.Role != api.RoleWorker || id.Node != j.node.ID {
		t.Errorf("renewed as %s", id)
	}
	if err := call(); api.CodeOf(err) != api.CodeDenied {
		t.Errorf("demoted: %v", err)
	}
	set(func(n *api.Node) api.Change { n.Role = api.RoleManager; return api.Change{Node: n} })
	if id := renew(); id.Role != api.RoleManager {
		t.Errorf("renewed as %s", id)
	}
	if err := call(); err != nil {
		t.Errorf("promoted: %v", err)
	}
	ended := make(chan error, 1)
	started := make(chan struct{}, 10)
	go func() {
		ended <- rpc.Stream(deadline(t), j.client, api.ProcSession, &api.SessionRequest{Node: j.node.ID}, func(*api.Update) error { started <- struct{}{}; return nil })
	}()
	<-started
	set(func(n *api.Node) api.Change { return api.Change{Node: n, Delete: true} })
	if err := <-ended; err == nil || api.CodeOf(err) != api.CodeDenied {
		t.Errorf("the stream of a node that was removed: %v", err)
	}
	for _, procedure := range []string{api.ProcNodes, api.ProcRenew, api.ProcReport, api.ProcSession} {
		if _, err := rpc.Call[api.Empty, api.Empty](deadline(t), j.client, procedure, &api.Empty{}); err == nil || !strings.Contains(err.Error(), "not a member") && procedure != api.ProcSession {
			t.Errorf("removed, %s: %v", procedure, err)
		}
	}
}

// forward passes an empty call on for a caller, as managers do.
func forward(t *testing.T, to *rpc.Client, caller rpc.Caller, procedure string) (status int, body string) {
	t.Helper()
	r := httptest.NewRequest(http.MethodPost, procedure, strings.NewReader("{}"))
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	to.Forward(w, r.WithContext(rpc.WithCaller(deadline(t), caller)))
	return w.Code, w.Body.String()
}

// Who is no manager any more by the state speaks for nobody, whatever its certificate
// says, but for itself what its role lets it.
func TestPassedOnByWhoWasManager(t *testing.T) {
	s := newSite(t)
	j := s.member(t, api.RoleManager)
	live := rpc.Caller{Identity: s.own.Load().Identity}
	ada := must(s.addUser(t, api.AddUserRequest{Name: "ada", Role: api.UserAdmin}))
	admin := rpc.Caller{Identity: must(pki.NewCredentials(ada.key, ada.Certificate)).Identity}
	worker := rpc.Caller{Identity: s.member(t, api.RoleWorker).sec.Credentials().Identity}
	set := func(edit func(*api.Node) api.Change) {
		t.Helper()
		must(s.Replica.Update(deadline(t), func(snap *api.Snapshot) ([]api.Change, error) {
			next := *snap.Nodes[j.node.ID]
			return []api.Change{edit(&next)}, nil
		}))
	}
	wantAll := func(when string, status int, says string) {
		t.Helper()
		for name, caller := range map[string]rpc.Caller{"a manager": live, "an admin": admin, "a worker": worker} {
			procedure := api.ProcNodes
			if name == "a worker" {
				procedure = api.ProcRenew
			}
			got, body := forward(t, j.client, caller, procedure)
			if want := status; got != want && !(name == "a worker" && want == http.StatusOK && got == http.StatusBadRequest) || !strings.Contains(body, says) {
				t.Errorf("%s, for %s: %d %s", when, name, got, body)
			}
		}
	}
	wantAll("a manager", http.StatusOK, "")
	set(func(n *api.Node) api.Change { n.Role = api.RoleWorker; return api.Change{Node: n} })
	wantAll("demoted", http.StatusForbidden, "only managers pass on what others ask")
	self := rpc.Caller{Identity: j.sec.Credentials().Identity}
	if status, body := forward(t, j.client, self, api.ProcNodes); status != http.StatusForbidden || !strings.Contains(body, "is not a manager any more") {
		t.Errorf("demoted, for itself: %d %s", status, body)
	}
	if status, body := forward(t, j.client, self, api.ProcRenew); status != http.StatusBadRequest {
		t.Errorf("demoted, for itself, to renew: %d %s", status, body)
	}
	// A manager that does not lead may not have heard that the node is one: it may ask the leader.
	s.Tracker.Resign()
	wantAll("demoted, at one that does not lead", http.StatusServiceUnavailable, "ask the leader")
	s.Tracker.Lead(s.Replica.Raft.Term(), s.Replica.Snapshot().Nodes, time.Now())
	set(func(n *api.Node) api.Change { n.Role = api.RoleManager; return api.Change{Node: n} })
	wantAll("promoted", http.StatusOK, "")
	set(func(n *api.Node) api.Change { return api.Change{Node: n, Delete: true} })
	wantAll("removed", http.StatusForbidden, "only managers pass on what others ask")
}

// A manager that knows that it is none any more sends others to one that is: what it
// passed on for them would be refused.
func TestDeposedSendsElsewhere(t *testing.T) {
	s := newSite(t)
	worker := s.member(t, api.RoleWorker)
	must(s.Replica.Update(deadline(t), func(snap *api.Snapshot) ([]api.Change, error) {
		next := *snap.Nodes[s.Node]
		next.Role = api.RoleWorker
		return []api.Change{{Node: &next}}, nil
	}))
	report := func() error {
		_, err := rpc.Call[api.Report, api.ReportResponse](deadline(t), worker.client, api.ProcReport, &api.Report{Node: worker.node.ID})
		return err
	}
	if err := report(); err != nil {
		t.Errorf("while it leads: %v", err)
	}
	s.Tracker.Resign()
	if err := report(); api.CodeOf(err) != api.CodeUnavailable || !strings.Contains(fmt.Sprint(err), "not a manager any more") {
		t.Errorf("a report: %v", err)
	}
}

// No secret is in a log, in what the API shows, or on its way to a worker.
func TestSecretsStaySecret(t *testing.T) {
	s := newSite(t)
	worker, admin := s.member(t, api.RoleWorker), s.member(t, api.RoleManager)
	old := s.Replica.Snapshot().Cluster
	if _, err := s.RotateToken(deadline(t), &api.RotateTokenRequest{Role: api.RoleWorker}); err != nil {
		t.Fatal(err)
	}
	cluster := s.Replica.Snapshot().Cluster
	_, _ = s.join(t, newJoiner(), "orch1-worker-x-"+old.WorkerToken+"@"+s.addr)
	wrong := must(pki.ParseToken(s.tokens(t).Worker))
	wrong.Secret = old.WorkerToken
	_, refused := s.join(t, newJoiner(), wrong.String())
	wrong.Secret = newID()
	_, wrongErr := s.join(t, newJoiner(), wrong.String())

	var shown bytes.Buffer
	fmt.Fprintln(&shown, refused, wrongErr)
	show := func(v any, err error) {
		fmt.Fprintln(&shown, err)
		if err := json.NewEncoder(&shown).Encode(v); err != nil {
			t.Fatal(err)
		}
	}
	ctx := deadline(t)
	show(rpc.Call[api.Empty, api.NodeList](ctx, admin.client, api.ProcNodes, &api.Empty{}))
	show(rpc.Call[api.Empty, api.StackList](ctx, admin.client, api.ProcStacks, &api.Empty{}))
	show(rpc.Call[api.ServicesRequest, api.ServiceList](ctx, admin.client, api.ProcServices, &api.ServicesRequest{}))
	show(rpc.Call[api.TasksRequest, api.TaskList](ctx, admin.client, api.ProcTasks, &api.TasksRequest{}))
	show(rpc.Call[api.RotateTokenRequest, api.JoinTokens](ctx, admin.client, api.ProcRotateToken, &api.RotateTokenRequest{Role: "king"}))
	show(nil, rpc.Stream(ctx, worker.client, api.ProcSession, &api.SessionRequest{Node: worker.node.ID}, func(u *api.Update) error {
		show(u, nil)
		return io.EOF
	}))
	for name, text := range map[string]string{"the log": s.log.String(), "what is shown": shown.String()} {
		for what, secret := range map[string][]byte{
			"the old token": []byte(old.WorkerToken), "the worker token": []byte(cluster.WorkerToken), "the manager token": []byte(cluster.ManagerToken),
			"a wrong token": []byte(wrong.Secret), "the gossip key": cluster.GossipKey, "the authority's key": cluster.Authority.Key, "a node's key": worker.key,
		} {
			for _, form := range []string{string(secret), base64.StdEncoding.EncodeToString(secret), hex.EncodeToString(secret), fmt.Sprint(secret)} {
				if strings.Contains(text, form) {
					t.Errorf("%s is in %s:\n%s", what, name, text)
				}
			}
		}
	}
	if !strings.Contains(s.log.String(), "node admitted") || !strings.Contains(shown.String(), cluster.ID) {
		t.Errorf("nothing was looked at: %s\n%s", s.log, &shown)
	}
}
