package docker

import (
	"context"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/orch-dev/orch/pkg/api"
)

func TestInfo(t *testing.T) {
	info, err := newEngine(t).Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if info.OS != "linux" || info.Arch == "" || info.Kernel == "" || info.EngineVersion == "" ||
		info.CPUs != runtime.NumCPU() || info.MemoryBytes < 1<<28 {
		t.Errorf("info: %+v", info)
	}
}

func TestNewRefusesAnEngineWithoutScope(t *testing.T) {
	for _, cfg := range []Config{
		{Node: "n", RunDir: "/run/orch"},
		{ClusterID: "c", RunDir: "/run/orch"},
		{ClusterID: "c", Node: "n", RunDir: "run"},
		{ClusterID: "c", Node: "n", RunDir: "/run/orch", Host: "nonsense"},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("no error for %+v", cfg)
		}
	}
}

func TestContainersCarryLabelsAndNames(t *testing.T) {
	e := newEngine(t, func(c *Config) { c.Lab, c.LabNode = "docker-test-lab", "n1" })
	task := newTask("serve")
	task.Spec.Labels = map[string]string{"tier": "front", LabelTask: "forged"}
	startTask(t, e, task)
	found, err := e.list(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]map[string]string{}
	for _, c := range found {
		got[c.Names[0]] = c.Labels
	}
	labels := func(role string, more ...string) map[string]string {
		l := map[string]string{
			LabelCluster: e.cfg.ClusterID, LabelNode: "node1", LabelTask: string(task.ID), LabelService: "blog_web",
			LabelStack: "blog", LabelSlot: "1", LabelRole: role, LabelLab: "docker-test-lab", LabelLabNode: "n1",
		}
		for i := 0; i < len(more); i += 2 {
			l[more[i]] = more[i+1]
		}
		return l
	}
	want := map[string]map[string]string{
		"/blog_web.1." + string(task.ID):                    labels(RoleTask, "tier", "front"),
		"/orch-blog_web.1-" + string(task.ID[:12]) + "-net": labels(RoleSandbox),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("containers (-want +got):\n%s", diff)
	}
}

func TestForeignContainersAreNotTouched(t *testing.T) {
	mine := newEngine(t)
	neighbour := newEngine(t, func(c *Config) { c.ClusterID, c.Node = mine.cfg.ClusterID, "node2" })
	theirs := newTask("serve")
	startTask(t, neighbour, theirs)
	task := newTask("serve")

	// Somebody's own container, of the very name that the task would take.
	res, err := mine.cli.ContainerCreate(t.Context(), client.ContainerCreateOptions{
		Name: taskName(task), Config: &container.Config{Image: testImage, NetworkDisabled: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := mine.remove(context.Background(), res.ID); err != nil {
			t.Error(err)
		}
	})
	if _, err := mine.CreateSandbox(t.Context(), task, api.SandboxNet{}); err != nil {
		t.Fatal(err)
	}
	err = mine.StartTask(t.Context(), task)
	if err == nil || !strings.Contains(err.Error(), "a container that is not the task's has the name "+taskName(task)) {
		t.Errorf("start: %v", err)
	}
	for _, err := range []error{
		mine.StopTask(t.Context(), theirs.ID, 0),
		mine.RemoveTask(t.Context(), theirs.ID),
		mine.RemoveTask(t.Context(), task.ID),
		mine.Purge(t.Context()),
	} {
		if err != nil {
			t.Error(err)
		}
	}
	if all, err := mine.Tasks(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("left of mine: %+v, %v", all, err)
	}
	if s, err := neighbour.Task(t.Context(), theirs.ID); err != nil || s.Phase != api.ContainerRunning || !s.SandboxRunning {
		t.Errorf("the other node's task: %+v, %v", s, err)
	}
	if _, err := mine.cli.ContainerInspect(t.Context(), res.ID, client.ContainerInspectOptions{}); err != nil {
		t.Errorf("the foreign container: %v", err)
	}
}

func TestVolumeOutlivesItsTasks(t *testing.T) {
	lab := "docker-test-" + string(newTask().ID)
	e := newEngine(t, func(c *Config) { c.Lab, c.LabNode = lab, "n1" })
	other := newEngine(t, func(c *Config) { c.Lab, c.LabNode = lab, "n2" })
	say := func(e *Engine, text string) string {
		task := newTask("append", "/data/log", text)
		task.Spec.Mounts = []api.Mount{{Type: api.MountVolume, Source: "blog_data", Target: "/data"}}
		removeVolume(t, e, "blog_data")
		startTask(t, e, task)
		out := output(t, e, task.ID)
		if err := e.RemoveTask(t.Context(), task.ID); err != nil {
			t.Fatal(err)
		}
		return out
	}
	got := []string{say(e, "one"), say(e, "two"), say(other, "elsewhere")}
	if diff := cmp.Diff([]string{"one\n", "one\ntwo\n", "elsewhere\n"}, got); diff != "" {
		t.Errorf("what the volume held (-want +got):\n%s", diff)
	}
	ours := client.Filters{}.Add("label", LabelLab+"="+lab, LabelVolume+"=blog_data", LabelStack+"=blog")
	res, err := e.cli.VolumeList(t.Context(), client.VolumeListOptions{Filters: ours})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(res.Items); n != 2 {
		t.Errorf("%d volumes of the lab, want one for each node", n)
	}
}
