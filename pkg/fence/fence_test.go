package fence

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/orch-dev/orch/pkg/api"
)

// patience is how long what must happen may take on a busy machine.
const patience = 20 * time.Second

// guards counts the guards that a fence has started, all of which run here.
type guards struct {
	t   *testing.T
	dir string

	mu      sync.Mutex
	started int
	asked   map[api.TaskID]bool
	stop    context.CancelFunc
}

// start is what a fence starts its guard by.
func (g *guards) start(lock *os.File) error {
	fd, err := syscall.Dup(int(lock.Fd()))
	if err != nil {
		return err
	}
	held := os.NewFile(uintptr(fd), "lock")
	ctx, cancel := context.WithCancel(context.Background())
	g.mu.Lock()
	defer g.mu.Unlock()
	g.started++
	done := make(chan struct{})
	g.stop = func() { cancel(); <-done }
	go func() {
		defer close(done)
		if err := RunGuard(ctx, g.dir, g.end, slog.New(slog.DiscardHandler)); err != nil {
			g.t.Errorf("guard: %v", err)
		}
		_ = held.Close()
	}()
	g.t.Cleanup(g.stop)
	return nil
}

func (g *guards) end(_ context.Context, id api.TaskID) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.asked[id] = true
	return nil
}

func newFence(t *testing.T) (*Fence, *guards) {
	t.Helper()
	g := &guards{t: t, dir: filepath.Join(t.TempDir(), "fence"), asked: map[api.TaskID]bool{}}
	f, err := New(g.dir, g.start)
	if err != nil {
		t.Fatal(err)
	}
	return f, g
}

// groupDir is where a control group can be made, of whichever version there is.
func groupDir(t *testing.T, name string) string {
	t.Helper()
	for _, root := range []string{cgroupRoot, cgroupRoot + "/pids", cgroupRoot + "/freezer"} {
		if _, err := os.Stat(filepath.Join(root, "cgroup.procs")); err != nil {
			continue
		}
		dir := filepath.Join(root, name)
		if err := os.Mkdir(dir, 0o755); err == nil {
			return dir
		}
	}
	t.Fatal("no control group can be made: run it as root")
	return ""
}

// container starts a process, with a child, in a control group whose name has an
// ID in it, as an engine does.
func container(t *testing.T, id string) (ended <-chan struct{}) {
	t.Helper()
	group := groupDir(t, "fence-"+id+".scope")
	cmd := exec.Command("sh", "-c", "read go; sleep 1000 & sleep 1000")
	stdin, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(done)
	}()
	t.Cleanup(func() {
		deadline := time.Now().Add(patience)
		for { // until nothing is left in it
			_, killErr := killContainer(id)
			err := os.Remove(group)
			if err == nil {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("remove control group: %v", errors.Join(err, killErr))
			}
			time.Sleep(10 * time.Millisecond)
		}
	})
	if err := os.WriteFile(filepath.Join(group, "cgroup.procs"), []byte(fmt.Sprint(cmd.Process.Pid)), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintln(stdin, "go"); err != nil {
		t.Fatal(err)
	}
	return done
}

// newID is that of a container that no engine has.
func newID() string {
	id := make([]byte, 32)
	_, _ = rand.Read(id) // never fails
	return hex.EncodeToString(id)
}

func awaitClosed(t *testing.T, what string, ch <-chan struct{}) {
	t.Helper()
	select {
	case <-ch:
	case <-time.After(patience):
		t.Fatalf("%s: not after %v", what, patience)
	}
}

func isClosed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

// What is fenced is killed when the lease ends, with all its processes and not
// before, and the engine is asked to see to the rest.
func TestGuardKillsWhenTheLeaseEnds(t *testing.T) {
	f, g := newFence(t)
	id := newID()
	fenced, other := container(t, id), container(t, newID())
	until := f.Now() + 700*time.Millisecond
	if err := errors.Join(f.Renew(until), f.Guard("task", "")); err != nil {
		t.Fatal(err)
	}
	if err := f.Guard("task", id); err != nil {
		t.Fatal(err)
	}
	for f.Now() < until-250*time.Millisecond {
		if isClosed(fenced) {
			t.Fatal("killed while the lease is good")
		}
		time.Sleep(10 * time.Millisecond)
	}
	later := f.Now() + time.Second
	if err := f.Renew(later); err != nil {
		t.Fatal(err)
	}
	for f.Now() < later-100*time.Millisecond {
		if isClosed(fenced) && f.Now() < later {
			t.Fatal("killed though the lease was renewed")
		}
		time.Sleep(10 * time.Millisecond)
	}
	awaitClosed(t, "the end of a task without a lease", fenced)
	if f.Now() < later {
		t.Error("killed too early")
	}
	t.Logf("killed %v after the end of the lease", f.Now()-later)
	if isClosed(other) {
		t.Error("another container was killed, too")
	}
	deadline := time.Now().Add(patience)
	for asked := false; !asked; {
		g.mu.Lock()
		asked = g.asked["task"]
		g.mu.Unlock()
		if time.Now().After(deadline) {
			t.Fatal("the engine was never asked")
		}
		time.Sleep(10 * time.Millisecond)
	}
	if g.started != 1 {
		t.Errorf("%d guards were started", g.started)
	}
}

