package rpc

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/pki"
)

// cluster makes credentials of nodes.
type cluster struct {
	id        string
	authority *pki.Authority
	root      []byte
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	id := api.NewID(rand.Reader)
	authority, err := pki.NewAuthority(rand.Reader, id, time.Now().Add(-2*pki.DefaultLife))
	if err != nil {
		t.Fatal(err)
	}
	stored, err := authority.Store()
	if err != nil {
		t.Fatal(err)
	}
	return &cluster{id: id, authority: authority, root: stored.Certificate}
}

// issue makes a new node, whose certificate was issued at a time.
func (c *cluster) issue(t *testing.T, role api.Role, at time.Time) *pki.Credentials {
	t.Helper()
	key, err := pki.NewKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	request, err := pki.Request(key)
	if err != nil {
		t.Fatal(err)
	}
	id := pki.Identity{Cluster: c.id, Role: role, Node: api.NodeID(api.NewID(rand.Reader))}
	cert, err := c.authority.Issue(rand.Reader, request, id, pki.DefaultLife, at)
	if err != nil {
		t.Fatal(err)
	}
	credentials, err := pki.NewCredentials(key, api.Certificate{Node: cert, Roots: [][]byte{c.root}})
	if err != nil {
		t.Fatal(err)
	}
	return credentials
}

func (c *cluster) node(t *testing.T, role api.Role) *Security {
	return secured(c.issue(t, role, time.Now()))
}

func secured(own *pki.Credentials) *Security {
	return &Security{Credentials: func() *pki.Credentials { return own }, Now: time.Now}
}

func (s *Security) id() api.NodeID { return s.Credentials().Identity.Node }

// token is one to join through a node's address with.
func (c *cluster) token(addr string) pki.Token {
	return pki.Token{Role: api.RoleWorker, Digest: pki.DigestOf(c.root), Secret: api.NewID(rand.Reader), Addr: addr}
}

type ping struct{ Text string }

// node is a server with a procedure for each kind of caller.
type node struct {
	*Security
	addr   string
	socket string
	raft   chan net.Conn
	calls  atomic.Int32 // that reached a procedure
	stop   func()
}

// start serves until the test ends: on Admit and Report it says who asks, to
// managers it has more.
func start(t *testing.T, sec *Security, configure func(*Mux)) *node {
	t.Helper()
	n := &node{Security: sec, socket: filepath.Join(t.TempDir(), "s"), raft: make(chan net.Conn, 100)}
	mux := NewMux()
	whoami := func(ctx context.Context, p *ping) (*ping, error) {
		n.calls.Add(1)
		c := CallerOf(ctx)
		switch {
		case c.Local:
			return &ping{"local " + p.Text}, nil
		case c.Anonymous():
			return &ping{"nobody " + p.Text}, nil
		}
		return &ping{fmt.Sprint(c.Role, " ", c.Node, " ", p.Text)}, nil
	}
	Handle(mux, api.ProcAdmit, whoami)
	Handle(mux, api.ProcReport, whoami)
	Handle(mux, api.ProcDeploy, whoami)
	Handle(mux, api.ProcInit, whoami)
	Handle(mux, procFail, func(_ context.Context, p *ping) (*ping, error) {
		return nil, fmt.Errorf("wrapped: %w", api.Errorf(api.CodeConflict, "port %s is taken", p.Text))
	})
	HandleStream(mux, procCount, func(ctx context.Context, p *ping, send func(*ping) error) error {
		for i := range 3 {
			if err := send(&ping{fmt.Sprint(p.Text, i)}); err != nil {
				return err
			}
		}
		<-ctx.Done()
		return ctx.Err()
	})
	if configure != nil {
		configure(mux)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n.addr = l.Addr().String()
	server := NewServer(mux, sec, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	n.stop = cancel
	done := make(chan error, 2)
	go func() { done <- server.ServePeers(ctx, l, func(c net.Conn) { n.raft <- c }) }()
	go func() { done <- server.ServeLocal(ctx, n.socket, "daemon") }()
	t.Cleanup(func() {
		cancel()
		for range 2 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	})
	return n
}

// Procedures that only managers may call, as all that are not listed.
const (
	procFail  = "/t/Fail"
	procCount = "/t/Count"
)

func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// echo calls a procedure of whoever answers as a manager at addr.
func echo(t *testing.T, sec *Security, addr, procedure string) (string, error) {
	t.Helper()
	return call(t, NewPool(sec).Manager(addr), procedure)
}

func call(t *testing.T, c *Client, procedure string) (string, error) {
	t.Helper()
	res, err := Call[ping, ping](deadline(t), c, procedure, &ping{"x"})
	if err != nil {
		return "", err
	}
	return res.Text, nil
}
