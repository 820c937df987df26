package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/orch-dev/orch/pkg/api"
)

const (
	heal     = "heal"
	healed   = "heal_web"
	healPort = 8086
)

// testHealing loses tasks of a service in ways of their own. Another takes the
// place of each, what is known of the lost one says why, and the others stay.
func testHealing(t *testing.T, c *cluster) {
	c.deploy(t, heal, "v1")
	c.settle(t)
	for _, loss := range []struct{ name, ask, why string }{
		{"out of memory", "/eat", "out of memory"},
		{"unhealthy", "/sicken", "unhealthy: probe: 503"},
		{"exit", "/exit?code=3", "exited with code 3"},
	} {
		before := c.mustServe(t, healed)
		victim := before[0]
		resp, err := c.inside(t, victim).http(requestTime).Post("http://127.0.0.1:8080"+loss.ask, "", nil)
		if err == nil {
			resp.Body.Close() // of others the end comes before the answer
		}
		took := await(t, 3*patience, loss.name+": another task in its place", func() error {
			after, err := c.serving(t.Context(), "n1", healed)
			if err == nil && (len(after) != len(before) || slices.Contains(taskIDs(after), victim.ID)) {
				err = fmt.Errorf("%d tasks serve", len(after))
			}
			return err
		})
		t.Logf("%s: replaced after %.1f s", loss.name, took.Seconds())
		c.endedBy(t, victim, loss.why)
		after := taskIDs(c.mustServe(t, healed))
		for _, task := range before[1:] {
			if !slices.Contains(after, task.ID) {
				t.Errorf("%s: %s, which was well, was replaced", loss.name, task.Name())
			}
		}
	}
	for _, node := range c.names() {
		if _, err := c.outside().whoami(c.addr(node, healPort)); err != nil {
			t.Errorf("through %s: %v", node, err)
		}
	}
	c.run(t, "n1", "stack", "rm", heal)
}

// endedBy checks what is known of a task that failed.
func (c *cluster) endedBy(t *testing.T, victim api.TaskEntry, why string) {
	t.Helper()
	tasks, err := list[api.TaskEntry](t.Context(), c, "n1", "service", "ps", healed)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(tasks, func(task api.TaskEntry) bool { return task.ID == victim.ID })
	if i < 0 {
		t.Fatalf("nothing is known of %s any more", victim.ID)
	}
	if s := tasks[i].Status; s.State != api.TaskFailed || !strings.Contains(s.Message, why) {
		t.Errorf("it is %s: %q, want %q", s.State, s.Message, why)
	}
}
