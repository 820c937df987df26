package manager

import "github.com/orch-dev/orch/pkg/api"

// PlanAlone plans what has to change for a node to be the cluster's only manager, in
// a group of that epoch: the managers of before are no members any more, nor is who
// had the node's address.
func PlanAlone(snap *api.Snapshot, self *api.Node, epoch uint64) []api.Change {
	cluster := *snap.Cluster
	cluster.Epoch = epoch
	changes := []api.Change{{Cluster: &cluster}}
	for _, n := range api.Sorted(snap.Nodes) {
		if n.ID != self.ID && (n.Role == api.RoleManager || n.SharesAddr(self)) {
			changes = append(changes, api.Change{Node: n, Delete: true})
		}
	}
	next := *self
	if now := snap.Nodes[self.ID]; now != nil {
		next.Meta, next.Labels, next.Availability, next.Key = now.Meta, now.Labels, now.Availability, now.Key
	}
	next.Role = api.RoleManager
	return append(changes, api.Change{Node: &next})
}
