package orchestrator_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/orchestrator"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// ago is a time some seconds before now.
func ago(seconds int) time.Time { return now.Add(time.Duration(-seconds) * time.Second) }

// state is a snapshot with one service, web, and nodes a, b and c, at index 100.
// Every live node has acknowledged index 50.
func state(spec func(*api.Service), tasks ...*api.Task) *api.Snapshot {
	svc := &api.Service{
		ID: "web", Stack: "blog", SpecVersion: 10,
		Spec: api.ServiceSpec{
			Name: "blog_web", Mode: api.ModeReplicated, Replicas: 1,
			Task: api.TaskSpec{Image: "web:1"}, Networks: []string{"blog_default"},
			Update:  api.UpdateConfig{Parallelism: 1, Order: api.StopFirst},
			Restart: api.RestartPolicy{Condition: api.RestartAny, Delay: 5 * time.Second},
		},
	}
	if spec != nil {
		spec(svc)
	}
	s := &api.Snapshot{
		Index:    100,
		Nodes:    map[api.NodeID]*api.Node{},
		Services: map[api.ServiceID]*api.Service{"web": svc},
		Networks: map[api.NetworkID]*api.Network{"net": {ID: "net", Name: "blog_default", Number: 1}},
		Tasks:    map[api.TaskID]*api.Task{},
	}
	for _, id := range []api.NodeID{"a", "b", "c"} {
		s.Nodes[id] = &api.Node{ID: id, Hostname: "host-" + string(id), State: api.NodeReady, Availability: api.AvailabilityActive}
	}
	for _, t := range tasks {
		s.Tasks[t.ID] = t
	}
	return s
}

func on(s *api.Snapshot, id api.NodeID, change func(*api.Node)) *api.Snapshot {
	change(s.Nodes[id])
	return s
}

func replicas(n int) func(*api.Service) {
	return func(s *api.Service) { s.Spec.Replicas = n }
}

// task is one of web's current spec, made at the index its ID ends with.
func task(id string, slot int, node api.NodeID, state api.TaskState, changes ...func(*api.Task)) *api.Task {
	var created api.Index
	fmt.Sscanf(id, "t%d", &created)
	t := &api.Task{
		Meta: api.Meta{Created: created, Modified: 40}, ID: api.TaskID(id),
		ServiceID: "web", ServiceName: "blog_web", Stack: "blog",
		Slot: slot, NodeID: node, SpecVersion: 10, Spec: api.TaskSpec{Image: "web:1"},
		Networks: []api.NetworkID{"net"}, Desired: api.DesiredRun, CreatedAt: ago(600),
		Status:   api.TaskStatus{State: state, At: ago(300)},
		Endpoint: api.Endpoint{State: api.EndpointPending, Since: 40},
	}
	switch {
	case state == api.TaskRunning:
		t.Endpoint.State, t.ReadySince = api.EndpointReady, ago(300)
	case state.Terminal():
		t.Endpoint.State, t.Desired, t.Status.Removed = api.EndpointGone, api.DesiredRemove, true
		t.EndedAt = ago(300)
	}
	return edit(t, changes...)
}

func edit(t *api.Task, changes ...func(*api.Task)) *api.Task {
	c := *t
	for _, change := range changes {
		change(&c)
	}
	return &c
}

func old(t *api.Task)     { t.SpecVersion, t.Spec.Env = 9, []string{"OLD=yes"} }
func live(t *api.Task)    { t.Desired, t.Status.Removed, t.EndedAt = api.DesiredRun, false, time.Time{} }
func unacked(t *api.Task) { t.Endpoint.Since = 60 }

func endpoint(s api.EndpointState) func(*api.Task) {
	return func(t *api.Task) { t.Endpoint.State, t.Endpoint.Since = s, 0 }
}
func desired(d api.DesiredState) func(*api.Task) { return func(t *api.Task) { t.Desired = d } }
func reason(r string) func(*api.Task)            { return func(t *api.Task) { t.Reason = r } }
func at(when time.Time) func(*api.Task)          { return func(t *api.Task) { t.Status.At = when } }
func message(m string) func(*api.Task)           { return func(t *api.Task) { t.Status.Message = m } }

