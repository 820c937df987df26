package fence

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/orch-dev/orch/pkg/api"
)

const (
	// alert is how often the guard looks while a task may run without a lease: a
	// start that was under way when the lease ended comes to its end then.
	alert = 20 * time.Millisecond
	// calm is the longest time between two looks at the lease.
	calm = 250 * time.Millisecond
	// engineTimeout bounds a call of the engine, which may hang.
	engineTimeout = 2 * time.Second
)

// RunGuard watches over the tasks of a fence until its directory is gone. When
// the lease has ended it kills what runs of them, again and again, until there
// is a lease again or they are released: by their control groups, for which it
// needs nobody, and by end, which asks the engine to kill what it started and
// to forget what it has not.
func RunGuard(ctx context.Context, dir string, end func(context.Context, api.TaskID) error, log *slog.Logger) error {
	asking := make(chan struct{}, 1) // a token while the engine is asked
	for ctx.Err() == nil {
		tasks, err := readTasks(dir)
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		until, leaseErr := readLease(dir)
		if err := errors.Join(err, leaseErr); err != nil && !errors.Is(err, os.ErrNotExist) {
			log.Error("the fence cannot be read: it counts as closed", "err", err)
		}
		wait := min(until-now(), calm)
		if wait <= 0 {
			wait = calm
			if len(tasks) > 0 {
				wait = alert
				closeFence(ctx, tasks, end, asking, log)
			}
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
	return nil
}

// closeFence ends all tasks. The engine is asked on the side.
func closeFence(ctx context.Context, tasks map[api.TaskID]string, end func(context.Context, api.TaskID) error, asking chan struct{}, log *slog.Logger) {
	for id, container := range tasks {
		if container == "" {
			continue
		}
		killed, err := killContainer(container)
		if err != nil {
			log.Error("cannot kill a task without a lease", "task", id, "err", err)
		}
		if killed > 0 {
			log.Warn("killed a task: the node has lost its lease with the managers", "task", id)
		}
	}
	select {
	case asking <- struct{}{}:
	default:
		return
	}
	go func() {
		defer func() { <-asking }()
		ctx, cancel := context.WithTimeout(ctx, engineTimeout)
		defer cancel()
		for id := range tasks {
			if err := end(ctx, id); err != nil {
				log.Error("the engine cannot end a task without a lease", "task", id, "err", err)
			}
		}
	}()
}

const cgroupRoot = "/sys/fs/cgroup"

// killContainer kills all processes in the control groups of a container, and
// returns how many it found.
func killContainer(container string) (killed int, err error) {
	if !isContainer(container) {
		return 0, fmt.Errorf("%q is not the ID of a container: nothing is killed", container)
	}
	files, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil {
		return 0, fmt.Errorf("list processes: %w", err)
	}
	var errs []error
	for _, file := range files {
		group := groupOf(file, container)
		if group == "" {
			continue
		}
		killed++
		// All at once, so that none has the time to fork (cgroup v2, Linux 5.14).
		if killGroup(filepath.Join(cgroupRoot, group)) == nil {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err := killProcess(pid, file, container); err != nil {
			errs = append(errs, err)
		}
	}
	return killed, errors.Join(errs...)
}

// killGroup kills a control group, of version 2.
func killGroup(dir string) error {
	f, err := os.OpenFile(filepath.Join(dir, "cgroup.kill"), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString("1")
	return errors.Join(err, f.Close())
}

// containerID is the only thing by which processes are picked to be killed: a
// part of one would pick others'.
var containerID = regexp.MustCompile(`^[0-9a-f]{64}$`)

func isContainer(id string) bool { return containerID.MatchString(id) }

// groupOf returns the control group of a process if it is the container's.
func groupOf(file, container string) string {
	content, err := os.ReadFile(file)
	if err != nil {
		return "" // it has ended
	}
	for line := range strings.Lines(string(content)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) == 3 {
			if group := groupIn(parts[2], container); group != "" {
				return group
			}
		}
	}
	return ""
}

// groupIn returns the beginning of the path of a control group that ends with the
// container's own, which is called ID, or, by systemd, docker-ID.scope. It is
// empty if the path is not in it.
func groupIn(path, container string) string {
	end := 0
	for element := range strings.SplitSeq(path, "/") {
		end += len(element)
		if element == container || strings.HasSuffix(element, "-"+container+".scope") {
			return path[:end]
		}
		end++ // the slash
	}
	return ""
}

// killProcess kills a process that is the container's also once it is held.
func killProcess(pid int, file, container string) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open process %d: %w", pid, err)
	}
	defer func() { _ = unix.Close(fd) }()
	if groupOf(file, container) == "" {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill process %d: %w", pid, err)
	}
	return nil
}
