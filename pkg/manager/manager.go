package manager

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/orch-dev/orch/consensus"
	"github.com/orch-dev/orch/consensus/store"
	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/ipam"
	"github.com/orch-dev/orch/pkg/orchestrator"
	"github.com/orch-dev/orch/pkg/scheduler"
)

// Manager reconciles the cluster while its node leads.
type Manager struct {
	replica *Replica
	tracker *Tracker
	newID   func() string
	now     func() time.Time
	log     *slog.Logger
}

func New(replica *Replica, tracker *Tracker, newID func() string, now func() time.Time, log *slog.Logger) *Manager {
	return &Manager{replica: replica, tracker: tracker, newID: newID, now: now, log: log}
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
	if err := m.replica.Raft.Barrier(ctx); err != nil {
		m.log.Warn("cannot begin to lead", "err", err)
		return
	}
	m.log.Info("leading the cluster")
	m.tracker.Lead(m.replica.Snapshot().Nodes, m.now())
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

// step plans once, proposes what was planned, or as much of it as one entry
// should hold, and returns when time alone would make the next plan another.
func (m *Manager) step(ctx context.Context) (time.Time, error) {
	snap, now := m.replica.Snapshot(), m.now()
	if snap.Cluster == nil {
		return now.Add(time.Second), nil // not bootstrapped yet
	}
	changes, err := fitting(m.plan(snap, now), entrySize)
	if err != nil {
		return time.Time{}, err
	}
	if len(changes) > 0 {
		if _, err := m.replica.Commit(ctx, changes); err != nil {
			return time.Time{}, fmt.Errorf("commit %d changes: %w", len(changes), err)
		}
		for _, c := range changes {
			m.log.Debug("changed", "object", c.Ref(), "delete", c.Delete)
		}
	}
	wake := m.tracker.NextExpiry(snap, now)
	if w := orchestrator.NextWake(snap, now); !w.IsZero() && w.Before(wake) {
		wake = w
	}
	return wake, nil
}

// entrySize is the size of a planned entry, in bytes: a disk and a network have
// it long before a heartbeat is missed.
const entrySize = 1 << 20

// fitting returns the first of the changes that make an entry of at most size
// bytes, one of them at least. Any of them can be made without those behind it:
// the rest is planned again.
func fitting(changes []api.Change, size int) ([]api.Change, error) {
	total := 0
	for i := range changes {
		data, err := store.Encode(changes[i : i+1])
		if err != nil {
			return nil, err
		}
		if total += len(data); total > size && i > 0 {
			return changes[:i], nil
		}
	}
	return changes, nil
}

// plan runs the planners in a row, each on what those before it planned.
func (m *Manager) plan(snap *api.Snapshot, now time.Time) []api.Change {
	leases := m.tracker.Leases(snap, now)
	snap = snap.With(leases)

	tasks := orchestrator.Plan(orchestrator.Input{
		Snapshot: snap,
		Now:      now,
		Acked:    m.tracker.Acked(snap, now),
		NewID:    func() api.TaskID { return api.TaskID(m.newID()) },
	})
	snap = snap.With(tasks)

	allocations, problems := ipam.Plan(snap)
	for _, p := range problems {
		m.log.Warn("cannot allocate", "problem", p)
	}
	snap = snap.With(allocations)

	placements := scheduler.Plan(snap, now)
	snap = snap.With(placements)

	return api.Merge(leases, tasks, allocations, placements, unusedNetworks(snap))
}

// unusedNetworks plans the end of networks whose stack was removed, once no
// task is on them: until then their numbers may not be given to another.
func unusedNetworks(snap *api.Snapshot) []api.Change {
	used := make(map[api.NetworkID]bool)
	for _, t := range snap.Tasks {
		for _, id := range t.Networks {
			used[id] = true
		}
	}
	var changes []api.Change
	for _, n := range api.Sorted(snap.Networks) {
		if n.Removing && !used[n.ID] {
			changes = append(changes, api.Change{Network: n, Delete: true})
		}
	}
	return changes
}
