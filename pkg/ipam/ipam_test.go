package ipam

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/orch-dev/orch/pkg/api"
)

var byValue = cmpopts.EquateComparable(netip.Addr{})

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

func pending(id string) *api.Task {
	return &api.Task{
		ID: api.TaskID(id), Desired: api.DesiredRun,
		Status:   api.TaskStatus{State: api.TaskPending},
		Endpoint: api.Endpoint{State: api.EndpointPending},
	}
}

func holding(id, addr string, state api.EndpointState) *api.Task {
	t := pending(id)
	t.Status.State = api.TaskRunning
	t.Endpoint = api.Endpoint{Addr: ip(addr), State: state}
	return t
}

func with(t *api.Task, change func(*api.Task)) *api.Task {
	c := *t
	change(&c)
	return &c
}

func tasks(list ...*api.Task) map[api.TaskID]*api.Task {
	m := map[api.TaskID]*api.Task{}
	for _, t := range list {
		m[t.ID] = t
	}
	return m
}

func TestPlan(t *testing.T) {
	cluster := func(pool, cursor string) *api.Cluster {
		c := &api.Cluster{Pool: pool}
		if cursor != "" {
			c.AddrCursor = ip(cursor)
		}
		return c
	}
	tests := []struct {
		name     string
		snap     *api.Snapshot
		want     []api.Change
		problems []Problem
	}{
		{
			name: "numbers fill gaps",
			snap: &api.Snapshot{Cluster: cluster("10.128.0.0/10", ""), Networks: map[api.NetworkID]*api.Network{
				"a": {ID: "a"}, "b": {ID: "b", Number: 2}, "c": {ID: "c"},
			}},
			want: []api.Change{
				{Network: &api.Network{ID: "a", Number: 1}},
				{Network: &api.Network{ID: "c", Number: 3}},
			},
		},
		{
			name: "services first, then tasks; the pool's first addresses stay unused",
			snap: &api.Snapshot{
				Cluster:  cluster("10.128.0.0/10", ""),
				Services: map[api.ServiceID]*api.Service{"s": {ID: "s"}},
				Tasks:    tasks(pending("t1"), pending("t2")),
			},
			want: []api.Change{
				{Cluster: cluster("10.128.0.0/10", "10.128.0.4")},
				{Service: &api.Service{ID: "s", VIP: ip("10.128.0.2")}},
				{Task: with(pending("t1"), func(t *api.Task) { t.Endpoint.Addr = ip("10.128.0.3") })},
				{Task: with(pending("t2"), func(t *api.Task) { t.Endpoint.Addr = ip("10.128.0.4") })},
			},
		},
		{
			name: "a service that wants no virtual IP has none, and gives back the one it had",
			snap: &api.Snapshot{
				Cluster: cluster("10.0.0.0/29", ""),
				Services: map[api.ServiceID]*api.Service{
					"a": {ID: "a", Spec: api.ServiceSpec{EndpointMode: api.EndpointDNSRR}},
					"b": {ID: "b", Spec: api.ServiceSpec{EndpointMode: api.EndpointDNSRR}, VIP: ip("10.0.0.2")},
				},
			},
			want: []api.Change{{Service: &api.Service{ID: "b", Spec: api.ServiceSpec{EndpointMode: api.EndpointDNSRR}}}},
		},
		{
			name: "a freed address is not the next one",
			snap: &api.Snapshot{
				Cluster: cluster("10.0.0.0/29", "10.0.0.3"),
				Tasks:   tasks(holding("t1", "10.0.0.3", api.EndpointGone), pending("t2")),
			},
			want: []api.Change{
				{Cluster: cluster("10.0.0.0/29", "10.0.0.4")},
				{Task: with(pending("t2"), func(t *api.Task) { t.Endpoint.Addr = ip("10.0.0.4") })},
			},
		},
		{
			name: "the search wraps around, skips what is held and says when all is",
			snap: &api.Snapshot{
				Cluster: cluster("10.0.0.0/29", "10.0.0.5"),
				Tasks: tasks(holding("t1", "10.0.0.2", api.EndpointReady), holding("t2", "10.0.0.3", api.EndpointDraining),
					holding("t3", "10.0.0.6", api.EndpointPending), pending("t4"), pending("t5"), pending("t6")),
			},
			want: []api.Change{
				{Task: with(pending("t4"), func(t *api.Task) { t.Endpoint.Addr = ip("10.0.0.4") })},
				{Task: with(pending("t5"), func(t *api.Task) { t.Endpoint.Addr = ip("10.0.0.5") })},
				{Task: with(pending("t6"), func(t *api.Task) { t.Reason = "no free address in the pool 10.0.0.0/29" })},
			},
		},
		{
			name: "the reason goes when there is an address",
			snap: &api.Snapshot{
				Cluster: cluster("10.0.0.0/29", ""),
				Tasks:   tasks(with(pending("t"), func(t *api.Task) { t.Reason = "no free address in the pool 10.0.0.0/29" })),
			},
			want: []api.Change{
				{Cluster: cluster("10.0.0.0/29", "10.0.0.2")},
				{Task: with(pending("t"), func(t *api.Task) { t.Endpoint.Addr = ip("10.0.0.2") })},
			},
		},
		{
			name: "a task that is to stop gets none",
			snap: &api.Snapshot{
				Cluster: cluster("10.0.0.0/29", ""),
				Tasks:   tasks(with(pending("t"), func(t *api.Task) { t.Desired = api.DesiredStop })),
			},
		},
		{
			name: "a bad pool is a problem of the cluster, and ports are still allocated",
			snap: &api.Snapshot{
				Cluster: cluster("10.0.0.0/30", ""),
				Services: map[api.ServiceID]*api.Service{"s": {ID: "s", Spec: api.ServiceSpec{
					Ports: []api.Port{{Target: 80, Protocol: api.TCP}}}}},
			},
			want: []api.Change{{Service: &api.Service{ID: "s",
				Spec:  api.ServiceSpec{Ports: []api.Port{{Target: 80, Protocol: api.TCP}}},
				Ports: []api.Port{{Published: 30000, Target: 80, Protocol: api.TCP}},
			}}},
			problems: []Problem{{api.Ref{Kind: api.KindCluster}, `address pool "10.0.0.0/30" is not an IPv4 CIDR of /29 or larger`}},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, problems := Plan(tt.snap)
			if diff := cmp.Diff(tt.want, got, byValue); diff != "" {
				t.Errorf("changes (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.problems, problems); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
			if again, _ := Plan(tt.snap.With(got)); len(again) > 0 {
				t.Errorf("planned again: %+v", again)
			}
		})
	}
}

// Any sequence of coming and going keeps addresses unique and in the pool.
func TestAddressesStayUnique(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		snap := &api.Snapshot{Cluster: &api.Cluster{Pool: "10.0.0.0/26"}} // 61 usable
		made := 0
		for range rapid.IntRange(1, 30).Draw(t, "rounds") {
			var changes []api.Change
			for range rapid.IntRange(0, 8).Draw(t, "new") {
				made++
				changes = append(changes, api.Change{Task: pending(fmt.Sprintf("t%04d", made))})
			}
			for _, task := range api.Sorted(snap.Tasks) {
				if task.Endpoint.Addr.IsValid() && rapid.IntRange(0, 2).Draw(t, "end") == 0 {
					changes = append(changes, api.DeleteTask(task))
				}
			}
			snap = snap.With(changes)
			planned, _ := Plan(snap)
			snap = snap.With(planned)

			held := map[netip.Addr]api.TaskID{}
			for _, task := range snap.Tasks {
				addr := task.Endpoint.Addr
				if !addr.IsValid() {
					continue
				}
				if other, taken := held[addr]; taken {
					t.Fatalf("%s is held by %s and %s", addr, other, task.ID)
				}
				held[addr] = task.ID
				if number(addr) < number(ip("10.0.0.2")) || number(addr) > number(ip("10.0.0.62")) {
					t.Fatalf("%s is outside of the pool", addr)
				}
			}
		}
	})
}
