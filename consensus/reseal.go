package consensus

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft"

	"github.com/orch-dev/orch/pkg/seal"
)

// What was written in the clear, or under a key that was replaced, is written
// again when it is opened: then it is gone from the disk, not only overtaken.

const (
	logDir  = "log"
	logNext = logDir + ".next" // being written
	logPast = logDir + ".past" // being replaced
)

// hasLog reports whether there is a log in dir, of this version or of one before.
func hasLog(dir string) bool {
	for _, name := range []string{logDir, logPast, legacyDir} {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			return true
		}
	}
	return false
}

// recoverLog undoes or completes a resealing that was interrupted.
func recoverLog(dir string) error {
	current, past := filepath.Join(dir, logDir), filepath.Join(dir, logPast)
	if _, err := os.Stat(current); errors.Is(err, os.ErrNotExist) {
		if err := os.Rename(past, current); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return errors.Join(os.RemoveAll(past), os.RemoveAll(filepath.Join(dir, logNext)))
}

// logIsCurrent reports whether the whole log is sealed under the newest key: its
// first entry is, since keys are never taken up again.
func logIsCurrent(log *boltLog, ring *seal.Ring) (bool, error) {
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
func (f *files) openLog(dir string, log *hclogger) (err error) {
	if err := recoverLog(dir); err != nil {
		return err
	}
	if err := f.importLegacy(dir, log); err != nil {
		return err
	}
	current := filepath.Join(dir, logDir)
	if f.bolt, err = openBolt(current); err != nil || f.ring == nil {
		return err
	}
	sealed, err := logIsCurrent(f.bolt, f.ring)
	if err != nil || sealed {
		return err
	}
	if err := f.resealLog(dir); err != nil {
		return fmt.Errorf("seal the log: %w", err)
	}
	f.bolt, err = openBolt(current)
	return err
}

// closeLog closes the log, if it is open.
func (f *files) closeLog() error {
	if f.bolt == nil {
		return nil
	}
	err := f.bolt.Close()
	f.bolt = nil
	return err
}

// resealLog writes the log again, closes it, and puts the new one in its place as
// one step.
func (f *files) resealLog(dir string) error {
	current, next, past := filepath.Join(dir, logDir), filepath.Join(dir, logNext), filepath.Join(dir, logPast)
	err := f.writeNext(dir, f.log())
	if err := errors.Join(err, f.closeLog()); err != nil {
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

// writeNext copies a log, sealed under the newest key, to where the next one is
// written.
func (f *files) writeNext(dir string, from logReader) error {
	next := filepath.Join(dir, logNext)
	bolt, err := openBolt(next)
	if err != nil {
		return err
	}
	to := &files{ring: f.ring, bolt: bolt}
	if err := errors.Join(copyLog(to.log(), from), to.closeLog()); err != nil {
		return err
	}
	return syncDir(next)
}

// copyBatch is how many entries are synced at a time.
const copyBatch = 64

// What Raft keeps beside the log: its term, and the vote that it cast in it.
var (
	stableNumbers = []string{string(currentTerm), string(lastVoteTerm)}
	stableBytes   = []string{"LastVoteCand"}
	currentTerm   = []byte("CurrentTerm")
	lastVoteTerm  = []byte("LastVoteTerm")
)

func copyLog(to *sealedLog, from logReader) error {
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