// draining is a task as it is once its drain is in the store.
func draining(since api.Index) func(*api.Task) {
	return func(t *api.Task) {
		t.Desired, t.DrainingSince = api.DesiredDrain, ago(1)
		t.Endpoint = api.Endpoint{State: api.EndpointDraining, Since: since}
	}
}

// What a plan may say of a task.

func put(t *api.Task, changes ...func(*api.Task)) api.Change {
	return api.Change{Task: edit(t, changes...)}
}

func drain(t *api.Task, why string) api.Change {
	return put(t, desired(api.DesiredDrain), endpoint(api.EndpointDraining), reason(why),
		func(t *api.Task) { t.DrainingSince = now })
}

func buried(t *api.Task) api.Change {
	return put(t, desired(api.DesiredRemove), endpoint(api.EndpointGone), func(t *api.Task) { t.EndedAt = now })
}

// made is the nth new task of a plan.
func made(n, slot int, node api.NodeID, changes ...func(*api.Task)) api.Change {
	return put(&api.Task{
		ID: api.TaskID(fmt.Sprintf("new%d", n)), ServiceID: "web", ServiceName: "blog_web", Stack: "blog",
		Slot: slot, NodeID: node, SpecVersion: 10, Spec: api.TaskSpec{Image: "web:1"},
		Networks: []api.NetworkID{"net"}, Desired: api.DesiredRun, CreatedAt: now,
		Status:   api.TaskStatus{State: api.TaskPending, At: now},
		Endpoint: api.Endpoint{State: api.EndpointPending},
	}, changes...)
}

func notBefore(d time.Duration) func(*api.Task) {
	return func(t *api.Task) { t.NotBefore = now.Add(d) }
}

type planTest struct {
	name string
	snap *api.Snapshot
	want []api.Change
}

func (tt planTest) run(t *testing.T) {
	made := 0
	got := orchestrator.Plan(orchestrator.Input{
		Snapshot: tt.snap, Now: now, Acked: 50,
		NewID: func() api.TaskID { made++; return api.TaskID(fmt.Sprintf("new%d", made)) },
	})
	if diff := cmp.Diff(tt.want, got, byValue); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
}

func runPlans(t *testing.T, tests []planTest) {
	for _, tt := range tests {
		t.Run(tt.name, tt.run)
	}
}

func TestReplicas(t *testing.T) {
	t1, t2, t3 := task("t21", 1, "a", api.TaskRunning), task("t22", 2, "b", api.TaskRunning), task("t23", 3, "c", api.TaskRunning)
	assigned := task("t24", 4, "c", api.TaskAssigned)
	waiting := task("t25", 5, "", api.TaskPending)
	runPlans(t, []planTest{
		{"a new service gets a task for each slot", state(replicas(2)), []api.Change{made(1, 1, ""), made(2, 2, "")}},
		{"not before its networks exist", state(func(s *api.Service) { s.Spec.Networks = []string{"other"} }), nil},
		{"nothing to do", state(replicas(3), t1, t2, t3), nil},
		{"scale up touches no task", state(replicas(4), t1, t2, t3), []api.Change{made(1, 4, "")}},
		{"scale down ends the highest slots", state(replicas(1), t1, t2, t3, assigned, waiting), []api.Change{
			drain(t2, "scaled down to 1"), drain(t3, "scaled down to 1"),
			put(assigned, desired(api.DesiredStop), reason("scaled down to 1")),
			api.DeleteTask(waiting),
		}},
		{"a slot whose task still ends waits for it", state(nil, edit(t1, draining(60))), nil},
		{"a slot whose task was stopped is filled again",
			state(nil, task("t21", 1, "a", api.TaskShutdown, reason("scaled down to 0"))),
			[]api.Change{made(1, 1, "", reason("scaled down to 0"))}},
		{"of two tasks the one that is further stays",
			state(nil, task("t21", 1, "a", api.TaskPreparing), task("t22", 1, "b", api.TaskRunning)),
			[]api.Change{put(task("t21", 1, "a", api.TaskPreparing), desired(api.DesiredStop), reason("another task of the slot is further"))}},
	})
}

