package network

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/orch-dev/orch/pkg/api"
)

// weights are those of the backends of web's virtual IP on a node, by address.
func weights(snap *api.Snapshot, node api.NodeID) map[string]uint16 {
	out := make(map[string]uint16)
	for _, f := range Plan(snap, node, nil, nil).Frontends {
		if f.Service == "blog_Web" && f.Virtual() {
			for _, b := range f.Backends {
				out[b.Addr.String()] = b.Weight
			}
		}
	}
	return out
}

func TestWeights(t *testing.T) {
	snap := blog()
	snap.Tasks = map[api.TaskID]*api.Task{
		"1": task("1", "web", "a", "10.128.1.1", api.EndpointReady, "front"),
		"2": task("2", "web", "b", "10.128.1.2", api.EndpointReady, "front"),
	}
	snap.Nodes["b"].Labels = map[string]string{api.WeightLabel: "3"}
	for _, tt := range []struct {
		what  string
		local bool
		state api.EndpointState // of the task on a
		want  map[string]uint16 // on a
	}{
		{"by the nodes' labels", false, api.EndpointReady, map[string]uint16{"10.128.1.1": 1, "10.128.1.2": 3}},
		{"local preferred", true, api.EndpointReady, map[string]uint16{"10.128.1.1": 1, "10.128.1.2": 0}},
		{"the local one leaves", true, api.EndpointDraining, map[string]uint16{"10.128.1.1": 1, "10.128.1.2": 3}},
	} {
		snap.Services["web"].Spec.Balance.Local = tt.local
		snap.Tasks["1"].Endpoint.State = tt.state
		if diff := cmp.Diff(tt.want, weights(snap, "a")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.what, diff)
		}
	}
	snap.Services["web"].Spec.Balance.Local = true
	if diff := cmp.Diff(map[string]uint16{"10.128.1.1": 1, "10.128.1.2": 3}, weights(snap, "c")); diff != "" {
		t.Errorf("a node without a task (-want +got):\n%s", diff)
	}
}

func TestWeightLabel(t *testing.T) {
	for label, want := range map[string]uint16{"": 1, "7": 7, "256": 256, "0": 1, "257": 1, "-1": 1, "many": 1} {
		n := &api.Node{Labels: map[string]string{api.WeightLabel: label}}
		if got := n.Weight(); got != want {
			t.Errorf("label %q: weight %d, want %d", label, got, want)
		}
	}
}
