package consensus

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/metadb"
)

// Earlier versions kept the log as a write-ahead log of raft-wal, in a directory of
// this name. It could not be opened any more once its end had been cut off, as
// happens to a leader that was replaced, and the manager then restarted.
const legacyDir = "wal"

// importLegacy makes the log of one that an earlier version has written.
func (f *files) importLegacy(dir string, log *hclogger) error {
	old := filepath.Join(dir, legacyDir)
	if _, err := os.Stat(old); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if _, err := os.Stat(filepath.Join(dir, logDir)); err == nil {
		return os.RemoveAll(old) // it was imported, and that was interrupted
	}
	meta := &metadb.BoltMetaDB{}
	from, err := wal.Open(old, wal.WithMetaStore(meta), wal.WithLogger(log.Named("wal")))
	if err != nil {
		return errors.Join(fmt.Errorf("read the log of an earlier version: %w", err), meta.Close())
	}
	err = f.writeNext(dir, legacyLog{from})
	if err := errors.Join(err, from.Close(), meta.Close()); err != nil {
		return fmt.Errorf("take over the log of an earlier version: %w", err)
	}
	if err := os.Rename(filepath.Join(dir, logNext), filepath.Join(dir, logDir)); err != nil {
		return err
	}
	return errors.Join(syncDir(dir), os.RemoveAll(old))
}

// legacyLog is read alone.
type legacyLog struct{ *wal.WAL }

var _ logReader = legacyLog{}

// logReader is where a log is copied from.
type logReader interface {
	FirstIndex() (uint64, error)
	LastIndex() (uint64, error)
	GetLog(index uint64, log *raft.Log) error
	Get(key []byte) ([]byte, error)
	GetUint64(key []byte) (uint64, error)
}
