package control

import (
	"context"
	"time"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/pki"
)

// maxGrace is the longest that nodes that are down may be waited for: their
// certificates have ended by then.
const maxGrace = pki.DefaultLife

// Authority says which authority signs, and how far its replacement is.
func (s *Server) Authority(context.Context, *api.Empty) (*api.AuthorityStatus, error) {
	snap := s.Replica.Snapshot()
	if snap.Cluster == nil {
		return nil, noState()
	}
	status := &api.AuthorityStatus{Authority: snap.Cluster.Authority.Certificate, Nodes: len(snap.Nodes)}
	if external := snap.Cluster.Issuer().External; external != nil {
		status.External = external.URL
	}
	rotation := snap.Cluster.Rotation
	if rotation == nil {
		return status, nil
	}
	status.Next, status.Started, status.Until = rotation.Next.Certificate, rotation.Started, rotation.Until
	for _, n := range snap.Unrenewed() {
		status.Waiting = append(status.Waiting, n.Hostname)
		if n.State != api.NodeReady {
			status.Down = append(status.Down, n.Hostname)
		}
	}
	for _, u := range snap.Cluster.UnrenewedUsers() {
		status.Users = append(status.Users, u.Name)
	}
	return status, nil
}

// RotateAuthority begins to replace the authority. The rest is the nodes' to do,
// which renew their certificates, and the leader's loop.
func (s *Server) RotateAuthority(ctx context.Context, req *api.RotateAuthorityRequest) (*api.AuthorityStatus, error) {
	if req.Grace < 0 || req.Grace > maxGrace {
		return nil, api.Errorf(api.CodeInvalid, "a grace of %v: nodes that are down can be waited for from 0s to %v", req.Grace, maxGrace)
	}
	if _, err := s.Replica.Update(ctx, func(snap *api.Snapshot) ([]api.Change, error) {
		if snap.Cluster.Rotation != nil {
			return nil, api.Errorf(api.CodeConflict, "the authority is being replaced already, since %s: see `orch ca`; `orch ca finish` ends it without the nodes that are not ready", snap.Cluster.Rotation.Started.Format(time.RFC3339))
		}
		rotation, err := s.rotation(snap.Cluster, req)
		if err != nil {
			return nil, err
		}
		next := *snap.Cluster
		next.Rotation = rotation
		return []api.Change{{Cluster: &next}}, nil
	}); err != nil {
		return nil, err
	}
	s.Log.Info("replacing the cluster's authority")
	return s.Authority(ctx, &api.Empty{})
}

// rotation begins with the next authority, made or named, signed by the present one.
func (s *Server) rotation(cluster *api.Cluster, req *api.RotateAuthorityRequest) (*api.Rotation, error) {
	now := s.Now()
	rotation := &api.Rotation{Started: now, Until: now.Add(req.Grace)}
	var err error
	if rotation.Next, err = s.nextAuthority(cluster, req.Next); err != nil {
		return nil, err
	}
	if external := cluster.Authority.External; external != nil {
		return rotation, crossedOutside(rotation, external, cluster, req, now)
	}
	if req.Cross != nil {
		return nil, api.Errorf(api.CodeInvalid, "the managers sign the next authority's certificate themselves: leave out the one that you have")
	}
	old, err := pki.LoadAuthority(cluster.Authority)
	if err != nil {
		return nil, err
	}
	rotation.Cross, err = old.CrossSign(s.Rand, rotation.Next.Certificate, now)
	return rotation, err
}

// nextAuthority is the one that was named, or a new one.
func (s *Server) nextAuthority(cluster *api.Cluster, named *api.Authority) (api.Authority, error) {
	if named == nil {
		next, err := pki.NewAuthority(s.Rand, cluster.ID, s.Now())
		if err != nil {
			return api.Authority{}, err
		}
		return next.Store()
	}
	switch {
	case named.External == nil || named.Key != nil:
		return api.Authority{}, api.Errorf(api.CodeInvalid, "the next authority is named, and not where it signs")
	case named.ID() == cluster.Authority.ID():
		return api.Authority{}, api.Errorf(api.CodeInvalid, "this is the certificate of the authority that is to be replaced")
	}
	return *named, named.External.Validate()
}

// crossedOutside takes over the certificate of the next authority that the external
// one, which is to be replaced, has signed: managers cannot.
func crossedOutside(rotation *api.Rotation, external *api.ExternalCA, cluster *api.Cluster, req *api.RotateAuthorityRequest, now time.Time) error {
	if req.Next == nil || req.Cross == nil {
		return api.Errorf(api.CodeConflict, "the authority is the external CA at %s, whose key the managers do not have, so that they cannot replace it by themselves: "+
			"have it sign the certificate of the next CA (its name and its key), and give that with --cross-cert, --ca-cert and --external-ca", external.URL)
	}
	rotation.Cross = req.Cross
	return pki.CheckCross(req.Cross, cluster.Authority.Certificate, rotation.Next.Certificate, now)
}

// FinishRotation drops the old authority at once. Nodes and users that still have
// a certificate of it are out: they have to join again, and to be renewed.
func (s *Server) FinishRotation(ctx context.Context, _ *api.Empty) (*api.AuthorityStatus, error) {
	if _, err := s.Replica.Update(ctx, func(snap *api.Snapshot) ([]api.Change, error) {
		if snap.Cluster.Rotation == nil {
			return nil, api.Errorf(api.CodeConflict, "the authority is not being replaced: `orch ca rotate` begins that")
		}
		if n := snap.Nodes[s.Node]; n == nil || n.Info.Issuer != snap.Cluster.Issuer().ID() {
			return nil, api.Errorf(api.CodeConflict, "the leader itself does not have a certificate of the new authority yet: try again in a moment")
		}
		return []api.Change{{Cluster: snap.Cluster.Rotated()}}, nil
	}); err != nil {
		return nil, err
	}
	s.Log.Info("the cluster's old authority is dropped")
	return s.Authority(ctx, &api.Empty{})
}
