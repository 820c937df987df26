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

	close  sync.Once
	closed chan struct{}
}

// NewStreamLayer returns a layer whose address, as others dial it, is addr.
// dial must return a connection that the other side hands to its Deliver.
func NewStreamLayer(addr net.Addr, dial func(ctx context.Context, addr string) (net.Conn, error)) *StreamLayer {
	return &StreamLayer{addr: addr, dial: dial, incoming: make(chan net.Conn), closed: make(chan struct{})}
}

// Deliver hands over an accepted connection, of which nothing meant for Raft
// has been read. It blocks until Raft takes it; a layer that is closed closes
// the connection.
func (l *StreamLayer) Deliver(conn net.Conn) {
	select {
	case l.incoming <- conn:
	case <-l.closed:
		conn.Close()
	}
}

// Accept implements net.Listener.
func (l *StreamLayer) Accept() (net.Conn, error) {
	select {
	case conn := <-l.incoming:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener. It does not close connections accepted before.
func (l *StreamLayer) Close() error {
	l.close.Do(func() { close(l.closed) })
	return nil
}

// Addr implements net.Listener: the address that others dial.
func (l *StreamLayer) Addr() net.Addr { return l.addr }

// Dial implements raft.StreamLayer.
func (l *StreamLayer) Dial(addr raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return l.dial(ctx, string(addr))
}
