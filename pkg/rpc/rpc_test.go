package rpc

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/orch-dev/orch/pkg/api"
)

type ping struct{ Text string }

// node is a server with one open and two closed procedures.
type node struct {
	addr   string
	socket string
	raft   chan net.Conn
}

func secret(s string) Plain { return Plain{Secret: func() string { return s }} }

func start(t *testing.T, name string, configure func(*Mux)) *node {
	t.Helper()
	mux := NewMux()
	Handle(mux, "/t/Echo", func(_ context.Context, p *ping) (*ping, error) { return &ping{name + ": " + p.Text}, nil })
	Handle(mux, "/t/Open", func(_ context.Context, p *ping) (*ping, error) { return p, nil })
	Handle(mux, "/t/Fail", func(_ context.Context, p *ping) (*ping, error) {
		return nil, fmt.Errorf("wrapped: %w", api.Errorf(api.CodeConflict, "port %s is taken", p.Text))
	})
	HandleStream(mux, "/t/Count", func(ctx context.Context, p *ping, send func(*ping) error) error {
		for i := range 3 {
			if err := send(&ping{fmt.Sprint(name, i)}); err != nil {
				return err
			}
		}
		<-ctx.Done()
		return ctx.Err()
	})
	mux.Open("/t/Open")
	if configure != nil {
		configure(mux)
	}
	n := &node{socket: filepath.Join(t.TempDir(), "s"), raft: make(chan net.Conn, 1)}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n.addr = l.Addr().String()
	server := NewServer(mux, secret("sesame"), slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() { done <- server.ServePeers(ctx, l, func(c net.Conn) { n.raft <- c }) }()
	go func() { done <- server.ServeLocal(ctx, n.socket) }()
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

func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestCall(t *testing.T) {
	n := start(t, "n", nil)
	member, stranger := NewClient(secret("sesame"), n.addr), NewClient(secret("guess"), n.addr)
	tests := []struct {
		name      string
		client    *Client
		procedure string
		want      string
		code      api.Code
	}{
		{"member", member, "/t/Echo", "n: x", ""},
		{"stranger", stranger, "/t/Echo", "", api.CodeDenied},
		{"stranger at an open procedure", stranger, "/t/Open", "x", ""},
		{"error keeps code and text", member, "/t/Fail", "wrapped: port x is taken", api.CodeConflict},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			res, err := Call[ping, ping](deadline(t), tt.client, tt.procedure, &ping{"x"})
			if tt.code != "" {
				var e *api.Error
				if !errors.As(err, &e) || e.Code != tt.code || !strings.Contains(e.Message, tt.want) {
					t.Fatalf("error %v, want %s with %q", err, tt.code, tt.want)
				}
				return
			}
			if err != nil || res.Text != tt.want {
				t.Fatalf("got %v, %v, want %q", res, err, tt.want)
			}
		})
	}
}

func TestLocalSocketNeedsNoCredential(t *testing.T) {
	n := start(t, "n", nil)
	client := NewLocalClient(n.socket)
	for {
		res, err := Call[ping, ping](deadline(t), client, "/t/Echo", &ping{"x"})
		if err == nil {
			if res.Text != "n: x" {
				t.Fatalf("got %q", res.Text)
			}
			return
		}
		if !strings.Contains(err.Error(), "is `orch daemon` running?") {
			t.Fatalf("an error that does not help: %v", err)
		}
	}
}

// A server that cannot be reached gives another error than one that answers
// with one: callers move on to another node only then.
func TestUnreachable(t *testing.T) {
	_, err := Call[ping, ping](deadline(t), NewClient(secret("sesame"), "127.0.0.1:1"), "/t/Echo", &ping{})
	var e *api.Error
	if err == nil || errors.As(err, &e) {
		t.Fatalf("got %v, want an error that no server answered", err)
	}
}

func TestStream(t *testing.T) {
	n := start(t, "n", nil)
	var got []string
	stop := errors.New("enough")
	err := Stream(deadline(t), NewClient(secret("sesame"), n.addr), "/t/Count", &ping{}, func(p *ping) error {
		got = append(got, p.Text)
		if len(got) == 3 {
			return stop
		}
		return nil
	})
	if !errors.Is(err, stop) || strings.Join(got, " ") != "n0 n1 n2" {
		t.Fatalf("got %v, %v", got, err)
	}
}

