package network

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/orch-dev/orch/pkg/api"
)

// A network that is encrypted makes its tasks so, and all nodes know the keys.
func TestPlanEncrypts(t *testing.T) {
	snap := blog()
	key := func(n byte) []byte { return append([]byte{n}, make([]byte, api.TunnelKeyBytes-1)...) }
	keys := []api.TunnelKey{{Epoch: 3, Public: key(3)}, {Epoch: 4, Public: key(4)}, {Epoch: 5, Public: key(5)}}
	snap.Nodes["b"].Info.Encryption = &api.Encryption{Keys: keys}
	snap.Cluster.TunnelEpoch, snap.Cluster.TunnelStep = 4, api.TunnelUses
	if plan := Plan(snap, "a", nil, nil); plan.Tunnels.Epochs != nil || plan.Members[1].Keys != nil || plan.Endpoints[0].Encrypted {
		t.Errorf("nothing asks for it: %+v, %+v", plan.Tunnels, plan.Members)
	}
	snap.Networks["front"].Encrypted = true
	plan := Plan(snap, "a", nil, nil)
	if diff := cmp.Diff(api.TunnelPlan{Epochs: []uint64{3, 4}, Send: 4}, plan.Tunnels); diff != "" {
		t.Errorf("tunnels (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(keys[:2], plan.Members[1].Keys); diff != "" {
		t.Errorf("keys of b (-want +got):\n%s", diff)
	}
	for _, e := range plan.Endpoints {
		if want := e.Addr != ip("10.128.0.20"); e.Encrypted != want {
			t.Errorf("%s: encrypted %t, want %t", e.Addr, e.Encrypted, want)
		}
	}
}
