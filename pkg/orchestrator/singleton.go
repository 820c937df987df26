package orchestrator

import (
	"github.com/orch-dev/orch/pkg/api"
)

// A singleton's next task is made only when it is certain that no other runs:
// its agent has said so, or its node has been silent for so long that it must
// have ended the task itself (api.Cluster.FenceWait).

// unfenced reports whether a singleton's task was on a node that is lost, or was
// removed, and may still run there. Nothing is concluded from its silence then.
func (p *planner) unfenced(t *task, node *api.Node) bool {
	placed := t.NodeID != "" && t.Status.State != api.TaskPending
	lost := node == nil || node.State == api.NodeDown
	if !t.Spec.Singleton || !placed || !lost || t.Status.State.Terminal() {
		return false
	}
	if p.Fenced != nil && p.Fenced(t.NodeID) {
		return false
	}
	name := string(t.NodeID)
	if node != nil {
		name = node.Hostname
	}
	if why := "node " + name + " was lost: its task may run there until its fence has closed"; t.Reason != why {
		e := t.edit()
		e.Reason = why
		e.Note(p.Now, why)
	}
	return true
}

// mayStillRun reports whether a task that a singleton's next one may not run
// beside has not surely ended: of the slot, or of a service that had its name.
func (p *planner) mayStillRun(svc *api.Service, s *slot) bool {
	for _, t := range s.tasks {
		if !t.deleted && !surelyEnded(t) {
			return true
		}
	}
	for _, t := range p.tasks {
		if t.Spec.Singleton && t.ServiceID != svc.ID && t.ServiceName == svc.Spec.Name && !t.deleted && !surelyEnded(t) {
			return true
		}
	}
	return false
}

// surelyEnded reports whether nothing of a task runs. One that could not be
// started may have been started nevertheless, until its agent has removed it.
func surelyEnded(t *task) bool {
	if t.Status.State == api.TaskRejected {
		return t.Status.Removed
	}
	return t.Status.State.Terminal()
}
