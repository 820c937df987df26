package api

import (
	"net/netip"
	"time"
)

// Procedures by which nodes examine themselves.
const (
	ProcDiagnose = "/orch.agent/Diagnose" // Empty -> NodeFacts
	ProcClock    = "/orch.agent/Clock"    // Empty -> Clock

	ProcAskDiagnose = "/orch.cluster/Diagnose" // Ask[Empty] -> Answers[NodeFacts]
)

// Clock is what time a node has.
type Clock struct {
	Now time.Time `json:"now"`
}

// NodeFacts is what a node finds when it examines itself and its ways to the
// other nodes. It holds no opinion: pkg/doctor has those. An error in a field of
// its own says why a fact could not be found.
type NodeFacts struct {
	Info     NodeInfo  `json:"info"`
	Features []Feature `json:"features"`
	// Attachments of the data plane's programs, by device.
	Attachments []Attachment `json:"attachments"`
	PinDir      string       `json:"pinDir"`
	PinsInBPFFS bool         `json:"pinsInBPFFS"`

	Uplink    string `json:"uplink"`
	UplinkMTU int    `json:"uplinkMTU"`
	// DefaultDevice is the device of the default route; "" without one, or with more
	// than one to choose from.
	DefaultDevice string `json:"defaultDevice,omitempty"`

	TaskLinks []TaskLink  `json:"taskLinks,omitempty"`
	Peers     []PeerFacts `json:"peers,omitempty"`

	// DSR are the services whose published ports have direct server return.
	DSR []string `json:"dsr,omitempty"`
	// StrictSource: net.ipv4.conf.*.rp_filter of the uplink is 1, so that this node
	// itself drops what comes from an address that it would not send to that way.
	StrictSource bool `json:"strictSource,omitempty"`

	Forwarding   bool   `json:"forwarding"` // net.ipv4.ip_forward
	FirewallDrop string `json:"firewallDrop,omitempty"`
	// EngineError says why the Docker Engine does not answer.
	EngineError string `json:"engineError,omitempty"`
	// Fsync is what a small synchronous write to the state directory takes, the mean
	// of a few.
	Fsync      time.Duration `json:"fsync"`
	FsyncError string        `json:"fsyncError,omitempty"`
	// Ephemeral is the range that the kernel takes client ports from, Reserved
	// those that it leaves out, Published the cluster's ports on this node.
	Ephemeral [2]uint16   `json:"ephemeral"`
	Reserved  [][2]uint16 `json:"reserved,omitempty"`
	Published []uint16    `json:"published,omitempty"`
	// Clock is told by the manager that asked.
	Clock *ClockDifference `json:"clock,omitempty"`
}

// Feature is something of the kernel that the data plane uses, as it was tried.
type Feature struct {
	Name     string `json:"name"`
	Have     bool   `json:"have"`
	Required bool   `json:"required,omitempty"`
	// Without says what happens without it.
	Without string `json:"without"`
}

// Attachment is a program on a device.
type Attachment struct {
	Device  string `json:"device"`
	Program string `json:"program"`       // uplink_xdp, uplink_tc, task, loopback
	How     string `json:"how"`           // xdp native, tcx, clsact; none
	Why     string `json:"why,omitempty"` // in this way
}

// TaskLink is the host side of a task's interface.
type TaskLink struct {
	Device string `json:"device"`
	MTU    int    `json:"mtu"`
}

// PeerFacts is how a node reaches another one.
type PeerFacts struct {
	Node     NodeID     `json:"node"`
	Hostname string     `json:"hostname"`
	Addr     netip.Addr `json:"addr"`
	// Why a connection to the TCP ports of API and gossip failed, and why the
	// UDP port of gossip did not answer; "" where all is well.
	APIError       string `json:"apiError,omitempty"`
	GossipTCPError string `json:"gossipTCPError,omitempty"`
	GossipUDPError string `json:"gossipUDPError,omitempty"`
	APIPort        uint16 `json:"apiPort"`
	GossipPort     uint16 `json:"gossipPort"`
	// Overlay is what probes in VXLAN found.
	Overlay      OverlayProbe `json:"overlay"`
	OverlayError string       `json:"overlayError,omitempty"`
	// DSR is what became of an answer that the peer sent from another node's address.
	DSR DSRProbe `json:"dsr,omitzero"`
}

// DSRProbe tells whether the network lets pass what a node sends from the address of
// another one, as it does with direct server return.
type DSRProbe struct {
	// As is the hostname of the node whose address was used; "": there is none but
	// the two.
	As string `json:"as,omitempty"`
	// Source is the address that the answer came from; unset: none came.
	Source  netip.Addr `json:"source,omitzero"`
	Arrived bool       `json:"arrived,omitempty"` // from the address that was asked for
}

// OverlayProbe is how large a packet of the overlay reaches another node's data
// plane in one piece.
type OverlayProbe struct {
	Tried   int `json:"tried"`   // bytes of the outer IP packet: this node's MTU
	Largest int `json:"largest"` // that arrived, at most Tried; 0: none did
}

// ClockDifference is how far a node's clock is ahead of the asking manager's,
// and how far that may be off.
type ClockDifference struct {
	Ahead  time.Duration `json:"ahead"`
	Within time.Duration `json:"within"`
}
