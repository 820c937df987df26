// Package consensus is the Raft node of a manager: it puts entries into a
// replicated log that survives crashes, feeds them in order to a state machine,
// and says who leads.
//
// It knows nothing of what the entries mean; package store does.
package consensus

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/metadb"

	"github.com/orch-dev/orch/pkg/api"
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

	// Heartbeat is the silence after which a follower asks for an election;
	// every wait is drawn from [Heartbeat, 2*Heartbeat]. The leader steps down
	// after 2/3 of it without a quorum. Zero: DefaultHeartbeat. A disk whose
	// fsync can take longer makes for elections that nobody needs.
	Heartbeat time.Duration
	// SnapshotEvery is the number of entries after which the log is compacted
	// into a snapshot, KeepEntries how many of them stay in the log for
	// followers that lag. Zero: 8192 and 10240.
	SnapshotEvery uint64
	KeepEntries   uint64
}

// DefaultHeartbeat gives a new leader well within a second of a leader's death
// and rides out the fsync stalls of a busy disk.
const DefaultHeartbeat = 300 * time.Millisecond

const (
	// commitInterval is how soon, at most twice, followers hear of a commit
	// that no further entry carries to them.
	commitInterval = 20 * time.Millisecond
	// rpcTimeout bounds one exchange with a peer. After a partition heals it
	// is the longest that a connection of before stays stuck.
	rpcTimeout = 2 * time.Second
	// segmentSize is what the log allocates on disk at a time, in bytes.
	segmentSize = 16 << 20
	// snapshotsKept on disk: the newest, and one in case it is unreadable.
	snapshotsKept = 2
)

// Node is one member of the Raft group. All methods are safe for concurrent use.
type Node struct {
	id        api.NodeID
	raft      *raft.Raft
	transport *StreamLayer
	files     *files
	lead      *leadership

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
	log := newHCLog(cfg.Log)
	files, err := openFiles(cfg.Dir, log)
	if err != nil {
		return nil, err
	}
	n := &Node{
		id:        cfg.ID,
		transport: cfg.Transport,
		files:     files,
		lead:      newLeadership(),
		closing:   make(chan struct{}),
	}
	conf := raftConfig(cfg, log)
	conf.NotifyCh = n.lead.notify
	trans := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Logger:  log.Named("transport"),
		Stream:  cfg.Transport,
		MaxPool: 3,
		Timeout: rpcTimeout,
	})
	n.raft, err = raft.NewRaft(conf, fsm{cfg.FSM}, files.wal, files.wal, files.snapshots, trans)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start raft: %w", err), trans.Close(), files.Close())
	}
	n.raft.RegisterObserver(raft.NewObserver(n.lead.observed, false, func(o *raft.Observation) bool {
		_, ok := o.Data.(raft.LeaderObservation)
		return ok
	}))
	go n.lead.run(n.closing)
	return n, nil
}

func raftConfig(cfg Config, log *hclogger) *raft.Config {
	heartbeat := cfg.Heartbeat
	if heartbeat == 0 {
		heartbeat = DefaultHeartbeat
	}
	conf := raft.DefaultConfig()
	conf.LocalID = raft.ServerID(cfg.ID)
	conf.Logger = log
	conf.HeartbeatTimeout = heartbeat
	conf.ElectionTimeout = heartbeat
	conf.LeaderLeaseTimeout = heartbeat * 2 / 3
	conf.CommitTimeout = commitInterval
	// A manager that was removed stays a silent follower until its daemon
	// shuts it down.
	conf.ShutdownOnRemove = false
	conf.NoLegacyTelemetry = true
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
	if _, err := os.Stat(filepath.Join(dir, walDir)); errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	files, err := openFiles(dir, newHCLog(slog.New(slog.DiscardHandler)))
	if err != nil {
		return false, err
	}
	has, err := raft.HasExistingState(files.wal, files.wal, files.snapshots)
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
		stopped := n.raft.Shutdown()
		n.transport.hangUp() // Raft waits for its calls, some to nodes that are dead
		err := stopped.Error()
		if err != nil {
			err = fmt.Errorf("stop raft: %w", err)
		}
		n.err = errors.Join(err, n.files.Close())
	})
	return n.err
}

// files is what a node keeps on disk.
type files struct {
	lock      *os.File
	meta      *metadb.BoltMetaDB // of the log, which leaves it open when it closes
	wal       *wal.WAL
	snapshots *raft.FileSnapshotStore
}

const walDir = "wal"

// openFiles opens the state in dir, which it makes if need be, for this
// process alone.
func openFiles(dir string, log *hclogger) (*files, error) {
	if err := os.MkdirAll(filepath.Join(dir, walDir), 0o700); err != nil {
		return nil, fmt.Errorf("open raft state: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open raft state: %w", err)
	}
	f := &files{lock: lock, meta: &metadb.BoltMetaDB{}}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("open raft state in %s: another process uses it: %w", dir, err), f.Close())
	}
	f.wal, err = wal.Open(filepath.Join(dir, walDir), wal.WithMetaStore(f.meta),
		wal.WithLogger(log.Named("wal")), wal.WithSegmentSize(segmentSize))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open raft log in %s: %w", dir, err), f.Close())
	}
	f.snapshots, err = raft.NewFileSnapshotStoreWithLogger(dir, snapshotsKept, log.Named("snapshots"))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open raft snapshots in %s: %w", dir, err), f.Close())
	}
	return f, nil
}

// Close closes what is open.
func (f *files) Close() error {
	var errs []error
	if f.wal != nil {
		errs = append(errs, f.wal.Close())
	}
	errs = append(errs, f.meta.Close(), f.lock.Close())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close raft state: %w", err)
	}
	return nil
}
