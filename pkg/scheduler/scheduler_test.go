package scheduler

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/orch-dev/orch/pkg/api"
)

var (
	now     = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	byValue = cmpopts.EquateComparable(netip.Addr{})
)

// cluster builds snapshots for tests.
type cluster struct{ api.Snapshot }

func newCluster(nodes ...string) *cluster {
	c := &cluster{api.Snapshot{
		Nodes:    map[api.NodeID]*api.Node{},
		Services: map[api.ServiceID]*api.Service{},
		Tasks:    map[api.TaskID]*api.Task{},
	}}
	for _, n := range nodes {
		c.Nodes[api.NodeID(n)] = &api.Node{
			ID: api.NodeID(n), Hostname: "host-" + n, State: api.NodeReady,
			Availability: api.AvailabilityActive, Labels: map[string]string{},
		}
	}
	return c
}

func (c *cluster) node(id string, change func(*api.Node)) *cluster {
	change(c.Nodes[api.NodeID(id)])
	return c
}

func (c *cluster) service(id string, change func(*api.Service)) *cluster {
	s := &api.Service{ID: api.ServiceID(id), SpecVersion: 1, Spec: api.ServiceSpec{Name: "blog_" + id, Mode: api.ModeReplicated}}
	if change != nil {
		change(s)
	}
	c.Services[s.ID] = s
	return c
}

// task adds a task SERVICE.SLOT; without a node it waits for one.
func (c *cluster) task(id, service string, slot int, node string, change func(*api.Task)) *cluster {
	t := &api.Task{
		ID: api.TaskID(id), ServiceID: api.ServiceID(service), Slot: slot, NodeID: api.NodeID(node),
		SpecVersion: 1, Desired: api.DesiredRun, CreatedAt: now.Add(-time.Minute),
		Status:   api.TaskStatus{State: api.TaskPending},
		Endpoint: api.Endpoint{Addr: netip.AddrFrom4([4]byte{10, 0, 0, byte(len(c.Tasks) + 2)}), State: api.EndpointPending},
	}
	if node != "" {
		t.Status.State = api.TaskRunning
	}
	if change != nil {
		change(t)
	}
	c.Tasks[t.ID] = t
	return c
}

// outcome is what a test looks at: NODE for a task that was placed, else its
// reason.
func outcome(changes []api.Change) map[string]string {
	got := map[string]string{}
	for _, c := range changes {
		got[string(c.Task.ID)] = string(c.Task.NodeID)
		if c.Task.Status.State == api.TaskPending {
			got[string(c.Task.ID)] = c.Task.Reason
		}
	}
	return got
}

func label(key, value string) func(*api.Node) {
	return func(n *api.Node) { n.Labels[key] = value }
}

