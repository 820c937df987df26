package e2e

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/lab"
)

const (
	updates    = "updates"
	abruptPort = 8083
	slowPort   = 8084
)

var updated = []string{"updates_abrupt", "updates_slow"}

// TestUpdates changes services in every way that a user has, while clients
// connect through all nodes and others keep their connections. No request may
// fail.
func TestUpdates(t *testing.T) {
	c := newCluster(t, lab.Options{Datapath: lab.DatapathTC})
	c.deploy(t, updates, "v1")
	c.settle(t)
	steps := []struct {
		name string
		run  func(*testing.T)
	}{
		{"start-first to v2", func(t *testing.T) { c.deploy(t, updates, "v2"); c.answersWith(t, "v2") }},
		{"start-first back to v1", func(t *testing.T) { c.deploy(t, updates, "v1"); c.answersWith(t, "v1") }},
		{"a version that never gets healthy", c.testSickVersion},
		{"stop-first", c.testStopFirst},
		{"rollback asked for", c.testRollback},
		{"pause and resume", c.testPause},
		{"drain a node", func(t *testing.T) { c.testDrain(t, "n2") }},
		{"scale up and down", c.testScaleUpdated},
		{"stop the leader", c.testStopLeader},
	}
	for _, step := range steps {
		t.Run(step.name, func(t *testing.T) {
			start := time.Now()
			load := c.startCrowd()
			defer load.noFailures(t, start)
			step.run(t)
			c.settle(t)
			t.Logf("took %.1f s", time.Since(start).Seconds())
		})
	}
}

// crowd is askers of every kind, by what they do.
type crowd map[string]*askers

func (c *cluster) startCrowd() crowd {
	load := crowd{}
	for service, port := range map[string]int{"abrupt": abruptPort, "slow": slowPort} {
		load[service+", new connections"] = c.startAskers(c.names(), port, "/whoami", false)
		load[service+", kept connections"] = c.startAskers(c.names(), port, "/whoami", true)
		load[service+", answers that take a while"] = c.startAskers(c.names(), port, "/think?for=1700ms", false)
	}
	return load
}

// count is how many requests they have made, and how many of them failed.
func (l crowd) count() (requests, failed int) {
	for _, k := range l {
		k.mu.Lock()
		requests += k.requests
		failed += len(k.failed)
		k.mu.Unlock()
	}
	return requests, failed
}

// failures are the requests that failed, in the order in which they ended.
func (l crowd) failures() (failed []attempt) {
	for _, k := range l {
		k.mu.Lock()
		failed = append(failed, k.failed...)
		k.mu.Unlock()
	}
	slices.SortFunc(failed, func(a, b attempt) int { return a.at.Add(a.took).Compare(b.at.Add(b.took)) })
	return failed
}

// noFailures ends them, and fails the test if any request has failed.
func (l crowd) noFailures(t *testing.T, start time.Time) {
	t.Helper()
	for _, what := range slices.Sorted(maps.Keys(l)) {
		l[what].end()
		l[what].noFailures(t, what, start)
	}
}

// answersWith checks that both services run one version only.
func (c *cluster) answersWith(t *testing.T, version string) {
	t.Helper()
	for service, port := range map[string]int{updated[0]: abruptPort, updated[1]: slowPort} {
		_, err := c.outside().tally(func() (identity, error) {
			id, err := c.outside().whoami(c.addr("n2", port))
			if err == nil && id.Version != version {
				err = fmt.Errorf("%s answers with version %s", id.Replica, id.Version)
			}
			return id, err
		}, 30)
		if err != nil {
			t.Errorf("want version %s: %v\n%s", version, err, c.run(t, "n2", "net", "flows", "--service", service, "--format", "json"))
		}
	}
}

