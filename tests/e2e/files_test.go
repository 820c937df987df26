package e2e

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/client"
	"golang.org/x/sys/unix"

	"github.com/orch-dev/orch/pkg/api"
)

const (
	keeping = "files" // the stack
	keeper  = "files_keeper"
)

// testFiles follows secrets and configs from the command line into tasks and out
// again, and looks for them everywhere else.
func testFiles(t *testing.T, c *cluster) {
	planted := []string{"planted-" + rand(t), "planted-" + rand(t), "planted-" + rand(t)}
	first, second, shared := planted[0], planted[1], planted[2]
	path := filepath.Join(t.TempDir(), "shared.key")
	if err := os.WriteFile(path, []byte(shared), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("FILES_PORT", "80")
	t.Setenv("FILES_PASSWORD", first)
	t.Setenv("PROBE_IMAGE", probeImage("v1"))
	if out, err := c.Orch(t.Context(), "n1", "deploy", "-c", composeFile(keeping), keeping); err == nil {
		t.Fatalf("deployed without the secret that is external:\n%s", out)
	} else {
		says(t, err.Error(), []string{"secret shared.key", "orch secret create shared.key"})
	}
	c.run(t, "n2", "secret", "create", "shared.key", path)
	c.deploy(t, keeping, "v1")

	tasks := c.mustServe(t, keeper)
	sees(t, c, tasks, first, shared, "listen 80")
	if before, out := containerIDs(tasks), c.deploy(t, keeping, "v1"); !strings.Contains(out, "unchanged") {
		t.Errorf("the same content again: %s", out)
	} else if diff := cmp.Diff(before, containerIDs(c.mustServe(t, keeper))); diff != "" {
		t.Errorf("the same content again (-before +after):\n%s", diff)
	}
	nowhereElse(t, c, planted)

	// Other content rolls the service, and only what is needed is kept.
	t.Setenv("FILES_PASSWORD", second)
	c.deploy(t, keeping, "v1")
	sees(t, c, c.mustServe(t, keeper), second, shared, "listen 80")
	c.run(t, "n1", "service", "rollback", keeper)
	await(t, patience, "the content of before is back", func() error { return hold(t, c, first) })

	_, err := c.Orch(t.Context(), "n1", "secret", "rm", "shared.key")
	if err == nil {
		t.Error("a secret in use was removed")
	} else {
		says(t, err.Error(), []string{"in use by " + keeper})
	}
	// A daemon that was killed leaves them with the tasks, which go on.
	if err := c.KillDaemon(t.Context(), "n2"); err != nil {
		t.Fatal(err)
	}
	if err := c.Start(t.Context(), "n2"); err != nil {
		t.Fatal(err)
	}
	c.settle(t)
	sees(t, c, c.mustServe(t, keeper), first, shared, "listen 80")
	nowhereElse(t, c, planted)

	c.run(t, "n1", "stack", "rm", keeping)
	await(t, patience, "nothing of them is left", func() error { return gone(t, c) })
	c.run(t, "n1", "secret", "rm", "shared.key")
}

func rand(t *testing.T) string {
	t.Helper()
	var b [8]byte
	if _, err := unix.Getrandom(b[:], 0); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(b[:])
}

// inside is a path in a task's container, as this machine sees it.
func inside(t *testing.T, c *cluster, task api.TaskEntry, path string) string {
	t.Helper()
	res, err := c.engine.ContainerInspect(t.Context(), task.Status.ContainerID, client.ContainerInspectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("/proc/%d/root%s", res.Container.State.Pid, path)
}

// sees checks what tasks find of their files.
func sees(t *testing.T, c *cluster, tasks []api.TaskEntry, password, shared, site string) {
	t.Helper()
	if got := nodesOf(tasks); slices.Contains(got, "n3") {
		t.Errorf("tasks are on %v", got)
	}
	for _, task := range tasks {
		for path, want := range map[string]string{"/run/secrets/password": password, "/etc/shared.key": shared, "/etc/site.conf": site} {
			got, err := os.ReadFile(inside(t, c, task, path))
			if err != nil || string(got) != want {
				t.Errorf("%s finds %q in %s: %v", task.Name(), got, path, err)
			}
		}
		var stat unix.Stat_t
		path := inside(t, c, task, "/run/secrets/password")
		if err := unix.Stat(path, &stat); err != nil || stat.Uid != 70 || stat.Gid != 71 || stat.Mode&0o7777 != 0o440 {
			t.Errorf("the secret is %d:%d's with the mode %o: %v", stat.Uid, stat.Gid, stat.Mode&0o7777, err)
		}
		if err := unix.Access(path, unix.W_OK); !errors.Is(err, unix.EROFS) {
			t.Errorf("the secret can be written: %v", err)
		}
	}
}

// hold checks that all tasks that serve have the secret.
func hold(t *testing.T, c *cluster, password string) error {
	tasks, err := c.serving(t.Context(), "n1", keeper)
	if err != nil || len(tasks) != 2 {
		return fmt.Errorf("%d tasks serve: %w", len(tasks), err)
	}
	for _, task := range tasks {
		if got, err := os.ReadFile(inside(t, c, task, "/run/secrets/password")); string(got) != password {
			return fmt.Errorf("%s has another: %w", task.Name(), err)
		}
	}
	return nil
}

// nowhereElse looks for secrets in all that orch and the engine keep and say, but
// for the memory of nodes with a task.
func nowhereElse(t *testing.T, c *cluster, secrets []string) {
	t.Helper()
	look := func(where string, data []byte) {
		if len(data) == 0 {
			t.Errorf("%s is empty", where)
		}
		for _, secret := range secrets {
			for _, form := range []string{secret, base64.StdEncoding.EncodeToString([]byte(secret)), hex.EncodeToString([]byte(secret))} {
				if bytes.Contains(data, []byte(form)) {
					t.Errorf("a secret is in %s", where)
				}
			}
		}
	}
	for _, n := range c.Nodes() {
		for _, dir := range []string{n.StateDir, n.RunDir} {
			onDisk(t, dir, look)
		}
		log, err := os.ReadFile(n.Log())
		if err != nil {
			t.Fatal(err)
		}
		look("the log of "+n.Name, log)
		look("what /metrics of "+n.Name+" says", metricsText(t, c, n.Name))
		for _, args := range [][]string{
			{"info", "--format", "json"}, {"service", "ls", "--format", "json"}, {"stack", "ps", keeping, "--format", "json"},
			{"service", "ps", keeper, "--format", "json"}, {"secret", "ls", "--format", "json"}, {"secret", "inspect", "files_password"},
			{"config", "inspect", "files_site"}, {"why", keeper}, {"net", "ls"},
		} {
			look("orch "+strings.Join(args, " "), []byte(c.run(t, n.Name, args...)))
		}
	}
	containers, err := c.engine.containers(t.Context(), c.Options().Name, true)
	if err != nil {
		t.Fatal(err)
	}
	for _, found := range containers {
		res, err := c.engine.ContainerInspect(t.Context(), found.ID, client.ContainerInspectOptions{})
		if err != nil {
			continue // removed since
		}
		said, err := json.Marshal(res)
		if err != nil {
			t.Fatal(err)
		}
		look("what the engine says of "+found.Names[0], said)
	}
}

// onDisk shows look every file below dir that is not in memory.
func onDisk(t *testing.T, dir string, look func(string, []byte)) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if d.IsDir() {
			var stat unix.Statfs_t
			if unix.Statfs(path, &stat) == nil && stat.Type == unix.TMPFS_MAGIC && path != dir {
				return fs.SkipDir
			}
		}
		if !d.Type().IsRegular() {
			return nil
		}
		data, err := os.ReadFile(path)
		if err == nil && len(data) > 0 {
			look(path, data)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func metricsText(t *testing.T, c *cluster, node string) []byte {
	t.Helper()
	res, err := c.HTTP(node).Get("http://" + c.addr(node, api.MetricsPort) + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("%s: %v", res.Status, err)
	}
	return data
}

// gone reports what is left of the stack's secrets and configs.
func gone(t *testing.T, c *cluster) error {
	for _, n := range c.Nodes() {
		left, err := filepath.Glob(filepath.Join(n.RunDir, "tasks", "*", "files"))
		if err != nil || len(left) > 0 {
			return fmt.Errorf("%v: %w", left, err)
		}
	}
	for _, class := range []string{"secret", "config"} {
		files, err := list[api.FileEntry](t.Context(), c, "n1", class, "ls")
		if err != nil {
			return err
		}
		for _, f := range files {
			if f.Stack == keeping {
				return fmt.Errorf("%s %s is still there", f.Class, f.Name)
			}
		}
	}
	return nil
}
