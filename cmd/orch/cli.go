package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/orch-dev/orch/cmd/orch/daemon"
	"github.com/orch-dev/orch/pkg/rpc"
)

// cli is what all commands that talk to a daemon share.
type cli struct {
	host, context string // as the flags have it
	client        *rpc.Client
	session       *session // with a context; else nil
}

// daemon returns the client of the daemon that the user asked for.
func (c *cli) daemon() (*rpc.Client, error) {
	if c.client != nil {
		return c.client, nil
	}
	if host := c.hostName(); host != "" {
		socket, ok := strings.CutPrefix(host, "unix://")
		if !ok {
			return nil, fmt.Errorf("--host %q: give unix://PATH, the socket of a daemon on this machine; for a cluster elsewhere see `orch context`", host)
		}
		c.client = rpc.NewLocalClient(socket)
		return c.client, nil
	}
	kept, noHome := homeContexts() // then there are no contexts
	name, err := c.contextName(kept)
	if err != nil {
		return nil, err
	}
	if name == localContext {
		c.client = rpc.NewLocalClient(daemon.DefaultRunDir + "/" + daemon.SocketName)
		return c.client, nil
	}
	if noHome != nil {
		return nil, noHome
	}
	if c.session, err = kept.open(name); err != nil {
		return nil, err
	}
	c.client = c.session.client.Client
	return c.client, nil
}

// hostName is the socket that was asked for, "" if none was.
func (c *cli) hostName() string {
	if c.host == "" && c.context == "" {
		return os.Getenv(hostVariable)
	}
	return c.host
}

// contextName is the context that is used when no socket was asked for; kept is
// nil if there are none.
func (c *cli) contextName(kept *contexts) (string, error) {
	if c.context != "" {
		return c.context, nil
	}
	if name := os.Getenv(contextVariable); name != "" {
		return name, nil
	}
	if kept == nil {
		return localContext, nil
	}
	return kept.current()
}

// elsewhere reports whether the daemon is one on another machine.
func (c *cli) elsewhere() (bool, error) {
	_, err := c.daemon()
	return c.session != nil, err
}

// close ends the command's use of a context.
func (c *cli) close(ctx context.Context, errOut io.Writer) {
	if c.session == nil {
		return
	}
	if err := c.session.renew(ctx); err != nil {
		fmt.Fprintln(errOut, "orch: warning:", err)
	}
}
