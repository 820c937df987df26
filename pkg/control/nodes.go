package control

import (
	"cmp"
	"context"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/orch-dev/orch/pkg/api"
)

// Nodes lists nodes, those that were asked for or all by name, with what the leader
// knows of them.
func (s *Server) Nodes(_ context.Context, req *api.NodesRequest) (*api.NodeList, error) {
	snap := s.Replica.Snapshot()
	nodes := api.Sorted(snap.Nodes)
	slices.SortStableFunc(nodes, func(a, b *api.Node) int { return cmp.Compare(a.Hostname, b.Hostname) })
	if len(req.Nodes) > 0 {
		nodes = nil
		for _, ref := range req.Nodes {
			node, err := findNode(snap, ref)
			if err != nil {
				return nil, err
			}
			nodes = append(nodes, node)
		}
	}
	leader, _, _ := s.Replica.Raft.Leader()
	group := s.Replica.Raft.Stats()
	list := &api.NodeList{Nodes: []api.NodeEntry{}}
	for _, n := range nodes {
		entry := api.NodeEntry{Node: *n, Leader: n.ID == leader, Voter: group.Votes(n.ID)}
		seen, applied := s.Tracker.Contact(n.ID)
		if entry.Applied = applied; !seen.IsZero() {
			entry.SeenAgo = s.Now().Sub(seen).Round(time.Millisecond)
		}
		list.Nodes = append(list.Nodes, entry)
	}
	return list, nil
}

// UpdateNode sets what an operator may set on a node.
func (s *Server) UpdateNode(ctx context.Context, req *api.UpdateNodeRequest) (*api.Empty, error) {
	if err := checkNodeUpdate(req); err != nil {
		return nil, err
	}
	if req.Role == api.RoleWorker {
		return &api.Empty{}, s.demote(ctx, req)
	}
	return &api.Empty{}, s.updateNode(ctx, req)
}

func (s *Server) updateNode(ctx context.Context, req *api.UpdateNodeRequest) error {
	_, err := s.Replica.Update(ctx, func(snap *api.Snapshot) ([]api.Change, error) { return planNodeUpdate(snap, req) })
	return err
}

func checkNodeUpdate(req *api.UpdateNodeRequest) error {
	switch req.Availability {
	case "", api.AvailabilityActive, api.AvailabilityPause, api.AvailabilityDrain:
	default:
		return api.Errorf(api.CodeInvalid, "unknown availability %q: use active, pause or drain", req.Availability)
	}
	switch req.Role {
	case "", api.RoleWorker, api.RoleManager:
	default:
		return api.Errorf(api.CodeInvalid, "unknown role %q: use worker or manager", req.Role)
	}
	if req.Role == "" && req.Availability == "" && len(req.AddLabels) == 0 && len(req.RemoveLabels) == 0 {
		return api.Errorf(api.CodeInvalid, "say what to change of node %s: its role, its availability or its labels", req.Node)
	}
	return nil
}

func planNodeUpdate(snap *api.Snapshot, req *api.UpdateNodeRequest) ([]api.Change, error) {
	node, err := findNode(snap, req.Node)
	if err != nil {
		return nil, err
	}
	next := *node
	next.Role = cmp.Or(req.Role, node.Role)
	if req.Availability != "" {
		next.Rebalance = node.Rebalance || node.Availability != api.AvailabilityActive && req.Availability == api.AvailabilityActive
		next.Availability = req.Availability
	}
	next.Labels = make(map[string]string)
	for k, v := range node.Labels {
		next.Labels[k] = v
	}
	for k, v := range req.AddLabels {
		next.Labels[k] = v
	}
	for _, k := range req.RemoveLabels {
		delete(next.Labels, k)
	}
	if err := api.ValidateLabels("node "+node.Hostname, next.Labels); err != nil {
		return nil, err
	}
	return []api.Change{{Node: &next}}, nil
}

// findNode finds a node by hostname, ID or unambiguous prefix of the ID.
func findNode(snap *api.Snapshot, ref string) (*api.Node, error) {
	return find("node", ref, maps.Values(snap.Nodes), func(n *api.Node) (string, string) { return n.Hostname, string(n.ID) })
}

// findService finds a service by full name, ID or unambiguous prefix of the ID.
func findService(snap *api.Snapshot, ref string) (*api.Service, error) {
	return find("service", ref, maps.Values(snap.Services), func(s *api.Service) (string, string) { return s.Spec.Name, string(s.ID) })
}

// find picks the one object that ref names: by its ID, else by its name, else by
// the beginning of its ID.
func find[T any](kind, ref string, objects iter.Seq[*T], key func(*T) (name, id string)) (*T, error) {
	var named, found []*T
	for o := range objects {
		name, id := key(o)
		switch {
		case id == ref:
			return o, nil
		case name == ref:
			named = append(named, o)
		case ref != "" && strings.HasPrefix(id, ref):
			found = append(found, o)
		}
	}
	switch {
	case len(named) == 1:
		return named[0], nil
	case len(named) > 1:
		return nil, api.Errorf(api.CodeInvalid, "%d %ss are called %q: give the ID of one (see `orch %s ls`)", len(named), kind, ref, kind)
	case len(found) == 1:
		return found[0], nil
	case len(found) == 0:
		return nil, api.Errorf(api.CodeNotFound, "no %s is called %q (see `orch %s ls`)", kind, ref, kind)
	}
	return nil, api.Errorf(api.CodeInvalid, "%q is the beginning of the IDs of %d %ss: give more of it", ref, len(found), kind)
}
