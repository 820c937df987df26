package manager

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/orch-dev/orch/pkg/api"
)

func TestEndRotation(t *testing.T) {
	now := time.Unix(1e9, 0)
	old, next := api.Authority{Certificate: []byte("old")}, api.Authority{Certificate: []byte("new")}
	node := func(id api.NodeID, state api.NodeState, issuer *api.Authority) *api.Node {
		return &api.Node{ID: id, State: state, Info: api.NodeInfo{Issuer: issuer.ID()}}
	}
	renewed, late, gone := node("a", api.NodeReady, &next), node("b", api.NodeReady, &old), node("c", api.NodeDown, &old)
	tests := []struct {
		name  string
		users []api.User
		nodes []*api.Node
		at    time.Duration
		ends  bool
	}{
		{"all have renewed", nil, []*api.Node{renewed}, 0, true},
		{"one has not", nil, []*api.Node{renewed, late}, 0, false},
		{"one that lives has not, and is late", nil, []*api.Node{renewed, late}, time.Hour, false},
		{"one is down", nil, []*api.Node{renewed, gone}, 0, false},
		{"one is down for too long", nil, []*api.Node{renewed, gone}, time.Hour, true},
		{"a user has not", []api.User{{Issuer: old.ID()}}, []*api.Node{renewed}, 0, false},
		{"a user has not for too long", []api.User{{Issuer: old.ID()}}, []*api.Node{renewed}, time.Hour, true},
		{"the users have", []api.User{{Issuer: next.ID()}}, []*api.Node{renewed}, 0, true},
	}
	for _, tt := range tests {
		cluster := &api.Cluster{ID: "x", Authority: old, Users: tt.users, Rotation: &api.Rotation{Next: next, Until: now.Add(time.Hour)}}
		snap := &api.Snapshot{Cluster: cluster, Nodes: map[api.NodeID]*api.Node{}}
		for _, n := range tt.nodes {
			snap.Nodes[n.ID] = n
		}
		var want []api.Change
		if tt.ends {
			want = []api.Change{{Cluster: &api.Cluster{ID: "x", Authority: next, Users: tt.users}}}
		}
		if diff := cmp.Diff(want, endRotation(snap, now.Add(tt.at)), cmpopts.EquateComparable(netip.Addr{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
	if got := endRotation(&api.Snapshot{Cluster: &api.Cluster{Authority: old}}, now); got != nil {
		t.Errorf("nothing is replaced: %v", got)
	}
}
