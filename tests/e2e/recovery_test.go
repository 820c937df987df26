package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/lab"
)

const (
	steady     = "steady" // the stack
	steadyWeb  = "steady_web"
	steadyPort = 8085
)

// TestRecovery loses managers, in ever worse ways, while clients call what runs on a
// worker: they notice none of it, and no task is replaced.
func TestRecovery(t *testing.T) {
	c := newCluster(t, lab.Options{Datapath: lab.DatapathTC, Nodes: 4, Managers: 3})
	c.secret(t, "token", "planted-"+rand(t))
	c.deploy(t, steady, "v1")
	for _, step := range []struct {
		name string
		run  func(*testing.T, *cluster)
	}{
		{"all managers move at once", testMoveAll}, // first: all that they know is in their logs
		{"a manager moves", testMove},
		{"a manager is replaced by another machine", testReplace},
		{"all managers restarted at once", testRestartedAtOnce},
		{"quorum lost, a survivor goes on", testRecover},
		{"all managers lost, backup restored", testRestore},
	} {
		t.Run(step.name, func(t *testing.T) {
			before := containerIDs(c.mustServe(t, steadyWeb))
			load, began := c.startLoad(t, []string{"n4"}, steadyPort), time.Now()
			step.run(t, c)
			await(t, patience, "the worker is back", func() error { return c.ready(t.Context(), "n1", "n4") })
			load.end()
			load.noFailures(t, "through the worker", began)
			if diff := cmp.Diff(before, containerIDs(c.mustServe(t, steadyWeb))); diff != "" {
				t.Errorf("containers (-before +after):\n%s\n%s", diff, c.run(t, "n1", "why", steadyWeb))
			}
			t.Logf("took %.1f s", time.Since(began).Seconds())
		})
	}
}

// secret makes a secret of the cluster's.
func (c *cluster) secret(t *testing.T, name, content string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	c.run(t, "n1", "secret", "create", name, path)
}

// ready checks that nodes are, as one of them says.
func (c *cluster) ready(ctx context.Context, asked string, names ...string) error {
	nodes, err := c.nodes(ctx, asked)
	if err != nil {
		return err
	}
	for _, name := range names {
		if !slices.ContainsFunc(nodes, func(n api.NodeEntry) bool {
			return n.Hostname == name && n.State == api.NodeReady && (n.Role != api.RoleManager || n.Voter)
		}) {
			return fmt.Errorf("%s is not ready", name)
		}
	}
	return nil
}

