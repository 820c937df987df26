package scheduler

import (
	"cmp"

	"github.com/orch-dev/orch/pkg/api"
)

// volumeHome returns the position of the node that has the volume of the task's
// slot, and the volume's name; -1 if the task may go anywhere. A named volume
// lives on the node where it was first used, so a task that mounts one goes
// back to where the last task of its slot with that volume ran.
//
// Having the service run comes before keeping it near its data only when the
// node is lost, its operator drains it, or a constraint rules it out; then the
// task goes elsewhere, and starts with a volume of that node.
func (p *planner) volumeHome(svc *api.Service, t *api.Task) (int, string) {
	volumes := namedVolumes(t)
	if len(volumes) == 0 {
		return -1, ""
	}
	var last *api.Task
	var volume string
	for _, other := range p.tasks[t.ServiceID] {
		if other.Slot != t.Slot || !mayHaveRun(other) || last != nil && !newer(other, last) {
			continue
		}
		for v := range namedVolumes(other) {
			if volumes[v] && (last != other || v < volume) {
				last, volume = other, v
			}
		}
	}
	if last == nil {
		return -1, ""
	}
	home := p.snap.Nodes[last.NodeID]
	if home == nil || home.State != api.NodeReady || home.Availability == api.AvailabilityDrain {
		return -1, ""
	}
	if _, unmet := svc.Spec.Placement.Unmet(home); unmet {
		return -1, ""
	}
	return p.position[home.ID], volume
}

// mayHaveRun reports whether the task came far enough to have made its volumes.
func mayHaveRun(t *api.Task) bool {
	return t.NodeID != "" && !t.Status.State.Before(api.TaskStarting) && t.Status.State != api.TaskRejected
}

func namedVolumes(t *api.Task) map[string]bool {
	var volumes map[string]bool
	for _, m := range t.Spec.Mounts {
		if m.Type == api.MountVolume && m.Source != "" {
			if volumes == nil {
				volumes = map[string]bool{}
			}
			volumes[m.Source] = true
		}
	}
	return volumes
}

// newer reports whether a was made after b.
func newer(a, b *api.Task) bool {
	return cmp.Or(
		cmp.Compare(a.Meta.Created, b.Meta.Created),
		a.CreatedAt.Compare(b.CreatedAt),
		cmp.Compare(a.ID, b.ID),
	) > 0
}
