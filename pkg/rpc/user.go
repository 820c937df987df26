package rpc

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/pki"
)

// UserClient calls managers from a machine that is no node.
type UserClient struct {
	*Client
	outdated atomic.Bool
}

// Outdated reports whether the managers trust other authorities than the user's
// credentials name, so that these are to be renewed.
func (c *UserClient) Outdated() bool { return c.outdated.Load() }

// NewUserClient calls the first of some managers that answers.
func NewUserClient(own *pki.Credentials, addrs []string) *UserClient {
	c := &UserClient{}
	sec := &Security{Credentials: func() *pki.Credentials { return own }, Now: time.Now}
	c.Client = newClient(func(ctx context.Context) (net.Conn, error) {
		config, err := sec.client(pki.RoleName(api.RoleManager), protocolAPI)
		if err != nil {
			return nil, err
		}
		config.VerifyConnection = func(state tls.ConnectionState) error {
			if own.Outdated(state.PeerCertificates) {
				c.outdated.Store(true)
			}
			return nil
		}
		var failed []error
		for _, addr := range addrs {
			conn, err := dialAPI(ctx, addr, config)
			if err == nil {
				return conn, nil
			}
			var refused *net.OpError
			if errors.As(err, &refused) && refused.Op == "remote error" {
				err = fmt.Errorf("%s does not accept this user's certificate, because it has ended, or because the cluster's authority was replaced since it was last used: ask an admin for a new one (`orch user renew`)", addr)
			}
			failed = append(failed, err)
		}
		return nil, errors.Join(failed...)
	})
	return c
}