// Of a stranger little is read before it is refused.
func TestStrangersAreBrief(t *testing.T) {
	n := start(t, "n", nil)
	large := &ping{strings.Repeat("x", maxOpen)}
	if _, err := Call[ping, ping](deadline(t), NewClient(secret("sesame"), n.addr), "/t/Open", large); err != nil {
		t.Errorf("a member: %v", err)
	}
	stranger := NewClient(secret("guess"), n.addr)
	if _, err := Call[ping, ping](deadline(t), stranger, "/t/Open", large); err == nil {
		t.Error("a stranger's large request was taken")
	}
	if _, err := Call[ping, ping](deadline(t), stranger, "/t/Open", &ping{"x"}); err != nil {
		t.Errorf("a stranger's small one: %v", err)
	}
}

// Every node that passes a request on is counted, so that it does not go round.
func TestHops(t *testing.T) {
	peers := NewPool(secret("sesame"))
	var next string
	pass := func(m *Mux) {
		m.HandlePrefix("/f/", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if Hops(r) == 2 {
				WriteError(w, r, api.Errorf(api.CodeConflict, "after two hops"))
				return
			}
			peers.Get(next).Forward(w, r)
		}))
	}
	n := start(t, "n", pass)
	next = n.addr
	if _, err := Call[ping, ping](deadline(t), NewClient(secret("sesame"), n.addr), "/f/Echo", &ping{}); err == nil || err.Error() != "after two hops" {
		t.Errorf("got %v", err)
	}
}

func TestForward(t *testing.T) {
	leader := start(t, "leader", nil)
	peers := NewPool(secret("sesame"))
	follower := start(t, "follower", func(m *Mux) {
		m.HandlePrefix("/f/", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if Hops(r) > 0 {
				WriteError(w, r, api.Errorf(api.CodeUnavailable, "passed on twice"))
				return
			}
			r.URL.Path = strings.Replace(r.URL.Path, "/f/", "/t/", 1)
			peers.Get(leader.addr).Forward(w, r)
		}))
	})
	client := NewClient(secret("sesame"), follower.addr)
	res, err := Call[ping, ping](deadline(t), client, "/f/Echo", &ping{"x"})
	if err != nil || res.Text != "leader: x" {
		t.Errorf("unary: %v, %v", res, err)
	}
	_, err = Call[ping, ping](deadline(t), client, "/f/Fail", &ping{"80"})
	if api.CodeOf(err) != api.CodeConflict || err.Error() != "wrapped: port 80 is taken" {
		t.Errorf("error: %v", err)
	}
	stop := errors.New("first")
	err = Stream(deadline(t), client, "/f/Count", &ping{}, func(p *ping) error {
		if p.Text != "leader0" {
			t.Errorf("stream: %q", p.Text)
		}
		return stop
	})
	if !errors.Is(err, stop) {
		t.Errorf("stream: %v", err)
	}
}

func TestRaftSharesThePort(t *testing.T) {
	n := start(t, "n", nil)
	conn, err := DialRaft(deadline(t), secret("sesame"), n.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "entry\n"); err != nil {
		t.Fatal(err)
	}
	got := <-n.raft
	defer got.Close()
	line, err := bufio.NewReader(got).ReadString('\n')
	if err != nil || line != "entry\n" {
		t.Fatalf("raft read %q, %v", line, err)
	}
}

func TestRaftRefusesStrangers(t *testing.T) {
	n := start(t, "n", nil)
	for _, s := range []string{"", "guess"} {
		conn, err := DialRaft(deadline(t), secret(s), n.addr)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) && !strings.Contains(fmt.Sprint(err), "reset") {
			t.Errorf("secret %q: %v, want the connection closed", s, err)
		}
		conn.Close()
	}
	if len(n.raft) != 0 {
		t.Error("a stranger reached raft")
	}
}
