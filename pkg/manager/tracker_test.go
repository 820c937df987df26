package manager

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/orch-dev/orch/pkg/api"
)

var t0 = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

var comparable = cmpopts.EquateComparable(netip.Addr{})

func at(d time.Duration) time.Time { return t0.Add(d) }

// cluster is a state with nodes of the given states, at index 10.
func cluster(nodes map[api.NodeID]api.NodeState) *api.Snapshot {
	snap := &api.Snapshot{Index: 10, Cluster: &api.Cluster{LeaseTimeout: 4 * time.Second}, Nodes: make(map[api.NodeID]*api.Node)}
	for id, state := range nodes {
		snap.Nodes[id] = &api.Node{ID: id, State: state}
	}
	return snap
}

func TestAcked(t *testing.T) {
	ready := map[api.NodeID]api.NodeState{"a": api.NodeReady, "b": api.NodeReady}
	tests := []struct {
		name   string
		nodes  map[api.NodeID]api.NodeState
		report func(*Tracker)
		now    time.Duration
		want   api.Index
	}{
		{"the lowest counts", ready, func(tr *Tracker) {
			tr.Reported("a", 10, 10, at(0))
			tr.Reported("b", 7, 10, at(0))
		}, time.Second, 7},
		{"a node that has not reported holds all back", ready, func(tr *Tracker) {
			tr.Reported("a", 10, 10, at(0))
		}, time.Second, 0},
		{"a silent node is not waited for", ready, func(tr *Tracker) {
			tr.Reported("b", 7, 10, at(0))
			tr.Reported("a", 10, 10, at(2500*time.Millisecond))
		}, 2600 * time.Millisecond, 10},
		{"a node that reports but is stuck is waited for, not for ever", ready, func(tr *Tracker) {
			for i := range 12 {
				tr.Reported("a", 10, 10, at(time.Duration(i)*500*time.Millisecond))
				tr.Reported("b", 7, 10, at(time.Duration(i)*500*time.Millisecond))
			}
		}, 5600 * time.Millisecond, 10},
		{"a node whose gossip alone is heard is waited for", ready, func(tr *Tracker) {
			tr.Reported("b", 7, 10, at(0))
			tr.Reported("a", 10, 10, at(2500*time.Millisecond))
			tr.Gossiped(map[api.NodeID]bool{"b": true}, at(2500*time.Millisecond))
		}, 2600 * time.Millisecond, 7},
		{"a node that comes back is waited for anew", ready, func(tr *Tracker) {
			tr.Reported("b", 7, 10, at(0))
			tr.Reported("a", 10, 10, at(time.Minute))
			tr.Reported("b", 7, 10, at(time.Minute))
		}, 61 * time.Second, 7},
		{"a manager that does not lead does not know", ready, func(tr *Tracker) {
			tr.Reported("a", 10, 10, at(0))
			tr.Reported("b", 10, 10, at(0))
			tr.Resign()
		}, time.Second, 0},
		{"a node that is down does not count", map[api.NodeID]api.NodeState{"a": api.NodeReady, "b": api.NodeDown}, func(tr *Tracker) {
			tr.Reported("a", 9, 10, at(0))
		}, time.Second, 9},
		{"an idle node is not stuck", ready, func(tr *Tracker) {
			for i := range 20 {
				tr.Reported("a", 9, 9, at(time.Duration(i)*time.Second))
				tr.Reported("b", 10, 10, at(time.Duration(i)*time.Second))
			}
		}, 19500 * time.Millisecond, 9},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tr := NewTracker()
			snap := cluster(tt.nodes)
			tr.Lead(1, snap.Nodes, at(0))
			tt.report(tr)
			if got := tr.Acked(snap, at(tt.now)); got != tt.want {
				t.Errorf("acked %d, want %d", got, tt.want)
			}
		})
	}
}

