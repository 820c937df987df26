package docker

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/client"

	"github.com/orch-dev/orch/pkg/api"
)

func TestTaskSeesItsSpec(t *testing.T) {
	e := newEngine(t)
	task := newTask("report", "now")
	task.Spec.Env = []string{"GREETING=hello"}
	task.Spec.User = "1000"
	task.Spec.WorkingDir = "/proc"
	task.Spec.Hostname = "web-one"
	task.Spec.ReadOnly = true
	task.Spec.Init = true
	task.Spec.CapDrop = []string{"ALL"}
	task.Spec.CapAdd = []string{"NET_BIND_SERVICE"}
	task.Spec.Mounts = []api.Mount{{Type: api.MountTmpfs, Target: "/scratch"}}
	task.Spec.Limits = api.Resources{NanoCPUs: 500e6, MemoryBytes: 64 << 20, Pids: 50}

	netns, err := e.CreateSandbox(t.Context(), task, api.SandboxNet{
		DNS:    netip.MustParseAddr("10.128.0.1"),
		Search: []string{"blog.orch"},
		Addr:   netip.MustParseAddr("10.128.3.4"),
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(netns); err != nil {
		t.Errorf("network namespace: %v", err)
	}
	if err := e.StartTask(t.Context(), task); err != nil {
		t.Fatal(err)
	}
	var got map[string]string
	if err := json.Unmarshal([]byte(output(t, e, task.ID)), &got); err != nil {
		t.Fatal(err)
	}
	if cpu := got["cpu"]; cpu == "50000 100000" { // as version 2 of cgroups says it
		got["cpu"] = "50000"
	}
	want := map[string]string{
		"args": "report now", "uid": "1000", "ppid": "1", "env": "hello", "cwd": "/proc",
		"hostname": "web-one", "/etc/hostname": "web-one",
		"/etc/hosts":       "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n10.128.3.4\tweb-one",
		"/etc/resolv.conf": "nameserver 10.128.0.1\nsearch blog.orch\noptions ndots:0",
		"interfaces":       "lo ",
		"rootfs":           "open /written: read-only file system",
		"tmpfs":            "<nil>",
		"caps":             "0000000000000400",
		"memory":           "67108864", "cpu": "50000", "pids": "50",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("what the task sees (-want +got):\n%s", diff)
	}
}

func TestTaskIsAdoptedByANewEngine(t *testing.T) {
	first := newEngine(t)
	task := newTask("serve")
	netns := startTask(t, first, task)
	before := waitState(t, first, task.ID, "running", func(s api.ContainerState) bool { return s.Phase == api.ContainerRunning })

	second, err := New(first.cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if got := startTask(t, second, task); got != netns {
		t.Errorf("network namespace %s, was %s", got, netns)
	}
	all, err := second.Tasks(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[api.TaskID]api.ContainerState{task.ID: before}, all); diff != "" {
		t.Errorf("state changed by adoption (-before +after):\n%s", diff)
	}
	if !before.SandboxRunning || before.NetNS != netns || before.StartedAt.IsZero() || !before.FinishedAt.IsZero() {
		t.Errorf("state of a running task: %+v", before)
	}
}

func TestTaskRunsOnce(t *testing.T) {
	e := newEngine(t)
	task := newTask("exit", "7")
	startTask(t, e, task)
	before := waitState(t, e, task.ID, "exited", exited)
	if before.ExitCode != 7 || before.OOMKilled || before.FinishedAt.IsZero() || !before.SandboxRunning {
		t.Errorf("state: %+v", before)
	}
	if err := e.StartTask(t.Context(), task); err != nil {
		t.Fatal(err)
	}
	after, err := e.Task(t.Context(), task.ID)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("started again (-before +after):\n%s", diff)
	}
}

func TestOutOfMemory(t *testing.T) {
	e := newEngine(t)
	task := newTask("eat")
	task.Spec.Limits.MemoryBytes = 16 << 20
	startTask(t, e, task)
	s := waitState(t, e, task.ID, "exited", exited)
	if !s.OOMKilled || s.ExitCode != 137 {
		t.Errorf("state: %+v", s)
	}
}

func TestHealth(t *testing.T) {
	e := newEngine(t)
	dir := t.TempDir()
	probe := func(test ...string) *api.Task {
		task := newTask("serve")
		task.Spec.Mounts = []api.Mount{{Type: api.MountBind, Source: dir, Target: "/flags", ReadOnly: true}}
		task.Spec.Health = &api.Healthcheck{Test: test, Interval: 100 * time.Millisecond, Timeout: 5 * time.Second, Retries: 2}
		startTask(t, e, task)
		return task
	}
	has := func(h api.ContainerHealth) func(api.ContainerState) bool {
		return func(s api.ContainerState) bool { return s.Health == h }
	}
	none := probe("NONE")
	late := probe("CMD", "/app", "exists", "/flags/up")

	s := waitState(t, e, late.ID, "unhealthy", has(api.HealthUnhealthy))
	if s.HealthOutput != "not there yet" || s.Phase != api.ContainerRunning {
		t.Errorf("state of an unhealthy task: %+v", s)
	}
	if err := os.WriteFile(filepath.Join(dir, "up"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	s = waitState(t, e, late.ID, "healthy", has(api.HealthHealthy))
	if s.HealthOutput != "there" {
		t.Errorf("state of a healthy task: %+v", s)
	}
	s, err := e.Task(t.Context(), none.ID)
	if err != nil || s.Health != api.HealthNone {
		t.Errorf("state of a task without a probe: %+v, %v", s, err)
	}
}

func TestStop(t *testing.T) {
	for name, tc := range map[string]struct {
		command string
		signal  string
		grace   time.Duration
		code    int
		says    string
		atLeast time.Duration
	}{
		"ends in its grace":        {command: "serve", grace: 20 * time.Second, code: 0, says: "got terminated"},
		"with a signal of its own": {command: "serve", signal: "SIGINT", grace: 20 * time.Second, code: 0, says: "got interrupt"},
		"killed after its grace":   {command: "stubborn", grace: time.Second, code: 137, says: "ready", atLeast: time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEngine(t)
			task := newTask(tc.command)
			task.Spec.StopSignal = tc.signal
			startTask(t, e, task)
			waitOutput(t, e, task.ID, "ready")
			start := time.Now()
			if err := e.StopTask(t.Context(), task.ID, tc.grace); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(start); took < tc.atLeast || took > tc.atLeast+10*time.Second {
				t.Errorf("stopping took %s", took)
			}
			waitOutput(t, e, task.ID, tc.says)
			s, err := e.Task(t.Context(), task.ID)
			if err != nil {
				t.Fatal(err)
			}
			if s.Phase != api.ContainerExited || s.ExitCode != tc.code || !s.SandboxRunning {
				t.Errorf("state: %+v", s)
			}
			if err := e.StopTask(t.Context(), task.ID, tc.grace); err != nil {
				t.Errorf("stop again: %v", err)
			}
		})
	}
}

func TestRemove(t *testing.T) {
	e := newEngine(t)
	task := newTask("serve")
	task.Spec.Mounts = []api.Mount{{Type: api.MountVolume, Source: "docker-test-" + string(task.ID), Target: "/data"}}
	removeVolume(t, e, task.Spec.Mounts[0].Source)
	startTask(t, e, task)
	s, err := e.Task(t.Context(), task.ID)
	if err != nil {
		t.Fatal(err)
	}
	c, err := e.cli.ContainerInspect(t.Context(), s.ContainerID, client.ContainerInspectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	volumes := map[string]string{}
	for _, m := range c.Container.Mounts {
		volumes[m.Destination] = m.Name
	}
	// Twice at once, and once more.
	errs := make(chan error)
	for range 2 {
		go func() { errs <- e.RemoveTask(t.Context(), task.ID) }()
	}
	if err := errors.Join(<-errs, <-errs, e.RemoveTask(t.Context(), task.ID)); err != nil {
		t.Fatal(err)
	}
	all, err := e.Tasks(t.Context())
	if err != nil || len(all) != 0 {
		t.Errorf("left: %+v, %v", all, err)
	}
	if _, err := os.Stat(e.cfg.taskDir(task.ID)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the task's files: %v", err)
	}
	if _, err := e.cli.VolumeInspect(t.Context(), volumes["/anonymous"], client.VolumeInspectOptions{}); !cerrdefs.IsNotFound(err) {
		t.Errorf("anonymous volume: %v", err)
	}
	if _, err := e.cli.VolumeInspect(t.Context(), volumes["/data"], client.VolumeInspectOptions{}); err != nil {
		t.Errorf("named volume: %v", err)
	}
	if err := e.StopTask(t.Context(), task.ID, time.Second); err != nil {
		t.Errorf("stop of a removed task: %v", err)
	}
}

func TestLostSandbox(t *testing.T) {
	e := newEngine(t)
	task := newTask("serve")
	startTask(t, e, task)
	if _, err := e.cli.ContainerKill(t.Context(), sandboxName(task), client.ContainerKillOptions{Signal: "KILL"}); err != nil {
		t.Fatal(err)
	}
	s := waitState(t, e, task.ID, "without sandbox", func(s api.ContainerState) bool { return !s.SandboxRunning })
	if s.NetNS != "" || s.Phase != api.ContainerRunning {
		t.Errorf("state: %+v", s)
	}
	_, err := e.CreateSandbox(t.Context(), task, api.SandboxNet{})
	if err == nil || err.Error() != "create sandbox of blog_web.1: it has ended" {
		t.Errorf("sandbox made anew: %v", err)
	}
}

func TestStartWithoutSandbox(t *testing.T) {
	e := newEngine(t)
	never, ended := newTask("serve"), newTask("serve")
	for _, task := range []*api.Task{never, ended} {
		if _, err := e.CreateSandbox(t.Context(), task, api.SandboxNet{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.remove(t.Context(), sandboxName(never)); err != nil {
		t.Fatal(err)
	}
	if _, err := e.cli.ContainerKill(t.Context(), sandboxName(ended), client.ContainerKillOptions{Signal: "KILL"}); err != nil {
		t.Fatal(err)
	}
	waitState(t, e, ended.ID, "without sandbox", func(s api.ContainerState) bool { return !s.SandboxRunning })
	for _, task := range []*api.Task{never, ended} {
		err := e.StartTask(t.Context(), task)
		if err == nil || err.Error() != "start blog_web.1: its sandbox does not run" {
			t.Errorf("start: %v", err)
		}
	}
}

func TestCgroupParent(t *testing.T) {
	parent := fmt.Sprintf("/orch-docker-test-%d", os.Getpid())
	e := newEngine(t)
	info, err := e.cli.Info(t.Context(), client.InfoOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if info.Info.CgroupDriver == "systemd" {
		parent = fmt.Sprintf("orchdockertest%d.slice", os.Getpid())
	}
	t.Cleanup(func() { // the engine leaves the empty parents
		for _, pattern := range []string{"/sys/fs/cgroup/", "/sys/fs/cgroup/*/"} {
			dirs, _ := filepath.Glob(pattern + filepath.Base(parent))
			for _, d := range dirs {
				_ = os.Remove(d)
			}
		}
	})
	e = newEngine(t, func(c *Config) { c.CgroupParent = parent })
	task := newTask("serve")
	startTask(t, e, task)
	for _, name := range []string{sandboxName(task), taskName(task)} {
		c, err := e.cli.ContainerInspect(t.Context(), name, client.ContainerInspectOptions{})
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", c.Container.State.Pid))
		if err != nil || !strings.Contains(string(b), "/"+filepath.Base(parent)+"/") {
			t.Errorf("cgroups of %s: %v\n%s", name, err, b)
		}
	}
}

func TestErrorsReadWell(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*api.TaskSpec)
		want   string
	}{
		"no such command": {
			func(s *api.TaskSpec) { s.Entrypoint = []string{"nosuch"} },
			`start blog_web.1: exec: "nosuch": executable file not found in $PATH`,
		},
		"no such file": {
			func(s *api.TaskSpec) { s.Entrypoint = []string{"/no/such"} },
			`start blog_web.1: exec: "/no/such": stat /no/such: no such file or directory`,
		},
		"no such image": {
			func(s *api.TaskSpec) { s.Image = "orch-test/none:1" },
			`start blog_web.1: no such image: orch-test/none:1`,
		},
		"no such user": {
			func(s *api.TaskSpec) { s.User = "nobody-here" },
			`start blog_web.1: unable to find user nobody-here: no matching entries in passwd file`,
		},
		"no such path": {
			func(s *api.TaskSpec) {
				s.Mounts = []api.Mount{{Type: api.MountBind, Source: "/no/such/path", Target: "/data"}}
			},
			`start blog_web.1: bind mount: no such file or directory on this node: /no/such/path`,
		},
		"no such signal": {
			func(s *api.TaskSpec) { s.StopSignal = "SIGNOSUCH" },
			`start blog_web.1: Invalid signal: SIGNOSUCH`,
		},
		"too little memory": {
			func(s *api.TaskSpec) { s.Limits.MemoryBytes = 1 << 20 },
			`start blog_web.1: Minimum memory limit allowed is 6MB`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEngine(t)
			task := newTask("serve")
			tc.change(&task.Spec)
			if _, err := e.CreateSandbox(t.Context(), task, api.SandboxNet{}); err != nil {
				t.Fatal(err)
			}
			err := e.StartTask(t.Context(), task)
			if err == nil {
				t.Fatal("started")
			}
			if diff := cmp.Diff(tc.want, err.Error()); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
			if errors.Is(err, api.ErrRuntimeUnavailable) {
				t.Error("the engine is said to be unavailable")
			}
			again := e.StartTask(t.Context(), task)
			if again == nil || again.Error() != err.Error() {
				t.Errorf("the second attempt says %v", again)
			}
			s, err := e.Task(t.Context(), task.ID)
			if err != nil {
				t.Fatal(err)
			}
			if s.Phase == api.ContainerRunning || s.Phase == api.ContainerExited {
				t.Errorf("state: %+v", s)
			}
		})
	}
}
