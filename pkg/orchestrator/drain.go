package orchestrator

import (
	"github.com/orch-dev/orch/pkg/api"
)

// leave begins the end of a task that is still wanted. Where it may have new
// flows, it drains first: it is told to stop only once every live node has
// acknowledged that it sends no more (see drained). Otherwise it is told to
// stop at once, and if it has no place yet it is simply deleted.
func (p *planner) leave(t *task, reason string) {
	if t.deleted || t.Desired != api.DesiredRun || t.Status.State.Terminal() {
		return
	}
	if t.Status.State == api.TaskPending {
		t.deleted = true
		return
	}
	e := t.edit()
	e.Reason = reason
	if isPending(t.Endpoint) {
		e.Desired = api.DesiredStop
		e.Note(p.Now, "told to stop: "+reason)
		return
	}
	e.Note(p.Now, "to get no new connections, and then to stop: "+reason)
	e.Desired = api.DesiredDrain
	e.DrainingSince = p.Now
	t.setEndpoint(api.EndpointDraining)
}

// drained reports whether no node sends new flows to the task any more.
func (p *planner) drained(t *task) bool {
	return t.Endpoint.State != api.EndpointDraining || p.acknowledged(t)
}

// askedToLeave reports whether a task that has ended did so because it was told
// to, whatever it said about it.
func askedToLeave(t *task) bool {
	return t.Status.State == api.TaskShutdown || !t.DrainingSince.IsZero()
}
