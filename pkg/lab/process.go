package lab

import (
	"bytes"
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
	"time"

	"golang.org/x/sys/unix"

	"github.com/orch-dev/orch/pkg/netdev"
)

// envLab is set, to the lab's name, for every process started in a lab.
const envLab = "ORCH_LAB"

// process is a process held by a descriptor: a signal never reaches another
// one that was given the same number.
type process struct {
	pid   int
	pidfd int
	args  []string
	env   []string
}

func openProcess(pid int) (*process, error) {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, err
	}
	// What is read from here on is of the process held, or of none at all.
	p := &process{pid: pid, pidfd: pidfd}
	dir := "/proc/" + strconv.Itoa(pid)
	if p.args, err = readList(dir + "/cmdline"); err == nil {
		p.env, err = readList(dir + "/environ")
	}
	if err == nil {
		err = unix.PidfdSendSignal(pidfd, 0, nil, 0)
	}
	if err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

func readList(path string) ([]string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return strings.Split(string(bytes.TrimRight(data, "\x00")), "\x00"), nil
}

func (p *process) close() { unix.Close(p.pidfd) }

// kill sends SIGKILL and waits until the process is gone.
func (p *process) kill(ctx context.Context) error { return p.end(ctx, unix.SIGKILL) }

// end sends a signal that the process ends by, and waits until it is gone.
func (p *process) end(ctx context.Context, sig unix.Signal) error {
	if err := unix.PidfdSendSignal(p.pidfd, sig, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("send %v to process %d: %w", sig, p.pid, err)
	}
	for {
		ready, err := unix.Poll([]unix.PollFd{{Fd: int32(p.pidfd), Events: unix.POLLIN}}, 20)
		if ready > 0 {
			return nil
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for process %d to end: %w", p.pid, err)
		}
		if ctx.Err() != nil {
			return fmt.Errorf("wait for process %d to end: %w", p.pid, ctx.Err())
		}
	}
}

// processes returns all processes, but this one, for which match is true. The
// caller closes them.
func processes(match func(*process) bool) []*process {
	entries, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil
	}
	var found []*process
	for _, entry := range entries {
		pid, err := strconv.Atoi(filepath.Base(entry))
		if err != nil || pid == os.Getpid() {
			continue
		}
		p, err := openProcess(pid)
		if err != nil {
			continue // it ended
		}
		if match(p) {
			found = append(found, p)
		} else {
			p.close()
		}
	}
	return found
}

// runDirOf returns the run directory that an orch daemon was started with.
func runDirOf(p *process) string {
	if len(p.args) < 2 || !slices.Contains(p.args[1:], "daemon") {
		return ""
	}
	return flagOf(p, "--run-dir")
}

// flagOf returns the value of a flag of a process, or "".
func flagOf(p *process, flag string) string {
	for i, arg := range p.args {
		if value, ok := strings.CutPrefix(arg, flag+"="); ok {
			return value
		}
		if arg == flag && i+1 < len(p.args) {
			return p.args[i+1]
		}
	}
	return ""
}

// daemon returns the running daemon of a node, or nil.
func (n *Node) daemon() *process {
	found := processes(func(p *process) bool { return runDirOf(p) == n.RunDir })
	if len(found) == 0 {
		return nil
	}
	for _, p := range found[1:] {
		p.close()
	}
	return found[0]
}

// processesOf returns the daemons of a lab, the commands that talk to them, and
// what else was started in its namespaces.
func processesOf(lab string) []*process {
	runDir := filepath.Join(runRoot, lab) + "/"
	return processes(func(p *process) bool {
		if strings.HasPrefix(runDirOf(p), runDir) || strings.HasPrefix(flagOf(p, "--host"), "unix://"+runDir) {
			return true
		}
		// Somebody may have set the variable elsewhere: it counts only in a
		// namespace that is not the machine's.
		ns := "/proc/" + strconv.Itoa(p.pid) + "/ns/net"
		return slices.Contains(p.env, envLab+"="+lab) && !sameNamespace(ns, "/proc/thread-self/ns/net")
	})
}

