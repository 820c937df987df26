package e2e

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
)

// engine is the machine's Docker Engine.
type engine struct{ *client.Client }

func openEngine(ctx context.Context) (*engine, error) {
	docker, err := client.New(client.FromEnv)
	if err != nil {
		return nil, err
	}
	if _, err := docker.Ping(ctx, client.PingOptions{}); err != nil {
		return nil, err
	}
	return &engine{docker}, nil
}

// Containers of a lab: those of tasks, and the sandboxes they are in.
const (
	labelLab     = "orch.lab"
	labelNode    = "orch.lab-node"
	labelRole    = "orch.role"
	labelService = "orch.service"
	labelSlot    = "orch.slot"
	labelTask    = "orch.task"
	roleTask     = "task"
)

// containers returns those of a lab that have all of the labels (KEY=VALUE);
// also those that do not run with all.
func (e *engine) containers(ctx context.Context, lab string, all bool, labels ...string) ([]container.Summary, error) {
	filters := make(client.Filters).Add("label", labelLab+"="+lab).Add("label", labels...)
	list, err := e.ContainerList(ctx, client.ContainerListOptions{All: all, Filters: filters})
	if err != nil {
		return nil, fmt.Errorf("list containers of lab %s: %w", lab, err)
	}
	return list.Items, nil
}

// netns is the path of a running container's network namespace.
func (e *engine) netns(ctx context.Context, id string) (string, error) {
	res, err := e.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	if err != nil {
		return "", err
	}
	if !res.Container.State.Running {
		return "", fmt.Errorf("container %.12s does not run", id)
	}
	return fmt.Sprintf("/proc/%d/ns/net", res.Container.State.Pid), nil
}

// probeRepository is the name of the probe's images; their tags have the number
// of the process that made them.
const probeRepository = "orch-e2e-probe"

func probeImage(version string) string {
	return fmt.Sprintf("%s:%s-%d", probeRepository, version, os.Getpid())
}

// importProbe makes an image of the static program at path.
func (e *engine) importProbe(ctx context.Context, path, version string) error {
	program, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	if err := w.WriteHeader(&tar.Header{Name: "probe", Mode: 0o755, Size: int64(len(program))}); err != nil {
		return err
	}
	if _, err := w.Write(program); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	res, err := e.ImageImport(ctx, client.ImageImportSource{Source: &layer, SourceName: "-"}, probeImage(version),
		client.ImageImportOptions{Changes: []string{`ENTRYPOINT ["/probe"]`, "ENV VERSION=" + version}})
	if err != nil {
		return fmt.Errorf("import image %s: %w", probeImage(version), err)
	}
	defer res.Close()
	_, err = io.Copy(io.Discard, res)
	return err
}

// labelRun marks containers that belong to no lab with the number of the process
// that made them.
const labelRun = "orch-e2e"

// runControl starts the probe with a network of its own that leads nowhere.
func (e *engine) runControl(ctx context.Context) (id string, err error) {
	made, err := e.ContainerCreate(ctx, client.ContainerCreateOptions{
		Config:     &container.Config{Image: probeImage("v1"), Labels: map[string]string{labelRun: strconv.Itoa(os.Getpid())}},
		HostConfig: &container.HostConfig{NetworkMode: "none"},
	})
	if err != nil {
		return "", fmt.Errorf("create the control: %w", err)
	}
	if _, err := e.ContainerStart(ctx, made.ID, client.ContainerStartOptions{}); err != nil {
		return made.ID, fmt.Errorf("start the control: %w", err)
	}
	return made.ID, nil
}

func (e *engine) remove(ctx context.Context, id string) error {
	_, err := e.ContainerRemove(ctx, id, client.ContainerRemoveOptions{Force: true})
	return err
}

// sweep removes the containers and images of this process, and of those that are
// gone.
func (e *engine) sweep(ctx context.Context) error {
	found, err := e.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: make(client.Filters).Add("label", labelRun)})
	if err != nil {
		return err
	}
	for _, c := range found.Items {
		if !over(c.Labels[labelRun]) {
			continue
		}
		if err := e.remove(ctx, c.ID); err != nil {
			return fmt.Errorf("remove container %.12s: %w", c.ID, err)
		}
	}
	return e.sweepImages(ctx)
}

// lastWord is what follows the last hyphen: in names, the number of a process.
func lastWord(name string) string { return name[strings.LastIndex(name, "-")+1:] }

// over reports whether a process is this one or is gone.
func over(pid string) bool {
	n, err := strconv.Atoi(pid)
	return err == nil && (n == os.Getpid() || syscall.Kill(n, 0) != nil)
}

func (e *engine) sweepImages(ctx context.Context) error {
	list, err := e.ImageList(ctx, client.ImageListOptions{Filters: make(client.Filters).Add("reference", probeRepository)})
	if err != nil {
		return err
	}
	for _, image := range list.Items {
		for _, tag := range image.RepoTags {
			if !over(lastWord(tag)) {
				continue
			}
			if _, err := e.ImageRemove(ctx, tag, client.ImageRemoveOptions{Force: true}); err != nil {
				return fmt.Errorf("remove image %s: %w", tag, err)
			}
		}
	}
	return nil
}

// build makes a static program of a package of this module.
func build(ctx context.Context, pkg, output string, flags ...string) error {
	cmd := exec.CommandContext(ctx, "go", slices.Concat([]string{"build", "-o", output}, flags, []string{pkg})...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", pkg, err, text)
	}
	return nil
}

// buildExample makes the images of examples/blog.
func buildExample(ctx context.Context) error {
	script := filepath.Join(exampleDir, "images.sh")
	if text, err := exec.CommandContext(ctx, script).CombinedOutput(); err != nil {
		return fmt.Errorf("run %s: %w\n%s", script, err, text)
	}
	return nil
}

const exampleDir = "../../examples/blog"
