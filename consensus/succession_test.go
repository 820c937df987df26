package consensus_test

import (
	"fmt"
	"testing"
	"time"
)

// slow is an election timeout that silence would have to last for.
const slow = 5 * time.Second

// settledGroup is a group whose members all follow its leader.
func settledGroup(t *testing.T, n int) (leader *peer, followers []*peer) {
	t.Helper()
	peers := cluster(t, n)
	for _, p := range peers {
		if err := p.Retime(slow); err != nil {
			t.Fatal(err)
		}
	}
	leader, index := propose(t, peers, "before")
	followers = others(peers, leader)
	for _, p := range followers {
		waitState(t, p, index, state(t, leader))
	}
	return leader, followers
}

// A leader whose process ends is succeeded at once: its followers do not wait for an
// election timeout, also if the first in line is gone as well.
func TestSuccession(t *testing.T) {
	for _, lost := range []int{0, 1} {
		t.Run(fmt.Sprintf("%d followers lost", lost), func(t *testing.T) {
			leader, followers := settledGroup(t, 3+2*lost)
			term := leader.Stats().Term
			began := time.Now()
			for range lost {
				followers[0].stop(t)
				followers = followers[1:]
			}
			leader.stop(t)
			next, _ := propose(t, followers, "after")
			took := time.Since(began)
			t.Logf("the next write %v after the leader was gone, in term %d after %d", took.Round(time.Millisecond), next.Stats().Term, term)
			if took > slow {
				t.Errorf("it took %v, as long as silence has to last", took)
			}
		})
	}
}

// Nobody succeeds a leader that is there, whatever becomes of its connections.
func TestNoSuccession(t *testing.T) {
	leader, followers := settledGroup(t, 3)
	term := leader.Stats().Term
	for i := range 3 {
		leader.BreakConnections()
		if _, err := tryPropose(within(t), leader, fmt.Sprint("broken-", i)); err != nil {
			t.Fatal(err)
		}
	}
	followers[0].stop(t)
	if _, err := tryPropose(within(t), leader, "with two"); err != nil {
		t.Fatal(err)
	}
	if err := leader.VerifyLeader(within(t)); err != nil || leader.Stats().Term != term {
		t.Errorf("it led in term %d, and now %+v (%v)", term, leader.Stats(), err)
	}
}
