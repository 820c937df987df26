package api

import (
	"net/netip"
	"time"
)

// Procedures by which a node explains what its data plane does, and what a
// manager answers by asking them of every node.
const (
	ProcNetFrontends = "/orch.agent/NetFrontends" // Empty -> NetFrontends
	ProcNetDrops     = "/orch.agent/NetDrops"     // Empty -> NetDrops
	ProcNetFlows     = "/orch.agent/NetFlows"     // NetFlowsRequest -> NetFlows
	ProcNetTrace     = "/orch.agent/NetTrace"     // NetTraceRequest -> NetTrace

	ProcAskFrontends = "/orch.cluster/NetFrontends" // Ask[Empty] -> Answers[NetFrontends]
	ProcAskDrops     = "/orch.cluster/NetDrops"     // Ask[Empty] -> Answers[NetDrops]
	ProcAskFlows     = "/orch.cluster/NetFlows"     // Ask[NetFlowsRequest] -> Answers[NetFlows]
	ProcAskTrace     = "/orch.cluster/NetTrace"     // Ask[NetTraceRequest] -> Answers[NetTrace]
)

// Ask has every node answer a request, or one.
type Ask[T any] struct {
	Node    string `json:"node,omitempty"` // ID, unambiguous prefix of it, or hostname; empty: every node
	Request T      `json:"request"`
}

// Answers are what the nodes said, by hostname.
type Answers[T any] struct {
	Nodes []Answer[T] `json:"nodes"`
}

// Answer is what one node said, or why it said nothing.
type Answer[T any] struct {
	Node     NodeID     `json:"node"`
	Hostname string     `json:"hostname"`
	Addr     netip.Addr `json:"addr"`
	Error    string     `json:"error,omitempty"`
	Answer   *T         `json:"answer,omitempty"`
}

// NetFrontends is what a node's kernel does for clients.
type NetFrontends struct {
	Frontends []NetFrontend `json:"frontends"`
}

// NetFrontend is a published port or a virtual IP, and what passed through it
// on this node since it was there.
type NetFrontend struct {
	Addr     netip.Addr `json:"addr"`               // unspecified: any address of the node
	Port     uint16     `json:"port,omitempty"`     // 0: a virtual IP, which takes every port
	Protocol Protocol   `json:"protocol,omitempty"` // "" of a virtual IP
	Service  string     `json:"service,omitempty"`
	// Return of replies to clients outside whose backend is on another node; "" of a
	// virtual IP, which has none.
	Return Return `json:"return,omitempty"`

	Packets  uint64       `json:"packets"`
	Bytes    uint64       `json:"bytes"`
	NewFlows uint64       `json:"newFlows"`
	Backends []NetBackend `json:"backends"`
}

// Key is what clients connect to.
func (f *NetFrontend) Key() FrontendKey {
	return FrontendKey{Addr: f.Addr, Port: f.Port, Protocol: f.Protocol}
}

// BackendState is what a node's kernel does with a backend.
type BackendState string

const (
	BackendActive      BackendState = "active"      // takes new flows
	BackendDraining    BackendState = "draining"    // keeps its flows
	BackendUnreachable BackendState = "unreachable" // of this node, and its interface is not there yet
)

// NetBackend is one backend of a frontend, as this node's kernel has it.
type NetBackend struct {
	Addr  netip.Addr   `json:"addr"`
	Port  uint16       `json:"port,omitempty"` // 0: the port that the client used
	Task  string       `json:"task,omitempty"`
	Node  string       `json:"node"` // hostname, or address while that is not known
	State BackendState `json:"state"`
	// Share of the new flows that it gets, 0 to 1: its places in the
	// frontend's Maglev table.
	Share float64 `json:"share"`
	// Flows are those that the node remembers now.
	Flows    int    `json:"flows"`
	Packets  uint64 `json:"packets"`
	Bytes    uint64 `json:"bytes"`
	NewFlows uint64 `json:"newFlows"`
}

