package consensus

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/metadb"

	"github.com/orch-dev/orch/pkg/seal"
)

// What was written in the clear, or under a key that was replaced, is written
// again when it is opened: then it is gone from the disk, not only overtaken.

const (
	walNext = walDir + ".next" // being written
	walPast = walDir + ".past" // being replaced
)

// recoverLog undoes or completes a resealing that was interrupted.
func recoverLog(dir string) error {
	current, past := filepath.Join(dir, walDir), filepath.Join(dir, walPast)
	if _, err := os.Stat(current); errors.Is(err, os.ErrNotExist) {
		if err := os.Rename(past, current); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return errors.Join(os.RemoveAll(past), os.RemoveAll(filepath.Join(dir, walNext)))
}

// logIsCurrent reports whether the whole log is sealed under the newest key: its
// first entry is, since keys are never taken up again.
func logIsCurrent(log *wal.WAL, ring *seal.Ring) (bool, error) {
	first, err := log.FirstIndex()
	if err != nil || first == 0 {
		return err == nil, err
	}
	var entry raft.Log
	if err := log.GetLog(first, &entry); err != nil {
		return false, err
	}
	return ring.Current(entry.Data), nil
}

// openLog opens the log in dir, all of it sealed under the newest key.
func (f *files) openLog(dir string, log *hclogger) error {
	if err := recoverLog(dir); err != nil {
		return err
	}
	if err := f.openWAL(filepath.Join(dir, walDir), log); err != nil || f.ring == nil {
		return err
	}
	current, err := logIsCurrent(f.wal, f.ring)
	if err != nil || current {
		return err
	}
	if err := f.resealLog(dir, log); err != nil {
		return fmt.Errorf("seal the log: %w", err)
	}
	return f.openWAL(filepath.Join(dir, walDir), log)
}

func (f *files) openWAL(dir string, log *hclogger) (err error) {
	f.meta = &metadb.BoltMetaDB{}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f.wal, err = wal.Open(dir, wal.WithMetaStore(f.meta), wal.WithLogger(log.Named("wal")), wal.WithSegmentSize(segmentSize))
	return err
}

// closeWAL closes the log, if it is open.
func (f *files) closeWAL() error {
	var errs []error
	if f.wal != nil {
		errs = append(errs, f.wal.Close())
		f.wal = nil
	}
	return errors.Join(append(errs, f.meta.Close())...)
}

// resealLog writes the log again, closes it, and puts the new one in its place as
// one step.
func (f *files) resealLog(dir string, log *hclogger) error {
	current, next, past := filepath.Join(dir, walDir), filepath.Join(dir, walNext), filepath.Join(dir, walPast)
	to := &files{ring: f.ring}
	err := to.openWAL(next, log)
	if err == nil {
		err = copyLog(to.log(), f.log())
	}
	if err := errors.Join(err, to.closeWAL(), f.closeWAL()); err != nil {
		return err
	}
	if err := syncDir(next); err != nil {
		return err
	}
	if err := os.Rename(current, past); err != nil {
		return err
	}
	if err := os.Rename(next, current); err != nil {
		return err
	}
	return errors.Join(syncDir(dir), os.RemoveAll(past))
}

// copyBatch is how many entries are synced at a time.
const copyBatch = 64

// What Raft keeps beside the log: its term, and the vote that it cast in it.
var (
	stableNumbers = []string{"CurrentTerm", "LastVoteTerm"}
	stableBytes   = []string{"LastVoteCand"}
)

func copyLog(to, from *sealedLog) error {
	first, err := from.FirstIndex()
	if err != nil {
		return err
	}
	last, err := from.LastIndex()
	if err != nil {
		return err
	}
	for at := first; first != 0 && at <= last; {
		var batch []*raft.Log
		for ; at <= last && len(batch) < copyBatch; at++ {
			entry := &raft.Log{}
			if err := from.GetLog(at, entry); err != nil {
				return err
			}
			batch = append(batch, entry)
		}
		if err := to.StoreLogs(batch); err != nil {
			return err
		}
	}
	for _, key := range stableNumbers {
		n, err := from.GetUint64([]byte(key))
		if err == nil {
			err = to.SetUint64([]byte(key), n)
		}
		if err != nil {
			return err
		}
	}
	for _, key := range stableBytes {
		value, err := from.Get([]byte(key))
		if err == nil && len(value) > 0 {
			err = to.Set([]byte(key), value)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// openSnapshots opens the snapshots in dir, all of them sealed under the newest key.
func (f *files) openSnapshots(dir string, log *hclogger) error {
	store, err := raft.NewFileSnapshotStoreWithLogger(dir, snapshotsKept, log.Named("snapshots"))
	if err != nil {
		return err
	}
	f.snapshots = store
	if f.ring == nil {
		return nil
	}
	sealed := &sealedSnapshots{store, f.ring}
	f.snapshots = sealed
	return sealed.reseal(dir)
}

// reseal writes every snapshot again that is not sealed under the newest key.
func (s *sealedSnapshots) reseal(dir string) error {
	found, err := s.List()
	if err != nil {
		return err
	}
	for i := len(found) - 1; i >= 0; i-- { // the oldest first, as they were made
		if err := s.resealOne(dir, found[i]); err != nil {
			return fmt.Errorf("seal snapshot %s: %w", found[i].ID, err)
		}
	}
	return nil
}

func (s *sealedSnapshots) resealOne(dir string, meta *raft.SnapshotMeta) (err error) {
	_, file, err := s.FileSnapshotStore.Open(meta.ID)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	head, content, err := peekHead(file)
	if err != nil || s.ring.Current(head) {
		return err
	}
	plain, err := s.open(meta, content)
	if err != nil {
		return err
	}
	sink, err := s.Create(meta.Version, meta.Index, meta.Term, meta.Configuration, meta.ConfigurationIndex, noTransport{})
	if err != nil {
		return err
	}
	if _, err := io.Copy(sink, plain); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	if err := sink.Close(); err != nil {
		return err
	}
	return os.RemoveAll(filepath.Join(dir, "snapshots", meta.ID))
}

// noTransport encodes addresses for a snapshot's metadata, which has them for
// versions of Raft that nobody runs.
type noTransport struct{ raft.Transport }

func (noTransport) EncodePeer(_ raft.ServerID, addr raft.ServerAddress) []byte { return []byte(addr) }

// peekHead returns the first bytes of what is to be read, and all of it.
func peekHead(from io.Reader) ([]byte, io.Reader, error) {
	buffered := bufio.NewReader(from)
	head, err := buffered.Peek(seal.HeadSize)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return head, buffered, err
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