func TestFollow(t *testing.T) {
	started := task("t21", 1, "a", api.TaskRunning, endpoint(api.EndpointPending), func(t *api.Task) { t.ReadySince = time.Time{} })
	drainingTask := task("t21", 1, "a", api.TaskRunning, draining(50))
	stopped := task("t21", 1, "a", api.TaskShutdown, draining(45), desired(api.DesiredStop), func(t *api.Task) { t.Status.Removed, t.EndedAt = false, time.Time{} })
	runPlans(t, []planTest{
		{"what runs is ready", state(nil, started), []api.Change{put(started, endpoint(api.EndpointReady), func(t *api.Task) { t.ReadySince = now })}},
		{"a drain that some node has not acknowledged waits", state(replicas(0), edit(drainingTask, draining(51))), nil},
		{"one that all have acknowledged ends in a stop", state(replicas(0), drainingTask),
			[]api.Change{put(drainingTask, desired(api.DesiredStop))}},
		{"what has ended is taken off the network and removed", state(replicas(0), stopped), []api.Change{buried(stopped)}},
		{"a removed service's tasks drain, and are deleted when nothing is left of them",
			&api.Snapshot{Nodes: state(nil).Nodes, Tasks: map[api.TaskID]*api.Task{
				"t21": task("t21", 1, "a", api.TaskRunning), "t22": task("t22", 2, "a", api.TaskShutdown),
				"t23": task("t23", 3, "a", api.TaskShutdown, func(t *api.Task) { t.Status.Removed = false }),
			}},
			[]api.Change{
				drain(task("t21", 1, "a", api.TaskRunning), "the service was removed"),
				api.DeleteTask(task("t22", 2, "a", api.TaskShutdown)),
			}},
	})
}

func TestRestart(t *testing.T) {
	fresh := task("t23", 1, "a", api.TaskFailed, live, at(now), message("exit code 1\nlast line"), func(t *api.Task) {
		t.Endpoint.State = api.EndpointReady
	})
	earlier := task("t22", 1, "a", api.TaskFailed, at(ago(20)))
	longAgo := task("t22", 1, "a", api.TaskFailed, at(ago(3600)))
	complete := edit(fresh, func(t *api.Task) { t.Status.State = api.TaskComplete; t.Status.Message = "" })
	policy := func(change func(*api.RestartPolicy)) func(*api.Service) {
		return func(s *api.Service) { change(&s.Spec.Restart) }
	}
	failedOnce := "the last task failed: exit code 1"
	inARow := "restart after 5s, 2 ends in a row: " + failedOnce
	runPlans(t, []planTest{
		{"a first failure is replaced at once", state(nil, fresh), []api.Change{buried(fresh), made(1, 1, "", reason(failedOnce))}},
		{"a second in a row after the delay", state(nil, earlier, fresh),
			[]api.Change{buried(fresh), made(1, 1, "", reason(inARow), notBefore(5*time.Second))}},
		{"long ago is not in a row", state(nil, longAgo, fresh), []api.Change{buried(fresh), made(1, 1, "", reason(failedOnce))}},
		{"no policy restarts in a tight loop", state(policy(func(p *api.RestartPolicy) { p.Delay = 0 }), earlier, fresh),
			[]api.Change{buried(fresh), made(1, 1, "", reason("restart after 1s, 2 ends in a row: "+failedOnce), notBefore(time.Second))}},
		{"rejected tasks back off, too",
			state(nil, task("t22", 1, "a", api.TaskRejected, at(ago(5))), task("t23", 1, "a", api.TaskRejected, at(now), message("no such image"))),
			[]api.Change{made(1, 1, "", reason("restart after 5s, 2 ends in a row: the last task could not be started: no such image"),
				notBefore(5*time.Second))}},
		{"attempts run out", state(policy(func(p *api.RestartPolicy) { p.MaxAttempts = 1 }), earlier, fresh), []api.Change{buried(fresh)}},
		{"attempts outside of the window do not count",
			state(policy(func(p *api.RestartPolicy) { p.MaxAttempts, p.Window = 1, time.Minute }), longAgo, fresh),
			[]api.Change{buried(fresh), made(1, 1, "", reason(failedOnce))}},
		{"never", state(policy(func(p *api.RestartPolicy) { p.Condition = api.RestartNone }), fresh), []api.Change{buried(fresh)}},
		{"not after success", state(policy(func(p *api.RestartPolicy) { p.Condition = api.RestartOnFailure }), complete),
			[]api.Change{buried(complete)}},
		{"also after success", state(nil, complete), []api.Change{buried(complete), made(1, 1, "", reason("the last task ended"))}},
		{"what was told to go does not count as failed",
			state(nil, earlier, edit(fresh, draining(45), desired(api.DesiredStop), reason("node host-a is drained"))),
			[]api.Change{buried(edit(fresh, draining(45), reason("node host-a is drained"))), made(1, 1, "", reason("node host-a is drained"))}},
		{"a new spec starts anew",
			state(policy(func(p *api.RestartPolicy) { p.Condition = api.RestartNone }), edit(earlier, old)),
			[]api.Change{made(1, 1, "", reason("the service was updated"))}},
		{"history is kept short", state(nil,
			task("t20", 1, "a", api.TaskFailed), task("t21", 1, "a", api.TaskFailed), task("t22", 1, "a", api.TaskFailed), task("t23", 1, "a", api.TaskFailed),
			task("t24", 1, "a", api.TaskFailed), task("t25", 1, "a", api.TaskFailed), task("t26", 1, "a", api.TaskRunning),
			task("t11", 2, "a", api.TaskFailed), task("t12", 2, "a", api.TaskFailed)),
			[]api.Change{
				api.DeleteTask(task("t11", 2, "a", api.TaskFailed)),
				api.DeleteTask(task("t20", 1, "a", api.TaskFailed)),
			}},
	})
}

