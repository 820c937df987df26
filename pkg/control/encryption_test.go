package control

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/orch-dev/orch/pkg/api"
)

// A service on an encrypted network is refused while a node that has to do with it
// cannot encrypt, and nothing of the stack is made.
func TestDeployEncrypted(t *testing.T) {
	snap := state()
	snap.Nodes = map[api.NodeID]*api.Node{
		"a": {ID: "a", Hostname: "n1", State: api.NodeReady, Info: api.NodeInfo{Encryption: &api.Encryption{}}},
		"b": {ID: "b", Hostname: "n2", State: api.NodeReady, Info: api.NodeInfo{Encryption: &api.Encryption{Lacks: "no WireGuard in there"}}},
		"c": {ID: "c", Hostname: "n3", State: api.NodeReady}, // has not said
	}
	snap.Networks["old"] = &api.Network{ID: "old", Name: "secret", Encrypted: true}
	back := []api.NetworkSpec{{Name: "blog_back", Encrypted: true}}
	service := func(change func(*api.ServiceSpec)) api.ServiceSpec {
		s := spec("blog_db")
		s.Networks = []string{"blog_back"}
		if change != nil {
			change(&s)
		}
		return s
	}
	onlyOnA := func(s *api.ServiceSpec) {
		s.Placement.Constraints = []api.Constraint{{Key: "node.hostname", Op: "==", Value: "n1"}}
	}
	for _, test := range []struct {
		name     string
		service  api.ServiceSpec
		networks []api.NetworkSpec
		want     []string // none: it is taken
	}{
		{"anywhere", service(nil), back, []string{"blog_db", "blog_back", "n2 (no WireGuard in there)", "n3 (", "constraints"}},
		{"where it can be", service(onlyOnA), back, nil},
		{"where it can be, with a port that all forward", service(func(s *api.ServiceSpec) {
			onlyOnA(s)
			s.Ports = []api.Port{{Published: 90, Target: 90, Protocol: api.TCP}}
		}), back, []string{"n2 (", "n3 (", "forward its clients"}},
		{"where it can be, with a port of the node", service(func(s *api.ServiceSpec) {
			onlyOnA(s)
			s.Ports = []api.Port{{Published: 90, Target: 90, Protocol: api.TCP, Host: true}}
		}), back, nil},
		{"on a network that is there", service(func(s *api.ServiceSpec) { s.Networks = []string{"secret"} }),
			[]api.NetworkSpec{{Name: "secret", External: true}}, []string{"secret", "n2 ("}},
		{"not encrypted", service(nil), []api.NetworkSpec{{Name: "blog_back"}}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			ids := 0
			newID := func() string { ids++; return fmt.Sprint("id", ids) }
			req := &api.DeployRequest{Stack: "blog", Services: []api.ServiceSpec{test.service}, Networks: test.networks}
			changes, _, err := planDeploy(snap, req, newID, time.Unix(0, 0))
			if test.want == nil {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || len(changes) > 0 {
				t.Fatalf("%d changes, %v", len(changes), err)
			}
			for _, word := range test.want {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("the error does not say %q: %v", word, err)
				}
			}
			if strings.Contains(err.Error(), "n1 (") {
				t.Errorf("it blames a node that can encrypt: %v", err)
			}
		})
	}
}

// A node is believed about its own key alone, of which the managers keep no more
// than two.
func TestReportOfKeys(t *testing.T) {
	key := func(epoch uint64, n byte) api.TunnelKey {
		return api.TunnelKey{Epoch: epoch, Public: append([]byte{n}, make([]byte, api.TunnelKeyBytes-1)...)}
	}
	snap := state()
	snap.Nodes = map[api.NodeID]*api.Node{
		"a": {ID: "a", Info: api.NodeInfo{Encryption: &api.Encryption{Keys: []api.TunnelKey{key(1, 7)}}}},
		"b": {ID: "b"},
	}
	report := func(keys ...api.TunnelKey) []api.TunnelKey {
		changes := planReport(snap, &api.Report{Node: "b", Info: &api.NodeInfo{Encryption: &api.Encryption{Keys: keys}}}, time.Unix(0, 0))
		return changes[0].Node.Info.Encryption.Keys
	}
	if got := report(key(1, 7), key(2, 8)); len(got) != 1 || got[0].Epoch != 2 {
		t.Errorf("with another node's key: %v", got)
	}
	if got := report(key(1, 1), key(2, 2), key(3, 3)); len(got) != 2 {
		t.Errorf("with too many keys: %v", got)
	}
	if got := report(api.TunnelKey{Epoch: 1, Public: []byte("short")}); len(got) != 0 {
		t.Errorf("with what is no key: %v", got)
	}
}
