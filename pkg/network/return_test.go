package network

import (
	"slices"
	"testing"

	"github.com/orch-dev/orch/pkg/api"
)

// A service's own return counts for more than the cluster's, and a virtual IP,
// whose clients are tasks, has none.
func TestReturn(t *testing.T) {
	snap := blog()
	for _, tt := range []struct {
		cluster, service api.Return
		dsr              bool
	}{
		{"", "", false},
		{"", api.ReturnDSR, true},
		{api.ReturnDSR, "", true},
		{api.ReturnDSR, api.ReturnTunnel, false},
		{api.ReturnTunnel, api.ReturnDSR, true},
	} {
		snap.Cluster.Return, snap.Services["web"].Spec.Return = tt.cluster, tt.service
		published := 0
		for _, f := range Plan(snap, "a", nil, nil).Frontends {
			if !f.Virtual() {
				published++
			}
			if want := tt.dsr && !f.Virtual(); f.DSR != want {
				t.Errorf("cluster %q, service %q: %+v, want DSR %v", tt.cluster, tt.service, f, want)
			}
		}
		if published != 3 {
			t.Errorf("%d published ports", published)
		}
		if got := DSR(snap); slices.Contains(got, "blog_Web") != tt.dsr {
			t.Errorf("cluster %q, service %q: DSR of %v", tt.cluster, tt.service, got)
		}
	}
	snap.Networks["back"].Encrypted = true
	if got := DSR(snap); len(got) != 0 {
		t.Errorf("DSR of %v, whose network is encrypted", got)
	}
}
