// Package store is the replicated state of a cluster: the state machine that
// the Raft log drives on every manager, with consistent snapshots, indexed reads
// and an ordered watch.
//
// One log entry is one list of changes, applied as a whole or not at all.
// Everything here depends on nothing but the entries and their order, so that
// every manager holds the same.
package store

import (
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/go-memdb"

	"github.com/orch-dev/orch/pkg/api"
)

// Store holds the state. Reads are safe from any goroutine; what they return is
// shared and must not be changed.
type Store struct {
	mu    sync.RWMutex
	db    *memdb.MemDB
	index api.Index // of the last entry applied, also if it changed nothing

	recent  recent        // the latest changes, for watches
	changed chan struct{} // closed when the state changes
	applied chan struct{} // closed when index grows

	// pending are the changes since snapshot; nil with stale set when there
	// are so many that a snapshot is better built from the tables.
	pending []api.Change
	stale   bool

	building sync.Mutex // held while a snapshot is built
	snapshot atomic.Pointer[built]
}

// New returns an empty store.
func New() *Store {
	s := &Store{
		db:      newDB(),
		recent:  recent{limit: recentChanges},
		changed: make(chan struct{}),
		applied: make(chan struct{}),
	}
	s.snapshot.Store(&built{Snapshot: &api.Snapshot{}})
	return s
}

// Entries and saved states have the lowest version that knows what is in them, so
// that during an upgrade older managers understand what newer ones write for as
// long as nobody uses what is new. formatVersion is the highest.
const (
	formatVersion = filesVersion
	filesVersion  = 2 // has files
	firstVersion  = 1
)

// versionOf is the version of an entry.
func versionOf(changes []api.Change) int {
	if slices.ContainsFunc(changes, func(c api.Change) bool { return c.File != nil }) {
		return filesVersion
	}
	return firstVersion
}

// entry is one log entry.
type entry struct {
	Version int          `json:"v"`
	Changes []api.Change `json:"changes"`
}

// Encode makes the log entry of a list of changes.
func Encode(changes []api.Change) ([]byte, error) {
	data, err := json.Marshal(entry{Version: versionOf(changes), Changes: changes})
	if err != nil {
		return nil, fmt.Errorf("encode changes: %w", err)
	}
	return data, nil
}

// EncodeUpTo makes the log entry of the first n of a list of changes: as many as
// fit into size bytes, one of them at least.
func EncodeUpTo(changes []api.Change, size int) (data []byte, n int, err error) {
	data = fmt.Appendf(nil, `{"v":%d,"changes":[`, versionOf(changes))
	for _, c := range changes {
		one, err := json.Marshal(c)
		if err != nil {
			return nil, 0, fmt.Errorf("encode changes: %w", err)
		}
		if n > 0 && len(data)+len(one) > size {
			break
		}
		if n > 0 {
			data = append(data, ',')
		}
		data = append(data, one...)
		n++
	}
	return append(data, "]}"...), n, nil
}

// Apply applies one entry: all its changes, in order, if each of them finds the
// version of its object that it names and breaks no uniqueness; otherwise
// nothing, and the answer is a *ConflictError, or an error that says what is
// wrong with the entry. An empty entry changes nothing.
//
// It panics on an entry that it cannot read: going on without it would leave
// this manager with another state than the rest.
func (s *Store) Apply(index api.Index, data []byte) any {
	var e entry
	if len(data) > 0 {
		if err := json.Unmarshal(data, &e); err != nil {
			panic(fmt.Sprintf("read log entry %d: %v", index, err))
		}
		if e.Version < firstVersion || e.Version > formatVersion {
			panic(fmt.Sprintf("read log entry %d: its format is version %d, this orch knows up to version %d: "+
				"run the version of orch that wrote it", index, e.Version, formatVersion))
		}
	}
	txn := s.db.Txn(true)
	defer txn.Abort() // does nothing after Commit
	stored, err := change(txn, index, e.Changes)

	s.mu.Lock()
	defer s.mu.Unlock()
	s.index = index
	wake(&s.applied)
	if err != nil {
		return err
	}
	if len(stored) == 0 {
		return nil
	}
	txn.Commit()
	s.recent.add(Delta{Index: index, Changes: stored})
	s.remember(stored)
	wake(&s.changed)
	return nil
}

// remember keeps changes for the next snapshot.
func (s *Store) remember(changes []api.Change) {
	if s.stale {
		return
	}
	if len(s.pending)+len(changes) > pendingChanges {
		s.pending, s.stale = nil, true
		return
	}
	s.pending = append(s.pending, changes...)
}

// wake closes *ch for those who wait on it, and replaces it.
func wake(ch *chan struct{}) {
	close(*ch)
	*ch = make(chan struct{})
}
