package orchestrator

import "github.com/orch-dev/orch/pkg/api"

// keptTasks is how many ended tasks of a slot are kept to be shown.
const keptTasks = 5

// forget deletes the oldest ended tasks of each slot of which the agents have
// nothing left. Those kept show what happened, are what restarts are judged
// by, and say where a slot's volume is; of a slot that the service has no more,
// one does.
func (p *planner) forget(svc *api.Service, wanted, surplus []*slot) {
	for _, s := range wanted {
		s.forget(max(keptTasks, svc.Spec.Restart.MaxAttempts+1))
	}
	for _, s := range surplus {
		s.forget(1)
	}
}

func (s *slot) forget(keep int) {
	ended := s.ended()
	for _, t := range ended[min(keep, len(ended)):] {
		t.deleted = t.Status.Removed
	}
}
