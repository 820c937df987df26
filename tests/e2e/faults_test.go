package e2e

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/client"

	"github.com/orch-dev/orch/pkg/api"
)

const (
	// loadEach is the pace of new connections while something is broken.
	loadEach = 5 * time.Millisecond
	// cutOff is how long after a node died new connections may still go to its
	// backends.
	cutOff = 2 * time.Second
	// elsewhere is how long after a node died its tasks run on others.
	elsewhere = 10 * time.Second
	// stall is the longest time that a transfer may stand still while a daemon
	// is gone: what a busy machine takes to schedule it.
	stall = 800 * time.Millisecond
	// daemonDown is how long a daemon is gone, less than the lease of 4 s that
	// its tasks are replaced after.
	daemonDown = 2500 * time.Millisecond
)

func testKilledContainer(t *testing.T, c *cluster) {
	before := c.mustServe(t, web)
	victim := before[0]
	load := c.outside().startLoad(c.addrs(c.names(), blogPort), loadEach)
	await(t, patience, "the load runs", atLeast(load, 50))
	killed := time.Now()
	if _, err := c.engine.ContainerKill(t.Context(), victim.Status.ContainerID, client.ContainerKillOptions{Signal: "KILL"}); err != nil {
		t.Fatal(err)
	}
	var after []api.TaskEntry
	took := await(t, patience, "another task in its place", func() (err error) {
		if after, err = c.serving(t.Context(), "n1", web); err != nil {
			return err
		}
		if len(after) != len(before) || slices.Contains(taskIDs(after), victim.ID) {
			return fmt.Errorf("%d tasks serve", len(after))
		}
		return nil
	})
	attempts := load.end()
	t.Logf("replaced after %.1f s", took.Seconds())
	reportCutOff(t, attempts, killed, cutOff)
	for _, task := range before {
		if task.ID != victim.ID && !slices.Contains(containerIDs(after), task.Status.ContainerID) {
			t.Errorf("%s, which was not killed, was replaced", task.Name())
		}
	}
}

func atLeast(l *load, n int) func() error {
	return func() error {
		if got := l.count(); got < n {
			return fmt.Errorf("%d attempts", got)
		}
		return nil
	}
}

// reportCutOff fails the test if a connection that began later than limit after
// the fault failed, or if one did before it. One that was under way when it
// struck may.
func reportCutOff(t *testing.T, attempts []attempt, fault time.Time, limit time.Duration) {
	t.Helper()
	failed := failures(attempts)
	last := time.Duration(0)
	late := 0
	for _, a := range failed {
		offset := a.at.Sub(fault)
		last = max(last, offset)
		if offset < -attemptTime || offset > limit {
			if late++; late <= 5 {
				t.Errorf("a connection to %s failed %v after the fault: %v", a.addr, offset.Round(time.Millisecond), a.err)
			}
		}
	}
	if late > 5 {
		t.Errorf("and %d more", late-5)
	}
	t.Logf("%d new connections, %d failed, the last of them began %.2f s after the fault", len(attempts), len(failed), last.Seconds())
}

// follower is a node that does not lead and has a replica of the service.
func (c *cluster) follower(t *testing.T, service string) string {
	t.Helper()
	leader := c.leader(t, "n1")
	for _, node := range nodesOf(c.mustServe(t, service)) {
		if node != leader {
			return node
		}
	}
	t.Fatalf("no node but the leader %s has a replica of %s", leader, service)
	return ""
}

// testKilledDaemon kills daemons, which nothing but the control plane is to
// notice: first a follower's, then the leader's.
func testKilledDaemon(t *testing.T, c *cluster) {
	t.Run("follower", func(t *testing.T) { killDaemon(t, c, c.follower(t, "probe_echo")) })
	c.settle(t)
	t.Run("leader", func(t *testing.T) { killDaemon(t, c, c.leader(t, "n1")) })
}

