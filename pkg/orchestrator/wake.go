package orchestrator

import (
	"time"

	"github.com/orch-dev/orch/pkg/api"
)

// NextWake returns when time alone can change what is planned, by this package
// or by the scheduler: when a restarted task's delay is over, an update's next
// batch is due, or one of its tasks was watched or waited for long enough. It is
// zero if nothing waits for the clock.
func NextWake(snap *api.Snapshot, now time.Time) time.Time {
	var next time.Time
	consider := func(at time.Time) {
		if at.After(now) && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	updating := map[api.ServiceID]bool{}
	for _, t := range snap.Tasks {
		if t.Desired != api.DesiredRun || t.Status.State.Terminal() {
			continue
		}
		if t.Status.State == api.TaskPending {
			consider(t.NotBefore)
		}
		svc := snap.Services[t.ServiceID]
		switch {
		case svc == nil:
		case t.SpecVersion < svc.SpecVersion:
			updating[svc.ID] = true
		case !svc.Update.Running():
		case t.ReadySince.IsZero():
			consider(progressDue(svc, t))
		default:
			consider(t.ReadySince.Add(svc.Rules().Monitor))
		}
	}
	if len(updating) > 0 {
		tasks := map[api.ServiceID][]*api.Task{}
		for _, t := range snap.Tasks {
			if updating[t.ServiceID] {
				tasks[t.ServiceID] = append(tasks[t.ServiceID], t)
			}
		}
		for id := range updating {
			consider(updateDue(snap.Services[id], tasks[id]))
		}
	}
	return next
}
