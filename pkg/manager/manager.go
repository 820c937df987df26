package manager

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/orch-dev/orch/consensus"
	"github.com/orch-dev/orch/consensus/store"
	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/orchestrator"
)

// Manager reconciles the cluster while its node leads.
type Manager struct {
	replica *Replica
	tracker *Tracker
	planner Planner
	newID   func() string
	rand    io.Reader // for keys
	now     func() time.Time
	log     *slog.Logger
}

func New(replica *Replica, tracker *Tracker, newID func() string, rand io.Reader, now func() time.Time, log *slog.Logger) *Manager {
	return &Manager{replica: replica, tracker: tracker, newID: newID, rand: rand, now: now, log: log}
}

// Run follows leadership until ctx ends, and reconciles in each term that this
// node leads.
func (m *Manager) Run(ctx context.Context) error {
	leadership := m.replica.Raft.Leadership()
	stop := func() {}
	defer func() { stop() }()
	for {
		select {
		case <-ctx.Done():
			return nil
		case leads, open := <-leadership:
			stop()
			stop = func() {}
			if !open {
				return nil
			}
			if leads {
				stop = m.start(ctx)
			}
		}
	}
}

// start reconciles in the background and returns what ends it and waits for it.
func (m *Manager) start(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.lead(ctx)
	}()
	return func() { cancel(); <-done }
}

// retryDelay is waited after a failed step, so that a leader without a quorum
// does not spin.
const retryDelay = 200 * time.Millisecond

func (m *Manager) lead(ctx context.Context) {
	term := m.replica.Raft.Term() // before the barrier: what is applied then is all of earlier ones
	if err := m.replica.Raft.Barrier(ctx); err != nil {
		m.log.Warn("cannot begin to lead", "err", err)
		return
	}
	m.log.Info("leading the cluster")
	m.tracker.Lead(term, m.replica.Snapshot().Nodes, m.now())
	defer m.tracker.Resign()
	for ctx.Err() == nil {
		changed, acked := m.replica.Changed(), m.tracker.Changed()
		wake, err := m.step(ctx)
		switch {
		case err == nil:
		case errors.Is(err, store.ErrConflict): // planned from an older state: a newer one is here or comes
			m.log.Debug("plan again", "err", err)
			wake = m.now().Add(retryDelay)
		default:
			if !errors.Is(err, consensus.ErrNotLeader) {
				m.log.Warn("cannot reconcile", "err", err)
			}
			wake = m.now().Add(retryDelay)
			changed, acked = nil, nil
		}
		timer := time.NewTimer(wake.Sub(m.now()))
		select {
		case <-ctx.Done():
		case <-changed:
		case <-acked:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// step plans once, proposes what was planned, or as much of it as can be in about
// the time that planning took, and returns when time alone would make the next
// plan another.
func (m *Manager) step(ctx context.Context) (time.Time, error) {
	snap, now := m.replica.Snapshot(), m.now()
	if snap.Cluster == nil {
		return now.Add(time.Second), nil // not bootstrapped yet
	}
	plan := m.plan(snap, now)
	for _, p := range plan.Problems {
		m.log.Warn("cannot allocate", "problem", p)
	}
	until := m.now().Add(max(minCommit, m.now().Sub(now)))
	for rest := plan.Changes; len(rest) > 0 && !m.now().After(until); {
		entry, n, err := store.EncodeUpTo(rest, entrySize)
		if err != nil {
			return time.Time{}, err
		}
		if _, err := m.replica.CommitEntry(ctx, entry); err != nil {
			return time.Time{}, fmt.Errorf("commit %d changes: %w", n, err)
		}
		for _, c := range rest[:n] {
			m.log.Debug("changed", "object", c.Ref(), "delete", c.Delete)
		}
		rest = rest[n:]
	}
	if len(plan.Changes) == 0 {
		select {
		case <-time.After(planRest):
		case <-ctx.Done():
		}
	}
	wake := m.tracker.NextExpiry(snap, now)
	if w := orchestrator.NextWake(snap, now); !w.IsZero() && w.Before(wake) {
		wake = w
	}
	return wake, nil
}

const (
	// entrySize is the size of a planned entry, in bytes: a disk and a network
	// have it long before a heartbeat is missed.
	entrySize = 1 << 20
	// minCommit is how long entries of one plan are proposed at least, if there
	// are more. The rest is planned again: planning takes as long as the state is
	// large, so that planning anew for each entry would cost its square.
	minCommit = time.Second
	// planRest is how long the leader rests when there was nothing to do: when much
	// changes that it has no part in, what changes meanwhile is planned for once.
	planRest = 10 * time.Millisecond
)

func (m *Manager) plan(snap *api.Snapshot, now time.Time) Planned {
	leases := m.tracker.Leases(snap, now)
	acked := m.tracker.Acked(snap.With(leases), now)
	planned := m.planner.Plan(orchestrator.Input{
		Snapshot: snap.With(leases),
		Now:      now,
		Acked:    acked,
		Fenced: func(id api.NodeID) bool {
			return m.tracker.Fenced(id, snap.Cluster.FenceWait(), now)
		},
		NewID: func() api.TaskID { return api.TaskID(m.newID()) },
	})
	planned.Changes = api.Merge(leases, planned.Changes)
	settings := m.tracker.EndLongLease(snap.With(planned.Changes), now)
	planned.Changes = api.Merge(planned.Changes, settings)
	gossip := planGossipKey(snap.With(planned.Changes), now, m.rand)
	planned.Changes = api.Merge(planned.Changes, gossip)
	tunnels := planTunnelKeys(snap.With(planned.Changes), acked, now)
	planned.Changes = api.Merge(planned.Changes, tunnels)
	return planned
}