func TestLeases(t *testing.T) {
	tests := []struct {
		name   string
		before api.NodeState
		report func(*Tracker)
		now    time.Duration
		want   api.NodeState // "": no change
	}{
		{"within the lease", api.NodeReady, func(tr *Tracker) { tr.Reported("a", 5, 10, at(time.Second)) }, 5 * time.Second, ""},
		{"silent for longer", api.NodeReady, func(tr *Tracker) { tr.Reported("a", 5, 10, at(time.Second)) }, 5*time.Second + time.Millisecond, api.NodeDown},
		{"a report brings it back", api.NodeDown, func(tr *Tracker) { tr.Reported("a", 5, 10, at(time.Minute)) }, time.Minute, api.NodeReady},
		{"gossip alone does not", api.NodeDown, func(tr *Tracker) { tr.Gossiped(map[api.NodeID]bool{"a": true}, at(time.Minute)) }, time.Minute, ""},
		{"gossip of the living extends nothing", api.NodeReady, func(tr *Tracker) { tr.Gossiped(map[api.NodeID]bool{"a": true}, at(time.Minute)) }, time.Minute, api.NodeDown},
		{"gossip brings back no node that has reported", api.NodeDown, func(tr *Tracker) {
			tr.Reported("a", 5, 10, at(0))
			tr.Gossiped(map[api.NodeID]bool{"a": true}, at(time.Minute))
		}, time.Minute, ""},
		{"gossip of the dead extends nothing", api.NodeReady, func(tr *Tracker) { tr.Gossiped(map[api.NodeID]bool{"a": false}, at(time.Minute)) }, time.Minute, api.NodeDown},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tr := NewTracker()
			snap := cluster(map[api.NodeID]api.NodeState{"a": tt.before})
			tr.Lead(1, snap.Nodes, at(0))
			tt.report(tr)
			var want []api.Change
			if tt.want != "" {
				want = []api.Change{{Node: &api.Node{ID: "a", State: tt.want, Rebalance: tt.want == api.NodeReady}}}
			}
			if diff := cmp.Diff(want, tr.Leases(snap, at(tt.now)), comparable); diff != "" {
				t.Errorf("changes (-want +got):\n%s", diff)
			}
		})
	}
}

// A lost leader was last heard of by Raft, however long gossip held it for alive.
func TestLeaseOfLostLeader(t *testing.T) {
	tr := NewTracker()
	snap := cluster(map[api.NodeID]api.NodeState{"dead": api.NodeReady, "other": api.NodeReady})
	tr.Gossiped(map[api.NodeID]bool{"dead": true, "other": true}, at(800*time.Millisecond))
	tr.LeaderHeard("dead", at(100*time.Millisecond))
	tr.LeaderHeard("nobody", at(0))
	tr.Lead(1, snap.Nodes, at(900*time.Millisecond))
	tr.Gossiped(map[api.NodeID]bool{"dead": true, "other": true}, at(time.Second))
	want := []api.Change{{Node: &api.Node{ID: "dead", State: api.NodeDown}}}
	if diff := cmp.Diff(want, tr.Leases(snap, at(4101*time.Millisecond)), comparable); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
}

// A manager that becomes the leader knows from gossip since when a node has been
// silent, and does not give it another whole lease.
func TestLeaseOverChangeOfLeader(t *testing.T) {
	tr := NewTracker()
	snap := cluster(map[api.NodeID]api.NodeState{"dead": api.NodeReady, "unknown": api.NodeReady})
	tr.Gossiped(map[api.NodeID]bool{"dead": true}, at(0))
	tr.Lead(1, snap.Nodes, at(3*time.Second))
	want := []api.Change{{Node: &api.Node{ID: "dead", State: api.NodeDown}}}
	if diff := cmp.Diff(want, tr.Leases(snap, at(4500*time.Millisecond)), comparable); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
	if got, want := tr.NextExpiry(snap, at(4500*time.Millisecond)), at(4*time.Second+time.Millisecond); !got.Equal(want) {
		t.Errorf("next expiry %v, want %v", got.Sub(t0), want.Sub(t0))
	}
}

// Nodes that a process has never heard of may not know where it is: they get longer,
// also when gossip has reached them, until they report. Then the lease is as for all.
func TestLeaseOfTheUnheard(t *testing.T) {
	tr := NewTracker()
	snap := cluster(map[api.NodeID]api.NodeState{"finds it": api.NodeReady, "does not": api.NodeReady})
	tr.Lead(1, snap.Nodes, at(0))
	tr.Gossiped(map[api.NodeID]bool{"finds it": true, "does not": true}, at(time.Second))
	if changes := tr.Leases(snap, at(unheardLease)); changes != nil {
		t.Errorf("within %v: %v", unheardLease, changes)
	}
	tr.Reported("finds it", 5, 10, at(10*time.Second))
	if got, want := tr.NextExpiry(snap, at(13*time.Second)), at(14*time.Second+time.Millisecond); !got.Equal(want) {
		t.Errorf("next expiry %v, want %v", got.Sub(t0), want.Sub(t0))
	}
	down := func(id api.NodeID) api.Change { return api.Change{Node: &api.Node{ID: id, State: api.NodeDown}} }
	for after, want := range map[time.Duration][]api.Change{
		14*time.Second + time.Millisecond: {down("finds it")},
		unheardLease + time.Millisecond:   {down("does not"), down("finds it")},
	} {
		if diff := cmp.Diff(want, tr.Leases(snap, at(after)), comparable); diff != "" {
			t.Errorf("after %v (-want +got):\n%s", after, diff)
		}
	}
}

