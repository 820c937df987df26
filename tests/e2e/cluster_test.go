// Package e2e tests orch from end to end: the real program on the nodes of a
// lab, with real containers of a real Docker Engine and the real programs in
// the kernel, once for each way of attaching them. It needs root and an engine.
//
// Two stacks are there for most of the time: the example blog, deployed as a
// user would, and the probe, whose containers do from inside a task what a test
// asks for.
package e2e

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/lab"
)

// Limits that are generous: a test waits for what it asserts, and these only
// end it when that never comes.
const (
	patience = 90 * time.Second
	upLimit  = 90 * time.Second
	pollEach = 20 * time.Millisecond
)

// cluster is a lab with what the tests need around it.
type cluster struct {
	*lab.Lab
	engine  *engine
	orch    string // the program
	control vantage
}

// newCluster brings up a lab that is gone with the test.
func newCluster(t *testing.T, options lab.Options) *cluster {
	t.Helper()
	options.Name = fmt.Sprintf("e2e-%s-%d", strings.ToLower(t.Name()), os.Getpid())
	options.Binary = cmp.Or(options.Binary, orchProgram)
	t.Cleanup(func() {
		if err := lab.Down(context.Background(), options.Name); err != nil {
			t.Errorf("remove lab: %v", err)
		}
	})
	start := time.Now()
	l, err := lab.Up(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	took := time.Since(start)
	t.Logf("%d nodes ready in %.1f s", len(l.Nodes()), took.Seconds())
	if took > upLimit {
		t.Errorf("the lab took %v to come up, want less than %v", took, upLimit)
	}
	c := &cluster{Lab: l, engine: docker, orch: orchProgram}
	c.startControl(t)
	t.Cleanup(func() {
		if t.Failed() {
			c.logTails(t)
		}
	})
	c.checkDatapath(t)
	return c
}

// controlAddr is where the control answers, in its own namespace.
const controlAddr = "127.0.0.1:8080"

// startControl starts a container of the probe's that is no task. It tells what
// the machine, and not orch, does to programs in containers: all of them together
// may get as little time as one other program.
func (c *cluster) startControl(t *testing.T) {
	t.Helper()
	id, err := c.engine.runControl(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.engine.remove(context.Background(), id); err != nil {
			t.Errorf("remove the control: %v", err)
		}
	})
	if c.control.netns, err = c.engine.netns(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	await(t, patience, "the control answers", func() error {
		_, err := c.control.whoami(controlAddr)
		return err
	})
}

// checkDatapath waits until every node has said how its programs are attached,
// and checks that it is as the lab was told.
func (c *cluster) checkDatapath(t *testing.T) {
	t.Helper()
	await(t, patience, "every node has told its data path", func() error {
		nodes, err := c.nodes(t.Context(), "n1")
		if err != nil {
			return err
		}
		for _, n := range nodes {
			isXDP := strings.Contains(n.Info.Datapath, "xdp native on eth0")
			if n.Info.Datapath == "" || isXDP != (c.Options().Datapath == lab.DatapathXDP) {
				return fmt.Errorf("%s has the data path %q", n.Hostname, n.Info.Datapath)
			}
		}
		return nil
	})
}

// serve answers HTTP at an address of the client until the test ends, and
// returns that address.
func (c *cluster) serve(t *testing.T, addr string, handler http.HandlerFunc) string {
	t.Helper()
	var listener net.Listener
	err := c.InClient(func() (err error) {
		listener, err = net.Listen("tcp", addr)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: handler}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Close()
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return listener.Addr().String()
}

// logTails shows the ends of the daemons' logs.
func (c *cluster) logTails(t *testing.T) {
	const most = 60
	for _, n := range c.Nodes() {
		data, err := os.ReadFile(n.Log())
		if err != nil {
			t.Log(err)
			continue
		}
		lines := strings.Split(strings.TrimSpace(string(data)), "\n")
		t.Logf("the end of the log of %s:\n%s", n.Name, strings.Join(lines[max(0, len(lines)-most):], "\n"))
	}
}

// names are the nodes' names, but those given.
func (c *cluster) names(but ...string) []string {
	var names []string
	for _, n := range c.Nodes() {
		if !slices.Contains(but, n.Name) {
			names = append(names, n.Name)
		}
	}
	return names
}

// managers are the managers' names.
func (c *cluster) managers() []string {
	return slices.DeleteFunc(c.names(), func(name string) bool { return !c.find(name).Manager })
}

// find returns a node.
func (c *cluster) find(node string) *lab.Node {
	n, err := c.Find(node)
	if err != nil {
		panic(err) // the test names a node that no lab has
	}
	return n
}

// addr is a node's address with a port.
func (c *cluster) addr(node string, port int) string {
	return fmt.Sprintf("%s:%d", c.find(node).Addr, port)
}

// addrs are the addresses of nodes with a port.
func (c *cluster) addrs(nodes []string, port int) []string {
	var addrs []string
	for _, n := range nodes {
		addrs = append(addrs, c.addr(n, port))
	}
	return addrs
}

// run runs an orch command on a node, which has to succeed.
func (c *cluster) run(t *testing.T, node string, args ...string) string {
	t.Helper()
	out, err := c.Orch(t.Context(), node, args...)
	if err != nil {
		t.Fatalf("on %s: %v\n%s", node, err, out)
	}
	return string(out)
}

// list runs an orch command that lists things.
func list[T any](ctx context.Context, c *cluster, node string, args ...string) ([]T, error) {
	out, err := c.Orch(ctx, node, append(args, "--format", "json")...)
	if err != nil {
		return nil, err
	}
	var items []T
	if err := json.Unmarshal(out, &items); err != nil {
		return nil, fmt.Errorf("read output of orch %s: %w", strings.Join(args, " "), err)
	}
	return items, nil
}

// Stacks of the tests, and the file and the published port of each.
const (
	blog   = "blog"
	probes = "probe"
	other  = "other"

	blogPort  = 8080
	probePort = 8081
)

func composeFile(stack string) string {
	if stack == blog {
		return filepath.Join(exampleDir, "compose.yaml")
	}
	return filepath.Join("testdata", stack+".yaml")
}

// deploy deploys a stack with the probe's image of that version, and returns
// what the command said.
func (c *cluster) deploy(t *testing.T, stack, version string) string {
	t.Helper()
	t.Setenv("PROBE_IMAGE", probeImage(version))
	return c.run(t, "n1", "deploy", "-c", composeFile(stack), stack)
}

// await waits until check is content, and fails with what it said last.
func await(t *testing.T, limit time.Duration, what string, check func() error) time.Duration {
	t.Helper()
	start := time.Now()
	for {
		err := check()
		took := time.Since(start)
		if err == nil {
			return took
		}
		if took > limit {
			t.Fatalf("%s: not after %v: %v", what, limit, err)
		}
		time.Sleep(pollEach)
	}
}

// tasks are those of a stack, as a node says.
func (c *cluster) tasks(ctx context.Context, node, stack string) ([]api.TaskEntry, error) {
	return list[api.TaskEntry](ctx, c, node, "stack", "ps", stack)
}

// serving are the tasks of a service (STACK_SERVICE) that run and take traffic,
// by slot.
func (c *cluster) serving(ctx context.Context, node, service string) ([]api.TaskEntry, error) {
	tasks, err := list[api.TaskEntry](ctx, c, node, "service", "ps", service)
	return slices.DeleteFunc(tasks, func(task api.TaskEntry) bool {
		return task.Desired != api.DesiredRun || task.Status.State != api.TaskRunning || task.Endpoint.State != api.EndpointReady
	}), err
}

func (c *cluster) mustServe(t *testing.T, service string) []api.TaskEntry {
	t.Helper()
	tasks, err := c.serving(t.Context(), "n1", service)
	if err != nil {
		t.Fatal(err)
	}
	if len(tasks) == 0 {
		t.Fatalf("%s has no task that serves", service)
	}
	return tasks
}

// replica is what a task calls itself: its hostname.
func replica(task api.TaskEntry) string { return string(task.ID[:12]) }

func taskIDs(tasks []api.TaskEntry) []api.TaskID {
	var ids []api.TaskID
	for _, task := range tasks {
		ids = append(ids, task.ID)
	}
	slices.Sort(ids)
	return ids
}

func containerIDs(tasks []api.TaskEntry) []string {
	var ids []string
	for _, task := range tasks {
		ids = append(ids, task.Status.ContainerID)
	}
	slices.Sort(ids)
	return ids
}

func nodesOf(tasks []api.TaskEntry) []string {
	var names []string
	for _, task := range tasks {
		names = append(names, task.NodeName)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// nodes is the list of nodes as one of them says.
func (c *cluster) nodes(ctx context.Context, node string) ([]api.NodeEntry, error) {
	return list[api.NodeEntry](ctx, c, node, "node", "ls")
}

// leader is the name of the node that leads.
func (c *cluster) leader(t *testing.T, asked string) string {
	t.Helper()
	var name string
	await(t, patience, "a leader", func() error {
		nodes, err := c.nodes(t.Context(), asked)
		if err != nil {
			return err
		}
		for _, n := range nodes {
			if n.Leader {
				name = n.Hostname
				return nil
			}
		}
		return fmt.Errorf("no node leads")
	})
	return name
}

// settle waits until the cluster has settled, and returns how long that took.
func (c *cluster) settle(t *testing.T) time.Duration {
	t.Helper()
	return await(t, patience, "the cluster has settled", func() error { return c.settled(t.Context()) })
}

// settled checks that every node is ready, every service is as its spec says,
// and nothing runs twice or that should not.
func (c *cluster) settled(ctx context.Context) error {
	for _, asked := range c.managers() {
		nodes, err := c.nodes(ctx, asked)
		if err != nil {
			return err
		}
		for _, n := range nodes {
			if n.State != api.NodeReady {
				return fmt.Errorf("%s says that %s is %s", asked, n.Hostname, n.State)
			}
			if n.Role == api.RoleManager && !n.Voter {
				return fmt.Errorf("%s says that %s has no vote", asked, n.Hostname)
			}
		}
	}
	services, err := list[api.ServiceEntry](ctx, c, "n1", "service", "ls")
	if err != nil {
		return err
	}
	wanted := map[string]int{}
	for _, s := range services {
		if !s.Status.Converged {
			return fmt.Errorf("%s: %d of %d run: %s", s.Spec.Name, s.Status.Updated, s.Status.Desired, s.Status.Reason)
		}
		if !s.Spec.Mode.Job() { // that is done by now
			wanted[s.Spec.Name] = s.Status.Desired
		}
	}
	return c.once(ctx, wanted)
}

// once checks that so many containers of tasks of each service run, no two of
// them for one slot: one of a global service is on each node.
func (c *cluster) once(ctx context.Context, wanted map[string]int) error {
	containers, err := c.engine.containers(ctx, c.Options().Name, false, labelRole+"="+roleTask)
	if err != nil {
		return err
	}
	running := map[string]int{}
	slots := map[string]string{}
	for _, found := range containers {
		service, node := found.Labels[labelService], found.Labels[labelNode]
		slot := service + "." + found.Labels[labelSlot]
		if found.Labels[labelSlot] == "0" {
			slot += "." + node
		}
		if first, twice := slots[slot]; twice {
			return fmt.Errorf("%s runs twice, on %s and %s", slot, first, node)
		}
		slots[slot] = node
		running[service]++
	}
	if !maps.Equal(running, wanted) {
		return fmt.Errorf("containers that run: %v, want %v", running, wanted)
	}
	return nil
}

// created is when a task's container was made, nanoseconds of Unix time.
func (c *cluster) created(t *testing.T, task api.TaskEntry) int64 {
	t.Helper()
	res, err := c.engine.ContainerInspect(t.Context(), task.Status.ContainerID, client.ContainerInspectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	at, err := time.Parse(time.RFC3339Nano, res.Container.Created)
	if err != nil {
		t.Fatal(err)
	}
	return at.UnixNano()
}
