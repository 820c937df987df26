package consensus

import (
	"encoding/binary"
	"fmt"
	"io"

	"github.com/hashicorp/raft"

	"github.com/orch-dev/orch/pkg/seal"
)

// What is on disk is sealed under this manager's own keys. Managers send each
// other entries and snapshots in the clear, inside TLS.

// sealedLog is a log whose entries are sealed on disk. Those of before there was
// a seal are read as they are.
type sealedLog struct {
	*boltLog
	box *seal.Box // nil: nothing is sealed
}

func (s *sealedLog) GetLog(index uint64, log *raft.Log) error {
	if err := s.boltLog.GetLog(index, log); err != nil {
		return err
	}
	if s.box == nil || !seal.Sealed(log.Data) {
		return nil
	}
	data, err := s.box.Open(log.Data, entryContext(log))
	if err != nil {
		return fmt.Errorf("read log entry %d: %w", index, err)
	}
	log.Data = data
	return nil
}

func (s *sealedLog) StoreLog(log *raft.Log) error { return s.StoreLogs([]*raft.Log{log}) }

// StoreLogs seals copies: Raft goes on with what it gave.
func (s *sealedLog) StoreLogs(logs []*raft.Log) error {
	if s.box == nil {
		return s.boltLog.StoreLogs(logs)
	}
	sealed := make([]raft.Log, len(logs))
	refs := make([]*raft.Log, len(logs))
	for i, log := range logs {
		sealed[i], refs[i] = *log, &sealed[i]
		sealed[i].Data = s.box.Seal(log.Data, entryContext(log))
	}
	return s.boltLog.StoreLogs(refs)
}

// entryContext is the entry's place in the log.
func entryContext(log *raft.Log) []byte {
	context := make([]byte, 0, 17)
	context = binary.BigEndian.AppendUint64(context, log.Index)
	context = binary.BigEndian.AppendUint64(context, log.Term)
	return append(context, byte(log.Type))
}

// sealedSnapshots are snapshots whose state is sealed on disk. Those of before
// there was a seal are read as they are.
type sealedSnapshots struct {
	*raft.FileSnapshotStore
	ring *seal.Ring
}

func (s *sealedSnapshots) Create(version raft.SnapshotVersion, index, term uint64, configuration raft.Configuration,
	configurationIndex uint64, trans raft.Transport) (raft.SnapshotSink, error) {
	sink, err := s.FileSnapshotStore.Create(version, index, term, configuration, configurationIndex, trans)
	if err != nil {
		return nil, err
	}
	return &sealedSink{sink, s.ring.Writer(sink)}, nil
}

type sealedSink struct {
	raft.SnapshotSink
	sealed io.WriteCloser
}

func (s *sealedSink) Write(p []byte) (int, error) { return s.sealed.Write(p) }

func (s *sealedSink) Close() error {
	if s.sealed == nil {
		return s.SnapshotSink.Close() // again
	}
	err := s.sealed.Close()
	s.sealed = nil
	if err != nil {
		_ = s.SnapshotSink.Cancel() // the write's error says more
		return err
	}
	return s.SnapshotSink.Close()
}

// Open returns the state in the clear, and its size so.
func (s *sealedSnapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	meta, file, err := s.FileSnapshotStore.Open(id)
	if err != nil {
		return nil, nil, err
	}
	opened := &openedSnapshot{Closer: file}
	if opened.Reader, err = s.open(meta, file); err != nil {
		_ = file.Close()
		return nil, nil, fmt.Errorf("open snapshot %s: %w", id, err)
	}
	return meta, opened, nil
}

type openedSnapshot struct {
	io.Reader
	io.Closer
}

// open returns what is in a snapshot's file, sealed or not.
func (s *sealedSnapshots) open(meta *raft.SnapshotMeta, file io.Reader) (io.Reader, error) {
	head, file, err := peekHead(file)
	if err != nil || !seal.Sealed(head) {
		return file, err
	}
	meta.Size = seal.PlainSize(meta.Size)
	return s.ring.Reader(file), nil
}
