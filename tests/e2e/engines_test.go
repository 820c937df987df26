package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/client"

	"github.com/orch-dev/orch/pkg/lab"
)

// From source to a cluster in one command: an image that the engine beside the
// command line builds is copied to a node with an engine of its own, and with no
// registry anywhere.
func TestTwoEngines(t *testing.T) {
	t.Parallel() // with TestExpired, which waits most of the time
	second, socket := startEngine(t)
	c := newCluster(t, lab.Options{Nodes: 2, Managers: 1, Datapath: lab.DatapathTC, Engines: map[string]string{"n2": socket}})
	dir := sourceTree(t)

	deploy := func(greeting string) string {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, "greeting"), []byte(greeting), 0o600); err != nil {
			t.Fatal(err)
		}
		return c.run(t, "n1", "deploy", "-c", filepath.Join(dir, "compose.yaml"), "built")
	}
	built := "built-" + strconv.Itoa(os.Getpid())
	t.Cleanup(func() { removeImage(t, docker, built) })
	first := ""
	for _, greeting := range []string{"one", "two"} {
		says(t, deploy(greeting), []string{"built_web"})
		tasks := c.mustServe(t, "built_web")
		if on := nodesOf(tasks); len(on) != 2 {
			t.Fatalf("the tasks are on %v", on)
		}
		here, err := docker.ImageInspect(t.Context(), built+":latest")
		if err != nil {
			t.Fatal(err)
		}
		if here.ID == first {
			t.Error("the changed source made no other image")
		}
		first = here.ID
		there, err := second.ImageInspect(t.Context(), here.ID)
		if err != nil || there.ID != here.ID {
			t.Errorf("the second engine has not the image that was built: %v", err)
		}
		for _, task := range tasks {
			engine := docker
			if task.NodeName == "n2" {
				engine = second
			}
			made, err := engine.ContainerInspect(t.Context(), task.Status.ContainerID, client.ContainerInspectOptions{})
			if err != nil {
				t.Errorf("%s is not in its node's engine: %v", task.Name(), err)
			} else if made.Container.Image != here.ID {
				t.Errorf("%s runs the image %s, want %s", task.Name(), made.Container.Image, here.ID)
			}
		}
		for _, node := range c.names() {
			if _, err := c.outside().tally(func() (identity, error) { return c.outside().whoami(c.addr(node, 8085)) }, 20); err != nil {
				t.Errorf("through %s: %v", node, err)
			}
		}
	}
	c.run(t, "n1", "stack", "rm", "built")
}

// sourceTree is a compose file with a service that is built from what is beside it.
func sourceTree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	program := filepath.Join(workDir(strconv.Itoa(os.Getpid())), "probe")
	if err := os.Link(program, filepath.Join(dir, "probe")); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"Dockerfile": "FROM scratch\nCOPY probe /probe\nCOPY greeting /greeting\nENTRYPOINT [\"/probe\"]\n",
		"compose.yaml": fmt.Sprintf(`services:
  web:
    build: .
    image: built-%d
    ports: ["8085:8080"]
    stop_grace_period: 1s
    deploy: {replicas: 2, placement: {max_replicas_per_node: 1}, update_config: {parallelism: 0}}
`, os.Getpid()),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// startEngine starts one more Docker Engine, that ends with the test, and returns
// its socket, too.
func startEngine(t *testing.T) (*engine, string) {
	t.Helper()
	dir, err := os.MkdirTemp("/run", fmt.Sprintf("orch-e2e-engine-%d-", os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove the second engine's files: %v", err)
		}
	})
	socket := "unix://" + filepath.Join(dir, "docker.sock")
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	program, err := exec.LookPath("dockerd")
	if err != nil {
		program = "/usr/sbin/dockerd" // which not everybody's PATH has
	}
	cmd := exec.Command(program, "--host", socket, "--pidfile", filepath.Join(dir, "pid"),
		"--data-root", t.TempDir(), "--exec-root", filepath.Join(dir, "exec"),
		"--bridge", "none", "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--config-file", filepath.Join(dir, "none.json"))
	if err := os.WriteFile(filepath.Join(dir, "none.json"), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			text, _ := os.ReadFile(log.Name())
			t.Logf("the second engine's log:\n%s", text[max(0, len(text)-4000):])
		}
		_ = cmd.Process.Signal(syscall.SIGTERM)
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		select {
		case <-ended:
		case <-time.After(patience):
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			t.Errorf("the second engine did not end: %v", <-ended)
		}
	})
	cli, err := client.New(client.WithHost(socket))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cli.Close() })
	await(t, patience, "the second engine answers", func() error {
		_, err := cli.Ping(t.Context(), client.PingOptions{})
		return err
	})
	return &engine{cli}, socket
}

func removeImage(t *testing.T, e *engine, name string) {
	t.Helper()
	list, err := e.ImageList(context.Background(), client.ImageListOptions{Filters: make(client.Filters).Add("reference", name)})
	if err != nil {
		t.Error(err)
		return
	}
	for _, image := range list.Items {
		if _, err := e.ImageRemove(context.Background(), image.ID, client.ImageRemoveOptions{Force: true}); err != nil {
			t.Errorf("remove image %s: %v", name, err)
		}
	}
}