// daemonArgs is the command line of a node's daemon.
func (l *Lab) daemonArgs(n *Node) []string {
	args := []string{
		"daemon",
		"--lab", l.options.Name,
		"--hostname", n.Name,
		"--state-dir", n.StateDir,
		"--run-dir", n.RunDir,
		"--pin-dir", n.PinDir,
		"--advertise-addr", n.Addr.String(),
		"--metrics-addr", metricsAddr(n),
		"--datapath", string(l.options.Datapath),
		"--resolv-conf", n.resolvFile,
	}
	if l.options.Lease > 0 {
		args = append(args, "--lease", l.options.Lease.String())
	}
	if socket := l.options.Engines[n.Name]; socket != "" {
		args = append(args, "--docker-host", socket)
	}
	return args
}

// startDaemon starts a node's daemon and returns when it answers on its socket.
// The daemon outlives this process.
func (l *Lab) startDaemon(ctx context.Context, n *Node) error {
	for _, dir := range []string{n.StateDir, n.RunDir, filepath.Dir(n.PinDir)} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("make directory: %w", err)
		}
	}
	// Names outside the cluster are asked for at the client, where nothing
	// answers unless somebody puts a server there: a quick error, not a
	// timeout.
	resolv := "nameserver " + ClientAddr.String() + "\n"
	if err := os.WriteFile(n.resolvFile, []byte(resolv), 0o644); err != nil {
		return fmt.Errorf("write resolv.conf: %w", err)
	}
	log, err := os.OpenFile(n.logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	defer log.Close()

	cmd := exec.Command(l.options.Binary, l.daemonArgs(n)...)
	cmd.Env = l.environ(nil)
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	// Not by `ip netns exec`, which puts a fresh /sys over the cgroup mounts.
	if err := netdev.Do(n.NetNS, func() error { return preferred(cmd.Start) }); err != nil {
		return fmt.Errorf("start daemon: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	return n.awaitSocket(ctx, ended)
}

// preferred has start, which starts a process on this thread, start one that runs
// before others: ten times their share of the CPU, as the systemd unit gives it.
// Several nodes' containers are on one machine here.
func preferred(start func() error) error {
	const nice, kernelBase = -10, 20
	usual, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	if err == nil {
		err = unix.Setpriority(unix.PRIO_PROCESS, 0, nice)
	}
	if err != nil { // a container without CAP_SYS_NICE: then it gets what all get
		return start()
	}
	defer func() { _ = unix.Setpriority(unix.PRIO_PROCESS, 0, kernelBase-usual) }()
	return start()
}

func (n *Node) awaitSocket(ctx context.Context, ended <-chan error) error {
	retry := time.NewTicker(10 * time.Millisecond)
	defer retry.Stop()
	for {
		if conn, err := dialUnix(ctx, n.Socket); err == nil {
			return conn.Close()
		}
		select {
		case err := <-ended:
			return fmt.Errorf("daemon of %s ended at start (%w)%s", n.Name, orExited(err), n.logTail())
		case <-ctx.Done():
			return fmt.Errorf("daemon of %s does not answer on %s: %w%s", n.Name, n.Socket, ctx.Err(), n.logTail())
		case <-retry.C:
		}
	}
}

func orExited(err error) error {
	if err == nil {
		return errors.New("exit status 0")
	}
	return err
}

// logTail returns the end of the daemon's log, indented, for an error message.
func (n *Node) logTail() string {
	data, err := os.ReadFile(n.logFile)
	if err != nil || len(data) == 0 {
		return ""
	}
	lines := strings.Split(strings.TrimRight(string(data), "\n"), "\n")
	lines = lines[max(0, len(lines)-15):]
	return "; the end of its log:\n  " + strings.Join(lines, "\n  ")
}
