package control

import (
	"context"
	"time"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/scheduler"
)

// Rebalance has every service that is uneven spread over all nodes again, or says
// what that would move.
func (s *Server) Rebalance(ctx context.Context, req *api.RebalanceRequest) (*api.Rebalancing, error) {
	if req.Plan {
		return rebalancing(s.Replica.Snapshot(), s.Now()), nil
	}
	res := &api.Rebalancing{}
	_, err := s.Replica.Update(ctx, func(snap *api.Snapshot) ([]api.Change, error) {
		if *res = *rebalancing(snap, s.Now()); len(res.Moves) == 0 {
			return nil, nil
		}
		var changes []api.Change
		for _, n := range api.Sorted(snap.Nodes) {
			if n.State == api.NodeReady && !n.Rebalance {
				next := *n
				next.Rebalance = true
				changes = append(changes, api.Change{Node: &next})
			}
		}
		res.Busy = true
		return changes, nil
	})
	return res, err
}

func rebalancing(snap *api.Snapshot, now time.Time) *api.Rebalancing {
	res := &api.Rebalancing{Moves: []api.TaskMove{}}
	for _, m := range scheduler.Moves(snap, now) {
		res.Moves = append(res.Moves, api.TaskMove{
			Task: taskName(snap, m.Task), ID: m.Task.ID, From: m.From.Hostname, To: m.To.Hostname, Why: m.Why,
		})
	}
	for _, n := range snap.Nodes {
		res.Busy = res.Busy || n.Rebalance && n.State == api.NodeReady
	}
	for _, t := range snap.Tasks {
		res.Busy = res.Busy || t.Moving != "" && !t.Status.State.Terminal()
	}
	return res
}