func TestNodes(t *testing.T) {
	t1 := task("t21", 1, "a", api.TaskRunning)
	down := func(n *api.Node) { n.State = api.NodeDown }
	drained := func(n *api.Node) { n.Availability = api.AvailabilityDrain }
	startFirst := func(n int) func(*api.Service) {
		return func(s *api.Service) { s.Spec.Replicas, s.Spec.Update.Order = n, api.StartFirst }
	}
	orphaned := buried(edit(t1, message("node host-a was lost"), at(now), func(t *api.Task) { t.Status.State = api.TaskOrphaned }))
	without := state(nil, t1)
	delete(without.Nodes, "a")
	constrained := func(s *api.Service) {
		s.Spec.Placement.Constraints = []api.Constraint{{Key: "node.labels.storage", Op: api.OpEqual, Value: "fast"}}
	}
	two := []*api.Task{t1, task("t22", 2, "a", api.TaskRunning)}
	runPlans(t, []planTest{
		{"a lost node's tasks are replaced at once", on(state(nil, t1), "a", down),
			[]api.Change{orphaned, made(1, 1, "", reason("node host-a was lost"))}},
		{"nothing more happens to them while it is away", on(state(replicas(0), edit(orphaned.Task)), "a", down), nil},
		{"a removed node takes its tasks along", without, []api.Change{api.DeleteTask(t1), made(1, 1, "")}},
		{"a drained node's task goes first", on(state(nil, t1), "a", drained), []api.Change{drain(t1, "node host-a is drained")}},
		{"or after its successor", on(state(startFirst(1), t1), "a", drained), []api.Change{made(1, 1, "", reason("node host-a is drained"))}},
		{"which must be acknowledged",
			on(state(startFirst(1), t1, task("t22", 1, "b", api.TaskRunning, unacked)), "a", drained), nil},
		{"and then lets it go", on(state(startFirst(1), t1, task("t22", 1, "b", api.TaskRunning)), "a", drained),
			[]api.Change{drain(t1, "node host-a is drained")}},
		{"as many at a time as an update", on(state(replicas(2), two...), "a", drained), []api.Change{drain(t1, "node host-a is drained")}},
		{"no more while one finds no room",
			on(state(replicas(2), task("t19", 1, "a", api.TaskShutdown), task("t20", 1, "", api.TaskPending), two[1]), "a", drained), nil},
		{"a slot that fails does not hold up the others",
			on(state(replicas(2), task("t19", 1, "b", api.TaskFailed), task("t20", 1, "", api.TaskPending), two[1]), "a", drained),
			[]api.Change{drain(two[1], "node host-a is drained")}},
		{"a constraint no longer met", state(constrained, t1), []api.Change{drain(t1, "node host-a does not satisfy node.labels.storage==fast")}},
		{"a paused node keeps its tasks", on(state(nil, t1), "a", func(n *api.Node) { n.Availability = api.AvailabilityPause }), nil},
	})
}

