package api

import "strconv"

// Balance says how new flows to a service are spread over its tasks, on its
// virtual IP and its published ports alike.
type Balance struct {
	// Affinity keeps flows together; empty: each goes where it falls.
	Affinity Affinity `json:"affinity,omitempty"`
	// Local prefers the tasks of the node that a flow comes in at.
	Local bool `json:"local,omitempty"`
}

// Affinity is which flows of a service go to the same task.
type Affinity string

// AffinityClient: those from one address, as long as the task serves.
const AffinityClient Affinity = "client"

func (s *ServiceSpec) validateBalance() error {
	if a := s.Balance.Affinity; a != "" && a != AffinityClient {
		return Errorf(CodeInvalid, "service %s: unknown affinity %q: use client", s.Name, a)
	}
	return nil
}

// WeightLabel on a node is the share of new flows that each task there gets
// beside tasks on other nodes: 1 to 256.
const WeightLabel = "orch.weight"

// Weight is that of a node's tasks; 1 where the label says nothing sensible.
func (n *Node) Weight() uint16 {
	if weight, err := strconv.ParseUint(n.Labels[WeightLabel], 10, 16); err == nil && weight >= 1 && weight <= 256 {
		return uint16(weight)
	}
	return 1
}
