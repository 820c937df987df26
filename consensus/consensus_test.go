package consensus_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/orch-dev/orch/consensus"
	"github.com/orch-dev/orch/consensus/store"
	"github.com/orch-dev/orch/pkg/api"
)

const limit = 30 * time.Second

// peer is one manager of a test: a Raft node with a real log in a directory of
// its own and a real listener, and the store it feeds.
type peer struct {
	*consensus.Node
	store    *store.Store
	id       api.NodeID
	dir      string
	addr     string
	listener net.Listener
}

type settings func(*consensus.Config)

// start starts a node, on a new port if addr is empty.
func start(t testing.TB, id api.NodeID, dir, addr string, set ...settings) *peer {
	t.Helper()
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	layer := consensus.NewStreamLayer(listener.Addr(), func(ctx context.Context, addr string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	})
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			layer.Deliver(conn)
		}
	}()
	p := &peer{store: store.New(), id: id, dir: dir, addr: listener.Addr().String(), listener: listener}
	cfg := consensus.Config{
		ID: id, Addr: p.addr, Dir: dir, Transport: layer, FSM: p.store,
		Log: slog.New(slog.NewTextHandler(testLog{t}, &slog.HandlerOptions{Level: slog.LevelWarn})).With("node", id),
	}
	for _, s := range set {
		s(&cfg)
	}
	p.Node, err = consensus.New(cfg)
	if err != nil {
		listener.Close()
		t.Fatal(err)
	}
	t.Cleanup(func() { p.stop(t) })
	return p
}

// stop ends a node as a crash would for the others: nobody is told. Any number
// of times.
func (p *peer) stop(t testing.TB) {
	t.Helper()
	p.listener.Close()
	if err := p.Shutdown(); err != nil {
		t.Errorf("shut down %s: %v", p.id, err)
	}
}

// testLog shows log lines with the test, as long as it runs.
type testLog struct{ t testing.TB }

func (l testLog) Write(b []byte) (int, error) {
	if l.t.Context().Err() == nil {
		l.t.Log(string(bytes.TrimSpace(b)))
	}
	return len(b), nil
}

func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	return ctx
}

// waitLead waits until the node leads and has applied all of its log.
func waitLead(t testing.TB, p *peer) {
	t.Helper()
	timeout := time.After(limit)
	lead := p.Leadership()
	for {
		select {
		case leads, open := <-lead:
			if !open {
				t.Fatalf("%s was shut down", p.id)
			}
			if leads {
				if err := p.Barrier(within(t)); err != nil {
					t.Fatal(err)
				}
				return
			}
		case <-timeout:
			t.Fatalf("%s does not lead after %v", p.id, limit)
		}
	}
}

// waitNewLeader waits until one of the peers leads.
func waitNewLeader(t testing.TB, peers []*peer) *peer {
	t.Helper()
	found := make(chan *peer, len(peers))
	for _, p := range peers {
		lead := p.Leadership()
		go func() {
			for leads := range lead {
				if leads {
					found <- p
					return
				}
			}
		}()
	}
	select {
	case p := <-found:
		return p
	case <-time.After(limit):
		t.Fatalf("nobody leads after %v", limit)
		return nil
	}
}

// propose puts one network with that name into the cluster.
func propose(t testing.TB, p *peer, name string) api.Index {
	t.Helper()
	index, err := tryPropose(within(t), p, name)
	if err != nil {
		t.Fatalf("propose %s at %s: %v", name, p.id, err)
	}
	return index
}

func tryPropose(ctx context.Context, p *peer, name string) (api.Index, error) {
	data, err := store.Encode([]api.Change{{Network: &api.Network{ID: api.NetworkID(name), Name: name}}})
	if err != nil {
		return 0, err
	}
	index, _, err := p.Propose(ctx, data)
	return index, err
}

// cluster starts n nodes that are one group; the first leads.
func cluster(t testing.TB, n int, set ...settings) []*peer {
	t.Helper()
	var peers []*peer
	for i := range n {
		peers = append(peers, start(t, api.NodeID(fmt.Sprintf("m%d", i)), t.TempDir(), "", set...))
	}
	if err := peers[0].Bootstrap(); err != nil {
		t.Fatal(err)
	}
	waitLead(t, peers[0])
	for _, p := range peers[1:] {
		if err := peers[0].AddVoter(within(t), p.id, p.addr); err != nil {
			t.Fatal(err)
		}
	}
	return peers
}

