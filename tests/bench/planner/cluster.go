package main

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/orch-dev/orch/pkg/api"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// cluster is nodes of three zones, two thirds of which have fast disks.
func cluster(nodes int) *api.Snapshot {
	snap := &api.Snapshot{
		Cluster:  &api.Cluster{ID: "c", Pool: api.DefaultPool, LeaseTimeout: 4 * time.Second},
		Nodes:    make(map[api.NodeID]*api.Node, nodes),
		Services: map[api.ServiceID]*api.Service{},
		Tasks:    map[api.TaskID]*api.Task{},
		Networks: map[api.NetworkID]*api.Network{"net": {ID: "net", Name: "big_default", Number: 1}},
	}
	disks := []string{"fast", "fast", "slow"}
	for i := range nodes {
		n := &api.Node{
			ID: api.NodeID(fmt.Sprintf("node%021d", i)), Hostname: fmt.Sprintf("host%d", i), Role: api.RoleWorker,
			State: api.NodeReady, Availability: api.AvailabilityActive,
			Addr:   netip.AddrFrom4([4]byte{172, 16, byte(i >> 8), byte(i)}),
			Labels: map[string]string{"zone": fmt.Sprint(i % 3), "disk": disks[i/3%3]},
			Info:   api.NodeInfo{OS: "linux", Arch: "x86_64", CPUs: 64, MemoryBytes: 256 << 30},
		}
		snap.Nodes[n.ID] = n
	}
	return snap
}

func service(number, replicas int) *api.Service {
	svc := &api.Service{
		ID: api.ServiceID(fmt.Sprintf("service%018d", number)), Stack: "big", SpecVersion: 1,
		Spec: api.ServiceSpec{
			Name: fmt.Sprintf("big_s%d", number), Mode: api.ModeReplicated, Replicas: replicas, Networks: []string{"big_default"},
			Task: api.TaskSpec{Image: "app:1", Reservations: api.Resources{NanoCPUs: 100_000_000, MemoryBytes: 128 << 20}},
			Placement: api.Placement{
				Constraints: []api.Constraint{{Key: "node.labels.disk", Op: api.OpEqual, Value: "fast"}, {Key: "node.platform.arch", Op: api.OpEqual, Value: "amd64"}},
				Preferences: []string{"node.labels.zone"},
			},
			Update: api.UpdateConfig{Parallelism: 1, Order: api.StartFirst},
		},
	}
	return svc
}

// addService adds a service with tasks that wait for a node, or run somewhere.
func addService(snap *api.Snapshot, number, replicas int, state string) {
	for _, c := range newService(number, replicas, len(snap.Tasks)) {
		if c.Service != nil {
			snap.Services[c.Service.ID] = c.Service
			continue
		}
		t := c.Task
		if state != "" {
			t.NodeID = api.NodeID(fmt.Sprintf("node%021d", len(snap.Tasks)*7%len(snap.Nodes)))
			t.Status.State, t.Endpoint.State = api.TaskRunning, api.EndpointReady
		}
		snap.Tasks[t.ID] = t
	}
}

// newService is a service with tasks that wait for a node, in a state that has
// so many tasks.
func newService(number, replicas, tasks int) []api.Change {
	svc := service(number, replicas)
	changes := []api.Change{{Service: svc}}
	for slot := range replicas {
		changes = append(changes, api.Change{Task: &api.Task{
			ID: api.TaskID(fmt.Sprintf("task%021d", tasks+slot)), ServiceID: svc.ID, ServiceName: svc.Spec.Name, Slot: slot + 1,
			Spec: svc.Spec.Task, SpecVersion: 1, Desired: api.DesiredRun, CreatedAt: now,
			Status:   api.TaskStatus{State: api.TaskPending},
			Endpoint: api.Endpoint{Addr: address(tasks + slot), State: api.EndpointPending},
		}})
	}
	return changes
}

func address(i int) netip.Addr {
	i += 10 << 24
	return netip.AddrFrom4([4]byte{byte(i >> 24), byte(i >> 16), byte(i >> 8), byte(i)})
}
