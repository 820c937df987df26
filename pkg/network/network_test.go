package network

import (
	"maps"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/orch-dev/orch/pkg/api"
)

var byValue = cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

func task(id, service, node, addr string, state api.EndpointState, networks ...api.NetworkID) *api.Task {
	status := api.TaskRunning
	if state == api.EndpointPending {
		status = api.TaskStarting
	}
	t := &api.Task{
		ID: api.TaskID(id), ServiceID: api.ServiceID(service), NodeID: api.NodeID(node), Slot: 1,
		Networks: networks, Status: api.TaskStatus{State: status}, Endpoint: api.Endpoint{State: state},
	}
	if addr != "" {
		t.Endpoint.Addr = ip(addr)
	}
	return t
}

// blog is three nodes, the last of them down, with two services on two networks.
func blog() *api.Snapshot {
	snap := &api.Snapshot{
		Index:   42,
		Cluster: &api.Cluster{ID: "c1", Pool: "10.128.0.0/10"},
		Nodes: map[api.NodeID]*api.Node{
			"a": {ID: "a", Addr: ip("192.0.2.30"), State: api.NodeReady},
			"b": {ID: "b", Addr: ip("192.0.2.20"), State: api.NodeReady},
			"c": {ID: "c", Addr: ip("192.0.2.10"), State: api.NodeDown},
		},
		Networks: map[api.NetworkID]*api.Network{
			"front":  {ID: "front", Name: "blog_front", Number: 2},
			"back":   {ID: "back", Name: "blog_back", Number: 1, Internal: true},
			"unborn": {ID: "unborn", Name: "blog_unborn"},
		},
		Services: map[api.ServiceID]*api.Service{
			"web": {ID: "web", VIP: ip("10.128.0.2"),
				Spec: api.ServiceSpec{Name: "blog_Web", Alias: "Web", Networks: []string{"blog_front", "blog_back"}},
				Ports: []api.Port{
					{Published: 8080, Target: 80, Protocol: api.TCP},
					{Published: 53, Target: 5353, Protocol: api.UDP, HostIP: ip("192.0.2.30")},
					{Published: 9000, Target: 90, Protocol: api.TCP, Host: true},
				}},
			"db": {ID: "db", VIP: ip("10.128.0.3"),
				Spec: api.ServiceSpec{Name: "blog_db", Alias: "db", Networks: []string{"blog_back"}}},
		},
		Tasks: map[api.TaskID]*api.Task{},
	}
	for _, t := range []*api.Task{
		task("w1", "web", "a", "10.128.0.12", api.EndpointReady, "front", "back"),
		task("w2", "web", "b", "10.128.0.11", api.EndpointReady, "front", "back"),
		task("w3", "web", "b", "10.128.0.13", api.EndpointDraining, "front", "back"),
		task("w4", "web", "c", "10.128.0.14", api.EndpointReady, "front", "back"),
		task("w5", "web", "a", "10.128.0.15", api.EndpointPending, "front", "back"),
		task("w6", "web", "a", "10.128.0.16", api.EndpointGone, "front", "back"),
		task("w7", "web", "", "10.128.0.17", api.EndpointPending, "front", "back"),
		task("w8", "web", "a", "", api.EndpointPending, "front", "back"),
		task("d1", "db", "a", "10.128.0.20", api.EndpointReady, "back"),
	} {
		snap.Tasks[t.ID] = t
	}
	return snap
}

