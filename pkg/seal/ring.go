package seal

import (
	"bytes"
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Ring is a manager's data keys. The newest seals; the others open what was sealed
// before. It does not change: WithNewKey and WithoutOldKeys make another.
type Ring struct {
	keys []key // the newest first, at least one
	rand io.Reader
}

type key []byte

// id tells keys apart and tells nothing of them.
func (k key) id() [idSize]byte {
	sum := sha256.Sum256(append([]byte("orch key id"), k...))
	return [idSize]byte(sum[:])
}

// NewRing returns a ring with one new key. rand must be a source of randomness
// that does not fail (crypto/rand.Reader).
func NewRing(rand io.Reader) *Ring { return &Ring{keys: []key{newKey(rand)}, rand: rand} }

func newKey(rand io.Reader) key {
	k := make(key, keySize)
	if _, err := io.ReadFull(rand, k); err != nil {
		panic("read randomness: " + err.Error())
	}
	return k
}

// WithNewKey returns the ring with a new key in front.
func (r *Ring) WithNewKey() *Ring {
	return &Ring{keys: append([]key{newKey(r.rand)}, r.keys...), rand: r.rand}
}

// WithoutOldKeys returns the ring with its newest key alone.
func (r *Ring) WithoutOldKeys() *Ring { return &Ring{keys: r.keys[:1], rand: r.rand} }

// HasOldKeys reports whether there is more than one key.
func (r *Ring) HasOldKeys() bool { return len(r.keys) > 1 }

// stored is a ring as a file has it: its keys, or those sealed under an UnlockKey.
type stored struct {
	Version int    `json:"version"`
	Keys    []key  `json:"keys,omitempty"`
	Locked  []byte `json:"locked,omitempty"`
}

const ringVersion = 1

// ErrLocked is the answer for a ring that needs an unlock key.
var ErrLocked = errors.New("locked")

// ErrWrongKey is the answer for an unlock key that is not the ring's.
var ErrWrongKey = errors.New("this is not the unlock key")

var ringContext = []byte("orch key ring")

// Encode returns the ring for a file; with an unlock key, sealed under it.
func (r *Ring) Encode(under UnlockKey) ([]byte, error) {
	s := stored{Version: ringVersion, Keys: r.keys}
	if under != nil {
		plain, err := json.Marshal(r.keys)
		if err != nil {
			return nil, fmt.Errorf("encode key ring: %w", err)
		}
		s.Keys, s.Locked = nil, under.Ring(r.rand).NewBox().Seal(plain, ringContext)
	}
	data, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode key ring: %w", err)
	}
	return data, nil
}

// Locked reports whether what Encode wrote is sealed under an unlock key.
func Locked(data []byte) bool {
	var s stored
	return json.Unmarshal(data, &s) == nil && s.Locked != nil
}

// DecodeRing reads what Encode wrote. Without the unlock key that it needs, it
// fails with ErrLocked, with another with ErrWrongKey. A ring that is not locked
// needs none and looks at none.
func DecodeRing(data []byte, under UnlockKey, rand io.Reader) (*Ring, error) {
	var s stored
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, fmt.Errorf("read key ring: %w", err)
	}
	if s.Version != ringVersion {
		return nil, fmt.Errorf("read key ring: it has version %d, this orch knows version %d", s.Version, ringVersion)
	}
	if s.Locked != nil {
		if under == nil {
			return nil, ErrLocked
		}
		plain, err := under.Ring(rand).NewBox().Open(s.Locked, ringContext)
		if errors.Is(err, ErrKey) {
			return nil, ErrWrongKey
		}
		if err == nil {
			err = json.Unmarshal(plain, &s.Keys)
		}
		if err != nil {
			return nil, fmt.Errorf("read key ring: %w", err)
		}
	}
	if len(s.Keys) == 0 || slices.ContainsFunc(s.Keys, func(k key) bool { return len(k) != keySize }) {
		return nil, fmt.Errorf("read key ring: %w", errDamaged)
	}
	return &Ring{keys: s.Keys, rand: rand}, nil
}

// UnlockKey is what a user keeps to open rings with. It is random, so that it
// needs no slow derivation.
type UnlockKey []byte

// NewUnlockKey returns a new one.
func NewUnlockKey(rand io.Reader) UnlockKey { return UnlockKey(newKey(rand)) }

const unlockPrefix = "orchkey1-"

var unlockText = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// Text is the key as a user writes it down.
func (k UnlockKey) Text() string { return unlockPrefix + unlockText.EncodeToString(k) }

// ParseUnlockKey reads what Text wrote, with space around it or in upper case.
func ParseUnlockKey(text string) (UnlockKey, error) {
	text, ok := strings.CutPrefix(strings.ToLower(strings.TrimSpace(text)), unlockPrefix)
	k, err := unlockText.DecodeString(text)
	if !ok || err != nil || len(k) != keySize {
		return nil, fmt.Errorf("this is no unlock key: it begins with %s and has %d characters behind it", unlockPrefix, unlockText.EncodedLen(keySize))
	}
	return k, nil
}

// Equal reports whether both are the same key, or both none.
func (k UnlockKey) Equal(o UnlockKey) bool { return bytes.Equal(k, o) }

// Ring is the key as a ring that seals: what it seals can be opened by who has the
// key alone.
func (k UnlockKey) Ring(rand io.Reader) *Ring { return &Ring{keys: []key{key(k)}, rand: rand} }
