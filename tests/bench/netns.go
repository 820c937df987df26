package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/orch-dev/orch/pkg/netdev"
)

// netnsDir is where iproute2 keeps named network namespaces.
const netnsDir = "/run/netns"

// netnsPrefix begins the name of every namespace and directory of every run;
// the process ID of the run follows.
const netnsPrefix = "obench-"

// inNetns calls fn in the named network namespace.
func inNetns(name string, fn func() error) error {
	return netdev.Do(filepath.Join(netnsDir, name), fn)
}

// startIn starts the command in the named network namespace. It is killed when
// this process dies.
func startIn(name string, cmd *exec.Cmd) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	if err := inNetns(name, cmd.Start); err != nil {
		return fmt.Errorf("start %s: %w", filepath.Base(cmd.Path), err)
	}
	return nil
}

// outputIn runs the command in the named network namespace and returns what it
// printed; the error holds what it complained about.
func outputIn(ctx context.Context, name, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	var out, complaint strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := startIn(name, cmd); err != nil {
		return "", err
	}
	if err := cmd.Wait(); err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, tail(complaint.String()+out.String()))
	}
	return out.String(), nil
}

// setSysctls sets values of /proc/sys/net ("ipv4/ip_forward=1") in the named
// network namespace. One the kernel does not have is passed over.
func setSysctls(name string, settings ...string) error {
	return inNetns(name, func() error {
		for _, s := range settings {
			key, value, _ := strings.Cut(s, "=")
			err := os.WriteFile(filepath.Join("/proc/sys/net", key), []byte(value), 0o644)
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("set %s: %w", s, err)
			}
		}
		return nil
	})
}

// ipBatch runs lines of ip(8) commands; in the named namespace, or in this
// process's own where name is empty.
func ipBatch(ctx context.Context, name string, lines ...string) error {
	args := []string{"-batch", "-"}
	if name != "" {
		args = []string{"-n", name, "-batch", "-"}
	}
	cmd := exec.CommandContext(ctx, "ip", args...)
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ip in %q: %w: %s", name, err, tail(string(out)))
	}
	return nil
}

// removeAbandoned removes the namespaces and files of runs that were killed
// before they could; their processes died with them.
func removeAbandoned() error {
	var errs []error
	for _, path := range leftBy(netnsDir) {
		if out, err := exec.Command("ip", "netns", "del", filepath.Base(path)).CombinedOutput(); err != nil {
			errs = append(errs, fmt.Errorf("delete abandoned %s: %w: %s", path, err, tail(string(out))))
		}
	}
	for _, path := range leftBy(os.TempDir()) {
		errs = append(errs, os.RemoveAll(path))
	}
	return errors.Join(errs...)
}

// leftBy returns what a run whose process is gone has left in dir.
func leftBy(dir string) []string {
	paths, _ := filepath.Glob(filepath.Join(dir, netnsPrefix+"*")) // the pattern is well formed
	return slices.DeleteFunc(paths, func(path string) bool {
		pid, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(path), netnsPrefix), "-")
		n, err := strconv.Atoi(pid)
		return err != nil || !errors.Is(syscall.Kill(n, 0), syscall.ESRCH)
	})
}

// tail returns the last few lines of what a program printed.
func tail(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-6):], "; ")
}
