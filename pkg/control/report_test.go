package control

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/manager"
	"github.com/orch-dev/orch/pkg/rpc"
)

// A node that has another address says so with what it is.
func TestReportedAddress(t *testing.T) {
	old := netip.MustParseAddrPort("192.0.2.1:2377")
	snap := &api.Snapshot{Nodes: map[api.NodeID]*api.Node{
		"a": {ID: "a", Addr: old.Addr(), APIPort: old.Port()},
		"b": {ID: "b", Addr: netip.MustParseAddr("192.0.2.2"), APIPort: 2377},
	}}
	report := func(addr string) *api.Report {
		r := &api.Report{Node: "a", Info: &api.NodeInfo{}}
		if addr != "" {
			r.Addr = netip.MustParseAddrPort(addr)
		}
		return r
	}
	for addr, changes := range map[string]int{"": 0, old.String(): 0, "192.0.2.7:2377": 1, "192.0.2.1:2378": 1} {
		got := planReport(snap, report(addr), time.Time{})
		if len(got) != changes {
			t.Errorf("%q: %+v", addr, got)
		}
		if changes == 1 && got[0].Node.APIAddr() != addr {
			t.Errorf("%q: the node is at %s", addr, got[0].Node.APIAddr())
		}
	}
}

// An address that no network can be planned with, or that is another node's, is
// refused, and nothing of the report is noted: the plan is the same for all nodes.
func TestReportedAddressRefused(t *testing.T) {
	s := newSite(t)
	worker, other := s.member(t, api.RoleWorker), s.member(t, api.RoleWorker)
	s.Tracker = manager.NewTracker()
	s.Tracker.Lead(s.Replica.Raft.Term(), nil, time.Now())
	of := func(addr netip.Addr, port uint16) string { return netip.AddrPortFrom(addr, port).String() }
	before := s.Replica.Node(worker.node.ID).APIAddr()
	for _, tt := range []struct {
		name, addr string
		says       string // "": taken
	}{
		{"IPv6", "[2001:db8::1]:2377", "must be the node's IPv4 address"},
		{"IPv4 as IPv6", "[::ffff:192.0.2.9]:2377", "must be the node's IPv4 address"},
		{"unspecified", "0.0.0.0:2377", "must be the node's IPv4 address"},
		{"multicast", "224.0.0.1:2377", "must be the node's IPv4 address"},
		{"no port", "192.0.2.9:0", "port of its API"},
		{"another node's", of(other.node.Addr, other.node.APIPort), "is the address of node " + other.node.Hostname},
		{"another node's, with another port", of(other.node.Addr, 1), "is the address of node " + other.node.Hostname},
		{"its own", before, ""},
		{"another", "192.0.2.9:2377", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			req := &api.Report{Node: worker.node.ID, Addr: netip.MustParseAddrPort(tt.addr), Info: &api.NodeInfo{}}
			_, err := rpc.Call[api.Report, api.ReportResponse](deadline(t), worker.client, api.ProcReport, req)
			seen, _ := s.Tracker.Contact(worker.node.ID)
			at := s.Replica.Node(worker.node.ID).APIAddr()
			if tt.says == "" {
				if err != nil || at != tt.addr || seen.IsZero() {
					t.Errorf("%v: it is at %s, seen at %v", err, at, seen)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.says) || at != before || !seen.IsZero() {
				t.Errorf("%v, want %q: it is at %s, seen at %v", err, tt.says, at, seen)
			}
		})
	}
}

// What a node has of the groups of managers before says nothing of this one's state,
// however high its index is.
func TestAcknowledgedOfAnotherGroup(t *testing.T) {
	s := newSite(t)
	worker := s.member(t, api.RoleWorker)
	s.Tracker = manager.NewTracker()
	s.Tracker.Lead(s.Replica.Raft.Term(), nil, time.Now())
	if _, err := s.Replica.Update(deadline(t), func(snap *api.Snapshot) ([]api.Change, error) {
		next := *snap.Cluster
		next.Epoch = 7
		return []api.Change{{Cluster: &next}}, nil
	}); err != nil {
		t.Fatal(err)
	}
	for epoch, want := range map[uint64]api.Index{0: 0, 6: 0, 7: 1000} {
		req := &api.Report{Node: worker.node.ID, Applied: 1000, Epoch: epoch}
		res, err := rpc.Call[api.Report, api.ReportResponse](deadline(t), worker.client, api.ProcReport, req)
		if err != nil {
			t.Fatal(err)
		}
		if _, applied := s.Tracker.Contact(worker.node.ID); applied != want || res.Epoch != 7 {
			t.Errorf("1000 of group %d counts as %d, want %d; the answer is of group %d", epoch, applied, want, res.Epoch)
		}
	}
}
