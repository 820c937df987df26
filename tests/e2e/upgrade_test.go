package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/lab"
)

// TestUpgrade replaces orch on one node after the other by another build of it,
// as a package manager and a restart would, while clients connect through all nodes.
// No request may fail, no task may be replaced, and each node says what it runs.
func TestUpgrade(t *testing.T) {
	const next = "v2-next"
	dir := t.TempDir()
	program, other := filepath.Join(dir, "orch"), filepath.Join(dir, "orch.next")
	if err := os.Link(orchProgram, program); err != nil {
		t.Fatal(err)
	}
	if err := build(t.Context(), "github.com/orch-dev/orch/cmd/orch", other, "-ldflags", "-X main.version="+next); err != nil {
		t.Fatal(err)
	}
	c := newCluster(t, lab.Options{Datapath: lab.DatapathTC, Binary: program})
	// How long a busy machine takes to start a daemon is not what this is about.
	c.run(t, "n1", "cluster", "update", "--lease", "10s")
	c.deploy(t, updates, "v1")
	c.settle(t)
	before := map[string][]api.TaskID{}
	for _, service := range updated {
		before[service] = taskIDs(c.mustServe(t, service))
	}
	start := time.Now()
	load := c.startCrowd()
	defer load.noFailures(t, start)

	if err := os.Rename(other, program); err != nil {
		t.Fatal(err)
	}
	for _, node := range c.names() {
		began := time.Now()
		if err := c.StopDaemon(t.Context(), node); err != nil {
			t.Fatal(err)
		}
		if err := c.Start(t.Context(), node); err != nil {
			t.Fatal(err)
		}
		await(t, patience, node+" runs the other build", func() error { return c.runs(t, node, next) })
		c.settle(t)
		t.Logf("%s was upgraded in %.1f s", node, time.Since(began).Seconds())
	}
	for _, service := range updated {
		sameTasks(t, service, before[service], taskIDs(c.mustServe(t, service)))
	}
	c.deploy(t, updates, "v2") // what one version wrote, the next goes on with
	c.answersWith(t, "v2")
}

// runs checks which version a node says that it runs.
func (c *cluster) runs(t *testing.T, node, version string) error {
	nodes, err := c.nodes(t.Context(), "n1")
	if err != nil {
		return err
	}
	for _, n := range nodes {
		if n.Hostname == node && (n.Info.OrchVersion != version || n.State != api.NodeReady) {
			return fmt.Errorf("%s runs %q and is %s", node, n.Info.OrchVersion, n.State)
		}
	}
	return nil
}

func sameTasks(t *testing.T, service string, before, after []api.TaskID) {
	t.Helper()
	if fmt.Sprint(before) != fmt.Sprint(after) {
		t.Errorf("%s was served by %v before and is by %v after", service, before, after)
	}
}
