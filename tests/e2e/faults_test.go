package e2e

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/client"
	"golang.org/x/sync/errgroup"

	"github.com/orch-dev/orch/pkg/api"
)

const (
	// cutOff is how long after a node died new connections may still go to its
	// backends.
	cutOff = 2 * time.Second
	// elsewhere is how long after a node died its tasks run on others, also where an
	// engine takes seconds to start one; how soon they do is measured by a benchmark.
	elsewhere = 20 * time.Second
	// replaced is how long after a node died others have been made in their place,
	// which takes the managers a lease of 4 s, and no engine.
	replaced = 10 * time.Second
	// daemonDown is how long a daemon is gone, less than the lease of 4 s that
	// its tasks are replaced after, with what it takes to start again.
	daemonDown = 2 * time.Second
	// stall is how long a transfer may stand still while a daemon is gone: what a
	// busy machine takes to schedule it, and much less than until it is back.
	stall = daemonDown / 2
)

func testKilledContainer(t *testing.T, c *cluster) {
	before := c.mustServe(t, web)
	victim := before[0]
	load := c.startLoad(t, c.names(), blogPort)
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
	load.end()
	t.Logf("replaced after %.1f s", took.Seconds())
	load.cutOff(t, killed, cutOff)
	for _, task := range before {
		if task.ID != victim.ID && !slices.Contains(containerIDs(after), task.Status.ContainerID) {
			t.Errorf("%s, which was not killed, was replaced", task.Name())
		}
	}
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
// notice: a follower's, the leader's, and all of them.
func testKilledDaemon(t *testing.T, c *cluster) {
	t.Run("follower", func(t *testing.T) { killDaemons(t, c, c.follower(t, "probe_echo")) })
	c.settle(t)
	t.Run("leader", func(t *testing.T) { killDaemons(t, c, c.leader(t, "n1")) })
	c.settle(t)
	t.Run("all", func(t *testing.T) { killDaemons(t, c, c.names()...) })
}

// killDaemons kills the daemons of some nodes while clients connect, and while
// there are transfers for which the first of them is where they enter, and where
// they come from.
func killDaemons(t *testing.T, c *cluster, nodes ...string) {
	before := c.mustServe(t, "probe_echo")
	first, another := nodes[0], c.names(nodes[0])[0]
	here := map[string]bool{} // replicas on the first
	for _, task := range before {
		here[replica(task)] = task.NodeName == first
	}
	isIngress, err := c.outside().startStream(c.addr(first, probePort), func(replica string) bool { return !here[replica] })
	if err != nil {
		t.Fatal(err)
	}
	isBackend, err := c.outside().startStream(c.addr(another, probePort), func(replica string) bool { return here[replica] })
	if err != nil {
		t.Fatal(err)
	}
	through := c.startLoad(t, []string{first}, probePort)
	past := c.startLoad(t, c.names(first), probePort)

	killed := time.Now()
	for _, node := range nodes {
		if err := c.KillDaemon(t.Context(), node); err != nil {
			t.Fatal(err)
		}
	}
	await(t, patience, "some time without a daemon", func() error {
		if down := time.Since(killed); down < daemonDown {
			return fmt.Errorf("only %v", down)
		}
		return nil
	})
	var starts errgroup.Group
	for _, node := range nodes {
		starts.Go(func() error { return c.Start(t.Context(), node) })
	}
	if err := starts.Wait(); err != nil {
		t.Fatal(err)
	}
	t.Logf("without the daemon of %v for %.1f s", nodes, time.Since(killed).Seconds())
	t.Logf("all as before after another %.1f s", c.settle(t).Seconds())

	through.end()
	past.end()
	through.noFailures(t, "through "+first, killed)
	past.noFailures(t, "through the others", killed)
	for what, s := range map[string]*stream{"ingress": isIngress, "backend": isBackend} {
		if err := s.end(); err != nil {
			t.Errorf("transfer with %s as %s: %v", first, what, err)
		}
		if s.longest > stall && !through.busy(s.when) && !past.busy(s.when) {
			t.Errorf("transfer with %s as %s: it stood still", first, what)
		}
		t.Logf("transfer with %s as %s: %d MB, the longest pause %v, until %v after the fault", first, what, s.bytes>>20,
			s.longest.Round(time.Millisecond), s.when.Sub(killed).Round(time.Millisecond))
	}
	if diff := cmp.Diff(containerIDs(before), containerIDs(c.mustServe(t, "probe_echo"))); diff != "" {
		t.Errorf("containers (-before +after):\n%s", diff)
	}
}

// testCutWire unplugs a node that goes on running, alone, until its tasks have
// been replaced, and plugs it in again. Alone it serves who reaches it, with the
// tasks that it has.
func testCutWire(t *testing.T, c *cluster) {
	node := c.follower(t, "probe_echo")
	others := c.names(node)
	here := map[string]bool{}
	for _, task := range c.mustServe(t, "probe_echo") {
		here[replica(task)] = task.NodeName == node
	}
	load := c.startLoad(t, others, blogPort)
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
	load.end()
	load.cutOff(t, cut, cutOff)
	load.inTime(t, took)
	for range 20 {
		if id, err := c.on(node).whoami(c.addr(node, probePort)); err != nil || !here[id.Replica] {
			t.Errorf("on %s, which is alone: %q answers, %v; want a task of its own", node, id.Replica, err)
		}
	}
	if err := c.Heal(node); err != nil {
		t.Fatal(err)
	}
	t.Logf("all tasks ran elsewhere after %.1f s; settled %.1f s after the wire was healed", took.Seconds(), c.settle(t).Seconds())
	c.addressesDiffer(t)
	answers(t, c, node)
}

// addressesDiffer checks that no two tasks have one address, nor one a service's.
func (c *cluster) addressesDiffer(t *testing.T) {
	t.Helper()
	services, err := list[api.ServiceEntry](t.Context(), c, "n1", "service", "ls")
	if err != nil {
		t.Fatal(err)
	}
	holders := map[netip.Addr]string{}
	hold := func(addr netip.Addr, who string) {
		if first, taken := holders[addr]; taken {
			t.Errorf("%s and %s both have the address %s", first, who, addr)
		}
		holders[addr] = who
	}
	for _, svc := range services {
		if svc.VIP.IsValid() {
			hold(svc.VIP, svc.Spec.Name)
		}
		tasks, err := c.serving(t.Context(), "n1", svc.Spec.Name)
		if err != nil {
			t.Fatal(err)
		}
		for _, task := range tasks {
			hold(task.Endpoint.Addr, task.Name())
		}
	}
	if len(holders) < 4 {
		t.Errorf("only %d addresses are in use: %v", len(holders), holders)
	}
}

// awaitElsewhere waits until all replicas serve on other nodes, long enough to
// see that connections go on as they should, and returns when they did.
func awaitElsewhere(t *testing.T, c *cluster, others []string, since time.Time) time.Duration {
	t.Helper()
	took := map[string]time.Duration{"probe_echo": 0}
	if keeps := c.keepsVolume(t, others); keeps == "" {
		took[web], took["blog_db"] = 0, 0
	} else {
		// The database waits for the node that has its volume, and what depends
		// on it waits for it.
		awaitReason(t, c, others[0], "blog_db", "without the volume blog_posts, which is on "+keeps+" (away)")
	}
	longest := time.Duration(0)
	defer func() { logTasks(t, c, others[0], since) }()
	await(t, 3*patience, "all tasks serve on "+fmt.Sprint(others), func() error {
		for service, already := range took {
			if already > 0 {
				continue
			}
			if err := serveOn(t, c, service, others); err != nil {
				return err
			}
			took[service] = time.Since(since)
			longest = max(longest, took[service])
		}
		if time.Since(since) < cutOff+time.Second {
			return fmt.Errorf("%v after the fault is too early to tell", time.Since(since))
		}
		return nil
	})
	return longest
}

// keepsVolume returns the node with the database's volume, if it is none of these.
func (c *cluster) keepsVolume(t *testing.T, others []string) string {
	t.Helper()
	tasks, err := c.tasks(t.Context(), others[0], blog)
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks { // the newest of a slot first
		if task.ServiceName == "blog_db" && task.NodeName != "" {
			if slices.Contains(others, task.NodeName) {
				return ""
			}
			return task.NodeName
		}
	}
	t.Fatal("the database has never run")
	return ""
}

// awaitReason waits until a task of the service is pending for a reason.
func awaitReason(t *testing.T, c *cluster, asked, service, reason string) {
	t.Helper()
	await(t, patience, service+" waits: "+reason, func() error {
		tasks, err := c.tasks(t.Context(), asked, blog)
		if err != nil {
			return err
		}
		for _, task := range tasks {
			if task.ServiceName == service && strings.Contains(task.Reason, reason) {
				return nil
			}
		}
		return errors.New("no task says so")
	})
}

// inTime fails the test if it took too long until tasks ran elsewhere on a
// machine that had time to start them.
func (l *load) inTime(t *testing.T, took time.Duration) {
	t.Helper()
	switch {
	case took <= elsewhere:
	case l.busyMachine():
		t.Logf("the last task served elsewhere after %.1f s, on a busy machine", took.Seconds())
	default:
		t.Errorf("the last task served elsewhere after %.1f s, want less than %v", took.Seconds(), elsewhere)
	}
}

// logTasks tells when the tasks that are younger than a fault were made and ran.
func logTasks(t *testing.T, c *cluster, asked string, fault time.Time) {
	for _, stack := range []string{blog, probes} {
		tasks, err := c.tasks(t.Context(), asked, stack)
		if err != nil {
			t.Log(err)
		}
		for _, task := range tasks {
			if made := task.CreatedAt.Sub(fault); made > 0 {
				if made > replaced {
					t.Errorf("%s was made %.1f s after the fault, want less than %v", task.Name(), made.Seconds(), replaced)
				}
				t.Logf("%s on %s: made %.1f s after the fault, %s after %.1f s", task.Name(), task.NodeName,
					made.Seconds(), task.Status.State, task.Status.At.Sub(fault).Seconds())
			}
		}
	}
}

// serveOn checks that as many tasks of a service serve as it wants, all of them
// on these nodes.
func serveOn(t *testing.T, c *cluster, service string, nodes []string) error {
	t.Helper()
	tasks, err := c.serving(t.Context(), nodes[0], service)
	if err != nil {
		return err
	}
	wanted := 3
	if service == "blog_db" {
		wanted = 1
	}
	for _, task := range tasks {
		if !slices.Contains(nodes, task.NodeName) {
			return fmt.Errorf("%s is on %s", task.Name(), task.NodeName)
		}
	}
	if len(tasks) != wanted {
		return fmt.Errorf("%d tasks of %s serve", len(tasks), service)
	}
	return nil
}

func testKilledNode(t *testing.T, c *cluster) { killNode(t, c, c.follower(t, web)) }

func testKilledLeader(t *testing.T, c *cluster) { killNode(t, c, c.leader(t, "n1")) }

// killNode cuts a node's power while clients connect through the others, and
// starts it again once its tasks run elsewhere.
func killNode(t *testing.T, c *cluster, node string) {
	others := c.names(node)
	load := c.startLoad(t, others, blogPort)
	killed := time.Now()
	if err := c.Kill(t.Context(), node); err != nil {
		t.Fatal(err)
	}
	took := awaitElsewhere(t, c, others, killed)
	load.end()
	load.cutOff(t, killed, cutOff)
	load.inTime(t, took)
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
