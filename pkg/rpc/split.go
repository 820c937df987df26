package rpc

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"
)

// Connections of Raft begin with a line of this word and the credential; those
// of the API begin with HTTP/2's preface, "PRI * HTTP/2.0".
const (
	raftPreface    = "ORCH-RAFT"
	prefaceTimeout = 5 * time.Second
	maxPreface     = 512
)

// DialRaft connects to another manager's Raft on its API port.
func DialRaft(ctx context.Context, sec Security, addr string) (net.Conn, error) {
	conn, err := sec.Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	if _, err := fmt.Fprintf(conn, "%s %s\n", raftPreface, sec.Credential()); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("greet raft at %s: %w", addr, err)
	}
	return conn, nil
}

// splitter is the listener of the API's connections on a port that it shares
// with Raft.
type splitter struct {
	net.Listener
	sec    Security
	raft   func(net.Conn)
	log    *slog.Logger
	api    chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newSplitter(l net.Listener, sec Security, raft func(net.Conn), log *slog.Logger) *splitter {
	return &splitter{Listener: l, sec: sec, raft: raft, log: log, api: make(chan net.Conn), closed: make(chan struct{})}
}

// run accepts connections and sorts them until ctx ends.
func (s *splitter) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	for {
		conn, err := s.Listener.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("accept on %s: %w", s.Addr(), err)
		}
		go s.sort(conn)
	}
}

// sort reads a connection's first bytes and hands it to whom it is for. A peer
// that says nothing in time is cut off.
func (s *splitter) sort(conn net.Conn) {
	_ = conn.SetReadDeadline(time.Now().Add(prefaceTimeout))
	r := bufio.NewReaderSize(conn, maxPreface)
	first, err := r.Peek(len(raftPreface))
	if err != nil {
		_ = conn.Close()
		return
	}
	c := &peekedConn{Conn: conn, r: r}
	if string(first) != raftPreface {
		_ = conn.SetReadDeadline(time.Time{})
		select {
		case s.api <- c:
		case <-s.closed:
			_ = conn.Close()
		}
		return
	}
	line, err := r.ReadSlice('\n')
	credential := strings.TrimSpace(strings.TrimPrefix(string(line), raftPreface))
	if err != nil || !s.sec.Admit(credential) || s.raft == nil {
		s.log.Warn("refused a raft connection", "from", conn.RemoteAddr())
		_ = conn.Close()
		return
	}
	_ = conn.SetReadDeadline(time.Time{})
	s.raft(c)
}

func (s *splitter) Accept() (net.Conn, error) {
	select {
	case c := <-s.api:
		return c, nil
	case <-s.closed:
		return nil, net.ErrClosed
	}
}

func (s *splitter) Close() error {
	s.once.Do(func() { close(s.closed) })
	return s.Listener.Close()
}

// peekedConn reads first what was peeked at.
type peekedConn struct {
	net.Conn
	r io.Reader
}

func (c *peekedConn) Read(b []byte) (int, error) { return c.r.Read(b) }
