// Package seal encrypts what managers keep on disk, so that a stolen disk, or a
// copy of one, gives nothing away to who does not have the key.
//
// Records and streams are AES-256-GCM under a key that is derived, with a salt of
// its own, from a manager's data key: one for each Box and each stream. So nonces
// may simply count, and any number of bytes may be sealed under one data key.
package seal

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
)

const (
	keySize  = 32
	saltSize = 16
	tagSize  = 16
	idSize   = 4
)

// magic begins everything that is sealed. It begins no JSON, no MessagePack of
// Raft's, and so nothing that was written before there was a seal.
var magic = []byte("\x00orch1")

// HeadSize is the number of bytes that a record or a stream begins with: magic,
// the key's ID, the salt.
const HeadSize = 6 + idSize + saltSize

// ErrKey is in the chain of errors about what is sealed under a key that is not
// at hand.
var ErrKey = errors.New("the key is not at hand")

var errDamaged = errors.New("damaged, or not what it is taken for")

// Sealed reports whether data is, or begins, something sealed.
func Sealed(data []byte) bool { return bytes.HasPrefix(data, magic) }

// Box seals and opens records. It may be used concurrently.
type Box struct {
	ring  *Ring
	head  []byte
	aead  cipher.AEAD
	count atomic.Uint64

	mu    sync.Mutex
	cache map[[HeadSize]byte]cipher.AEAD // of boxes whose records were opened
}

// NewBox returns a Box that seals under the ring's newest key.
func (r *Ring) NewBox() *Box {
	head, aead := r.begin()
	return &Box{ring: r, head: head, aead: aead, cache: map[[HeadSize]byte]cipher.AEAD{[HeadSize]byte(head): aead}}
}

const counterSize = 8

// Seal returns plain sealed. It can be opened only with the same context, which
// says what it is, so that no record can take another's place.
func (b *Box) Seal(plain, context []byte) []byte {
	count := b.count.Add(1)
	out := make([]byte, 0, HeadSize+counterSize+len(plain)+tagSize)
	out = append(out, b.head...)
	out = binary.BigEndian.AppendUint64(out, count)
	return b.aead.Seal(out, nonce(count), plain, context)
}

// Open returns what Seal was given.
func (b *Box) Open(sealed, context []byte) ([]byte, error) {
	if !Sealed(sealed) || len(sealed) < HeadSize+counterSize+tagSize {
		return nil, fmt.Errorf("open sealed record: %w", errDamaged)
	}
	aead, err := b.opener([HeadSize]byte(sealed))
	if err != nil {
		return nil, fmt.Errorf("open sealed record: %w", err)
	}
	count := binary.BigEndian.Uint64(sealed[HeadSize:])
	plain, err := aead.Open(nil, nonce(count), sealed[HeadSize+counterSize:], context)
	if err != nil {
		return nil, fmt.Errorf("open sealed record: %w", errDamaged)
	}
	return plain, nil
}

// Current reports whether something was sealed under the ring's newest key.
func (r *Ring) Current(sealed []byte) bool {
	return Sealed(sealed) && len(sealed) >= HeadSize && r.keys[0].id() == [idSize]byte(sealed[len(magic):])
}

func (b *Box) opener(head [HeadSize]byte) (cipher.AEAD, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if aead := b.cache[head]; aead != nil {
		return aead, nil
	}
	aead, err := b.ring.aead(head)
	if err == nil {
		b.cache[head] = aead
	}
	return aead, err
}

// begin makes the head of a new Box or stream, and what seals under it.
func (r *Ring) begin() ([]byte, cipher.AEAD) {
	id, salt := r.keys[0].id(), make([]byte, saltSize)
	if _, err := io.ReadFull(r.rand, salt); err != nil {
		panic("read randomness: " + err.Error())
	}
	head := append(append(bytes.Clone(magic), id[:]...), salt...)
	return head, derive(r.keys[0], salt)
}

// aead is what opens what begins with head.
func (r *Ring) aead(head [HeadSize]byte) (cipher.AEAD, error) {
	id := [idSize]byte(head[len(magic):])
	for _, k := range r.keys {
		if k.id() == id {
			return derive(k, head[len(magic)+idSize:]), nil
		}
	}
	return nil, fmt.Errorf("sealed under key %x: %w", id, ErrKey)
}

// derive makes a cipher of a key and a salt.
func derive(key, salt []byte) cipher.AEAD {
	sub, err := hkdf.Key(sha256.New, key, salt, "orch seal", keySize)
	if err != nil {
		panic(fmt.Sprintf("derive a key: %v", err)) // only of a wrong size
	}
	block, err := aes.NewCipher(sub)
	if err != nil {
		panic(fmt.Sprintf("make a cipher: %v", err)) // only of a wrong size
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(fmt.Sprintf("make a cipher: %v", err)) // only of a wrong size
	}
	return aead
}

// nonce is a counter as GCM wants it, 96 bits.
func nonce(count uint64) []byte {
	return binary.BigEndian.AppendUint64(make([]byte, 4, 12), count)
}
