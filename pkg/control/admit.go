package control

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"slices"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/pki"
	"github.com/orch-dev/orch/pkg/rpc"
)

// rotatedKept is how many old tokens are told from wrong ones.
const rotatedKept = 16

// Admit makes a joining node a member with the role of its token. A node that
// joins again, after it lost the answer, is admitted again.
func (s *Server) Admit(ctx context.Context, req *api.AdmitRequest) (*api.AdmitResponse, error) {
	if err := req.Node.Validate(); err != nil {
		return nil, err
	}
	key, err := pki.RequestKey(req.Request)
	if err != nil {
		return nil, err
	}
	digest := sha256.Sum256(key)
	joining := req.Node
	joining.Key = digest[:]
	plan := func(snap *api.Snapshot) ([]api.Change, error) {
		role, err := roleOf(snap.Cluster, req.Secret)
		if err != nil {
			return nil, err
		}
		return planAdmit(snap, joining, role)
	}
	// An authority outside may not sign: then the node is no member, either.
	snap := s.Replica.Snapshot()
	planned, err := plan(snap)
	if err != nil {
		return nil, err
	}
	certificate, err := s.issue(ctx, snap, req.Request, planned[0].Node)
	if err != nil {
		return nil, err
	}
	if _, err := s.Replica.Update(ctx, plan); err != nil {
		return nil, err
	}
	snap = s.Replica.Snapshot()
	node := snap.Nodes[joining.ID]
	if node == nil { // removed at once
		return nil, notMember(joining.ID)
	}
	s.Log.Info("node admitted", "node", node.Hostname, "id", node.ID, "role", node.Role)
	return &api.AdmitResponse{
		ClusterID:       snap.Cluster.ID,
		Role:            node.Role,
		Certificate:     *certificate,
		GossipKey:       snap.Cluster.GossipKey,
		OtherGossipKeys: snap.Cluster.GossipRing()[1:],
		Epoch:           snap.Cluster.Epoch,
		Pool:            snap.Cluster.Pool,
		Managers:        managerAddrs(snap),

		ElectionTimeout: snap.Cluster.ElectionTimeout,
	}, nil
}

// planAdmit makes a node a member, or again the member that it was.
func planAdmit(snap *api.Snapshot, node api.Node, role api.Role) ([]api.Change, error) {
	for _, other := range api.Sorted(snap.Nodes) {
		if other.ID != node.ID && other.SharesAddr(&node) {
			return nil, api.Errorf(api.CodeConflict,
				"node %s (%s) already has the address %s: if that was this machine before, remove it first with `orch node rm %s` on a manager", other.Hostname, other.ID, other.Addr, other.ID)
		}
	}
	node.Meta, node.Role, node.Availability, node.State, node.Labels = api.Meta{}, role, api.AvailabilityActive, api.NodeDown, nil
	node.Info = node.Info.Bounded()
	if old := snap.Nodes[node.ID]; old != nil {
		switch {
		case !bytes.Equal(old.Key, node.Key):
			return nil, api.Errorf(api.CodeDenied, "node %s at %s has this node's ID, with another key: remove the state directory here to make this a new node", old.Hostname, old.Addr)
		case old.State == api.NodeReady:
			return nil, api.Errorf(api.CodeConflict, "node %s at %s has this node's ID and is in the cluster: if this machine is a copy of it, stop the daemon here and remove its state directory", old.Hostname, old.Addr)
		case old.Role != role:
			return nil, api.Errorf(api.CodeConflict, "this node was admitted as a %s before: join with the token for a %s", old.Role, old.Role)
		}
		node.Meta, node.Labels, node.Availability = old.Meta, old.Labels, old.Availability
	}
	return []api.Change{{Node: &node}}, nil
}

// AddMember makes an admitted manager a member of the Raft group. It comes after
// Admit, and once the node's Raft answers. The member gets its vote when it has
// caught up: see manager.Members.
func (s *Server) AddMember(ctx context.Context, req *api.AddMemberRequest) (*api.Empty, error) {
	node := s.Replica.Snapshot().Nodes[req.Node]
	if node == nil || node.Role != api.RoleManager {
		return nil, api.Errorf(api.CodeDenied, "node %s was not admitted as a manager", req.Node)
	}
	if err := s.Replica.AddMember(ctx, node); err != nil {
		return nil, fmt.Errorf("make %s a member of the raft group: %w", node.Hostname, err)
	}
	return &api.Empty{}, nil
}

