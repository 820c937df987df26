package orchestrator

import (
	"fmt"

	"github.com/orch-dev/orch/pkg/api"
)

// reconcile plans the next step of every slot of a service. A service that is
// scaled down loses its highest slots, so that those left are always 1 to N.
func (p *planner) reconcile(svc *api.Service, tasks []*task) {
	wanted, surplus := p.slots(svc, tasks)
	for _, s := range surplus {
		for _, t := range s.active() {
			p.leave(t, p.surplusReason(svc, t))
		}
	}
	for _, s := range wanted {
		s.phase = p.settle(svc, s)
	}
	p.rollout(svc, wanted)
	p.forget(svc, wanted, surplus)
}

// settle ends what a slot has too much, fills it if it is empty, and says how
// far it is. Tasks that serve, but must be replaced, wait for their turn (see
// rollout).
func (p *planner) settle(svc *api.Service, s *slot) phase {
	var good, stale []*task
	for _, t := range s.active() {
		if p.staleReason(svc, t) == "" {
			good = append(good, t)
		} else {
			stale = append(stale, t)
		}
	}
	if len(good) > 1 {
		for _, t := range good[1:] {
			p.leave(t, "another task of the slot is further")
		}
	}
	if len(good) > 0 && p.available(good[0]) {
		for _, t := range stale {
			p.leave(t, p.staleReason(svc, t))
		}
		return serving
	}
	// Of the stale tasks one may serve on until it is replaced. One that never
	// ran serves nobody.
	keep := len(stale) > 0 && stale[0].Status.State == api.TaskRunning
	for i, t := range stale {
		if i > 0 || !keep {
			p.leave(t, p.staleReason(svc, t))
		}
	}
	switch {
	case len(good) > 0:
		return s.hopes(svc)
	case keep && s.frozen:
		return done
	case keep && s.replacementEnded(svc, stale[0]):
		return p.fill(svc, s)
	case keep && isOutdated(svc, stale[0]):
		return outdated
	case keep:
		return misplaced
	case len(s.leaving()) > 0:
		return s.hopes(svc)
	}
	return p.fill(svc, s)
}

// fill makes a task for a slot where one is missing, as far as the restart
// policy allows.
func (p *planner) fill(svc *api.Service, s *slot) phase {
	if s.frozen {
		return done
	}
	r := p.afterEnd(svc, s.ended())
	if r.again {
		p.create(svc, s, r.reason, r.notBefore)
	} else if !r.failed {
		for _, t := range s.active() { // stale: its replacement has come and gone
			p.leave(t, p.staleReason(svc, t))
		}
		return done
	}
	return s.hopes(svc)
}

// hopes is the phase of a slot without an available task of the current spec.
func (s *slot) hopes(svc *api.Service) phase {
	ended, active := s.ended(), s.active()
	switch {
	case len(ended) > 0 && failed(svc, ended[0]):
		return failing
	case len(ended) > 0 && askedToLeave(ended[0]) || len(s.leaving()) > 0:
		return coming
	case len(active) == 1 && active[0].Status.State == api.TaskPending:
		return unfilled
	}
	return coming
}

// available reports whether the task may be counted on: it runs, and every live
// node sends it flows.
func (p *planner) available(t *task) bool {
	return t.Status.State == api.TaskRunning && t.Endpoint.State == api.EndpointReady && p.acknowledged(t)
}

// staleReason says why a task that is meant to run has to be replaced, or "".
func (p *planner) staleReason(svc *api.Service, t *task) string {
	if isOutdated(svc, t) {
		return "the service was updated"
	}
	return unfit(svc, p.Snapshot.Nodes[t.NodeID])
}

func isOutdated(svc *api.Service, t *task) bool { return t.SpecVersion < svc.SpecVersion }

func (p *planner) surplusReason(svc *api.Service, t *task) string {
	global := svc.Spec.Mode == api.ModeGlobal
	switch {
	case global && t.Slot != 0:
		return "the service is now global"
	case !global && t.Slot == 0:
		return "the service is now replicated"
	case !global:
		return fmt.Sprintf("scaled down to %d", svc.Spec.Replicas)
	}
	if why := unfit(svc, p.Snapshot.Nodes[t.NodeID]); why != "" {
		return why
	}
	return "the node is not ready"
}
