package api

import (
	"slices"
	"time"
)

// Encryption is what a node says of how its kernel encrypts what goes to other
// nodes, which WireGuard does.
type Encryption struct {
	// Lacks says why the kernel has no WireGuard; "" if it has.
	Lacks string `json:"lacks,omitempty"`
	// Keys are those of the node's WireGuard devices, by epoch, ascending. It has
	// none while no network is encrypted.
	Keys []TunnelKey `json:"keys,omitempty"`
}

// TunnelKey is the public half of the key of a node's WireGuard device. The
// other half is in that node's kernel and nowhere else.
type TunnelKey struct {
	// Epoch counts the keys that the cluster has gone by: nodes use keys of the
	// same epoch with each other.
	Epoch  uint64 `json:"epoch"`
	Public []byte `json:"public"` // Curve25519, TunnelKeyBytes long
}

// TunnelKeyBytes is how long a public key of WireGuard is.
const TunnelKeyBytes = 32

// TunnelKeyLife is after how long the nodes' keys are replaced. What is sent is
// encrypted by keys that the nodes' kernels make of them for two minutes each.
const TunnelKeyLife = 24 * time.Hour

// TunnelStep is how far the replacement of the nodes' keys is, in words of what
// nodes do; "" if they are not being replaced.
type TunnelStep string

const (
	TunnelMakes TunnelStep = "make the next keys"
	TunnelUses  TunnelStep = "use the new keys"
)

// Tunnels are the devices that nodes have, and the one they send by. No device goes
// before all nodes have taken in that nobody sends by it any more.
func (c *Cluster) Tunnels() TunnelPlan {
	switch c.TunnelStep {
	case TunnelMakes:
		return TunnelPlan{Epochs: []uint64{c.TunnelEpoch, c.TunnelEpoch + 1}, Send: c.TunnelEpoch}
	case TunnelUses:
		return TunnelPlan{Epochs: []uint64{c.TunnelEpoch - 1, c.TunnelEpoch}, Send: c.TunnelEpoch}
	}
	return TunnelPlan{Epochs: []uint64{c.TunnelEpoch}, Send: c.TunnelEpoch}
}

// LacksEncryption says why the node cannot encrypt what goes to other nodes; ""
// if it can.
func (n *Node) LacksEncryption() string {
	if n.Info.Encryption == nil {
		return "it has not said that its kernel has WireGuard"
	}
	return n.Info.Encryption.Lacks
}

// TunnelKey is the node's public key of an epoch, nil if it has none.
func (n *Node) TunnelKey(epoch uint64) []byte {
	if n.Info.Encryption == nil {
		return nil
	}
	for _, key := range n.Info.Encryption.Keys {
		if key.Epoch == epoch && len(key.Public) == TunnelKeyBytes {
			return key.Public
		}
	}
	return nil
}

// Encrypts reports whether one of the cluster's networks is encrypted.
func (s *Snapshot) Encrypts() bool {
	for _, n := range s.Networks {
		if n.Encrypted {
			return true
		}
	}
	return false
}

// EncryptedNetwork is one of the service's networks that is encrypted, nil if none
// is.
func (s *ServiceSpec) EncryptedNetwork(snap *Snapshot) *Network {
	for _, name := range s.Networks {
		if n := snap.NetworkByName(name); n != nil && n.Encrypted {
			return n
		}
	}
	return nil
}

// OnEncrypted reports whether one of the networks is encrypted.
func (s *Snapshot) OnEncrypted(ids []NetworkID) bool {
	if s == nil {
		return false
	}
	return slices.ContainsFunc(ids, func(id NetworkID) bool {
		n := s.Networks[id]
		return n != nil && n.Encrypted
	})
}
