package control

import "github.com/orch-dev/orch/pkg/api"

// completions are the slots of a job in which a task of the current spec has done
// its work: those that the job has, not those it had.
func completions(snap *api.Snapshot, job *api.Service, tasks []*api.Task) map[slotKey]bool {
	done := make(map[slotKey]bool)
	for _, t := range tasks {
		if t.Status.State != api.TaskComplete || t.SpecVersion != job.SpecVersion {
			continue
		}
		has := t.Slot >= 1 && t.Slot <= job.Spec.Replicas
		if job.Spec.Mode.Global() {
			n := snap.Nodes[t.NodeID]
			has = n != nil && eligible(job, n) && n.Availability == api.AvailabilityActive
		}
		if has {
			done[slotOf(t)] = true
		}
	}
	return done
}

// eligible reports whether a global service is to have a slot on the node, as
// long as it is available.
func eligible(svc *api.Service, n *api.Node) bool {
	_, unmet := svc.Spec.Placement.Unmet(n)
	return !unmet && n.State == api.NodeReady
}