func TestGlobal(t *testing.T) {
	global := func(s *api.Service) { s.Spec.Mode, s.Spec.Replicas = api.ModeGlobal, 0 }
	onA, onB, onC := task("t21", 0, "a", api.TaskRunning), task("t22", 0, "b", api.TaskRunning), task("t23", 0, "c", api.TaskRunning)
	pause := func(n *api.Node) { n.Availability = api.AvailabilityPause }
	runPlans(t, []planTest{
		{"one on each node", state(global, onB), []api.Change{made(1, 0, "a"), made(2, 0, "c")}},
		{"none anew on a paused node", on(state(global, onB, onC), "a", pause), nil},
		{"a paused node keeps its task and does not hold up an update",
			on(state(global, edit(onA, old), edit(onB, old), onC), "a", pause), []api.Change{drain(edit(onB, old), "the service was updated")}},
		{"a drained node loses its task",
			on(state(global, onA, onB, onC), "a", func(n *api.Node) { n.Availability = api.AvailabilityDrain }),
			[]api.Change{drain(onA, "node host-a is drained")}},
		{"a lost node gets no replacement",
			on(state(global, onA, onB, onC), "a", func(n *api.Node) { n.State = api.NodeDown }),
			[]api.Change{buried(edit(onA, message("node host-a was lost"), at(now), func(t *api.Task) { t.Status.State = api.TaskOrphaned }))}},
		{"a change of mode replaces slots",
			state(global, task("t19", 1, "a", api.TaskRunning), onA, onB, onC),
			[]api.Change{drain(task("t19", 1, "a", api.TaskRunning), "the service is now global")}},
	})
}

