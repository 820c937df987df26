package docker

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/client"

	"github.com/orch-dev/orch/pkg/api"
)

// These tests run on a real engine, with an image made here of one static
// program. Every Engine under test has a cluster id of its own.

const clusterPrefix = "docker-test-"

var testImage = fmt.Sprintf("orch-test/docker-%d:1", os.Getpid())

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cli, err := dial("")
	if err == nil {
		_, err = cli.Ping(ctx, client.PingOptions{})
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "these tests need a Docker Engine and none answers (%v): run `make engine`\n", err)
		return 1
	}
	defer cli.Close()
	if err := sweep(ctx, cli); err != nil {
		fmt.Fprintln(os.Stderr, "remove what killed runs left:", err)
		return 1
	}
	defer func() {
		_, _ = cli.ImageRemove(context.Background(), testImage, client.ImageRemoveOptions{})
	}()
	if err := loadTestImage(ctx, cli); err != nil {
		fmt.Fprintln(os.Stderr, "make the test image:", err)
		return 1
	}
	return m.Run()
}

// sweep removes the containers of runs of these tests whose process is gone.
func sweep(ctx context.Context, cli *client.Client) error {
	res, err := cli.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: client.Filters{}.Add("label", LabelCluster)})
	if err != nil {
		return err
	}
	e := &Engine{cli: cli}
	for _, c := range res.Items {
		rest, ours := strings.CutPrefix(c.Labels[LabelCluster], clusterPrefix)
		pid, _, _ := strings.Cut(rest, "-")
		n, err := strconv.Atoi(pid)
		if !ours || err != nil || syscall.Kill(n, 0) == nil {
			continue
		}
		if err := e.remove(ctx, c.ID); err != nil {
			return err
		}
	}
	return nil
}

func loadTestImage(ctx context.Context, cli *client.Client) error {
	dir, err := os.MkdirTemp("", "orch-docker-test")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	build := exec.CommandContext(ctx, "go", "build", "-o", filepath.Join(dir, "app"), "./testdata/app")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	app, err := os.ReadFile(filepath.Join(dir, "app"))
	if err != nil {
		return err
	}
	archive, err := imageArchive(testImage, runtime.GOARCH, map[string]any{
		"Entrypoint": []string{"/app"},
		"Cmd":        []string{"serve"},
		"Volumes":    map[string]any{"/anonymous": map[string]any{}},
	}, []file{{"app", 0o755, app}})
	if err != nil {
		return err
	}
	return load(ctx, cli, archive)
}

var clusters atomic.Int64

// newEngine returns an Engine with a cluster of its own, purged at the end.
func newEngine(t *testing.T, change ...func(*Config)) *Engine {
	t.Helper()
	cfg := Config{
		ClusterID: fmt.Sprintf("%s%d-%d", clusterPrefix, os.Getpid(), clusters.Add(1)),
		Node:      "node1",
		RunDir:    t.TempDir(),
	}
	for _, c := range change {
		c(&cfg)
	}
	e, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Purge(context.Background()); err != nil {
			t.Error(err)
		}
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

var tasks atomic.Int64

// newTask returns a task of the test image with an id that is unique on the
// machine.
func newTask(command ...string) *api.Task {
	return &api.Task{
		ID:          api.TaskID(fmt.Sprintf("t%dx%dx%d", tasks.Add(1), os.Getpid(), time.Now().UnixNano())),
		ServiceName: "blog_web",
		Stack:       "blog",
		Slot:        1,
		Spec:        api.TaskSpec{Image: testImage, Command: command, StopGrace: 10 * time.Second},
	}
}

// startTask makes sandbox and application and returns the sandbox's namespace.
func startTask(t *testing.T, e *Engine, task *api.Task) string {
	t.Helper()
	netns, err := e.CreateSandbox(t.Context(), task, api.SandboxNet{})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.StartTask(t.Context(), task); err != nil {
		t.Fatal(err)
	}
	return netns
}

// waitState returns the task's state once ok holds.
func waitState(t *testing.T, e *Engine, id api.TaskID, what string, ok func(api.ContainerState) bool) api.ContainerState {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		s, err := e.Task(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if ok(s) {
			return s
		}
		if time.Now().After(deadline) {
			t.Fatalf("task is not %s after 30 s: %+v", what, s)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func exited(s api.ContainerState) bool { return s.Phase == api.ContainerExited }

// output of a task that ends by itself.
func output(t *testing.T, e *Engine, id api.TaskID) string {
	t.Helper()
	waitState(t, e, id, "exited", exited)
	var out, errOut bytes.Buffer
	if err := e.Logs(t.Context(), id, api.LogOptions{}, &out, &errOut); err != nil {
		t.Fatal(err)
	}
	if errOut.Len() > 0 {
		t.Fatalf("task's stderr: %s", errOut.String())
	}
	return out.String()
}

// waitOutput until the running task has written text to stdout.
func waitOutput(t *testing.T, e *Engine, id api.TaskID, text string) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		var out bytes.Buffer
		if err := e.Logs(t.Context(), id, api.LogOptions{}, &out, nil); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(out.String(), text) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("task has not written %q after 30 s: %s", text, out.String())
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// removeVolume at the end of the test, after the tasks that use it.
func removeVolume(t *testing.T, e *Engine, name string) {
	t.Helper()
	t.Cleanup(func() {
		err := e.Purge(context.Background())
		if err == nil {
			_, err = e.cli.VolumeRemove(context.Background(), e.cfg.volumeName(name), client.VolumeRemoveOptions{})
		}
		if err != nil && !cerrdefs.IsNotFound(err) {
			t.Error(err)
		}
	})
}
