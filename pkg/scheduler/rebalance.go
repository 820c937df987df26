package scheduler

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/orch-dev/orch/pkg/api"
)

// Move is a task that should run elsewhere, so that its service is even again.
type Move struct {
	Task     *api.Task
	From, To *api.Node
	Why      string
}

// Rebalance marks the tasks that are to move to nodes that have just joined or
// come back: one of each service at a time, and only from where there are at
// least two more. Their replacements are made by the orchestrator, started
// before they end, and placed like any other task. When nothing is left to move,
// or nothing can be, the nodes count as settled.
func Rebalance(snap *api.Snapshot, now time.Time) []api.Change {
	if !anyUnsettled(snap) {
		return nil
	}
	var changes []api.Change
	moves, busy := nextMoves(snap, now, func(n *api.Node) bool { return n.Rebalance }, 1)
	for _, m := range moves {
		t := *m.Task
		t.Moving = m.Why
		changes = append(changes, api.Change{Task: &t})
	}
	if len(moves) > 0 || busy {
		return changes
	}
	for _, n := range api.Sorted(snap.Nodes) {
		if n.Rebalance && n.State == api.NodeReady {
			settled := *n
			settled.Rebalance = false
			changes = append(changes, api.Change{Node: &settled})
		}
	}
	return changes
}

func anyUnsettled(snap *api.Snapshot) bool {
	for _, n := range snap.Nodes {
		if n.Rebalance {
			return true
		}
	}
	return false
}

// Moves are all that it takes to make every service even, were they asked for,
// in order.
func Moves(snap *api.Snapshot, now time.Time) []Move {
	moves, _ := nextMoves(snap, now, func(*api.Node) bool { return true }, len(snap.Tasks))
	return moves
}

// nextMoves returns up to most moves of each service that is at rest, and
// whether one that is not at rest is uneven, too.
func nextMoves(snap *api.Snapshot, now time.Time, target func(*api.Node) bool, most int) (moves []Move, busy bool) {
	p := newPlanner(newIndex(snap), now)
	services := api.Sorted(snap.Services)
	services = slices.DeleteFunc(services, func(s *api.Service) bool { return s.Spec.Mode != api.ModeReplicated || s.Spec.Task.Singleton })
	for _, svc := range services {
		b := p.balance(svc, target)
		if b == nil {
			continue
		}
		for range most {
			m, ok := b.next()
			if !ok {
				break
			}
			if !p.atRest(svc) {
				busy = true
				break
			}
			moves = append(moves, m)
		}
	}
	return moves, busy
}

// probesOf are tasks that stand for others of the services.
func probesOf(services []*api.Service) []*api.Task {
	var probes []*api.Task
	for _, svc := range services {
		probes = append(probes, &api.Task{ServiceID: svc.ID, Spec: svc.Spec.Task})
	}
	return probes
}

// atRest reports whether all of a service's slots have one task, which serves and
// is not about to be replaced.
func (p *planner) atRest(svc *api.Service) bool {
	if svc.Update.Running() || svc.Update.Paused() {
		return false
	}
	serving := 0
	for _, t := range p.tasksOf(svc) {
		if t.Status.State.Terminal() {
			continue
		}
		if !stays(svc, t) || t.Moving != "" || t.Status.State != api.TaskRunning || t.Endpoint.State != api.EndpointReady {
			return false
		}
		serving++
	}
	return serving == svc.Spec.Replicas
}

// balance is how a service's tasks are spread, and what may change in that.
type balance struct {
	*fit
	target func(*api.Node) bool
	tasks  map[int][]*api.Task // those that could move, by node, oldest first
}

// balance returns nil for a service whose tasks are bound to their nodes.
func (p *planner) balance(svc *api.Service, target func(*api.Node) bool) *balance {
	if slices.ContainsFunc(svc.Spec.Task.Mounts, isLocal) {
		return nil
	}
	b := &balance{fit: p.fit(svc), target: target, tasks: map[int][]*api.Task{}}
	b.about(&svc.Spec.Task)
	ended := map[int]api.Index{} // when the newest of each slot's ended tasks was made
	for _, t := range p.tasksOf(svc) {
		if t.Status.State.Terminal() {
			ended[t.Slot] = max(ended[t.Slot], t.Meta.Created)
		}
	}
	for _, t := range p.tasksOf(svc) {
		i, known := p.position[t.NodeID]
		runs := known && stays(svc, t) && !t.Status.State.Terminal() && t.Status.State != api.TaskPending
		// A task that was to be moved once, to where it then did not run, stays.
		if runs && t.Meta.Created > ended[t.Slot] {
			b.tasks[i] = append(b.tasks[i], t)
		}
	}
	for _, tasks := range b.tasks {
		slices.SortFunc(tasks, func(x, y *api.Task) int {
			return cmp.Or(cmp.Compare(x.Meta.Created, y.Meta.Created), cmp.Compare(x.ID, y.ID))
		})
	}
	return b
}

