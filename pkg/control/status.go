package control

import (
	"cmp"
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
		out = append(out, serviceStatus(svc, tasks[svc.ID], acked))
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

func serviceStatus(svc *api.Service, tasks []*api.Task, acked api.Index) api.ServiceStatus {
	status := api.ServiceStatus{
		Name: svc.Spec.Name, Mode: svc.Spec.Mode, Image: svc.Spec.Task.Image,
		Ports: svc.Ports, Desired: svc.Spec.Replicas,
	}
	running, updated, wanted := make(map[slotKey]bool), make(map[slotKey]bool), make(map[slotKey]bool)
	leaving := 0 // tasks that still run and should not
	for _, t := range tasks {
		active := t.Desired == api.DesiredRun && !t.Status.State.Terminal()
		switch {
		case active:
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
	if svc.Spec.Mode == api.ModeGlobal {
		status.Desired = len(wanted)
	}
	status.Running, status.Updated = len(running), len(updated)
	status.Converged = status.Updated == status.Desired && len(wanted) == status.Desired && leaving == 0
	if !status.Converged {
		explain(&status, svc, tasks, updated)
	}
	return status
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
		failed := t.Status.State == api.TaskFailed || t.Status.State == api.TaskRejected
		if failed {
			status.Failures++
		}
		if t.Status.State == api.TaskPending && t.Reason != "" {
			status.Reason = t.Reason
			status.Unplaceable = status.Unplaceable || scheduler.Unplaceable(t)
		}
		if failed && (newest == nil || t.Meta.Created > newest.Meta.Created) {
			newest = t
		}
	}
	if newest != nil {
		status.Reason = newest.Name() + ": " + newest.Status.Message
	}
}
