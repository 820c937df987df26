// Package scheduler finds a node for each task that waits for one, or says why
// there is none. It is a planner: it reads a snapshot of the store and returns
// changes, without a clock, randomness or I/O of its own.
//
// A task is placed once it has an address, its restart delay has passed and
// what its service depends on is there. Filters take away the nodes that cannot
// run it (filter.go). Of those left it gets the one with the fewest tasks of its
// service, where the service's preferences have balanced what is above the
// nodes; then the one of which least is reserved, then the one with the fewest
// tasks in all (spread.go). A node that keeps failing the service is tried last.
//
// Tasks that are alike are placed together: what decides about their nodes is
// asked once, and a heap gives one after the other its node. So the work grows
// with tasks and with nodes, but not with their product.
package scheduler

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/orch-dev/orch/pkg/api"
)

// Plan is Memory's, of one that remembers nothing.
func Plan(snap *api.Snapshot, now time.Time) []api.Change { return new(Memory).Plan(snap, now) }

// placeBatch places tasks of one service that were made together.
func (p *planner) placeBatch(changes []api.Change, svc *api.Service, batch []*api.Task) []api.Change {
	if why := p.unmetDependencies(svc); why != "" {
		for _, t := range batch {
			changes = held(changes, t, why)
		}
		return changes
	}
	f := p.fit(svc)
	for _, t := range batch {
		i, why := f.place(t)
		if i < 0 {
			changes = held(changes, t, why)
			continue
		}
		next := *t
		next.NodeID = p.nodes[i].ID
		next.Status = api.TaskStatus{State: api.TaskAssigned, At: p.now}
		if isOwnReason(t.Reason) {
			next.Reason = ""
		}
		next.Note(p.now, fmt.Sprintf("placed on %s: %s", p.nodes[i].Hostname, why))
		f.add(i, &next)
		changes = append(changes, api.Change{Task: &next})
	}
	return changes
}

// held puts the reason on a task that has to wait.
func held(changes []api.Change, t *api.Task, why string) []api.Change {
	if why == t.Reason {
		return changes
	}
	next := *t
	next.Reason = why
	return append(changes, api.Change{Task: &next})
}

// planner is what placing looks at, computed once per plan.
type planner struct {
	snap     *api.Snapshot
	now      time.Time
	nodes    []*api.Node // by ID; what follows goes by the position in it
	position map[api.NodeID]int
	loads    []load
	noImage  map[string]map[int]bool // nodes that could not get an image lately
	byName   map[string]*api.Service
	groups   map[api.ServiceID]*group
	memory   *Memory          // nil if nothing is remembered
	volumes  map[string][]use // local volumes, by name, with the tasks that have or had them
	reported map[string][]int // nodes that say they have the volume
}

func newPlanner(snap *api.Snapshot, now time.Time) *planner {
	p := &planner{
		snap:     snap,
		now:      now,
		nodes:    api.Sorted(snap.Nodes),
		position: make(map[api.NodeID]int, len(snap.Nodes)),
		loads:    make([]load, len(snap.Nodes)),
		noImage:  map[string]map[int]bool{},
		byName:   make(map[string]*api.Service, len(snap.Services)),
		groups:   make(map[api.ServiceID]*group, len(snap.Services)),
		volumes:  map[string][]use{},
		reported: map[string][]int{},
	}
	for i, n := range p.nodes {
		p.position[n.ID] = i
		for _, volume := range n.Info.Volumes {
			p.reported[volume] = append(p.reported[volume], i)
		}
	}
	for _, s := range snap.Services {
		p.byName[s.Spec.Name] = s
	}
	return p
}

// load counts what is on the nodes, and returns the tasks to place.
func (p *planner) load() (waiting []*api.Task) {
	for _, t := range p.snap.Tasks {
		if at := p.memory.recall(t); at != nil {
			at.group.tasks = append(at.group.tasks, t)
			p.loads[at.node].add(at.group.svc, &at.claim)
			continue
		}
		g := p.group(t.ServiceID)
		g.tasks = append(g.tasks, t)
		if t.Status.State == api.TaskPending {
			if g.svc != nil && p.isWaiting(t) {
				waiting = append(waiting, t)
			}
			continue
		}
		if i, known := p.position[t.NodeID]; known {
			p.count(i, g.svc, t)
			if !t.Status.State.Terminal() && !slices.ContainsFunc(t.Spec.Mounts, isLocal) {
				p.memory.keep(place{t, g, i, claimOf(t)})
			}
		}
	}
	sortWaiting(waiting)
	return waiting
}

// group is a service with its tasks.
func (p *planner) group(id api.ServiceID) *group {
	g := p.groups[id]
	if g == nil {
		g = &group{svc: p.snap.Services[id]}
		p.groups[id] = g
	}
	return g
}

// tasksOf are a service's tasks.
func (p *planner) tasksOf(svc *api.Service) []*api.Task { return p.group(svc.ID).tasks }

// count adds a task that has, or had, its place to what is known of its node.
func (p *planner) count(i int, svc *api.Service, t *api.Task) {
	p.noteVolumes(i, t)
	if t.Status.State.Terminal() {
		if t.Status.NoImage && p.now.Sub(t.Status.At) < imageMemory {
			image := t.Spec.Image
			if p.noImage[image] == nil {
				p.noImage[image] = map[int]bool{}
			}
			p.noImage[image][i] = true
		}
		return
	}
	c := claimOf(t)
	p.loads[i].add(svc, &c)
}

// isWaiting reports whether a pending task is to be placed now.
func (p *planner) isWaiting(t *api.Task) bool {
	return t.Desired == api.DesiredRun && t.Endpoint.Addr.IsValid() && !t.NotBefore.After(p.now)
}

// sortWaiting puts the oldest first, those of a service by slot.
func sortWaiting(tasks []*api.Task) {
	slices.SortFunc(tasks, func(a, b *api.Task) int {
		return cmp.Or(
			a.CreatedAt.Compare(b.CreatedAt),
			cmp.Compare(a.ServiceID, b.ServiceID),
			cmp.Compare(a.Slot, b.Slot),
			cmp.Compare(a.ID, b.ID),
		)
	})
}

// batches cuts tasks where another service begins.
func batches(tasks []*api.Task) [][]*api.Task {
	var out [][]*api.Task
	for start, i := 0, 1; i <= len(tasks); i++ {
		if i == len(tasks) || tasks[i].ServiceID != tasks[start].ServiceID {
			out = append(out, tasks[start:i])
			start = i
		}
	}
	return out
}
