// Package scheduler finds a node for each task that waits for one, or says why
// there is none. It is a planner: it reads a snapshot of the store and returns
// changes, without a clock, randomness or I/O of its own.
//
// A task is placed once it has an address, its restart delay has passed and
// what its service depends on is there. Filters take away the nodes that cannot
// run it; of those left it gets the one with the fewest tasks of its service,
// then the fewest tasks in all. A node that keeps failing the service is tried
// last, and a task with a named volume goes back to where its slot's volume is.
package scheduler

import (
	"cmp"
	"slices"
	"time"

	"github.com/orch-dev/orch/pkg/api"
)

// Plan places what can be placed at now and puts the reason on what cannot.
// Reasons that have not changed are no change.
func Plan(snap *api.Snapshot, now time.Time) []api.Change {
	p := newPlanner(snap, now)
	var changes []api.Change
	for _, t := range p.waiting() {
		next := *t
		node, why := p.place(t)
		if node != nil {
			next.NodeID = node.ID
			next.Status = api.TaskStatus{State: api.TaskAssigned, At: now}
			if isOwnReason(t.Reason) {
				next.Reason = ""
			}
			p.add(&next)
		} else if next.Reason = why; why == t.Reason {
			continue
		}
		changes = append(changes, api.Change{Task: &next})
	}
	return changes
}

// planner is what placing looks at, computed once per plan.
type planner struct {
	snap     *api.Snapshot
	now      time.Time
	nodes    []*api.Node // by ID; what follows goes by the position in it
	position map[api.NodeID]int
	loads    []load
	shares   map[api.ServiceID][]share
	lasting  map[api.ServiceID][]*verdict // of the filters that hold for all of a service's tasks
	byName   map[string]*api.Service
	tasks    map[api.ServiceID][]*api.Task
	refused  map[kind]string // why no node suits: loads only grow within a plan
}

// kind is what tasks that suit the same nodes have in common.
type kind struct {
	service api.ServiceID
	reserve api.Resources
	home    int
}

func newPlanner(snap *api.Snapshot, now time.Time) *planner {
	p := &planner{
		snap:     snap,
		now:      now,
		nodes:    api.Sorted(snap.Nodes),
		position: make(map[api.NodeID]int, len(snap.Nodes)),
		loads:    make([]load, len(snap.Nodes)),
		shares:   map[api.ServiceID][]share{},
		lasting:  map[api.ServiceID][]*verdict{},
		byName:   make(map[string]*api.Service, len(snap.Services)),
		tasks:    make(map[api.ServiceID][]*api.Task, len(snap.Services)),
		refused:  map[kind]string{},
	}
	for i, n := range p.nodes {
		p.position[n.ID] = i
	}
	for _, s := range snap.Services {
		p.byName[s.Spec.Name] = s
	}
	for _, t := range snap.Tasks {
		p.tasks[t.ServiceID] = append(p.tasks[t.ServiceID], t)
		p.add(t)
		p.noteFailure(t)
	}
	return p
}

// waiting are the tasks to place now, oldest first, those of a service by slot.
func (p *planner) waiting() []*api.Task {
	var out []*api.Task
	for _, t := range p.snap.Tasks {
		if t.Desired == api.DesiredRun && t.Status.State == api.TaskPending &&
			t.Endpoint.Addr.IsValid() && !t.NotBefore.After(p.now) && p.snap.Services[t.ServiceID] != nil {
			out = append(out, t)
		}
	}
	slices.SortFunc(out, func(a, b *api.Task) int {
		return cmp.Or(
			a.CreatedAt.Compare(b.CreatedAt),
			cmp.Compare(a.ServiceID, b.ServiceID),
			cmp.Compare(a.Slot, b.Slot),
			cmp.Compare(a.ID, b.ID),
		)
	})
	return out
}

// place returns the node for t, or why it has to wait.
func (p *planner) place(t *api.Task) (*api.Node, string) {
	svc := p.snap.Services[t.ServiceID]
	if why := p.unmetDependencies(svc); why != "" {
		return nil, why
	}
	need := p.needs(svc, t)
	if t.NodeID != "" { // of a global service: this node or none
		return p.placeOn(t.NodeID, need)
	}
	like := kind{svc.ID, need.reserve, need.home}
	if why, refused := p.refused[like]; refused {
		return nil, why
	}
	best := -1
	for i := range p.nodes {
		if (best < 0 || p.better(need.shares, i, best)) && p.judge(need, i) == nil {
			best = i
		}
	}
	if best < 0 {
		p.refused[like] = p.unplaceable(need)
		return nil, p.refused[like]
	}
	return p.nodes[best], ""
}

func (p *planner) placeOn(id api.NodeID, need needs) (*api.Node, string) {
	i, known := p.position[id]
	if !known {
		return nil, unplaceableReason + "node " + string(id) + " does not exist"
	}
	if v := p.judge(need, i); v != nil {
		return nil, unplaceableReason + "node " + p.nodes[i].Hostname + " " + v.sentence()
	}
	return p.nodes[i], ""
}
