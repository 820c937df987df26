package scheduler

import (
	"time"

	"github.com/orch-dev/orch/pkg/api"
)

// Memory is what is kept from one plan to the next: what tasks that have their
// place count for. Objects of a snapshot do not change, so what was found out of
// one holds for as long as the snapshot has that very object. It changes nothing
// about plans but the time that they take.
type Memory struct {
	nodes  []api.NodeID        // that positions go by
	places map[*api.Task]int32 // where in kept: a small map is found in the CPU's caches
	kept   []place
	groups map[api.ServiceID]*group
}

// place is what a task that runs, or is about to, counts for on its node.
type place struct {
	task  *api.Task
	group *group
	node  int // position
	claim claim
}

// group is a service, nil if it is gone, with its tasks.
type group struct {
	svc   *api.Service
	tasks []*api.Task
}

// Plan places what can be placed at now and puts the reason on what cannot.
// Reasons that have not changed are no change.
func (m *Memory) Plan(snap *api.Snapshot, now time.Time) []api.Change {
	p := newPlanner(snap, now)
	m.lend(p)
	waiting := p.load()
	m.forget(snap)
	var changes []api.Change
	for _, batch := range batches(waiting) {
		changes = p.placeBatch(changes, snap.Services[batch[0].ServiceID], batch)
	}
	return changes
}

// lend makes a planner go by what is remembered and add to it.
func (m *Memory) lend(p *planner) {
	same := len(m.nodes) == len(p.nodes)
	for i := 0; same && i < len(p.nodes); i++ {
		same = m.nodes[i] == p.nodes[i].ID
	}
	if !same || m.places == nil {
		*m = Memory{places: map[*api.Task]int32{}, groups: map[api.ServiceID]*group{}}
		for _, n := range p.nodes {
			m.nodes = append(m.nodes, n.ID)
		}
	}
	for id, g := range m.groups {
		if g.svc == nil && len(g.tasks) == 0 {
			delete(m.groups, id)
			continue
		}
		g.svc, g.tasks = p.snap.Services[id], g.tasks[:0]
	}
	p.memory, p.groups = m, m.groups
}

// keep remembers what a task counts for.
func (m *Memory) keep(at place) {
	if m == nil {
		return
	}
	m.places[at.task] = int32(len(m.kept))
	m.kept = append(m.kept, at)
}

// recall is what was found out of the task, nil if nothing was.
func (m *Memory) recall(t *api.Task) *place {
	if m == nil {
		return nil
	}
	if i, known := m.places[t]; known {
		return &m.kept[i]
	}
	return nil
}

// forget drops objects that are in the state no more once they are most of what
// is remembered.
func (m *Memory) forget(snap *api.Snapshot) {
	if len(m.kept) <= 2*len(snap.Tasks) {
		return
	}
	kept := m.kept
	m.kept = nil
	clear(m.places)
	for _, at := range kept {
		if snap.Tasks[at.task.ID] == at.task {
			m.keep(at)
		}
	}
}
