package scheduler

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/orch-dev/orch/pkg/api"
)

// What is kept of earlier plans makes no difference to the next, whatever has
// changed: it is what would be counted of the state as a whole. Some plans come to
// nothing, so that what follows comes of the state before them.
func TestMemoryChangesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var m Memory
		w := &world{Snapshot: &api.Snapshot{}}
		check := func(t *rapid.T) {
			got := m.Plan(w.Snapshot, now)
			if diff := cmp.Diff(Plan(w.Snapshot, now), got, byValue); diff != "" {
				t.Fatalf("with a memory (-without +with):\n%s", diff)
			}
			if diff := cmp.Diff(newIndex(w.Snapshot), m.counted, byCounts...); diff != "" {
				t.Fatalf("what is remembered (-counted anew +remembered):\n%s", diff)
			}
			switch rapid.SampledFrom([]string{"made", "lost", "planned on"}).Draw(t, "the plan was") {
			case "made":
				w.Snapshot = w.With(got)
			case "planned on":
				m.Plan(w.With(got), now)
			}
		}
		check(t)
		t.Repeat(map[string]func(*rapid.T){
			"node": w.node, "service": w.service, "task": w.task, "tasks": func(t *rapid.T) { w.task(t); w.task(t); w.task(t) },
			"turn": w.turn, "remove": w.remove, "plan": check,
		})
		check(t)
	})
}

// byCounts compares indexes: objects are the same or not.
var byCounts = []cmp.Option{
	cmp.AllowUnexported(index{}, group{}, load{}, amounts{}, use{}),
	cmp.Comparer(func(a, b *api.Task) bool { return a == b }),
	cmp.Comparer(func(a, b *api.Service) bool { return a == b }),
	cmp.Comparer(func(a, b *api.Node) bool { return a == b }),
	cmp.Comparer(func(a, b *api.Snapshot) bool { return a == b }),
	cmpopts.IgnoreMapEntries(func(_ api.ServiceID, g *group) bool { return len(g.tasks) == 0 }),
	cmpopts.SortSlices(func(a, b int) bool { return a < b }),
	cmpopts.EquateEmpty(),
}

// world is a state that changes at random.
type world struct {
	*api.Snapshot
	made int
}

func (w *world) put(c api.Change) { w.Snapshot = w.With([]api.Change{c}) }

func (w *world) node(t *rapid.T) {
	id := api.NodeID(fmt.Sprintf("n%d", rapid.IntRange(0, 5).Draw(t, "node")))
	n := &api.Node{ID: id, Hostname: string(id), State: api.NodeReady, Info: api.NodeInfo{CPUs: rapid.IntRange(1, 4).Draw(t, "CPUs")}}
	if rapid.Bool().Draw(t, "has a volume") {
		n.Info.Volumes = []string{"data"}
	}
	if rapid.IntRange(0, 9).Draw(t, "renamed") == 0 {
		n.Hostname += "-too"
	}
	w.put(api.Change{Node: n})
}

func (w *world) service(t *rapid.T) {
	id := api.ServiceID(fmt.Sprintf("s%d", rapid.IntRange(0, 2).Draw(t, "service")))
	s := &api.Service{ID: id, SpecVersion: api.Index(rapid.IntRange(1, 2).Draw(t, "version")), Spec: api.ServiceSpec{Name: string(id)}}
	if rapid.Bool().Draw(t, "host port") {
		s.Spec.Ports = []api.Port{{Published: 80, Host: true}}
	}
	w.put(api.Change{Service: s})
}

func (w *world) task(t *rapid.T) {
	w.made++
	task := &api.Task{
		ID: api.TaskID(fmt.Sprintf("t%d", w.made)), Slot: w.made, Desired: api.DesiredRun, SpecVersion: 1,
		ServiceID: api.ServiceID(fmt.Sprintf("s%d", rapid.IntRange(0, 2).Draw(t, "service"))),
		Endpoint:  api.Endpoint{Addr: netip.AddrFrom4([4]byte{10, 0, 0, byte(w.made)})},
		Status:    api.TaskStatus{State: api.TaskPending},
	}
	task.Spec.Reservations.NanoCPUs = int64(rapid.IntRange(0, 2).Draw(t, "CPUs")) * billion / 2
	if rapid.IntRange(0, 3).Draw(t, "reserves a GPU") == 0 {
		task.Spec.Reservations.Generic = map[string]int64{"gpu": 1}
	}
	if source := rapid.SampledFrom([]string{"", "data", "{{.Node.Hostname}}"}).Draw(t, "volume"); source != "" {
		task.Spec.Mounts = []api.Mount{{Type: api.MountVolume, Source: source}}
	}
	w.put(api.Change{Task: task})
}

func (w *world) turn(t *rapid.T) {
	if len(w.Tasks) == 0 {
		return
	}
	next := *w.Tasks[oneOf(t, w.Tasks)]
	next.Status.State = rapid.SampledFrom([]api.TaskState{api.TaskAssigned, api.TaskRunning, api.TaskFailed, api.TaskRejected}).Draw(t, "state")
	next.Desired = rapid.SampledFrom([]api.DesiredState{api.DesiredRun, api.DesiredStop}).Draw(t, "desired")
	next.Status.At = now.Add(-time.Duration(rapid.IntRange(0, 90).Draw(t, "seconds ago")) * time.Second)
	next.Status.NoImage = next.Status.State == api.TaskRejected && rapid.Bool().Draw(t, "no image")
	w.put(api.Change{Task: &next})
}

func (w *world) remove(t *rapid.T) {
	switch {
	case len(w.Tasks) > 0 && rapid.Bool().Draw(t, "task"):
		w.put(api.Change{Task: w.Tasks[oneOf(t, w.Tasks)], Delete: true})
	case len(w.Nodes) > 0 && rapid.Bool().Draw(t, "node"):
		w.put(api.Change{Node: w.Nodes[oneOf(t, w.Nodes)], Delete: true})
	case len(w.Services) > 0:
		w.put(api.Change{Service: w.Services[oneOf(t, w.Services)], Delete: true})
	}
}

// oneOf draws one of a snapshot's objects.
func oneOf[ID ~string, V any](t *rapid.T, objects map[ID]*V) ID {
	return rapid.SampledFrom(slices.Sorted(maps.Keys(objects))).Draw(t, "one")
}
