package control

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/tests/anything"
)

// FuzzAdmit looks for what a node that joins may say of itself that brings a manager
// or a node down, or that makes it another node, or more than a new one is.
func FuzzAdmit(f *testing.F) {
	f.Add([]byte{}, false)
	f.Add([]byte("a node of these bytes, with an address and much to say about itself"), true)
	f.Add(bytes.Repeat([]byte{1, 47, 0, 2, 201, 9, 44}, 30), false)
	f.Fuzz(func(t *testing.T, data []byte, again bool) {
		joining := *must(anything.Of[api.Node](data, append(words, "192.0.2.7", "192.0.2.1", "127.0.0.1")...))
		joining.ID = api.NodeID(strings.Repeat("a", api.IDLength))
		if joining.Hostname == "" {
			joining.Hostname = "new"
		}
		if !joining.Addr.IsValid() {
			joining.Addr = netip.MustParseAddr("192.0.2.9")
		}
		joining.APIPort, joining.GossipPort = max(joining.APIPort, 1), max(joining.GossipPort, 1)
		if joining.Validate() != nil {
			return
		}
		m := fuzzMachine(t)
		for range 2 {
			before := m.Snapshot()
			changes, err := planAdmit(before, joining, api.RoleWorker)
			if err != nil {
				return
			}
			m.commit("the node", changes)
			after := m.Snapshot()
			node := after.Nodes[joining.ID]
			if len(changes) != 1 || node == nil || node.Role != api.RoleWorker || node.State != api.NodeDown || node.Availability != api.AvailabilityActive || len(node.Labels) > 0 {
				t.Fatalf("admitted as %+v by %+v", node, changes)
			}
			for _, other := range before.Nodes {
				if other.ID == joining.ID {
					continue
				}
				if diff := cmp.Diff(other, after.Nodes[other.ID], cmpopts.EquateComparable(netip.Addr{})); diff != "" || other.SharesAddr(node) {
					t.Fatalf("beside %+v node %s is another, at %s:\n%s", node, other.ID, other.Addr, diff)
				}
			}
			newID := ids()
			m.plan(t0, newID)
			m.readBack()
			if !again {
				break
			}
		}
		joining.Key = append(joining.Key, 1)
		if _, err := planAdmit(m.Snapshot(), joining, api.RoleWorker); err == nil {
			t.Fatal("somebody with another key is admitted as the same node")
		}
	})
}
