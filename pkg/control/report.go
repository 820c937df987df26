package control

import (
	"context"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"github.com/orch-dev/orch/pkg/api"
)

// How often a node may report what has to be stored: so many times in a row, and
// then once in reportEvery. Agents are not that fast; see agent.sendReports.
const (
	reportBurst = 250
	reportEvery = 20 * time.Millisecond
)

// Report takes an agent's heartbeat: it renews the node's lease, notes what the
// node has acknowledged and stores what became of its tasks.
func (s *Server) Report(ctx context.Context, req *api.Report) (*api.ReportResponse, error) {
	if err := ownCall(ctx, req.Node); err != nil {
		return nil, err
	}
	snap := s.Replica.Snapshot()
	if snap.Nodes[req.Node] == nil {
		return nil, notMember(req.Node)
	}
	if err := checkMove(snap, req); err != nil {
		return nil, err
	}
	applied := req.Applied
	if req.Epoch < snap.Version().Epoch {
		applied = 0 // of a group before: what it had says nothing of this one's
	}
	s.Tracker.Reported(req.Node, applied, snap.Index, s.Now())
	if len(planReport(snap, req, s.now())) > 0 && !s.reports.Allow(req.Node) {
		return nil, api.Errorf(api.CodeUnavailable, "node %s reports too much: at most %d times a second", req.Node, time.Second/reportEvery)
	}
	if _, err := s.Replica.Update(ctx, func(snap *api.Snapshot) ([]api.Change, error) {
		if err := checkMove(snap, req); err != nil {
			return nil, err
		}
		return planReport(snap, req, s.now()), nil
	}); err != nil {
		return nil, err
	}
	res := &api.ReportResponse{Lease: snap.Cluster.LeaseTimeout, Version: snap.Version()}
	if ring := snap.Cluster.GossipRing(); snap.Nodes[req.Node].Info.GossipRing != api.GossipRingID(ring) {
		res.GossipKeys = ring
	}
	if runsSingleton(s.Replica.TasksByNode(req.Node)) {
		// A leader that has lost its quorum, or was paused, may not extend the
		// fence: another may lead by now and not know of it.
		if err := s.Replica.Raft.VerifyLeader(ctx); err != nil {
			return nil, err
		}
		res.Fence = snap.Cluster.FenceLease()
	}
	return res, nil
}

// checkMove refuses an address that a node cannot have moved to. What is stored all
// nodes plan their networks with.
func checkMove(snap *api.Snapshot, req *api.Report) error {
	node := snap.Nodes[req.Node]
	if node == nil || !req.Addr.IsValid() || req.Addr == netip.AddrPortFrom(node.Addr, node.APIPort) {
		return nil
	}
	next := *node
	next.Addr, next.APIPort = req.Addr.Addr(), req.Addr.Port()
	if err := next.ValidateAddr(); err != nil {
		return err
	}
	for _, other := range snap.Nodes {
		if other.ID != node.ID && other.SharesAddr(&next) {
			return api.Errorf(api.CodeConflict, "node %s has moved to %s, which is the address of node %s: remove that one if it is gone (`orch node rm %s`)",
				node.Hostname, next.Addr, other.Hostname, other.Hostname)
		}
	}
	return nil
}

func runsSingleton(tasks []*api.Task) bool {
	return slices.ContainsFunc(tasks, func(t *api.Task) bool { return t.Spec.Singleton && !t.Status.State.Terminal() })
}

// planReport stores the news of a report. A node can report only its own tasks,
// and a task never moves back.
func planReport(snap *api.Snapshot, req *api.Report, now time.Time) []api.Change {
	var changes []api.Change
	if node := snap.Nodes[req.Node]; node != nil && req.Info != nil {
		next := *node
		next.Info = req.Info.Bounded()
		dropKeysOfOthers(snap, &next)
		if req.Addr.IsValid() {
			next.Addr, next.APIPort = req.Addr.Addr(), req.Addr.Port()
		}
		if !reflect.DeepEqual(node, &next) {
			changes = append(changes, api.Change{Node: &next})
		}
	}
	for _, id := range api.SortedKeys(req.Statuses) {
		task := snap.Tasks[id]
		if task == nil || task.NodeID != req.Node || !req.Statuses[id].State.Valid() {
			continue
		}
		status := task.Status.Advance(req.Statuses[id].Bounded())
		if status != task.Status {
			next := *task
			next.Status = status
			if status.State != task.Status.State {
				next.Note(now, happened(status))
			}
			changes = append(changes, api.Change{Task: &next})
		}
	}
	return changes
}

// happened says what a task's new state is, as its history has it.
func happened(s api.TaskStatus) string {
	if s.Message != "" {
		return string(s.State) + ": " + s.Message
	}
	return string(s.State)
}
