// Package manager is what the leader does: a loop that looks at the state of
// the cluster, asks the planners what should change and proposes it, and the
// leases and acknowledgements that it needs beside the replicated state.
package manager

import (
	"context"
	"errors"
	"fmt"

	"github.com/orch-dev/orch/consensus"
	"github.com/orch-dev/orch/consensus/store"
	"github.com/orch-dev/orch/pkg/api"
)

// Replica is this manager's copy of the cluster's state and its way to change it.
type Replica struct {
	*store.Store
	Raft *consensus.Node
}

// Leads reports whether this manager leads, and knows all that the leaders before it
// did. It may have lost a term and won another before the tracker is told: from the
// state of then it would answer that what exists does not.
func (r *Replica) Leads(t *Tracker) bool {
	return r.Raft.IsLeader() && t.Leads(r.Raft.Term()) // the term after: an older one is the tracker's for longer
}

// updateAttempts bounds how often an optimistic update is tried again.
const updateAttempts = 10

// Commit proposes changes as one entry and returns its index once it is applied
// here. It fails with store.ErrConflict if an object has another version than a
// change was made from.
func (r *Replica) Commit(ctx context.Context, changes []api.Change) (api.Index, error) {
	data, err := store.Encode(changes)
	if err != nil {
		return 0, fmt.Errorf("encode %d changes: %w", len(changes), err)
	}
	return r.CommitEntry(ctx, data)
}

// CommitEntry is Commit for changes that are encoded already.
func (r *Replica) CommitEntry(ctx context.Context, data []byte) (api.Index, error) {
	if len(data) > consensus.MaxEntry {
		return 0, api.Errorf(api.CodeInvalid, "this changes too much at once: %d bytes, at most %d are possible", len(data), consensus.MaxEntry)
	}
	index, _, err := r.Raft.Propose(ctx, data)
	return index, explain(err)
}

// AddMember makes a node that was admitted, and whose Raft answers, a member of
// the group without a vote. If it fails with api.CodeUnavailable, it may have done so.
func (r *Replica) AddMember(ctx context.Context, node *api.Node) error {
	err := explain(r.Raft.AddMember(ctx, node.ID, node.APIAddr()))
	if err != nil && api.CodeOf(err) != api.CodeUnavailable {
		return fmt.Errorf("%w: %w", errUnreachable, err)
	}
	return err
}

// explain adds what a user needs to know to an error of Raft.
func explain(err error) error {
	switch {
	case errors.Is(err, consensus.ErrNotLeader):
		return fmt.Errorf("%w: %w", errLeaderChanged, err)
	case errors.Is(err, consensus.ErrNoQuorum), errors.Is(err, consensus.ErrOutcomeUnknown):
		return fmt.Errorf("%w: %w", errUncertain, err)
	}
	return err
}

// What users are told beside the reason.
var (
	errLeaderChanged = api.Undone("the leader has just changed, nothing was done: try again")
	errUnreachable   = api.Errorf(api.CodeInvalid, "the managers cannot reach the node at its address")
	errUncertain     = api.Errorf(api.CodeUnavailable, "too few managers answered; whether it was done will show once they do")
)

// Update commits what fn plans from the current state, again from a newer one
// if another update came between. An fn that plans nothing commits nothing, and
// the index is the state's.
func (r *Replica) Update(ctx context.Context, fn func(*api.Snapshot) ([]api.Change, error)) (api.Index, error) {
	for attempt := 1; ; attempt++ {
		snap := r.Snapshot()
		changes, err := fn(snap)
		if err != nil || len(changes) == 0 {
			return snap.Index, err
		}
		index, err := r.Commit(ctx, changes)
		if !errors.Is(err, store.ErrConflict) || attempt == updateAttempts {
			return index, err
		}
	}
}
