package api

import "time"

// How nodes come, change and go.

// AdmitRequest is what a joining node sends to a manager.
type AdmitRequest struct {
	Secret string `json:"secret"`
	Node   Node   `json:"node"` // Role and State are the manager's to set
	// Request asks for the node's certificate: PKCS #10.
	Request []byte `json:"request"`
}

// Certificate is a node's, and those of the authorities that it is to trust.
// All are X.509, DER. Chain leads from the node's to an authority that others
// trust who have not heard of the issuer yet.
type Certificate struct {
	Node  []byte   `json:"node"`
	Chain [][]byte `json:"chain,omitempty"`
	Roots [][]byte `json:"roots"`
}

// RenewRequest asks for a new certificate for the node that sends it.
type RenewRequest struct {
	Request []byte `json:"request"` // PKCS #10
}

// AdmitResponse is what a node needs to be a member.
type AdmitResponse struct {
	ClusterID   string      `json:"clusterID"`
	Role        Role        `json:"role"`
	Certificate Certificate `json:"certificate"`
	GossipKey   []byte      `json:"gossipKey"`
	// OtherGossipKeys decrypt, while the key is replaced.
	OtherGossipKeys [][]byte `json:"otherGossipKeys,omitempty"`
	Epoch           uint64   `json:"epoch,omitempty"` // of the managers' group
	Pool            string   `json:"pool"`
	Managers        []string `json:"managers"` // API addresses
	// ElectionTimeout is for managers.
	ElectionTimeout time.Duration `json:"electionTimeout,omitempty"`
}

// AddMemberRequest asks for a manager that was admitted, and whose Raft answers,
// to become a member of the Raft group, which gets a vote once it has caught up.
type AddMemberRequest struct {
	Node NodeID `json:"node"`
}

// RemoveNodeRequest takes a node out of the cluster.
type RemoveNodeRequest struct {
	Node  string `json:"node"`  // ID, unambiguous prefix of it, or hostname
	Force bool   `json:"force"` // also if it is up
}

// LeaveRequest has this node leave its cluster.
type LeaveRequest struct {
	// Force: its tasks end at once, and it leaves also if nobody can be asked, or the
	// cluster is lost by it.
	Force bool `json:"force,omitempty"`
	// Purge: without a trace in the kernel.
	Purge bool `json:"purge,omitempty"`
}

// LeaveProgress tells how far a node is that leaves.
type LeaveProgress struct {
	Line    string `json:"line,omitempty"`
	Warning string `json:"warning,omitempty"`
	Left    bool   `json:"left,omitempty"` // it is done
}

// DepartRequest is a node's that leaves: first with Prepare, which has its tasks
// move elsewhere.
type DepartRequest struct {
	Node    NodeID `json:"node"`
	Prepare bool   `json:"prepare,omitempty"`
}

// UpdateNodeRequest changes what an operator may set on a node.
type UpdateNodeRequest struct {
	Node         string            `json:"node"` // ID, unambiguous prefix of it, or hostname
	Role         Role              `json:"role,omitempty"`
	Availability Availability      `json:"availability,omitempty"`
	AddLabels    map[string]string `json:"addLabels,omitempty"`
	RemoveLabels []string          `json:"removeLabels,omitempty"`
}