func TestPlan(t *testing.T) {
	got := Plan(blog(), "a", map[api.NodeID]bool{"b": true, "a": true}, map[api.TaskID]int{"w1": 7, "w2": 8, "gone": 9})

	web := func(port uint16) []api.Backend {
		return []api.Backend{
			{Addr: ip("10.128.0.11"), Port: port, Weight: 1, Draining: true},
			{Addr: ip("10.128.0.12"), Port: port, Weight: 1},
			{Addr: ip("10.128.0.13"), Port: port, Weight: 1, Draining: true},
		}
	}
	on := func(addr, node string, ifindex int) api.PlanEndpoint {
		return api.PlanEndpoint{Addr: ip(addr), Node: ip(node), Networks: []uint32{1, 2}, Outside: true, IfIndex: ifindex}
	}
	want := api.NetworkPlan{
		Generation: 42,
		Node:       "a",
		Underlay:   ip("192.0.2.30"),
		Pool:       netip.MustParsePrefix("10.128.0.0/10"),
		Pool6:      api.Pool6("c1"),
		Members: []api.Member{
			{Node: "c", Addr: ip("192.0.2.10")},
			{Node: "b", Addr: ip("192.0.2.20")},
			{Node: "a", Addr: ip("192.0.2.30")},
		},
		Endpoints: []api.PlanEndpoint{
			on("10.128.0.11", "192.0.2.20", 0),
			on("10.128.0.12", "192.0.2.30", 7),
			on("10.128.0.13", "192.0.2.20", 0),
			on("10.128.0.14", "192.0.2.10", 0),
			on("10.128.0.15", "192.0.2.30", 0),
			{Addr: ip("10.128.0.20"), Node: ip("192.0.2.30"), Networks: []uint32{1}},
		},
		Frontends: []api.Frontend{
			{FrontendKey: api.FrontendKey{Addr: ip("0.0.0.0"), Port: 8080, Protocol: api.TCP}, Service: "blog_Web", Backends: web(80)},
			{FrontendKey: api.FrontendKey{Addr: ip("0.0.0.0"), Port: 9000, Protocol: api.TCP}, Service: "blog_Web", Host: true,
				Backends: []api.Backend{{Addr: ip("10.128.0.12"), Port: 90, Weight: 1}}},
			{FrontendKey: api.FrontendKey{Addr: ip("10.128.0.2")}, Service: "blog_Web", Networks: []uint32{1, 2}, Backends: web(0)},
			{FrontendKey: api.FrontendKey{Addr: ip("10.128.0.3")}, Service: "blog_db", Networks: []uint32{1},
				Backends: []api.Backend{{Addr: ip("10.128.0.20"), Weight: 1}}},
			{FrontendKey: api.FrontendKey{Addr: ip("192.0.2.30"), Port: 53, Protocol: api.UDP}, Service: "blog_Web", Backends: web(5353)},
		},
	}
	if diff := cmp.Diff(want, got, byValue); diff != "" {
		t.Errorf("plan (-want +got):\n%s", diff)
	}
}

// A node at an address that the data plane cannot express is left out with its tasks:
// it would refuse the plan as a whole, on every node.
func TestPlanLeavesOutUnreachableNodes(t *testing.T) {
	for name, addr := range map[string]netip.Addr{"IPv6": ip("2001:db8::1"), "IPv4 as IPv6": ip("::ffff:192.0.2.20"), "none": {}} {
		t.Run(name, func(t *testing.T) {
			snap := blog()
			snap.Nodes["b"].Addr = addr
			got := Plan(snap, "a", nil, nil)
			delete(snap.Nodes, "b")
			if diff := cmp.Diff(Plan(snap, "a", nil, nil), got, byValue); diff != "" {
				t.Errorf("(-without the node +got):\n%s", diff)
			}
		})
	}
}

func TestPlanLeavesOutBackendsThatEnded(t *testing.T) {
	snap := blog()
	ended := *snap.Tasks["d1"]
	ended.Status.State = api.TaskFailed
	snap = snap.With([]api.Change{{Task: &ended}})
	for _, f := range Plan(snap, "b", nil, nil).Frontends {
		if f.Service == "blog_db" && len(f.Backends) > 0 {
			t.Errorf("backends of a service whose task ended: %v", f.Backends)
		}
	}
}

// A suspected node's backends get nothing new while others serve, and go on when
// nobody else does.
func TestSuspects(t *testing.T) {
	draining := func(node api.NodeID, suspects ...api.NodeID) map[string]bool {
		set := map[api.NodeID]bool{}
		for _, s := range suspects {
			set[s] = true
		}
		out := map[string]bool{}
		for _, f := range Plan(blog(), node, set, nil).Frontends {
			for _, b := range f.Backends {
				out[b.Addr.String()] = b.Draining
			}
		}
		return out
	}
	const w1, w2, w3, d1 = "10.128.0.12", "10.128.0.11", "10.128.0.13", "10.128.0.20" // on a, b, b (draining), a
	tests := []struct {
		name     string
		node     api.NodeID
		suspects []api.NodeID
		want     map[string]bool
	}{
		{"nobody", "b", nil, map[string]bool{w1: false, w2: false, w3: true, d1: false}},
		{"a has the only database", "b", []api.NodeID{"a"}, map[string]bool{w1: true, w2: false, w3: true, d1: false}},
		{"a node trusts itself", "a", []api.NodeID{"a", "b"}, map[string]bool{w1: false, w2: true, w3: true, d1: false}},
		{"everybody", "c", []api.NodeID{"a", "b"}, map[string]bool{w1: false, w2: false, w3: true, d1: false}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, draining(tt.node, tt.suspects...)); diff != "" {
				t.Errorf("draining (-want +got):\n%s", diff)
			}
		})
	}
}

