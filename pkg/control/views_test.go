package control

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/network"
)

// What nodes are told of the state is enough to plan the network of: the same
// as all of it.
func TestViewIsEnoughForTheNetwork(t *testing.T) {
	addr := netip.MustParseAddr
	snap := &api.Snapshot{
		Cluster: &api.Cluster{ID: "c", Pool: api.DefaultPool, Return: api.ReturnDSR},
		Nodes: map[api.NodeID]*api.Node{
			"a": {ID: "a", Addr: addr("192.0.2.1"), State: api.NodeReady, Labels: map[string]string{api.WeightLabel: "3"}},
			"b": {ID: "b", Addr: addr("192.0.2.2"), State: api.NodeReady},
		},
		Networks: map[api.NetworkID]*api.Network{"front": {ID: "front", Name: "front", Number: 2}},
		Services: map[api.ServiceID]*api.Service{"web": {
			ID: "web", VIP: addr("10.128.0.2"), Ports: []api.Port{{Published: 8080, Target: 80, Protocol: api.TCP}},
			Spec: api.ServiceSpec{Name: "web", Networks: []string{"front"}, Return: api.ReturnTunnel,
				Balance: api.Balance{Affinity: api.AffinityClient, Local: true}},
		}},
		Tasks: map[api.TaskID]*api.Task{},
	}
	for id, node := range map[api.TaskID]api.NodeID{"1": "a", "2": "b"} {
		snap.Tasks[id] = &api.Task{ID: id, ServiceID: "web", NodeID: node, Networks: []api.NetworkID{"front"}, Status: api.TaskStatus{State: api.TaskRunning},
			Endpoint: api.Endpoint{Addr: addr("10.128.1." + string(id)), State: api.EndpointReady}}
	}
	view := (&api.Snapshot{}).With(fullView("a", snap).Changes)
	want, got := network.Plan(snap, "a", nil, nil), network.Plan(view, "a", nil, nil)
	got.Generation = want.Generation
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Errorf("(-of the state +of the view):\n%s", diff)
	}
}
