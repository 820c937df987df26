package consensus

import (
	"fmt"
	"io"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"github.com/orch-dev/orch/pkg/api"
)

// FSM is the state machine that a node feeds. Apply, Save and Restore are
// called by one goroutine at a time, and must not look at clocks, randomness or
// anything else that differs between nodes.
type FSM interface {
	// Apply takes the next committed entry and returns what the proposer gets:
	// an error if the entry was refused.
	Apply(index api.Index, data []byte) any
	// Save captures the state as it is now and returns at once; the function
	// it returns writes it, while Apply goes on.
	Save() (func(io.Writer) error, error)
	// Restore replaces the state by one that Save wrote.
	Restore(r io.Reader) error
}

// fsm shows an FSM to Raft.
type fsm struct {
	FSM
	// applied is the last entry that FSM has. A Raft that was restarted in this
	// process goes through the log again from its snapshot on.
	applied atomic.Uint64
}

func (f *fsm) Apply(log *raft.Log) any {
	if log.Index <= f.applied.Load() {
		return nil
	}
	f.applied.Store(log.Index)
	return f.FSM.Apply(api.Index(log.Index), log.Data)
}

func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	write, err := f.Save()
	return fsmSnapshot(write), err
}

func (f *fsm) Restore(r io.ReadCloser) error {
	defer r.Close()
	return f.FSM.Restore(r)
}

type fsmSnapshot func(io.Writer) error

func (write fsmSnapshot) Persist(sink raft.SnapshotSink) error {
	if err := write(sink); err != nil {
		_ = sink.Cancel() // the write's error says more
		return fmt.Errorf("write snapshot %s: %w", sink.ID(), err)
	}
	return sink.Close()
}

func (write fsmSnapshot) Release() {}
