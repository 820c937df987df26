package consensus_test

import (
	"errors"
	"io"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/orch-dev/orch/consensus"
	"github.com/orch-dev/orch/pkg/api"
)

func names(p *peer) []string {
	var out []string
	for _, n := range api.Sorted(p.store.Snapshot().Networks) {
		out = append(out, n.Name)
	}
	slices.Sort(out)
	return out
}

// The only one left of three has what was in its log, also what no quorum was known
// to have, and goes on alone: now, after a restart, and with another that joins it.
func TestRecover(t *testing.T) {
	peers := cluster(t, 3)
	_, index := propose(t, peers, "a")
	left := peers[1]
	if err := left.store.Wait(within(t), index); err != nil {
		t.Fatal(err)
	}
	if err := left.Compact(); err != nil { // so that some of it is in a snapshot
		t.Fatal(err)
	}
	// It leads, so that what it alone has is in its log.
	undisturbed(t, peers, func(leader *peer) error {
		if leader == left {
			return nil
		}
		return leader.TransferLeadership(within(t))
	})
	waitLeader(t, left)
	_, index = propose(t, peers, "b")
	for _, p := range others(peers, left) {
		p.stop(t)
	}
	if _, err := tryPropose(within(t), left, "c"); err == nil {
		t.Fatal("one of three is a quorum")
	}
	watch := left.store.Watch(index)

	kept, err := left.Recover(within(t))
	if err != nil {
		t.Fatal(err)
	}
	if kept.Last <= index || kept.Committed < index || kept.Committed >= kept.Last || kept.Written.IsZero() {
		t.Errorf("it says that it kept %+v, where %d was committed", kept, index)
	}
	_, after := propose(t, []*peer{left}, "d")
	if after < kept.Last+1<<40 {
		t.Errorf("it goes on at %d, which others may have seen", after)
	}
	want := []string{"a", "b", "c", "d"}
	if got := names(left); !slices.Equal(got, want) {
		t.Errorf("it has %v, want %v", got, want)
	}
	if stats := left.Stats(); len(stats.Peers) != 1 {
		t.Errorf("its group is %+v", stats.Peers)
	}
	if deltas, err := watch.Next(within(t)); err != nil || len(deltas) == 0 || deltas[0].Index <= index || deltas[0].Index > kept.Last {
		t.Errorf("who watched was not told of what came after, but of %v, %v", deltas, err)
	}
	if err := left.Retime(2 * api.DefaultElectionTimeout); err != nil {
		t.Fatal(err)
	}
	left.stop(t)

	back := start(t, left.id, left.dir, left.addr)
	joined := start(t, "new", t.TempDir(), "")
	add(t, []*peer{back}, joined)
	_, last := propose(t, []*peer{back, joined}, "e")
	for _, p := range []*peer{back, joined} {
		if err := p.store.Wait(within(t), last); err != nil {
			t.Fatal(err)
		}
		if got := names(p); !slices.Equal(got, append(want, "e")) {
			t.Errorf("%s has %v", p.id, got)
		}
	}
}

// full is a state machine whose next snapshot finds the disk full, once.
type full struct {
	consensus.FSM
	now atomic.Bool
}

func (f *full) Save() (func(io.Writer) error, error) {
	save, err := f.FSM.Save()
	return func(w io.Writer) error {
		if f.now.Swap(false) {
			return errors.New("no space left on device")
		}
		return save(w)
	}, err
}

// A node that could not go on alone is in its group as before: what no quorum was
// known to have is not in its state, and the others find it when they come back.
func TestRecoverThatFails(t *testing.T) {
	var disks []*full
	peers := cluster(t, 3, func(c *consensus.Config) {
		disks = append(disks, &full{FSM: c.FSM})
		c.FSM = disks[len(disks)-1]
	})
	left, _ := propose(t, peers, "a")
	for _, p := range others(peers, left) {
		p.stop(t)
	}
	if _, err := tryPropose(within(t), left, "b"); err == nil {
		t.Fatal("one of three is a quorum")
	}
	disk := disks[slices.Index(peers, left)]
	disk.now.Store(true)
	if _, err := left.Recover(within(t)); !errors.Is(err, consensus.ErrAsBefore) || disk.now.Load() {
		t.Fatalf("on a full disk: %v", err)
	}
	if got := names(left); !slices.Equal(got, []string{"a"}) {
		t.Errorf("it has %v", got)
	}
	back := []*peer{left}
	for _, p := range others(peers, left) {
		back = append(back, start(t, p.id, p.dir, p.addr))
	}
	leader, last := propose(t, back, "c")
	want := state(t, leader)
	for _, p := range back {
		waitState(t, p, last, want)
		if stats := p.Stats(); len(stats.Peers) != 3 {
			t.Errorf("the group of %s is %+v", p.id, stats.Peers)
		}
	}
}

// A node without state begins with that of another.
func TestFound(t *testing.T) {
	peers := cluster(t, 1)
	leader, index := propose(t, peers, "a")
	save, err := leader.store.Save()
	if err != nil {
		t.Fatal(err)
	}
	other := start(t, "other", t.TempDir(), "")
	if err := other.Found(index, save); err != nil {
		t.Fatal(err)
	}
	if _, after := propose(t, []*peer{other}, "b"); after <= index {
		t.Errorf("it goes on at %d behind %d", after, index)
	}
	other.stop(t)
	back := start(t, other.id, other.dir, other.addr)
	_, last := propose(t, []*peer{back}, "c")
	if err := back.store.Wait(within(t), last); err != nil {
		t.Fatal(err)
	}
	if got := names(back); !slices.Equal(got, []string{"a", "b", "c"}) {
		t.Errorf("it has %v", got)
	}
	if err := back.Found(index, func(io.Writer) error { return nil }); err == nil {
		t.Error("a node with state began with another")
	}
}
