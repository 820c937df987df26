package daemon

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/seal"
)

// A manager's keys through autolock: on, restarted, rotated, off.
func TestKeyring(t *testing.T) {
	path := filepath.Join(t.TempDir(), "raft", "keys.json")
	open := func(under seal.UnlockKey) (*keyring, error) { return openKeyring(path, under) }
	k, err := open(nil)
	if err != nil {
		t.Fatal(err)
	}
	sealed := k.keys().NewBox().Seal([]byte("state"), nil)
	opens := func(k *keyring) error {
		_, err := k.keys().NewBox().Open(sealed, nil)
		return err
	}
	first, second := seal.NewUnlockKey(rand.Reader), seal.NewUnlockKey(rand.Reader)
	for _, key := range []seal.UnlockKey{first, second} {
		if changed, err := k.keepUnder(key); !changed || err != nil {
			t.Fatalf("put under a key: %v, %v", changed, err)
		}
		if changed, err := k.keepUnder(key); changed || err != nil {
			t.Errorf("put under the same key again: %v, %v", changed, err)
		}
	}
	if _, err := open(nil); !errors.Is(err, seal.ErrLocked) {
		t.Errorf("restarted without a key: %v", err)
	}
	if _, err := open(first); !errors.Is(err, seal.ErrWrongKey) {
		t.Errorf("with the key of before: %v", err)
	}
	if k, err = open(second); err != nil {
		t.Fatal(err)
	}
	if err := opens(k); err != nil || !k.keys().HasOldKeys() {
		t.Errorf("what was sealed before autolock: %v", err)
	}
	if err := k.dropOld(); err != nil || k.keys().HasOldKeys() || !errors.Is(opens(k), seal.ErrKey) {
		t.Errorf("the old keys are still there: %v", err)
	}
	if _, err := open(first); !errors.Is(err, seal.ErrWrongKey) {
		t.Errorf("dropping the old keys took the lock away: %v", err)
	}
	if changed, err := k.keepUnder(nil); !changed || err != nil {
		t.Errorf("autolock off: %v, %v", changed, err)
	}
	if _, err := open(nil); err != nil {
		t.Errorf("restarted after that: %v", err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the keys' file has the mode %v, %v", info.Mode(), err)
	}
}

// With autolock the node's own key is of no use without the unlock key either.
func TestSealedIdentity(t *testing.T) {
	dir := t.TempDir()
	id, _ := founded(t, dir)
	id.GossipKey = []byte("the key of gossip, of 32 bytes..")
	id.ring = seal.NewRing(rand.Reader)
	if err := id.save(dir); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(identityFile(dir))
	if err != nil {
		t.Fatal(err)
	}
	for what, secret := range map[string][]byte{"its key": id.Key, "the key of gossip": id.GossipKey} {
		if bytes.Contains(data, []byte(base64.StdEncoding.EncodeToString(secret))) {
			t.Errorf("the file has %s in the clear", what)
		}
	}
	again, err := loadIdentity(dir)
	if err != nil || again.Node != id.Node || again.credentials != nil {
		t.Fatalf("locked: %+v, %v", again, err)
	}
	if err := again.open(seal.NewRing(rand.Reader)); !errors.Is(err, seal.ErrKey) {
		t.Errorf("opened with another key: %v", err)
	}
	if err := again.open(id.ring); err != nil || !bytes.Equal(again.Key, id.Key) || !bytes.Equal(again.GossipKey, id.GossipKey) || again.credentials == nil {
		t.Errorf("opened: %v", err)
	}

	// A worker has nothing to unlock: what it keeps is in the clear.
	again.Role = api.RoleWorker
	if err := again.save(dir); err != nil {
		t.Fatal(err)
	}
	if worker, err := loadIdentity(dir); err != nil || worker.credentials == nil {
		t.Errorf("as a worker: %v", err)
	}
}
