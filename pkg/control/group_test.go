package control

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/orch-dev/orch/consensus"
	"github.com/orch-dev/orch/consensus/store"
	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/manager"
	"github.com/orch-dev/orch/pkg/pki"
	"github.com/orch-dev/orch/pkg/rpc"
)

const patience = 30 * time.Second

// group is a cluster of managers in this process, each with a real log, its
// leader's loop and its API by TLS on loopback.
type group struct {
	authority *pki.Authority
	cluster   *api.Cluster
	managers  []*peer // those to call

	mu  sync.Mutex
	all []*peer // also those that were stopped
}

// peer is one manager of a group.
type peer struct {
	*Server
	node   *api.Node
	dir    string
	sec    *rpc.Security
	client *rpc.Client // of its API, for a manager
	stop   func()      // as a crash would
	has    sync.Map    // of paths on its node
	ended  chan struct{}
}

// newGroup starts n managers that are voters.
func newGroup(t *testing.T, n int) *group {
	t.Helper()
	authority := must(pki.NewAuthority(rand.Reader, newID(), time.Now()))
	g := &group{authority: authority, cluster: &api.Cluster{
		ID: newID(), Pool: api.DefaultPool, Authority: must(authority.Store()), CertificateLife: pki.DefaultLife,
		WorkerToken: newID(), ManagerToken: newID(), GossipKey: []byte(newID()), LeaseTimeout: time.Minute,
	}}
	first := g.start(t, api.RoleManager)
	if err := first.Replica.Raft.Bootstrap(); err != nil {
		t.Fatal(err)
	}
	until(t, "the first manager has written the cluster's state", func() error {
		_, err := first.Replica.Commit(deadline(t), []api.Change{{Cluster: g.cluster}, {Node: first.node}})
		return err
	})
	for range n - 1 {
		g.add(t)
	}
	return g
}

// add starts another manager and waits until it is a voter.
func (g *group) add(t *testing.T) *peer {
	t.Helper()
	p := g.start(t, api.RoleManager)
	g.commit(t, func(*api.Snapshot) []api.Change { return []api.Change{{Node: p.node}} })
	g.joinGroup(t, p)
	return p
}

// joinGroup makes a manager a member and waits until it has a vote.
func (g *group) joinGroup(t *testing.T, p *peer) {
	t.Helper()
	until(t, "it is a member", func() error {
		_, err := rpc.Call[api.AddMemberRequest, api.Empty](deadline(t), g.leader(t).client, api.ProcAddMember, &api.AddMemberRequest{Node: p.node.ID})
		return err
	})
	until(t, "it has a vote", func() error {
		if stats := p.Replica.Raft.Stats(); !stats.Votes(p.node.ID) {
			return fmt.Errorf("the members are %+v", stats.Peers)
		}
		return nil
	})
}

// start starts a manager that is in no Raft group yet.
func (g *group) start(t *testing.T, role api.Role) *peer {
	t.Helper()
	return g.run(t, api.NodeID(newID()), t.TempDir(), "127.0.0.1:0", role)
}

func (g *group) run(t *testing.T, id api.NodeID, dir, addr string, role api.Role) *peer {
	t.Helper()
	listener := must(net.Listen("tcp", addr))
	at := listener.Addr().(*net.TCPAddr).AddrPort()
	own := newKeyed()
	cert := must(g.authority.Issue(rand.Reader, own.request, pki.Identity{Cluster: g.cluster.ID, Role: role, Node: id}, g.cluster.CertificateLife, time.Now()))
	credentials := must(pki.NewCredentials(own.key, api.Certificate{Node: cert, Roots: [][]byte{g.cluster.Authority.Certificate}}))
	p := &peer{
		dir:  dir,
		node: &api.Node{ID: id, Hostname: fmt.Sprintf("m%d", len(g.managers)), Role: role, Addr: at.Addr(), APIPort: at.Port()},
		sec:  &rpc.Security{Credentials: func() *pki.Credentials { return credentials }, Now: time.Now},
	}
	log := slog.New(slog.NewTextHandler(testLog{t}, &slog.HandlerOptions{Level: slog.LevelWarn})).With("node", p.node.Hostname)
	layer := consensus.NewStreamLayer(listener.Addr(), func(ctx context.Context, addr string) (net.Conn, error) {
		return rpc.DialRaft(ctx, p.sec, addr)
	})
	state := store.New()
	raft := must(consensus.New(consensus.Config{ID: id, Addr: at.String(), Dir: dir, FSM: state, Log: log, Transport: layer}))
	replica, tracker, peers := &manager.Replica{Store: state, Raft: raft}, manager.NewTracker(), rpc.NewPool(p.sec)
	p.Server = New(Config{
		Node: id, Replica: replica, Tracker: tracker,
		Peers: peers, NewID: newID, Rand: rand.Reader, Now: time.Now, Log: log,
	})
	p.client = peers.Manager(at.String())

	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	mux := rpc.NewMux()
	mux.HandlePrefix("/orch.cluster/", p.Server)
	rpc.Handle(mux, api.ProcMissingPaths, func(_ context.Context, req *api.Paths) (*api.Paths, error) {
		return &api.Paths{Paths: slices.DeleteFunc(req.Paths, func(path string) bool { _, ok := p.has.Load(path); return ok })}, nil
	})
	running.Go(func() {
		if err := rpc.NewServer(mux, p.sec, log).ServePeers(ctx, listener, layer.Deliver); err != nil {
			t.Error(err)
		}
	})
	members := &manager.Members{Replica: replica, Tracker: tracker, Log: log, Applied: func(_ context.Context, n *api.Node) (api.Index, error) {
		for _, other := range g.managers {
			if other.node.ID == n.ID {
				return other.Replica.Raft.Stats().AppliedIndex, nil
			}
		}
		return 0, fmt.Errorf("no manager %s", n.ID)
	}}
	running.Go(func() { _ = members.Run(ctx) })
	running.Go(func() { g.signsOfLife(ctx, p) })
	running.Go(func() { _ = manager.New(replica, tracker, newID, rand.Reader, time.Now, log).Run(ctx) })
	p.ended = make(chan struct{})
	p.stop = sync.OnceFunc(func() {
		close(p.ended)
		cancel()
		if err := raft.Shutdown(); err != nil {
			t.Error(err)
		}
		running.Wait()
	})
	t.Cleanup(p.stop)
	g.managers = append(g.managers, p)
	g.mu.Lock()
	g.all = append(g.all, p)
	g.mu.Unlock()
	return p
}

