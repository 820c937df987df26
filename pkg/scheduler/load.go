package scheduler

import (
	"cmp"
	"time"

	"github.com/orch-dev/orch/pkg/api"
)

const (
	// A node on which a service failed this often, this recently, is tried last.
	failuresToAvoid = 3
	failureMemory   = 5 * time.Minute
)

// load is what runs on a node, or is about to.
//
// Tasks that are on their way out (draining, stopping, or made from an old
// spec) hold their resources until they end, but are not counted where tasks
// are spread: what replaces them would be put anywhere but in their place.
type load struct {
	staying, all int
	reserved     api.Resources
}

// share is one service's part of a node's load.
type share struct {
	staying, failures int
}

// sharesOf is a service's share of each node, by position.
func (p *planner) sharesOf(id api.ServiceID) []share {
	if p.shares[id] == nil {
		p.shares[id] = make([]share, len(p.nodes))
	}
	return p.shares[id]
}

// add counts a task that has its place and has not ended.
func (p *planner) add(t *api.Task) {
	i, known := p.position[t.NodeID]
	if !known || t.Status.State == api.TaskPending || t.Status.State.Terminal() {
		return
	}
	l := &p.loads[i]
	l.all++
	l.reserved.NanoCPUs += t.Spec.Reservations.NanoCPUs
	l.reserved.MemoryBytes += t.Spec.Reservations.MemoryBytes
	if p.stays(t) {
		l.staying++
		p.sharesOf(t.ServiceID)[i].staying++
	}
}

// noteFailure remembers where a task failed lately.
func (p *planner) noteFailure(t *api.Task) {
	i, known := p.position[t.NodeID]
	failed := t.Status.State == api.TaskFailed || t.Status.State == api.TaskRejected
	if known && failed && p.now.Sub(t.Status.At) < failureMemory {
		p.sharesOf(t.ServiceID)[i].failures++
	}
}

// stays reports whether the task is meant to go on running.
func (p *planner) stays(t *api.Task) bool {
	svc := p.snap.Services[t.ServiceID]
	return svc != nil && t.Desired == api.DesiredRun && t.SpecVersion >= svc.SpecVersion
}

// better reports whether a task of the service with these shares should rather
// go to the node at position i than to the one at j. Nodes that are equal in
// everything keep their order.
func (p *planner) better(shares []share, i, j int) bool {
	a, b := &p.loads[i], &p.loads[j]
	return cmp.Or(
		compareBool(shares[i].failures >= failuresToAvoid, shares[j].failures >= failuresToAvoid),
		cmp.Compare(shares[i].staying, shares[j].staying),
		cmp.Compare(a.staying, b.staying),
		cmp.Compare(a.all, b.all),
		cmp.Compare(i, j),
	) < 0
}

// compareBool orders false before true.
func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}
