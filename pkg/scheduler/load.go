package scheduler

import (
	"time"

	"github.com/orch-dev/orch/pkg/api"
)

const (
	// A node on which a service failed this often, this recently, is tried last.
	failuresToAvoid = 5
	failureMemory   = 5 * time.Minute
	// imageMemory is how long a node that could not get an image is not asked
	// for it again.
	imageMemory = time.Minute
)

// load is what runs on a node, or is about to.
//
// Tasks that are on their way out (draining, stopping, or made from an old
// spec) hold their resources until they end, but are not counted where tasks
// are spread: what replaces them would be put anywhere but in their place.
type load struct {
	staying, all int
	reserved     amounts // by all
	wanted       amounts // by those that stay
	ports        map[hostPort]int
}

// amounts are sums of what tasks reserve.
type amounts struct {
	cpus, memory int64
	generic      map[string]int64
}

func (a *amounts) add(r *api.Resources, by int64) {
	a.cpus += by * r.NanoCPUs
	a.memory += by * r.MemoryBytes
	for kind, n := range r.Generic {
		addTo(&a.generic, kind, by*n)
	}
}

// addTo adds to what is counted of k. What comes down to nothing is not kept.
func addTo[K comparable, N int | int64](m *map[K]N, k K, n N) {
	if *m == nil {
		*m = map[K]N{}
	}
	if (*m)[k] += n; (*m)[k] == 0 {
		delete(*m, k)
	}
}

// hostPort is a port of the node itself that a task has.
type hostPort struct {
	port     uint16
	protocol api.Protocol
}

// stays reports whether the task is meant to go on running.
func stays(svc *api.Service, t *api.Task) bool {
	return svc != nil && t.Desired == api.DesiredRun && t.SpecVersion >= svc.SpecVersion
}

// count adds what a task of the service that has its place, and has not ended,
// asks of its node, or takes it away: by 1 or -1.
func (l *load) count(svc *api.Service, t *api.Task, by int) {
	l.all += by
	l.reserved.add(&t.Spec.Reservations, int64(by))
	if svc != nil {
		for i := range svc.Spec.Ports {
			if p := &svc.Spec.Ports[i]; p.Host && p.Published != 0 {
				addTo(&l.ports, hostPort{p.Published, p.Protocol}, by)
			}
		}
	}
	if stays(svc, t) {
		l.staying += by
		l.wanted.add(&t.Spec.Reservations, int64(by))
	}
}

// fill is how much of the node's CPUs or memory those that stay reserve,
// whichever is more, in thousandths. It is 0 for a node that has not said what it
// has.
func (l *load) fill(n *api.Node) int64 {
	var cpu, memory int64
	if n.Info.CPUs > 0 {
		cpu = l.wanted.cpus / (int64(n.Info.CPUs) * (billion / 1000))
	}
	if perMille := n.Info.MemoryBytes / 1000; perMille > 0 {
		memory = l.wanted.memory / perMille
	}
	return max(cpu, memory)
}

// share is one service's part of a node's load.
type share struct {
	staying, failures int
}

// sharesOf is the service's share of each node, by position.
func (p *planner) sharesOf(svc *api.Service) []share {
	shares := make([]share, len(p.nodes))
	for _, t := range p.tasksOf(svc) {
		i, known := p.position[t.NodeID]
		if !known || t.Status.State == api.TaskPending {
			continue
		}
		failed := t.Status.State == api.TaskFailed || t.Status.State == api.TaskRejected
		switch {
		case failed && p.now.Sub(t.Status.At) < failureMemory:
			shares[i].failures++
		case !t.Status.State.Terminal() && stays(svc, t):
			shares[i].staying++
		}
	}
	return shares
}
