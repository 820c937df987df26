package scheduler

import (
	"cmp"
	"slices"

	"github.com/orch-dev/orch/pkg/api"
)

// index is a snapshot as placing looks at it: what is on each node, and which
// tasks each service has. All of it is sums and sets of tasks, so that a task can
// be added or taken away by itself.
type index struct {
	snap     *api.Snapshot
	nodes    []*api.Node // by ID; what follows goes by the position in it
	position map[api.NodeID]int
	loads    []load
	groups   map[api.ServiceID]*group
	byName   map[string]*api.Service
	pending  map[api.TaskID]*api.Task      // those without a place
	noImage  map[api.TaskID]*api.Task      // those that ended because their node could not get the image
	volumes  map[string]map[api.TaskID]use // local volumes, by name, with the tasks that have or had them
	reported map[string][]int              // nodes that say they have the volume
}

// group is a service, nil if it is gone, with its tasks.
type group struct {
	svc   *api.Service
	tasks map[api.TaskID]*api.Task
}

func newIndex(snap *api.Snapshot) *index {
	x := &index{
		snap:     snap,
		nodes:    api.Sorted(snap.Nodes),
		position: make(map[api.NodeID]int, len(snap.Nodes)),
		loads:    make([]load, len(snap.Nodes)),
		groups:   make(map[api.ServiceID]*group, len(snap.Services)),
		byName:   make(map[string]*api.Service, len(snap.Services)),
		pending:  map[api.TaskID]*api.Task{},
		noImage:  map[api.TaskID]*api.Task{},
		volumes:  map[string]map[api.TaskID]use{},
		reported: map[string][]int{},
	}
	for i, n := range x.nodes {
		x.position[n.ID] = i
		x.report(i)
	}
	for _, s := range snap.Services {
		x.byName[s.Spec.Name] = s
	}
	for _, t := range snap.Tasks {
		x.addTask(t)
	}
	return x
}

// report notes which volumes the node at position i says it has, and unreport
// takes that back.
func (x *index) report(i int) {
	for _, volume := range x.nodes[i].Info.Volumes {
		x.reported[volume] = append(x.reported[volume], i)
	}
}

func (x *index) unreport(i int) {
	for _, volume := range x.nodes[i].Info.Volumes {
		x.reported[volume] = slices.DeleteFunc(x.reported[volume], func(at int) bool { return at == i })
		if len(x.reported[volume]) == 0 {
			delete(x.reported, volume)
		}
	}
}

// group is a service with its tasks.
func (x *index) group(id api.ServiceID) *group {
	g := x.groups[id]
	if g == nil {
		g = &group{svc: x.snap.Services[id], tasks: map[api.TaskID]*api.Task{}}
		x.groups[id] = g
	}
	return g
}

// tasksOf are a service's tasks.
func (x *index) tasksOf(svc *api.Service) map[api.TaskID]*api.Task { return x.group(svc.ID).tasks }

func (x *index) addTask(t *api.Task) {
	g := x.group(t.ServiceID)
	g.tasks[t.ID] = t
	if t.Status.State == api.TaskPending {
		x.pending[t.ID] = t
	}
	x.count(g.svc, t, 1)
}

func (x *index) removeTask(t *api.Task) {
	g := x.group(t.ServiceID)
	delete(g.tasks, t.ID)
	if len(g.tasks) == 0 {
		delete(x.groups, t.ServiceID)
	}
	delete(x.pending, t.ID)
	x.count(g.svc, t, -1)
}

// replaceTask takes away what a task was in the snapshot of before, and adds what
// it is now. A task may come more than once: its group knows what is counted.
func (x *index) replaceTask(was, is *api.Task) {
	if was == is {
		return
	}
	if was != nil && x.group(was.ServiceID).tasks[was.ID] == was {
		x.removeTask(was)
	}
	if is != nil && x.group(is.ServiceID).tasks[is.ID] != is {
		x.addTask(is)
	}
}

// replaceService has what is counted of a service's tasks follow its spec.
func (x *index) replaceService(was, is *api.Service) {
	if was != nil && x.byName[was.Spec.Name] == was {
		delete(x.byName, was.Spec.Name)
	}
	if is != nil {
		x.byName[is.Spec.Name] = is
	}
	if was == nil && is == nil {
		return
	}
	id := cmp.Or(was, is).ID
	g := x.groups[id]
	if g == nil || len(g.tasks) == 0 {
		delete(x.groups, id)
		return
	}
	if g.svc != nil && is != nil && g.svc.SpecVersion == is.SpecVersion && slices.Equal(g.svc.Spec.Ports, is.Spec.Ports) {
		g.svc = is
		return
	}
	for _, t := range g.tasks {
		x.count(g.svc, t, -1)
		x.count(is, t, 1)
	}
	g.svc = is
}

// count adds a task that has, or had, its place to what is known of its node, or
// takes it away from that, by 1 or -1.
func (x *index) count(svc *api.Service, t *api.Task, by int) {
	i, known := x.position[t.NodeID]
	if !known || t.Status.State == api.TaskPending {
		return
	}
	x.noteVolumes(i, t, by)
	switch {
	case !t.Status.State.Terminal():
		x.loads[i].count(svc, t, by)
	case t.Status.NoImage && by > 0:
		x.noImage[t.ID] = t
	case t.Status.NoImage:
		delete(x.noImage, t.ID)
	}
}
