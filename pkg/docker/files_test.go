package docker

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/client"
	"golang.org/x/sys/unix"

	"github.com/orch-dev/orch/pkg/api"
)

const planted = "planted-5b1e"

func taskWithFiles(command ...string) (*api.Task, [][]byte) {
	task := newTask(command...)
	task.Spec.ReadOnly = true
	task.Spec.Files = []api.FileRef{
		{Class: api.ClassSecret, Name: "blog_password", Target: "/run/secrets/password", UID: 70, GID: 71, Mode: 0o440},
		{Class: api.ClassConfig, Name: "blog_site", Target: "/etc/site.conf", Mode: 0o444},
	}
	return task, [][]byte{[]byte(planted), []byte("listen 80")}
}

// What a task sees of its secrets and configs.
func TestFilesInTheTask(t *testing.T) {
	e := newEngine(t)
	task, contents := taskWithFiles("read", "/run/secrets/password", "/etc/site.conf")
	if err := e.PlaceFiles(task, contents); err != nil {
		t.Fatal(err)
	}
	startTask(t, e, task)
	want := `/run/secrets/password "planted-5b1e" 70:71 440, open /run/secrets/password: read-only file system
/etc/site.conf "listen 80" 0:0 444, open /etc/site.conf: read-only file system
`
	if diff := cmp.Diff(want, output(t, e, task.ID)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// On the node they are in memory only, are taken away while the task's container
// is still there, and are neither in what the engine says nor in what it keeps.
func TestFilesOnTheNode(t *testing.T) {
	e := newEngine(t)
	task, contents := taskWithFiles("serve")
	for range 2 { // an attempt that was interrupted, and the next
		if err := e.PlaceFiles(task, contents); err != nil {
			t.Fatal(err)
		}
	}
	startTask(t, e, task)
	waitOutput(t, e, task.ID, "ready")

	var fs unix.Statfs_t
	path := e.cfg.filePath(task.ID, 0)
	if err := unix.Statfs(path, &fs); err != nil || fs.Type != unix.TMPFS_MAGIC {
		t.Errorf("the secret is on a file system of type %x: %v", fs.Type, err)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != planted {
		t.Errorf("the secret is %q: %v", got, err)
	}
	res, err := e.cli.ContainerInspect(t.Context(), taskName(task), client.ContainerInspectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if said, err := json.Marshal(res); err != nil || strings.Contains(string(said), planted) {
		t.Errorf("the engine tells the secret: %v", err)
	}

	if err := e.RemoveFiles(task.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Dir(path)); !os.IsNotExist(err) {
		t.Errorf("the files are still there: %v", err)
	}
	if err := e.RemoveFiles(task.ID); err != nil {
		t.Errorf("removed twice: %v", err)
	}
}

// A daemon that was killed between two steps finds what it left.
func TestFilesLeftBehind(t *testing.T) {
	e := newEngine(t)
	task, contents := taskWithFiles("serve")
	if err := e.PlaceFiles(task, contents); err != nil {
		t.Fatal(err)
	}
	found, err := e.Tasks(t.Context())
	if diff := cmp.Diff(map[api.TaskID]api.ContainerState{task.ID: {}}, found); diff != "" || err != nil {
		t.Errorf("what the node has: %v (-want +got):\n%s", err, diff)
	}
	if err := e.RemoveTask(t.Context(), task.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(e.cfg.taskDir(task.ID)); !os.IsNotExist(err) {
		t.Errorf("the task's directory is still there: %v", err)
	}
}
