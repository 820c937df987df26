package rpc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/orch-dev/orch/pkg/api"
)

func TestErrorKeepsCodeAndText(t *testing.T) {
	c := newCluster(t)
	n := start(t, c.node(t, api.RoleManager), nil)
	_, err := echo(t, c.node(t, api.RoleManager), n.addr, procFail)
	var e *api.Error
	if !errors.As(err, &e) || e.Code != api.CodeConflict || e.Message != "wrapped: port x is taken" {
		t.Errorf("got %v", err)
	}
}

// The socket is root's and its group's, and of root alone where there is no such
// group.
func TestSocketMode(t *testing.T) {
	group, err := user.LookupGroup("daemon")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]struct {
		mode os.FileMode
		gid  string
	}{"daemon": {0o660, group.Gid}, "no-such-group-here": {0o600, "0"}} {
		path := filepath.Join(t.TempDir(), "s")
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		if err := shareSocket(path, name); err != nil {
			t.Error(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if gid := fmt.Sprint(info.Sys().(*syscall.Stat_t).Gid); info.Mode().Perm() != want.mode || gid != want.gid {
			t.Errorf("%s: mode %v, group %s; want %v, %s", name, info.Mode().Perm(), gid, want.mode, want.gid)
		}
		_ = l.Close()
	}
}

func TestLocalSocketNeedsNoCertificate(t *testing.T) {
	n := start(t, newCluster(t).node(t, api.RoleWorker), nil)
	client := NewLocalClient(n.socket)
	for {
		got, err := call(t, client, api.ProcDeploy)
		if err == nil {
			if got != "local x" {
				t.Fatalf("got %q", got)
			}
			return
		}
		if !strings.HasPrefix(err.Error(), "no orch daemon answers on ") || !strings.Contains(err.Error(), "is `orch daemon` running?") {
			t.Fatalf("an error that does not help: %v", err)
		}
	}
}

// A server that cannot be reached gives another error than one that answers
// with one: callers move on to another node only then.
func TestUnreachable(t *testing.T) {
	_, err := echo(t, newCluster(t).node(t, api.RoleManager), "127.0.0.1:1", api.ProcReport)
	var e *api.Error
	if err == nil || errors.As(err, &e) || !strings.HasPrefix(err.Error(), "connect to 127.0.0.1:1: ") {
		t.Fatalf("got %v, want an error that no server answered", err)
	}
}

func TestStream(t *testing.T) {
	c := newCluster(t)
	n := start(t, c.node(t, api.RoleManager), nil)
	var got []string
	stop := errors.New("enough")
	err := Stream(deadline(t), NewPool(c.node(t, api.RoleManager)).Manager(n.addr), procCount, &ping{"n"}, func(p *ping) error {
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

// Procedures of a follower, and what it has the leader do.
var passedOn = map[string]string{
	api.ProcSession: api.ProcReport, // which workers may call
	api.ProcScale:   api.ProcDeploy,
	"/f/Fail":       procFail,
	"/f/Count":      procCount,
}

func follower(t *testing.T, sec *Security, leader string) *node {
	peers := NewPool(sec)
	return start(t, sec, func(m *Mux) {
		for from, to := range passedOn {
			m.HandlePrefix(from, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if Hops(r) > 0 {
					WriteError(w, r, api.Errorf(api.CodeUnavailable, "passed on twice"))
					return
				}
				r.URL.Path = to
				peers.Manager(leader).Forward(w, r)
			}))
		}
	})
}

// What is passed on is done for who asked, and no more than that one may.
func TestForward(t *testing.T) {
	c := newCluster(t)
	leader := start(t, c.node(t, api.RoleManager), nil)
	f := follower(t, c.node(t, api.RoleManager), leader.addr)
	worker, manager := c.node(t, api.RoleWorker), c.node(t, api.RoleManager)
	if got, err := echo(t, worker, f.addr, api.ProcSession); err != nil || got != "worker "+string(worker.id())+" x" {
		t.Errorf("worker: %q, %v", got, err)
	}
	if got, err := echo(t, manager, f.addr, api.ProcScale); err != nil || got != "manager "+string(manager.id())+" x" {
		t.Errorf("manager: %q, %v", got, err)
	}
	if got, err := call(t, NewLocalClient(f.socket), api.ProcScale); err != nil || got != "manager "+string(f.id())+" x" {
		t.Errorf("local user of the follower: %q, %v", got, err)
	}
	if _, err := echo(t, manager, f.addr, "/f/Fail"); api.CodeOf(err) != api.CodeConflict || err.Error() != "wrapped: port x is taken" {
		t.Errorf("error: %v", err)
	}
	stop := errors.New("first")
	err := Stream(deadline(t), NewPool(manager).Manager(f.addr), "/f/Count", &ping{"leader"}, func(p *ping) error {
		if p.Text != "leader0" {
			t.Errorf("stream: %q", p.Text)
		}
		return stop
	})
	if !errors.Is(err, stop) {
		t.Errorf("stream: %v", err)
	}
}

// A read is asked of another manager when the one that was asked first has gone,
// though its machine does not say so.
func TestForwardRead(t *testing.T) {
	c := newCluster(t)
	gone, goneKnown := context.WithCancel(t.Context())
	hangs := start(t, c.node(t, api.RoleManager), func(m *Mux) {
		m.HandlePrefix("/f/", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			goneKnown()
			<-r.Context().Done()
		}))
	})
	answers := start(t, c.node(t, api.RoleManager), nil)
	peers := NewPool(c.node(t, api.RoleManager))
	f := start(t, c.node(t, api.RoleManager), func(m *Mux) {
		m.HandlePrefix(api.ProcTasks, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			held, err := Hold(w, r)
			if err != nil {
				t.Error(err)
				return
			}
			if held.Try(w, func(w http.ResponseWriter, r *http.Request) {
				r.URL.Path = "/f/Hang"
				peers.Manager(hangs.addr).ForwardRead(gone, w, r)
			}) {
				t.Error("the first manager never answers")
			}
			if !held.Try(w, func(w http.ResponseWriter, r *http.Request) {
				r.URL.Path = api.ProcReport
				peers.Manager(answers.addr).ForwardRead(t.Context(), w, r)
			}) {
				t.Error("the second manager answers")
			}
		}))
	})
	asks := c.node(t, api.RoleManager)
	if got, err := echo(t, asks, f.addr, api.ProcTasks); err != nil || got != "manager "+string(asks.id())+" x" {
		t.Errorf("%q, %v", got, err)
	}
}

