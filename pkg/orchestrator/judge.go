package orchestrator

import (
	"fmt"
	"time"

	"github.com/orch-dev/orch/pkg/api"
)

// judge counts the slots in which an update has failed, and does what the
// service's rules say if these are too many. It returns the service as it is
// from then on, which is svc if nothing changes.
func (p *planner) judge(svc *api.Service, slots []*slot) *api.Service {
	if !svc.Update.Running() {
		return svc
	}
	n, why := p.failures(svc, slots)
	rules := svc.Rules()
	if n == 0 || float64(n) <= rules.MaxFailureRatio*float64(len(slots))+1e-9 || rules.FailureAction == api.FailureContinue {
		return svc
	}
	state := api.UpdatePaused
	if svc.Update.Back() {
		state = api.RollbackPaused
	} else if rules.FailureAction == api.FailureRollback {
		if back := svc.RolledBack(why, p.Now); back != nil {
			return back
		}
		why += "; there is no earlier spec to go back to"
	}
	return svc.WithUpdate(state, why, p.Now)
}

// failures counts the slots in which the update has failed, and says so with
// the reason of the one that failed last.
func (p *planner) failures(svc *api.Service, slots []*slot) (n int, why string) {
	var newest time.Time
	for _, s := range slots {
		at, reason := p.failure(svc, s)
		if reason == "" {
			continue
		}
		n++
		if why == "" || at.After(newest) {
			newest, why = at, reason
		}
	}
	if n > 0 {
		why = fmt.Sprintf("failed in %d of %d slots: %s", n, len(slots), why)
	}
	return n, why
}

// overdue reports whether the update has failed in a slot whose task is still
// on its way: it is not waited for any more.
func (p *planner) overdue(svc *api.Service, s *slot) bool {
	if !svc.Update.Running() || s.phase != coming && s.phase != outdated {
		return false
	}
	_, why := p.failure(svc, s)
	return why != ""
}

// failure says when and why the update failed in a slot; "" if it has not. It
// has if a new task ended by itself before it became available or while it was
// watched, or if one is not available in time.
func (p *planner) failure(svc *api.Service, s *slot) (at time.Time, why string) {
	for _, t := range s.ended() { // newest first
		if failed(svc, t) && (t.ReadySince.IsZero() || t.EndedAt.Sub(t.ReadySince) <= svc.Rules().Monitor) {
			return t.EndedAt, p.called(t) + ": " + endOf(t)
		}
	}
	for _, t := range s.active() {
		if at, why := p.fetchFailure(svc, t); why != "" {
			return at, why
		}
		due := progressDue(svc, t.Task)
		if due.IsZero() || due.After(p.Now) || isOutdated(svc, t) || s.hopes(svc) == unfilled {
			continue
		}
		why := fmt.Sprintf("%s: not available after %v", p.called(t), svc.Spec.Deadline())
		if t.Reason != "" && t.Status.State == api.TaskPending {
			why += ": " + t.Reason
		}
		return due, why
	}
	return at, ""
}

// progressDue is until when a task must have become available, zero if it has.
func progressDue(svc *api.Service, t *api.Task) time.Time {
	if !t.ReadySince.IsZero() || t.Endpoint.State == api.EndpointReady {
		return time.Time{}
	}
	from := t.CreatedAt
	for _, later := range []time.Time{svc.Update.Since, t.NotBefore} {
		if later.After(from) {
			from = later
		}
	}
	return from.Add(svc.Spec.Deadline())
}

// called is what a user calls a task, with its node.
func (p *planner) called(t *task) string {
	n := p.Snapshot.Nodes[t.NodeID]
	switch {
	case n == nil:
		return t.Name()
	case t.Slot == 0:
		return t.ServiceName + "." + n.Hostname
	}
	return t.Name() + " on " + n.Hostname
}

func endOf(t *task) string {
	switch {
	case t.Status.Message != "":
		return t.Status.Message
	case t.Status.State == api.TaskComplete:
		return "it ended"
	}
	return string(t.Status.State)
}

// finish ends an update that has come to its end: every slot has a task of the
// current spec that serves and was watched for long enough, or has had its turn
// and failed. It returns the service as judge does.
func (p *planner) finish(svc *api.Service, slots []*slot) *api.Service {
	if !svc.Update.Running() {
		return svc
	}
	for _, s := range slots {
		if s.phase == outdated || s.phase == coming || p.watched(svc, s).After(p.Now) {
			return svc
		}
	}
	state, message := api.UpdateCompleted, ""
	if svc.Update.Back() {
		state, message = api.RollbackComplete, svc.Update.Message
	}
	if n, why := p.failures(svc, slots); n > 0 {
		if message != "" {
			message += "; on the way back "
		}
		message += why
	}
	return svc.WithUpdate(state, message, p.Now)
}

// watched is until when a slot's task of the current spec is watched.
func (p *planner) watched(svc *api.Service, s *slot) time.Time {
	for _, t := range s.active() {
		if !isOutdated(svc, t) && !t.ReadySince.IsZero() {
			return t.ReadySince.Add(svc.Rules().Monitor)
		}
	}
	return time.Time{}
}
