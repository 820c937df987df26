package consensus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/hashicorp/raft"

	"github.com/orch-dev/orch/pkg/api"
)

// leap is by how much the index grows when a group begins anew: to more than
// whatever was written, and this node has not heard of, so that nobody who knows
// that takes what comes for old. 2^40 entries take 20 years at the greatest rate
// there is, and some thousand leaps fit into a number as JSON has them.
const leap = 1 << 40

// Found makes the node, which has no state, the only member of a group that begins
// with the state that save writes, of the entry last.
func (n *Node) Found(last api.Index, save func(io.Writer) error) error {
	n.proposing.Lock()
	defer n.proposing.Unlock()
	if n.raft.Load().LastIndex() != 0 {
		return errors.New("found raft group: this node has state already")
	}
	if err := n.stop(); err != nil {
		return err
	}
	if err := n.beginAnew(uint64(last), save); err != nil {
		return fmt.Errorf("found raft group: %w", err)
	}
	return n.open(n.timeout, false)
}

// Survived is what a node had when its group began anew.
type Survived struct {
	// Last is the newest entry of its log, of which all was kept, and Committed the
	// newest of which it knew that a quorum had it.
	Last, Committed api.Index
	// Written is when the leader of then wrote Last; zero if the log does not say.
	Written time.Time
}

// Survivor returns what Recover would keep.
func (n *Node) Survivor() (Survived, error) {
	r := n.raft.Load()
	s := Survived{Last: api.Index(r.LastIndex()), Committed: api.Index(r.CommitIndex())}
	var entry raft.Log
	switch err := n.disk.GetLog(uint64(s.Last), &entry); {
	case errors.Is(err, raft.ErrLogNotFound): // it is in the snapshot
	case err != nil:
		return s, fmt.Errorf("read the newest log entry: %w", err)
	default:
		s.Written = entry.AppendedAt
	}
	return s, nil
}

// ErrAsBefore: the node is in the group that it was in.
var ErrAsBefore = errors.New("the managers' group is as it was")

// Recover makes the node the only member of its group, and returns when it leads.
// Its whole log is kept: also entries of which it did not know that a quorum had
// them. What other members had, and this one had not, is lost. The caller has to
// make sure that they take no part in Raft with this node any more: they know
// nothing of this. If it fails with ErrAsBefore, it has begun nothing, and takes part
// in Raft as before unless the error says why not.
func (n *Node) Recover(ctx context.Context) (Survived, error) {
	kept, err := n.recover()
	if err != nil {
		return kept, fmt.Errorf("recover raft group: %w", err)
	}
	_, _, err = n.WaitLeader(ctx)
	return kept, err
}

func (n *Node) recover() (Survived, error) {
	n.proposing.Lock()
	defer n.proposing.Unlock()
	if err := n.stop(); err != nil {
		return Survived{}, fmt.Errorf("%w: %w", ErrAsBefore, err)
	}
	applied := n.fsm.applied.Load()
	state, err := n.fsm.Save()
	if err != nil {
		return Survived{}, fmt.Errorf("%w: %w", ErrAsBefore, errors.Join(err, n.open(n.timeout, true)))
	}
	kept, err := n.goOnAlone()
	switch {
	case err == nil:
		return kept, n.open(n.timeout, true)
	case n.begun(uint64(kept.Last)):
		return kept, err
	}
	return kept, fmt.Errorf("%w: %w", ErrAsBefore, errors.Join(err, n.goBack(applied, state)))
}

// goOnAlone puts a group on disk that has all of the node's log. Raft is stopped.
func (n *Node) goOnAlone() (Survived, error) {
	kept, err := n.Survivor()
	if err != nil {
		return kept, err
	}
	if err := n.applyRest(uint64(kept.Last)); err != nil {
		return kept, err
	}
	save, err := n.fsm.Save()
	if err != nil {
		return kept, err
	}
	return kept, n.beginAnew(uint64(kept.Last), save)
}

// begun reports whether a group that begins anew after the entry last is on disk, or
// may be.
func (n *Node) begun(last uint64) bool {
	snapshots, err := n.files.snapshots.List()
	return err != nil || len(snapshots) > 0 && snapshots[0].Index > last
}

// goBack has Raft go on after a group did not begin anew. What the state machine
// took meanwhile is taken back, for the others may have decided otherwise.
func (n *Node) goBack(applied uint64, state func(io.Writer) error) error {
	if n.fsm.applied.Load() != applied {
		var saved bytes.Buffer
		err := state(&saved)
		if err == nil {
			err = n.fsm.FSM.Restore(&saved)
		}
		if err != nil {
			return fmt.Errorf("go back to the state of before: %w: restart this manager", err)
		}
		n.fsm.applied.Store(applied)
	}
	return n.open(n.timeout, true)
}

// applyRest has the state machine take what is in the log and was not known to be
// committed. Raft is stopped, and may have been so before the state machine took
// all that it was given.
func (n *Node) applyRest(last uint64) error {
	var err error
	for at := max(n.fsm.applied.Load(), n.stat("last_snapshot_index")) + 1; err == nil && at <= last; at++ {
		var entry raft.Log
		if err = n.disk.GetLog(at, &entry); err == nil && entry.Type == raft.LogCommand {
			n.fsm.Apply(&entry) // what it refuses, it would have refused then
		}
	}
	return err
}

// beginAnew replaces what the node has on disk by a state with nobody else in the
// group. Raft is stopped. A crash leaves the one or the other.
func (n *Node) beginAnew(last uint64, save func(io.Writer) error) error {
	term, err := n.disk.GetUint64(currentTerm)
	if err != nil {
		return err
	}
	term = max(term, 1)
	index := last + leap
	self := raft.Server{ID: raft.ServerID(n.id), Address: raft.ServerAddress(n.cfg.Addr)}
	alone := raft.Configuration{Servers: []raft.Server{self}}
	sink, err := n.files.snapshots.Create(raft.SnapshotVersionMax, index, term, alone, index, noTransport{})
	if err != nil {
		return err
	}
	if err := fsmSnapshot(save).Persist(sink); err != nil {
		return err
	}
	if err := n.disk.SetUint64(currentTerm, term); err != nil {
		return err
	}
	n.fsm.applied.Store(index)
	return n.disk.DeleteRange(0, last)
}

// Newest returns the index and the term of the newest entry in the node's log.
func (n *Node) Newest() (api.Index, uint64) {
	return api.Index(n.raft.Load().LastIndex()), max(n.stat("last_log_term"), n.stat("last_snapshot_term"))
}

// stat is a number of those that Raft tells only as text.
func (n *Node) stat(name string) uint64 {
	value, err := strconv.ParseUint(n.raft.Load().Stats()[name], 10, 64)
	if err != nil {
		panic(fmt.Sprintf("raft says of its %s: %v", name, err)) // it always is a number
	}
	return value
}