// Every node that passes a request on is counted, so that it does not go round.
func TestHops(t *testing.T) {
	sec := newCluster(t).node(t, api.RoleManager)
	peers := NewPool(sec)
	var next string
	n := start(t, sec, func(m *Mux) {
		m.HandlePrefix("/f/", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if Hops(r) == 2 {
				WriteError(w, r, api.Errorf(api.CodeConflict, "after two hops"))
				return
			}
			held, err := Hold(w, r)
			if err != nil {
				t.Error(err)
				return
			}
			held.Try(w, peers.Manager(next).Forward)
		}))
	})
	next = n.addr
	if _, err := echo(t, sec, n.addr, "/f/Echo"); err == nil || err.Error() != "after two hops" {
		t.Errorf("got %v", err)
	}
}

// A manager that stops answers what it has begun, and what it has not looked at is
// asked of another: no call is lost, whenever it comes.
func TestStopLosesNoCall(t *testing.T) {
	c := newCluster(t)
	other := start(t, c.node(t, api.RoleManager), nil)
	peers := NewPool(c.node(t, api.RoleManager))
	for range 4 {
		leader := start(t, c.node(t, api.RoleManager), nil)
		f := start(t, c.node(t, api.RoleManager), func(m *Mux) {
			m.HandlePrefix("/f/", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				r.URL.Path = api.ProcDeploy
				held, err := Hold(w, r)
				if err != nil {
					t.Error(err)
				}
				if !held.Try(w, peers.Manager(leader.addr).Forward) {
					held.Try(w, peers.Manager(other.addr).Forward)
				}
			}))
		})
		var clients sync.WaitGroup
		for range 8 {
			client := NewPool(c.node(t, api.RoleManager)).Manager(f.addr)
			clients.Go(func() {
				for before := other.calls.Load(); other.calls.Load() < before+20; {
					if _, err := call(t, client, "/f/x"); err != nil {
						t.Error(err)
						return
					}
					if leader.calls.Load() > 50 {
						leader.stop()
					}
				}
			})
		}
		clients.Wait()
	}
}
