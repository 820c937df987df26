package manager

import (
	"time"

	"github.com/orch-dev/orch/pkg/api"
)

// endRotation drops the old authority once every node and user has a certificate
// of the new one, or, when the time for them is over, all but users and nodes that
// are down.
func endRotation(snap *api.Snapshot, now time.Time) []api.Change {
	if snap.Cluster.Rotation == nil {
		return nil
	}
	waits := now.Before(snap.Cluster.Rotation.Until)
	if waits && len(snap.Cluster.UnrenewedUsers()) > 0 {
		return nil
	}
	for _, n := range snap.Unrenewed() {
		if waits || n.State == api.NodeReady {
			return nil
		}
	}
	return []api.Change{{Cluster: snap.Cluster.Rotated()}}
}
