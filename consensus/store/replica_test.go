package store_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/orch-dev/orch/consensus/store"
	"github.com/orch-dev/orch/pkg/api"
)

func sameAddr(a, b netip.Addr) bool { return a == b }

// anyChange draws a change that is about an object of the store more often than
// not, and right more often than not.
func anyChange(t *rapid.T, snap *api.Snapshot) api.Change {
	id := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "id")
	c := rapid.SampledFrom([]func() api.Change{
		func() api.Change {
			return service(0, id, "name-"+rapid.SampledFrom([]string{"a", "b"}).Draw(t, "name"), rapid.SampledFrom([]string{"1", "2"}).Draw(t, "image"))
		},
		func() api.Change {
			return task(0, id, rapid.SampledFrom([]string{"", "10.128.0.1", "10.128.0.2"}).Draw(t, "addr"),
				rapid.SampledFrom([]api.EndpointState{api.EndpointPending, api.EndpointReady, api.EndpointGone}).Draw(t, "state"))
		},
		func() api.Change { return network(0, id, id, rapid.Uint32Range(0, 2).Draw(t, "number")) },
		func() api.Change {
			return api.Change{Node: &api.Node{ID: api.NodeID(id), Labels: map[string]string{"x": id}}}
		},
		func() api.Change {
			return file(0, id, rapid.SampledFrom([]string{"", "blog"}).Draw(t, "stack"))
		},
		func() api.Change { return api.Change{Cluster: &api.Cluster{ID: id}} },
	}).Draw(t, "kind")()
	var modified api.Index
	switch {
	case c.Service != nil:
		c.Service.Spec.Networks = rapid.SampledFrom([][]string{nil, {}, {"x"}}).Draw(t, "networks")
		c.Service.Spec.Task.Labels = rapid.SampledFrom([]map[string]string{nil, {}, {"x": "y"}}).Draw(t, "labels")
		if old := snap.Services[c.Service.ID]; old != nil {
			modified = old.Meta.Modified
		}
		c.Service.Meta.Modified = modified
	case c.Task != nil:
		if old := snap.Tasks[c.Task.ID]; old != nil {
			modified = old.Meta.Modified
		}
		c.Task.Meta.Modified = modified
	case c.Network != nil:
		if old := snap.Networks[c.Network.ID]; old != nil {
			modified = old.Meta.Modified
		}
		c.Network.Meta.Modified = modified
	case c.File != nil:
		if old := snap.Files[c.File.ID]; old != nil {
			modified = old.Meta.Modified
		}
		c.File.Meta.Modified = modified
	case c.Node != nil:
		if old := snap.Nodes[c.Node.ID]; old != nil {
			modified = old.Meta.Modified
		}
		c.Node.Meta.Modified = modified
	case c.Cluster != nil && snap.Cluster != nil:
		c.Cluster.Meta.Modified = snap.Cluster.Meta.Modified
	}
	c.Delete = rapid.IntRange(0, 3).Draw(t, "delete") == 0
	return c
}

// Replicas that apply the same entries hold the same, byte for byte, also those
// that were restored from a snapshot on the way, or that look at their state at
// other times; and give the same answers.
func TestReplicasAgree(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		leader, follower, restored := store.New(), store.New(), store.New()
		entries := rapid.IntRange(1, 30).Draw(rt, "entries")
		restoreAt := rapid.IntRange(0, entries).Draw(rt, "restore at")
		for i := range entries {
			index := api.Index(i*2 + 1) // Raft's own entries take indexes too
			if i == restoreAt {
				restored = store.New()
				if err := restored.Restore(bytes.NewReader(save(t, leader))); err != nil {
					rt.Fatal(err)
				}
			}
			snap := leader.Snapshot()
			var changes []api.Change
			for range rapid.IntRange(0, 3).Draw(rt, "changes") {
				changes = append(changes, anyChange(rt, snap))
			}
			data := encode(t, changes...)
			want := fmt.Sprint(leader.Apply(index, data))
			for name, s := range map[string]*store.Store{"follower": follower, "restored": restored} {
				if got := fmt.Sprint(s.Apply(index, data)); got != want {
					rt.Fatalf("entry %d: the %s answers %s, the leader %s", index, name, got, want)
				}
			}
		}
		want := save(t, leader)
		for name, s := range map[string]*store.Store{"follower": follower, "restored": restored} {
			if diff := cmp.Diff(string(want), string(save(t, s))); diff != "" {
				rt.Fatalf("the %s's state (-leader +%s):\n%s", name, name, diff)
			}
		}
		// A follower that never looked builds its snapshot now, in one go.
		if diff := cmp.Diff(leader.Snapshot(), follower.Snapshot(), cmp.Comparer(sameAddr), cmpopts.IgnoreUnexported(api.Snapshot{})); diff != "" {
			rt.Fatalf("the follower's snapshot (-leader +follower):\n%s", diff)
		}
	})
}

// A snapshot built by applying changes to the last one is the same as one built
// from the tables, and as what was restored.
func TestSnapshotAfterSaveAndRestore(t *testing.T) {
	s := store.New()
	for i := range api.Index(3000) { // more than are kept for the next snapshot
		apply(t, s, i+1, task(0, fmt.Sprintf("t%d", i), "", api.EndpointReady), service(0, fmt.Sprintf("s%d", i), fmt.Sprintf("s%d", i), "img"))
		if i == 10 {
			s.Snapshot()
		}
	}
	restored := store.New()
	if err := restored.Restore(bytes.NewReader(save(t, s))); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(s.Snapshot(), restored.Snapshot(), cmp.Comparer(sameAddr), cmpopts.IgnoreUnexported(api.Snapshot{})); diff != "" {
		t.Errorf("restored (-saved +restored):\n%s", diff)
	}
	if len(s.Snapshot().Tasks) != 3000 || s.Snapshot().Index != 3000 || restored.Index() != 3000 {
		t.Errorf("%d tasks at %d", len(s.Snapshot().Tasks), s.Snapshot().Index)
	}
}