// NetDrops is what a node dropped since its data plane began to count.
type NetDrops struct {
	Drops []NetDrop `json:"drops"`
}

// NetDrop counts the packets dropped for one reason. Every reason is there,
// also those that have not come up.
type NetDrop struct {
	Reason  string      `json:"reason"`
	Meaning string      `json:"meaning"`
	Packets uint64      `json:"packets"`
	Bytes   uint64      `json:"bytes"`
	Last    *NetExample `json:"last,omitempty"`
}

// NetExample is one dropped packet.
type NetExample struct {
	Ago         time.Duration  `json:"ago"`
	Source      netip.AddrPort `json:"source"` // port 0 where there is none
	Destination netip.AddrPort `json:"destination"`
	Protocol    string         `json:"protocol"`
	Device      string         `json:"device"` // that it came in by
	Length      int            `json:"length"` // bytes, from the IP header on
}

// NetFlowsRequest asks a node for the flows that it remembers.
type NetFlowsRequest struct {
	Service string     `json:"service,omitempty"` // full name
	Client  netip.Addr `json:"client,omitzero"`
	Verdict string     `json:"verdict,omitempty"`
	Limit   int        `json:"limit,omitempty"` // 0: 1000
}

// NetFlows are those that match, at most Limit of Total, the latest first.
type NetFlows struct {
	Flows []NetFlow `json:"flows"`
	Total int       `json:"total"`
}

// NetFlow is a client's flow, as its ingress node, its backend's node, or a
// node that is both remembers it.
type NetFlow struct {
	Protocol Protocol       `json:"protocol"`
	Client   netip.AddrPort `json:"client"`
	Frontend netip.AddrPort `json:"frontend"` // what the client connected to
	Service  string         `json:"service,omitempty"`
	Backend  netip.AddrPort `json:"backend"`
	Task     string         `json:"task,omitempty"`
	// Ingress: the flow entered here. Serving: the backend is here; Via is then
	// the node that it entered at, to which the reply goes back, with DSR only what
	// ends a connection.
	Ingress bool       `json:"ingress,omitempty"`
	Serving bool       `json:"serving,omitempty"`
	Via     netip.Addr `json:"via,omitzero"`
	DSR     bool       `json:"dsr,omitempty"`
	// State: opening, established, closing or closed where the backend is here;
	// open or closing elsewhere; open for UDP.
	State string `json:"state"`
	// Verdict is what becomes of the client's packets here: delivered or
	// forwarded-tunnel.
	Verdict string        `json:"verdict"`
	Idle    time.Duration `json:"idle"` // to a second
}

// NetTraceRequest asks a node what it would do with a client's packet.
type NetTraceRequest struct {
	Client netip.AddrPort `json:"client"` // port 0: any
	// Addr is the destination; unset: the node's own address.
	Addr     netip.Addr `json:"addr,omitzero"`
	Port     uint16     `json:"port"`
	Protocol Protocol   `json:"protocol"`
}

// NetTrace is what a node would do with the packet.
type NetTrace struct {
	// Verdict as the kernel counts it: forwarded-tunnel, delivered,
	// passed-no-backend, drop: isolated, and so on; or "not ours".
	Verdict string `json:"verdict"`
	// Frontend and Service that the packet is for, if any.
	Frontend string `json:"frontend,omitempty"`
	Service  string `json:"service,omitempty"`
	// Backend, where the client's port decides it. Remembered: by a flow that
	// is there; else by the Maglev table.
	Backend    netip.AddrPort `json:"backend,omitzero"`
	Task       string         `json:"task,omitempty"`
	Remembered bool           `json:"remembered,omitempty"`
	// Candidates are the backends that new flows may get.
	Candidates []NetBackend `json:"candidates,omitempty"`
	Path       string       `json:"path,omitempty"`
	Return     string       `json:"return,omitempty"`
}
