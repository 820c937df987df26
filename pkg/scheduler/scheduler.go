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

// planner is what placing looks at: the index, and what depends on the time.
type planner struct {
	*index
	now       time.Time
	imageless map[string]map[int]bool // nodes that could not get an image lately
	unmet     map[api.Constraint]*verdict
}

func newPlanner(x *index, now time.Time) *planner {
	p := &planner{index: x, now: now, imageless: map[string]map[int]bool{}, unmet: map[api.Constraint]*verdict{}}
	for _, t := range x.noImage {
		if now.Sub(t.Status.At) < imageMemory {
			if p.imageless[t.Spec.Image] == nil {
				p.imageless[t.Spec.Image] = map[int]bool{}
			}
			p.imageless[t.Spec.Image][x.position[t.NodeID]] = true
		}
	}
	return p
}

// waiting are the tasks to place.
func (p *planner) waiting() (waiting []*api.Task) {
	for _, t := range p.pending {
		if p.group(t.ServiceID).svc != nil && p.isWaiting(t) {
			waiting = append(waiting, t)
		}
	}
	sortWaiting(waiting)
	return waiting
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
