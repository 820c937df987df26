package api

import "time"

// WhyRequest asks why something is as it is.
type WhyRequest struct {
	// Name is that of a task (SERVICE.SLOT), a service or a node, or the ID of one,
	// or the beginning of it.
	Name string `json:"name"`
}

// Why says why a task, a service or a node is as it is.
type Why struct {
	Kind Kind   `json:"kind"`
	ID   string `json:"id"`
	Name string `json:"name"`
	// State is what it is at present, in one sentence; Reasons why.
	State   string   `json:"state"`
	Reasons []string `json:"reasons,omitempty"`
	// Filters say what a pending task was refused for, with the number of nodes.
	Filters []FilterCount `json:"filters,omitempty"`
	// Nodes are what each node was refused for, empty where it suits.
	Nodes []NodeOpinion `json:"nodes,omitempty"`
	// History is what happened to a task, in order.
	History []Event `json:"history,omitempty"`
	// Tasks are a service's, the newest of each slot, or those on a node; Services
	// those that might run on a node and do not.
	Tasks    []Why            `json:"tasks,omitempty"`
	Services []ServiceOpinion `json:"services,omitempty"`
	At       time.Time        `json:"at"` // the manager's clock
}

// FilterCount is how many nodes a filter refused, and what it has against them.
type FilterCount struct {
	Filter string `json:"filter"`
	Nodes  int    `json:"nodes"`
	Reason string `json:"reason"`
}

// NodeOpinion is what the scheduler holds of a node for a task.
type NodeOpinion struct {
	Node   string `json:"node"`             // its hostname
	Reason string `json:"reason,omitempty"` // reads after the node's name
}

// ServiceOpinion is what the scheduler holds of a service for a node.
type ServiceOpinion struct {
	Service string `json:"service"`
	Reason  string `json:"reason,omitempty"` // reads after the node's name
}

// RebalanceRequest asks for services to be spread evenly over the nodes again.
type RebalanceRequest struct {
	// Plan only says what would move.
	Plan bool `json:"plan,omitempty"`
}

// Rebalancing is what moves, or would.
type Rebalancing struct {
	Moves []TaskMove `json:"moves"`
	// Busy: it is under way.
	Busy bool `json:"busy,omitempty"`
}

// TaskMove is a task that runs on one node and should on another. What takes its
// place is another task, started before this one ends.
type TaskMove struct {
	Task string `json:"task"` // its name
	ID   TaskID `json:"id"`
	From string `json:"from"` // hostnames
	To   string `json:"to"`
	Why  string `json:"why"`
}
