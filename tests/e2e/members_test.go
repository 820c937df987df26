package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
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

	if err := c.KillDaemon(t.Context(), left[1]); err != nil {
		t.Fatal(err)
	}
	leader := left[0]
	await(t, patience, "the refusal gives the arithmetic", func() error {
		out, err := c.Orch(t.Context(), leader, "node", "demote", leader)
		want := fmt.Sprintf("without %s there would be 1 manager, of which 1 must answer, and only 0 would (%s does not answer)", leader, left[1])
		if err == nil {
			t.Fatalf("the last manager that answers was demoted:\n%s", out)
		}
		if !strings.Contains(err.Error(), want) && !strings.Contains(err.Error(), "no quorum") {
			return err
		}
		return nil
	})
	if err := c.Start(t.Context(), left[1]); err != nil {
		t.Fatal(err)
	}

	await(t, patience, "it is promoted", func() error { // once there is a quorum again
		_, err := c.Orch(t.Context(), left[0], "node", "promote", demoted)
		return err
	})
	c.settle(t)
	says(t, c.run(t, demoted, "info"), []string{"3, quorum 2, failures tolerated 1"})
	load.end()
	load.noFailures(t, "through all nodes", began)
	if diff := cmp.Diff(containerIDs(before), containerIDs(c.mustServe(t, "probe_echo"))); diff != "" {
		t.Errorf("containers (-before +after):\n%s", diff)
	}
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
