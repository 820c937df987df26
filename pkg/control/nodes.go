package control

import (
	"cmp"
	"context"
	"crypto/subtle"
	"slices"
	"strings"
	"time"

	"github.com/orch-dev/orch/pkg/api"
)

// Admit makes a joining node a member with the role of its token. A node that
// joins again, after it lost the answer, is admitted again.
func (s *Server) Admit(ctx context.Context, req *api.AdmitRequest) (*api.AdmitResponse, error) {
	snap := s.Replica.Snapshot()
	role, err := roleOf(snap.Cluster, req.Secret)
	if err != nil {
		return nil, err
	}
	node := req.Node
	if node.ID == "" || !node.Addr.Is4() || node.APIPort == 0 {
		return nil, api.Errorf(api.CodeInvalid, "a node joins with an ID, an IPv4 address and a port")
	}
	node.Role, node.Availability, node.State = role, api.AvailabilityActive, api.NodeDown
	if _, err := s.Replica.Update(ctx, func(snap *api.Snapshot) ([]api.Change, error) {
		for _, other := range snap.Nodes {
			if other.ID != node.ID && other.APIAddr() == node.APIAddr() {
				return nil, api.Errorf(api.CodeConflict, "node %s (%s) already has the address %s", other.Hostname, other.ID, other.APIAddr())
			}
		}
		node.Meta = api.Meta{}
		if old := snap.Nodes[node.ID]; old != nil {
			node.Meta, node.Labels = old.Meta, old.Labels
		}
		return []api.Change{{Node: &node}}, nil
	}); err != nil {
		return nil, err
	}
	s.Log.Info("node admitted", "node", node.Hostname, "id", node.ID, "role", role)
	return &api.AdmitResponse{
		ClusterID: snap.Cluster.ID,
		Role:      role,
		GossipKey: snap.Cluster.GossipKey,
		Pool:      snap.Cluster.Pool,
		Managers:  managerAddrs(s.Replica.Snapshot()),
	}, nil
}

// AddVoter makes an admitted manager a member of the Raft group. It comes after
// Admit, and once the node's Raft answers: a group of one that became two would
// otherwise wait for a vote that cannot come.
func (s *Server) AddVoter(ctx context.Context, req *api.AddVoterRequest) (*api.Empty, error) {
	node := s.Replica.Snapshot().Nodes[req.Node]
	if node == nil || node.Role != api.RoleManager {
		return nil, api.Errorf(api.CodeDenied, "node %s was not admitted as a manager", req.Node)
	}
	if err := s.Replica.Raft.AddVoter(ctx, node.ID, node.APIAddr()); err != nil {
		return nil, api.Errorf(api.CodeUnavailable, "make %s a member of the raft group: %v", node.Hostname, err)
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
	addr := snap.Nodes[s.Node].APIAddr()
	return &api.JoinTokens{
		Worker:  snap.Cluster.WorkerToken + "@" + addr,
		Manager: snap.Cluster.ManagerToken + "@" + addr,
	}, nil
}

// Nodes lists the nodes by name, with what the leader knows of them.
func (s *Server) Nodes(context.Context, *api.Empty) (*api.NodeList, error) {
	leader, _, _ := s.Replica.Raft.Leader()
	list := &api.NodeList{}
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

// find picks the one object that ref names.
func find[T any](kind, ref string, objects []*T, key func(*T) (name, id string)) (*T, error) {
	var found []*T
	for _, o := range objects {
		name, id := key(o)
		if name == ref || id == ref {
			return o, nil
		}
		if ref != "" && strings.HasPrefix(id, ref) {
			found = append(found, o)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return nil, api.Errorf(api.CodeNotFound, "no %s is called %q (see `orch %s ls`)", kind, ref, kind)
	}
	return nil, api.Errorf(api.CodeInvalid, "%q is the beginning of the IDs of %d %ss: give more of it", ref, len(found), kind)
}
