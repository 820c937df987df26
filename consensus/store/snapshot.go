package store

import (
	"fmt"

	"github.com/orch-dev/orch/pkg/api"
)

// pendingChanges is how many changes are kept to bring the last snapshot up to
// date with; beyond it, a new one is built from the tables.
const pendingChanges = 4096

// Snapshot returns the whole state, consistent and immutable. Its Index is that
// of the last entry that changed anything, so it may be less than the store's.
// Callers get the same snapshot until the next change; the first after a change
// pays for copying the maps of the kinds that changed.
func (s *Store) Snapshot() *api.Snapshot {
	if last := s.snapshot.Load(); s.isCurrent(last) {
		return last.Snapshot
	}
	s.building.Lock()
	defer s.building.Unlock()
	last := s.snapshot.Load()
	if s.isCurrent(last) {
		return last.Snapshot // another caller was faster
	}
	s.mu.Lock()
	pending, stale := s.pending, s.stale
	s.pending, s.stale = nil, false
	index, epoch := s.changeIndex(), s.recent.epoch
	txn := s.db.Txn(false) // reads on after the lock is released
	s.mu.Unlock()

	next := *last.Snapshot
	if stale {
		next = api.Snapshot{}
		for _, kind := range kinds {
			all, err := list(txn, kind, byID)
			if err != nil {
				panic(fmt.Sprintf("snapshot: %v", err)) // only an index that does not exist
			}
			next = *next.With(values(all))
		}
	} else {
		next = *next.With(pending)
	}
	next.Index = index
	s.snapshot.Store(&built{&next, epoch})
	return &next
}

// built is a snapshot and the epoch of the history it belongs to.
type built struct {
	*api.Snapshot
	epoch uint64
}

func (s *Store) isCurrent(b *built) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return b.epoch == s.recent.epoch && b.Index == s.changeIndex()
}

// changeIndex is the index of the last entry that changed anything.
func (s *Store) changeIndex() api.Index {
	if n := len(s.recent.deltas); n > 0 {
		return s.recent.deltas[n-1].Index
	}
	return s.recent.floor
}

func values(all []*api.Change) []api.Change {
	out := make([]api.Change, len(all))
	for i, c := range all {
		out[i] = *c
	}
	return out
}
