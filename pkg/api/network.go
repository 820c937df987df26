package api

import "net/netip"

// Network is an isolation group of tasks: names resolve and packets pass only
// between tasks that share one. It is not an interface or a subnet.
type Network struct {
	Meta  Meta      `json:"meta"`
	ID    NetworkID `json:"id"`
	Name  string    `json:"name"` // unique: STACK_NAME
	Stack string    `json:"stack,omitempty"`

	// Number identifies the network in the data plane, unique, from 1. It is
	// allocated by the leader; zero until then.
	Number uint32 `json:"number"`

	// Internal networks give no way out of the cluster.
	Internal bool `json:"internal,omitempty"`

	// Encrypted: what tasks on the network send to other nodes, and get from
	// there, goes through WireGuard or not at all.
	Encrypted bool `json:"encrypted,omitempty"`

	// Removing: its stack was removed; the leader deletes it, and frees its
	// number, once no task is on it.
	Removing bool `json:"removing,omitempty"`
}

// EndpointState says whether an endpoint may serve. It moves forward only.
type EndpointState string

const (
	EndpointPending  EndpointState = "pending"  // has an address, is not a backend yet
	EndpointReady    EndpointState = "ready"    // takes new flows
	EndpointDraining EndpointState = "draining" // keeps its flows, takes no new ones
	EndpointGone     EndpointState = "gone"     // takes nothing; its address is free again
)

// Endpoint is a task's address on the network.
type Endpoint struct {
	// Addr is cluster-wide and unique among endpoints that are not gone.
	Addr  netip.Addr    `json:"addr"`
	State EndpointState `json:"state"`
	// Since is the index of the entry that set State, stamped by the store: a
	// node that has acknowledged it has put the state into its kernel.
	Since Index `json:"since,omitempty"`
}

// Protocol of a published port.
type Protocol string

const (
	TCP Protocol = "tcp"
	UDP Protocol = "udp"
)

// Port is a port that a service publishes on every node.
type Port struct {
	// Published is the port on the nodes; zero asks for one of 30000-32767,
	// which the leader allocates.
	Published uint16 `json:"published"`
	// Target is the port that the application listens on.
	Target   uint16   `json:"target"`
	Protocol Protocol `json:"protocol"`
	// HostIP restricts the port to that address of a node; unset: any address.
	HostIP netip.Addr `json:"hostIP,omitzero"`
	// Host: only on the nodes that run a task of the service, for that task.
	Host bool `json:"host,omitempty"`
}
