package api

import (
	"cmp"
	"net/netip"
	"time"
)

// Identifiers are 25 characters of lower-case base 36, unique in a cluster.
type (
	NodeID    string
	ServiceID string
	TaskID    string
	NetworkID string
)

// Index is a Raft log index. It only grows, and names one state of the store.
type Index uint64

// Version names one state of the store among those of all groups of managers that the
// cluster has had: one that is recovered or restored goes on from an Index that nodes
// may be past.
type Version struct {
	Epoch uint64 `json:"epoch,omitempty"` // of the group
	Index Index  `json:"index"`
}

// Compare orders versions: negative if v is the older one.
func (v Version) Compare(w Version) int {
	return cmp.Or(cmp.Compare(v.Epoch, w.Epoch), cmp.Compare(v.Index, w.Index))
}

// Meta is what the store stamps on every object it holds.
type Meta struct {
	// Created and Modified are the indexes of the entries that first and last
	// wrote the object. Modified is the version that an optimistic update names.
	Created  Index `json:"created,omitempty"`
	Modified Index `json:"modified,omitempty"`
}

// Cluster is the singleton object: what holds for every node.
type Cluster struct {
	Meta Meta   `json:"meta"`
	ID   string `json:"id"`

	// Pool is the CIDR that task addresses and virtual IPs come from.
	Pool string `json:"pool"`
	// AddrCursor is the address that was allocated from Pool last: the next is
	// searched behind it, so that a freed one is not used again soon.
	AddrCursor netip.Addr `json:"addrCursor,omitzero"`

	// Authority signs the nodes' certificates, which are good for CertificateLife.
	Authority       Authority     `json:"authority"`
	CertificateLife time.Duration `json:"certificateLife"`
	// Rotation is how Authority is being replaced; nil if it is not.
	Rotation *Rotation `json:"rotation,omitempty"`

	// WorkerToken and ManagerToken are the secrets of the join tokens.
	WorkerToken  string `json:"workerToken"`
	ManagerToken string `json:"managerToken"`
	// RotatedTokens are the SHA-256 digests of the last secrets that are good no
	// longer, the newest first.
	RotatedTokens [][]byte `json:"rotatedTokens,omitempty"`

	// Users may call managers from other machines. They are sorted by name.
	Users []User `json:"users,omitempty"`

	// GossipKey encrypts the gossip: AES, 32 bytes. NextGossipKey is what is to
	// replace it, once all nodes have it, and OldGossipKey what it has replaced, until
	// all nodes use it.
	GossipKey     []byte `json:"gossipKey"`
	NextGossipKey []byte `json:"nextGossipKey,omitempty"`
	OldGossipKey  []byte `json:"oldGossipKey,omitempty"`
	// GossipKeySince is when GossipKey came into use; it is replaced after
	// GossipKeyLife. Zero: DefaultGossipKeyLife.
	GossipKeySince time.Time     `json:"gossipKeySince,omitzero"`
	GossipKeyLife  time.Duration `json:"gossipKeyLife,omitempty"`

	// TunnelEpoch counts the keys by which nodes encrypt what they send each other,
	// TunnelStep is how far they are with the next, and TunnelSince when they came
	// into use.
	TunnelEpoch uint64     `json:"tunnelEpoch,omitempty"`
	TunnelStep  TunnelStep `json:"tunnelStep,omitempty"`
	TunnelSince time.Time  `json:"tunnelSince,omitzero"`

	// UnlockKey is what managers need after a restart; nil: nothing. 32 bytes.
	UnlockKey []byte `json:"unlockKey,omitempty"`

	// Epoch is that of the managers' group: see Group.
	Epoch uint64 `json:"epoch,omitempty"`

	// BackupKey is what backups are sealed under; nil until the first. 32 bytes.
	BackupKey []byte `json:"backupKey,omitempty"`

	// LeaseTimeout is how long a node may be silent before its tasks are
	// replaced on other nodes.
	LeaseTimeout time.Duration `json:"leaseTimeout"`
	// LongLease is the lease of before, if it was longer and a node may still go by
	// it; else zero.
	LongLease time.Duration `json:"longLease,omitempty"`

	// ElectionTimeout is the silence of the leader after which the managers choose
	// another, at most twice as long. Zero: DefaultElectionTimeout.
	ElectionTimeout time.Duration `json:"electionTimeout,omitempty"`

	// Return of replies from published ports whose service does not say. Empty:
	// ReturnTunnel.
	Return Return `json:"return,omitempty"`
}
