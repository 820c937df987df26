package store

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/orch-dev/orch/pkg/api"
)

// Delta is what one entry changed: the objects as stored, stamped; of a deleted
// one its last version, with Delete set. Nothing in it may be changed.
type Delta struct {
	Index   api.Index
	Changes []api.Change
}

// ErrTooOld means that the changes a watch asks for are not kept any more: go
// on from a Snapshot and a new watch after its index.
var ErrTooOld = errors.New("too old")

// recentChanges is how many changes are kept for watches. It bounds the memory
// they hold on to; the newest entry is kept even if it alone has more.
const recentChanges = 8192

// recent is the tail of the history.
type recent struct {
	limit  int
	deltas []Delta // without gaps, ascending
	count  int     // of the changes in deltas
	// floor is the index after which deltas are complete; epoch grows when
	// the state is replaced as a whole.
	floor api.Index
	epoch uint64
}

func (r *recent) add(d Delta) {
	r.deltas = append(r.deltas, d)
	r.count += len(d.Changes)
	for r.count > r.limit && len(r.deltas) > 1 {
		r.floor = r.deltas[0].Index
		r.count -= len(r.deltas[0].Changes)
		// The array is not written to: a reader may hold a part of it. It
		// goes when append next needs a larger one.
		r.deltas = r.deltas[1:]
	}
}

func (r *recent) reset(floor api.Index) {
	*r = recent{limit: r.limit, floor: floor, epoch: r.epoch + 1}
}

// Watch reads the history in order. It is for one goroutine, and needs no
// closing.
type Watch struct {
	store  *Store
	cursor api.Index
	epoch  uint64
}

// Watch returns a watch of all that changes after an index, which may lie in
// the future: a Snapshot's, or the last one that was seen at another manager.
func (s *Store) Watch(after api.Index) *Watch {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return &Watch{store: s, cursor: after, epoch: s.recent.epoch}
}

// Next returns the changes since the last call, at least one, and waits if
// there is none yet. It fails with ErrTooOld, for good, or with the context's
// error.
func (w *Watch) Next(ctx context.Context) ([]Delta, error) {
	for {
		deltas, changed, err := w.store.since(w.cursor, w.epoch)
		if err != nil {
			return nil, err
		}
		if len(deltas) > 0 {
			w.cursor = deltas[len(deltas)-1].Index
			return deltas, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("watch after %d: %w", w.cursor, context.Cause(ctx))
		}
	}
}

// since returns the deltas after an index and what to wait for if there are none.
func (s *Store) since(after api.Index, epoch uint64) ([]Delta, <-chan struct{}, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	r := &s.recent
	if epoch != r.epoch || after < r.floor {
		return nil, nil, fmt.Errorf("watch after %d: changes are kept from %d on: %w", after, r.floor, ErrTooOld)
	}
	from, _ := slices.BinarySearchFunc(r.deltas, after+1, func(d Delta, i api.Index) int {
		return int(int64(d.Index) - int64(i))
	})
	return r.deltas[from:len(r.deltas):len(r.deltas)], s.changed, nil
}

// Changed returns a channel that is closed when the state next changes. Take it
// before the snapshot it is about.
func (s *Store) Changed() <-chan struct{} {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.changed
}

// Index is the index of the last entry applied, whether or not it changed
// anything. Entries of Raft's own have indexes too, but never come here.
func (s *Store) Index() api.Index {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.index
}

// Wait waits until the entry with that index, or a later one, is applied here:
// what was written through another manager can then be read.
func (s *Store) Wait(ctx context.Context, index api.Index) error {
	for {
		s.mu.RLock()
		have, applied := s.index, s.applied
		s.mu.RUnlock()
		if have >= index {
			return nil
		}
		select {
		case <-applied:
		case <-ctx.Done():
			return fmt.Errorf("wait for index %d, now %d: %w", index, have, context.Cause(ctx))
		}
	}
}
