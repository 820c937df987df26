package orchestrator

import (
	"time"

	"github.com/orch-dev/orch/pkg/api"
)

// rollout gives slots that wait to be replaced their turn, Parallelism of them
// at a time.
//
// Tasks that must leave their node go while fewer slots than that are on their
// way. A slot that keeps failing does not hold them up, but one that was moved
// and found no room does: a drained node loses no task that has nowhere to go.
//
// Updates go in batches. The next one starts when every slot that has a task of
// the current spec serves or has failed (see judge), and Delay has passed since.
// Slots for which there was no node before do not hold it up.
func (p *planner) rollout(svc *api.Service, slots []*slot) {
	at := map[phase][]*slot{}
	for _, s := range slots {
		at[s.phase] = append(at[s.phase], s)
	}
	rules := svc.Rules()
	batch := rules.Parallelism
	if batch <= 0 {
		batch = len(slots)
	}
	moved := first(batch-len(at[coming]), at[misplaced])
	for _, s := range moved {
		p.replace(svc, s)
	}
	if len(at[outdated]) == 0 || len(moved)+len(at[coming]) > 0 || svc.Update.Paused() {
		return
	}
	if !svc.Update.Running() && len(at[failing]) > 0 {
		return // nobody judges it
	}
	if updateDue(svc, p.tasksOf(slots)).After(p.Now) {
		return
	}
	for _, s := range first(batch, p.withImage(svc, at[outdated])) {
		p.replace(svc, s)
	}
}

// withImage are the slots in which nothing is waited for before the old task is
// stopped; nodes that lack the new image are told to get it.
func (p *planner) withImage(svc *api.Service, slots []*slot) []*slot {
	if p.startsFirst(svc) {
		return slots
	}
	var ready []*slot
	for _, s := range slots {
		if p.fetched(svc, s.active()[0]) {
			ready = append(ready, s)
		}
	}
	return ready
}

// startsFirst reports whether a new task is made before the old one ends.
func (p *planner) startsFirst(svc *api.Service) bool {
	return svc.Rules().Order == api.StartFirst && !svc.Spec.Task.Singleton
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
	if p.startsFirst(svc) || old.Moving != "" && reason == old.Moving {
		p.create(svc, s, reason, time.Time{})
		return
	}
	p.leave(old, reason)
}

// tasksOf are the tasks of the slots as the store has them.
func (p *planner) tasksOf(slots []*slot) []*api.Task {
	var tasks []*api.Task
	for _, s := range slots {
		for _, t := range s.tasks {
			if stored := p.Snapshot.Tasks[t.ID]; stored != nil {
				tasks = append(tasks, stored)
			}
		}
	}
	return tasks
}

// updateDue is when the service's next batch may start: Delay after the newest
// task of the current spec became available.
func updateDue(svc *api.Service, tasks []*api.Task) time.Time {
	var newest time.Time
	delay := svc.Rules().Delay
	if delay <= 0 {
		return newest
	}
	for _, t := range tasks {
		if t.SpecVersion >= svc.SpecVersion && t.Status.State == api.TaskRunning && t.ReadySince.After(newest) {
			newest = t.ReadySince
		}
	}
	if newest.IsZero() {
		return newest
	}
	return newest.Add(delay)
}
