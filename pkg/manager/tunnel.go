package manager

import (
	"time"

	"github.com/orch-dev/orch/pkg/api"
)

// planTunnelKeys plans the next step of replacing the keys by which nodes encrypt
// what they send each other, once all live nodes have taken the one before into
// their kernels (acked is the index that they have), and begins when the keys have
// been used for long enough. A node that cannot encrypt holds up nothing.
func planTunnelKeys(snap *api.Snapshot, acked api.Index, now time.Time) []api.Change {
	if !snap.Encrypts() {
		return nil
	}
	c := snap.Cluster
	next := *c
	switch c.TunnelStep {
	case api.TunnelMakes:
		if !tookTunnelKeys(snap, c.TunnelEpoch+1, acked) {
			return nil
		}
		next.TunnelEpoch, next.TunnelStep, next.TunnelSince = c.TunnelEpoch+1, api.TunnelUses, now
	case api.TunnelUses:
		if acked < c.Meta.Modified {
			return nil
		}
		next.TunnelStep = ""
	default:
		switch {
		case c.TunnelSince.IsZero(): // the first network that is encrypted
			next.TunnelSince = now
		case now.Before(c.TunnelSince.Add(api.TunnelKeyLife)):
			return nil
		default:
			next.TunnelStep = api.TunnelMakes
		}
	}
	return []api.Change{{Cluster: &next}}
}

// tookTunnelKeys reports whether every live node that can encrypt has a key of the
// epoch, and all know it.
func tookTunnelKeys(snap *api.Snapshot, epoch uint64, acked api.Index) bool {
	for _, n := range snap.Nodes {
		if n.State != api.NodeReady || n.LacksEncryption() != "" {
			continue
		}
		if n.TunnelKey(epoch) == nil || acked < n.Meta.Modified {
			return false
		}
	}
	return acked >= snap.Cluster.Meta.Modified
}
