package api

import (
	"fmt"
	"time"
)

// Procedures about the cluster's settings and the key to what managers keep.
const (
	ProcUnlock          = "/orch.node/Unlock"             // UnlockRequest -> Empty
	ProcUpdateCluster   = "/orch.cluster/UpdateCluster"   // UpdateClusterRequest -> UpdateClusterResponse
	ProcClusterSettings = "/orch.cluster/ClusterSettings" // Empty -> ClusterSettings
	ProcRotateGossipKey = "/orch.cluster/RotateGossipKey" // Empty -> Empty
	ProcUnlockKey       = "/orch.cluster/UnlockKey"       // UnlockKeyRequest -> UnlockKey

	// Of a manager's disk, for managers.
	ProcDisk = "/orch.agent/Disk" // Empty -> Disk
)

// Bounds of the settings. A node reports once a second, so that a lease needs more
// than that.
const (
	// DefaultElectionTimeout has the managers wait for 150 to 300 ms: see section
	// 9.3 of Ongaro and Ousterhout, "In Search of an Understandable Consensus
	// Algorithm". The disk's fsync and the way between managers must take much less.
	DefaultElectionTimeout = 150 * time.Millisecond
	MinElectionTimeout     = 50 * time.Millisecond
	MaxElectionTimeout     = 30 * time.Second

	DefaultLease = 4 * time.Second
	MinLease     = 2 * time.Second
	MaxLease     = 10 * time.Minute

	// MinCertificateLife leaves enough time for the attempts to renew.
	MinCertificateLife = time.Minute
	MaxCertificateLife = 2 * 365 * 24 * time.Hour
)

// Election is the election timeout that holds.
func (c *Cluster) Election() time.Duration {
	if c.ElectionTimeout == 0 {
		return DefaultElectionTimeout
	}
	return c.ElectionTimeout
}

// ValidateSettings refuses settings that cannot work.
func (c *Cluster) ValidateSettings() error {
	for _, s := range []struct {
		name              string
		have, least, most time.Duration
	}{
		{"election timeout", c.Election(), MinElectionTimeout, MaxElectionTimeout},
		{"lease", c.LeaseTimeout, MinLease, MaxLease},
		{"gossip key life", c.GossipLife(), MinGossipKeyLife, MaxGossipKeyLife},
		{"certificate life", c.CertificateLife, MinCertificateLife, MaxCertificateLife},
	} {
		if s.have < s.least || s.have > s.most {
			return Errorf(CodeInvalid, "%s of %v: give one from %v to %v", s.name, s.have, s.least, s.most)
		}
	}
	if !c.Return.Valid() {
		return Errorf(CodeInvalid, "unknown return %q: use tunnel or dsr", c.Return)
	}
	if c.Election() > c.LeaseTimeout/2 {
		return Errorf(CodeInvalid, "election timeout of %v with a lease of %v: choosing a leader may take two timeouts, and nodes cannot renew their leases meanwhile; "+
			"give a lease of at least %v, or a timeout of at most %v", c.Election(), c.LeaseTimeout, 2*c.Election(), c.LeaseTimeout/2)
	}
	return nil
}

// electionWrites is how many times an election waits for a disk, one after
// another: the candidate's term; the voter's term and its vote (two values); the
// leader's first entry, on its disk and on a follower's. Each is a transaction,
// which is written twice: its pages, then what names them.
const electionWrites = 2 * (1 + 3 + 2)

// DiskTooSlow reports whether managers whose synchronous writes take that long may
// not get through an election within the timeout, and what timeout would be
// long enough, in steps of 50 ms; 0 if none that is possible is.
func DiskTooSlow(write, timeout time.Duration) (slow bool, enough time.Duration) {
	const step = 50 * time.Millisecond
	enough = (electionWrites*write + step - 1) / step * step
	if enough > MaxElectionTimeout {
		enough = 0
	}
	return electionWrites*write > timeout, enough
}

// DiskWarning says in words that a manager's disk is too slow for the timeout, ""
// if it is not.
func DiskWarning(hostname string, write, timeout time.Duration) string {
	slow, enough := DiskTooSlow(write, timeout)
	switch {
	case !slow:
		return ""
	case enough == 0:
		return fmt.Sprintf("%s: a small synchronous write takes %v, which is too slow for any election timeout: put --state-dir on another disk", hostname, round(write))
	}
	return fmt.Sprintf("%s: a small synchronous write takes %v, and an election needs %d of them within its timeout of %v: "+
		"put --state-dir on a faster disk, or `orch cluster update --election-timeout %v`", hostname, round(write), electionWrites, timeout, enough)
}

func round(d time.Duration) time.Duration { return d.Round(10 * time.Microsecond) }

// Disk is how fast a node's state directory is.
type Disk struct {
	// Write is what a small synchronous write takes, the mean of a few.
	Write time.Duration `json:"write"`
}

// UpdateClusterRequest changes what holds for the whole cluster. What is nil stays
// as it is.
type UpdateClusterRequest struct {
	// Autolock: managers need the unlock key after a restart.
	Autolock        *bool          `json:"autolock,omitempty"`
	ElectionTimeout *time.Duration `json:"electionTimeout,omitempty"`
	Lease           *time.Duration `json:"lease,omitempty"`
	CertificateLife *time.Duration `json:"certificateLife,omitempty"`
	GossipKeyLife   *time.Duration `json:"gossipKeyLife,omitempty"`
	Return          *Return        `json:"return,omitempty"`
}

// UpdateClusterResponse has the unlock key if autolock was switched on.
type UpdateClusterResponse struct {
	UnlockKey string   `json:"unlockKey,omitempty"`
	Warnings  []string `json:"warnings,omitempty"`
}

// ClusterSettings is what `orch cluster inspect` shows.
type ClusterSettings struct {
	ID              string        `json:"id"`
	Pool            string        `json:"pool"`
	Lease           time.Duration `json:"lease"`
	ElectionTimeout time.Duration `json:"electionTimeout"`
	CertificateLife time.Duration `json:"certificateLife"`
	Authority       string        `json:"authority"` // ID
	// External is where the authority signs, if outside of the cluster: it decides
	// how long certificates are good.
	External string `json:"external,omitempty"`
	Autolock bool   `json:"autolock"`
	Return   Return `json:"return"`
	Nodes    int    `json:"nodes"`
	Managers int    `json:"managers"`
	// GossipKeySince is when the gossip key came into use, which is replaced after
	// GossipKeyLife. Gossip says how far that is, if it is going on, and Rekeying are
	// the nodes that are waited for.
	GossipKeySince time.Time     `json:"gossipKeySince,omitzero"`
	GossipKeyLife  time.Duration `json:"gossipKeyLife"`
	Gossip         GossipStep    `json:"gossip,omitempty"`
	Rekeying       []string      `json:"rekeying,omitempty"`
	// Retiming are the managers that are up and do not go by ElectionTimeout yet.
	Retiming []string `json:"retiming,omitempty"`
}

// UnlockKeyRequest asks for the unlock key, with Rotate for a new one.
type UnlockKeyRequest struct {
	Rotate bool `json:"rotate,omitempty"`
}

// UnlockKey is what managers need after a restart.
type UnlockKey struct {
	Key string `json:"key"`
}

// UnlockRequest opens what a manager keeps, after its restart.
type UnlockRequest struct {
	Key string `json:"key"`
}