func TestUpdate(t *testing.T) {
	update := func(order api.UpdateOrder, parallelism int, delay time.Duration) func(*api.Service) {
		return func(s *api.Service) {
			s.Spec.Replicas = 3
			s.Spec.Update = api.UpdateConfig{Order: order, Parallelism: parallelism, Delay: delay}
		}
	}
	const why = "the service was updated"
	o1, o2, o3 := task("t11", 1, "a", api.TaskRunning, old), task("t12", 2, "b", api.TaskRunning, old), task("t13", 3, "c", api.TaskRunning, old)
	n1 := task("t31", 1, "a", api.TaskRunning)
	stopFirst, startFirst := update(api.StopFirst, 1, 0), update(api.StartFirst, 1, 0)
	runPlans(t, []planTest{
		{"stop-first ends one", state(stopFirst, o1, o2, o3), []api.Change{drain(o1, why)}},
		{"waits for its end", state(stopFirst, edit(o1, draining(60)), o2, o3), nil},
		{"makes the next", state(stopFirst, edit(task("t11", 1, "a", api.TaskShutdown), old), o2, o3),
			[]api.Change{made(1, 1, "", reason(why))}},
		{"waits until that is acknowledged", state(stopFirst, edit(n1, unacked), o2, o3), nil},
		{"goes on", state(stopFirst, n1, o2, o3), []api.Change{drain(o2, why)}},
		{"two at a time", state(update(api.StopFirst, 2, 0), o1, o2, o3), []api.Change{drain(o1, why), drain(o2, why)}},
		{"all at a time", state(update(api.StopFirst, 0, 0), o1, o2, o3), []api.Change{drain(o1, why), drain(o2, why), drain(o3, why)}},
		{"waits out the delay", state(update(api.StopFirst, 1, 301*time.Second), n1, o2, o3), nil},
		{"and no longer", state(update(api.StopFirst, 1, 300*time.Second), n1, o2, o3), []api.Change{drain(o2, why)}},

		{"start-first makes one", state(startFirst, o1, o2, o3), []api.Change{made(1, 1, "", reason(why))}},
		{"waits for it", state(startFirst, o1, edit(n1, unacked), o2, o3), nil},
		{"lets the old one go", state(startFirst, o1, n1, o2, o3), []api.Change{drain(o1, why), made(1, 2, "", reason(why))}},

		{"a failing update pauses, and goes on trying", state(startFirst, o1, o2, o3, task("t31", 1, "b", api.TaskFailed, at(ago(1)))),
			[]api.Change{made(1, 1, "", reason("the last task failed"))}},
		{"more slowly", state(startFirst, o1, o2, o3, task("t31", 1, "b", api.TaskFailed, at(ago(2))), task("t32", 1, "b", api.TaskFailed, at(ago(1)))),
			[]api.Change{made(1, 1, "", reason("restart after 5s, 2 ends in a row: the last task failed"), notBefore(5*time.Second))}},
		{"for as long as its policy says",
			state(func(s *api.Service) { startFirst(s); s.Spec.Restart.Condition = api.RestartNone }, o1, o2, o3, task("t31", 1, "b", api.TaskFailed)), nil},
		{"the next spec takes the place of a failed one",
			state(startFirst, edit(o1, func(t *api.Task) { t.SpecVersion, t.Spec.Image = 8, "web:0" }), o2, o3, task("t31", 1, "b", api.TaskStarting, old)),
			[]api.Change{
				put(task("t31", 1, "b", api.TaskStarting, old), desired(api.DesiredStop), reason(why)),
				made(1, 1, "", reason(why)),
			}},
		{"what never ran is replaced out of turn", state(stopFirst, o1, edit(o2, draining(60)), task("t13", 3, "c", api.TaskStarting, old)),
			[]api.Change{put(task("t13", 3, "c", api.TaskStarting, old), desired(api.DesiredStop), reason(why))}},
		{"a slot without a node does not hold it up", state(stopFirst, o1, n2(), task("t33", 3, "", api.TaskPending)), []api.Change{drain(o1, why)}},
		{"scale and update at once", state(func(s *api.Service) { stopFirst(s); s.Spec.Replicas = 2 }, o1, o2, o3),
			[]api.Change{drain(o1, why), drain(o3, "scaled down to 2")}},
	})
}

func n2() *api.Task { return task("t32", 2, "b", api.TaskRunning) }

func TestNextWake(t *testing.T) {
	delayed := func(s *api.Service) { s.Spec.Update.Delay = 301 * time.Second }
	tests := []struct {
		name string
		snap *api.Snapshot
		want time.Time
	}{
		{"nothing waits", state(nil, task("t21", 1, "a", api.TaskRunning)), time.Time{}},
		{"a delayed restart", state(nil, task("t21", 1, "", api.TaskPending, notBefore(3*time.Second)),
			task("t22", 2, "", api.TaskPending, notBefore(4*time.Second))), now.Add(3 * time.Second)},
		{"one that is due", state(nil, task("t21", 1, "", api.TaskPending, notBefore(0))), time.Time{}},
		{"an update's delay", state(delayed, task("t21", 1, "a", api.TaskRunning), task("t11", 2, "a", api.TaskRunning, old)), now.Add(time.Second)},
		{"no update", state(delayed, task("t21", 1, "a", api.TaskRunning)), time.Time{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := orchestrator.NextWake(tt.snap, now); !got.Equal(tt.want) {
				t.Errorf("next wake at %v, want %v", got, tt.want)
			}
		})
	}
}

func BenchmarkPlan(b *testing.B) {
	snap := state(nil)
	for i := range 1000 {
		id := api.ServiceID(fmt.Sprintf("s%04d", i))
		svc := *snap.Services["web"]
		svc.ID, svc.Spec.Replicas, svc.Spec.Update.Delay = id, 10, time.Second
		snap.Services[id] = &svc
		for slot := range 10 {
			t := task(fmt.Sprintf("t%d-%d", 20+i, slot), slot+1, "a", api.TaskRunning)
			t.ServiceID = id
			snap.Tasks[t.ID] = t
		}
	}
	for b.Loop() {
		orchestrator.Plan(orchestrator.Input{Snapshot: snap, Now: now, Acked: 50, NewID: func() api.TaskID { return "new" }})
	}
}
