package docker

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/orch-dev/orch/pkg/api"
)

func TestLogs(t *testing.T) {
	e := newEngine(t)
	task := newTask("say", "3")
	startTask(t, e, task)
	waitState(t, e, task.ID, "exited", exited)
	read := func(o api.LogOptions) (string, string) {
		var out, errOut bytes.Buffer
		if err := e.Logs(t.Context(), task.ID, o, &out, &errOut); err != nil {
			t.Fatal(err)
		}
		return out.String(), errOut.String()
	}
	out, errOut := read(api.LogOptions{})
	if diff := cmp.Diff([]string{"out 0\nout 1\nout 2\n", "err 0\nerr 1\nerr 2\n"}, []string{out, errOut}); diff != "" {
		t.Errorf("all output (-want +got):\n%s", diff)
	}
	out, errOut = read(api.LogOptions{Tail: 1, Follow: true})
	if got := out + errOut; got != "out 2\n" && got != "err 2\n" {
		t.Errorf("last line: %q", got)
	}
	if out, errOut = read(api.LogOptions{Since: time.Now().Add(time.Minute)}); out+errOut != "" {
		t.Errorf("output of the future: %q", out+errOut)
	}
	out, _ = read(api.LogOptions{Timestamps: true})
	stamp, rest, _ := strings.Cut(out, " ")
	if _, err := time.Parse(time.RFC3339Nano, stamp); err != nil || !strings.HasPrefix(rest, "out 0\n") {
		t.Errorf("stamped output: %q", out)
	}
	err := e.Logs(t.Context(), "no-such-task", api.LogOptions{}, io.Discard, nil)
	if err == nil || err.Error() != "logs of task no-such-task: no container of it on this node" {
		t.Errorf("logs of an unknown task: %v", err)
	}
}

func TestLogsFollow(t *testing.T) {
	e := newEngine(t)
	task := newTask("serve")
	startTask(t, e, task)
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := e.Logs(t.Context(), task.ID, api.LogOptions{Follow: true}, w, nil)
		done <- errors.Join(err, w.Close())
	}()
	line := make([]byte, len("ready\n"))
	if _, err := io.ReadFull(r, line); err != nil || string(line) != "ready\n" {
		t.Fatalf("first line %q, %v", line, err)
	}
	go func() {
		if err := e.StopTask(context.WithoutCancel(t.Context()), task.ID, 20*time.Second); err != nil {
			t.Error(err)
		}
	}()
	rest, err := io.ReadAll(r)
	if err != nil || string(rest) != "got terminated\n" {
		t.Errorf("the rest: %q, %v", rest, err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}

	// And a reader who goes away.
	other := newTask("serve")
	startTask(t, e, other)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { done <- e.Logs(ctx, other.ID, api.LogOptions{Follow: true}, io.Discard, io.Discard) }()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// notes collects what Watch notifies.
type notes struct {
	mu  sync.Mutex
	ids []api.TaskID
}

func (n *notes) add(id api.TaskID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ids = append(n.ids, id)
}

func (n *notes) count(id api.TaskID) (c int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, i := range n.ids {
		if i == id {
			c++
		}
	}
	return c
}

func (n *notes) wait(t *testing.T, id api.TaskID, atLeast int) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); n.count(id) < atLeast; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d notes about %q after 30 s, want %d", n.count(id), id, atLeast)
		}
	}
}

func TestWatch(t *testing.T) {
	mine := newEngine(t)
	neighbour := newEngine(t, func(c *Config) { c.ClusterID, c.Node = mine.cfg.ClusterID, "node2" })
	ctx, cancel := context.WithCancel(t.Context())
	var seen notes
	done := make(chan error, 1)
	go func() { done <- mine.Watch(ctx, seen.add) }()
	seen.wait(t, "", 1)

	theirs := newTask("serve")
	startTask(t, neighbour, theirs)
	task := newTask("serve")
	task.Spec.Health = &api.Healthcheck{Test: []string{"CMD", "/app", "exists", "/app"}, Interval: 100 * time.Millisecond}
	startTask(t, mine, task)
	seen.wait(t, task.ID, 3) // both containers started, healthy
	if err := mine.StopTask(t.Context(), task.ID, 20*time.Second); err != nil {
		t.Fatal(err)
	}
	seen.wait(t, task.ID, 4) // the application ended
	if err := mine.RemoveTask(t.Context(), task.ID); err != nil {
		t.Fatal(err)
	}
	seen.wait(t, task.ID, 7) // the sandbox ended, both are gone
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("watch ended with %v", err)
	}
	if n := seen.count(theirs.ID); n != 0 {
		t.Errorf("%d notes about another node's task", n)
	}
	if !slices.Contains(seen.ids[:1], "") {
		t.Errorf("notes begin with %q", seen.ids[0])
	}
}

// engineProxy is a way to the engine that can be cut.
type engineProxy struct {
	l     net.Listener
	mu    sync.Mutex
	conns []net.Conn
}

func newEngineProxy(t *testing.T, engine string) *engineProxy {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "docker.sock"))
	if err != nil {
		t.Fatal(err)
	}
	p := &engineProxy{l: l}
	t.Cleanup(p.cut)
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("unix", engine)
			if err != nil {
				_ = in.Close()
				continue
			}
			p.mu.Lock()
			p.conns = append(p.conns, in, out)
			p.mu.Unlock()
			go func() { _, _ = io.Copy(in, out) }()
			go func() { _, _ = io.Copy(out, in) }()
		}
	}()
	return p
}

func (p *engineProxy) cut() {
	_ = p.l.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		_ = c.Close()
	}
}

func TestEngineGoesAway(t *testing.T) {
	direct := newEngine(t)
	socket, ok := strings.CutPrefix(direct.cli.DaemonHost(), "unix://")
	if !ok {
		t.Fatalf("the engine is not on a unix socket: %s", direct.cli.DaemonHost())
	}
	proxy := newEngineProxy(t, socket)
	cfg := direct.cfg
	cfg.Host = "unix://" + proxy.l.Addr().String()
	e, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	task := newTask("serve")
	startTask(t, e, task)
	var seen notes
	done := make(chan error, 1)
	go func() { done <- e.Watch(t.Context(), seen.add) }()
	seen.wait(t, "", 1)

	proxy.cut()
	if err := <-done; !errors.Is(err, api.ErrRuntimeUnavailable) {
		t.Errorf("watch ended with %v", err)
	}
	_, err = e.Tasks(t.Context())
	if !errors.Is(err, api.ErrRuntimeUnavailable) {
		t.Errorf("list: %v", err)
	}
	if err := e.StartTask(t.Context(), newTask("serve")); !errors.Is(err, api.ErrRuntimeUnavailable) {
		t.Errorf("start: %v", err)
	}
	if s, err := direct.Task(t.Context(), task.ID); err != nil || s.Phase != api.ContainerRunning {
		t.Errorf("the task meanwhile: %+v, %v", s, err)
	}
}
