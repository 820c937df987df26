package consensus_test

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/orch-dev/orch/consensus"
	"github.com/orch-dev/orch/pkg/api"
)

// elections tells when a node's Raft gave up waiting for a leader.
type elections chan time.Time

func (elections) Enabled(context.Context, slog.Level) bool { return true }
func (e elections) WithAttrs([]slog.Attr) slog.Handler     { return e }
func (e elections) WithGroup(string) slog.Handler          { return e }

func (e elections) Handle(_ context.Context, r slog.Record) error {
	if strings.HasSuffix(r.Message, "starting election") || strings.HasSuffix(r.Message, "restarting election") {
		select {
		case e <- r.Time:
		default:
		}
	}
	return nil
}

// A node without a leader waits between the election timeout and twice of it, each
// time for another time: 150 to 300 ms by default.
func TestElectionsAreDrawn(t *testing.T) {
	const draws = 16
	seen := make(elections, 64)
	lone := start(t, "lone", t.TempDir(), "", func(c *consensus.Config) { c.Log = slog.New(seen) })
	if err := lone.Bootstrap(); err != nil {
		t.Fatal(err)
	}
	other := start(t, "other", t.TempDir(), "")
	add(t, []*peer{lone}, other)
	for len(seen) > 0 {
		<-seen
	}
	other.stop(t)

	last := receive(t, seen) // it stood back for want of a quorum, and then waited in vain
	var waits []time.Duration
	for range draws {
		at := receive(t, seen)
		waits = append(waits, at.Sub(last).Round(time.Millisecond))
		last = at
	}
	slices.Sort(waits)
	t.Logf("waited %v", waits)
	// A busy machine wakes it up late, and never early.
	if timeout := api.DefaultElectionTimeout; waits[0] < timeout || waits[draws/2] > 2*timeout+timeout/2 {
		t.Errorf("it waited %v to %v, %v in the middle; want %v to %v", waits[0], waits[draws-1], waits[draws/2], timeout, 2*timeout)
	}
	if waits[draws-1]-waits[0] < 20*time.Millisecond {
		t.Errorf("it always waits about %v: two would ask for votes at the same time again and again", waits[0])
	}
}

func receive(t *testing.T, seen elections) time.Time {
	t.Helper()
	select {
	case at := <-seen:
		return at
	case <-time.After(limit):
		t.Fatal("no election was begun")
		return time.Time{}
	}
}

// A follower whose disk hangs holds up nothing: the others are a quorum. It needs no
// watch on it, since it acknowledges nothing that it has not written, and has it all
// once the disk is back.
func TestFollowerWhoseDiskHangs(t *testing.T) {
	hangs := start(t, "hangs", ext4(t), "")
	peers := []*peer{start(t, "m1", t.TempDir(), "")}
	if err := peers[0].Bootstrap(); err != nil {
		t.Fatal(err)
	}
	for _, p := range []*peer{start(t, "m2", t.TempDir(), ""), hangs} {
		add(t, peers, p)
		peers = append(peers, p)
	}
	await(t, "another leads", func() error {
		if leader := waitLeader(t, peers...); leader == hangs {
			return leader.TransferLeadership(within(t))
		}
		return nil
	})
	propose(t, peers, "before")

	thaw := freeze(t, hangs.dir)
	rest := others(peers, hangs)
	began := time.Now()
	leader, index := propose(t, rest, "meanwhile")
	t.Logf("a write took %v", time.Since(began).Round(time.Millisecond))
	if hangs.store.Index() >= index {
		t.Error("the follower has what it cannot have written")
	}
	if err := leader.TransferLeadership(within(t)); err != nil {
		t.Logf("hand over: %v", err)
	}
	if next := waitLeader(t, rest...); next == hangs {
		t.Error("the follower whose disk hangs leads")
	}
	leader, index = propose(t, rest, "after a change of leader")

	thaw()
	waitState(t, hangs, index, state(t, leader))
}
