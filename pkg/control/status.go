package control

import (
	"cmp"
	"maps"
	"slices"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/scheduler"
)

// statuses computes how far each service of a stack is, or of all stacks if
// stack is empty, in the order of their names. acked is the index that every
// live node has put into its kernel.
func statuses(snap *api.Snapshot, stack string, acked api.Index) []api.ServiceStatus {
	tasks := make(map[api.ServiceID][]*api.Task)
	for _, t := range api.Sorted(snap.Tasks) {
		tasks[t.ServiceID] = append(tasks[t.ServiceID], t)
	}
	var out []api.ServiceStatus
	for _, svc := range servicesByName(snap, stack) {
		out = append(out, serviceStatus(snap, svc, tasks[svc.ID], acked))
	}
	return out
}

func servicesByName(snap *api.Snapshot, stack string) []*api.Service {
	var out []*api.Service
	for _, svc := range snap.Services {
		if stack == "" || svc.Stack == stack {
			out = append(out, svc)
		}
	}
	slices.SortFunc(out, func(a, b *api.Service) int { return cmp.Compare(a.Spec.Name, b.Spec.Name) })
	return out
}

// slotKey names a slot: its number, and for a global service its node.
type slotKey struct {
	slot int
	node api.NodeID
}

func slotOf(t *api.Task) slotKey {
	if t.Slot == 0 {
		return slotKey{node: t.NodeID}
	}
	return slotKey{slot: t.Slot}
}

func serviceStatus(snap *api.Snapshot, svc *api.Service, tasks []*api.Task, acked api.Index) api.ServiceStatus {
	status := api.ServiceStatus{
		Name: svc.Spec.Name, Mode: svc.Spec.Mode, Image: svc.Spec.Task.Image,
		Ports: svc.Ports, Desired: svc.Spec.Replicas, Update: svc.Update,
	}
	running, updated, wanted := make(map[slotKey]bool), make(map[slotKey]bool), make(map[slotKey]bool)
	leaving := 0 // tasks that still run and should not, or soon should not
	for _, t := range tasks {
		active := t.Desired == api.DesiredRun && !t.Status.State.Terminal()
		switch {
		case active:
			if wanted[slotOf(t)] { // start-first: the old task has not been told yet
				leaving++
			}
			wanted[slotOf(t)] = true
			if t.Status.State == api.TaskRunning {
				running[slotOf(t)] = true
			}
			if upToDate(svc, t, acked) {
				updated[slotOf(t)] = true
			}
		case !t.Status.State.Terminal():
			leaving++
		}
	}
	if svc.Spec.Mode.Global() {
		status.Desired = globalSlots(snap, svc, wanted)
	}
	status.Completed, status.GaveUp = ended(svc, tasks, wanted)
	status.Running, status.Updated = len(running), len(updated)
	status.Converged = status.Updated+status.Completed == status.Desired &&
		len(wanted)+status.Completed == status.Desired && leaving == 0
	if svc.Spec.Mode.Job() {
		done := completions(snap, svc, tasks)
		status.Completed, status.MaxConcurrent = len(done), status.Desired
		if svc.Spec.MaxConcurrent > 0 {
			status.MaxConcurrent = min(svc.Spec.MaxConcurrent, status.Desired)
		}
		status.Converged = status.Completed == status.Desired && leaving == 0
		maps.Copy(updated, done) // nothing is wrong with them
	}
	if !status.Converged {
		explain(&status, svc, tasks, updated)
	}
	if u := svc.Update; u != nil && u.Message != "" && (status.Reason == "" || u.Paused() || u.Running()) {
		status.Reason = string(u.State) + ": " + u.Message
	}
	return status
}

// globalSlots is how many slots a global service has or will have: one on each
// ready node that suits it, on a paused one only if it is taken.
func globalSlots(snap *api.Snapshot, svc *api.Service, wanted map[slotKey]bool) int {
	n := 0
	for _, node := range snap.Nodes {
		if !eligible(svc, node) {
			continue
		}
		if node.Availability == api.AvailabilityActive || node.Availability == api.AvailabilityPause && wanted[slotKey{node: node.ID}] {
			n++
		}
	}
	return n
}

// ended counts the slots whose last task did its work, and says whether one
// failed, where the restart policy gives the slot no other.
func ended(svc *api.Service, tasks []*api.Task, wanted map[slotKey]bool) (completed int, gaveUp bool) {
	last := make(map[slotKey]*api.Task)
	failures := make(map[slotKey]int)
	for _, t := range tasks {
		slot := slotOf(t)
		if wanted[slot] || t.SpecVersion != svc.SpecVersion || !t.DrainingSince.IsZero() {
			continue
		}
		if last[slot] == nil || t.Meta.Created > last[slot].Meta.Created {
			last[slot] = t
		}
		if failed(t) {
			failures[slot]++
		}
	}
	policy := svc.Spec.Restart
	for slot, t := range last {
		switch {
		case t.Status.State == api.TaskComplete:
			if policy.Condition == api.RestartNone || policy.Condition == api.RestartOnFailure {
				completed++
			}
		case failed(t):
			spent := policy.MaxAttempts > 0 && policy.Window == 0 && failures[slot] > policy.MaxAttempts
			gaveUp = gaveUp || policy.Condition == api.RestartNone || spent
		}
	}
	return completed, gaveUp
}

func failed(t *api.Task) bool {
	return t.Status.State == api.TaskFailed || t.Status.State == api.TaskRejected
}

// upToDate reports whether t runs the current spec and every live node sends it
// traffic.
func upToDate(svc *api.Service, t *api.Task, acked api.Index) bool {
	return t.SpecVersion == svc.SpecVersion && t.Status.State == api.TaskRunning &&
		t.Endpoint.State == api.EndpointReady && t.Endpoint.Since <= acked
}

// explain says what a service that has not converged waits for: the trouble of
// the newest task of a slot that is not up to date.
func explain(status *api.ServiceStatus, svc *api.Service, tasks []*api.Task, updated map[slotKey]bool) {
	var newest *api.Task
	for _, t := range tasks {
		if updated[slotOf(t)] || t.SpecVersion != svc.SpecVersion {
			continue
		}
		if failed(t) {
			status.Failures++
		}
		if t.Status.State == api.TaskPending && t.Reason != "" {
			status.Reason = t.Reason
			status.Unplaceable = status.Unplaceable || scheduler.Unplaceable(t)
		}
		if failed(t) && (newest == nil || t.Meta.Created > newest.Meta.Created) {
			newest = t
		}
	}
	if newest != nil {
		status.Reason = newest.Name() + ": " + newest.Status.Message
	}
}
