package scheduler

import (
	"time"

	"github.com/orch-dev/orch/pkg/api"
)

// Memory is what is kept from one plan to the next: what was counted of the
// state. A plan of a state that came of the last one's by few changes then costs
// these changes, and looks at no other task. It changes nothing about plans but
// the time that they take.
type Memory struct{ counted *index }

// Plan places what can be placed at now and puts the reason on what cannot.
// Reasons that have not changed are no change.
func (m *Memory) Plan(snap *api.Snapshot, now time.Time) []api.Change {
	m.counted = m.counted.follow(snap)
	p := newPlanner(m.counted, now)
	waiting := p.waiting()
	changes := make([]api.Change, 0, len(waiting))
	for _, batch := range batches(waiting) {
		changes = p.placeBatch(changes, snap.Services[batch[0].ServiceID], batch)
	}
	for _, c := range changes { // is planned, and not in the state yet
		m.counted.count(snap.Services[c.Task.ServiceID], c.Task, -1)
	}
	return changes
}

// follow returns the index of a snapshot, made of that of an earlier one where it
// is known what changed since.
func (x *index) follow(snap *api.Snapshot) *index {
	if x == nil {
		return newIndex(snap)
	}
	refs, known := snap.Since(x.snap)
	if !known || !x.move(snap, refs) {
		return newIndex(snap)
	}
	return x
}

// move makes the index be that of a snapshot that differs in these objects. It
// is false if too much hangs on the difference: the index is then of no use.
func (x *index) move(snap *api.Snapshot, refs []api.Ref) bool {
	old := x.snap
	for _, ref := range refs {
		if id := api.NodeID(ref.ID); ref.Kind == api.KindNode && !x.replaceNode(old.Nodes[id], snap.Nodes[id]) {
			return false
		}
	}
	x.snap = snap
	for _, ref := range refs {
		if ref.Kind == api.KindService {
			x.replaceService(old.Services[api.ServiceID(ref.ID)], snap.Services[api.ServiceID(ref.ID)])
		}
	}
	for _, ref := range refs {
		if ref.Kind == api.KindTask {
			x.replaceTask(old.Tasks[api.TaskID(ref.ID)], snap.Tasks[api.TaskID(ref.ID)])
		}
	}
	return true
}

// replaceNode puts a node's newer self in its place. Where another name or
// another platform may be part of its volumes' names, it cannot.
func (x *index) replaceNode(old, next *api.Node) bool {
	if old == nil && next == nil {
		return true
	}
	if old == nil || next == nil || old.Hostname != next.Hostname || old.Info.OS != next.Info.OS || old.Info.Arch != next.Info.Arch {
		return false
	}
	i := x.position[next.ID]
	x.unreport(i)
	x.nodes[i] = next
	x.report(i)
	return true
}
