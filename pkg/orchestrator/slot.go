package orchestrator

import (
	"cmp"
	"slices"

	"github.com/orch-dev/orch/pkg/api"
)

// place names a slot: its number, or its node in a global service.
type place struct {
	number int
	node   api.NodeID // where number is 0
}

func placeOf(t *api.Task) place {
	if t.Slot == 0 {
		return place{node: t.NodeID}
	}
	return place{number: t.Slot}
}

// slot is one place of a service with all its tasks.
type slot struct {
	place
	tasks []*task
	phase phase
	// frozen: the slot keeps the task it has but gets no new one, because its
	// node is paused.
	frozen bool
}

// phase is how far a slot is.
type phase int

const (
	serving   phase = iota // a task of the current spec, in its place, counted available
	coming                 // such a task is on its way, or can be made once another has ended
	failing                // the same, but the last try failed
	unfilled               // such a task waits for a node, and none was taken away for it
	done                   // ended, and not to be started again
	outdated               // served by a task of an old spec, waits for its turn
	misplaced              // served by a task that has to leave its node, waits for its turn
)

// active are the tasks that are meant to go on, the one to rely on most first:
// the furthest in its life, then the oldest.
func (s *slot) active() []*task {
	out := s.those(func(t *task) bool {
		return t.Desired == api.DesiredRun && !t.Status.State.Terminal()
	})
	slices.SortFunc(out, func(a, b *task) int {
		switch {
		case a.Status.State.Before(b.Status.State):
			return 1
		case b.Status.State.Before(a.Status.State):
			return -1
		}
		return compareAge(a, b)
	})
	return out
}

// leaving are the tasks that were told to end and have not yet.
func (s *slot) leaving() []*task {
	return s.those(func(t *task) bool {
		return t.Desired != api.DesiredRun && !t.Status.State.Terminal()
	})
}

// ended are the tasks of the slot's past, newest first.
func (s *slot) ended() []*task {
	out := s.those(func(t *task) bool { return t.Status.State.Terminal() })
	slices.SortFunc(out, func(a, b *task) int { return compareAge(b, a) })
	return out
}

func (s *slot) those(is func(*task) bool) []*task {
	var out []*task
	for _, t := range s.tasks {
		if !t.deleted && is(t) {
			out = append(out, t)
		}
	}
	return out
}

// compareAge orders older tasks first; a task that is not in the store yet is
// the newest.
func compareAge(a, b *task) int {
	if a.Meta.Created == 0 || b.Meta.Created == 0 {
		return cmp.Compare(b.Meta.Created, a.Meta.Created)
	}
	return cmp.Or(
		cmp.Compare(a.Meta.Created, b.Meta.Created),
		a.CreatedAt.Compare(b.CreatedAt),
		cmp.Compare(a.ID, b.ID),
	)
}

// slots groups a service's tasks; wanted are those that should have one, in
// order, surplus all others.
func (p *planner) slots(svc *api.Service, tasks []*task) (wanted, surplus []*slot) {
	all := map[place]*slot{}
	var places []place
	at := func(pl place) *slot {
		if all[pl] == nil {
			all[pl] = &slot{place: pl}
			places = append(places, pl)
		}
		return all[pl]
	}
	if svc.Spec.Mode.Global() {
		for _, n := range api.Sorted(p.Snapshot.Nodes) {
			if n.State == api.NodeReady && unfit(svc, n) == "" {
				s := at(place{node: n.ID})
				s.frozen = n.Availability == api.AvailabilityPause
				wanted = append(wanted, s)
			}
		}
	} else {
		for i := range svc.Spec.Replicas {
			wanted = append(wanted, at(place{number: i + 1}))
		}
	}
	for _, t := range tasks {
		if !t.deleted {
			s := at(placeOf(t.Task))
			s.tasks = append(s.tasks, t)
		}
	}
	for _, pl := range places[len(wanted):] {
		surplus = append(surplus, all[pl])
	}
	return wanted, surplus
}

// unfit says why a node may not keep tasks of the service, or "", also for no
// node.
func unfit(svc *api.Service, n *api.Node) string {
	if n == nil {
		return ""
	}
	if n.Availability == api.AvailabilityDrain {
		return "node " + n.Hostname + " is drained"
	}
	if unmet, is := svc.Spec.Placement.Unmet(n); is {
		return "node " + n.Hostname + " does not satisfy " + unmet.String()
	}
	return ""
}