// tell runs a command for both services at the same time.
func (c *cluster) tell(t *testing.T, args ...string) {
	t.Helper()
	var group errgroup.Group
	for _, service := range updated {
		group.Go(func() error {
			out, err := c.Orch(t.Context(), "n1", append(slices.Clone(args), service)...)
			if err != nil {
				return fmt.Errorf("%w\n%s", err, out)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
}

func (c *cluster) testSickVersion(t *testing.T) {
	before := map[string][]api.TaskID{}
	for _, service := range updated {
		before[service] = taskIDs(c.mustServe(t, service))
	}
	t.Setenv("PROBE_IMAGE", probeImage("sick"))
	out, err := c.Orch(t.Context(), "n1", "deploy", "-c", composeFile(updates), updates)
	if err == nil {
		t.Errorf("the deploy has succeeded:\n%s", out)
	} else if text := err.Error() + string(out); !strings.Contains(text, "rolled back") || !strings.Contains(text, "unhealthy: probe: 503") {
		t.Errorf("the deploy does not say why it was rolled back: %v\n%s", err, out)
	}
	c.settle(t)
	for _, service := range updated {
		if after := taskIDs(c.mustServe(t, service)); !slices.Equal(before[service], after) {
			t.Errorf("%s was served by %v before and is by %v after: tasks that worked were replaced", service, before[service], after)
		}
	}
	c.answersWith(t, "v1")
}

func (c *cluster) testStopFirst(t *testing.T) {
	c.tell(t, "service", "update", "--update-order", "stop-first", "--image", probeImage("v2"))
	c.answersWith(t, "v2")
}

func (c *cluster) testRollback(t *testing.T) {
	c.tell(t, "service", "rollback") // also of the order
	c.answersWith(t, "v1")
}

// testPause stops updates half-way and lets them go on.
func (c *cluster) testPause(t *testing.T) {
	c.tell(t, "service", "update", "--detach", "--update-delay", "1s", "--image", probeImage("v2"))
	c.tell(t, "service", "pause")
	for _, service := range updated {
		if out, err := c.Orch(t.Context(), "n1", "service", "update", "--label-add", "a=b", service); err == nil || !strings.Contains(err.Error()+string(out), "paused") {
			t.Errorf("a paused update is not mentioned: %v\n%s", err, out)
		}
		images := map[string]int{}
		for _, task := range c.mustServe(t, service) {
			images[task.Spec.Image]++
		}
		if images[probeImage("v1")] == 0 {
			t.Errorf("%s was updated to the end although it was paused: %v", service, images)
		}
	}
	c.tell(t, "service", "resume")
	c.answersWith(t, "v2")
}

func (c *cluster) testDrain(t *testing.T, node string) {
	says(t, c.run(t, "n1", "node", "drain", node), []string{node + " is empty"})
	says(t, c.run(t, "n1", "node", "inspect", node), []string{`"hostname": "` + node + `"`, `"availability": "drain"`})
	tasks, err := c.tasks(t.Context(), "n1", updates)
	if err != nil {
		t.Error(err)
	}
	for _, task := range tasks {
		if task.NodeName == node && !task.Status.State.Terminal() {
			t.Errorf("%s is %s on %s, which was drained", task.Name(), task.Status.State, node)
		}
	}
	c.settle(t)
	c.run(t, "n1", "node", "activate", node)
	says(t, c.run(t, "n1", "node", "inspect", node), []string{`"availability": "active"`})
}

func (c *cluster) testScaleUpdated(t *testing.T) {
	c.run(t, "n1", "service", "scale", "updates_abrupt=5", "updates_slow=5")
	c.run(t, "n1", "service", "scale", "updates_abrupt=3", "updates_slow=3")
}

// testStopLeader ends the leader's daemon politely and starts it again. Its tasks
// serve on meanwhile.
func (c *cluster) testStopLeader(t *testing.T) {
	leader := c.leader(t, "n1")
	if err := c.StopDaemon(t.Context(), leader); err != nil {
		t.Fatal(err)
	}
	c.leader(t, c.names(leader)[0])
	if err := c.Start(t.Context(), leader); err != nil {
		t.Fatal(err)
	}
}