// Tasks that leave take new flows for as long as no other does.
func TestNobodyElseServes(t *testing.T) {
	snap := blog()
	leaving := *snap.Tasks["d1"]
	leaving.Endpoint.State = api.EndpointDraining
	next := task("d2", "db", "b", "10.128.0.21", api.EndpointPending, "back")
	for _, tt := range []struct {
		state api.EndpointState
		want  []bool // whether d1 and d2 take none
	}{
		{api.EndpointPending, []bool{false}},
		{api.EndpointReady, []bool{true, false}},
	} {
		started := *next
		started.Endpoint.State = tt.state
		for _, f := range Plan(snap.With([]api.Change{{Task: &leaving}, {Task: &started}}), "a", nil, nil).Frontends {
			var got []bool
			for _, b := range f.Backends {
				got = append(got, b.Draining)
			}
			if f.Service == "blog_db" && !slices.Equal(got, tt.want) {
				t.Errorf("another is %s: draining %v, want %v", tt.state, got, tt.want)
			}
		}
	}
}

func TestPlanOfAnEmptyView(t *testing.T) {
	want := api.NetworkPlan{Node: "a"}
	if diff := cmp.Diff(want, Plan(&api.Snapshot{}, "a", nil, nil), byValue); diff != "" {
		t.Errorf("plan (-want +got):\n%s", diff)
	}
}

func TestNames(t *testing.T) {
	snap := blog()
	// Another stack's service shares network and alias.
	snap.Services["other"] = &api.Service{ID: "other", VIP: ip("10.128.0.1"),
		Spec: api.ServiceSpec{Name: "shop_db", Alias: "db", Networks: []string{"blog_back"}}}
	// One without a virtual IP has a name more on one of its networks.
	snap.Services["flat"] = &api.Service{ID: "flat", Spec: api.ServiceSpec{
		Name: "blog_flat", EndpointMode: api.EndpointDNSRR, Networks: []string{"blog_back", "blog_front"},
		NetworkAliases: map[string][]string{"blog_back": {"Deep.Inside"}},
	}}
	for id, addr := range map[string]string{"f1": "10.128.0.31", "f2": "10.128.0.30"} {
		snap.Tasks[api.TaskID(id)] = task(id, "flat", "b", addr, api.EndpointReady, "back")
	}
	snap.Tasks["w1"].Spec.Container = &api.ContainerOptions{DNS: []netip.Addr{ip("192.0.2.53"), ip("2001:db8::53")}}
	got := Names(snap, "a")

	addrs := func(list ...string) []netip.Addr {
		var out []netip.Addr
		for _, s := range list {
			out = append(out, ip(s))
		}
		return out
	}
	web := map[string][]netip.Addr{
		"web": addrs("10.128.0.2"), "blog_web": addrs("10.128.0.2"),
		"tasks.web": addrs("10.128.0.11", "10.128.0.12"), "tasks.blog_web": addrs("10.128.0.11", "10.128.0.12"),
	}
	back := maps.Clone(web)
	for _, name := range []string{"blog_flat", "tasks.blog_flat", "deep.inside", "tasks.deep.inside"} {
		back[name] = addrs("10.128.0.30", "10.128.0.31")
	}
	web["blog_flat"], web["tasks.blog_flat"] = nil, nil // no task of it is there
	back["db"] = addrs("10.128.0.1", "10.128.0.3")
	back["blog_db"] = addrs("10.128.0.3")
	back["shop_db"] = addrs("10.128.0.1")
	back["tasks.db"] = addrs("10.128.0.20")
	back["tasks.blog_db"] = addrs("10.128.0.20")
	back["tasks.shop_db"] = nil

	want := Zone{
		Clients: map[netip.Addr][]uint32{
			ip("10.128.0.12"): {2, 1}, ip("10.128.0.15"): {2, 1}, ip("10.128.0.20"): {1},
		},
		Inside:    map[netip.Addr]bool{ip("10.128.0.20"): true},
		Upstreams: map[netip.Addr][]string{ip("10.128.0.12"): {"192.0.2.53:53", "[2001:db8::53]:53"}},
		Names:     map[uint32]map[string][]netip.Addr{1: back, 2: web},
	}
	if diff := cmp.Diff(want, got, byValue); diff != "" {
		t.Errorf("zone (-want +got):\n%s", diff)
	}
}
