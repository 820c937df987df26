package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/orch-dev/orch/pkg/api"
)

// testRoles makes managers workers and workers managers, also the leader, while
// clients call: nobody notices but who asks for the nodes.
func testRoles(t *testing.T, c *cluster) {
	before := c.mustServe(t, "probe_echo")
	began := time.Now()
	load := c.startLoad(t, c.names(), probePort)

	demoted := c.leader(t, "n1")
	left := c.names(demoted)
	says(t, c.run(t, left[0], "node", "demote", demoted), []string{demoted + " is a worker"})
	await(t, patience, "it is a worker", func() error { return isWorker(t, c, demoted) })
	says(t, c.run(t, left[0], "info"), []string{"2, quorum 2, failures tolerated 0", "use an odd number"})

	// It has the list of those that are managers now.
	restart(t, c, demoted)

	says(t, c.run(t, left[0], "node", "promote", demoted), []string{demoted + " is a manager"})
	c.settle(t)
	says(t, c.run(t, demoted, "info"), []string{"3, quorum 2, failures tolerated 1"})
	load.end()
	load.noFailures(t, "through all nodes", began)
	if diff := cmp.Diff(containerIDs(before), containerIDs(c.mustServe(t, "probe_echo"))); diff != "" {
		t.Errorf("containers (-before +after):\n%s", diff)
	}
	refuseDemotion(t, c)
}

// refuseDemotion tries to demote one of two managers that answer of three.
func refuseDemotion(t *testing.T, c *cluster) {
	leader := c.leader(t, "n1")
	followers := c.names(leader)
	if err := c.KillDaemon(t.Context(), followers[0]); err != nil {
		t.Fatal(err)
	}
	await(t, patience, "the leader misses it", func() error {
		nodes, err := c.nodes(t.Context(), leader)
		for _, n := range nodes {
			if n.Hostname == followers[0] && n.SeenAgo > 3*time.Second {
				return nil
			}
		}
		return fmt.Errorf("not yet: %v", err)
	})
	out, err := c.Orch(t.Context(), leader, "node", "demote", followers[1])
	if err == nil {
		t.Fatalf("one of two managers that answer was demoted:\n%s", out)
	}
	says(t, err.Error(), []string{fmt.Sprintf("without %s there would be 2 managers, of which 2 must answer, and only 1 would (%s does not answer)", followers[1], followers[0])})
	if err := c.Start(t.Context(), followers[0]); err != nil {
		t.Fatal(err)
	}
	c.settle(t)
}

// isWorker checks that a node says it is a worker, and keeps nothing of a manager.
func isWorker(t *testing.T, c *cluster, node string) error {
	_, err := c.Orch(t.Context(), node, "node", "ls")
	if err == nil || !strings.Contains(err.Error(), node+" is a worker") {
		return fmt.Errorf("orch node ls there: %v", err)
	}
	if _, err := os.Stat(filepath.Join(c.find(node).StateDir, "raft")); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the state of Raft is still there: %v", err)
	}
	return nil
}

// testLeave has a manager leave, join again as a worker, leave as that, and come back
// as the manager that it was; then its power is cut, and it is removed by the others.
func testLeave(t *testing.T, c *cluster) {
	node := c.withoutVolumes(t)
	others := c.names(node)
	began := time.Now()
	load := c.startLoad(t, others, probePort)

	says(t, c.run(t, node, "leave"), []string{"This node has left the cluster."})
	c.hasLeft(t, node, others[0])
	if pins, err := os.ReadDir(filepath.Join(c.find(node).PinDir, "links")); err != nil || len(pins) == 0 {
		t.Errorf("the programs went without --purge: %v, %v", pins, err)
	}
	says(t, c.run(t, others[0], "info"), []string{"2, quorum 2, failures tolerated 0"})
	c.join(t, node, others[0], "worker")
	if err := isWorker(t, c, node); err != nil {
		t.Error(err)
	}

	says(t, c.run(t, node, "leave", "--purge"), []string{"This node has left the cluster."})
	c.hasLeft(t, node, others[0])
	if _, err := os.Stat(c.find(node).PinDir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("--purge left %s: %v", c.find(node).PinDir, err)
	}
	c.join(t, node, others[0], "manager")
	c.settle(t)
	load.end()
	load.noFailures(t, "through the others", began)

	if err := c.Kill(t.Context(), node); err != nil {
		t.Fatal(err)
	}
	await(t, patience, "the dead node is removed", func() error {
		_, err := c.Orch(t.Context(), others[0], "node", "rm", node)
		return err
	})
	if err := c.Start(t.Context(), node); err != nil {
		t.Fatal(err)
	}
	says(t, c.run(t, node, "leave", "--force", "--purge"), []string{"This node has left the cluster."})
	c.hasLeft(t, node, others[0])
	c.join(t, node, others[0], "manager")
	c.settle(t)
}

// withoutVolumes is a node that runs no task that would have to leave its data there.
func (c *cluster) withoutVolumes(t *testing.T) string {
	t.Helper()
	for _, node := range c.names() {
		tasks, err := list[api.TaskEntry](t.Context(), c, "n1", "node", "ps", node)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(tasks, func(task api.TaskEntry) bool { return holdsData(task) }) {
			return node
		}
	}
	t.Skip("each node has data of a service")
	return ""
}

func holdsData(task api.TaskEntry) bool {
	return slices.ContainsFunc(task.Spec.Mounts, func(m api.Mount) bool { return m.Type == api.MountVolume })
}

// join has a node join again that has left.
func (c *cluster) join(t *testing.T, node, through, role string) {
	t.Helper()
	token := strings.TrimSpace(c.run(t, through, "join-token", role, "-q"))
	says(t, c.run(t, node, "join", token), []string{"joined the cluster as a " + role})
}

// hasLeft checks that nothing of the cluster is on a node that has left, and that the
// others know.
func (c *cluster) hasLeft(t *testing.T, node, asked string) {
	t.Helper()
	says(t, c.run(t, node, "info"), []string{"none: use orch init or orch join"})
	nodes, err := c.nodes(t.Context(), asked)
	if err != nil {
		t.Error(err)
	}
	for _, n := range nodes {
		if n.Hostname == node {
			t.Errorf("%s still knows it: %+v", asked, n)
		}
	}
	containers, err := c.engine.containers(t.Context(), c.Options().Name, true, "orch.lab-node="+node)
	if err != nil || len(containers) > 0 {
		t.Errorf("containers that are left: %v, %v", containers, err)
	}
	out, err := c.Exec(t.Context(), node, "ip", "-br", "link")
	if err != nil {
		t.Error(err)
	}
	for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		if name, _, _ := strings.Cut(line, " "); name != "lo" && !strings.HasPrefix(name, "eth0") {
			t.Errorf("an interface that is left: %s", line)
		}
	}
	if _, err := os.Stat(filepath.Join(c.find(node).StateDir, "raft")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the state of Raft is still there: %v", err)
	}
}
