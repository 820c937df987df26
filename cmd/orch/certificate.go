package main

import (
	"context"
	"crypto/rand"
	"fmt"
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

// renewCertificate gives the node a new certificate, for a new key, when the old
// one has lived two thirds of its life or the node has another role.
func (m *member) renewCertificate(ctx context.Context) error {
	wait := time.Duration(0)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		wait = certificateCheck
		own := m.d.credentials()
		if role := m.roleNow(own.Identity.Role); role == own.Identity.Role && time.Now().Before(own.RenewAt()) {
			continue
		}
		renewed, err := m.renew(ctx)
		switch {
		case err == nil:
			m.d.log.Info("certificate renewed", "role", renewed.Identity.Role, "until", renewed.Expires())
		case ctx.Err() == nil:
			m.d.log.Error("cannot renew this node's certificate, without which no other node will talk to it", "ends", own.Expires(), "err", err)
			wait = renewRetry
		}
	}
}

// roleNow is the node's role in the cluster as far as it knows.
func (m *member) roleNow(otherwise api.Role) api.Role {
	if view := m.agent.View(); view != nil && view.Nodes[m.id.Node] != nil {
		return view.Nodes[m.id.Node].Role
	}
	return otherwise
}

// renew asks a manager for a certificate. Connections that are open stay; those
// that are made from now on use the new one.
func (m *member) renew(ctx context.Context) (*pki.Credentials, error) {
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
	if err := next.save(d.stateDir); err != nil {
		return nil, err
	}
	d.id = next
	d.peers.Reset()
	return next.credentials, nil
}
