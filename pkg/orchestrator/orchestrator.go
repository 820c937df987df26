// Package orchestrator decides which tasks there should be and what is wanted
// of each: replicas, rolling updates, restarts, moves off nodes, and the
// acknowledged drain that makes them lose nothing. It is a planner: it reads a
// snapshot of the store and returns changes, without a clock, randomness or I/O
// of its own.
//
// A service's tasks are looked at slot by slot. One slot should have one task
// that runs, is made from the current spec and is on a node it may be on; all
// that happens is a step towards that. A step is decided from the snapshot
// alone, so that a new leader goes on where the last one was.
package orchestrator

import (
	"time"

	"github.com/orch-dev/orch/pkg/api"
)

// Input is all that a plan depends on.
type Input struct {
	Snapshot *api.Snapshot
	Now      time.Time
	// Acked is the lowest index that every live node has put into its kernel.
	Acked api.Index
	// Fenced reports whether no singleton runs any more on a node that was lost or
	// removed.
	Fenced func(api.NodeID) bool
	// NewID returns a new unique identifier at each call.
	NewID func() api.TaskID
}

// Plan returns the next step for every task. It is empty once all is as it
// should be, or until something is reported, acknowledged or due (NextWake).
func Plan(in Input) []api.Change {
	p := &planner{Input: in}
	p.load()
	for _, t := range p.tasks {
		p.follow(t)
	}
	services := p.byService()
	for _, svc := range api.Sorted(in.Snapshot.Services) {
		if svc.Spec.Mode.Job() {
			p.reconcileJob(svc, services[svc.ID])
		} else {
			p.reconcile(svc, services[svc.ID])
		}
	}
	for _, t := range p.tasks {
		if in.Snapshot.Services[t.ServiceID] == nil {
			p.leave(t, "the service was removed")
			t.deleted = t.deleted || t.Status.State.Terminal() && t.Status.Removed
		}
	}
	return p.changes()
}

type planner struct {
	Input
	tasks    []*task        // those of the snapshot by ID, then the new ones
	services []*api.Service // whose update has come further

	networkIDs map[string]api.NetworkID // by name
}

// task is a task of the store with what is planned for it.
type task struct {
	*api.Task
	changed, deleted bool
}

// edit returns the task to be changed: a copy of the store's.
func (t *task) edit() *api.Task {
	if !t.changed {
		c := *t.Task
		t.Task, t.changed = &c, true
	}
	return t.Task
}

func (p *planner) load() {
	p.networkIDs = make(map[string]api.NetworkID, len(p.Snapshot.Networks))
	for id, n := range p.Snapshot.Networks {
		p.networkIDs[n.Name] = id
	}
	for _, t := range api.Sorted(p.Snapshot.Tasks) {
		p.tasks = append(p.tasks, &task{Task: t})
	}
}

func (p *planner) byService() map[api.ServiceID][]*task {
	m := make(map[api.ServiceID][]*task, len(p.Snapshot.Services))
	for _, t := range p.tasks {
		m[t.ServiceID] = append(m[t.ServiceID], t)
	}
	return m
}

func (p *planner) changes() []api.Change {
	var out []api.Change
	for _, svc := range p.services {
		out = append(out, api.Change{Service: svc})
	}
	for _, t := range p.tasks {
		switch {
		case t.deleted:
			out = append(out, api.DeleteTask(t.Task))
		case t.changed:
			out = append(out, api.Change{Task: t.Task})
		}
	}
	return out
}

// create adds a task to the slot. It does nothing while a network of the
// service does not exist: without it the task would be in the wrong group.
func (p *planner) create(svc *api.Service, s *slot, reason string, notBefore time.Time) {
	if svc.Spec.Task.Singleton && p.mayStillRun(svc, s) {
		return
	}
	networks, ok := p.networks(svc)
	if !ok {
		return
	}
	t := &task{changed: true, Task: &api.Task{
		ID:          p.NewID(),
		ServiceID:   svc.ID,
		ServiceName: svc.Spec.Name,
		Stack:       svc.Stack,
		Slot:        s.number,
		NodeID:      s.node,
		Spec:        svc.Spec.Task,
		SpecVersion: svc.SpecVersion,
		Networks:    networks,
		Desired:     api.DesiredRun,
		Status:      api.TaskStatus{State: api.TaskPending, At: p.Now},
		Endpoint:    api.Endpoint{State: api.EndpointPending},
		Reason:      reason,
		CreatedAt:   p.Now,
		NotBefore:   notBefore,
	}}
	what := "made"
	if reason != "" {
		what += ": " + reason
	}
	t.Note(p.Now, what)
	p.tasks = append(p.tasks, t)
	s.tasks = append(s.tasks, t)
}

// networks are the service's by identifier; false if one does not exist.
func (p *planner) networks(svc *api.Service) ([]api.NetworkID, bool) {
	var ids []api.NetworkID
	for _, name := range svc.Spec.Networks {
		id, ok := p.networkIDs[name]
		if !ok {
			return nil, false
		}
		ids = append(ids, id)
	}
	return ids, true
}
