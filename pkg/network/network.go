// Package network computes what one node's data plane and name server have to
// know from the state of the cluster. It is a planner: without a clock,
// randomness or I/O of its own, and with the same result for the same state.
//
// Of tasks on other nodes it needs only ID, ServiceID, NodeID, Networks,
// Endpoint and Status.State.
package network

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/orch-dev/orch/pkg/api"
)

// Plan computes the node's network plan. Suspects are nodes that gossip holds
// for dead; links are the host sides of the interfaces that are up on this node.
//
// Backends of a suspected node are draining: they get no new flows, and keep
// those they have, because it may be only the node's daemon that is restarting
// while its kernel goes on forwarding. For the same reason they go on as before
// if no other backend serves. A node does not suspect itself. The backends of a
// node that the store calls down are left out.
func Plan(view *api.Snapshot, node api.NodeID, suspects map[api.NodeID]bool, links map[api.TaskID]int) api.NetworkPlan {
	plan := api.NetworkPlan{Generation: view.Index, Node: node}
	if self := view.Nodes[node]; self != nil {
		plan.Underlay = self.Addr
	}
	if view.Cluster != nil {
		// A pool that does not parse leaves no addresses to plan for.
		plan.Pool, _ = netip.ParsePrefix(view.Cluster.Pool)
		plan.Pool6 = api.Pool6(view.Cluster.ID)
	}
	if view.Cluster != nil && view.Encrypts() {
		plan.Tunnels = view.Cluster.Tunnels()
	}
	for _, n := range api.Sorted(view.Nodes) {
		if !reachable(n) {
			continue
		}
		plan.Members = append(plan.Members, api.Member{Node: n.ID, Addr: n.Addr, Keys: keys(n, plan.Tunnels.Epochs)})
	}
	slices.SortStableFunc(plan.Members, func(a, b api.Member) int { return a.Addr.Compare(b.Addr) })

	for _, t := range located(view) {
		e := api.PlanEndpoint{
			Addr:     t.Endpoint.Addr,
			Node:     view.Nodes[t.NodeID].Addr,
			Networks: numbers(view, t.Networks),
			Outside:  outside(view, t.Networks),

			Encrypted: view.OnEncrypted(t.Networks),
		}
		if t.NodeID == node {
			e.IfIndex = links[t.ID]
		}
		slices.Sort(e.Networks)
		plan.Endpoints = append(plan.Endpoints, e)
	}
	plan.Frontends = frontends(view, node, suspects)
	return plan
}

// keys are those of a node that the epochs have.
func keys(n *api.Node, epochs []uint64) []api.TunnelKey {
	var out []api.TunnelKey
	for _, epoch := range epochs {
		if public := n.TunnelKey(epoch); public != nil {
			out = append(out, api.TunnelKey{Epoch: epoch, Public: public})
		}
	}
	return out
}

// reachable reports whether a node is there with an address that the data plane can
// express. It takes plans as a whole: with any other address in them no node would
// have its next one.
func reachable(n *api.Node) bool { return n != nil && n.Addr.Is4() }

// located are the tasks with an address on a node that is reachable, by address.
func located(view *api.Snapshot) []*api.Task {
	var tasks []*api.Task
	for _, t := range view.Tasks {
		if t.Endpoint.Addr.IsValid() && t.Endpoint.State != api.EndpointGone && reachable(view.Nodes[t.NodeID]) {
			tasks = append(tasks, t)
		}
	}
	slices.SortFunc(tasks, func(a, b *api.Task) int {
		return cmp.Or(a.Endpoint.Addr.Compare(b.Endpoint.Addr), cmp.Compare(a.ID, b.ID))
	})
	return tasks
}

// numbers are those of the networks that have one, in the order of ids.
func numbers(view *api.Snapshot, ids []api.NetworkID) []uint32 {
	var out []uint32
	for _, id := range ids {
		if n := view.Networks[id]; n != nil && n.Number != 0 {
			out = append(out, n.Number)
		}
	}
	return out
}

// outside reports whether one of the networks leads out of the cluster.
func outside(view *api.Snapshot, ids []api.NetworkID) bool {
	return slices.ContainsFunc(ids, func(id api.NetworkID) bool {
		n := view.Networks[id]
		return n != nil && !n.Internal
	})
}
