package metrics

import (
	"net"
	"sync"
)

// bounded is a listener of which so many connections are open at a time as open
// has room for. More are closed at once.
type bounded struct {
	net.Listener
	open chan struct{}
}

func (b *bounded) Accept() (net.Conn, error) {
	for {
		conn, err := b.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case b.open <- struct{}{}:
			return &visitor{Conn: conn, leave: sync.OnceFunc(func() { <-b.open })}, nil
		default:
			_ = conn.Close()
		}
	}
}

// visitor is a connection that counts until it is closed.
type visitor struct {
	net.Conn
	leave func()
}

func (v *visitor) Close() error {
	defer v.leave()
	return v.Conn.Close()
}
