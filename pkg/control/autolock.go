package control

import (
	"context"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/seal"
)

// UnlockKey tells the key that managers need after a restart, or replaces it.
func (s *Server) UnlockKey(ctx context.Context, req *api.UnlockKeyRequest) (*api.UnlockKey, error) {
	var key seal.UnlockKey
	_, err := s.Replica.Update(ctx, func(snap *api.Snapshot) ([]api.Change, error) {
		if key = snap.Cluster.UnlockKey; key == nil {
			return nil, api.Errorf(api.CodeConflict, "the managers of this cluster need no unlock key: `orch cluster update --autolock` changes that")
		}
		if !req.Rotate {
			return nil, nil
		}
		key = seal.NewUnlockKey(s.Rand)
		next := *snap.Cluster
		next.UnlockKey = key
		return []api.Change{{Cluster: &next}}, nil
	})
	if err != nil {
		return nil, err
	}
	return &api.UnlockKey{Key: key.Text()}, nil
}
