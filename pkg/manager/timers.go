package manager

import (
	"cmp"
	"slices"

	"github.com/orch-dev/orch/pkg/api"
)

// Retiming are the managers that are up and do not go by the cluster's election
// timeout yet, as far as they have said what they go by, in the order of their IDs.
func Retiming(snap *api.Snapshot) []*api.Node {
	return slices.DeleteFunc(api.Sorted(snap.Nodes), func(n *api.Node) bool {
		goesBy := n.Info.ElectionTimeout
		return n.Role != api.RoleManager || n.State != api.NodeReady || goesBy == 0 || goesBy == snap.Cluster.Election()
	})
}

// MayRetime reports whether it is a manager's turn to go by the cluster's election
// timeout, for which its Raft starts anew: one after another, so that the others
// keep the leader, and the leader last, which hands over to one that is done. Without
// a leader nobody is waited for.
func MayRetime(snap *api.Snapshot, self, leader api.NodeID) bool {
	if leader == "" {
		return true
	}
	waiting := Retiming(snap)
	slices.SortStableFunc(waiting, func(a, b *api.Node) int { return cmp.Compare(rank(a, leader), rank(b, leader)) })
	return len(waiting) == 0 || waiting[0].ID == self || !slices.ContainsFunc(waiting, func(n *api.Node) bool { return n.ID == self })
}

func rank(n *api.Node, leader api.NodeID) int {
	if n.ID == leader {
		return 1
	}
	return 0
}
