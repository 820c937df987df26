package control

import (
	"context"
	"io"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/backup"
	"github.com/orch-dev/orch/pkg/seal"
)

// Backup returns the cluster's state, sealed under its backup key.
func (s *Server) Backup(context.Context, *api.Empty) (io.ReadCloser, error) {
	snap := s.Replica.Snapshot()
	if snap.Cluster == nil {
		return nil, noState()
	}
	if snap.Cluster.BackupKey == nil {
		return nil, api.Errorf(api.CodeConflict, "the cluster has no backup key yet, and one can be made only while its managers have a quorum: `orch cluster backup-key`")
	}
	save, err := s.Replica.Save()
	if err != nil {
		return nil, err
	}
	head := backup.Header{Cluster: snap.Cluster.ID, Index: snap.Index, Made: s.Now().UTC()}
	if self := snap.Nodes[s.Node]; self != nil {
		head.Orch = self.Info.OrchVersion
	}
	content, w := io.Pipe()
	go func() { _ = w.CloseWithError(backup.Write(w, head, snap.Cluster.BackupKey, s.Rand, save)) }()
	return content, nil
}

// BackupKey tells the key that backups are sealed under. It makes one if there is
// none, or if another is asked for.
func (s *Server) BackupKey(ctx context.Context, req *api.BackupKeyRequest) (*api.BackupKey, error) {
	var key seal.UnlockKey
	made := false
	_, err := s.Replica.Update(ctx, func(snap *api.Snapshot) ([]api.Change, error) {
		key = snap.Cluster.BackupKey
		if made = key == nil || req.Rotate; !made {
			return nil, nil
		}
		key = seal.NewUnlockKey(s.Rand)
		next := *snap.Cluster
		next.BackupKey = key
		return []api.Change{{Cluster: &next}}, nil
	})
	if err != nil {
		return nil, err
	}
	return &api.BackupKey{Key: key.Text(), Made: made}, nil
}
