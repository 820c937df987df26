package consensus

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// stallAfter is how many election timeouts a leader's write may take. Raft sends
// heartbeats while its log waits for the disk, so that the others would wait for
// ever for a leader that cannot write.
const stallAfter = 2

var errStalled = errors.New("the disk of this manager does not take its log")

// disk is the log with a watch on how long its writes take.
type disk struct {
	*sealedLog
	limit atomic.Int64 // in nanoseconds
	// late is called when a write has taken longer than limit, and caughtUp when
	// no write is late any more, one at a time. What they return is called after
	// them, when the next may be: to log may take as long as the write, where that
	// goes to the same disk.
	late, caughtUp func() (tell func())

	mu     sync.Mutex
	behind int // writes that are late
}

func (d *disk) StoreLog(log *raft.Log) error { return d.StoreLogs([]*raft.Log{log}) }
func (d *disk) StoreLogs(logs []*raft.Log) error {
	return d.watch(func() error { return d.sealedLog.StoreLogs(logs) })
}
func (d *disk) Set(key, value []byte) error {
	return d.watch(func() error { return d.boltLog.Set(key, value) })
}
func (d *disk) SetUint64(key []byte, value uint64) error {
	return d.watch(func() error { return d.boltLog.SetUint64(key, value) })
}
func (d *disk) DeleteRange(first, last uint64) error {
	return d.watch(func() error { return d.boltLog.DeleteRange(first, last) })
}

func (d *disk) watch(write func() error) error {
	var done, late bool // under mu
	timer := time.AfterFunc(time.Duration(d.limit.Load()), func() {
		tell := func() {}
		defer func() { tell() }()
		d.mu.Lock()
		defer d.mu.Unlock()
		if done {
			return
		}
		late = true
		if d.behind++; d.behind == 1 {
			tell = d.late()
		}
	})
	err := write()
	timer.Stop()
	tell := func() {}
	defer func() { tell() }()
	d.mu.Lock()
	defer d.mu.Unlock()
	done = true
	if late {
		if d.behind--; d.behind == 0 {
			tell = d.caughtUp()
		}
	}
	return err
}

// giveUp takes a leader out of the group whose disk does not answer: its
// connections are closed, heartbeats with them, so that the others choose
// another, and nothing is asked of it.
func (n *Node) giveUp() (tell func()) {
	r := n.raft.Load()
	if r == nil || r.State() != raft.Leader {
		return func() {}
	}
	n.lead.takePart(false)
	n.cfg.Transport.hangUp()
	return func() {
		n.cfg.Log.Error("the disk does not take the Raft log: another manager is to lead",
			"for", time.Duration(n.disk.limit.Load()), "dir", n.cfg.Dir)
	}
}

// takePart takes the node into the group again. Raft, which has slept, may still
// hold itself for the leader: not before it has asked the others does it count.
func (n *Node) takePart() (tell func()) {
	select {
	case <-n.closing:
		return func() {}
	default:
	}
	if !n.lead.isStalled() {
		return func() {}
	}
	n.cfg.Transport.resume()
	r := n.raft.Load()
	go func() {
		if err := r.VerifyLeader().Error(); err != nil {
			n.cfg.Log.Debug("this manager leads no longer", "err", err)
		}
		n.lead.takePart(true)
	}()
	return func() { n.cfg.Log.Warn("the disk takes the Raft log again") }
}

// Stalled reports whether the node takes no part in the group because its disk
// does not answer. It does not know who leads then.
func (n *Node) Stalled() bool { return n.lead.isStalled() }
