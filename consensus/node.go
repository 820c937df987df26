// Package consensus is the Raft node of a manager: it puts entries into a
// replicated log that survives crashes, feeds them in order to a state machine,
// and says who leads.
//
// It knows nothing of what the entries mean; package store does.
package consensus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/raft"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/quiet"
	"github.com/orch-dev/orch/pkg/seal"
)

// Config says who the node is, where its log lives and how it reaches others.
type Config struct {
	ID api.NodeID
	// Addr is the host:port that other managers dial; it must be what
	// Transport.Addr says.
	Addr string
	// Dir holds the log, the vote and the snapshots. One node at a time.
	Dir       string
	Transport *StreamLayer
	FSM       FSM
	Log       *slog.Logger
	// Keys seal the log and the snapshots in Dir; nil: they are in the clear.
	// What is there already, in the clear or under an older key of the ring, New
	// writes again.
	Keys *seal.Ring

	// ElectionTimeout is the silence after which a follower asks for an election;
	// every wait is drawn from [ElectionTimeout, 2*ElectionTimeout]. The leader
	// steps down after 4/5 of it without a quorum, and when a write to its disk
	// takes longer than twice of it. Zero: api.DefaultElectionTimeout.
	ElectionTimeout time.Duration
	// SnapshotEvery is the number of entries after which the log is compacted
	// into a snapshot, KeepEntries how many of them stay in the log for
	// followers that lag. Zero: snapshotEvery and 10240.
	SnapshotEvery uint64
	KeepEntries   uint64
}

const (
	// announceAfter is how soon followers hear of a commit that no further entry
	// carries to them (see Node.announce).
	announceAfter = 2 * time.Millisecond
	// commitInterval is how soon, at most twice, they hear of it otherwise, and are
	// sent again what they did not take. A leader with nothing to do sends this often
	// all the same.
	commitInterval = 500 * time.Millisecond
	// rpcTimeout bounds one exchange with a peer. After a partition heals it
	// is the longest that a connection of before stays stuck.
	rpcTimeout = 2 * time.Second
	// snapshotEvery entries make a snapshot worth its while, and snapshotInterval, drawn
	// up to twice as long, is how often that is looked at. A node that was started
	// applies what came after its snapshot, about ten thousand entries a second, and
	// does not vote before it has.
	snapshotEvery    = 2048
	snapshotInterval = 10 * time.Second
	// snapshotsKept on disk: the newest, and one in case it is unreadable.
	snapshotsKept = 2
)

// Node is one member of the Raft group. All methods are safe for concurrent use.
type Node struct {
	cfg   Config
	id    api.NodeID
	log   *hclogger
	files *files
	disk  *disk
	fsm   *fsm
	lead  *leadership

	// proposing is shared by what is proposed, and held while it may not be: while
	// the lead is handed over, and raft replaced by one with other timeouts.
	proposing sync.RWMutex
	raft      atomic.Pointer[raft.Raft]
	trans     atomic.Pointer[transport] // of raft
	news      announcements
	timeout   time.Duration      // the election timeout of raft
	endBeat   context.CancelFunc // of raft's heartbeats

	closing  chan struct{} // closed when Shutdown begins
	shutdown sync.Once
	err      error // of shutdown
}

