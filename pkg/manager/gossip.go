package manager

import (
	"io"
	"slices"
	"time"

	"github.com/orch-dev/orch/pkg/api"
)

// Rekeying are the nodes that are up and have not said that they go by the
// cluster's gossip keys, in the order of their IDs. One that is down takes them
// from a manager when it comes back, before it needs them.
func Rekeying(snap *api.Snapshot) []*api.Node {
	ring := api.GossipRingID(snap.Cluster.GossipRing())
	return slices.DeleteFunc(api.Sorted(snap.Nodes), func(n *api.Node) bool {
		return n.State != api.NodeReady || n.Info.GossipRing == ring
	})
}

// BeginGossipKey plans that a key replaces the gossip key: first all are to
// understand it.
func BeginGossipKey(snap *api.Snapshot, key []byte) []api.Change {
	next := *snap.Cluster
	next.NextGossipKey = key
	return []api.Change{{Cluster: &next}}
}

// planGossipKey plans the next step of replacing the gossip key, once all nodes
// have taken the one before, and begins when the key has been used for long enough.
func planGossipKey(snap *api.Snapshot, now time.Time, rand io.Reader) []api.Change {
	step := snap.Cluster.GossipStep()
	if step == "" {
		if len(snap.Cluster.GossipKey) == 0 || now.Before(snap.Cluster.GossipKeySince.Add(snap.Cluster.GossipLife())) {
			return nil
		}
		return BeginGossipKey(snap, api.NewGossipKey(rand))
	}
	if len(Rekeying(snap)) > 0 {
		return nil
	}
	next := *snap.Cluster
	if step == api.GossipUses {
		next.OldGossipKey = nil
	} else {
		next.GossipKey, next.OldGossipKey, next.NextGossipKey, next.GossipKeySince = next.NextGossipKey, next.GossipKey, nil, now
	}
	return []api.Change{{Cluster: &next}}
}
