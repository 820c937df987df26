package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/lab"
)

const sched = "sched"

// TestScheduling is about where tasks run and whether they do: jobs, a node that
// goes and comes back, one that is new, one that takes no more, services that are
// removed, and tasks that fail.
func TestScheduling(t *testing.T) {
	c := newCluster(t, lab.Options{Datapath: lab.DatapathTC})
	t.Run("job", func(t *testing.T) { testJob(t, c) })
	t.Run("rebalance", func(t *testing.T) { testRebalance(t, c) })
	t.Run("new node", func(t *testing.T) { testNewNode(t, c) })
	t.Run("paused node", func(t *testing.T) { testPausedNode(t, c) })
	c.run(t, "n1", "stack", "rm", sched)
	t.Run("prune", func(t *testing.T) { testPrune(t, c) })
	t.Run("healing", func(t *testing.T) { testHealing(t, c) })
}

// testJob checks that a deploy waits for a job's completions, in which no more
// tasks run at the same time than may, and that none of it is done again.
func testJob(t *testing.T, c *cluster) {
	said := c.deploy(t, sched, "v1")
	says(t, said, []string{"4 of 4 completed"})
	finished := func() []string {
		tasks, err := list[api.TaskEntry](t.Context(), c, "n1", "service", "ps", "sched_job")
		if err != nil {
			t.Fatal(err)
		}
		var ids []string
		for _, task := range tasks {
			if task.Status.State != api.TaskComplete {
				t.Errorf("%s is %s after the deploy", task.Name(), task.Status.State)
			}
			ids = append(ids, string(task.ID))
		}
		slices.Sort(ids)
		return ids
	}
	before := finished()
	if len(before) != 4 {
		t.Errorf("%d tasks ran for 4 completions", len(before))
	}
	says(t, c.run(t, "n2", "service", "ls"), []string{"0/2 (4/4 completed)"})
	c.deploy(t, sched, "v1")
	if diff := cmp.Diff(before, finished()); diff != "" {
		t.Errorf("tasks of the job after it was deployed again (-before +after):\n%s", diff)
	}
}

// spreadOf counts a service's tasks on each node.
func (c *cluster) spreadOf(t *testing.T, service string) map[string]int {
	t.Helper()
	tasks, err := c.serving(t.Context(), "n1", service)
	if err != nil {
		t.Fatal(err)
	}
	on := map[string]int{}
	for _, task := range tasks {
		on[task.NodeName]++
	}
	return on
}

// testRebalance takes a node away and brings it back: it gets its part again.
func testRebalance(t *testing.T, c *cluster) {
	even := map[string]int{"n1": 3, "n2": 3, "n3": 3}
	if diff := cmp.Diff(even, c.spreadOf(t, "sched_spread")); diff != "" {
		t.Fatalf("nine on three nodes (-want +got):\n%s", diff)
	}
	if err := c.Kill(t.Context(), "n3"); err != nil {
		t.Fatal(err)
	}
	await(t, 3*patience, "all run on the other two", func() error {
		if on := c.spreadOf(t, "sched_spread"); on["n1"]+on["n2"] != 9 || on["n3"] != 0 || on["n1"] > 5 || on["n2"] > 5 {
			return fmt.Errorf("%v", on)
		}
		return nil
	})
	if diff := cmp.Diff(map[string]int{"n1": 1, "n2": 1}, c.spreadOf(t, "sched_everywhere")); diff != "" {
		t.Errorf("the global service without n3 (-want +got):\n%s", diff)
	}
	says(t, c.run(t, "n1", "why", "n3"), []string{"down: nothing was heard"})
	says(t, c.run(t, "n1", "why", "sched_spread"), []string{"9 of 9 tasks run", "placed on n", "made: node n3 was lost"})
	if err := c.Start(t.Context(), "n3"); err != nil {
		t.Fatal(err)
	}
	c.rebalanced(t)
	if diff := cmp.Diff(map[string]int{"n1": 1, "n2": 1, "n3": 1}, c.spreadOf(t, "sched_everywhere")); diff != "" {
		t.Errorf("the global service (-want +got):\n%s", diff)
	}
	if moves, err := list[api.TaskMove](t.Context(), c, "n2", "rebalance", "--plan"); err != nil || len(moves) > 0 {
		t.Errorf("left to move: %v, %v", moves, err)
	}
	spread, err := list[api.TaskEntry](t.Context(), c, "n1", "service", "ps", "sched_spread")
	if err != nil {
		t.Fatal(err)
	}
	moved := slices.ContainsFunc(spread, func(task api.TaskEntry) bool { return strings.Contains(task.Reason, "rebalanced: ") })
	if !moved {
		t.Error("no task says that it was moved")
	}
}