// New opens the node's state in cfg.Dir, restores the newest snapshot into
// cfg.FSM and starts Raft. A node without state waits to be bootstrapped or
// added by a leader. The caller ends it with Shutdown.
func New(cfg Config) (*Node, error) {
	if cfg.ID == "" {
		return nil, errors.New("start raft: no node ID")
	}
	if got := cfg.Transport.Addr().String(); got != cfg.Addr {
		return nil, fmt.Errorf("start raft: transport says its address is %s, not %s", got, cfg.Addr)
	}
	if cfg.ElectionTimeout == 0 {
		cfg.ElectionTimeout = api.DefaultElectionTimeout
	}
	log := newHCLog(cfg.Log)
	files, err := openFiles(cfg.Dir, cfg.Keys, log)
	if err != nil {
		return nil, err
	}
	n := &Node{
		cfg:     cfg,
		id:      cfg.ID,
		log:     log,
		files:   files,
		fsm:     &fsm{FSM: cfg.FSM},
		lead:    newLeadership(),
		closing: make(chan struct{}),
	}
	n.disk = &disk{sealedLog: files.log(), late: n.giveUp, caughtUp: n.takePart}
	if err := n.open(cfg.ElectionTimeout, false); err != nil {
		return nil, errors.Join(err, cfg.Transport.Close(), files.Close())
	}
	go n.lead.run(n.closing)
	return n, nil
}

// open starts Raft on the node's files. The state machine is brought up to the
// newest snapshot, unless it has applied more already.
func (n *Node) open(timeout time.Duration, applied bool) error {
	conf := raftConfig(n.cfg, timeout, n.log)
	conf.NotifyCh = n.lead.notify
	conf.NoSnapshotRestoreOnStart = applied
	trans := newTransport(raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Logger:  n.log.Named("transport"),
		Stream:  n.cfg.Transport.open(),
		MaxPool: 3,
		Timeout: rpcTimeout,
	}))
	n.disk.limit.Store(int64(stallAfter * timeout))
	ticker, err := quiet.NewTicker()
	if err != nil {
		return errors.Join(fmt.Errorf("start raft: %w", err), trans.Close())
	}
	r, err := n.newRaft(conf, trans)
	if err != nil {
		return errors.Join(fmt.Errorf("start raft: %w", err), ticker.Close(), trans.Close())
	}
	r.RegisterObserver(raft.NewObserver(n.lead.observed, false, func(o *raft.Observation) bool {
		_, ok := o.Data.(raft.LeaderObservation)
		return ok
	}))
	n.raft.Store(r)
	n.trans.Store(trans)
	n.timeout = timeout
	ctx, cancel := context.WithCancel(context.Background())
	n.endBeat = cancel
	go beat(ctx, r, timeout, ticker)
	go n.succeed(ctx, r, trans, timeout)
	return nil
}

// newRaft starts Raft. It panics by itself on a log that cannot be read, which is
// no fault of the program's.
func (n *Node) newRaft(conf *raft.Config, trans raft.Transport) (r *raft.Raft, err error) {
	defer func() {
		switch unreadable := recover().(type) {
		case nil:
		default:
			panic(unreadable)
		case error:
			err = fmt.Errorf("the log in %s is damaged (%w): if the other managers still have a quorum, remove this node with `orch node rm`, "+
				"move the directory away and join again; if not, restore a backup", n.cfg.Dir, unreadable)
		}
	}()
	return raft.NewRaft(conf, n.fsm, &recentLog{LogStore: n.disk}, n.disk, n.files.snapshots, trans)
}

// Retime gives the node another election timeout, and what follows from it. Raft
// goes on from where it was; a leader hands over first, if there is another.
// What is being proposed is finished before.
func (n *Node) Retime(timeout time.Duration) error {
	if timeout == 0 {
		timeout = api.DefaultElectionTimeout
	}
	n.proposing.RLock()
	same := timeout == n.timeout
	n.proposing.RUnlock()
	if same {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), rpcTimeout)
	defer cancel()
	if err := n.TransferLeadership(ctx); err != nil {
		n.cfg.Log.Debug("retime raft: go on without handing over", "err", err)
	}
	n.proposing.Lock()
	defer n.proposing.Unlock()
	if err := n.stop(); err != nil {
		return err
	}
	select {
	case <-n.closing:
		return nil
	default:
	}
	if err := n.open(timeout, true); err != nil {
		return fmt.Errorf("with an election timeout of %v: %w", timeout, err)
	}
	n.cfg.Log.Info("raft goes by another election timeout", "timeout", timeout)
	return nil
}

