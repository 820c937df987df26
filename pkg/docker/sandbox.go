package docker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/orch-dev/orch/pkg/api"
)

// CreateSandbox makes the task's network namespace and the files that describe
// its network, and returns the namespace's path, valid while the sandbox runs.
// A running sandbox of the task is adopted; one that has ended is an error,
// because the task has lost what it was joined to.
func (e *Engine) CreateSandbox(ctx context.Context, t *api.Task, net api.SandboxNet) (string, error) {
	op := "create sandbox of " + t.Name()
	if err := e.cfg.writeFiles(t, net); err != nil {
		return "", fmt.Errorf("%s: %w", op, err)
	}
	opts := e.cfg.sandbox(t, e.sandboxImage)
	found, err := e.create(ctx, t, opts)
	if cerrdefs.IsNotFound(err) { // the image, made once for each engine
		if err := e.ensureSandboxImage(ctx); err != nil {
			return "", fmt.Errorf("%s: %w", op, err)
		}
		found, err = e.create(ctx, t, opts)
	}
	if err != nil {
		return "", wrap(op, err)
	}
	if found == nil || found.Status == container.StateCreated {
		if _, err := e.cli.ContainerStart(ctx, opts.Name, client.ContainerStartOptions{}); err != nil {
			return "", wrap(op, err)
		}
		res, err := e.cli.ContainerInspect(ctx, opts.Name, client.ContainerInspectOptions{})
		if err != nil {
			return "", wrap(op, err)
		}
		found = res.Container.State
	}
	if !found.Running {
		return "", fmt.Errorf("%s: it has ended", op)
	}
	return netns(found), nil
}

func netns(s *container.State) string { return fmt.Sprintf("/proc/%d/ns/net", s.Pid) }

// create makes the container, or returns the state of the one that the task
// has already. Another's container of that name is a conflict.
func (e *Engine) create(ctx context.Context, t *api.Task, opts client.ContainerCreateOptions) (*container.State, error) {
	_, err := e.cli.ContainerCreate(ctx, opts)
	if !cerrdefs.IsConflict(err) {
		return nil, err
	}
	res, inspectErr := e.cli.ContainerInspect(ctx, opts.Name, client.ContainerInspectOptions{})
	if inspectErr != nil {
		return nil, errors.Join(err, inspectErr)
	}
	if l := res.Container.Config.Labels; !e.cfg.owns(l) || l[LabelTask] != string(t.ID) {
		return nil, fmt.Errorf("a container that is not the task's has the name %s", opts.Name)
	}
	return res.Container.State, nil
}

// Names of the files under taskDir; they are mounted into /etc.
const (
	resolvConf = "resolv.conf"
	hosts      = "hosts"
)

func (c *Config) tasksDir() string { return filepath.Join(c.RunDir, "tasks") }

func (c *Config) taskDir(id api.TaskID) string { return filepath.Join(c.tasksDir(), string(id)) }

func (c *Config) writeFiles(t *api.Task, net api.SandboxNet) error {
	dir := c.taskDir(t.ID)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	// Written in place, never renamed: the mounts of a running task hold the
	// file itself.
	for name, text := range map[string]string{resolvConf: resolvText(t, net), hosts: hostsText(t, net)} {
		path := filepath.Join(dir, name)
		if old, err := os.ReadFile(path); err == nil && string(old) == text {
			continue
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func resolvText(t *api.Task, net api.SandboxNet) string {
	var b strings.Builder
	if net.DNS.IsValid() {
		fmt.Fprintf(&b, "nameserver %s\n", net.DNS)
	}
	if search := slices.Concat(net.Search, t.Spec.Options().DNSSearch); len(search) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(search, " "))
	}
	// A service's name has no dot: ask for it as it is before any search
	// domain is tried.
	options := append([]string{"ndots:0"}, t.Spec.Options().DNSOptions...)
	fmt.Fprintf(&b, "options %s\n", strings.Join(options, " "))
	return b.String()
}

// ownNames are the names of a task's own address: with its domain first, which
// makes that the full name.
func ownNames(t *api.Task) string {
	if domain := t.Spec.Options().Domainname; domain != "" {
		return hostname(t) + "." + domain + " " + hostname(t)
	}
	return hostname(t)
}

func hostsText(t *api.Task, net api.SandboxNet) string {
	var b strings.Builder
	b.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
	if net.Addr.IsValid() {
		fmt.Fprintf(&b, "%s\t%s\n", net.Addr, ownNames(t))
	}
	for _, h := range t.Spec.Options().ExtraHosts {
		fmt.Fprintf(&b, "%s\t%s\n", h.Addr, h.Name)
	}
	return b.String()
}
