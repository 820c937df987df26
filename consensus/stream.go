package consensus

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// StreamLayer carries Raft over connections that somebody else listens for, so
// that Raft can share a port. It never opens a port itself.
type StreamLayer struct {
	addr     net.Addr
	dial     func(ctx context.Context, addr string) (net.Conn, error)
	incoming chan net.Conn
	closed   chan struct{}

	mu    sync.Mutex
	conns map[*conn]struct{} // open; nil after hangUp
	once  sync.Once
}

// NewStreamLayer returns a layer whose address, as others dial it, is addr.
// dial must return a connection that the other side hands to its Deliver.
func NewStreamLayer(addr net.Addr, dial func(ctx context.Context, addr string) (net.Conn, error)) *StreamLayer {
	return &StreamLayer{
		addr:     addr,
		dial:     dial,
		incoming: make(chan net.Conn),
		closed:   make(chan struct{}),
		conns:    map[*conn]struct{}{},
	}
}

// Deliver hands over an accepted connection, of which nothing meant for Raft
// has been read. It blocks until Raft takes it; a layer that is closed closes
// the connection.
func (l *StreamLayer) Deliver(c net.Conn) {
	kept, err := l.keep(c)
	if err != nil {
		return
	}
	select {
	case l.incoming <- kept:
	case <-l.closed:
		kept.Close()
	}
}

// Accept implements net.Listener.
func (l *StreamLayer) Accept() (net.Conn, error) {
	select {
	case c := <-l.incoming:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Dial implements raft.StreamLayer.
func (l *StreamLayer) Dial(addr raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	c, err := l.dial(ctx, string(addr))
	if err != nil {
		return nil, err
	}
	return l.keep(c)
}

// Addr implements net.Listener: the address that others dial.
func (l *StreamLayer) Addr() net.Addr { return l.addr }

// Close closes the layer and every connection it carries.
func (l *StreamLayer) Close() error {
	l.hangUp()
	l.once.Do(func() { close(l.closed) })
	return nil
}

// hangUp closes every connection and takes no other; Accept goes on waiting.
func (l *StreamLayer) hangUp() {
	l.mu.Lock()
	conns := l.conns
	l.conns = nil
	l.mu.Unlock()
	for c := range conns {
		c.Conn.Close()
	}
}

// keep takes a connection into the layer, or closes it if there is none.
func (l *StreamLayer) keep(c net.Conn) (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conns == nil {
		c.Close()
		return nil, net.ErrClosed
	}
	kept := &conn{Conn: c, layer: l}
	l.conns[kept] = struct{}{}
	return kept, nil
}

// conn is a connection of a layer.
type conn struct {
	net.Conn
	layer *StreamLayer
}

func (c *conn) Close() error {
	c.layer.mu.Lock()
	delete(c.layer.conns, c)
	c.layer.mu.Unlock()
	return c.Conn.Close()
}