// rebalanced waits until each of three nodes has its part of the service, which
// never has more than one task too many on the way, and of the global one.
func (c *cluster) rebalanced(t *testing.T) {
	t.Helper()
	most := 0
	took := await(t, 3*patience, "it has its part", func() error {
		on := c.spreadOf(t, "sched_spread")
		most = max(most, on["n1"]+on["n2"]+on["n3"])
		if even := map[string]int{"n1": 3, "n2": 3, "n3": 3}; !cmp.Equal(even, on) {
			return fmt.Errorf("%v", on)
		}
		return nil
	})
	c.settle(t)
	if most > 10 {
		t.Errorf("up to %d tasks served at the same time: more than one moved", most)
	}
	t.Logf("rebalanced %.1f s after the node was there", took.Seconds())
}

// testNewNode has a node leave and join as one that nobody has heard of: what it
// ran moves to the others before it is gone, and it gets its part of services that
// run, and one task of the global one.
func testNewNode(t *testing.T, c *cluster) {
	before, err := c.nodes(t.Context(), "n1")
	if err != nil {
		t.Fatal(err)
	}
	says(t, c.run(t, "n3", "leave"), []string{"This node has left the cluster."})
	if on := c.spreadOf(t, "sched_spread"); on["n1"]+on["n2"] != 9 {
		t.Errorf("once n3 has left the service runs on %v", on)
	}
	if diff := cmp.Diff(map[string]int{"n1": 1, "n2": 1}, c.spreadOf(t, "sched_everywhere")); diff != "" {
		t.Errorf("the global service without n3 (-want +got):\n%s", diff)
	}
	c.join(t, "n3", "n1", "manager")
	c.rebalanced(t)
	if diff := cmp.Diff(map[string]int{"n1": 1, "n2": 1, "n3": 1}, c.spreadOf(t, "sched_everywhere")); diff != "" {
		t.Errorf("the global service (-want +got):\n%s", diff)
	}
	after, err := c.nodes(t.Context(), "n1")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range after {
		if n.Hostname == "n3" && slices.ContainsFunc(before, func(b api.NodeEntry) bool { return b.ID == n.ID }) {
			t.Errorf("it is the node of before: %s", n.ID)
		}
	}
}

// testPausedNode scales a service while a node is paused: it keeps what it has and
// gets nothing new.
func testPausedNode(t *testing.T, c *cluster) {
	before := c.mustServe(t, "sched_spread")
	c.run(t, "n1", "node", "update", "--availability", "pause", "n2")
	c.run(t, "n1", "service", "scale", "sched_spread=12")
	want := map[string]int{"n1": 4, "n2": 3, "n3": 5}
	got := c.spreadOf(t, "sched_spread")
	if got["n1"] > got["n3"] {
		want["n1"], want["n3"] = want["n3"], want["n1"]
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("twelve with n2 paused (-want +got):\n%s", diff)
	}
	after := taskIDs(c.mustServe(t, "sched_spread"))
	for _, id := range taskIDs(before) {
		if !slices.Contains(after, id) {
			t.Errorf("task %s was replaced", id)
		}
	}
	c.run(t, "n1", "node", "update", "--availability", "active", "n2")
}

// testPrune deploys a stack again whose file names other services: only with
// --prune do those that it does not name go, and what they had is free at once.
func testPrune(t *testing.T, c *cluster) {
	file := filepath.Join(t.TempDir(), "compose.yaml")
	write := func(first string) {
		t.Helper()
		text := fmt.Sprintf("services:\n  %s: {image: %q, ports: [\"8090:8080\"]}\n  stays: {image: %[2]q}\n", first, probeImage("v1"))
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("goes")
	c.run(t, "n1", "deploy", "-c", file, "pruned")
	t.Cleanup(func() {
		if out, err := c.Orch(context.Background(), "n1", "stack", "rm", "pruned"); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
	stays := taskIDs(c.mustServe(t, "pruned_stays"))
	write("comes")
	out, err := c.Orch(t.Context(), "n1", "deploy", "-c", file, "pruned")
	if err == nil {
		t.Fatalf("two services publish one port:\n%s", out)
	}
	says(t, err.Error()+string(out), []string{"8090", "pruned_goes"})
	says(t, c.run(t, "n1", "deploy", "--prune", "-c", file, "pruned"), []string{"pruned_goes: removed", "pruned_comes: created", "pruned_stays: unchanged"})
	var names []string
	services, err := list[api.ServiceEntry](t.Context(), c, "n2", "service", "ls")
	for _, s := range services {
		names = append(names, s.Spec.Name)
	}
	slices.Sort(names)
	if diff := cmp.Diff([]string{"pruned_comes", "pruned_stays"}, names); diff != "" || err != nil {
		t.Errorf("services (-want +got):\n%s%v", diff, err)
	}
	if diff := cmp.Diff(stays, taskIDs(c.mustServe(t, "pruned_stays"))); diff != "" {
		t.Errorf("tasks of the service that stays (-before +after):\n%s", diff)
	}
	comes := c.mustServe(t, "pruned_comes")[0]
	if id, err := c.outside().whoami(c.addr("n3", 8090)); err != nil || id.Replica != replica(comes) {
		t.Errorf("%v answers at the port, %v, want %s", id, err, replica(comes))
	}
}