func killDaemon(t *testing.T, c *cluster, node string) {
	before := c.mustServe(t, "probe_echo")
	here := map[string]bool{} // replicas on the node
	for _, task := range before {
		here[replica(task)] = task.NodeName == node
	}
	another := c.names(node)[0]
	isIngress, err := c.outside().startStream(c.addr(node, probePort), func(replica string) bool { return !here[replica] })
	if err != nil {
		t.Fatal(err)
	}
	isBackend, err := c.outside().startStream(c.addr(another, probePort), func(replica string) bool { return here[replica] })
	if err != nil {
		t.Fatal(err)
	}
	through := c.outside().startLoad([]string{c.addr(node, probePort)}, loadEach)
	past := c.outside().startLoad(c.addrs(c.names(node), probePort), loadEach)
	await(t, patience, "the load runs", atLeast(through, 50))

	if err := c.KillDaemon(t.Context(), node); err != nil {
		t.Fatal(err)
	}
	killed := time.Now()
	await(t, patience, "it is down for a while", func() error {
		if down := time.Since(killed); down < daemonDown {
			return fmt.Errorf("for %v", down)
		}
		return nil
	})
	if err := c.Start(t.Context(), node); err != nil {
		t.Fatal(err)
	}
	t.Logf("the daemon of %s was gone for %.1f s", node, time.Since(killed).Seconds())
	t.Logf("all as before after another %.1f s", c.settle(t).Seconds())

	noFailures(t, "through the node without a daemon", through.end())
	noFailures(t, "through the others", past.end())
	for what, s := range map[string]*stream{"ingress": isIngress, "backend": isBackend} {
		if err := s.end(stall); err != nil {
			t.Errorf("with the node as %s: %v", what, err)
		}
		t.Logf("with the node as %s: %d MB, the longest pause %v", what, s.bytes>>20, s.longest.Round(time.Millisecond))
	}
	if diff := cmp.Diff(containerIDs(before), containerIDs(c.mustServe(t, "probe_echo"))); diff != "" {
		t.Errorf("containers (-before +after):\n%s", diff)
	}
}

// testCutWire unplugs a node that goes on running, alone, until its tasks have
// been replaced, and plugs it in again.
func testCutWire(t *testing.T, c *cluster) {
	node := c.follower(t, web)
	others := c.names(node)
	load := c.outside().startLoad(c.addrs(others, blogPort), loadEach)
	await(t, patience, "the load runs", atLeast(load, 50))
	cut := time.Now()
	if err := c.Cut(node); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Heal(node); err != nil {
			t.Error(err)
		}
	})
	took := awaitElsewhere(t, c, others, cut)
	reportCutOff(t, load.end(), cut, cutOff)
	if err := c.Heal(node); err != nil {
		t.Fatal(err)
	}
	t.Logf("all tasks ran elsewhere after %.1f s; settled %.1f s after the wire was healed", took.Seconds(), c.settle(t).Seconds())
	answers(t, c, node)
}

// awaitElsewhere waits until all replicas serve on other nodes, long enough to
// see that connections go on as they should, and returns when they did.
func awaitElsewhere(t *testing.T, c *cluster, others []string, since time.Time) time.Duration {
	t.Helper()
	var took time.Duration
	await(t, patience, "all replicas serve on "+fmt.Sprint(others), func() error {
		for _, service := range []string{web, "probe_echo"} {
			tasks, err := c.serving(t.Context(), others[0], service)
			if err != nil {
				return err
			}
			for _, task := range tasks {
				if !slices.Contains(others, task.NodeName) {
					return fmt.Errorf("%s is on %s", task.Name(), task.NodeName)
				}
			}
			if len(tasks) != 3 {
				return fmt.Errorf("%d tasks of %s serve", len(tasks), service)
			}
		}
		if took == 0 {
			took = time.Since(since)
		}
		if time.Since(since) < cutOff+time.Second {
			return fmt.Errorf("%v after the fault is too early to tell", time.Since(since))
		}
		return nil
	})
	if took > elsewhere {
		t.Errorf("all replicas served elsewhere after %.1f s, want less than %v", took.Seconds(), elsewhere)
	}
	return took
}

func testKilledNode(t *testing.T, c *cluster) { killNode(t, c, c.follower(t, web)) }

func testKilledLeader(t *testing.T, c *cluster) { killNode(t, c, c.leader(t, "n1")) }

// killNode cuts a node's power while clients connect through the others, and
// starts it again once its tasks run elsewhere.
func killNode(t *testing.T, c *cluster, node string) {
	others := c.names(node)
	load := c.outside().startLoad(c.addrs(others, blogPort), loadEach)
	await(t, patience, "the load runs", atLeast(load, 50))
	killed := time.Now()
	if err := c.Kill(t.Context(), node); err != nil {
		t.Fatal(err)
	}
	took := awaitElsewhere(t, c, others, killed)
	reportCutOff(t, load.end(), killed, cutOff)
	t.Logf("%s is dead: all its tasks ran elsewhere after %.1f s, %s leads", node, took.Seconds(), c.leader(t, others[0]))
	if err := c.Start(t.Context(), node); err != nil {
		t.Fatal(err)
	}
	t.Logf("settled %.1f s after the node was started again", c.settle(t).Seconds())
	answers(t, c, node)
}

// answers checks that a node that is back serves the published ports.
func answers(t *testing.T, c *cluster, node string) {
	t.Helper()
	for _, port := range []int{blogPort, probePort} {
		if _, err := c.outside().tally(func() (identity, error) { return c.outside().whoami(c.addr(node, port)) }, 60); err != nil {
			t.Errorf("through %s, which is back, to port %d: %v", node, port, err)
		}
	}
}
