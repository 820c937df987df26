package control

import (
	"cmp"
	"context"
	"crypto/subtle"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/orch-dev/orch/pkg/api"
)

// Admit makes a joining node a member with the role of its token. A node that
// joins again, after it lost the answer, is admitted again.
func (s *Server) Admit(ctx context.Context, req *api.AdmitRequest) (*api.AdmitResponse, error) {
	snap := s.Replica.Snapshot()
	if snap.Cluster == nil {
		return nil, noState()
	}
	role, err := roleOf(snap.Cluster, req.Secret)
	if err != nil {
		return nil, err
	}
	if err := req.Node.Validate(); err != nil {
		return nil, err
	}
	if _, err := s.Replica.Update(ctx, func(snap *api.Snapshot) ([]api.Change, error) {
		return planAdmit(snap, req.Node, role)
	}); err != nil {
		return nil, err
	}
	s.Log.Info("node admitted", "node", req.Node.Hostname, "id", req.Node.ID, "role", role)
	return &api.AdmitResponse{
		ClusterID: snap.Cluster.ID,
		Role:      role,
		GossipKey: snap.Cluster.GossipKey,
		Pool:      snap.Cluster.Pool,
		Managers:  managerAddrs(s.Replica.Snapshot()),
	}, nil
}

// planAdmit makes a node a member, or again the member that it was.
func planAdmit(snap *api.Snapshot, node api.Node, role api.Role) ([]api.Change, error) {
	for _, other := range api.Sorted(snap.Nodes) {
		if other.ID != node.ID && other.APIAddr() == node.APIAddr() {
			return nil, api.Errorf(api.CodeConflict, "node %s (%s) already has the address %s", other.Hostname, other.ID, other.APIAddr())
		}
	}
	node.Meta, node.Role, node.Availability, node.State = api.Meta{}, role, api.AvailabilityActive, api.NodeDown
	if old := snap.Nodes[node.ID]; old != nil {
		switch {
		case old.State == api.NodeReady:
			return nil, api.Errorf(api.CodeConflict, "node %s at %s has this node's ID and is in the cluster: if this machine is a copy of it, stop the daemon here and remove its state directory", old.Hostname, old.Addr)
		case old.Role != role:
			return nil, api.Errorf(api.CodeConflict, "this node was admitted as a %s before: join with the token for a %s", old.Role, old.Role)
		}
		node.Meta, node.Labels, node.Availability = old.Meta, old.Labels, old.Availability
	}
	return []api.Change{{Node: &node}}, nil
}

func noState() error {
	return api.Errorf(api.CodeUnavailable, "this manager does not have the cluster's state yet: try again")
}

// AddVoter makes an admitted manager a member of the Raft group. It comes after
// Admit, and once the node's Raft answers: a group of one that became two would
// otherwise wait for a vote that cannot come.
func (s *Server) AddVoter(ctx context.Context, req *api.AddVoterRequest) (*api.Empty, error) {
	node := s.Replica.Snapshot().Nodes[req.Node]
	if node == nil || node.Role != api.RoleManager {
		return nil, api.Errorf(api.CodeDenied, "node %s was not admitted as a manager", req.Node)
	}
	if err := s.Replica.AddVoter(ctx, node); err != nil {
		return nil, fmt.Errorf("make %s a member of the raft group: %w", node.Hostname, err)
	}
	return &api.Empty{}, nil
}

// roleOf returns the role that a join token's secret gives.
func roleOf(cluster *api.Cluster, secret string) (api.Role, error) {
	for role, want := range map[api.Role]string{api.RoleWorker: cluster.WorkerToken, api.RoleManager: cluster.ManagerToken} {
		if subtle.ConstantTimeCompare([]byte(secret), []byte(want)) == 1 {
			return role, nil
		}
	}
	return "", api.Errorf(api.CodeDenied,
		"the join token is not one of this cluster (wrong, or rotated since): get a valid one with `orch join-token worker|manager` on a manager")
}

// managerAddrs lists the API addresses of the managers, by node ID.
func managerAddrs(snap *api.Snapshot) []string {
	var addrs []string
	for _, n := range api.Sorted(snap.Nodes) {
		if n.Role == api.RoleManager {
			addrs = append(addrs, n.APIAddr())
		}
	}
	return addrs
}

// JoinTokens returns what nodes join with through this manager.
func (s *Server) JoinTokens(context.Context, *api.Empty) (*api.JoinTokens, error) {
	snap := s.Replica.Snapshot()
	if snap.Cluster == nil || snap.Nodes[s.Node] == nil {
		return nil, noState()
	}
	addr := snap.Nodes[s.Node].APIAddr()
	return &api.JoinTokens{
		Worker:  snap.Cluster.WorkerToken + "@" + addr,
		Manager: snap.Cluster.ManagerToken + "@" + addr,
	}, nil
}

// Nodes lists the nodes by name, with what the leader knows of them.
func (s *Server) Nodes(context.Context, *api.Empty) (*api.NodeList, error) {
	leader, _, _ := s.Replica.Raft.Leader()
	list := &api.NodeList{Nodes: []api.NodeEntry{}}
	for _, n := range api.Sorted(s.Replica.Snapshot().Nodes) {
		entry := api.NodeEntry{Node: *n, Leader: n.ID == leader}
		seen, applied := s.Tracker.Contact(n.ID)
		if entry.Applied = applied; !seen.IsZero() {
			entry.SeenAgo = s.Now().Sub(seen).Round(time.Millisecond)
		}
		list.Nodes = append(list.Nodes, entry)
	}
	slices.SortStableFunc(list.Nodes, func(a, b api.NodeEntry) int { return cmp.Compare(a.Hostname, b.Hostname) })
	return list, nil
}

// UpdateNode sets what an operator may set on a node.
func (s *Server) UpdateNode(ctx context.Context, req *api.UpdateNodeRequest) (*api.Empty, error) {
	switch req.Availability {
	case "", api.AvailabilityActive, api.AvailabilityPause, api.AvailabilityDrain:
	default:
		return nil, api.Errorf(api.CodeInvalid, "unknown availability %q: use active, pause or drain", req.Availability)
	}
	if req.Availability == "" && len(req.AddLabels) == 0 && len(req.RemoveLabels) == 0 {
		return nil, api.Errorf(api.CodeInvalid, "say what to change of node %s: its availability or its labels", req.Node)
	}
	_, err := s.Replica.Update(ctx, func(snap *api.Snapshot) ([]api.Change, error) {
		node, err := findNode(snap, req.Node)
		if err != nil {
			return nil, err
		}
		next := *node
		if req.Availability != "" {
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
		return []api.Change{{Node: &next}}, nil
	})
	return &api.Empty{}, err
}

// findNode finds a node by hostname, ID or unambiguous prefix of the ID.
func findNode(snap *api.Snapshot, ref string) (*api.Node, error) {
	return find("node", ref, api.Sorted(snap.Nodes), func(n *api.Node) (string, string) { return n.Hostname, string(n.ID) })
}

// findService finds a service by full name, ID or unambiguous prefix of the ID.
func findService(snap *api.Snapshot, ref string) (*api.Service, error) {
	return find("service", ref, api.Sorted(snap.Services), func(s *api.Service) (string, string) { return s.Spec.Name, string(s.ID) })
}

// find picks the one object that ref names: by its ID, else by its name, else by
// the beginning of its ID.
func find[T any](kind, ref string, objects []*T, key func(*T) (name, id string)) (*T, error) {
	var named, found []*T
	for _, o := range objects {
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
