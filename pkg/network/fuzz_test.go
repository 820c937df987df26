package network

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/tests/anything"
)

// FuzzPlan looks for states, as a manager of any version may send them, that make a
// node panic, that it plans for as another next time, or from which it takes a member
// that no data plane can express: that would leave it without a next plan.
func FuzzPlan(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{3, 0, 1, 2, 3, 1, 1, 4, 5, 1, 0, 9, 1, 1, 1, 6, 7})
	f.Add([]byte("a service, two tasks of it and a network, of these bytes, and more of them than are needed"))
	f.Fuzz(func(t *testing.T, data []byte) {
		words := []string{"n1", "n2", "web", "t1", "t2", "back", "10.128.0.1", "10.128.0.2", "192.0.2.1", "2001:db8::1", "::ffff:10.128.0.3", "10.128.0.0/10", "ready", "draining", "tcp", "udp", "vip", "dnsrr"}
		changes, err := anything.Of[[]api.Change](data, words...)
		if err != nil {
			t.Fatal(err)
		}
		view := new(api.Snapshot).With(*changes)
		suspects, links := map[api.NodeID]bool{"n1": true, "n2": true}, map[api.TaskID]int{"t1": 7}
		plan := Plan(view, "n1", suspects, links)
		for _, m := range plan.Members {
			if !m.Addr.Is4() {
				t.Errorf("member %+v", m)
			}
		}
		again := Plan(new(api.Snapshot).With(*changes), "n1", suspects, links)
		if diff := cmp.Diff(plan, again, byValue); diff != "" {
			t.Errorf("planned again it is another plan:\n%s", diff)
		}
		if diff := cmp.Diff(Names(view, "n1"), Names(view, "n1"), byValue); diff != "" {
			t.Errorf("the names are others each time:\n%s", diff)
		}
	})
}
