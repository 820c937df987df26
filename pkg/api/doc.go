// Package api holds orch's domain types: what a cluster is made of, the states
// those things go through and the rules that make them valid. Every other
// package speaks in these types; this one imports only the standard library.
//
// Desired state (Service, Network) is written by users through managers,
// observed state (TaskStatus, the node's liveness) is reported by agents, and
// allocations (addresses, virtual IPs, ports, VNIs, placements) are made by the
// leader. All of it lives in the Raft store and is versioned by its index.
package api
