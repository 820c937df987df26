package consensus

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// Followers hear of an entry as soon as nothing has come after it for a while, and
// one timer does for all that were written meanwhile.
func TestAnnouncementsShareATimer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a announcements
		var fired, last atomic.Uint64
		told := make(chan uint64, 8)
		var later func()
		later = func() {
			fired.Add(1)
			if newest := a.unheard(last.Load(), later); newest != 0 {
				told <- newest
			}
		}
		const step, writes = announceAfter / 50, 500 // ten times announceAfter in all
		for range writes {
			a.add(last.Add(1), later)
			time.Sleep(step)
		}
		if fired := fired.Load(); len(told) != 0 || fired > 2*writes/50 {
			t.Errorf("told %d times by %d timers while more was written", len(told), fired)
		}
		a.add(last.Load()-1, later) // who waited for it was slow
		time.Sleep(2 * announceAfter)
		if len(told) != 1 {
			t.Fatalf("told %d times, want once", len(told))
		}
		if got := <-told; got != writes {
			t.Errorf("told of %d, want %d", got, writes)
		}

		a.add(last.Add(1), later)
		last.Add(1) // which tells of it
		time.Sleep(2 * announceAfter)
		if len(told) != 0 {
			t.Errorf("told of %d, of which the next entry told", <-told)
		}
	})
}

// What a message with entries says of the ones before them goes first, once, and the
// message itself follows as it came.
func TestCommitGoesFirst(t *testing.T) {
	entries := []*raft.Log{{Index: 8}, {Index: 9}}
	network := make(chan raft.RPC)
	trans := &transport{arrived: make(chan raft.RPC), closed: make(chan struct{})}
	ended := make(chan struct{})
	go func() { trans.run(network); close(ended) }()
	for _, step := range []struct {
		name    string
		command any
		first   uint64 // what is said to be committed before; 0: nothing
	}{
		{"an election", &raft.RequestVoteRequest{Term: 2}, 0},
		{"nothing is committed", &raft.AppendEntriesRequest{PrevLogEntry: 7, Entries: entries}, 0},
		{"no entries", &raft.AppendEntriesRequest{PrevLogEntry: 7, LeaderCommitIndex: 7}, 0},
		{"some before", &raft.AppendEntriesRequest{Term: 2, PrevLogEntry: 7, PrevLogTerm: 1, LeaderCommitIndex: 5, Entries: entries}, 5},
		{"nothing new", &raft.AppendEntriesRequest{PrevLogEntry: 7, LeaderCommitIndex: 5, Entries: entries}, 0},
		{"also what it brings", &raft.AppendEntriesRequest{Term: 2, PrevLogEntry: 7, PrevLogTerm: 1, LeaderCommitIndex: 8, Entries: entries}, 7},
		{"from the first on", &raft.AppendEntriesRequest{LeaderCommitIndex: 9, Entries: entries}, 0},
	} {
		answer := make(chan raft.RPCResponse, 1)
		network <- raft.RPC{Command: step.command, RespChan: answer}
		got := <-trans.Consumer()
		if step.first != 0 {
			word, ok := got.Command.(*raft.AppendEntriesRequest)
			if whole := step.command.(*raft.AppendEntriesRequest); !ok || len(word.Entries) != 0 || word.LeaderCommitIndex != step.first ||
				word.Term != whole.Term || word.PrevLogEntry != whole.PrevLogEntry || word.PrevLogTerm != whole.PrevLogTerm {
				t.Fatalf("%s: first came %+v", step.name, got.Command)
			}
			got.Respond(nil, nil) // waits for nobody
			got = <-trans.Consumer()
		}
		if got.Command != step.command || got.RespChan != answer {
			t.Errorf("%s: %+v arrived as %+v", step.name, step.command, got.Command)
		}
	}
	close(trans.closed)
	<-ended
}
