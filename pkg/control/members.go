package control

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/orch-dev/orch/pkg/api"
)

// answersWithin is how recently a manager must have been heard of to be counted on.
const answersWithin = 2 * time.Second

// RemoveNode takes a node out of the cluster. Its tasks are replaced, and its
// certificate is good for nothing from now on.
func (s *Server) RemoveNode(ctx context.Context, req *api.RemoveNodeRequest) (*api.Empty, error) {
	node, err := findNode(s.Replica.Snapshot(), req.Node)
	if err != nil {
		return nil, err
	}
	if node.State != api.NodeDown && !req.Force {
		return nil, api.Errorf(api.CodeConflict,
			"node %s is up: run `orch leave` on it, or give --force to remove it all the same (what runs on it then goes on until `orch leave --force` is run there)", node.Hostname)
	}
	if err := s.remove(ctx, node); err != nil {
		return nil, err
	}
	s.Log.Info("node removed", "node", node.Hostname, "id", node.ID)
	return &api.Empty{}, nil
}

// Depart lets a node leave: first its tasks, then itself.
func (s *Server) Depart(ctx context.Context, req *api.DepartRequest) (*api.Empty, error) {
	if err := ownCall(ctx, req.Node); err != nil {
		return nil, err
	}
	node := s.Replica.Snapshot().Nodes[req.Node]
	if node == nil {
		return &api.Empty{}, nil // it has been removed already
	}
	if req.Prepare {
		if err := s.mayLose(node); err != nil {
			return nil, err
		}
		_, err := s.Replica.Update(ctx, func(snap *api.Snapshot) ([]api.Change, error) {
			next := *node
			if now := snap.Nodes[node.ID]; now != nil {
				next = *now
			}
			next.Availability = api.AvailabilityDrain
			return []api.Change{{Node: &next}}, nil
		})
		return &api.Empty{}, err
	}
	if err := s.remove(ctx, node); err != nil {
		return nil, err
	}
	s.Log.Info("node left", "node", node.Hostname, "id", node.ID)
	return &api.Empty{}, nil
}

// remove deletes a node, which the planners draw the conclusions of: its tasks go
// with it, and so does its place among the managers.
func (s *Server) remove(ctx context.Context, node *api.Node) error {
	s.members.Lock()
	defer s.members.Unlock()
	if err := s.mayLose(node); err != nil {
		return err
	}
	if err := s.passLead(ctx, node); err != nil {
		return err
	}
	_, err := s.Replica.Update(ctx, func(snap *api.Snapshot) ([]api.Change, error) {
		now := snap.Nodes[node.ID]
		if now == nil {
			return nil, nil
		}
		return []api.Change{{Node: now, Delete: true}}, nil
	})
	if err != nil {
		return err
	}
	return s.expel(ctx, node)
}

// expel takes a manager that is none any more out of the Raft group. If it fails the
// leader goes on trying: see manager.Members.
func (s *Server) expel(ctx context.Context, node *api.Node) error {
	if !s.Replica.Raft.Stats().Has(node.ID) {
		return nil
	}
	if err := s.Replica.Raft.RemoveServer(ctx, node.ID); err != nil {
		return fmt.Errorf("%s is no manager any more, but the others have not let go of it yet: %w", node.Hostname, err)
	}
	return nil
}

// demote makes a node a worker, with what else the request changes of it.
func (s *Server) demote(ctx context.Context, req *api.UpdateNodeRequest) error {
	s.members.Lock()
	defer s.members.Unlock()
	node, err := findNode(s.Replica.Snapshot(), req.Node)
	if err != nil {
		return err
	}
	if err := s.mayLose(node); err != nil {
		return err
	}
	if node.Role == api.RoleManager {
		if err := s.passLead(ctx, node); err != nil {
			return err
		}
	}
	if err := s.updateNode(ctx, req); err != nil {
		return err
	}
	return s.expel(ctx, node)
}

// passLead has another manager lead if this is the one that is to be none any
// more: what was asked is then asked of the other.
func (s *Server) passLead(ctx context.Context, node *api.Node) error {
	if node.ID != s.Node {
		return nil
	}
	if err := s.Replica.Raft.TransferLeadership(ctx); err != nil {
		return api.Errorf(api.CodeUnavailable, "no other manager can take the lead from %s: %v", node.Hostname, err)
	}
	return api.Undone("another manager leads now")
}

// mayLose refuses that a manager is none any more if the rest would have no quorum.
// The caller holds s.members until the state says so: two that may be lost may not
// both be.
func (s *Server) mayLose(node *api.Node) error {
	if node.Role != api.RoleManager {
		return nil
	}
	rest := managersBut(s.Replica.Snapshot(), node.ID)
	if len(rest) == 0 {
		return api.Errorf(api.CodeConflict,
			"%s is the only manager, and the cluster is lost without: promote another node first (`orch node promote`), or end the cluster with `orch leave --force` on each node", node.Hostname)
	}
	group := s.Replica.Raft.Stats()
	var silent []string
	for _, n := range rest {
		switch {
		case !s.answers(n):
			silent = append(silent, n.Hostname+" does not answer")
		case !group.Votes(n.ID):
			silent = append(silent, n.Hostname+" has no vote yet")
		}
	}
	if answer, quorum := len(rest)-len(silent), api.Quorum(len(rest)); answer < quorum {
		return api.Errorf(api.CodeConflict,
			"without %s there would be %s, of which %d must answer, and only %d would (%s): the cluster would be without a quorum. Bring a manager back, add one, or remove one that is down first (`orch node rm`)",
			node.Hostname, counted(len(rest), "manager"), quorum, answer, strings.Join(silent, ", "))
	}
	return nil
}

// answers reports whether a manager can be counted on.
func (s *Server) answers(n *api.Node) bool {
	seen, _ := s.Tracker.Contact(n.ID)
	return n.ID == s.Node || n.State != api.NodeDown && (seen.IsZero() || s.Now().Sub(seen) <= answersWithin)
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