func waitState(t testing.TB, p *peer, index api.Index, want []byte) {
	t.Helper()
	if err := p.store.Wait(within(t), index); err != nil {
		t.Fatalf("%s: %v", p.id, err)
	}
	if got := state(t, p); !bytes.Equal(want, got) {
		t.Errorf("%s has another state at %d:\n%s\nwant\n%s", p.id, index, got, want)
	}
}

func state(t testing.TB, p *peer) []byte {
	t.Helper()
	write, err := p.store.Save()
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := write(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestProposalsReachEveryManager(t *testing.T) {
	peers := cluster(t, 3)
	var last api.Index
	for i := range 20 {
		last = propose(t, peers[0], fmt.Sprint("net", i))
		if got := peers[0].store.Index(); got < last {
			t.Fatalf("the leader has applied %d when entry %d is acknowledged", got, last)
		}
	}
	want := state(t, peers[0])
	for _, p := range peers[1:] {
		waitState(t, p, last, want)
		id, addr, err := p.WaitLeader(within(t))
		if err != nil || id != peers[0].id || addr != peers[0].addr {
			t.Errorf("%s takes %s at %s for the leader: %v", p.id, id, addr, err)
		}
		if _, err := tryPropose(within(t), p, "more"); !errors.Is(err, consensus.ErrNotLeader) {
			t.Errorf("propose at a follower: %v", err)
		}
	}
	if err := peers[0].VerifyLeader(within(t)); err != nil {
		t.Error(err)
	}
	if err := peers[1].VerifyLeader(within(t)); !errors.Is(err, consensus.ErrNotLeader) {
		t.Errorf("verify lead of a follower: %v", err)
	}
	stats := peers[0].Stats()
	if stats.State != "leader" || stats.Term == 0 || stats.CommitIndex < last || len(stats.Peers) != 3 || !stats.LastContact.IsZero() {
		t.Errorf("leader's stats: %+v", stats)
	}
	stats = peers[1].Stats()
	if stats.State != "follower" || len(stats.Peers) != 3 || stats.LastContact.IsZero() {
		t.Errorf("follower's stats: %+v", stats)
	}
}

func TestRefusalComesBackAsError(t *testing.T) {
	peers := cluster(t, 1)
	propose(t, peers[0], "net")
	index, err := tryPropose(within(t), peers[0], "net")
	if !errors.Is(err, store.ErrConflict) || index == 0 {
		t.Errorf("second proposal: index %d, %v", index, err)
	}
	if _, _, err := peers[0].Propose(within(t), make([]byte, consensus.MaxEntry+1)); err == nil {
		t.Error("an entry of any size is taken")
	}
}

func TestLeaderKilledAndBack(t *testing.T) {
	peers := cluster(t, 3)
	acknowledged := propose(t, peers[0], "before")
	for _, p := range peers[1:] {
		waitState(t, p, acknowledged, state(t, peers[0]))
	}

	began := time.Now()
	peers[0].stop(t)
	leader := waitNewLeader(t, peers[1:])
	elected := time.Since(began)
	last := propose(t, leader, "after")
	t.Logf("new leader after %v, next write after %v", elected.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))

	// It comes back with what it had and follows the new leader.
	back := start(t, peers[0].id, peers[0].dir, peers[0].addr)
	waitState(t, back, last, state(t, leader))
	if id, _, err := back.WaitLeader(within(t)); err != nil || id != leader.id {
		t.Errorf("the node that is back follows %s, not %s: %v", id, leader.id, err)
	}
	if back.IsLeader() || back.Stats().Term != leader.Stats().Term {
		t.Errorf("the node that is back: %+v", back.Stats())
	}
}

func TestAllRestartedAtOnce(t *testing.T) {
	peers := cluster(t, 3)
	last := propose(t, peers[0], "kept")
	want := state(t, peers[0])
	for _, p := range peers[1:] {
		waitState(t, p, last, want)
	}
	for _, p := range peers {
		p.stop(t)
	}
	for i, p := range peers {
		has, err := consensus.HasState(p.dir)
		if err != nil || !has {
			t.Errorf("%s has state: %v, %v", p.id, has, err)
		}
		peers[i] = start(t, p.id, p.dir, p.addr)
	}
	leader := waitNewLeader(t, peers)
	for _, p := range peers {
		waitState(t, p, last, want)
	}
	if err := leader.Bootstrap(); err == nil {
		t.Error("a node with state can be bootstrapped again")
	}
	propose(t, leader, "more")
}

func TestRestartFromSnapshotAndLateFollower(t *testing.T) {
	short := func(c *consensus.Config) { c.KeepEntries = 1 }
	peers := cluster(t, 1, short)
	var last api.Index
	for i := range 50 {
		last = propose(t, peers[0], fmt.Sprint("net", i))
	}
	if err := peers[0].Compact(); err != nil {
		t.Fatal(err)
	}
	want := state(t, peers[0])
	peers[0].stop(t)
	again := start(t, peers[0].id, peers[0].dir, peers[0].addr, short)
	if err := again.store.Wait(within(t), last); err != nil {
		t.Fatal(err)
	}
	if got := state(t, again); !bytes.Equal(want, got) {
		t.Errorf("state after restart:\n%s\nwant\n%s", got, want)
	}
	// The entries are gone from the log: a new follower gets the snapshot.
	waitLead(t, again)
	late := start(t, "late", t.TempDir(), "", short)
	if err := again.AddVoter(within(t), late.id, late.addr); err != nil {
		t.Fatal(err)
	}
	last = propose(t, again, "more")
	waitState(t, late, last, state(t, again))
}

func TestWithoutAQuorumNothingIsAcknowledged(t *testing.T) {
	peers := cluster(t, 3)
	lead := peers[0].Leadership()
	if !<-lead {
		t.Fatal("the leader does not hear that it leads first")
	}
	peers[1].stop(t)
	peers[2].stop(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if _, err := tryPropose(ctx, peers[0], "lost"); !errors.Is(err, consensus.ErrOutcomeUnknown) &&
		!errors.Is(err, consensus.ErrNoQuorum) && !errors.Is(err, consensus.ErrNotLeader) {
		t.Errorf("propose without a quorum: %v", err)
	}
	select {
	case leads := <-lead:
		if leads {
			t.Error("told of a lead twice")
		}
	case <-time.After(limit):
		t.Fatal("the leader does not step down")
	}
	if _, ok := peers[0].store.Snapshot().Networks["lost"]; ok {
		t.Error("applied without a quorum")
	}
	// One of the two is enough again.
	back := start(t, peers[1].id, peers[1].dir, peers[1].addr)
	propose(t, waitNewLeader(t, []*peer{peers[0], back}), "more")
}

func TestPoliteHandover(t *testing.T) {
	peers := cluster(t, 3)
	propose(t, peers[0], "before")
	began := time.Now()
	if err := peers[0].TransferLeadership(); err != nil {
		t.Fatal(err)
	}
	leader := waitNewLeader(t, peers[1:])
	propose(t, leader, "after")
	t.Logf("next write after %v", time.Since(began).Round(time.Millisecond))
	if err := peers[0].TransferLeadership(); !errors.Is(err, consensus.ErrNotLeader) {
		t.Errorf("transfer by a follower: %v", err)
	}
	if err := leader.RemoveServer(within(t), peers[0].id); err != nil {
		t.Fatal(err)
	}
	if got := len(leader.Stats().Peers); got != 2 {
		t.Errorf("%d members after a removal, want 2", got)
	}
	propose(t, leader, "with two")
}

func TestAddVoterThatDoesNotAnswer(t *testing.T) {
	peers := cluster(t, 1)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	silent.Close()
	if err := peers[0].AddVoter(within(t), "ghost", silent.Addr().String()); err == nil {
		t.Error("a manager that does not answer was added")
	}
	propose(t, peers[0], "still works")
}

func TestHasStateAndLock(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "raft")
	if has, err := consensus.HasState(dir); has || err != nil {
		t.Errorf("no directory: %v, %v", has, err)
	}
	p := start(t, "m", dir, "")
	if _, err := consensus.HasState(dir); err == nil {
		t.Error("the state can be opened twice")
	}
	p.stop(t)
	if has, err := consensus.HasState(dir); has || err != nil {
		t.Errorf("started, but never in a group: %v, %v", has, err)
	}
	if _, err := tryPropose(within(t), p, "late"); !errors.Is(err, consensus.ErrOutcomeUnknown) {
		t.Errorf("propose after shutdown: %v", err)
	}
}
