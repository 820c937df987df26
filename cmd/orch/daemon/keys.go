package daemon

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/orch-dev/orch/pkg/seal"
)

// keyring is the keys that this manager's Raft state is sealed under, in a file
// beside that state. They lie there as they are, or under the cluster's unlock key.
type keyring struct {
	path string

	mu    sync.Mutex
	ring  *seal.Ring
	under seal.UnlockKey // nil: as they are
}

// keyFile goes when the Raft state goes.
func (d *daemon) keyFile() string { return filepath.Join(d.raftDir(), "keys.json") }

// openKeyring reads the keys, or makes some if there are none yet. Without the
// unlock key that they need it fails with seal.ErrLocked, with another with
// seal.ErrWrongKey.
func openKeyring(path string, under seal.UnlockKey) (*keyring, error) {
	k := &keyring{path: path}
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return k, k.save(seal.NewRing(rand.Reader), nil)
	}
	if err != nil {
		return nil, fmt.Errorf("read the keys of the Raft state: %w", err)
	}
	if seal.Locked(data) {
		k.under = under
	}
	if k.ring, err = seal.DecodeRing(data, under, rand.Reader); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return k, nil
}

func (k *keyring) save(ring *seal.Ring, under seal.UnlockKey) error {
	data, err := ring.Encode(under)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(k.path), 0o700); err != nil {
		return fmt.Errorf("keep the keys of the Raft state: %w", err)
	}
	if err := writeFile(k.path, data); err != nil {
		return err
	}
	k.ring, k.under = ring, under
	return nil
}

func (k *keyring) keys() *seal.Ring {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.ring
}

// dropOld forgets the keys that nothing is sealed under any more.
func (k *keyring) dropOld() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.ring.HasOldKeys() {
		return nil
	}
	return k.save(k.ring.WithoutOldKeys(), k.under)
}

// keepUnder puts the keys under another unlock key, or none, and reports whether
// they were not under that already. A new one comes with a new key for what is
// sealed from the next start on: who has the file of before cannot open that.
func (k *keyring) keepUnder(under seal.UnlockKey) (changed bool, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if under.Equal(k.under) {
		return false, nil
	}
	ring := k.ring
	if under != nil {
		ring = ring.WithNewKey()
	}
	return true, k.save(ring, under)
}
