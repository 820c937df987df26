package api

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"time"
)

// Bounds of the time after which the gossip key is replaced.
const (
	DefaultGossipKeyLife = 12 * time.Hour
	MinGossipKeyLife     = time.Minute
	MaxGossipKeyLife     = 365 * 24 * time.Hour
)

// NewGossipKey makes a key of the gossip.
func NewGossipKey(rand io.Reader) []byte {
	key := make([]byte, 32)
	if _, err := io.ReadFull(rand, key); err != nil {
		panic(err) // the system has no randomness
	}
	return key
}

// GossipLife is how long a gossip key is used.
func (c *Cluster) GossipLife() time.Duration {
	if c.GossipKeyLife == 0 {
		return DefaultGossipKeyLife
	}
	return c.GossipKeyLife
}

// GossipRing are the gossip keys that nodes go by now: the first encrypts, all
// decrypt.
func (c *Cluster) GossipRing() [][]byte {
	ring := [][]byte{c.GossipKey}
	for _, key := range [][]byte{c.NextGossipKey, c.OldGossipKey} {
		if len(key) > 0 {
			ring = append(ring, key)
		}
	}
	return ring
}

// GossipStep is how far the replacement of the gossip key is, in words of what
// nodes do; "" if it is not being replaced.
type GossipStep string

const (
	GossipTakes GossipStep = "understand the new gossip key"
	GossipUses  GossipStep = "use the new gossip key"
)

// GossipStep says what the nodes are to do now.
func (c *Cluster) GossipStep() GossipStep {
	switch {
	case len(c.OldGossipKey) > 0:
		return GossipUses
	case len(c.NextGossipKey) > 0:
		return GossipTakes
	}
	return ""
}

// GossipRingID names a ring of gossip keys, and tells nothing of them.
func GossipRingID(keys [][]byte) string {
	h := sha256.New()
	for _, key := range keys {
		digest := sha256.Sum256(key)
		h.Write(digest[:])
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}
