package dataplane

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/orch-dev/orch/bpf"
	"github.com/orch-dev/orch/pkg/api"
)

var (
	node1 = netip.MustParseAddr("192.0.2.1")
	node2 = netip.MustParseAddr("192.0.2.2")
	task1 = netip.MustParseAddr("10.128.0.1")
	task2 = netip.MustParseAddr("10.128.0.2")
	task3 = netip.MustParseAddr("10.128.0.3")
	vip   = netip.MustParseAddr("10.128.0.9")
)

// base is a plan with three tasks, two of them here, and no frontend.
func base(frontends ...api.Frontend) api.NetworkPlan {
	return api.NetworkPlan{
		Generation: 7, Node: "n1", Underlay: node1, Pool: netip.MustParsePrefix("10.128.0.0/10"),
		Members: []api.Member{{Node: "n1", Addr: node1}, {Node: "n2", Addr: node2}},
		Endpoints: []api.PlanEndpoint{
			{Addr: task1, Node: node1, Networks: []uint32{1}, IfIndex: 11},
			{Addr: task2, Node: node2, Networks: []uint32{1, 2}, Outside: true},
			{Addr: task3, Node: node1, Networks: []uint32{3}}, // its interface is not there yet
		},
		Frontends: frontends,
	}
}

func published(port uint16, backends ...api.Backend) api.Frontend {
	return api.Frontend{
		FrontendKey: api.FrontendKey{Addr: netip.IPv4Unspecified(), Port: port, Protocol: api.TCP},
		Service:     "web", Backends: backends,
	}
}

func backend(addr netip.Addr) api.Backend { return api.Backend{Addr: addr, Port: 80, Weight: 1} }

// inTable is the set of backend ids in a table.
func inTable(content []uint32) map[uint32]bool {
	ids := make(map[uint32]bool)
	for _, id := range content[1:] {
		ids[id] = true
	}
	return ids
}

// A network that all stacks share, beside one of their own, makes no more pairs than
// there are stacks: for each that has a task here.
func TestManyNetworkSets(t *testing.T) {
	const stacks, shared = 2000, 9999
	plan := base()
	for i := range stacks {
		plan.Endpoints = append(plan.Endpoints, api.PlanEndpoint{
			Addr: netip.AddrFrom4([4]byte{10, 130, byte(i >> 8), byte(i)}), Node: node2, Networks: []uint32{uint32(i), shared},
		})
	}
	plan.Endpoints[len(plan.Endpoints)-1].Node = node1
	if got := len(wanted(plan, &state{}, 1500).pairs); got < stacks-1 || got > 2*stacks {
		t.Errorf("%d pairs for %d stacks", got, stacks)
	}
}

func TestWanted(t *testing.T) {
	drained := backend(task2)
	drained.Draining = true
	virtual := api.Frontend{FrontendKey: api.FrontendKey{Addr: vip}, Networks: []uint32{1, 2}, Backends: []api.Backend{{Addr: task1, Weight: 1}}}
	got := wanted(base(published(8080, backend(task1), drained, backend(task3)), virtual), &state{}, 1500)

	sets := make(networkSets)
	one, both, three := sets.add([]uint32{1}), sets.add([]uint32{1, 2}), sets.add([]uint32{3})
	want := &state{
		node: bpf.OrchNodeConfig{Underlay: be32(node1), Pool: be32(netip.MustParseAddr("10.128.0.0")),
			PoolMask: be32(netip.MustParseAddr("255.192.0.0")), Mtu: 1500, Generation: 7},
		members: map[uint32]bpf.OrchMemberFlags{be32(node1): bpf.OrchMemberFlagsMEMBER_KNOWN, be32(node2): bpf.OrchMemberFlagsMEMBER_KNOWN},
		endpoints: map[uint32]bpf.OrchEndpoint{
			be32(task1): {Node: be32(node1), Ifindex: 11, Netset: one},
			be32(task2): {Node: be32(node2), Netset: both, Flags: bpf.OrchEndpointFlagsENDPOINT_OUTSIDE},
			be32(task3): {Node: be32(node1), Netset: three},
		},
		pairs: map[bpf.OrchNetPair]uint32{{A: one, B: both}: 1}, // task 1 is here, and asks
		frontends: map[bpf.OrchFrontend6Key]bpf.OrchFrontend{
			frontendKey(published(8080).FrontendKey): {Id: 1},
			frontendKey(virtual.FrontendKey):         {Id: 2, Netset: both},
		},
		backends: map[uint32]bpf.OrchBackend{
			1: {Addr: be32(task1), Node: be32(node1), Port: be16(80), Frontend: 1},
			2: {Addr: be32(task2), Node: be32(node2), Port: be16(80), Frontend: 1, Flags: bpf.OrchBackendFlagsBACKEND_DRAINING},
			3: {Addr: be32(task3), Node: be32(node1), Port: be16(80), Frontend: 1},
			4: {Addr: be32(task1), Node: be32(node1), Frontend: 2},
		},
	}
	opts := []cmp.Option{cmp.AllowUnexported(state{}), cmpopts.IgnoreFields(state{}, "tables", "candidates", "places"),
		cmpopts.IgnoreUnexported(bpf.OrchNodeConfig{}, bpf.OrchEndpoint{}, bpf.OrchNetPair{}, bpf.OrchFrontend{}, bpf.OrchFrontendKey{}, bpf.OrchFrontend6Key{}, bpf.OrchAddr6{}, bpf.OrchBackend{})}
	if diff := cmp.Diff(want, got, opts...); diff != "" {
		t.Errorf("state (-want +got):\n%s", diff)
	}
	// Neither a draining backend nor one that cannot be delivered to.
	wantTables := map[uint32]map[uint32]bool{1: {1: true}, 2: {4: true}}
	for id, want := range wantTables {
		if diff := cmp.Diff(want, inTable(got.tables[id])); diff != "" {
			t.Errorf("table %d (-want +got):\n%s", id, diff)
		}
		if m := int(got.tables[id][0]); m != len(got.tables[id])-1 {
			t.Errorf("table %d says it has %d places of %d", id, m, len(got.tables[id])-1)
		}
	}
}

