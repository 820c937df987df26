package manager

import (
	"testing"
	"time"

	"github.com/orch-dev/orch/pkg/api"
)

// Each step of replacing the keys waits for all nodes that are up and can encrypt,
// and no node is sent anything by a key that it does not have, or has no more.
func TestTunnelKeysAreReplaced(t *testing.T) {
	snap := cluster(map[api.NodeID]api.NodeState{"a": api.NodeReady, "b": api.NodeReady, "cannot": api.NodeReady, "down": api.NodeDown})
	snap.Nodes["cannot"].Info.Encryption = &api.Encryption{Lacks: "its kernel has no WireGuard"}
	snap.Networks = map[api.NetworkID]*api.Network{"n": {ID: "n"}}
	applied := make(map[api.NodeID]*api.Snapshot)
	for _, id := range []api.NodeID{"a", "b", "down"} {
		snap.Nodes[id].Info.Encryption = &api.Encryption{}
	}
	index := api.Index(10)
	commit := func(changes []api.Change) {
		index++
		for _, c := range changes {
			if c.Cluster != nil {
				c.Cluster.Meta.Modified = index
			}
			if c.Node != nil {
				c.Node.Meta.Modified = index
			}
		}
		snap = snap.With(changes)
		snap.Index = index
	}
	// take has a node apply the state, and tell the keys that it then has.
	take := func(id api.NodeID) {
		applied[id] = snap
		next := *snap.Nodes[id]
		var keys []api.TunnelKey
		for _, epoch := range snap.Cluster.Tunnels().Epochs {
			keys = append(keys, api.TunnelKey{Epoch: epoch, Public: make([]byte, api.TunnelKeyBytes)})
		}
		next.Info.Encryption = &api.Encryption{Keys: keys}
		commit([]api.Change{{Node: &next}})
		for _, from := range applied {
			for _, to := range applied {
				send := from.Cluster.Tunnels().Send
				has := false
				for _, epoch := range to.Cluster.Tunnels().Epochs {
					has = has || epoch == send
				}
				if !has {
					t.Fatalf("a node sends by epoch %d to one that has %v", send, to.Cluster.Tunnels().Epochs)
				}
			}
		}
	}
	acked := func() api.Index {
		least := index
		for _, s := range applied {
			least = min(least, s.Index)
		}
		return least
	}
	plan := func(d time.Duration) bool {
		changes := planTunnelKeys(snap, acked(), at(d))
		if len(changes) > 0 {
			commit(changes)
		}
		return len(changes) > 0
	}
	see := func(ids ...api.NodeID) {
		for _, id := range ids {
			applied[id] = snap
		}
	}
	if plan(0) {
		t.Fatal("keys are planned though nothing is encrypted")
	}
	snap.Networks["n"].Encrypted = true
	if !plan(0) || snap.Cluster.TunnelSince.IsZero() || snap.Cluster.TunnelStep != "" {
		t.Fatalf("at first: %+v", snap.Cluster)
	}
	take("a")
	take("b")
	see("a", "b")
	if plan(api.TunnelKeyLife - time.Second) {
		t.Error("they were replaced early")
	}
	life := api.TunnelKeyLife
	if !plan(life) || snap.Cluster.TunnelStep != api.TunnelMakes {
		t.Fatalf("when they are due: %+v", snap.Cluster)
	}
	take("a")
	see("a")
	if plan(life) {
		t.Fatal("it goes on, and one has not made its key")
	}
	take("b")
	if plan(life) {
		t.Fatal("it goes on, and one does not know the other's key")
	}
	see("a", "b")
	if !plan(life) || snap.Cluster.TunnelStep != api.TunnelUses || snap.Cluster.TunnelEpoch != 1 {
		t.Fatalf("when all have their keys: %+v", snap.Cluster)
	}
	take("a")
	see("a")
	if plan(life) {
		t.Fatal("it goes on, and one still sends by the old key")
	}
	take("b")
	see("a", "b")
	if !plan(life) || snap.Cluster.TunnelStep != "" || snap.Cluster.TunnelEpoch != 1 {
		t.Fatalf("at the end: %+v", snap.Cluster)
	}
	take("a")
	take("b")
	see("a", "b")
	if plan(life + time.Hour) {
		t.Error("it begins anew at once")
	}
}
