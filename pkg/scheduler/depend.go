package scheduler

import (
	"slices"
	"strings"

	"github.com/orch-dev/orch/pkg/api"
)

// unmetDependencies says what the service's tasks have to wait for, or "".
func (p *planner) unmetDependencies(svc *api.Service) string {
	var waits []string
	for _, d := range svc.Spec.DependsOn {
		dep := p.byName[d.Service]
		switch {
		case dep == nil:
			waits = append(waits, d.Service+", which does not exist")
		case !p.reached(dep, d.Condition):
			waits = append(waits, d.Service+" "+conditionWords[d.Condition])
		}
	}
	if len(waits) == 0 {
		return ""
	}
	return waitingReason + strings.Join(waits, " and ")
}

var conditionWords = map[api.DependencyCondition]string{
	api.DependencyStarted:   "to start",
	api.DependencyHealthy:   "to be healthy",
	api.DependencyCompleted: "to complete",
}

// reached reports whether a service has reached a condition. A task that runs
// is healthy: it is not called running before. Completion counts for the
// current spec only, so that a changed migration is waited for again.
func (p *planner) reached(dep *api.Service, c api.DependencyCondition) bool {
	if c == api.DependencyCompleted && dep.Spec.Mode.Job() {
		return p.jobDone(dep)
	}
	for _, t := range p.tasksOf(dep) {
		if meets(dep, t, c) {
			return true
		}
	}
	return false
}

// meets reports whether one task is enough for its service to have reached a
// condition.
func meets(dep *api.Service, t *api.Task, c api.DependencyCondition) bool {
	state := t.Status.State
	current := t.SpecVersion >= dep.SpecVersion
	switch c {
	case api.DependencyStarted:
		return state == api.TaskStarting || state == api.TaskRunning || state == api.TaskComplete && current
	case api.DependencyHealthy:
		return state == api.TaskRunning && t.Desired == api.DesiredRun
	case api.DependencyCompleted:
		return state == api.TaskComplete && current
	}
	return false
}

// jobDone reports whether a task has succeeded in each of a job's slots.
func (p *planner) jobDone(job *api.Service) bool {
	slots, nodes := map[int]bool{}, map[api.NodeID]bool{}
	for _, t := range p.tasksOf(job) {
		if t.Status.State == api.TaskComplete && t.SpecVersion >= job.SpecVersion {
			slots[t.Slot], nodes[t.NodeID] = true, true
		}
	}
	if !job.Spec.Mode.Global() {
		for i := range job.Spec.Replicas {
			if !slots[i+1] {
				return false
			}
		}
		return true
	}
	return !slices.ContainsFunc(p.nodes, func(n *api.Node) bool {
		_, unmet := job.Spec.Placement.Unmet(n)
		return !unmet && n.State == api.NodeReady && n.Availability == api.AvailabilityActive && !nodes[n.ID]
	})
}
