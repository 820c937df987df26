// Package fence ends the tasks of singletons on a node that has lost its lease
// with the managers, also when the daemon has been killed, paused or hangs: a
// process of its own, the guard, does it.
//
// Daemon and guard share a directory. In it is the end of the lease, by a clock
// that goes on while the machine sleeps (CLOCK_BOOTTIME), which the daemon moves
// on with each report that the leader accepts; and a file for each task that must
// not outlive it. Whoever dies, the other goes on: the guard with what is written,
// a new daemon by starting a new guard where none holds the lock.
//
// What it cannot do anything about: a guard and a daemon that are both killed or
// paused; and a virtual machine that its host freezes without its clock noticing.
package fence

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/orch-dev/orch/pkg/api"
)

// Fence is the daemon's side.
type Fence struct {
	dir string
	// start starts a guard that holds the lock for as long as it lives.
	start func(lock *os.File) error

	mu    sync.Mutex
	until time.Duration
	tasks map[api.TaskID]string // what is written down: their containers
}

// New returns the fence of a node whose guard is started by start. It takes over
// what an earlier daemon has written down.
func New(dir string, start func(lock *os.File) error) (*Fence, error) {
	if err := os.MkdirAll(filepath.Join(dir, tasksDir), 0o700); err != nil {
		return nil, fmt.Errorf("make fence: %w", err)
	}
	f := &Fence{dir: dir, start: start, tasks: map[api.TaskID]string{}}
	until, err := readLease(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	f.until = until
	tasks, err := readTasks(dir)
	if err != nil {
		return nil, err
	}
	f.tasks = tasks
	return f, nil
}

const (
	tasksDir  = "tasks"
	leaseFile = "lease"
	lockFile  = "lock"
)

// Now is the time since this machine started, its sleep included.
func (*Fence) Now() time.Duration { return now() }

func now() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic(fmt.Sprintf("read CLOCK_BOOTTIME: %v", err)) // Linux 2.6.39 has it
	}
	return time.Duration(ts.Nano())
}

// Renew moves the end of the lease on to until, never back, and sees to it that a
// guard watches over the tasks that there are.
func (f *Fence) Renew(until time.Duration) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if until > f.until {
		if err := writeFile(f.dir, leaseFile, fmt.Sprintf("%d %s", until, bootID())); err != nil {
			return fmt.Errorf("renew fence: %w", err)
		}
		f.until = until
	}
	if len(f.tasks) == 0 {
		return nil
	}
	return f.ensureGuard()
}

// Left is how long the lease is good.
func (f *Fence) Left() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.until - now()
}

// Guard has the task ended when the lease does. Its container is named as soon as
// it is known; before, the guard asks the engine for it.
func (f *Fence) Guard(task api.TaskID, container string) error {
	if container != "" && !isContainer(container) {
		return fmt.Errorf("fence task %s: %q is not the ID of a container", task, container)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if known, ok := f.tasks[task]; ok && known == container {
		return nil
	}
	if err := writeFile(filepath.Join(f.dir, tasksDir), string(task), container); err != nil {
		return fmt.Errorf("fence task %s: %w", task, err)
	}
	f.tasks[task] = container
	return f.ensureGuard()
}

// Release forgets a task that has ended.
func (f *Fence) Release(task api.TaskID) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.tasks[task]; !ok {
		return nil
	}
	if err := os.Remove(filepath.Join(f.dir, tasksDir, string(task))); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("release task %s from the fence: %w", task, err)
	}
	delete(f.tasks, task)
	return nil
}

// ensureGuard starts a guard unless one holds the lock.
func (f *Fence) ensureGuard() error {
	lock, err := os.OpenFile(filepath.Join(f.dir, lockFile), os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("lock fence: %w", err)
	}
	defer func() { _ = lock.Close() }()
	switch err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
	case errors.Is(err, unix.EWOULDBLOCK):
		return nil
	case err != nil:
		return fmt.Errorf("lock fence: %w", err)
	}
	if err := f.start(lock); err != nil {
		return fmt.Errorf("start the guard of the fence: %w", err)
	}
	return nil
}

// writeFile puts a file in place whole.
func writeFile(dir, name, content string) error {
	temp := filepath.Join(dir, "."+name+".new")
	if err := os.WriteFile(temp, []byte(content), 0o600); err != nil {
		return err
	}
	return os.Rename(temp, filepath.Join(dir, name))
}

// readLease returns the end of the lease; one of before the machine's last start
// has ended.
func readLease(dir string) (time.Duration, error) {
	content, err := os.ReadFile(filepath.Join(dir, leaseFile))
	if err != nil {
		return 0, fmt.Errorf("read lease: %w", err)
	}
	end, boot, _ := strings.Cut(string(content), " ")
	ns, err := strconv.ParseInt(end, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read lease %q: %w", content, err)
	}
	if boot != bootID() {
		return 0, nil
	}
	return time.Duration(ns), nil
}

// bootID tells one start of the machine from another.
var bootID = sync.OnceValue(func() string {
	id, _ := os.ReadFile("/proc/sys/kernel/random/boot_id") // always there; empty equals only empty
	return strings.TrimSpace(string(id))
})

func readTasks(dir string) (map[api.TaskID]string, error) {
	entries, err := os.ReadDir(filepath.Join(dir, tasksDir))
	if err != nil {
		return nil, fmt.Errorf("read fenced tasks: %w", err)
	}
	tasks := map[api.TaskID]string{}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		container, err := os.ReadFile(filepath.Join(dir, tasksDir, e.Name()))
		if errors.Is(err, os.ErrNotExist) {
			continue // released meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("read fenced task: %w", err)
		}
		tasks[api.TaskID(e.Name())] = string(container)
	}
	return tasks, nil
}
