package daemon

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"time"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/pki"
	"github.com/orch-dev/orch/pkg/rpc"
)

const (
	// certificateCheck is how soon a new role gets a new certificate.
	certificateCheck = time.Second
	// renewTimeout bounds one attempt; the next comes after renewRetry.
	renewTimeout = 10 * time.Second
	renewRetry   = 5 * time.Second
)

// renewCertificate gives the node a new certificate, for a new key, when it is
// due: see due. It also has the node trust whom the cluster trusts.
func (m *member) renewCertificate(ctx context.Context) error {
	wait := time.Duration(0)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		wait = certificateCheck
		own, view := m.d.credentials(), m.agent.View()
		if err := m.followRole(view); err != nil {
			m.d.log.Error("cannot follow this node's role", "err", err)
			wait = renewRetry
			continue
		}
		if !m.due(own, view, time.Now()) {
			if err := m.followRoots(own, view); err != nil {
				m.d.log.Error("cannot follow the cluster's authority", "err", err)
				wait = renewRetry
			}
			continue
		}
		renewed, err := m.renew(ctx, view)
		switch {
		case err == nil:
			m.agent.Changed()
			m.d.log.Info("certificate renewed", "role", renewed.Identity.Role, "until", renewed.Expires())
			if err := m.followRole(view); err != nil {
				m.d.log.Error("cannot follow this node's role", "err", err)
				wait = renewRetry
			}
		case ctx.Err() == nil:
			m.d.log.Error("cannot renew this node's certificate, without which no other node will talk to it", "ends", own.Expires(), "err", err)
			if wait = renewRetry; m.changesRole(own, view) {
				wait = certificateCheck // it is refused until the managers have let go of it
			}
		}
	}
}

// due reports whether the node needs another certificate: the one that it has has
// lived two thirds of its life, was issued for longer than certificates are to live
// now, says another role, or is from an authority that signs no longer.
func (m *member) due(own *pki.Credentials, view *api.Snapshot, now time.Time) bool {
	if !now.Before(own.RenewAt()) {
		return true
	}
	if view == nil || view.Cluster == nil || view.Nodes[m.id.Node] == nil {
		return false
	}
	const rounded = time.Second // as times in certificates are
	long := own.Life() > view.Cluster.CertificateLife+rounded && view.Cluster.Issuer().External == nil
	return long || m.changesRole(own, view) || view.Cluster.Issuer().ID() != own.Issuer
}

// changesRole reports whether the node has another role now than its certificate says.
func (m *member) changesRole(own *pki.Credentials, view *api.Snapshot) bool {
	return view != nil && view.Nodes[m.id.Node] != nil && view.Nodes[m.id.Node].Role != own.Identity.Role
}

// followRole has the node do what its role says. A manager that is to be a worker
// asks others at once, stays in the Raft group until it is released, and is a worker
// with the certificate that says so: see control.Server.Renew.
func (m *member) followRole(view *api.Snapshot) error {
	id, g := m.d.identity(), m.managing.Load()
	switch {
	case id.Role == api.RoleManager && g == nil:
		if err := m.d.saveEpoch(view.Cluster.Epoch); err != nil {
			return err
		}
		if err := m.startManaging(); err != nil {
			return err
		}
		m.d.log.Info("this node is a manager now")
		g = m.managing.Load()
		g.follow()
		g.run("join", g.finishJoin)
	case id.Role == api.RoleWorker && g != nil:
		m.stopManaging()
		m.d.log.Info("this node is a worker now")
		return m.d.forgetRaft()
	case g != nil && g.isOut(id, view):
		m.managers.SetHome("")
	}
	return nil
}

// followRoots makes the authorities that the node trusts those of the cluster:
// when one was replaced, the old is dropped.
func (m *member) followRoots(own *pki.Credentials, view *api.Snapshot) error {
	id := m.d.identity()
	if view == nil || view.Cluster == nil || slices.EqualFunc(id.Roots, view.Cluster.Roots(), bytes.Equal) {
		return nil
	}
	_, err := m.d.certify(id.Key, api.Certificate{Node: id.Certificate, Chain: view.Cluster.Chain(), Roots: view.Cluster.Roots()})
	if err == nil {
		m.d.log.Info("the cluster's old authority is trusted no longer", "authority", own.Issuer)
	}
	return err
}

// renew asks a manager for a certificate. Connections that are open stay; those
// that are made from now on use the new one.
func (m *member) renew(ctx context.Context, view *api.Snapshot) (*pki.Credentials, error) {
	ctx, cancel := context.WithTimeout(ctx, renewTimeout)
	defer cancel()
	key, err := pki.NewKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	request, err := pki.Request(key)
	if err != nil {
		return nil, err
	}
	manager := m.managers.Addr()
	issued, err := rpc.Call[api.RenewRequest, api.Certificate](ctx, m.d.peers.Manager(manager), api.ProcRenew, &api.RenewRequest{Request: request})
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", manager, err)
	}
	// A manager that lags would sign with an authority that others trust no
	// longer, and one that is ahead with one that this node is to hear of first.
	if view != nil && view.Cluster != nil {
		renewed, err := pki.NewCredentials(key, *issued)
		if err != nil {
			return nil, err
		}
		if renewed.Issuer != view.Cluster.Issuer().ID() {
			return nil, fmt.Errorf("%s and this node do not know the same authority yet", manager)
		}
	}
	return m.d.certify(key, *issued)
}

// certify keeps the node's new certificate and has calls use it.
func (d *daemon) certify(key []byte, issued api.Certificate) (*pki.Credentials, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	next := d.id
	if err := next.certify(key, issued); err != nil {
		return nil, err
	}
	if next.Role != d.id.Role {
		next.Joining, next.ring = next.Role == api.RoleManager, nil
	}
	if err := next.save(d.stateDir); err != nil {
		return nil, err
	}
	d.id = next
	d.peers.Reset()
	return next.credentials, nil
}