// renew makes a node's machine another one, with nothing on its disk, at the same
// address.
func (c *cluster) renew(t *testing.T, node string) {
	t.Helper()
	if err := c.Kill(t.Context(), node); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"node.json", "raft", "images"} {
		if err := os.RemoveAll(filepath.Join(c.find(node).StateDir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Start(t.Context(), node); err != nil {
		t.Fatal(err)
	}
}

// given runs a command on a node with something on its standard input.
func (c *cluster) given(t *testing.T, node, input string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), c.orch, append([]string{"-H", "unix://" + c.find(node).Socket}, args...)...)
	cmd.Stdin = strings.NewReader(input + "\n")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// joinAs joins a node to the cluster that another one manages.
func (c *cluster) joinAs(t *testing.T, node string, role api.Role, through string) {
	t.Helper()
	token := strings.TrimSpace(c.run(t, through, "join-token", "-q", string(role)))
	c.run(t, node, "join", token)
}

// testRestartedAtOnce kills all managers, which are a cluster again by themselves.
func testRestartedAtOnce(t *testing.T, c *cluster) {
	managers := []string{"n1", "n2", "n3"}
	for _, node := range managers {
		if err := c.KillDaemon(t.Context(), node); err != nil {
			t.Fatal(err)
		}
	}
	for _, node := range managers {
		if err := c.Start(t.Context(), node); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("all as before after %.1f s", c.settle(t).Seconds())
}

// testRecover loses two of three managers. The third goes on alone; the two come back
// and form no cluster of their own, though they are a quorum of what was.
func testRecover(t *testing.T, c *cluster) {
	if _, err := c.given(t, "n1", "", "cluster", "recover", "--yes"); err == nil {
		t.Fatal("recovered a cluster that has a quorum")
	}
	for _, node := range []string{"n2", "n3"} {
		if err := c.KillDaemon(t.Context(), node); err != nil {
			t.Fatal(err)
		}
	}
	await(t, patience, "n1 has noticed", func() error {
		out, err := c.given(t, "n1", "", "cluster", "recover")
		if err == nil || !strings.Contains(out, "give --yes") {
			return fmt.Errorf("it says %s", out)
		}
		says(t, out, []string{"Kept:", "Lost:", "n2", "n3"})
		return nil
	})
	c.readsWithoutQuorum(t, "n1")
	if out, err := c.given(t, "n4", "", "cluster", "recover", "--yes"); err == nil || !strings.Contains(out, "is a worker") {
		t.Errorf("recovered on a worker: %v\n%s", err, out)
	}
	says(t, c.run(t, "n1", "cluster", "recover", "--yes"), []string{"the only manager"})
	await(t, patience, "the worker has found it", func() error { return c.ready(t.Context(), "n1", "n4") })
	c.run(t, "n1", "service", "scale", steadyWeb+"=3")
	c.run(t, "n1", "service", "scale", steadyWeb+"=2")

	for _, node := range []string{"n2", "n3"} {
		if err := c.Start(t.Context(), node); err != nil {
			t.Fatal(err)
		}
		await(t, patience, node+" knows that it was left behind", func() error {
			out, err := c.Orch(t.Context(), node, "info")
			if err != nil || !strings.Contains(string(out), "Left behind") {
				return fmt.Errorf("%v: %s", err, out)
			}
			return nil
		})
		if out, err := c.given(t, node, "", "node", "ls"); err == nil || !strings.Contains(out, "join it again") {
			t.Errorf("%s answers for a cluster: %v\n%s", node, err, out)
		}
	}
	c.makeNew(t, "n1", "n2", "n3")
}

// readsWithoutQuorum asks a manager without a quorum for what it knows: it says that
// only when it is asked for just that.
func (c *cluster) readsWithoutQuorum(t *testing.T, node string) {
	t.Helper()
	says(t, c.run(t, node, "service", "ls", "--stale"), []string{steadyWeb})
	for _, args := range [][]string{{"service", "ls"}, {"service", "ls", "--consistent"}} {
		out, err := c.given(t, node, "", args...)
		if err == nil || !strings.Contains(out, "no quorum") || strings.Contains(out, steadyWeb) {
			t.Errorf("orch %s without a quorum: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	if out, err := c.given(t, node, "", "service", "ls", "--consistent", "--stale"); err == nil || !strings.Contains(out, "none of the others can be") {
		t.Errorf("both consistent and stale: %v\n%s", err, out)
	}
}

// makeNew has nodes leave what they were in, and join as managers what another manages.
func (c *cluster) makeNew(t *testing.T, through string, nodes ...string) {
	t.Helper()
	for _, node := range nodes {
		c.run(t, node, "leave", "--force")
		c.joinAs(t, node, api.RoleManager, through)
	}
	c.settle(t)
}

// move starts a node at another address.
func (c *cluster) move(t *testing.T, node, addr string) {
	t.Helper()
	if err := c.Kill(t.Context(), node); err != nil {
		t.Fatal(err)
	}
	if err := c.Move(t.Context(), node, netip.MustParseAddr(addr)); err != nil {
		t.Fatal(err)
	}
	if err := c.Start(t.Context(), node); err != nil {
		t.Fatal(err)
	}
}

// testMoveAll gives every manager another address, so that nobody finds another. One of
// them goes on alone, and the worker, which knows none of the addresses, finds it.
func testMoveAll(t *testing.T, c *cluster) {
	for i, node := range []string{"n1", "n2", "n3"} {
		c.move(t, node, fmt.Sprintf("10.201.0.%d", 70+i))
	}
	await(t, patience, "n1 goes on alone", func() error {
		out, err := c.given(t, "n1", "", "cluster", "recover", "--yes")
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	took := await(t, patience, "the worker has found it", func() error { return c.ready(t.Context(), "n1", "n4") })
	t.Logf("the worker is back %.1f s after the recovery", took.Seconds())
	c.makeNew(t, "n1", "n2", "n3")
}

// testRestore loses every manager with its disk. One of the machines gets another
// disk and the backup, the others join it.
func testRestore(t *testing.T, c *cluster) {
	file := filepath.Join(t.TempDir(), "backup")
	says(t, c.run(t, "n2", "cluster", "backup", file), []string{"backup of cluster"})
	key := strings.TrimSpace(c.run(t, "n3", "cluster", "backup-key", "-q"))
	secrets := c.run(t, "n1", "secret", "ls", "-q")
	if out, err := c.given(t, "n1", key, "cluster", "restore", file); err == nil || !strings.Contains(out, "in a cluster already") {
		t.Errorf("restored on a manager: %v\n%s", err, out)
	}
	c.renew(t, "n1")
	if out, err := c.given(t, "n1", key, "cluster", "restore", file); err == nil || !strings.Contains(out, "managers that answer: ") {
		t.Errorf("restored beside a cluster that is alive: %v\n%s", err, out)
	}
	c.renew(t, "n2")
	c.renew(t, "n3")

	c.move(t, "n1", "10.201.0.80") // which no node knows

	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	cut := filepath.Join(t.TempDir(), "cut")
	if err := os.WriteFile(cut, whole[:len(whole)-100], 0o600); err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string][3]string{
		"cut off":     {cut, key, "damaged, or cut off"},
		"another key": {file, "orchkey1-" + strings.Repeat("a", 52), "not the key"},
		"no key":      {file, "secret", "no unlock key"},
		"no backup":   {"testdata/steady.yaml", key, "not a backup"},
	} {
		if out, err := c.given(t, "n1", bad[1], "cluster", "restore", bad[0]); err == nil || !strings.Contains(out, bad[2]) {
			t.Errorf("restored, %s: %v\n%s", name, err, out)
		}
	}
	says(t, c.run(t, "n1", "info"), []string{"none: use orch init"})

	out, err := c.given(t, "n1", key, "cluster", "restore", file)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	says(t, out, []string{"the only manager of cluster", "2 nodes, 1 services"})
	took := await(t, patience, "the worker comes back by itself", func() error { return c.ready(t.Context(), "n1", "n4") })
	t.Logf("the worker is back %.1f s after the restore", took.Seconds())
	if now := c.run(t, "n1", "secret", "ls", "-q"); now != secrets {
		t.Errorf("secrets %q, and were %q", now, secrets)
	}
	c.joinAs(t, "n2", api.RoleManager, "n1")
	c.joinAs(t, "n3", api.RoleManager, "n2")
	c.settle(t)
	c.run(t, "n3", "service", "scale", steadyWeb+"=3")
	c.run(t, "n1", "service", "scale", steadyWeb+"=2")
}

// testMove gives a manager another address: the others find it there.
func testMove(t *testing.T, c *cluster) {
	const node = "n2"
	from, to := c.find(node).Addr, netip.MustParseAddr("10.201.0.60")
	c.move(t, node, to.String())
	took := await(t, patience, "it is ready at its new address", func() error {
		nodes, err := c.nodes(t.Context(), "n1")
		if err != nil {
			return err
		}
		for _, n := range nodes {
			if n.Hostname == node && (n.Addr != to || n.State != api.NodeReady || !n.Voter) {
				return fmt.Errorf("%s at %s is %s, voter: %v", node, n.Addr, n.State, n.Voter)
			}
		}
		return nil
	})
	t.Logf("the manager is ready at %s, and was at %s, after %.1f s", to, from, took.Seconds())
	// It counts: with another one away there is a quorum only with it.
	if err := c.Kill(t.Context(), "n3"); err != nil {
		t.Fatal(err)
	}
	await(t, patience, "a write without the third manager", func() error {
		_, err := c.Orch(t.Context(), node, "node", "update", node, "--label-add", "moved=yes")
		return err
	})
	if err := c.Start(t.Context(), "n3"); err != nil {
		t.Fatal(err)
	}
	await(t, patience, "all are back", func() error { return c.ready(t.Context(), node, "n1", "n2", "n3") })
	if got, err := c.outside().whoami(c.addr(node, steadyPort)); err != nil || got.Replica == "" {
		t.Errorf("through %s at its new address: %+v, %v", node, got, err)
	}
}

// testReplace loses a manager's machine, and joins another one in its place.
func testReplace(t *testing.T, c *cluster) {
	const node = "n3"
	if err := c.Kill(t.Context(), node); err != nil {
		t.Fatal(err)
	}
	await(t, patience, "the machine is known to be lost", func() error {
		nodes, err := c.nodes(t.Context(), "n1")
		if err == nil && !slices.ContainsFunc(nodes, func(n api.NodeEntry) bool { return n.Hostname == node && n.State == api.NodeDown }) {
			err = fmt.Errorf("%s is not down", node)
		}
		return err
	})
	c.run(t, "n1", "node", "rm", node)
	c.renew(t, node)
	c.joinAs(t, node, api.RoleManager, "n1")
	await(t, patience, "the new machine has a vote", func() error { return c.ready(t.Context(), "n2", "n1", "n2", "n3") })
	if nodes, err := c.nodes(t.Context(), "n2"); err != nil || len(nodes) != 4 {
		t.Errorf("%d nodes, %v", len(nodes), err)
	}
}
