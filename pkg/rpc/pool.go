package rpc

import (
	"context"
	"net"
	"sync"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/pki"
)

// Pool keeps one client for each node that was called.
type Pool struct {
	sec     *Security
	mu      sync.Mutex
	clients map[target]*Client
}

// target is an address and the name that whoever answers there must prove.
type target struct{ addr, name string }

func NewPool(sec *Security) *Pool {
	return &Pool{sec: sec, clients: make(map[target]*Client)}
}

// Manager returns the client of the node whose API is at addr. It calls none
// that is not a manager.
func (p *Pool) Manager(addr string) *Client {
	return p.get(target{addr, pki.RoleName(api.RoleManager)}, 0)
}

// Node returns the client of a node. It calls no other that has its address, and
// takes no message that is too large: a worker is not believed to mean well.
func (p *Pool) Node(n *api.Node) *Client {
	return p.get(target{n.APIAddr(), pki.NodeName(n.ID)}, maxMessage)
}

func (p *Pool) get(t target, most int) *Client {
	p.mu.Lock()
	defer p.mu.Unlock()
	c, ok := p.clients[t]
	if !ok {
		c = newClient(func(ctx context.Context) (net.Conn, error) { return p.dial(ctx, t) })
		c.most = most
		p.clients[t] = c
	}
	return c
}

// unreached is why no request was sent.
type unreached struct{ error }

func (e *unreached) Unwrap() error { return e.error }

func (p *Pool) dial(ctx context.Context, t target) (net.Conn, error) {
	conn, err := p.sec.dialAPI(ctx, t)
	if err != nil {
		return nil, &unreached{err}
	}
	return conn, nil
}

// Reset has all later calls make new connections, with the node's present
// credentials. Calls in progress go on.
func (p *Pool) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.clients {
		c.Close()
	}
	clear(p.clients)
}
