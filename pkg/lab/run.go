package lab

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/netdev"
)

// In runs fn in the network namespace of a node or the client: sockets that it
// opens and processes that it starts are of that namespace. See netdev.Do.
func (l *Lab) In(member string, fn func() error) error {
	ns, err := l.Namespace(member)
	if err != nil {
		return err
	}
	return netdev.Do(ns, fn)
}

// InClient runs fn in the client's namespace.
func (l *Lab) InClient(fn func() error) error { return l.In(ClientName, fn) }

// Dial connects from a node or the client. The address must be numeric, since
// names are resolved by other threads.
func (l *Lab) Dial(ctx context.Context, member, network, addr string) (net.Conn, error) {
	var conn net.Conn
	err := l.In(member, func() (err error) {
		conn, err = new(net.Dialer).DialContext(ctx, network, addr)
		return err
	})
	return conn, err
}

// HTTP returns a client that connects from a node or the client, with a new
// connection for each request.
func (l *Lab) HTTP(member string) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return l.Dial(ctx, member, network, addr)
		},
	}}
}

// Spawn starts a command in the namespace of a node or the client, with
// ORCH_HOST set to the node's API. The caller waits for it.
func (l *Lab) Spawn(member string, cmd *exec.Cmd) error {
	n, err := l.member(member)
	if err != nil {
		return err
	}
	cmd.Env = append(l.environ(n), cmd.Env...)
	return l.In(member, cmd.Start)
}

// Become replaces this process by a command in the namespace of a node or the
// client. It returns only on an error.
func (l *Lab) Become(member string, args []string) error {
	n, err := l.member(member)
	if err != nil {
		return err
	}
	env := l.environ(n)
	// The command is found by its own PATH, which has this program in it.
	if err := os.Setenv("PATH", l.path()); err != nil {
		return fmt.Errorf("set PATH: %w", err)
	}
	program, err := exec.LookPath(args[0])
	if err != nil {
		return fmt.Errorf("find command: %w", err)
	}
	return l.In(member, func() error {
		// The thread that calls exec is the one that lives on.
		if err := unix.Exec(program, args, env); err != nil {
			return fmt.Errorf("run %s: %w", program, err)
		}
		return nil
	})
}

// Exec runs a command in the namespace of a node or the client, and returns its
// standard output. An error has what it wrote to standard error.
func (l *Lab) Exec(ctx context.Context, member string, args ...string) ([]byte, error) {
	return output(ctx, args, func(cmd *exec.Cmd) error { return l.Spawn(member, cmd) })
}

// Orch runs an orch command against a node's API, and returns its standard
// output. An error has what it wrote to standard error.
func (l *Lab) Orch(ctx context.Context, node string, args ...string) ([]byte, error) {
	n, err := l.Find(node)
	if err != nil {
		return nil, err
	}
	return output(ctx, append([]string{l.options.Binary, "--host", n.Host()}, args...), func(cmd *exec.Cmd) error {
		cmd.Env = l.environ(n)
		return cmd.Start()
	})
}

func output(ctx context.Context, args []string, start func(*exec.Cmd) error) ([]byte, error) {
	var out, problem bytes.Buffer
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = &out, &problem
	err := start(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		name := filepath.Base(args[0])
		err = fmt.Errorf("%s: %w: %s", strings.Join(append([]string{name}, args[1:]...), " "), err, strings.TrimSpace(problem.String()))
	}
	return out.Bytes(), err
}

// member returns a node, or nil for the client.
func (l *Lab) member(name string) (*Node, error) {
	if name == ClientName {
		return nil, nil
	}
	return l.Find(name)
}

// environ is this process's environment with what a process of the lab has
// besides; n is nil for one that belongs to no node.
func (l *Lab) environ(n *Node) []string {
	ours := []string{
		envLab + "=" + l.options.Name,
		"PATH=" + l.path(),
		"ORCH_HOST=",
	}
	if n != nil {
		ours[2] += n.Host()
	}
	// A name that is there twice means different things to different programs.
	env := slices.DeleteFunc(os.Environ(), func(setting string) bool {
		return slices.ContainsFunc(ours, func(our string) bool {
			name, _, _ := strings.Cut(our, "=")
			return strings.HasPrefix(setting, name+"=")
		})
	})
	return append(env, ours...)
}

func (l *Lab) path() string { return filepath.Dir(l.options.Binary) + ":" + os.Getenv("PATH") }

func metricsAddr(n *Node) string {
	return netip.AddrPortFrom(n.Addr, api.MetricsPort).String()
}

func dialUnix(ctx context.Context, path string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "unix", path)
}
