package scheduler

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/orch-dev/orch/pkg/api"
)

// What is remembered of earlier plans makes no difference, whatever has changed.
func TestMemoryChangesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var m Memory
		snap := &api.Snapshot{Nodes: map[api.NodeID]*api.Node{}, Services: map[api.ServiceID]*api.Service{}, Tasks: map[api.TaskID]*api.Task{}}
		made := 0
		pick := func(ids []string) string { slices.Sort(ids); return rapid.SampledFrom(ids).Draw(t, "one") }
		node := func(t *rapid.T) {
			made++
			id := api.NodeID(fmt.Sprintf("n%d", rapid.IntRange(0, 5).Draw(t, "node")))
			snap.Nodes[id] = &api.Node{ID: id, Hostname: string(id), State: api.NodeReady, Info: api.NodeInfo{CPUs: rapid.IntRange(1, 4).Draw(t, "CPUs")}}
		}
		service := func(t *rapid.T) {
			id := api.ServiceID(fmt.Sprintf("s%d", rapid.IntRange(0, 2).Draw(t, "service")))
			s := &api.Service{ID: id, SpecVersion: api.Index(rapid.IntRange(1, 2).Draw(t, "version")), Spec: api.ServiceSpec{Name: string(id)}}
			if rapid.Bool().Draw(t, "host port") {
				s.Spec.Ports = []api.Port{{Published: 80, Host: true}}
			}
			snap.Services[id] = s
		}
		task := func(t *rapid.T) {
			if len(snap.Services) == 0 {
				return
			}
			made++
			task := &api.Task{
				ID: api.TaskID(fmt.Sprintf("t%d", made)), Slot: made, Desired: api.DesiredRun, SpecVersion: 1,
				ServiceID: api.ServiceID(pick(slices.Collect(stringsOf(maps.Keys(snap.Services))))),
				Endpoint:  api.Endpoint{Addr: netip.AddrFrom4([4]byte{10, 0, 0, byte(made)})},
				Status:    api.TaskStatus{State: api.TaskPending},
			}
			task.Spec.Reservations.NanoCPUs = int64(rapid.IntRange(0, 2).Draw(t, "CPUs")) * billion / 2
			if rapid.Bool().Draw(t, "volume") {
				task.Spec.Mounts = []api.Mount{{Type: api.MountVolume, Source: "data"}}
			}
			snap.Tasks[task.ID] = task
		}
		turn := func(t *rapid.T) {
			if len(snap.Tasks) == 0 {
				return
			}
			next := *snap.Tasks[api.TaskID(pick(slices.Collect(stringsOf(maps.Keys(snap.Tasks)))))]
			next.Status.State = rapid.SampledFrom([]api.TaskState{api.TaskAssigned, api.TaskRunning, api.TaskFailed, api.TaskRejected}).Draw(t, "state")
			next.Desired = rapid.SampledFrom([]api.DesiredState{api.DesiredRun, api.DesiredStop}).Draw(t, "desired")
			snap.Tasks[next.ID] = &next
		}
		remove := func(t *rapid.T) {
			switch {
			case len(snap.Tasks) > 0 && rapid.Bool().Draw(t, "task"):
				delete(snap.Tasks, api.TaskID(pick(slices.Collect(stringsOf(maps.Keys(snap.Tasks))))))
			case len(snap.Nodes) > 0 && rapid.Bool().Draw(t, "node"):
				delete(snap.Nodes, api.NodeID(pick(slices.Collect(stringsOf(maps.Keys(snap.Nodes))))))
			case len(snap.Services) > 0:
				delete(snap.Services, api.ServiceID(pick(slices.Collect(stringsOf(maps.Keys(snap.Services))))))
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"node": node, "service": service, "task": task, "tasks": func(t *rapid.T) { task(t); task(t); task(t) }, "turn": turn, "remove": remove,
			"": func(t *rapid.T) {
				got := m.Plan(snap, now)
				if diff := cmp.Diff(Plan(snap, now), got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
					t.Fatalf("with a memory (-without +with):\n%s", diff)
				}
				snap = snap.With(got)
			},
		})
	})
}

// stringsOf are IDs as strings.
func stringsOf[T ~string](ids func(func(T) bool)) func(func(string) bool) {
	return func(yield func(string) bool) {
		for id := range ids {
			if !yield(string(id)) {
				return
			}
		}
	}
}
