package manager

import (
	"time"

	"github.com/orch-dev/orch/pkg/api"
)

// endRotation drops the old authority once every node has a certificate of the
// new one, or, when the time for them is over, all but nodes that are down.
func endRotation(snap *api.Snapshot, now time.Time) []api.Change {
	if snap.Cluster.Rotation == nil {
		return nil
	}
	for _, n := range snap.Unrenewed() {
		if n.State == api.NodeReady || now.Before(snap.Cluster.Rotation.Until) {
			return nil
		}
	}
	return []api.Change{{Cluster: snap.Cluster.Rotated()}}
}
