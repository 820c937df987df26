package api

import (
	"net/netip"
	"time"
)

// Role is what a node does in the cluster. Both roles run tasks.
type Role string

const (
	RoleWorker  Role = "worker"
	RoleManager Role = "manager"
)

// Availability is whether a node's operator wants tasks on it.
type Availability string

const (
	AvailabilityActive Availability = "active" // takes tasks
	AvailabilityPause  Availability = "pause"  // keeps its tasks, takes no new ones
	AvailabilityDrain  Availability = "drain"  // its tasks move elsewhere
)

// NodeState is what the leader holds of a node's lease.
type NodeState string

const (
	NodeReady NodeState = "ready" // its lease is valid
	NodeDown  NodeState = "down"  // its lease ran out; its tasks are replaced
)

// Node is one machine of the cluster.
type Node struct {
	Meta         Meta              `json:"meta"`
	ID           NodeID            `json:"id"`
	Hostname     string            `json:"hostname"`
	Role         Role              `json:"role"`
	Availability Availability      `json:"availability"`
	State        NodeState         `json:"state"`
	Labels       map[string]string `json:"labels,omitempty"`

	// Addr is the node's underlay address: peers send VXLAN, gossip and API
	// calls to it.
	Addr netip.Addr `json:"addr"`
	// APIPort (TCP; Raft shares it) and GossipPort (TCP and UDP).
	APIPort    uint16 `json:"apiPort"`
	GossipPort uint16 `json:"gossipPort"`

	// Rebalance: it has just joined or come back, or its operator asked for it:
	// tasks of services that are uneven move here from other nodes.
	Rebalance bool `json:"rebalance,omitempty"`

	// Key is the SHA-256 digest of the public key that the node was admitted
	// with: only who has that key can be admitted again as this node.
	Key []byte `json:"key,omitempty"`

	Info NodeInfo `json:"info"`
}

// APIAddr is the address of the node's API, which Raft shares.
func (n *Node) APIAddr() string {
	return netip.AddrPortFrom(n.Addr, n.APIPort).String()
}

// SharesAddr reports whether two nodes say that they are at one address, on whatever
// ports: what nodes send each other goes by the address alone. Loopback is everybody's,
// and there the ports count.
func (n *Node) SharesAddr(other *Node) bool {
	return n.Addr == other.Addr && (!n.Addr.IsLoopback() || n.APIPort == other.APIPort)
}

// NodeInfo is what a node says about itself when it joins and when it starts.
type NodeInfo struct {
	OS            string `json:"os"`
	Arch          string `json:"arch"`
	Kernel        string `json:"kernel"`
	EngineVersion string `json:"engineVersion"`
	CPUs          int    `json:"cpus"`
	MemoryBytes   int64  `json:"memoryBytes"`
	OrchVersion   string `json:"orchVersion"`
	// Datapath says which attach mode is active, for instance "xdp native on
	// eth0" or "tcx on eth0".
	Datapath string `json:"datapath"`
	// Encryption is unset where the node has not said, or runs an orch that knows
	// of none.
	Encryption *Encryption `json:"encryption,omitempty"`
	// Issuer is the ID of the authority that signed the node's certificate.
	Issuer string `json:"issuer,omitempty"`
	// GossipRing is the ID of the gossip keys that it goes by.
	GossipRing string `json:"gossipRing,omitempty"`
	// ElectionTimeout is what its Raft goes by, if it is a manager.
	ElectionTimeout time.Duration `json:"electionTimeout,omitempty"`

	// EngineLabels, VolumeDrivers, LogDrivers and Generic are as the engine's
	// own configuration has them. Generic is how many there are of each kind,
	// for instance 2 of "gpu". Nil drivers: the node has not said.
	EngineLabels  map[string]string `json:"engineLabels,omitempty"`
	VolumeDrivers []string          `json:"volumeDrivers,omitempty"`
	LogDrivers    []string          `json:"logDrivers,omitempty"`
	Generic       map[string]int64  `json:"generic,omitempty"`
	// Volumes are the named volumes that exist on this node alone, sorted.
	Volumes []string `json:"volumes,omitempty"`
}
