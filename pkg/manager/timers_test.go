package manager

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/orch-dev/orch/pkg/api"
)

// The managers take another timeout one by one, the leader last, and nobody waits
// for those that cannot.
func TestMayRetime(t *testing.T) {
	const want = 500 * time.Millisecond
	snap := &api.Snapshot{Cluster: &api.Cluster{ElectionTimeout: want}, Nodes: map[api.NodeID]*api.Node{}}
	add := func(id api.NodeID, role api.Role, state api.NodeState, goesBy time.Duration) {
		snap.Nodes[id] = &api.Node{ID: id, Role: role, State: state, Info: api.NodeInfo{ElectionTimeout: goesBy}}
	}
	before := api.DefaultElectionTimeout
	add("a", api.RoleManager, api.NodeReady, before)
	add("b", api.RoleManager, api.NodeDown, before)
	add("c", api.RoleManager, api.NodeReady, before)
	add("d", api.RoleManager, api.NodeReady, before)
	add("old", api.RoleManager, api.NodeReady, 0) // does not know of it
	add("worker", api.RoleWorker, api.NodeReady, 0)

	var order []api.NodeID
	for range 3 {
		var may []api.NodeID
		for _, n := range Retiming(snap) {
			if MayRetime(snap, n.ID, "a") {
				may = append(may, n.ID)
			}
		}
		if len(may) != 1 {
			t.Fatalf("%v may at once", may)
		}
		order = append(order, may[0])
		snap.Nodes[may[0]].Info.ElectionTimeout = want
	}
	if diff := cmp.Diff([]api.NodeID{"c", "d", "a"}, order); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
	if left := Retiming(snap); len(left) != 0 {
		t.Errorf("%d are left", len(left))
	}
	snap.Nodes["c"].Info.ElectionTimeout = before
	if !MayRetime(snap, "b", "a") {
		t.Error("a manager that has come back waits for others")
	}
	if !MayRetime(snap, "d", "") {
		t.Error("without a leader, others are waited for")
	}
}

// What was given by a longer lease is waited for: by the leader that shortened it,
// and by the next, who begins anew.
func TestEndLongLease(t *testing.T) {
	snap := cluster(nil)
	tr := NewTracker()
	tr.Lead(1, snap.Nodes, at(0))
	if got := tr.EndLongLease(snap, at(0)); got != nil {
		t.Errorf("no lease was longer: %v", got)
	}
	snap.Cluster.LeaseTimeout, snap.Cluster.LongLease = 4*time.Second, time.Minute
	long := snap.Cluster.FenceWait()
	if long < 3*time.Minute {
		t.Fatalf("%v is waited for", long)
	}
	ends := func(d time.Duration, want bool) {
		t.Helper()
		got := tr.EndLongLease(snap, at(d))
		if (len(got) == 1 && got[0].Cluster.LongLease == 0) != want {
			t.Errorf("after %v: %v, want an end: %v", d, got, want)
		}
	}
	ends(long-time.Second, false)
	ends(long, true)
	tr.Resign()
	ends(2*long, false)
	tr.Lead(1, snap.Nodes, at(2*long))
	ends(3*long-time.Second, false)
	ends(3*long, true)

	snap.Cluster.LeaseTimeout = 2 * time.Second // shortened again
	ends(3*long+time.Second, false)
	ends(4*long+2*time.Second, true)
}