// Whatever comes and goes beside it, a frontend and its backends keep their ids.
func TestIDsAreStable(t *testing.T) {
	first := wanted(base(published(80, backend(task1)), published(81, backend(task1), backend(task2))), &state{}, 1500)
	second := wanted(base(published(79, backend(task2)), published(81, backend(task2))), first, 1500)
	key := frontendKey(published(81).FrontendKey)
	if first.frontends[key].Id != second.frontends[key].Id {
		t.Errorf("frontend %d became %d", first.frontends[key].Id, second.frontends[key].Id)
	}
	for id, b := range second.backends {
		if old, ok := first.backends[id]; ok && old != b {
			t.Errorf("id %d was %+v and is %+v", id, old, b)
		}
	}
	again := wanted(base(published(79, backend(task2)), published(81, backend(task2))), second, 1500)
	for id, content := range second.tables {
		if &content[0] != &again.tables[id][0] {
			t.Errorf("the table of frontend %d was computed again from the same backends", id)
		}
	}
}

func TestCheck(t *testing.T) {
	six := netip.MustParseAddr("2001:db8::1")
	for name, test := range map[string]struct {
		plan func(*api.NetworkPlan)
		want string
	}{
		"complete":        {func(*api.NetworkPlan) {}, ""},
		"empty":           {func(p *api.NetworkPlan) { *p = api.NetworkPlan{} }, ""},
		"no underlay":     {func(p *api.NetworkPlan) { p.Underlay = netip.Addr{} }, `underlay address "invalid IP": want an IPv4 address`},
		"IPv6 backend":    {func(p *api.NetworkPlan) { p.Frontends[0].Backends[0].Addr = six }, `backend of 0.0.0.0:80/tcp "2001:db8::1": want an IPv4 address`},
		"same port twice": {func(p *api.NetworkPlan) { p.Frontends = append(p.Frontends, p.Frontends[0]) }, "frontend 0.0.0.0:80/tcp is there twice"},
		"too many tasks": {func(p *api.NetworkPlan) {
			for range 10 {
				p.Endpoints = append(p.Endpoints, p.Endpoints...)
			}
		}, "3072 endpoints, and the data plane was opened for 1024"},
	} {
		t.Run(name, func(t *testing.T) {
			plan := base(published(80, backend(task1)))
			test.plan(&plan)
			cfg := Config{MaxEndpoints: 1024}.withDefaults()
			err := check(plan, cfg)
			if test.want == "" && err == nil {
				return
			}
			if err == nil || test.want == "" || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

func TestPack(t *testing.T) {
	for size := range uint32(50) {
		content := []uint32{size}
		for i := range size {
			content = append(content, 100+i)
		}
		if diff := cmp.Diff(content, unpack(pack(content))); diff != "" {
			t.Errorf("of %d places (-want +got):\n%s", size, diff)
		}
	}
}

// A node encrypts as long as it has endpoints that ask for it, also where it has
// nothing to do so: then nothing goes.
func TestTunnelOf(t *testing.T) {
	sealed := []api.PlanEndpoint{{Addr: task1, Node: node1, Encrypted: true}}
	for name, test := range map[string]struct {
		plan api.NetworkPlan
		want uint32
	}{
		"nothing is encrypted":          {api.NetworkPlan{Endpoints: []api.PlanEndpoint{{Addr: task1}}}, 0},
		"a device":                      {api.NetworkPlan{Endpoints: sealed, Tunnels: api.TunnelPlan{Epochs: []uint64{4}, Send: 4, Devices: []int{7}}}, 7},
		"the second of two":             {api.NetworkPlan{Tunnels: api.TunnelPlan{Epochs: []uint64{4, 5}, Send: 5, Devices: []int{7, 9}}}, 9},
		"it could not be made":          {api.NetworkPlan{Tunnels: api.TunnelPlan{Epochs: []uint64{4}, Send: 4, Devices: []int{0}}}, tunnelMissing},
		"nobody has tried to make it":   {api.NetworkPlan{Tunnels: api.TunnelPlan{Epochs: []uint64{4}, Send: 4}}, tunnelMissing},
		"an endpoint, and no word more": {api.NetworkPlan{Endpoints: sealed}, tunnelMissing},
	} {
		if got := tunnelOf(test.plan); got != test.want {
			t.Errorf("%s: %d, want %d", name, got, test.want)
		}
	}
	have, want := &state{node: bpf.OrchNodeConfig{Tunnel: 7}}, &state{node: bpf.OrchNodeConfig{Mtu: 1400}}
	if got := nodeToAdd(have, want); got.Tunnel != 7 || got.Mtu != 1400 {
		t.Errorf("with endpoints still there, the node is %+v", got)
	}
	keys := []api.TunnelKey{{Epoch: 3}, {Epoch: 4}}
	if memberFlags(api.Member{Keys: keys}, api.TunnelPlan{Send: 4})&bpf.OrchMemberFlagsMEMBER_ENCRYPTS == 0 {
		t.Error("a member with a key does not count as one")
	}
	if memberFlags(api.Member{Keys: keys}, api.TunnelPlan{Send: 5})&bpf.OrchMemberFlagsMEMBER_ENCRYPTS != 0 {
		t.Error("a member with keys of other epochs counts as one that encrypts")
	}
}
