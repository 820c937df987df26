package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/lab"
)

// TestWorker is about nodes that are no managers: they run tasks and answer on
// published ports, and have no say in the cluster.
func TestWorker(t *testing.T) {
	c := newCluster(t, lab.Options{Managers: 1, Datapath: lab.DatapathAuto})
	c.deploy(t, probes, "v1")
	c.settle(t)
	roles := map[string]api.Role{}
	nodes, err := c.nodes(t.Context(), "n1")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		roles[n.Hostname] = n.Role
	}
	if diff := cmp.Diff(map[string]api.Role{"n1": api.RoleManager, "n2": api.RoleWorker, "n3": api.RoleWorker}, roles); diff != "" {
		t.Errorf("roles (-want +got):\n%s", diff)
	}
	for _, args := range [][]string{{"node", "ls"}, {"service", "scale", "probe_echo=1"}, {"join-token", "manager"}, {"stack", "rm", probes}} {
		out, err := c.Orch(t.Context(), "n3", args...)
		if err == nil {
			t.Errorf("a worker answers orch %s:\n%s", strings.Join(args, " "), out)
			continue
		}
		says(t, err.Error(), []string{"n3 is a worker", "n1, " + c.find("n1").Addr.String()})
	}
	says(t, c.run(t, "n3", "info"), []string{"worker", "1, quorum 1, failures tolerated 0", "single point of failure", "MANAGERS   QUORUM   FAILURES TOLERATED", "this cluster"})
	echo := c.mustServe(t, "probe_echo")
	for _, node := range c.names() {
		count, err := c.outside().tally(func() (identity, error) { return c.outside().whoami(c.addr(node, probePort)) }, 300)
		if err != nil {
			t.Errorf("through %s: %v", node, err)
		}
		balanced(t, "through "+node, count, echo, 0.2, 0.47)
		if metrics := c.scrape(t, node); (metrics["orch_raft_state"] != nil) != (roles[node] == api.RoleManager) {
			t.Errorf("%s, a %s, shows the state of Raft: %v", node, roles[node], metrics["orch_raft_state"])
		}
	}
	t.Run("killed daemon", func(t *testing.T) { killDaemons(t, c, "n3") })
	t.Run("killed daemon of the only manager", func(t *testing.T) { killDaemons(t, c, "n1") })
	t.Run("another manager", func(t *testing.T) { replaceManager(t, c, "n1", "n2", "n3") })
	t.Run("autolock", func(t *testing.T) { testAutolock(t, c) })
	t.Run("killed node", func(t *testing.T) { killWorker(t, c, "n2") })
}

// replaceManager makes a worker the only manager and then undoes that. The other
// worker, which knew but the first, goes with them, also through a restart.
func replaceManager(t *testing.T, c *cluster, manager, next, worker string) {
	began := time.Now()
	load := c.startLoad(t, c.names(), probePort)
	for _, change := range [][2]string{{manager, next}, {next, manager}} {
		c.run(t, change[0], "node", "promote", change[1])
		c.run(t, change[1], "node", "demote", change[0])
		await(t, patience, "it is a worker", func() error { return isWorker(t, c, change[0]) })
		restart(t, c, worker)
		says(t, c.run(t, change[1], "info"), []string{"1, quorum 1, failures tolerated 0"})
		await(t, patience, "the worker reports to the new manager", func() error {
			nodes, err := c.nodes(t.Context(), change[1])
			for _, n := range nodes {
				if n.Hostname == worker && (n.State != api.NodeReady || n.Applied == 0) {
					return fmt.Errorf("%s is %s, seen %v ago", n.Hostname, n.State, n.SeenAgo)
				}
			}
			return err
		})
	}
	c.settle(t)
	load.end()
	load.noFailures(t, "through all nodes", began)
}

// killWorker cuts a worker's power, and starts it again once its tasks run
// elsewhere.
func killWorker(t *testing.T, c *cluster, node string) {
	others := c.names(node)
	if err := c.Kill(t.Context(), node); err != nil {
		t.Fatal(err)
	}
	took := await(t, patience, "its tasks run elsewhere", func() error {
		return serveOn(t, c, "probe_echo", others)
	})
	t.Logf("its tasks ran elsewhere after %.1f s", took.Seconds())
	if err := c.Start(t.Context(), node); err != nil {
		t.Fatal(err)
	}
	t.Logf("settled %.1f s after the node was started again", c.settle(t).Seconds())
	if _, err := c.outside().tally(func() (identity, error) {
		id, err := c.outside().whoami(c.addr(node, probePort))
		if err == nil && id.Client != lab.ClientAddr.String() {
			err = fmt.Errorf("%s saw the client %s", id.Replica, id.Client)
		}
		return id, err
	}, 60); err != nil {
		t.Errorf("through %s, which is back: %v", node, err)
	}
}