func TestPlanSpreads(t *testing.T) {
	tests := []struct {
		name string
		c    *cluster
		want map[string]string
	}{
		{"fewest of the service first",
			newCluster("a", "b", "c").service("web", nil).service("db", nil).
				task("1", "web", 1, "a", nil).task("x", "db", 1, "b", nil).task("y", "db", 2, "b", nil).
				task("2", "web", 2, "", nil).task("3", "web", 3, "", nil),
			map[string]string{"2": "c", "3": "b"}},
		{"then fewest in all, then by ID",
			newCluster("a", "b", "c").service("web", nil).service("db", nil).
				task("x", "db", 1, "a", nil).task("2", "web", 1, "", nil).task("3", "web", 2, "", nil).task("4", "web", 3, "", nil),
			map[string]string{"2": "b", "3": "c", "4": "a"}},
		{"tasks on their way out do not count",
			newCluster("a", "b").service("web", func(s *api.Service) { s.SpecVersion = 2 }).
				task("1", "web", 1, "a", nil). // made from the old spec
				task("2", "web", 2, "b", func(t *api.Task) { t.SpecVersion = 2 }).
				task("3", "web", 1, "", func(t *api.Task) { t.SpecVersion = 2 }),
			map[string]string{"3": "a"}},
		{"a node that keeps failing the service comes last",
			newCluster("a", "b").service("web", nil).
				failures("web", "a", 5, time.Minute).task("2", "web", 2, "b", nil).task("3", "web", 1, "", nil),
			map[string]string{"3": "b"}},
		{"four failures are none",
			newCluster("a", "b").service("web", nil).
				failures("web", "a", 4, time.Minute).task("2", "web", 2, "b", nil).task("3", "web", 1, "", nil),
			map[string]string{"3": "a"}},
		{"a node that keeps failing is better than none",
			newCluster("a").service("web", nil).failures("web", "a", 5, time.Minute).task("3", "web", 1, "", nil),
			map[string]string{"3": "a"}},
		{"failures are forgotten",
			newCluster("a", "b").service("web", nil).
				failures("web", "a", 5, time.Hour).task("2", "web", 2, "b", nil).task("3", "web", 1, "", nil),
			map[string]string{"3": "a"}},
		{"least reserved before fewest in all, by the size of the node",
			newCluster("a", "b").service("web", nil).service("db", nil).node("a", sized(4)).node("b", sized(8)).
				task("x", "db", 1, "a", reserving(1)).task("y", "db", 2, "b", reserving(1)).task("z", "db", 3, "b", nil).
				task("2", "web", 1, "", nil),
			map[string]string{"2": "b"}},
		{"preferences spread over their values, not over nodes",
			newCluster("a", "b", "c", "d").service("web", preferring("node.labels.rack")).
				node("a", label("rack", "1")).node("b", label("rack", "2")).node("c", label("rack", "2")).node("d", label("rack", "2")).
				task("1", "web", 1, "", nil).task("2", "web", 2, "", nil).task("3", "web", 3, "", nil).task("4", "web", 4, "", nil),
			map[string]string{"1": "a", "2": "b", "3": "c", "4": "a"}},
		{"the next preference within the first",
			newCluster("a", "b", "c").service("web", preferring("node.labels.room", "engine.labels.disk")).
				node("a", label("room", "1")).node("b", label("room", "2")).node("c", label("room", "2")).
				node("a", disk("ssd")).node("b", disk("ssd")).node("c", disk("hdd")).
				task("1", "web", 1, "a", nil).task("2", "web", 2, "b", nil).task("3", "web", 3, "", nil).task("4", "web", 4, "", nil),
			map[string]string{"3": "c", "4": "a"}},
		{"a value whose nodes are full is passed over, and counts still",
			newCluster("a", "b", "c").service("web", func(s *api.Service) {
				preferring("node.labels.rack")(s)
				s.Spec.Placement.MaxReplicasPerNode = 1
			}).node("a", label("rack", "1")).node("b", label("rack", "2")).node("c", label("rack", "2")).
				task("1", "web", 1, "a", nil).task("2", "web", 2, "", nil).task("3", "web", 3, "", nil).task("4", "web", 4, "", nil),
			map[string]string{"2": "b", "3": "c", "4": "no suitable node: 3 full with 1 of this service"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { check(t, tt.c, tt.want) })
	}
}

// failures adds tasks of a service that failed on a node.
func (c *cluster) failures(service, node string, n int, ago time.Duration) *cluster {
	for i := range n {
		c.task(fmt.Sprint("f", i), service, 1, node, failed(ago))
	}
	return c
}

func sized(cpus int) func(*api.Node) {
	return func(n *api.Node) { n.Info.CPUs = cpus }
}

func reserving(cpus int64) func(*api.Task) {
	return func(t *api.Task) { t.Spec.Reservations.NanoCPUs = cpus * billion }
}

func preferring(keys ...string) func(*api.Service) {
	return func(s *api.Service) { s.Spec.Placement.Preferences = keys }
}

func disk(kind string) func(*api.Node) {
	return func(n *api.Node) { n.Info.EngineLabels = map[string]string{"disk": kind} }
}

func failed(ago time.Duration) func(*api.Task) {
	return func(t *api.Task) { t.Status = api.TaskStatus{State: api.TaskFailed, At: now.Add(-ago)} }
}

func TestPlanFilters(t *testing.T) {
	constrained := func(s *api.Service) {
		s.Spec.Placement.Constraints = []api.Constraint{{Key: "node.labels.storage", Op: api.OpEqual, Value: "fast"}}
	}
	reservingBoth := func(t *api.Task) {
		t.Spec.Reservations = api.Resources{NanoCPUs: 1_500_000_000, MemoryBytes: 512 << 20}
	}
	small := func(n *api.Node) { n.Info = api.NodeInfo{CPUs: 2, MemoryBytes: 1 << 30} }
	tests := []struct {
		name string
		c    *cluster
		want map[string]string
	}{
		{"no node at all", newCluster().service("web", nil).task("1", "web", 1, "", nil),
			map[string]string{"1": "no suitable node: the cluster has none"}},
		{"each node has its reason",
			newCluster("a", "b", "c", "d", "e").service("web", constrained).
				node("a", func(n *api.Node) { n.State = api.NodeDown }).
				node("b", func(n *api.Node) { n.Availability = api.AvailabilityDrain }).
				node("c", func(n *api.Node) { n.Availability = api.AvailabilityPause }).
				task("1", "web", 1, "", nil),
			map[string]string{"1": "no suitable node: 1 not ready, 1 drained, 1 paused, 2 do not satisfy node.labels.storage==fast"}},
		{"one node does not satisfy",
			newCluster("a").service("web", constrained).task("1", "web", 1, "", nil),
			map[string]string{"1": "no suitable node: 1 does not satisfy node.labels.storage==fast"}},
		{"constraint met",
			newCluster("a", "b").service("web", constrained).node("b", label("storage", "fast")).task("1", "web", 1, "", nil),
			map[string]string{"1": "b"}},
		{"max replicas per node",
			newCluster("a", "b").service("web", func(s *api.Service) { s.Spec.Placement.MaxReplicasPerNode = 1 }).
				task("1", "web", 1, "a", nil).task("2", "web", 2, "", nil).task("3", "web", 3, "", nil),
			map[string]string{"2": "b", "3": "no suitable node: 2 full with 1 of this service"}},
		{"reservations, also of tasks on their way out",
			newCluster("a", "b").service("web", nil).node("a", small).node("b", small).
				task("1", "web", 1, "a", func(t *api.Task) { reservingBoth(t); t.Desired = api.DesiredStop }).
				task("2", "web", 2, "", reservingBoth).task("3", "web", 3, "", reservingBoth),
			map[string]string{"2": "b", "3": "no suitable node: 2 without 1.5 CPUs to reserve"}},
		{"memory", newCluster("a").service("web", nil).node("a", small).
			task("1", "web", 1, "", func(t *api.Task) { t.Spec.Reservations.MemoryBytes = 2 << 30 }),
			map[string]string{"1": "no suitable node: 1 without 2048 MiB of memory to reserve"}},
		{"generic resources",
			newCluster("a", "b").service("web", nil).
				node("a", func(n *api.Node) { n.Info.Generic = map[string]int64{"gpu": 3} }).
				task("1", "web", 1, "a", gpus(1)).task("2", "web", 2, "", gpus(2)).task("3", "web", 3, "", gpus(1)),
			map[string]string{"2": "a", "3": "no suitable node: 2 without 1 gpu to reserve"}},
		{"platform",
			newCluster("a", "b", "c").service("web", func(s *api.Service) {
				s.Spec.Placement.Platforms = []api.Platform{{OS: "linux", Arch: "amd64"}, {OS: "linux", Arch: "riscv64"}}
			}).node("a", platform("linux", "aarch64")).node("b", platform("linux", "x86_64")).node("c", platform("windows", "amd64")).
				task("1", "web", 1, "", nil).task("2", "web", 2, "", nil),
			map[string]string{"1": "b", "2": "b"}},
		{"no node of the platform",
			newCluster("a").service("web", func(s *api.Service) { s.Spec.Placement.Platforms = []api.Platform{{Arch: "arm64"}} }).
				node("a", platform("linux", "x86_64")).task("1", "web", 1, "", nil),
			map[string]string{"1": "no suitable node: 1 not of a platform that the image is made for (arm64)"}},
		{"the platform of an image that was built",
			newCluster("a", "b").service("web", nil).node("a", platform("linux", "x86_64")).node("b", platform("linux", "aarch64")).
				task("1", "web", 1, "", func(t *api.Task) {
					t.Spec.Pin = api.ImagePin{ID: "x", Platform: api.Platform{OS: "linux", Arch: "arm64"}}
				}),
			map[string]string{"1": "b"}},
		{"drivers of volumes and of output, where the node has said which it has",
			newCluster("a", "b", "c").service("web", nil).service("db", nil).
				node("a", drivers([]string{"local"}, []string{"json-file"})).node("b", drivers([]string{"local", "nfs"}, []string{"json-file"})).
				node("c", drivers([]string{"local"}, []string{"json-file", "gelf"})).
				task("1", "db", 1, "", func(t *api.Task) {
					t.Spec.Mounts = []api.Mount{{Type: api.MountVolume, Source: "d", Driver: "nfs", Shared: true}}
				}).
				task("2", "web", 1, "", func(t *api.Task) { t.Spec.Log = &api.LogConfig{Driver: "gelf"} }).
				task("3", "web", 2, "", func(t *api.Task) { t.Spec.Log = &api.LogConfig{Driver: "splunk"} }),
			map[string]string{"1": "b", "2": "c", "3": "no suitable node: 3 without the log driver splunk"}},
		{"nodes that can encrypt, for an encrypted network",
			func() *cluster {
				c := newCluster("a", "b").
					service("web", func(s *api.Service) { s.Spec.Networks = []string{"open", "secret"} }).
					service("db", func(s *api.Service) { s.Spec.Networks = []string{"open"} }).
					node("a", func(n *api.Node) { n.Info.Encryption = &api.Encryption{Lacks: "no WireGuard"} }).
					node("b", func(n *api.Node) { n.Info.Encryption = &api.Encryption{} }).
					task("x", "db", 1, "b", nil).
					task("1", "web", 1, "", nil).task("2", "web", 2, "", nil).task("3", "db", 2, "", nil)
				c.Networks = map[api.NetworkID]*api.Network{"o": {ID: "o", Name: "open"}, "s": {ID: "s", Name: "secret", Encrypted: true}}
				return c
			}(),
			map[string]string{"1": "b", "2": "b", "3": "a"}},
		{"an image that a node could not get is tried elsewhere",
			newCluster("a", "b").service("web", nil).task("1", "web", 1, "a", noImage(time.Second)).task("2", "web", 1, "", nil),
			map[string]string{"2": "b"}},
		{"for a while",
			newCluster("a").service("web", nil).task("1", "web", 1, "a", noImage(time.Second)).task("2", "web", 1, "", nil),
			map[string]string{"2": "no suitable node: 1 could not get the image  a moment ago"}},
		{"and then again",
			newCluster("a").service("web", nil).task("1", "web", 1, "a", noImage(imageMemory)).task("2", "web", 1, "", nil),
			map[string]string{"2": "a"}},
		{"a port of the node itself is one task's, also of another service",
			newCluster("a", "b", "c").service("web", hostPorts(80, api.TCP)).service("dns", hostPorts(80, api.UDP)).service("old", hostPorts(80, api.TCP)).
				task("0", "old", 1, "c", nil).
				task("1", "web", 1, "", nil).task("2", "web", 2, "", nil).task("3", "web", 3, "", nil).task("4", "dns", 1, "", nil),
			map[string]string{"1": "b", "2": "a", "3": "no suitable node: 3 without a free port 80/tcp", "4": "a"}},
		{"a global task goes to its node or nowhere",
			newCluster("a", "b").service("agent", nil).node("b", func(n *api.Node) { n.State = api.NodeDown }).
				task("1", "agent", 0, "a", pendingGlobal).task("2", "agent", 0, "b", pendingGlobal),
			map[string]string{"1": "a", "2": "no suitable node: node host-b is not ready"}},
		{"delay, missing address and wish to stop hold back without a word",
			newCluster("a").service("web", nil).
				task("1", "web", 1, "", func(t *api.Task) { t.NotBefore = now.Add(time.Second) }).
				task("2", "web", 2, "", func(t *api.Task) { t.Endpoint.Addr = netip.Addr{} }).
				task("3", "web", 3, "", func(t *api.Task) { t.Desired = api.DesiredStop }).
				task("4", "web", 4, "", func(t *api.Task) { t.NotBefore = now }),
			map[string]string{"4": "a"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { check(t, tt.c, tt.want) })
	}
}

func gpus(n int64) func(*api.Task) {
	return func(t *api.Task) { t.Spec.Reservations.Generic = map[string]int64{"gpu": n} }
}

func platform(os, arch string) func(*api.Node) {
	return func(n *api.Node) { n.Info.OS, n.Info.Arch = os, arch }
}

func drivers(volumes, logs []string) func(*api.Node) {
	return func(n *api.Node) { n.Info.VolumeDrivers, n.Info.LogDrivers = volumes, logs }
}

func noImage(ago time.Duration) func(*api.Task) {
	return func(t *api.Task) {
		t.Status = api.TaskStatus{State: api.TaskRejected, NoImage: true, At: now.Add(-ago)}
	}
}

func hostPorts(port uint16, protocol api.Protocol) func(*api.Service) {
	return func(s *api.Service) {
		s.Spec.Ports = []api.Port{{Published: port, Target: port, Protocol: protocol, Host: true}}
	}
}

func pendingGlobal(t *api.Task) { t.Status.State = api.TaskPending }

func TestPlanVolumes(t *testing.T) {
	mounting := func(t *api.Task) {
		t.Spec.Mounts = []api.Mount{{Type: api.MountVolume, Source: "blog_data", Target: "/data"}}
	}
	perSlot := func(t *api.Task) {
		t.Spec.Mounts = []api.Mount{{Type: api.MountVolume, Source: "data-{{.Task.Slot}}", Target: "/data"}}
	}
	ended := func(state api.TaskState, created api.Index) func(*api.Task) {
		return func(t *api.Task) { mounting(t); t.Status.State = state; t.Meta.Created = created }
	}
	db := func() *cluster {
		return newCluster("a", "b", "c").service("db", nil).service("web", nil).
			task("w1", "web", 1, "b", nil).task("w2", "web", 2, "b", nil).
			task("1", "db", 1, "b", ended(api.TaskFailed, 5)).
			task("0", "db", 1, "c", ended(api.TaskFailed, 4)).
			task("r", "db", 1, "a", ended(api.TaskRejected, 6)). // never made its volume
			task("s", "db", 2, "a", ended(api.TaskFailed, 7))    // another slot
	}
	tests := []struct {
		name string
		c    *cluster
		want map[string]string
	}{
		{"goes home", db().task("2", "db", 1, "", mounting), map[string]string{"2": "b"}},
		{"without volume goes where there is room", db().task("2", "db", 1, "", nil), map[string]string{"2": "a"}},
		{"waits while its home takes no new tasks",
			db().node("b", func(n *api.Node) { n.Availability = api.AvailabilityPause }).task("2", "db", 1, "", mounting),
			map[string]string{"2": "no suitable node: 1 paused, 2 without the volume blog_data, which is on host-b"}},
		{"waits for a drained home",
			db().node("b", func(n *api.Node) { n.Availability = api.AvailabilityDrain }).task("2", "db", 1, "", mounting),
			map[string]string{"2": "no suitable node: 1 drained, 2 without the volume blog_data, which is on host-b"}},
		{"waits for a lost home, and says so",
			db().node("b", func(n *api.Node) { n.State = api.NodeDown }).task("2", "db", 1, "", mounting),
			map[string]string{"2": "no suitable node: 1 not ready, 2 without the volume blog_data, which is on host-b (away)"}},
		{"waits until a home that is back has ended what was given up",
			db().task("1", "db", 1, "b", ended(api.TaskOrphaned, 5)).task("2", "db", 1, "", mounting),
			map[string]string{"2": "no suitable node: node host-b is back and has not yet ended the last task with the volume blog_data"}},
		{"and goes there then",
			db().task("1", "db", 1, "b", func(t *api.Task) { ended(api.TaskOrphaned, 5)(t); t.Status.Removed = true }).task("2", "db", 1, "", mounting),
			map[string]string{"2": "b"}},
		{"a shared volume is everywhere",
			db().node("b", func(n *api.Node) { n.State = api.NodeDown }).task("2", "db", 1, "", func(t *api.Task) {
				mounting(t)
				t.Spec.Mounts[0].Shared = true
			}),
			map[string]string{"2": "a"}},
		{"a volume that its node has no more binds nobody",
			db().node("b", drivers([]string{"local"}, nil)).
				task("1", "db", 1, "b", func(t *api.Task) { ended(api.TaskFailed, 5)(t); t.Status.At = now.Add(-time.Hour) }).
				task("2", "db", 1, "", mounting),
			map[string]string{"2": "a"}},
		{"a new slot gets a volume of its own", db().task("2", "db", 3, "", mounting), map[string]string{"2": "a"}},
		{"a new service takes what an earlier one left",
			newCluster("a", "b", "c").service("db", nil).node("c", holding("blog_data")).task("2", "db", 1, "", mounting),
			map[string]string{"2": "c"}},
		{"a volume for each slot is taken by its slot",
			newCluster("a", "b", "c").service("db", nil).node("b", holding("data-2")).node("c", holding("data-1")).
				task("1", "db", 1, "", perSlot).task("2", "db", 2, "", perSlot),
			map[string]string{"1": "c", "2": "b"}},
		{"and stays where that ran",
			newCluster("a", "b", "c").service("db", nil).
				task("0", "db", 1, "c", func(t *api.Task) { perSlot(t); t.Status.State = api.TaskFailed }).task("1", "db", 1, "", perSlot),
			map[string]string{"1": "c"}},
		{"one node each, while there are any",
			newCluster("a", "b", "c").service("db", nil).node("c", holding("blog_data")).node("b", holding("blog_data")).
				task("1", "db", 1, "", mounting).task("2", "db", 2, "", mounting).task("3", "db", 3, "", mounting),
			map[string]string{"1": "b", "2": "c", "3": "a"}},
		{"two services share one volume on one node",
			newCluster("a", "b").service("db", nil).service("backup", nil).
				task("1", "backup", 1, "", mounting).task("2", "db", 1, "", mounting),
			map[string]string{"1": "a", "2": "a"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { check(t, tt.c, tt.want) })
	}
}

func holding(volume string) func(*api.Node) {
	return func(n *api.Node) { n.Info.Volumes = []string{volume} }
}

func TestPlanDependencies(t *testing.T) {
	needs := func(c api.DependencyCondition) func(*api.Service) {
		return func(s *api.Service) { s.Spec.DependsOn = []api.Dependency{{Service: "blog_db", Condition: c}} }
	}
	db := func(c api.DependencyCondition, state api.TaskState) *cluster {
		return newCluster("a").service("web", needs(c)).service("db", nil).task("1", "web", 1, "", nil).
			task("d", "db", 1, "a", func(t *api.Task) { t.Status.State = state })
	}
	placed := map[string]string{"1": "a"}
	waits := func(what string) map[string]string { return map[string]string{"1": "waits for blog_db " + what} }
	tests := []struct {
		name string
		c    *cluster
		want map[string]string
	}{
		{"not there", newCluster("a").service("web", needs(api.DependencyStarted)).task("1", "web", 1, "", nil),
			waits(", which does not exist")},
		{"not started", db(api.DependencyStarted, api.TaskPreparing), waits("to start")},
		{"started", db(api.DependencyStarted, api.TaskStarting), placed},
		{"not healthy", db(api.DependencyHealthy, api.TaskStarting), waits("to be healthy")},
		{"healthy", db(api.DependencyHealthy, api.TaskRunning), placed},
		{"not complete", db(api.DependencyCompleted, api.TaskFailed), waits("to complete")},
		{"complete", db(api.DependencyCompleted, api.TaskComplete), placed},
		{"complete before its spec changed",
			db(api.DependencyCompleted, api.TaskComplete).service("db", func(s *api.Service) { s.SpecVersion = 2 }), waits("to complete")},
		{"a job is complete when all of it is",
			db(api.DependencyCompleted, api.TaskComplete).service("db", func(s *api.Service) {
				s.Spec.Mode, s.Spec.Replicas = api.ModeReplicatedJob, 2
			}), waits("to complete")},
		{"a job that is complete",
			db(api.DependencyCompleted, api.TaskComplete).service("db", func(s *api.Service) {
				s.Spec.Mode, s.Spec.Replicas = api.ModeReplicatedJob, 1
			}), placed},
		{"a global task waits, too",
			db(api.DependencyHealthy, api.TaskStarting).task("1", "web", 0, "a", pendingGlobal), waits("to be healthy")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.name == "not there" {
				tt.want = map[string]string{"1": "waits for blog_db, which does not exist"}
			}
			check(t, tt.c, tt.want)
		})
	}
}

func TestPlanKeepsTheReasonThatATaskWasMadeFor(t *testing.T) {
	c := newCluster("a").service("web", nil).
		task("1", "web", 1, "", func(t *api.Task) { t.Reason = "the last one failed" }).
		task("2", "web", 2, "", func(t *api.Task) { t.Reason = "no suitable node: 1 not ready" })
	want := map[api.TaskID]string{"1": "the last one failed", "2": ""}
	got := map[api.TaskID]string{}
	for _, change := range Plan(&c.Snapshot, now) {
		got[change.Task.ID] = change.Task.Reason
		if want := (api.TaskStatus{State: api.TaskAssigned, At: now}); change.Task.Status != want {
			t.Errorf("status of %s: %+v, want %+v", change.Task.ID, change.Task.Status, want)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("reasons (-want +got):\n%s", diff)
	}
}

func TestExplain(t *testing.T) {
	c := newCluster("a", "b", "c").node("b", func(n *api.Node) { n.State = api.NodeDown }).
		service("web", func(s *api.Service) {
			s.Spec.Placement.Constraints = []api.Constraint{{Key: "node.id", Op: api.OpNotEqual, Value: "c"}}
		}).task("1", "web", 1, "", nil)
	var got []string
	for _, o := range Explain(&c.Snapshot, c.Tasks["1"], now) {
		got = append(got, o.Node.Hostname+" "+o.Reason)
	}
	want := []string{"host-a ", "host-b is not ready", "host-c does not satisfy node.id!=c"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("opinions (-want +got):\n%s", diff)
	}
}

// check plans, compares, and plans again on the result, where nothing is left.
func check(t *testing.T, c *cluster, want map[string]string) {
	t.Helper()
	changes := Plan(&c.Snapshot, now)
	if diff := cmp.Diff(want, outcome(changes)); diff != "" {
		t.Errorf("outcome (-want +got):\n%s", diff)
	}
	if again := Plan(c.Snapshot.With(changes), now); len(again) > 0 {
		t.Errorf("planned again: %v", outcome(again))
	}
}

// Whatever the sizes, replicas of one service end up evenly spread, and no
// reservation is ever exceeded.
func TestPlanIsEvenAndFits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes := rapid.IntRange(1, 8).Draw(t, "nodes")
		replicas := rapid.IntRange(0, 40).Draw(t, "replicas")
		memory := int64(rapid.IntRange(1, 10).Draw(t, "memory"))
		c := newCluster().service("web", nil)
		for i := range nodes {
			id := api.NodeID(fmt.Sprintf("n%d", i))
			c.Nodes[id] = &api.Node{ID: id, State: api.NodeReady, Info: api.NodeInfo{MemoryBytes: memory}}
		}
		for i := range replicas {
			c.task(fmt.Sprintf("t%02d", i), "web", i+1, "", func(t *api.Task) { t.Spec.Reservations.MemoryBytes = 1 })
		}
		changes := Plan(&c.Snapshot, now)
		placed, on := 0, map[api.NodeID]int{}
		for _, change := range changes {
			if id := change.Task.NodeID; id != "" {
				placed++
				on[id]++
			}
		}
		if want := min(replicas, nodes*int(memory)); placed != want {
			t.Fatalf("%d placed, want %d", placed, want)
		}
		for id := range c.Nodes {
			if n := on[id]; n < placed/nodes || n > (placed+nodes-1)/nodes || n > int(memory) {
				t.Fatalf("%s has %d of %d on %d nodes", id, n, placed, nodes)
			}
		}
		if again := Plan(&c.Snapshot, now); !cmp.Equal(changes, again, byValue) {
			t.Fatal("the same snapshot gave another plan")
		}
	})
}
