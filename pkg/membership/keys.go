package membership

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/hashicorp/memberlist"
)

// newKeyring makes a ring of keys, of which the first encrypts.
func newKeyring(keys [][]byte) (*memberlist.Keyring, error) {
	if len(keys) == 0 {
		return nil, fmt.Errorf("gossip: no key")
	}
	for _, key := range keys {
		if err := memberlist.ValidateKey(key); err != nil {
			return nil, fmt.Errorf("gossip: key of %d bytes: %w", len(key), err)
		}
	}
	return memberlist.NewKeyring(keys, keys[0])
}

// SetKeys makes these the keys of the gossip: what this node sends is encrypted with
// the first, and what it receives may be with any. To replace a key, every node is
// given the new one behind the old, then before it, and then alone, each step once
// all have taken the one before: so nobody is deaf to anyone.
func (m *Members) SetKeys(keys [][]byte) error {
	if _, err := newKeyring(keys); err != nil {
		return err
	}
	for _, key := range keys {
		if err := m.ring.AddKey(key); err != nil {
			return fmt.Errorf("gossip: add a key: %w", err)
		}
	}
	if err := m.ring.UseKey(keys[0]); err != nil {
		return fmt.Errorf("gossip: use a key: %w", err)
	}
	// From behind: to take one out, the ring moves those that follow while others
	// read them.
	for _, old := range slices.Backward(slices.Clone(m.ring.GetKeys())) {
		if slices.ContainsFunc(keys, func(key []byte) bool { return bytes.Equal(key, old) }) {
			continue
		}
		if err := m.ring.RemoveKey(old); err != nil {
			return fmt.Errorf("gossip: drop a key: %w", err)
		}
	}
	return nil
}
