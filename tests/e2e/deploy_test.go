package e2e

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/lab"
)

const web = blog + "_web"

func testDeploy(t *testing.T, c *cluster) {
	out := c.deploy(t, blog, "v1")
	t.Log(out)
	for _, word := range []string{"blog_web: created", "blog_db: created", "everything runs", "8080"} {
		if !strings.Contains(out, word) {
			t.Errorf("deploy did not say %q", word)
		}
	}
	tasks, err := c.tasks(t.Context(), "n1", blog)
	if err != nil {
		t.Fatal(err)
	}
	var database api.TaskEntry
	for _, task := range tasks {
		if task.Status.State != api.TaskRunning {
			t.Errorf("%s is %s after deploy has returned", task.Name(), task.Status.State)
		}
		if task.ServiceName == "blog_db" {
			database = task
		}
	}
	for _, task := range c.mustServe(t, web) {
		assigned := c.created(t, task)
		if healthy := database.Status.At.UnixNano(); assigned < healthy {
			t.Errorf("the container of %s was made %.3f s before the database was healthy", task.Name(), float64(healthy-assigned)/1e9)
		}
	}
	if got := nodesOf(c.mustServe(t, web)); len(got) != 3 {
		t.Errorf("three replicas are on %v, want one on each node", got)
	}
}

func testDeployAgain(t *testing.T, c *cluster) {
	before, err := c.tasks(t.Context(), "n1", blog)
	if err != nil {
		t.Fatal(err)
	}
	out := c.deploy(t, blog, "v1")
	for _, word := range []string{"blog_web: unchanged", "blog_db: unchanged"} {
		if !strings.Contains(out, word) {
			t.Errorf("deploy did not say %q:\n%s", word, out)
		}
	}
	after, err := c.tasks(t.Context(), "n2", blog)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(containerIDs(before), containerIDs(after)); diff != "" {
		t.Errorf("containers before and after (-before +after):\n%s", diff)
	}
}

func testPublishedPort(t *testing.T, c *cluster) {
	const connections = 1000 // to each of three nodes
	tasks := c.mustServe(t, web)
	all := map[string]int{}
	for _, node := range c.names() {
		addr := c.addr(node, blogPort)
		count, err := c.outside().tally(func() (identity, error) {
			id, err := c.outside().whoami(addr)
			if err == nil && id.Client != lab.ClientAddr.String() {
				err = fmt.Errorf("%s saw the client %s, want %s", id.Replica, id.Client, lab.ClientAddr)
			}
			return id, err
		}, connections)
		if err != nil {
			t.Errorf("through %s: %v", node, err)
		}
		balanced(t, "through "+node, count, tasks, 0.25, 0.42)
		for replica, n := range count {
			all[replica] += n
		}
	}
	balanced(t, "in all", all, tasks, 0.25, 0.42)
	page, err := fetch(c.outside().http(requestTime), "http://"+c.addr("n2", blogPort)+"/")
	if err != nil || !strings.Contains(string(page), "You come from "+lab.ClientAddr.String()) {
		t.Errorf("the page does not show the client's address: %v\n%s", err, page)
	}
}

func testLogs(t *testing.T, c *cluster) {
	for _, node := range c.names() {
		// What a program writes to standard error comes on the command's.
		cmd := exec.CommandContext(t.Context(), c.orch, "service", "logs", "--tail", "20", web)
		cmd.Env = append(cmd.Environ(), "ORCH_HOST="+c.find(node).Host())
		text, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("logs through %s: %v", node, err)
		}
		out := string(text)
		for _, task := range c.mustServe(t, web) {
			if want := task.Name() + "@" + task.NodeName + " | "; !strings.Contains(out, want) {
				t.Errorf("logs through %s have no line that begins with %q:\n%s", node, want, out)
			}
		}
	}
}

