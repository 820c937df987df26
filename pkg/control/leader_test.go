package control

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/rpc"
)

// A leader that is stopped politely loses no write, wherever it came in.
func TestPoliteStopFailsNoWrite(t *testing.T) {
	g := newGroup(t, 3)
	leader, followers := g.leader(t), g.followers(t)
	stopped := make(chan struct{})
	var longest time.Duration
	var clients errgroup.Group
	for i, p := range followers {
		clients.Go(func() error {
			for n := 0; ; n++ {
				began := time.Now()
				if err := p.label(deadline(t), p.node.ID, fmt.Sprint(n)); err != nil {
					return fmt.Errorf("write %d through %s: %w", n, p.node.Hostname, err)
				}
				if took := time.Since(began); i == 0 && took > longest {
					longest = took
				}
				select {
				case <-stopped:
					return nil
				default:
				}
			}
		})
	}
	time.Sleep(200 * time.Millisecond) // of writes
	if err := leader.HandOver(deadline(t)); err != nil {
		t.Errorf("hand over: %v", err)
	}
	leader.stop()
	g.managers = followers
	for range 10 {
		g.call(t, func(p *peer) error { return p.label(deadline(t), leader.node.ID, "after") })
	}
	close(stopped)
	if err := clients.Wait(); err != nil {
		t.Error(err)
	}
	t.Logf("the slowest write took %v", longest.Round(time.Millisecond))
}

// A call is held until there is a leader again.
func TestCallsAreHeldInAnElection(t *testing.T) {
	g := newGroup(t, 3)
	leader, followers := g.leader(t), g.followers(t)
	leader.stop()
	g.managers = followers
	began := time.Now()
	if err := followers[0].label(deadline(t), leader.node.ID, "after"); err != nil {
		t.Errorf("the first write after the leader's end: %v", err)
	}
	t.Logf("the first write took %v", time.Since(began).Round(time.Millisecond))
}

func TestReadsWithoutAQuorum(t *testing.T) {
	g := newGroup(t, 3)
	leader, followers := g.leader(t), g.followers(t)
	g.call(t, func(p *peer) error { return p.label(deadline(t), leader.node.ID, "written") })
	left := followers[0]
	for _, read := range []api.Read{api.ReadLeased, api.ReadConsistent} {
		if got, err := left.labelOf(deadline(t), leader.node.ID, read); err != nil || got != "written" {
			t.Errorf("read %q: %q, %v", read, got, err)
		}
	}
	until(t, "the one that is left has it", func() error {
		if got, err := left.labelOf(deadline(t), leader.node.ID, api.ReadStale); err != nil || got != "written" {
			return fmt.Errorf("%q, %w", got, err)
		}
		return nil
	})
	followers[1].stop()
	leader.stop()

	if got, err := left.labelOf(deadline(t), leader.node.ID, api.ReadStale); err != nil || got != "written" {
		t.Errorf("a stale read without a quorum: %q, %v", got, err)
	}
	var calls errgroup.Group // side by side: each is held for some time
	refused := func(what string, call func() error) {
		calls.Go(func() error {
			if err := call(); api.CodeOf(err) != api.CodeUnavailable || !strings.Contains(err.Error(), "no quorum") || !strings.Contains(err.Error(), "`orch node ls --stale`") {
				return fmt.Errorf("%s without a quorum: %w", what, err)
			}
			return nil
		})
	}
	refused("a write", func() error { return left.label(deadline(t), leader.node.ID, "lost") })
	for _, read := range []api.Read{api.ReadLeased, api.ReadConsistent} {
		refused(fmt.Sprintf("read %q", read), func() error {
			_, err := left.labelOf(deadline(t), leader.node.ID, read)
			return err
		})
	}
	if err := calls.Wait(); err != nil {
		t.Error(err)
	}
}

// A leader that was cut off and does not know yet answers no consistent read, also if
// a manager without a vote still follows it.
func TestConsistentReadAsksTheVoters(t *testing.T) {
	g := newGroup(t, 2)
	silent := g.start(t, api.RoleManager)
	g.managers = g.managers[:2] // so that nobody says that it has caught up
	g.commit(t, func(*api.Snapshot) []api.Change { return []api.Change{{Node: silent.node}} })
	until(t, "it is a member", func() error {
		_, err := rpc.Call[api.AddMemberRequest, api.Empty](deadline(t), g.leader(t).client, api.ProcAddMember, &api.AddMemberRequest{Node: silent.node.ID})
		return err
	})
	for _, p := range append(g.followers(t), silent, g.leader(t)) { // to have time before the leader finds out by itself
		if err := p.Replica.Raft.Retime(2 * time.Second); err != nil {
			t.Fatal(err)
		}
	}
	leader, follower := g.leader(t), g.followers(t)[0]
	until(t, "all follow the leader", func() error {
		if _, _, known := silent.Replica.Raft.Leader(); !known || leader.Replica.Raft.Stats().Votes(silent.node.ID) {
			return fmt.Errorf("known %v, members %+v", known, leader.Replica.Raft.Stats().Peers)
		}
		_, err := leader.labelOf(deadline(t), leader.node.ID, api.ReadConsistent)
		return err
	})
	if err := follower.Replica.Raft.Shutdown(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if got, err := leader.labelOf(ctx, leader.node.ID, api.ReadConsistent); err == nil {
		t.Errorf("a leader without a quorum answers %q", got)
	} else if errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("no answer at all: %v", err)
	}
}

// A leader that was cut off from all does not answer it either.
func TestConsistentReadAsksTheOthers(t *testing.T) {
	g := newGroup(t, 3)
	leader, followers := g.leader(t), g.followers(t)
	for _, p := range followers {
		p.stop()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if got, err := leader.labelOf(ctx, leader.node.ID, api.ReadConsistent); err == nil {
		t.Errorf("a leader without followers answers %q", got)
	} else if errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("no answer at all: %v", err)
	}
}
