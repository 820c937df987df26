package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// testAutolock is about a cluster of one manager whose keys are kept under an
// unlock key: after a restart it waits for that, the workers and the traffic for
// nothing.
func testAutolock(t *testing.T, c *cluster) {
	out := c.run(t, "n1", "cluster", "update", "--autolock=true")
	first := strings.TrimSpace(c.run(t, "n1", "unlock-key", "-q"))
	says(t, out, []string{"orch unlock", first})
	second := strings.TrimSpace(c.run(t, "n1", "unlock-key", "--rotate", "-q"))
	if first == second {
		t.Fatal("the rotated key is the same")
	}
	await(t, patience, "the keys are under the unlock key", func() error { return keysLocked(c, "n1", true) })

	began := time.Now()
	past := c.startLoad(t, c.names("n1"), probePort)
	restart(t, c, "n3")
	if info := c.run(t, "n3", "info"); strings.Contains(info, "Locked") {
		t.Errorf("a worker is locked:\n%s", info)
	}
	restart(t, c, "n1")
	for _, args := range [][]string{{"node", "ls"}, {"deploy", "-c", composeFile(other), other}} {
		if out, err := c.Orch(t.Context(), "n1", args...); err == nil {
			t.Errorf("a locked manager answers orch %s:\n%s", strings.Join(args, " "), out)
		} else {
			says(t, err.Error(), []string{"this manager is locked", "orch unlock"})
		}
	}
	says(t, c.run(t, "n1", "info"), []string{"Locked", "orch unlock"})
	for key, want := range map[string]string{first: "not the unlock key", "orchkey1-abc": "no unlock key"} {
		if err := unlock(t, c, "n1", key); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("unlocked with another key: %v", err)
		}
	}
	if err := unlock(t, c, "n1", second); err != nil {
		t.Fatal(err)
	}
	c.settle(t)
	past.end()
	past.noFailures(t, "through the workers", began)
	if err := unlock(t, c, "n1", second); err == nil || !strings.Contains(err.Error(), "not locked") {
		t.Errorf("unlocked twice: %v", err)
	}

	promoteLocked(t, c, "n2", second)

	c.run(t, "n1", "cluster", "update", "--autolock=false")
	await(t, patience, "the keys are as they were", func() error {
		return keysLocked(c, "n1", false)
	})
	restart(t, c, "n1")
	c.settle(t)
}

// promoteLocked makes a worker a manager of a cluster whose keys are locked, and a worker
// again: as the one its keys are, too, as the other they are not. While it is locked
// there is no quorum.
func promoteLocked(t *testing.T, c *cluster, node, key string) {
	c.run(t, "n1", "node", "promote", node)
	await(t, patience, "its keys are under the unlock key", func() error { return keysLocked(c, node, true) })
	restart(t, c, node)
	says(t, c.run(t, node, "info"), []string{"Locked"})
	if err := unlock(t, c, node, key); err != nil {
		t.Fatal(err)
	}
	c.settle(t)
	c.run(t, "n1", "node", "demote", node)
	await(t, patience, "it is a worker", func() error { return isWorker(t, c, node) })
	restart(t, c, node)
	c.settle(t)
	if info := c.run(t, node, "info"); strings.Contains(info, "Locked") {
		t.Errorf("the worker that was a manager is locked:\n%s", info)
	}
}

func restart(t *testing.T, c *cluster, node string) {
	t.Helper()
	if err := c.KillDaemon(t.Context(), node); err != nil {
		t.Fatal(err)
	}
	if err := c.Start(t.Context(), node); err != nil {
		t.Fatal(err)
	}
}

// unlock gives a manager a key, on standard input.
func unlock(t *testing.T, c *cluster, node, key string) error {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), c.orch, "-H", "unix://"+c.find(node).Socket, "unlock")
	cmd.Stdin = strings.NewReader(key + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// keysLocked checks what a manager's files have in the clear.
func keysLocked(c *cluster, node string, want bool) error {
	for file, clear := range map[string]string{"raft/keys.json": `"keys":`, "node.json": `"key":`} {
		data, err := os.ReadFile(filepath.Join(c.find(node).StateDir, file))
		if err != nil {
			return err
		}
		if locked := !strings.Contains(string(data), clear); locked != want {
			return fmt.Errorf("%s is locked: %v", file, locked)
		}
	}
	return nil
}