func testScale(t *testing.T, c *cluster) {
	before := c.mustServe(t, web)
	t.Log(c.run(t, "n2", "service", "scale", "blog_web=6"))
	six := c.mustServe(t, web)
	if len(six) != 6 {
		t.Fatalf("%d replicas serve, want 6", len(six))
	}
	if missing := slices.DeleteFunc(containerIDs(before), func(id string) bool { return slices.Contains(containerIDs(six), id) }); len(missing) > 0 {
		t.Errorf("containers that ran were replaced: %v", missing)
	}
	count, err := c.outside().tally(func() (identity, error) { return c.outside().whoami(c.addr("n1", blogPort)) }, 600)
	if err != nil {
		t.Error(err)
	}
	balanced(t, "six replicas", count, six, 0.08, 0.27)

	c.run(t, "n3", "service", "scale", "blog_web=2")
	two := c.mustServe(t, web)
	bare := c.names(nodesOf(two)...)
	if len(two) != 2 || len(bare) == 0 {
		t.Fatalf("2 replicas are on %v, want a node without one", nodesOf(two))
	}
	for _, node := range bare {
		count, err := c.outside().tally(func() (identity, error) { return c.outside().whoami(c.addr(node, blogPort)) }, 100)
		if err != nil {
			t.Errorf("through %s, which has no replica: %v", node, err)
		}
		balanced(t, "through "+node+", which has no replica", count, two, 0.25, 0.75)
	}

	c.run(t, "n1", "service", "scale", "blog_web=3")
	three := c.mustServe(t, web)
	if kept := slices.DeleteFunc(taskIDs(three), func(id api.TaskID) bool { return !slices.Contains(taskIDs(two), id) }); len(three) != 3 || len(kept) != 2 {
		t.Errorf("scaled from 2 to 3: %v became %v", taskIDs(two), taskIDs(three))
	}
}

// testPlacement deploys what no node suits, and then makes one suit.
func testPlacement(t *testing.T, c *cluster) {
	t.Setenv("PROBE_IMAGE", probeImage("v1"))
	c.run(t, "n1", "deploy", "--detach", "-c", "testdata/nowhere.yaml", "picky")
	t.Cleanup(func() {
		if _, err := c.Orch(context.Background(), "n1", "stack", "rm", "picky"); err != nil {
			t.Error(err)
		}
		if _, err := c.Orch(context.Background(), "n1", "node", "update", "n3", "--label-rm", "disk"); err != nil {
			t.Error(err)
		}
	})
	await(t, patience, "the pending task says why", func() error {
		tasks, err := c.tasks(t.Context(), "n2", "picky")
		if err != nil {
			return err
		}
		if len(tasks) != 1 || tasks[0].Status.State != api.TaskPending || !strings.Contains(tasks[0].Reason, "node.labels.disk==fast") {
			return fmt.Errorf("tasks: %+v", tasks)
		}
		return nil
	})
	c.run(t, "n2", "node", "update", "n3", "--label-add", "disk=fast")
	took := await(t, patience, "the task runs on the node that suits", func() error {
		tasks, err := c.serving(t.Context(), "n3", "picky_picky")
		if err == nil && (len(tasks) != 1 || tasks[0].NodeName != "n3") {
			err = fmt.Errorf("tasks: %+v", tasks)
		}
		return err
	})
	t.Logf("it ran %.1f s after the node suited", took.Seconds())
}

// testHostPort publishes a port on the nodes of tasks alone: each answers for its
// own, who sees the client's address, and another node has no such port.
func testHostPort(t *testing.T, c *cluster) {
	const stack = "hostport"
	said := c.deploy(t, stack, "v1")
	says(t, said, []string{"hostport_web answers on its tasks' nodes: *:8086->8080/tcp"})
	tasks := c.mustServe(t, "hostport_web")
	on := nodesOf(tasks)
	if len(on) != 2 {
		t.Fatalf("two tasks with one port are on %v", on)
	}
	for _, task := range tasks {
		for range 10 {
			got, err := c.outside().whoami(c.addr(task.NodeName, 8086))
			if err != nil || got.Replica != replica(task) || !strings.HasPrefix(got.Client, lab.ClientAddr.String()) {
				t.Fatalf("through %s: %+v, %v, want %s for %s", task.NodeName, got, err, replica(task), lab.ClientAddr)
			}
		}
	}
	for _, node := range c.names(on...) {
		if got, err := c.outside().whoami(c.addr(node, 8086)); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("through %s, which has no task: %+v, %v", node, got, err)
		}
	}
	// A third has room on the third node, a fourth nowhere.
	c.run(t, "n1", "service", "scale", "--detach", "hostport_web=4")
	await(t, patience, "the fourth says why it does not run", func() error {
		all, err := c.tasks(t.Context(), "n1", stack)
		if err != nil {
			return err
		}
		for _, task := range all {
			if task.Status.State == api.TaskPending && strings.Contains(task.Reason, "3 without a free port 8086/tcp") {
				return nil
			}
		}
		return fmt.Errorf("%+v", all)
	})
	c.run(t, "n1", "stack", "rm", stack)
}
