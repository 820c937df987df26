package rpc

import "sync"

// Pool keeps one client for each node that was called.
type Pool struct {
	sec     Security
	mu      sync.Mutex
	clients map[string]*Client
}

func NewPool(sec Security) *Pool {
	return &Pool{sec: sec, clients: make(map[string]*Client)}
}

// Get returns the client of the node whose API is at addr.
func (p *Pool) Get(addr string) *Client {
	p.mu.Lock()
	defer p.mu.Unlock()
	c, ok := p.clients[addr]
	if !ok {
		c = NewClient(p.sec, addr)
		p.clients[addr] = c
	}
	return c
}