// next takes one step towards an even spread: first between the values of the
// first preference, then of the next within each of those, at last between nodes.
func (b *balance) next() (Move, bool) {
	var all []int
	for i := range b.nodes {
		all = append(all, i)
	}
	return b.between(all, b.svc.Spec.Placement.Preferences)
}

// between looks among nodes, which are alike in all preferences but these.
func (b *balance) between(nodes []int, keys []string) (Move, bool) {
	if len(keys) == 0 {
		parts := make([]part, len(nodes))
		for k, i := range nodes {
			parts[k] = part{"", []int{i}}
		}
		return b.shift(parts)
	}
	parts := b.divide(nodes, keys[0])
	if m, ok := b.shift(parts); ok {
		return m, true
	}
	for _, pt := range parts {
		if m, ok := b.between(pt.nodes, keys[1:]); ok {
			return m, true
		}
	}
	return Move{}, false
}

// part is the nodes with one value of an attribute, or one node.
type part struct {
	name  string
	nodes []int
}

func (b *balance) divide(nodes []int, key string) []part {
	byValue := map[string][]int{}
	for _, i := range nodes {
		value := api.Attribute(b.nodes[i], key)
		byValue[value] = append(byValue[value], i)
	}
	var parts []part
	for _, value := range api.SortedKeys(byValue) {
		parts = append(parts, part{fmt.Sprintf("%s %q", key, value), byValue[value]})
	}
	return parts
}

// shift moves a task from the part with the most to the one with the fewest that
// can take one, if that evens them.
func (b *balance) shift(parts []part) (Move, bool) {
	count := func(p part) (n int) {
		for _, i := range p.nodes {
			n += b.shares[i].staying
		}
		return n
	}
	var from, to *part
	fromNode, toNode := -1, -1
	for k := range parts {
		p := &parts[k]
		if i := b.fullest(p.nodes); i >= 0 && (from == nil || count(*p) > count(*from)) {
			from, fromNode = p, i
		}
		if i := b.emptiest(p.nodes); i >= 0 && (to == nil || count(*p) < count(*to)) {
			to, toNode = p, i
		}
	}
	if from == nil || to == nil || count(*from)-count(*to) <= 1 {
		return Move{}, false
	}
	why := fmt.Sprintf("rebalanced: %s has %d tasks of the service, %s has %d",
		cmp.Or(from.name, b.nodes[fromNode].Hostname), count(*from), cmp.Or(to.name, b.nodes[toNode].Hostname), count(*to))
	tasks := b.tasks[fromNode]
	t := tasks[len(tasks)-1]
	b.tasks[fromNode] = tasks[:len(tasks)-1]
	b.tasks[toNode] = append(b.tasks[toNode], t)
	b.shares[fromNode].staying--
	b.shares[toNode].staying++
	b.loads[toNode].count(b.svc, t, 1)
	return Move{t, b.nodes[fromNode], b.nodes[toNode], why}, true
}

// fullest is the node with the most tasks of the service, or -1 if none has any.
func (b *balance) fullest(nodes []int) int {
	best := -1
	for _, i := range nodes {
		if len(b.tasks[i]) > 0 && (best < 0 || b.better(best, i) < 0) {
			best = i
		}
	}
	return best
}

// emptiest is the best node for another task of the service, -1 if none takes one.
func (b *balance) emptiest(nodes []int) int {
	best := -1
	for _, i := range nodes {
		suits := b.target(b.nodes[i]) && b.avoided(i) == 0 && b.judge(&b.svc.Spec.Task.Reservations, i) == nil
		if suits && (best < 0 || b.better(i, best) < 0) {
			best = i
		}
	}
	return best
}