// ElectionTimeout is what the node goes by.
func (n *Node) ElectionTimeout() time.Duration {
	n.proposing.RLock()
	defer n.proposing.RUnlock()
	return n.timeout
}

// stop stops Raft, whose files stay open.
func (n *Node) stop() error {
	n.endBeat()
	stopped := n.raft.Load().Shutdown()
	n.cfg.Transport.hangUp() // Raft waits for its calls, some to nodes that are dead
	if err := stopped.Error(); err != nil {
		return fmt.Errorf("stop raft: %w", err)
	}
	return nil
}

func raftConfig(cfg Config, timeout time.Duration, log *hclogger) *raft.Config {
	conf := raft.DefaultConfig()
	conf.LocalID = raft.ServerID(cfg.ID)
	conf.Logger = log
	conf.HeartbeatTimeout = timeout
	conf.ElectionTimeout = timeout
	conf.LeaderLeaseTimeout = timeout * 4 / 5
	conf.CommitTimeout = commitInterval
	// A manager that was removed stays a silent follower until its daemon
	// shuts it down.
	conf.ShutdownOnRemove = false
	conf.NoLegacyTelemetry = true
	conf.SnapshotInterval = snapshotInterval
	conf.SnapshotThreshold = snapshotEvery
	if cfg.SnapshotEvery != 0 {
		conf.SnapshotThreshold = cfg.SnapshotEvery
	}
	if cfg.KeepEntries != 0 {
		conf.TrailingLogs = cfg.KeepEntries
	}
	return conf
}

// HasState reports whether dir holds the state of a node that was once
// bootstrapped or contacted by a leader.
func HasState(dir string) (bool, error) {
	if !hasLog(dir) {
		return false, nil
	}
	files, err := openFiles(dir, nil, newHCLog(slog.New(slog.DiscardHandler)))
	if err != nil {
		return false, err
	}
	has, err := raft.HasExistingState(files.bolt, files.bolt, files.snapshots)
	if err != nil {
		err = fmt.Errorf("read raft state in %s: %w", dir, err)
	}
	return has, errors.Join(err, files.Close())
}

// Shutdown stops the node and closes its state, without telling anyone: a
// leader that means to leave calls TransferLeadership first. Only the first
// call does anything; all return its result.
func (n *Node) Shutdown() error {
	n.shutdown.Do(func() {
		close(n.closing)
		n.proposing.Lock()
		defer n.proposing.Unlock()
		n.err = errors.Join(n.stop(), n.cfg.Transport.Close(), n.files.Close())
	})
	return n.err
}

// files is what a node keeps on disk.
type files struct {
	lock      *os.File
	bolt      *boltLog
	snapshots raft.SnapshotStore
	ring      *seal.Ring // nil: nothing is sealed
}

// openFiles opens the state in dir, which it makes if need be, for this
// process alone.
func openFiles(dir string, ring *seal.Ring, log *hclogger) (*files, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open raft state: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open raft state: %w", err)
	}
	f := &files{lock: lock, ring: ring}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("open raft state in %s: another process uses it: %w", dir, err), f.Close())
	}
	if err := f.openLog(dir, log); err != nil {
		return nil, errors.Join(fmt.Errorf("open raft log in %s: %w", dir, err), f.Close())
	}
	if err := f.openSnapshots(dir, log); err != nil {
		return nil, errors.Join(fmt.Errorf("open raft snapshots in %s: %w", dir, err), f.Close())
	}
	return f, nil
}

// log is what Raft reads and writes entries with.
func (f *files) log() *sealedLog {
	log := &sealedLog{boltLog: f.bolt}
	if f.ring != nil {
		log.box = f.ring.NewBox()
	}
	return log
}

// Close closes what is open.
func (f *files) Close() error {
	if err := errors.Join(f.closeLog(), f.lock.Close()); err != nil {
		return fmt.Errorf("close raft state: %w", err)
	}
	return nil
}
