package orchestrator

import (
	"fmt"
	"reflect"
	"slices"

	"github.com/orch-dev/orch/pkg/api"
)

// reconcile plans the next step of every slot of a service. A service that is
// scaled down loses its highest slots, so that those left are always 1 to N.
func (p *planner) reconcile(svc *api.Service, tasks []*task) {
	p.adopt(svc, tasks)
	wanted, surplus := p.slots(svc, tasks)
	next := p.judge(svc, wanted)
	if next != svc {
		p.services = append(p.services, next)
	}
	if !next.Spec.SameTasks(&svc.Spec) {
		return // planned from once the store has stamped it
	}
	svc = next
	for _, s := range surplus {
		for _, t := range s.active() {
			p.leave(t, p.surplusReason(svc, t))
		}
	}
	for _, s := range wanted {
		s.phase = p.settle(svc, s)
		if p.overdue(svc, s) {
			s.phase = failing
		}
	}
	if next = p.finish(svc, wanted); next != svc {
		p.services = append(p.services, next)
	}
	p.rollout(svc, wanted)
	p.forget(svc, wanted, surplus)
}

// adopt makes tasks of an old spec tasks of the current one where both say the
// same: on the way back, and when a spec returns, they need not be replaced.
func (p *planner) adopt(svc *api.Service, tasks []*task) {
	for _, t := range tasks {
		if !isOutdated(svc, t) || t.Desired != api.DesiredRun || t.Status.State.Terminal() || !reflect.DeepEqual(t.Spec, svc.Spec.Task) {
			continue
		}
		if networks, ok := p.networks(svc); ok && slices.Equal(t.Networks, networks) {
			t.edit().SpecVersion = svc.SpecVersion
		}
	}
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
	case keep:
		return p.waits(svc, s, stale[0])
	case len(s.leaving()) > 0:
		return s.hopes(svc)
	}
	return p.fill(svc, s)
}

// waits says for what turn the stale task waits that serves a slot. Its
// replacement, if one was made and has ended, is tried again as any restart;
// for an update that is paused it is not.
func (p *planner) waits(svc *api.Service, s *slot, stale *task) phase {
	moves := unfit(svc, p.Snapshot.Nodes[stale.NodeID]) != ""
	if stale.Moving != "" && !moves && !isOutdated(svc, stale) {
		if !s.replacementEnded(svc, stale) {
			return misplaced
		}
		stale.edit().Moving = "" // what was to take its place does not run
		return serving
	}
	switch {
	case !svc.Spec.Task.Singleton && s.replacementEnded(svc, stale) && (moves || !svc.Update.Paused()):
		return p.fill(svc, s)
	case moves:
		return misplaced
	}
	return outdated
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
	case len(ended) > 0 && (askedToLeave(ended[0]) || beforeResume(svc, ended[0])) || len(s.leaving()) > 0:
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
	if why := unfit(svc, p.Snapshot.Nodes[t.NodeID]); why != "" {
		return why
	}
	return t.Moving
}

func isOutdated(svc *api.Service, t *task) bool { return t.SpecVersion < svc.SpecVersion }

func (p *planner) surplusReason(svc *api.Service, t *task) string {
	global := svc.Spec.Mode.Global()
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
