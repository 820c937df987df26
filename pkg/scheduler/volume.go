package scheduler

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/orch-dev/orch/pkg/api"
)

// A named volume lives on the node where it was first used, unless its driver
// shares it. So a task that mounts one goes to the node that has it, and waits
// while that one takes no tasks: elsewhere it would begin with an empty volume,
// beside the data that it should have.
//
// A name with a placeholder is the name that it has for the slot; one that is the
// node's own binds no task to it.
//
// Each slot of a service has volumes of its own. A slot that ran before goes back
// to where it last ran. A new one goes to a node that has the volume and is no
// other slot's home: another service's, or one that an earlier service left.

// volumeReported is how long a node may take to tell that it has a volume.
const volumeReported = time.Minute

// home is where a task has to go.
type home struct {
	volume string
	nodes  []int
	// held: a task that was given up with its node may still have the volume
	// there, until the node has come back and removed it.
	held bool
}

func (h *home) has(i int) bool { return slices.Contains(h.nodes, i) }

// where says why a node is none of them.
func (h *home) where(p *planner) string {
	var names []string
	for _, i := range h.nodes {
		name := p.nodes[i].Hostname
		if p.nodes[i].State != api.NodeReady {
			name += " (away)"
		}
		names = append(names, name)
	}
	return fmt.Sprintf("without the volume %s, which is on %s", h.volume, strings.Join(names, ", "))
}

// use is a task that has, or had, a volume on a node.
type use struct {
	task *api.Task
	node int
}

// noteVolumes remembers where a task's volumes are, or forgets them, by 1 or -1.
func (x *index) noteVolumes(i int, t *api.Task, by int) {
	if t.Status.State == api.TaskRejected {
		return // it never had them
	}
	for _, m := range t.Spec.Mounts {
		if !isLocal(m) {
			continue
		}
		name := t.Fill(m.Source, x.nodes[i])
		if by < 0 {
			if delete(x.volumes[name], t.ID); len(x.volumes[name]) == 0 {
				delete(x.volumes, name)
			}
			continue
		}
		if x.volumes[name] == nil {
			x.volumes[name] = map[api.TaskID]use{}
		}
		x.volumes[name][t.ID] = use{t, i}
	}
}

// isLocal reports whether a mount is a volume that exists on one node alone.
func isLocal(m api.Mount) bool {
	return m.Type == api.MountVolume && m.Source != "" && !m.Shared
}

// homeOf returns where the task has to go, nil if it may go anywhere.
func (p *planner) homeOf(t *api.Task) *home {
	var found *home
	for _, m := range t.Spec.Mounts {
		if !isLocal(m) {
			continue
		}
		name := t.Fill(m.Source, nil)
		last, others := p.lastUse(t, name)
		if last != nil {
			return &home{name, []int{last.node}, last.task.Status.State == api.TaskOrphaned && !last.task.Status.Removed}
		}
		if nodes := p.holders(name, t.ServiceID, others); len(nodes) > 0 && found == nil {
			found = &home{volume: name, nodes: nodes}
		}
	}
	return found
}

// lastUse returns where the task's slot last had the volume, nil if nowhere, and
// the nodes where other slots of the service had it.
func (p *planner) lastUse(t *api.Task, volume string) (last *use, others []int) {
	for _, u := range p.volumes[volume] {
		switch {
		case u.task.ServiceID != t.ServiceID || u.task.ID == t.ID:
		case u.task.Slot != t.Slot:
			others = append(others, u.node)
		case last == nil || newer(u.task, last.task):
			last = &u
		}
	}
	if last != nil && p.wasRemoved(volume, last) {
		return nil, others
	}
	return last, others
}

// wasRemoved reports whether the node has told since then that it does not have
// the volume: somebody removed it, to have the slot start anew elsewhere.
func (p *planner) wasRemoved(volume string, u *use) bool {
	n := p.nodes[u.node]
	return n.State == api.NodeReady && u.task.Status.State.Terminal() && n.Info.VolumeDrivers != nil &&
		p.now.Sub(u.task.Status.At) > volumeReported && !slices.Contains(n.Info.Volumes, volume)
}

// holders are the nodes that have the volume and are no home of others.
func (p *planner) holders(volume string, service api.ServiceID, others []int) []int {
	var nodes []int
	for _, u := range p.volumes[volume] {
		if u.task.ServiceID != service && !p.wasRemoved(volume, &u) {
			nodes = append(nodes, u.node)
		}
	}
	nodes = append(nodes, p.reported[volume]...)
	slices.Sort(nodes)
	return slices.DeleteFunc(slices.Compact(nodes), func(i int) bool { return slices.Contains(others, i) })
}

// placeHome places a task on the best of the nodes that have its volume.
func (f *fit) placeHome(t *api.Task, h *home) (int, string) {
	best := -1
	for _, i := range h.nodes {
		if f.judge(&t.Spec.Reservations, i) == nil && (best < 0 || f.better(i, best) < 0) {
			best = i
		}
	}
	switch {
	case best < 0:
		return -1, f.unplaceable(t, h)
	case h.held:
		return -1, fmt.Sprintf("%snode %s is back and has not yet ended the last task with the volume %s", unplaceableReason, f.nodes[best].Hostname, h.volume)
	}
	return best, "it has the volume " + h.volume
}

// newer reports whether a was made after b; what is not in the store yet is the
// newest.
func newer(a, b *api.Task) bool {
	if (a.Meta.Created == 0) != (b.Meta.Created == 0) {
		return a.Meta.Created == 0
	}
	return cmp.Or(
		cmp.Compare(a.Meta.Created, b.Meta.Created),
		a.CreatedAt.Compare(b.CreatedAt),
		cmp.Compare(a.ID, b.ID),
	) > 0
}
