package orchestrator

import (
	"slices"
	"time"

	"github.com/orch-dev/orch/pkg/api"
)

// reconcileJob plans the next step of every slot of a job. A slot is done for
// good once a task of the current spec has succeeded in it, on whatever node and
// whatever became of that. Until then it has one task at a time, and never
// another before the last has ended: a job need not be able to run twice.
func (p *planner) reconcileJob(svc *api.Service, tasks []*task) {
	p.adopt(svc, tasks)
	wanted, surplus := p.slots(svc, tasks)
	for _, s := range surplus {
		for _, t := range s.active() {
			p.leave(t, p.surplusReason(svc, t))
		}
	}
	var idle []*slot
	busy := 0
	for _, s := range wanted {
		switch {
		case s.succeeded(svc):
			for _, t := range s.active() {
				p.leave(t, "the job is done in this slot")
			}
		case p.settleJob(svc, s):
			busy++
		case !s.frozen:
			idle = append(idle, s)
		}
	}
	most := len(wanted)
	if svc.Spec.MaxConcurrent > 0 {
		most = svc.Spec.MaxConcurrent
	}
	for _, s := range idle {
		if busy >= most {
			break
		}
		if r := p.afterEnd(svc, s.ended()); r.again {
			p.create(svc, s, r.reason, r.notBefore)
			busy++
		}
	}
	p.forget(svc, wanted, surplus)
}

// settleJob ends what may not go on in a slot and reports whether anything is
// left in it that has not ended.
func (p *planner) settleJob(svc *api.Service, s *slot) bool {
	kept := false
	for _, t := range s.active() {
		switch why := p.staleReason(svc, t); {
		case why != "":
			p.leave(t, why)
		case kept:
			p.leave(t, "another task of the slot is further")
		default:
			kept = true
		}
	}
	return kept || len(s.leaving()) > 0
}

// succeeded reports whether a task of the current spec did its work.
func (s *slot) succeeded(svc *api.Service) bool {
	return slices.ContainsFunc(s.tasks, func(t *task) bool {
		return t.Status.State == api.TaskComplete && !isOutdated(svc, t)
	})
}

// outlive keeps the record of a task that did its work when its node is removed:
// it is not to be done again.
func (t *task) outlive(now time.Time) {
	if t.Status.Removed && t.Endpoint.State == api.EndpointGone {
		return
	}
	e := t.edit()
	e.Status.Removed = true
	e.Desired = api.DesiredRemove
	if e.Endpoint.State != api.EndpointGone {
		t.setEndpoint(api.EndpointGone)
	}
	if e.EndedAt.IsZero() {
		e.EndedAt = now
	}
}
