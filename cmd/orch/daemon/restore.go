package daemon

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/orch-dev/orch/consensus/store"
	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/backup"
	"github.com/orch-dev/orch/pkg/manager"
	"github.com/orch-dev/orch/pkg/pki"
	"github.com/orch-dev/orch/pkg/seal"
)

// Restore makes this node, which is in no cluster, the only manager of one that a
// backup is of. Nothing is changed before all of the backup has been read.
func (d *daemon) Restore(ctx context.Context, req *api.RestoreRequest, content io.Reader) error {
	d.enrolling.Lock()
	defer d.enrolling.Unlock()
	id := d.identity()
	if id.member() {
		return api.Errorf(api.CodeConflict, "this node is in a cluster already (%s): a backup is restored on one that is in none", id.ClusterID)
	}
	key, err := seal.ParseUnlockKey(req.Key)
	if err != nil {
		return api.Errorf(api.CodeInvalid, "%v", err)
	}
	saved := store.New()
	if _, err := backup.Read(content, key, rand.Reader, saved.Restore); err != nil {
		return api.Errorf(api.CodeInvalid, "%v", err)
	}
	snap := saved.Snapshot()
	if err := d.assume(ctx, &id, snap, req); err != nil {
		return err
	}
	err = d.enroll(id, func(m *member) error {
		if err := m.managing.Load().takeOver(ctx, saved, req.Force); err != nil {
			return err
		}
		return id.save(d.stateDir)
	})
	if err == nil {
		d.log.Info("restored the cluster from a backup", "cluster", id.ClusterID, "index", saved.Index())
	}
	return err
}

// assume makes id that of a manager of the cluster that snap is of.
func (d *daemon) assume(ctx context.Context, id *identity, snap *api.Snapshot, req *api.RestoreRequest) error {
	if snap.Cluster == nil {
		return api.Errorf(api.CodeInvalid, "there is no cluster in the backup")
	}
	addr, err := d.advertised(req.AdvertiseAddr)
	if err != nil {
		return err
	}
	if _, err := checkPool(snap.Cluster.Pool); err != nil {
		return err
	}
	id.ClusterID, id.Role, id.Addr, id.Pool = snap.Cluster.ID, api.RoleManager, addr, snap.Cluster.Pool
	ring := snap.Cluster.GossipRing()
	id.GossipKey, id.OtherGossipKeys = ring[0], ring[1:]
	id.Managers, id.ElectionTimeout, id.Epoch = []string{d.apiAddr(addr)}, snap.Cluster.ElectionTimeout, laterEpoch(time.Now(), snap.Cluster.Epoch)
	return id.sign(ctx, snap.Cluster, &req.Shown)
}

// sign gives the node a certificate of a cluster of which it knows all.
func (id *identity) sign(ctx context.Context, cluster *api.Cluster, shown *api.Shown) error {
	request, err := pki.Request(id.Key)
	if err != nil {
		return err
	}
	self := pki.Identity{Cluster: cluster.ID, Role: id.Role, Node: id.Node}
	var certificate []byte
	if issuer := cluster.Issuer(); issuer.External != nil {
		certificate, err = signFirst(ctx, issuer, shown, request, self)
	} else {
		var authority *pki.Authority
		if authority, err = pki.LoadAuthority(*issuer); err == nil {
			certificate, err = authority.Issue(rand.Reader, request, self, cluster.CertificateLife, time.Now())
		}
	}
	if err != nil {
		return err
	}
	return id.certify(id.Key, api.Certificate{Node: certificate, Chain: cluster.Chain(), Roots: cluster.Roots()})
}

// takeOver begins the cluster anew with a state, and this node as its only manager.
func (g *managing) takeOver(ctx context.Context, saved *store.Store, force bool) error {
	snap := saved.Snapshot()
	if alive := answering(g.d.askOthers(ctx, g.managersIn(snap))); len(alive) > 0 && !force {
		return api.Errorf(api.CodeConflict, "the cluster has managers that answer: %s. A second one with the same nodes would take them away from it; "+
			"join this node to it instead, or give --force if these managers are to be given up", strings.Join(alive, ", "))
	}
	save, err := saved.Save()
	if err == nil {
		err = g.replica.Raft.Found(saved.Index(), save)
	}
	if err != nil {
		return err
	}
	return g.beAlone(ctx, g.node.id.Epoch)
}

// managersIn are the managers in a state, but who had this node's address.
func (g *managing) managersIn(snap *api.Snapshot) (list []api.SurveyedManager) {
	for _, n := range api.Sorted(snap.Nodes) {
		if n.Role == api.RoleManager && n.APIAddr() != g.d.apiAddr(g.node.id.Addr) {
			list = append(list, api.SurveyedManager{Node: n.ID, Name: n.Hostname, Addr: n.APIAddr()})
		}
	}
	return list
}

// beAlone has the state say that this node is the only manager, in a group of that
// epoch.
func (g *managing) beAlone(ctx context.Context, epoch uint64) error {
	ctx, cancel := context.WithTimeout(ctx, enrollTimeout)
	defer cancel()
	if _, _, err := g.replica.Raft.WaitLeader(ctx); err != nil {
		return err
	}
	if err := g.replica.Raft.Barrier(ctx); err != nil {
		return err
	}
	if g.replica.Snapshot().Cluster == nil {
		return errNothingKept
	}
	self := g.d.nodeObject(ctx, g.node.id, g.node)
	_, err := g.replica.Update(ctx, func(snap *api.Snapshot) ([]api.Change, error) { return manager.PlanAlone(snap, self, epoch), nil })
	if err != nil {
		return fmt.Errorf("write who is a manager: %w", err)
	}
	return nil
}

// answering names those that answer.
func answering(managers []api.SurveyedManager) []string {
	var names []string
	for _, m := range managers {
		if m.Answers {
			names = append(names, fmt.Sprintf("%s (%s)", m.Name, m.Addr))
		}
	}
	return names
}
