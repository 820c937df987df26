package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/orch-dev/orch/pkg/api"
)

// testRotation replaces the cluster's authority again and again under load: no
// connection, no stream of the control plane's and no task may notice. The last
// time a node is off meanwhile, and comes back.
func testRotation(t *testing.T, c *cluster) {
	before := c.mustServe(t, "probe_echo")
	transfer, err := c.outside().startStream(c.addr("n2", probePort), func(string) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	load := c.startLoad(t, c.names(), blogPort)
	start, lost := time.Now(), lostStreams(t, c)
	var rotations []time.Duration
	for range 3 {
		old, began := c.authority(t), time.Now()
		c.run(t, "n1", "ca", "rotate")
		if next := c.authority(t); next.Next != nil || slices.Equal(next.Authority, old.Authority) {
			t.Fatalf("the authority was not replaced: %+v", next)
		}
		rotations = append(rotations, time.Since(began).Round(10*time.Millisecond))
		c.trusted(t, c.names()...)
	}
	if now := lostStreams(t, c); now != lost {
		t.Errorf("%d streams to the managers were lost", now-lost)
	}
	// It ends here: the task that it reached may be one of the node that is lost next.
	if err := transfer.end(); err != nil {
		t.Errorf("a transfer during the rotations: %v", err)
	}
	node := c.follower(t, "probe_echo")
	asked := c.names(node)[0]
	if err := c.KillDaemon(t.Context(), node); err != nil {
		t.Fatal(err)
	}
	await(t, patience, node+" is down", func() error {
		nodes, err := c.nodes(t.Context(), asked)
		for _, n := range nodes {
			if n.Hostname == node && n.State != api.NodeDown {
				return fmt.Errorf("it is %s", n.State)
			}
		}
		return err
	})
	if said := c.run(t, asked, "ca", "rotate"); !strings.Contains(said, "stays good") || !strings.Contains(said, node) {
		t.Errorf("with %s down it says %q", node, said)
	}
	if err := c.Start(t.Context(), node); err != nil {
		t.Fatal(err)
	}
	await(t, patience, "the old authority is dropped", func() error {
		if status := c.authority(t); status.Next != nil {
			return fmt.Errorf("waits for %v", status.Waiting)
		}
		return nil
	})
	c.trusted(t, c.names()...)
	t.Logf("three rotations took %v; settled %.1f s after the node came back", rotations, c.settle(t).Seconds())

	load.end()
	load.noFailures(t, "while the authority is replaced", start)
	kept := 0
	after := containerIDs(c.mustServe(t, "probe_echo"))
	for _, task := range before {
		if task.NodeName == node {
			continue // was replaced when its daemon was killed
		}
		if kept++; !slices.Contains(after, task.Status.ContainerID) {
			t.Errorf("%s was replaced", task.Name())
		}
	}
	if kept == 0 {
		t.Error("no task was there to see")
	}
}

// authority is what `orch ca` shows.
func (c *cluster) authority(t *testing.T) (status api.AuthorityStatus) {
	t.Helper()
	if err := json.Unmarshal([]byte(c.run(t, c.leader(t, "n1"), "ca", "--format", "json")), &status); err != nil {
		t.Fatal(err)
	}
	return status
}

// trusted waits until nodes trust the cluster's authority, and no other.
func (c *cluster) trusted(t *testing.T, nodes ...string) {
	t.Helper()
	want := [][]byte{c.authority(t).Authority}
	for _, node := range nodes {
		await(t, patience, node+" trusts the new authority alone", func() error {
			data, err := os.ReadFile(filepath.Join(c.find(node).StateDir, "node.json"))
			if err != nil {
				return err
			}
			var identity struct{ Roots [][]byte }
			if err := json.Unmarshal(data, &identity); err != nil {
				return err
			}
			if diff := cmp.Diff(want, identity.Roots); diff != "" {
				return fmt.Errorf("it trusts %d authorities (-want +got):\n%s", len(identity.Roots), diff)
			}
			return nil
		})
	}
}

// lostStreams counts how often agents have lost the stream from their manager.
func lostStreams(t *testing.T, c *cluster) (count int) {
	t.Helper()
	for _, n := range c.Nodes() {
		log, err := os.ReadFile(n.Log())
		if err != nil {
			t.Fatal(err)
		}
		count += strings.Count(string(log), "lost the stream")
	}
	return count
}