// Renew issues a new certificate to the node or user that asks, a node's with the
// role that it has now. Any manager can answer nodes, also without a quorum.
func (s *Server) Renew(ctx context.Context, req *api.RenewRequest) (*api.Certificate, error) {
	if caller := rpc.CallerOf(ctx); caller.Role == api.RoleUser {
		return s.renewUser(ctx, caller.Node, req.Request)
	}
	snap := s.Replica.Snapshot()
	node := snap.Nodes[rpc.CallerOf(ctx).Node]
	if node == nil {
		return nil, notMember(rpc.CallerOf(ctx).Node)
	}
	if node.Role == api.RoleWorker && s.Replica.Raft.Stats().Has(node.ID) {
		// A worker's certificate is what a manager ends its part in Raft for.
		return nil, api.Errorf(api.CodeUnavailable, "node %s is a worker and not out of the managers' group yet: try again in a moment", node.Hostname)
	}
	return s.issue(ctx, snap, req.Request, node)
}

// issue makes a member's certificate.
func (s *Server) issue(ctx context.Context, snap *api.Snapshot, request []byte, node *api.Node) (*api.Certificate, error) {
	return s.certify(ctx, snap, request, pki.Identity{Cluster: snap.Cluster.ID, Role: node.Role, Node: node.ID})
}

// certify answers a request for a certificate for id.
func (s *Server) certify(ctx context.Context, snap *api.Snapshot, request []byte, id pki.Identity) (*api.Certificate, error) {
	certificate, err := s.sign(ctx, snap.Cluster, request, id)
	if err != nil {
		return nil, err
	}
	return &api.Certificate{Node: certificate, Chain: snap.Cluster.Chain(), Roots: snap.Cluster.Roots()}, nil
}

// sign has the cluster's authority sign a request, wherever that is.
func (s *Server) sign(ctx context.Context, cluster *api.Cluster, request []byte, id pki.Identity) ([]byte, error) {
	issuer := cluster.Issuer()
	if issuer.External == nil {
		authority, err := pki.LoadAuthority(*issuer)
		if err != nil {
			return nil, err
		}
		return authority.Issue(s.Rand, request, id, cluster.CertificateLife, s.Now())
	}
	if _, err := pki.RequestKey(request); err != nil {
		return nil, err
	}
	return s.Sign(ctx, issuer, request, id)
}

// roleOf returns the role that a join token's secret gives.
func roleOf(cluster *api.Cluster, secret string) (api.Role, error) {
	worker := subtle.ConstantTimeCompare([]byte(secret), []byte(cluster.WorkerToken))
	manager := subtle.ConstantTimeCompare([]byte(secret), []byte(cluster.ManagerToken))
	switch {
	case secret == "":
	case manager == 1:
		return api.RoleManager, nil
	case worker == 1:
		return api.RoleWorker, nil
	}
	digest := sha256.Sum256([]byte(secret))
	if slices.ContainsFunc(cluster.RotatedTokens, func(old []byte) bool { return bytes.Equal(old, digest[:]) }) {
		return "", api.Errorf(api.CodeDenied,
			"the join token is good no longer: it was replaced with `orch join-token --rotate`; get the new one with `orch join-token worker|manager` on a manager")
	}
	return "", api.Errorf(api.CodeDenied,
		"the join token is wrong: this cluster has not had one with that secret; get a valid one with `orch join-token worker|manager` on a manager")
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
	// While the authority is replaced this manager may not show the next one yet.
	authority := &snap.Cluster.Authority
	if next := snap.Cluster.Issuer(); snap.Nodes[s.Node].Info.Issuer == next.ID() {
		authority = next
	}
	token := pki.Token{Digest: pki.DigestOf(authority.Certificate), Addr: snap.Nodes[s.Node].APIAddr()}
	worker, manager := token, token
	worker.Role, worker.Secret = api.RoleWorker, snap.Cluster.WorkerToken
	manager.Role, manager.Secret = api.RoleManager, snap.Cluster.ManagerToken
	return &api.JoinTokens{Worker: worker.String(), Manager: manager.String()}, nil
}

// RotateToken gives a role a new join token. The old one is good no longer; nodes
// that have joined with it stay.
func (s *Server) RotateToken(ctx context.Context, req *api.RotateTokenRequest) (*api.JoinTokens, error) {
	secret := api.NewID(s.Rand)
	_, err := s.Replica.Update(ctx, func(snap *api.Snapshot) ([]api.Change, error) {
		next := *snap.Cluster
		var token *string
		switch req.Role {
		case api.RoleWorker:
			token = &next.WorkerToken
		case api.RoleManager:
			token = &next.ManagerToken
		default:
			return nil, api.Errorf(api.CodeInvalid, "unknown role %q: give worker or manager", req.Role)
		}
		old := sha256.Sum256([]byte(*token))
		next.RotatedTokens = append([][]byte{old[:]}, next.RotatedTokens[:min(len(next.RotatedTokens), rotatedKept-1)]...)
		*token = secret
		return []api.Change{{Cluster: &next}}, nil
	})
	if err != nil {
		return nil, err
	}
	s.Log.Info("join token rotated", "role", req.Role)
	return s.JoinTokens(ctx, &api.Empty{})
}
