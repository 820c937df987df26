package main

import (
	"fmt"
	"io"
	"time"

	"github.com/orch-dev/orch/consensus/store"
	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/manager"
	"github.com/orch-dev/orch/pkg/orchestrator"
)

// wholeLoop deploys services and has the leader's planners, and the store, make
// tasks of them until nothing is left to plan.
func wholeLoop(out io.Writer, nodes, tasks int) error {
	const perService = 250
	state := store.New()
	index := api.Index(0)
	apply := func(entry []byte) error {
		index++
		if answer := state.Apply(index, entry); answer != nil {
			return fmt.Errorf("apply entry %d: %v", index, answer)
		}
		return nil
	}
	first, err := store.Encode(deployed(nodes, tasks, perService))
	if err == nil {
		err = apply(first)
	}
	if err != nil {
		return err
	}
	ids := 0
	newID := func() api.TaskID {
		ids++
		return api.TaskID(fmt.Sprintf("task%021d", ids))
	}
	start := time.Now()
	var plans int
	var planner manager.Planner
	for {
		plan := planner.Plan(orchestrator.Input{Snapshot: state.Snapshot(), Now: now, NewID: newID})
		if len(plan.Changes) == 0 {
			break
		}
		plans++
		for rest := plan.Changes; len(rest) > 0; {
			entry, n, err := store.EncodeUpTo(rest, 1<<20)
			if err == nil {
				err = apply(entry)
			}
			if err != nil {
				return err
			}
			rest = rest[n:]
		}
	}
	took := time.Since(start)
	placed := 0
	for _, t := range state.Snapshot().Tasks {
		if t.NodeID != "" {
			placed++
		}
	}
	if placed != tasks {
		return fmt.Errorf("%d of %d tasks were placed", placed, tasks)
	}
	fmt.Fprintf(out, "%9d tasks onto %d nodes, all planners and the store: %6.2f s, %.0f tasks/s, %d plans, %d entries\n",
		tasks, nodes, took.Seconds(), float64(tasks)/took.Seconds(), plans, index)
	release()
	return nil
}

// deployed is the state after a deploy of many services.
func deployed(nodes, tasks, perService int) []api.Change {
	snap := cluster(nodes)
	changes := []api.Change{{Cluster: snap.Cluster}}
	for _, n := range api.Sorted(snap.Nodes) {
		changes = append(changes, api.Change{Node: n})
	}
	for _, n := range snap.Networks {
		changes = append(changes, api.Change{Network: n})
	}
	for s := range tasks / perService {
		changes = append(changes, api.Change{Service: service(s, perService)})
	}
	return changes
}