// A manager that goes on alone forgets who came by before: they may be on their way
// round the managers that are lost.
func TestLeaseAfterForget(t *testing.T) {
	tr := NewTracker()
	snap := cluster(map[api.NodeID]api.NodeState{"a": api.NodeReady})
	tr.Reported("a", 5, 10, at(0))
	tr.Forget()
	tr.Reported("a", 5, 10, at(2*time.Second)) // and was told that there is no leader
	tr.Lead(1, snap.Nodes, at(3*time.Second))
	if changes := tr.Leases(snap, at(3*time.Second+unheardLease)); changes != nil {
		t.Errorf("within %v: %v", unheardLease, changes)
	}
	if changes := tr.Leases(snap, at(3*time.Second+unheardLease+time.Millisecond)); len(changes) != 1 {
		t.Errorf("after it: %v", changes)
	}
}

// Time alone ends the wait for a node, so the leader looks again then.
func TestNextExpiry(t *testing.T) {
	tests := []struct {
		name   string
		report func(*Tracker)
		now    time.Duration // after t0, as is want
		want   time.Duration
	}{
		{"a lease", func(tr *Tracker) { tr.Reported("a", 10, 10, at(time.Second)) }, 2 * time.Second, 5 * time.Second},
		{"a node that is behind and falls silent", func(tr *Tracker) { tr.Reported("a", 9, 10, at(time.Second)) }, 2 * time.Second, 3 * time.Second},
		{"a node that is stuck", func(tr *Tracker) {
			for i := range 5 {
				tr.Reported("a", 9, 10, at(time.Duration(i)*time.Second))
			}
		}, 4 * time.Second, 5 * time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tr := NewTracker()
			snap := cluster(map[api.NodeID]api.NodeState{"a": api.NodeReady})
			tr.Lead(1, snap.Nodes, at(0))
			tt.report(tr)
			if got, want := tr.NextExpiry(snap, at(tt.now)), at(tt.want+time.Millisecond); !got.Equal(want) {
				t.Errorf("%v, want %v", got.Sub(t0), want.Sub(t0))
			}
		})
	}
}

func TestReportsWakeTheLeader(t *testing.T) {
	tr := NewTracker()
	woken := func(report func()) bool {
		changed := tr.Changed()
		report()
		select {
		case <-changed:
			return true
		default:
			return false
		}
	}
	if !woken(func() { tr.Reported("a", 1, 2, at(0)) }) {
		t.Error("a first report is news")
	}
	if woken(func() { tr.Reported("a", 1, 2, at(time.Second)) }) {
		t.Error("a heartbeat is no news")
	}
	if !woken(func() { tr.Reported("a", 2, 2, at(2*time.Second)) }) {
		t.Error("an acknowledgement is news")
	}
	if !woken(func() { tr.Reported("a", 2, 2, at(time.Minute)) }) {
		t.Error("a node that is back is news")
	}
}

// When a lost node counts as fenced, whoever led while it was heard last.
func TestFenced(t *testing.T) {
	const wait = 15 * time.Second
	tests := []struct {
		name   string
		report func(*Tracker)
		fenced time.Duration // after t0; 0: never
	}{
		{"from the last report", func(tr *Tracker) { tr.Lead(1, nil, at(0)); tr.Reported("a", 1, 1, at(3*time.Second)) }, 3*time.Second + wait},
		{"gossip is no report", func(tr *Tracker) {
			tr.Lead(1, nil, at(0))
			tr.Reported("a", 1, 1, at(3*time.Second))
			tr.Gossiped(map[api.NodeID]bool{"a": true}, at(4*time.Second))
		}, 3*time.Second + wait},
		{"another leader may have heard it until this one began", func(tr *Tracker) {
			tr.Gossiped(map[api.NodeID]bool{"a": true}, at(0))
			tr.Lead(1, nil, at(20*time.Second))
		}, 20*time.Second + wait},
		{"what came in an earlier term is older than this one's begin", func(tr *Tracker) {
			tr.Lead(1, nil, at(0))
			tr.Reported("a", 1, 1, at(time.Second))
			tr.Resign()
			tr.Lead(1, nil, at(9*time.Second))
		}, 9*time.Second + wait},
		{"only a leader knows", func(tr *Tracker) {
			tr.Lead(1, nil, at(0))
			tr.Reported("a", 1, 1, at(time.Second))
			tr.Resign()
		}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tr := NewTracker()
			tt.report(tr)
			if tr.Fenced("a", wait, at(tt.fenced)) {
				t.Error("too early")
			}
			if got := tr.Fenced("a", wait, at(tt.fenced+time.Hour)); got != (tt.fenced > 0) {
				t.Errorf("an hour later: %v", got)
			}
			if tt.fenced > 0 && !tr.Fenced("a", wait, at(tt.fenced+time.Millisecond)) {
				t.Error("too late")
			}
		})
	}
}
