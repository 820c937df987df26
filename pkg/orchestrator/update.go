package orchestrator

import (
	"time"

	"github.com/orch-dev/orch/pkg/api"
)

// rollout gives slots that wait to be replaced their turn, Update.Parallelism
// of them at a time.
//
// Tasks that must leave their node go while fewer slots than that are on their
// way. A slot that keeps failing does not hold them up, but one that was moved
// and found no room does: a drained node loses no task that has nowhere to go.
//
// Updates go in batches. The next one starts when every slot that has a task of
// the current spec serves, and Update.Delay has passed since. A failing update
// thus pauses by itself, while its tasks are restarted as any others. Slots for
// which there was no node before do not hold it up.
func (p *planner) rollout(svc *api.Service, slots []*slot) {
	at := map[phase][]*slot{}
	for _, s := range slots {
		at[s.phase] = append(at[s.phase], s)
	}
	batch := svc.Spec.Update.Parallelism
	if batch <= 0 {
		batch = len(slots)
	}
	moved := first(batch-len(at[coming]), at[misplaced])
	for _, s := range moved {
		p.replace(svc, s)
	}
	if len(at[outdated]) == 0 || len(moved)+len(at[coming])+len(at[failing]) > 0 {
		return
	}
	if updateDue(svc, p.Snapshot.Tasks).After(p.Now) {
		return
	}
	for _, s := range first(batch, at[outdated]) {
		p.replace(svc, s)
	}
}

func first(n int, slots []*slot) []*slot {
	return slots[:max(0, min(n, len(slots)))]
}

// replace begins to replace the stale task that serves a slot: by making the
// new one (start-first; the old one leaves when that is available), or by
// ending the old one (stop-first; the new one is made when that has ended).
func (p *planner) replace(svc *api.Service, s *slot) {
	old := s.active()[0]
	reason := p.staleReason(svc, old)
	if svc.Spec.Update.Order == api.StartFirst {
		p.create(svc, s, reason, time.Time{})
		return
	}
	p.leave(old, reason)
}

// updateDue is when the service's next batch may start: Update.Delay after the
// newest report that a task of the current spec runs. That is on the clock of
// the task's node, and later than its start if the node reported again: the
// delay is a pause to watch the new tasks in, not a measure.
func updateDue(svc *api.Service, tasks map[api.TaskID]*api.Task) time.Time {
	var newest time.Time
	if svc.Spec.Update.Delay <= 0 {
		return newest
	}
	for _, t := range tasks {
		current := t.ServiceID == svc.ID && t.SpecVersion >= svc.SpecVersion
		if current && t.Status.State == api.TaskRunning && t.Status.At.After(newest) {
			newest = t.Status.At
		}
	}
	if newest.IsZero() {
		return newest
	}
	return newest.Add(svc.Spec.Update.Delay)
}
