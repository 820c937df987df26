package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/orch-dev/orch/pkg/seal"
)

// keyFile has the keys that a manager's Raft state is sealed under. It goes when
// that goes.
func (d *daemon) keyFile() string { return filepath.Join(d.raftDir(), "keys.json") }

// loadKeys returns the keys of this manager's Raft state, which gets some if it
// has none yet.
func (d *daemon) loadKeys() (*seal.Ring, error) {
	data, err := os.ReadFile(d.keyFile())
	if errors.Is(err, os.ErrNotExist) {
		ring := seal.NewRing(rand.Reader)
		return ring, d.saveKeys(ring)
	}
	if err != nil {
		return nil, fmt.Errorf("read the keys of the Raft state: %w", err)
	}
	ring, err := seal.DecodeRing(data, nil, rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.keyFile(), err)
	}
	return ring, nil
}

func (d *daemon) saveKeys(ring *seal.Ring) error {
	data, err := ring.Encode(nil)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(d.raftDir(), 0o700); err != nil {
		return fmt.Errorf("keep the keys of the Raft state: %w", err)
	}
	return writeFile(d.keyFile(), data)
}
