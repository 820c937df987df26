package agent

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/pki"
	"github.com/orch-dev/orch/pkg/rpc"
)

// managerSecurity is that of a cluster of one manager.
func managerSecurity(t *testing.T) *rpc.Security {
	t.Helper()
	id := pki.Identity{Cluster: api.NewID(rand.Reader), Role: api.RoleManager, Node: api.NodeID(api.NewID(rand.Reader))}
	authority, err := pki.NewAuthority(rand.Reader, id.Cluster, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	key, keyErr := pki.NewKey(rand.Reader)
	request, requestErr := pki.Request(key)
	cert, certErr := authority.Issue(rand.Reader, request, id, pki.DefaultLife, time.Now())
	stored, storeErr := authority.Store()
	own, err := pki.NewCredentials(key, api.Certificate{Node: cert, Roots: [][]byte{stored.Certificate}})
	if err := errors.Join(keyErr, requestErr, certErr, storeErr, err); err != nil {
		t.Fatal(err)
	}
	return &rpc.Security{Credentials: func() *pki.Credentials { return own }, Now: time.Now}
}

// serveReports answers reports with err, or well if it is nil.
func serveReports(t *testing.T, sec *rpc.Security, err error) (addr string) {
	t.Helper()
	return answerReports(t, sec, func(*api.Report) error { return err })
}

// answerReports answers reports as answer says.
func answerReports(t *testing.T, sec *rpc.Security, answer func(*api.Report) error) (addr string) {
	t.Helper()
	l, lerr := net.Listen("tcp", "127.0.0.1:0")
	if lerr != nil {
		t.Fatal(lerr)
	}
	mux := rpc.NewMux()
	rpc.Handle(mux, api.ProcReport, func(_ context.Context, r *api.Report) (*api.ReportResponse, error) {
		return &api.ReportResponse{Version: api.Version{Index: 1}, Lease: time.Second}, answer(r)
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- rpc.NewServer(mux, sec, slog.New(slog.DiscardHandler)).ServePeers(ctx, l, nil) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

// A worker goes to another manager when its own cannot answer for the cluster,
// and stays when the cluster's answer is no.
func TestReportMovesOn(t *testing.T) {
	sec := managerSecurity(t)
	good := serveReports(t, sec, nil)
	tests := []struct {
		name  string
		first error
		moves bool
	}{
		{"no quorum", api.Errorf(api.CodeUnavailable, "no quorum"), true},
		{"not a member", api.Errorf(api.CodeDenied, "not a member"), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			first := serveReports(t, sec, tt.first)
			peers := rpc.NewPool(sec)
			t.Cleanup(peers.Reset)
			d := NewDirectory("n1", peers, "", []string{first, good}, func([]string) {})
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			if _, err := d.Report(ctx, &api.Report{Node: "n1"}); err == nil {
				t.Fatal("no error")
			}
			if moved := d.Addr() == good; moved != tt.moves {
				t.Errorf("moved on: %v, want %v", moved, tt.moves)
			}
		})
	}
}

// A manager that cannot pass reports on, because it is in no Raft group any more and
// has not heard of it, asks the others; when it is one again, its own process.
func TestReportBesideHome(t *testing.T) {
	sec := managerSecurity(t)
	home := serveReports(t, sec, api.Errorf(api.CodeUnavailable, "no quorum"))
	good := serveReports(t, sec, nil)
	peers := rpc.NewPool(sec)
	t.Cleanup(peers.Reset)
	d := NewDirectory("n1", peers, home, []string{home, good}, func([]string) {})
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for i := range homePatience {
		if _, err := d.Report(ctx, &api.Report{Node: "n1"}); err == nil {
			t.Fatalf("report %d went to another manager", i)
		}
	}
	if _, err := d.Report(ctx, &api.Report{Node: "n1"}); err != nil {
		t.Errorf("no other manager was asked: %v", err)
	}
	if _, err := d.Report(ctx, &api.Report{Node: "n1"}); err == nil {
		t.Error("home was not asked again")
	}

	d.SetHome("") // it is a worker now
	if _, err := d.Report(ctx, &api.Report{Node: "n1"}); err != nil || d.Addr() != good {
		t.Errorf("a worker reports to %s: %v", d.Addr(), err)
	}
	d.SetHome(home)
	if _, err := d.Report(ctx, &api.Report{Node: "n1"}); err == nil {
		t.Error("a manager does not report to its own process")
	}
}

// A node that starts says that it lives to a manager that answers for the cluster,
// and not to itself.
func TestAnnounce(t *testing.T) {
	sec := managerSecurity(t)
	var mu sync.Mutex
	said := map[string]int{}
	note := func(who string, err error) func(*api.Report) error {
		return func(r *api.Report) error {
			mu.Lock()
			defer mu.Unlock()
			if said[who]++; r.Node != "n1" || r.Applied != 0 || r.Info != nil || len(r.Statuses) != 0 {
				t.Errorf("%s heard more than a sign of life: %+v", who, r)
			}
			return err
		}
	}
	home := answerReports(t, sec, note("home", nil))
	first := answerReports(t, sec, note("first", api.Errorf(api.CodeUnavailable, "no quorum")))
	good := answerReports(t, sec, note("good", nil))
	peers := rpc.NewPool(sec)
	t.Cleanup(peers.Reset)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() {
		ended <- NewDirectory("n1", peers, home, []string{home, first, good}, func([]string) {}).Announce(ctx)
	}()
	await(t, "it has said so several times", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return said["good"] > 2
	})
	cancel()
	if err := <-ended; err != nil || said["home"] != 0 || said["first"] < 2 {
		t.Errorf("%v: heard %v times", err, said)
	}
}

// A manager whose file names no managers does not fall over.
func TestDirectoryWithoutAddresses(t *testing.T) {
	d := NewDirectory("n1", nil, "192.0.2.1:2377", nil, func([]string) {})
	d.MoveOn()
	if got := d.Addr(); got != "192.0.2.1:2377" {
		t.Errorf("moved on to %q", got)
	}
}

// Managers that are alive by hearsay are tried more often than those that are not, which
// are tried, too: hearsay may be wrong, and end.
func TestDirectoryByHearsay(t *testing.T) {
	var heard []string
	d := NewDirectory("n1", nil, "", []string{"a", "b", "c"}, func([]string) {})
	d.SetHearsay(func() []string { return heard })
	for _, step := range []struct {
		name  string
		heard []string
		want  string // who is tried, in order
	}{
		{"no hearsay", nil, "bcab"},
		{"one that moved", []string{"x"}, "xaxbxcx"},
		{"two that moved", []string{"x", "y"}, "yaxybxyc"},
		{"one of those that are known", []string{"b"}, "babcb"},
		{"all that are known", []string{"a", "b", "c"}, "cabcab"},
		{"the end of hearsay", nil, "cab"},
	} {
		heard = step.heard
		var tried string
		for range len(step.want) {
			d.MoveOn()
			tried += d.Addr()
		}
		if tried != step.want {
			t.Errorf("%s: tried %s, want %s", step.name, tried, step.want)
		}
	}
}

// The session with a manager that hearsay takes for dead ends at once, and goes on with
// one that is alive, as this node itself is. One of whom hearsay never spoke keeps it.
func TestDirectoryListens(t *testing.T) {
	said := make(chan struct{})
	var mu sync.Mutex
	heard := []string{"a", "b"}
	say := func(alive ...string) {
		mu.Lock()
		defer mu.Unlock()
		heard = alive
		close(said)
		said = make(chan struct{})
	}
	d := NewDirectory("n1", nil, "home", []string{"home", "a", "b", "silent"}, func([]string) {})
	d.SetHearsay(func() []string { mu.Lock(); defer mu.Unlock(); return heard })
	ctx, cancel := context.WithCancel(context.Background())
	looked, ended := 0, make(chan error, 1)
	go func() {
		ended <- d.Listen(ctx, func() <-chan struct{} {
			mu.Lock()
			defer mu.Unlock()
			looked++
			return said
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	at := func(addr string) {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.current, d.round = addr, 0
	}
	await(t, "hearsay is listened to", func() bool { d.mu.Lock(); defer d.mu.Unlock(); return len(d.heard) > 0 })
	for _, step := range []struct {
		at    string
		alive []string
		want  string
	}{
		{"a", []string{"b"}, "b"},
		{"b", []string{"b", "c"}, "b"},
		{"c", []string{"b"}, "b"},
		{"silent", []string{"b", "c"}, "silent"},
		{"home", []string{"b"}, "home"},
	} {
		at(step.at)
		for range 2 { // the second is looked at after what the first has led to
			mu.Lock()
			before := looked
			mu.Unlock()
			say(step.alive...)
			await(t, "hearsay is looked at", func() bool { mu.Lock(); defer mu.Unlock(); return looked > before })
		}
		await(t, "it is with "+step.want, func() bool { return d.Addr() == step.want })
	}
	at("b")
	if d.MoveOn(); d.Addr() != "home" {
		t.Errorf("after the only other manager alive: %s", d.Addr())
	}
}
