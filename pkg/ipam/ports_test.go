package ipam

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/orch-dev/orch/pkg/api"
)

func service(id string, created api.Index, spec []api.Port, ports ...api.Port) *api.Service {
	return &api.Service{
		ID: api.ServiceID(id), Meta: api.Meta{Created: created}, VIP: ip("10.128.0.9"),
		Spec: api.ServiceSpec{Name: "blog_" + id, Ports: spec}, Ports: ports,
	}
}

func port(published, target uint16) api.Port {
	return api.Port{Published: published, Target: target, Protocol: api.TCP}
}

func on(host string, p api.Port) api.Port {
	p.HostIP = ip(host)
	return p
}

func services(list ...*api.Service) map[api.ServiceID]*api.Service {
	m := map[api.ServiceID]*api.Service{}
	for _, s := range list {
		m[s.ID] = s
	}
	return m
}

func TestPlanPorts(t *testing.T) {
	udp := api.Port{Published: 0, Target: 53, Protocol: api.UDP}
	tests := []struct {
		name     string
		services []*api.Service
		want     map[string][]api.Port // by service ID, of all services
		problems []string
	}{
		{
			name:     "fixed and automatic",
			services: []*api.Service{service("a", 1, []api.Port{port(8080, 80), port(0, 81), udp})},
			want: map[string][]api.Port{"a": {
				port(8080, 80), port(30000, 81), {Published: 30000, Target: 53, Protocol: api.UDP},
			}},
		},
		{
			name: "automatic ports stay when others come and go",
			services: []*api.Service{
				service("a", 1, []api.Port{port(0, 80), port(0, 80), port(9000, 90)}, port(30005, 80), port(30001, 80)),
				service("b", 2, []api.Port{port(30000, 1), port(0, 80)}),
			},
			want: map[string][]api.Port{
				"a": {port(30005, 80), port(30001, 80), port(9000, 90)},
				"b": {port(30000, 1), port(30002, 80)},
			},
		},
		{
			name: "a port that is no longer asked for goes",
			services: []*api.Service{
				service("a", 1, nil, port(8080, 80)),
				service("b", 2, []api.Port{port(8080, 80)}),
			},
			want: map[string][]api.Port{"a": nil, "b": {port(8080, 80)}},
		},
		{
			name: "who has a port keeps it, else the older service gets it",
			services: []*api.Service{
				service("a", 9, []api.Port{port(8080, 80), port(9090, 90)}, port(8080, 80)),
				service("b", 2, []api.Port{port(8080, 80), port(9090, 90)}),
			},
			want: map[string][]api.Port{"a": {port(8080, 80)}, "b": {port(9090, 90)}},
			problems: []string{
				"service blog_b cannot publish port 8080/tcp: service blog_a does",
				"service blog_a cannot publish port 9090/tcp: service blog_b does",
			},
		},
		{
			name: "one port on two addresses",
			services: []*api.Service{
				service("a", 1, []api.Port{on("192.0.2.1", port(80, 80))}),
				service("b", 2, []api.Port{on("192.0.2.2", port(80, 80))}),
				service("c", 3, []api.Port{port(80, 80)}),
			},
			want: map[string][]api.Port{
				"a": {on("192.0.2.1", port(80, 80))}, "b": {on("192.0.2.2", port(80, 80))}, "c": nil,
			},
			problems: []string{"service blog_c cannot publish port 80/tcp: service blog_a does"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			snap := &api.Snapshot{Cluster: &api.Cluster{Pool: "10.128.0.0/10"}, Services: services(tt.services...)}
			changes, problems := Plan(snap)
			after := snap.With(changes)
			got := map[string][]api.Port{}
			for id, s := range after.Services {
				got[string(id)] = s.Ports
			}
			if diff := cmp.Diff(tt.want, got, cmpopts.EquateComparable(netip.Addr{}), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("ports (-want +got):\n%s", diff)
			}
			var texts []string
			for _, p := range problems {
				texts = append(texts, p.String())
			}
			if diff := cmp.Diff(tt.problems, texts); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
			if again, _ := Plan(after); len(again) > 0 {
				t.Errorf("planned again: %+v", again)
			}
		})
	}
}

// alone is a port that is published on the nodes of tasks only.
func alone(p api.Port) api.Port {
	p.Host = true
	return p
}

func TestPortConflict(t *testing.T) {
	snap := &api.Snapshot{
		Nodes: map[api.NodeID]*api.Node{"n": {ID: "n", APIPort: 2377, GossipPort: 7946}},
		Services: services(
			service("web", 1, []api.Port{port(8080, 80)}, port(8080, 80)),
			service("admin", 2, []api.Port{on("192.0.2.1", port(9090, 80))}),
			service("exporter", 4, nil, alone(port(9100, 9100))),
			service("auto", 3, []api.Port{port(0, 80)}, port(30000, 80)),
		),
	}
	tests := []struct {
		name  string
		ports []api.Port
		want  string
	}{
		{"free", []api.Port{port(8081, 80)}, ""},
		{"on the nodes of tasks alone, as another", []api.Port{alone(port(9100, 1))}, ""},
		{"on all nodes, where another has it on some", []api.Port{port(9100, 1)}, "port 9100/tcp is already published by service blog_exporter"},
		{"on the nodes of tasks alone, where another has it on all", []api.Port{alone(port(8080, 1))}, "port 8080/tcp is already published by service blog_web"},
		{"on the nodes of tasks alone, twice", []api.Port{alone(port(1234, 1)), alone(port(1234, 2))}, "port 1234/tcp is published twice by service blog_new"},
		{"automatic", []api.Port{port(0, 80)}, ""},
		{"other protocol", []api.Port{{Published: 8080, Target: 80, Protocol: api.UDP}}, ""},
		{"taken", []api.Port{port(8080, 1)}, "port 8080/tcp is already published by service blog_web"},
		{"taken on all addresses", []api.Port{on("192.0.2.1", port(8080, 1))},
			"port 192.0.2.1:8080/tcp is already published by service blog_web"},
		{"taken on one address", []api.Port{on("0.0.0.0", port(9090, 1))},
			"port 9090/tcp is already published by service blog_admin"},
		{"other address", []api.Port{on("192.0.2.2", port(9090, 1))}, ""},
		{"allocated to another", []api.Port{port(30000, 1)}, "port 30000/tcp is already published by service blog_auto"},
		{"twice", []api.Port{port(1234, 1), port(1234, 2)}, "port 1234/tcp is published twice by service blog_new"},
		{"API", []api.Port{port(2377, 1)}, "port 2377/tcp is used by orch itself (API)"},
		{"gossip", []api.Port{{Published: 7946, Target: 1, Protocol: api.UDP}}, "port 7946/udp is used by orch itself (gossip)"},
		{"overlay", []api.Port{{Published: 4789, Target: 1, Protocol: api.UDP}}, "port 4789/udp is used by orch itself (overlay)"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got string
			if err := PortConflict(snap, service("new", 0, tt.ports)); err != nil {
				got = err.Error()
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}

	own := service("web", 1, []api.Port{port(8080, 81)}, port(8080, 80))
	if err := PortConflict(snap, own); err != nil {
		t.Errorf("a service conflicts with itself: %v", err)
	}
}