// signsOfLife gives a manager those of the others, by gossip and by reports as
// their agents would send them, until ctx ends.
func (g *group) signsOfLife(ctx context.Context, p *peer) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		alive := make(map[api.NodeID]bool)
		g.mu.Lock()
		for _, other := range g.all {
			select {
			case <-other.ended:
			default:
				alive[other.node.ID] = true
			}
		}
		g.mu.Unlock()
		now, index := time.Now(), p.Replica.Snapshot().Index
		p.Tracker.Gossiped(alive, now)
		for id := range alive {
			p.Tracker.Reported(id, index, index, now)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// testLog shows log lines with the test, as long as it runs.
type testLog struct{ t testing.TB }

func (l testLog) Write(b []byte) (int, error) {
	if l.t.Context().Err() == nil {
		l.t.Log(string(b))
	}
	return len(b), nil
}

// leader is the manager that leads.
func (g *group) leader(t *testing.T) *peer {
	t.Helper()
	var leader *peer
	until(t, "one manager leads", func() error {
		for _, p := range g.managers {
			if p.leads() {
				leader = p
				return nil
			}
		}
		return errors.New("nobody does")
	})
	return leader
}

// followers are the managers that do not lead.
func (g *group) followers(t *testing.T) (list []*peer) {
	t.Helper()
	leader := g.leader(t)
	for _, p := range g.managers {
		if p != leader {
			list = append(list, p)
		}
	}
	return list
}

// call calls one manager after the other until one succeeds: on a busy machine
// there may be an election at any moment.
func (g *group) call(t *testing.T, fn func(*peer) error) {
	t.Helper()
	i := 0
	until(t, "a manager does it", func() error {
		i++
		err := fn(g.managers[i%len(g.managers)])
		if code := api.CodeOf(err); err != nil && code != api.CodeUnavailable && code != api.CodeInternal {
			t.Fatal(err)
		}
		return err
	})
}

func (g *group) commit(t *testing.T, changes func(*api.Snapshot) []api.Change) {
	t.Helper()
	until(t, "the leader commits", func() error {
		_, err := g.leader(t).Replica.Update(deadline(t), func(snap *api.Snapshot) ([]api.Change, error) { return changes(snap), nil })
		return err
	})
}

// label sets a label of a manager's node at one manager.
func (p *peer) label(ctx context.Context, node api.NodeID, value string) error {
	_, err := rpc.Call[api.UpdateNodeRequest, api.Empty](ctx, p.client, api.ProcUpdateNode,
		&api.UpdateNodeRequest{Node: string(node), AddLabels: map[string]string{"value": value}})
	return err
}

// labelOf is what one manager answers about the label, read in that way.
func (p *peer) labelOf(ctx context.Context, node api.NodeID, read api.Read) (string, error) {
	nodes, err := rpc.Call[api.Empty, api.NodeList](rpc.WithRead(ctx, read), p.client, api.ProcNodes, &api.Empty{})
	if err != nil {
		return "", err
	}
	for _, n := range nodes.Nodes {
		if n.ID == node {
			return n.Labels["value"], nil
		}
	}
	return "", fmt.Errorf("no node %s", node)
}

// until waits until check is content.
func until(t *testing.T, what string, check func() error) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("not so after %v: %s: %v", patience, what, err)
		}
	}
}
