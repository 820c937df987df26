package store

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/orch-dev/orch/pkg/api"
)

// A saved state is a stream of JSON values, one a line: a header, each object as
// the change that would put it (versions included), and a trailer, without which
// the stream was cut off.

type header struct {
	Format  string    `json:"format"`
	Version int       `json:"version"`
	Index   api.Index `json:"index"`   // of the last entry applied
	Changed api.Index `json:"changed"` // of the last one that changed anything
}

const format = "orch-store"

// line is an object or, with End, the trailer.
type line struct {
	api.Change
	End     bool `json:"end,omitempty"`
	Objects int  `json:"objects,omitempty"`
}

// Save captures the state and returns what writes it. Equal states are written
// equally, byte for byte.
func (s *Store) Save() (func(io.Writer) error, error) {
	s.mu.RLock()
	txn := s.db.Txn(false)
	head := header{Format: format, Version: firstVersion, Index: s.index, Changed: s.changeIndex()}
	s.mu.RUnlock()
	files, err := list(txn, api.KindFile, byID)
	if err != nil {
		return nil, fmt.Errorf("save state: %w", err)
	}
	if len(files) > 0 {
		head.Version = filesVersion
	}
	return func(w io.Writer) error {
		out := bufio.NewWriter(w)
		enc := json.NewEncoder(out)
		if err := enc.Encode(head); err != nil {
			return fmt.Errorf("save state: %w", err)
		}
		objects := 0
		for _, kind := range kinds {
			all, err := list(txn, kind, byID)
			if err != nil {
				return fmt.Errorf("save state: %w", err)
			}
			for _, c := range all {
				if err := enc.Encode(c); err != nil {
					return fmt.Errorf("save %s: %w", describe(c.Ref()), err)
				}
			}
			objects += len(all)
		}
		if err := enc.Encode(line{End: true, Objects: objects}); err != nil {
			return fmt.Errorf("save state: %w", err)
		}
		if err := out.Flush(); err != nil {
			return fmt.Errorf("save state: %w", err)
		}
		return nil
	}, nil
}

// Restore replaces the whole state by one that Save wrote, or leaves it as it is
// and returns an error. Watches made before fail with ErrTooOld.
func (s *Store) Restore(r io.Reader) error {
	dec := json.NewDecoder(bufio.NewReaderSize(r, 1<<16))
	var head header
	if err := dec.Decode(&head); err != nil {
		return fmt.Errorf("restore state: read header: %w", err)
	}
	if head.Format != format || head.Version < firstVersion || head.Version > formatVersion {
		return fmt.Errorf("restore state: it has format %q version %d, this orch knows %q up to version %d",
			head.Format, head.Version, format, formatVersion)
	}
	db := newDB()
	txn := db.Txn(true)
	defer txn.Abort()
	for objects := 0; ; objects++ {
		var l line
		if err := dec.Decode(&l); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("restore state: read object %d: %w", objects, err)
		}
		if l.End {
			if l.Objects != objects {
				return fmt.Errorf("restore state: %d objects where %d were saved", objects, l.Objects)
			}
			break
		}
		if err := check(l.Change); err != nil {
			return fmt.Errorf("restore state: object %d: %w", objects, err)
		}
		if err := insert(txn, l.Change); err != nil {
			return fmt.Errorf("restore state: %w", err)
		}
	}
	txn.Commit()

	s.mu.Lock()
	defer s.mu.Unlock()
	s.db, s.index = db, head.Index
	s.recent.reset(head.Changed)
	s.pending, s.stale = nil, true
	wake(&s.applied)
	wake(&s.changed)
	return nil
}