// A guard that died is replaced at the next renewal, and a daemon that starts
// again goes on with what the last one wrote.
func TestFenceOutlivesItsProcesses(t *testing.T) {
	f, g := newFence(t)
	id := newID() // of no container
	if err := errors.Join(f.Renew(f.Now()+time.Hour), f.Guard("task", id)); err != nil {
		t.Fatal(err)
	}
	g.stop()
	if err := f.Renew(f.Now() + time.Hour); err != nil {
		t.Fatal(err)
	}
	if g.started != 2 {
		t.Errorf("%d guards were started, want another in the place of the one that died", g.started)
	}
	again, err := New(g.dir, g.start)
	if err != nil {
		t.Fatal(err)
	}
	if left := again.Left(); left < 59*time.Minute {
		t.Errorf("the lease is good for %v after a restart", left)
	}
	if diff := cmp.Diff(map[api.TaskID]string{"task": id}, again.tasks); diff != "" {
		t.Errorf("tasks after a restart (-want +got):\n%s", diff)
	}
	if err := errors.Join(again.Renew(again.Now()), again.Release("task"), again.Release("task")); err != nil {
		t.Fatal(err)
	}
	if left := again.Left(); left < 59*time.Minute {
		t.Errorf("the lease went back to %v", left)
	}
	if tasks, err := readTasks(g.dir); err != nil || len(tasks) > 0 {
		t.Errorf("tasks after the release: %v, %v", tasks, err)
	}
}

// Nothing but a whole ID picks processes, and only those in the container's own
// control group.
func TestOnlyTheContainerIsPicked(t *testing.T) {
	id := strings.Repeat("0123456789abcdef", 4)
	for path, want := range map[string]string{
		"/docker/" + id:                               "/docker/" + id,
		"/docker/" + id + "/inner/group":              "/docker/" + id,
		"/system.slice/docker-" + id + ".scope":       "/system.slice/docker-" + id + ".scope",
		"/":                                           "",
		"/docker":                                     "",
		"/docker/x" + id:                              "",
		"/docker/" + id + "0":                         "",
		"/docker/" + id[:63]:                          "",
		"/docker/" + strings.ToUpper(id):              "",
		"/system.slice/docker-" + id + "0.scope":      "",
		"/process/" + id[:32] + "/docker/" + id[1:]:   "",
		"/system.slice/docker-" + id[:63] + ".scope":  "",
		"/system.slice/docker-" + id + ".scope.d/sub": "",
	} {
		if got := groupIn(path, id); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
	f, _ := newFence(t)
	for _, part := range []string{"c1", "a", id[:63], id + "0", strings.ToUpper(id), "."} {
		if killed, err := killContainer(part); killed != 0 || err == nil {
			t.Errorf("%q: %d processes were killed, %v", part, killed, err)
		}
		if err := f.Guard("task", part); err == nil {
			t.Errorf("%q is taken for a container", part)
		}
	}
	if killed, err := killContainer(""); killed != 0 || err == nil {
		t.Errorf("no ID: %d processes were killed, %v", killed, err)
	}
}

func TestLeaseOfAnEarlierBootHasEnded(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, leaseFile), []byte("9000000000000000000 another-boot"), 0o600); err != nil {
		t.Fatal(err)
	}
	if until, err := readLease(dir); until != 0 || err != nil {
		t.Errorf("until %v, %v", until, err)
	}
	if err := os.WriteFile(filepath.Join(dir, leaseFile), []byte("soon"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readLease(dir); err == nil {
		t.Error("no error for nonsense")
	}
}
