package manager

import (
	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/ipam"
	"github.com/orch-dev/orch/pkg/orchestrator"
	"github.com/orch-dev/orch/pkg/scheduler"
)

// Planned is what should change, in an order in which any part can be made
// without what is behind it.
type Planned struct {
	Changes  []api.Change
	Problems []ipam.Problem
}

// Planner runs the planners. What it keeps from one plan to the next makes them
// faster, and changes nothing about them.
type Planner struct{ memory scheduler.Memory }

// Plan runs the planners in a row, each on what those before it planned.
func (p *Planner) Plan(in orchestrator.Input) Planned {
	snap := in.Snapshot
	tasks := orchestrator.Plan(in)
	snap = snap.With(tasks)

	allocations, problems := ipam.Plan(snap)
	snap = snap.With(allocations)

	placements := p.memory.Plan(snap, in.Now)
	snap = snap.With(placements)

	moves := scheduler.Rebalance(snap, in.Now)

	return Planned{api.Merge(tasks, allocations, placements, moves, unusedFiles(snap), unusedNetworks(snap), endRotation(snap, in.Now)), problems}
}

// unusedNetworks plans the end of networks whose stack was removed, once no
// task is on them: until then their numbers may not be given to another.
func unusedNetworks(snap *api.Snapshot) []api.Change {
	used := make(map[api.NetworkID]bool)
	for _, t := range snap.Tasks {
		for _, id := range t.Networks {
			used[id] = true
		}
	}
	var changes []api.Change
	for _, n := range api.Sorted(snap.Networks) {
		if n.Removing && !used[n.ID] {
			changes = append(changes, api.Change{Network: n, Delete: true})
		}
	}
	return changes
}

// unusedFiles plans the end of a stack's secrets and configs of which no task
// that runs, or is to run, needs that version; a service keeps those of its spec
// before the last update, too, for the way back.
func unusedFiles(snap *api.Snapshot) []api.Change {
	if len(snap.Files) == 0 {
		return nil
	}
	used := make(map[api.FileID]bool)
	use := func(spec *api.TaskSpec) {
		for _, f := range spec.Files {
			used[f.ID] = true
		}
	}
	for _, svc := range snap.Services {
		use(&svc.Spec.Task)
		if svc.Previous != nil {
			use(&svc.Previous.Task)
		}
	}
	for _, t := range snap.Tasks {
		if !t.Status.State.Terminal() {
			use(&t.Spec)
		}
	}
	var changes []api.Change
	for _, f := range api.Sorted(snap.Files) {
		if f.Stack != "" && !used[f.ID] {
			changes = append(changes, api.DeleteFile(f))
		}
	}
	return changes
}
