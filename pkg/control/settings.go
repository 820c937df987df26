package control

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/manager"
	"github.com/orch-dev/orch/pkg/rpc"
	"github.com/orch-dev/orch/pkg/seal"
)

// ClusterSettings says what holds for the whole cluster, and who does not go by it
// yet.
func (s *Server) ClusterSettings(context.Context, *api.Empty) (*api.ClusterSettings, error) {
	snap := s.Replica.Snapshot()
	c := snap.Cluster
	if c == nil {
		return nil, noState()
	}
	settings := &api.ClusterSettings{
		ID: c.ID, Pool: c.Pool, Lease: c.LeaseTimeout, ElectionTimeout: c.Election(), CertificateLife: c.CertificateLife,
		Authority: c.Issuer().ID(), Autolock: c.UnlockKey != nil, Nodes: len(snap.Nodes), Managers: len(managerAddrs(snap)),
		Return: c.Return.Or(""),
	}
	if external := c.Issuer().External; external != nil {
		settings.External = external.URL
	}
	settings.GossipKeySince, settings.GossipKeyLife, settings.Gossip = c.GossipKeySince, c.GossipLife(), c.GossipStep()
	if settings.Gossip != "" {
		settings.Rekeying = hostnames(manager.Rekeying(snap))
	}
	settings.Retiming = hostnames(manager.Retiming(snap))
	return settings, nil
}

func hostnames(nodes []*api.Node) (names []string) {
	for _, n := range nodes {
		names = append(names, n.Hostname)
	}
	return names
}

// RotateGossipKey begins to replace the key of the gossip. The rest is the leader's
// and the nodes' to do.
func (s *Server) RotateGossipKey(ctx context.Context, _ *api.Empty) (*api.Empty, error) {
	_, err := s.Replica.Update(ctx, func(snap *api.Snapshot) ([]api.Change, error) {
		if snap.Cluster.GossipStep() != "" {
			return nil, api.Errorf(api.CodeConflict, "the gossip key is being replaced already: `orch cluster inspect` shows how far that is")
		}
		return manager.BeginGossipKey(snap, api.NewGossipKey(s.Rand)), nil
	})
	if err == nil {
		s.Log.Info("replacing the gossip key")
	}
	return &api.Empty{}, err
}

// UpdateCluster changes what holds for the whole cluster.
func (s *Server) UpdateCluster(ctx context.Context, req *api.UpdateClusterRequest) (*api.UpdateClusterResponse, error) {
	if *req == (api.UpdateClusterRequest{}) {
		return nil, api.Errorf(api.CodeInvalid, "say what to change of the cluster: see `orch cluster update --help`")
	}
	res := &api.UpdateClusterResponse{}
	changed := false
	_, err := s.Replica.Update(ctx, func(snap *api.Snapshot) ([]api.Change, error) {
		if external := snap.Cluster.Issuer().External; external != nil && req.CertificateLife != nil {
			return nil, api.Errorf(api.CodeConflict, "the external CA at %s decides how long certificates are good: change it there", external.URL)
		}
		next := *snap.Cluster
		res.UnlockKey = s.autolock(&next, req.Autolock)
		set(&next, req)
		if changed = !sameSettings(&next, snap.Cluster); !changed {
			return nil, nil
		}
		if err := next.ValidateSettings(); err != nil {
			return nil, err
		}
		return []api.Change{{Cluster: &next}}, nil
	})
	if err != nil {
		return nil, err
	}
	c := s.Replica.Snapshot().Cluster
	if changed {
		s.Log.Info("the cluster's settings were changed", "election timeout", c.Election(), "lease", c.LeaseTimeout,
			"certificate life", c.CertificateLife, "gossip key life", c.GossipLife(), "autolock", c.UnlockKey != nil, "return", c.Return.Or(""))
	}
	if req.ElectionTimeout != nil {
		res.Warnings = s.slowDisks(ctx, c.Election())
	}
	return res, nil
}

// autolock switches the unlock key on or off, and returns a new one's text.
func (s *Server) autolock(c *api.Cluster, on *bool) (text string) {
	switch {
	case on == nil || *on == (c.UnlockKey != nil):
		return ""
	case !*on:
		c.UnlockKey = nil
		return ""
	}
	key := seal.NewUnlockKey(s.Rand)
	c.UnlockKey = key
	return key.Text()
}

// set sets what a request names.
func set(c *api.Cluster, req *api.UpdateClusterRequest) {
	if req.ElectionTimeout != nil {
		c.ElectionTimeout = *req.ElectionTimeout
	}
	if req.CertificateLife != nil {
		c.CertificateLife = *req.CertificateLife
	}
	if req.GossipKeyLife != nil {
		c.GossipKeyLife = *req.GossipKeyLife
	}
	if req.Return != nil {
		c.Return = *req.Return
	}
	if req.Lease != nil {
		// Nodes may go by the old one until the leader has waited for that.
		c.LongLease = max(c.LeaseTimeout, c.LongLease)
		if c.LeaseTimeout = *req.Lease; c.LongLease <= c.LeaseTimeout {
			c.LongLease = 0
		}
	}
}

func sameSettings(a, b *api.Cluster) bool {
	return a.Election() == b.Election() && a.CertificateLife == b.CertificateLife && a.LeaseTimeout == b.LeaseTimeout &&
		a.GossipLife() == b.GossipLife() && (a.UnlockKey == nil) == (b.UnlockKey == nil) && a.Return == b.Return
}

// diskTimeout bounds what a manager may take to say how fast its disk is.
const diskTimeout = 5 * time.Second

// slowDisks asks the managers how fast their disks are, and says which are too slow
// for an election timeout.
func (s *Server) slowDisks(ctx context.Context, timeout time.Duration) []string {
	var managers []*api.Node
	for _, n := range api.Sorted(s.Replica.Snapshot().Nodes) {
		if n.Role == api.RoleManager {
			managers = append(managers, n)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, diskTimeout)
	defer cancel()
	warnings := make([]string, len(managers))
	var wg sync.WaitGroup
	for i, n := range managers {
		wg.Go(func() {
			disk, err := rpc.Call[api.Empty, api.Disk](ctx, s.Peers.Node(n), api.ProcDisk, &api.Empty{})
			switch {
			case err != nil:
				warnings[i] = fmt.Sprintf("%s: cannot tell whether its disk is fast enough: %v", n.Hostname, err)
			default:
				warnings[i] = api.DiskWarning(n.Hostname, disk.Write, timeout)
			}
		})
	}
	wg.Wait()
	return slices.DeleteFunc(warnings, func(w string) bool { return w == "" })
}
