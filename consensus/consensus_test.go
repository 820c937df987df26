package consensus_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
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
	p, err := tryStart(t, id, dir, addr, set...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// tryStart returns the error of a node that does not start.
func tryStart(t testing.TB, id api.NodeID, dir, addr string, set ...settings) (*peer, error) {
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
		ID: id, Addr: p.addr, Dir: dir, Transport: layer, FSM: p.store, Keys: ringOf(dir),
		Log: slog.New(slog.NewTextHandler(testLog{t}, &slog.HandlerOptions{Level: slog.LevelWarn})).With("node", id),
	}
	for _, s := range set {
		s(&cfg)
	}
	p.Node, err = consensus.New(cfg)
	if err != nil {
		listener.Close()
		return nil, err
	}
	t.Cleanup(func() { p.stop(t) })
	return p, nil
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

// waitLeader waits until one of the peers leads.
func waitLeader(t testing.TB, peers ...*peer) *peer {
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

// undisturbed runs fn with the leader of the peers until it succeeds. It fails
// if fn did while nobody took the lead away: on a busy machine a disk may be
// slow enough for an election at any moment, which is not what is tested.
func undisturbed(t testing.TB, peers []*peer, fn func(leader *peer) error) *peer {
	t.Helper()
	timeout := time.After(limit)
	for {
		leader := waitLeader(t, peers...)
		term := leader.Stats().Term
		err := fn(leader)
		if err == nil {
			return leader
		}
		if now := leader.Stats(); now.State == "leader" && now.Term == term && !errors.Is(err, consensus.ErrNotLeader) {
			t.Fatalf("at %s: %v", leader.id, err)
		}
		select {
		case <-leader.LeaderChanged():
		case <-time.After(50 * time.Millisecond):
		case <-timeout:
			t.Fatalf("at %s: %v", leader.id, err)
		}
	}
}

// propose puts one network with that name into the cluster and returns the
// leader that did it.
func propose(t testing.TB, peers []*peer, name string) (*peer, api.Index) {
	t.Helper()
	var index api.Index
	attempts := 0
	leader := undisturbed(t, peers, func(leader *peer) (err error) {
		attempts++
		index, err = tryPropose(within(t), leader, name)
		if attempts > 1 && errors.Is(err, store.ErrConflict) {
			return nil // an attempt before had its way after all
		}
		return err
	})
	return leader, index
}

func tryPropose(ctx context.Context, p *peer, name string) (api.Index, error) {
	data, err := store.Encode([]api.Change{{Network: &api.Network{ID: api.NetworkID(name), Name: name}}})
	if err != nil {
		return 0, err
	}
	index, _, err := p.Propose(ctx, data)
	return index, err
}

// cluster starts n nodes that are one group.
func cluster(t testing.TB, n int, set ...settings) []*peer {
	t.Helper()
	var peers []*peer
	for i := range n {
		peers = append(peers, start(t, api.NodeID(fmt.Sprintf("m%d", i)), t.TempDir(), "", set...))
	}
	if err := peers[0].Bootstrap(); err != nil {
		t.Fatal(err)
	}
	for _, p := range peers[1:] {
		add(t, peers, p)
	}
	return peers
}

func add(t testing.TB, peers []*peer, p *peer) {
	t.Helper()
	undisturbed(t, peers, func(leader *peer) error { return join(t, leader, p) })
}

// join makes p a member with a vote.
func join(t testing.TB, leader, p *peer) error {
	return cmp.Or(leader.AddMember(within(t), p.id, p.addr), leader.Promote(within(t), p.id, p.addr))
}

// others returns the peers without one of them.
func others(peers []*peer, without *peer) []*peer {
	return slices.DeleteFunc(slices.Clone(peers), func(p *peer) bool { return p == without })
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
	for i := range 20 {
		leader, index := propose(t, peers, fmt.Sprint("net", i))
		if got := leader.store.Index(); got < index {
			t.Fatalf("the leader has applied %d when entry %d is acknowledged", got, index)
		}
	}
	leader, last := propose(t, peers, "last")
	want := state(t, leader)
	for _, p := range peers {
		waitState(t, p, last, want)
	}
}

func TestWhoLeads(t *testing.T) {
	peers := cluster(t, 3)
	leader, index := propose(t, peers, "something")
	for _, p := range peers {
		waitState(t, p, index, state(t, leader)) // so all know of all
	}
	undisturbed(t, peers, func(leader *peer) error {
		var errs []error
		fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
		if err := leader.VerifyLeader(within(t)); err != nil {
			fail("verify lead: %w", err)
		}
		if s := leader.Stats(); s.State != "leader" || s.Term == 0 || s.CommitIndex == 0 || len(s.Peers) != 3 || !s.LastContact.IsZero() {
			fail("stats: %+v", s)
		}
		for _, p := range others(peers, leader) {
			if id, addr, err := p.WaitLeader(within(t)); err != nil || id != leader.id || addr != leader.addr {
				fail("%s takes %s at %s for the leader: %w", p.id, id, addr, err)
			}
			if err := p.VerifyLeader(within(t)); !errors.Is(err, consensus.ErrNotLeader) {
				fail("verify lead of %s: %v", p.id, err)
			}
			if _, err := tryPropose(within(t), p, "more"); !errors.Is(err, consensus.ErrNotLeader) {
				fail("propose at %s: %v", p.id, err)
			}
			if s := p.Stats(); s.State != "follower" || len(s.Peers) != 3 || s.LastContact.IsZero() {
				fail("stats of %s: %+v", p.id, s)
			}
		}
		return errors.Join(errs...)
	})
}

func TestRefusalComesBackAsError(t *testing.T) {
	peers := cluster(t, 1)
	propose(t, peers, "net")
	undisturbed(t, peers, func(leader *peer) error {
		index, err := tryPropose(within(t), leader, "net")
		if !errors.Is(err, store.ErrConflict) || index == 0 {
			return fmt.Errorf("second proposal: index %d, %w", index, err)
		}
		return nil
	})
	if _, _, err := peers[0].Propose(within(t), make([]byte, consensus.MaxEntry+1)); err == nil {
		t.Error("an entry of any size is taken")
	}
}

func TestLeaderKilledAndBack(t *testing.T) {
	peers := cluster(t, 3)
	killed, index := propose(t, peers, "before")
	rest := others(peers, killed)
	for _, p := range rest {
		waitState(t, p, index, state(t, killed))
	}

	began := time.Now()
	killed.stop(t)
	waitLeader(t, rest...)
	elected := time.Since(began)
	leader, last := propose(t, rest, "after")
	t.Logf("new leader after %v, next write after %v", elected.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))

	// It comes back with what it had, and as a follower.
	back := start(t, killed.id, killed.dir, killed.addr)
	waitState(t, back, last, state(t, leader))
	undisturbed(t, append(rest, back), func(leader *peer) error {
		for _, p := range others(append(rest, back), leader) {
			id, _, err := p.WaitLeader(within(t))
			if got, want := p.Stats().Term, leader.Stats().Term; err != nil || id != leader.id || got != want {
				return fmt.Errorf("%s follows %s in term %d, not %d: %w", p.id, id, got, want, err)
			}
		}
		return nil
	})
}

func TestAllRestartedAtOnce(t *testing.T) {
	peers := cluster(t, 3)
	leader, last := propose(t, peers, "kept")
	want := state(t, leader)
	for _, p := range peers {
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
	for _, p := range peers {
		waitState(t, p, last, want)
	}
	if err := peers[0].Bootstrap(); err == nil {
		t.Error("a node with state can be bootstrapped again")
	}
	propose(t, peers, "more")
}

func TestRestartFromSnapshotAndLateFollower(t *testing.T) {
	short := func(c *consensus.Config) { c.KeepEntries = 1 }
	first := cluster(t, 1, short)[0]
	var last api.Index
	for i := range 50 {
		_, last = propose(t, []*peer{first}, fmt.Sprint("net", i))
	}
	if err := first.Compact(); err != nil {
		t.Fatal(err)
	}
	want := state(t, first)
	first.stop(t)
	again := start(t, first.id, first.dir, first.addr, short)
	waitState(t, again, last, want)

	// The entries are gone from the log: a new follower gets the snapshot.
	late := start(t, "late", t.TempDir(), "", short)
	add(t, []*peer{again}, late)
	leader, last := propose(t, []*peer{again, late}, "more")
	waitState(t, late, last, state(t, leader))
}

func TestWithoutAQuorumNothingIsAcknowledged(t *testing.T) {
	peers := cluster(t, 3)
	leader, _ := propose(t, peers, "before")
	rest := others(peers, leader)
	lead := leader.Leadership()
	for _, p := range rest {
		p.stop(t)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if _, err := tryPropose(ctx, leader, "lost"); !errors.Is(err, consensus.ErrOutcomeUnknown) &&
		!errors.Is(err, consensus.ErrNoQuorum) && !errors.Is(err, consensus.ErrNotLeader) {
		t.Errorf("propose without a quorum: %v", err)
	}
	if leader.store.NetworkByName("lost") != nil {
		t.Error("applied without a quorum")
	}
	for leads := true; leads; {
		select {
		case leads = <-lead:
		case <-time.After(limit):
			t.Fatal("the leader does not step down")
		}
	}
	// One of the two is enough again.
	back := start(t, rest[0].id, rest[0].dir, rest[0].addr)
	propose(t, []*peer{leader, back}, "more")
}

func TestPoliteHandover(t *testing.T) {
	peers := cluster(t, 3)
	began := time.Now()
	old := undisturbed(t, peers, func(leader *peer) error {
		began = time.Now()
		return leader.TransferLeadership(within(t))
	})
	propose(t, peers, "after")
	t.Logf("next write after %v", time.Since(began).Round(time.Millisecond))
	leader := undisturbed(t, others(peers, old), func(leader *peer) error {
		if err := old.TransferLeadership(within(t)); !errors.Is(err, consensus.ErrNotLeader) {
			return fmt.Errorf("transfer by a follower: %w", err)
		}
		return leader.RemoveServer(within(t), old.id)
	})
	if got := len(leader.Stats().Peers); got != 2 {
		t.Errorf("%d members after a removal, want 2", got)
	}
	propose(t, others(peers, old), "with two")
}

func TestManagerThatDoesNotAnswer(t *testing.T) {
	peers := cluster(t, 1)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	silent.Close()
	if err := waitLeader(t, peers...).AddMember(within(t), "ghost", silent.Addr().String()); err == nil {
		t.Error("a manager that does not answer was added")
	}
	propose(t, peers, "still works")
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

// After a write that no other follows, followers hear that it is committed at once, and
// not by a slow timer of Raft's; no further entry is needed for it.
func TestCommitIsAnnounced(t *testing.T) {
	peers := cluster(t, 3)
	leader, before := propose(t, peers, "before")
	term := leader.Stats().Term
	fastest := limit
	const writes = 10
	for i := range writes {
		began := time.Now()
		_, index := propose(t, peers, fmt.Sprint("net", i))
		for _, p := range peers {
			waitState(t, p, index, state(t, leader))
		}
		fastest = min(fastest, time.Since(began))
	}
	if leader.Stats().Term != term {
		t.Skip("another manager leads: the log has its entry too")
	}
	t.Logf("the fastest of %d writes was everywhere after %v", writes, fastest)
	if fastest > 200*time.Millisecond {
		t.Errorf("the fastest of %d writes was everywhere after %v", writes, fastest)
	}
	if last := leader.Stats().LastIndex; last != before+writes {
		t.Errorf("the log has %d entries after %d writes", last-before, writes)
	}
}

// Of what no quorum has yet nobody is told that it is committed, however new a leader's
// own log is.
func TestNothingElseIsAnnounced(t *testing.T) {
	peers := cluster(t, 3)
	for _, p := range peers { // so that the leader goes on leading for a while
		if err := p.Retime(slow); err != nil {
			t.Fatal(err)
		}
	}
	leader, index := propose(t, peers, "everywhere")
	if !leader.Tells(index) {
		t.Errorf("entry %d is committed, and is not told of", index)
	}
	for _, p := range others(peers, leader) {
		p.stop(t)
	}
	data, err := store.Encode([]api.Change{{Network: &api.Network{ID: "here", Name: "here"}}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(within(t))
	ended := make(chan error, 1)
	go func() { _, _, err := leader.Propose(ctx, data); ended <- err }()
	await(t, "the entry is in the leader's log", func() error {
		if leader.Stats().LastIndex == index {
			return errors.New("it is not")
		}
		return nil
	})
	if leader.Tells(index + 1) {
		t.Errorf("entry %d is told to be committed, and is on no other node", index+1)
	}
	cancel()
	if err := <-ended; err == nil {
		t.Error("it was committed")
	}
}
