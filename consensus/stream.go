package consensus

import (
	"context"
	"errors"
	"net"
	"os"
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
	broken   chan struct{} // has something when another side has ended a connection

	mu    sync.Mutex
	conns map[*conn]struct{} // open; nil while the layer is cut off
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
		broken:   make(chan struct{}, 1),
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

// Addr is the address that others dial.
func (l *StreamLayer) Addr() net.Addr { return l.addr }

// Close closes the layer and every connection it carries.
func (l *StreamLayer) Close() error {
	l.hangUp()
	l.once.Do(func() { close(l.closed) })
	return nil
}

// hangUp closes every connection and takes no other until resume.
func (l *StreamLayer) hangUp() {
	l.mu.Lock()
	conns := l.conns
	l.conns = nil
	l.mu.Unlock()
	for c := range conns {
		c.Conn.Close()
	}
}

// resume ends what hangUp began.
func (l *StreamLayer) resume() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conns == nil {
		l.conns = map[*conn]struct{}{}
	}
}

// open returns the layer as one Raft uses it. Raft closes what it was given; the
// layer stays for the next.
func (l *StreamLayer) open() *port {
	l.resume()
	return &port{StreamLayer: l, closed: make(chan struct{})}
}

// port is a layer for as long as one Raft runs.
type port struct {
	*StreamLayer
	closed chan struct{}
	once   sync.Once
}

// Accept implements net.Listener.
func (p *port) Accept() (net.Conn, error) {
	select {
	case c := <-p.incoming:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

// Dial implements raft.StreamLayer. A node reaches itself without a network.
func (p *port) Dial(addr raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	if string(addr) == p.addr.String() {
		near, far := net.Pipe()
		go p.Deliver(far)
		return p.keep(near)
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	c, err := p.dial(ctx, string(addr))
	if err != nil {
		return nil, err
	}
	return p.keep(c)
}

// Close implements net.Listener.
func (p *port) Close() error {
	p.hangUp()
	p.once.Do(func() { close(p.closed) })
	return nil
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

// Read implements net.Conn, and notes if the other side has ended the connection.
func (c *conn) Read(b []byte) (int, error) {
	read, err := c.Conn.Read(b)
	if err != nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, os.ErrDeadlineExceeded) {
		select {
		case c.layer.broken <- struct{}{}:
		default: // noted already
		}
	}
	return read, err
}

func (c *conn) Close() error {
	c.layer.mu.Lock()
	delete(c.layer.conns, c)
	c.layer.mu.Unlock()
	return c.Conn.Close()
}
