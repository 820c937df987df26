package manager

import (
	"bytes"
	"crypto/rand"
	"testing"
	"time"

	"github.com/orch-dev/orch/pkg/api"
)

// Each step of replacing the gossip key waits for all nodes that are up, and at
// each of them any two nodes understand each other.
func TestGossipKeyIsReplaced(t *testing.T) {
	snap := cluster(map[api.NodeID]api.NodeState{"a": api.NodeReady, "b": api.NodeReady, "down": api.NodeDown})
	first := api.NewGossipKey(rand.Reader)
	snap.Cluster.GossipKey, snap.Cluster.GossipKeySince = first, at(0)
	rings := make(map[api.NodeID][][]byte)
	take := func(id api.NodeID) {
		rings[id] = snap.Cluster.GossipRing()
		snap.Nodes[id].Info.GossipRing = api.GossipRingID(rings[id])
		for _, from := range rings {
			for _, to := range rings {
				if !contains(to, from[0]) {
					t.Fatalf("a node does not understand another: %x, %x", from, to)
				}
			}
		}
	}
	plan := func(d time.Duration) bool {
		changes := planGossipKey(snap, at(d), rand.Reader)
		snap = snap.With(changes)
		return len(changes) > 0
	}
	take("a")
	take("b")
	life := snap.Cluster.GossipLife()
	if plan(life - time.Second) {
		t.Error("it was replaced early")
	}
	steps := []api.GossipStep{api.GossipTakes, api.GossipUses, ""}
	for _, want := range steps {
		if !plan(life) || snap.Cluster.GossipStep() != want {
			t.Fatalf("the step is %q, want %q", snap.Cluster.GossipStep(), want)
		}
		take("a")
		if want != "" && plan(life) {
			t.Fatalf("%q: one has not taken it, and it goes on", want)
		}
		take("b")
	}
	if plan(life) {
		t.Error("it was replaced twice")
	}
	if got := snap.Cluster; bytes.Equal(got.GossipKey, first) || len(got.GossipRing()) != 1 || !got.GossipKeySince.Equal(at(life)) {
		t.Errorf("in the end there are %d keys, the first the old one: %v, since %v", len(got.GossipRing()), bytes.Equal(got.GossipKey, first), got.GossipKeySince)
	}
}

func contains(ring [][]byte, key []byte) bool {
	for _, k := range ring {
		if bytes.Equal(k, key) {
			return true
		}
	}
	return false
}
