package api

import (
	"net/netip"
	"time"
)

// SessionRequest opens an agent's stream of updates.
type SessionRequest struct {
	Node NodeID `json:"node"`
}

// Update is the part of the cluster's state that a node needs: first with
// Reset, all of it, then what changed, in order.
type Update struct {
	Index   Index    `json:"index"`
	Reset   bool     `json:"reset,omitempty"`
	Changes []Change `json:"changes,omitempty"`
}

// Report is an agent's heartbeat: its lease, its acknowledgement and what
// became of its tasks.
type Report struct {
	Node    NodeID `json:"node"`
	Applied Index  `json:"applied"`         // in its kernel
	Epoch   uint64 `json:"epoch,omitempty"` // of the managers' group that Applied is of
	// Statuses are those that changed since they were last accepted.
	Statuses map[TaskID]TaskStatus `json:"statuses,omitempty"`
	Info     *NodeInfo             `json:"info,omitempty"` // when it changed
	// Addr is where the node's API is now, with Info.
	Addr netip.AddrPort `json:"addr,omitzero"`
}

// ReportResponse says for how long the node's lease is good, and what the newest
// state is: an agent that does not see it come has a manager that lags.
type ReportResponse struct {
	Lease time.Duration `json:"lease"`
	// Fence is for how long after it sent the report the node may run the tasks of
	// singletons; 0: as long as it might before. It is given only by a leader that
	// a quorum has confirmed since the report came.
	Fence   time.Duration `json:"fence,omitempty"`
	Version               // of the newest state
	// GossipKeys are the cluster's, of which the first encrypts, for a node that has
	// not said that it goes by them.
	GossipKeys [][]byte `json:"gossipKeys,omitempty"`
}
