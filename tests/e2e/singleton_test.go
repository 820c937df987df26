package e2e

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/lab"
)

// singletonLease makes trials short: a node may be silent for three times as
// long until its singletons have ended.
const singletonLease = api.MinLease

// fault is one way in which a node is lost, and the way back.
type fault struct {
	name       string
	lose, back func(t *testing.T, c *cluster, node string) error
}

var faults = []fault{
	{"partition", func(_ *testing.T, c *cluster, node string) error { return c.Cut(node) },
		func(_ *testing.T, c *cluster, node string) error { return c.Heal(node) }},
	{"paused daemon", func(_ *testing.T, c *cluster, node string) error { return c.Pause(node) },
		func(_ *testing.T, c *cluster, node string) error { return c.Resume(node) }},
	{"killed daemon", func(t *testing.T, c *cluster, node string) error { return c.KillDaemon(t.Context(), node) },
		func(t *testing.T, c *cluster, node string) error { return c.Start(t.Context(), node) }},
}

const (
	lone       = "lone"
	singletons = 6
)

// TestSingletons loses the node of the most singletons in every way, again and
// again. Each is started elsewhere each time, which is a trial, and never do two of
// a service run: they would have written so.
func TestSingletons(t *testing.T) {
	c := newCluster(t, lab.Options{Datapath: lab.DatapathTC, Lease: singletonLease})
	trials := setting(t, trialsVariable, 10)
	dir := t.TempDir()
	t.Setenv("HOLD_DIR", dir)
	c.deploy(t, lone, "v1")
	was := map[api.TaskID]bool{} // tasks that have lost their node
	for trial, loss := 0, 0; trial < trials; loss++ {
		f := faults[loss%len(faults)]
		var tasks []api.TaskEntry
		await(t, 3*patience, "the singletons run", func() (err error) {
			tasks, err = c.holding(t, dir, was)
			return err
		})
		node, lost := most(tasks)
		await(t, patience, "all nodes are there", func() error { return c.allReady(t, node) })
		if err := f.lose(t, c, node); err != nil {
			t.Fatal(err)
		}
		took := await(t, 3*patience, "they run elsewhere", func() error {
			for _, task := range lost {
				if last := lastHolder(t, filepath.Join(dir, task.ServiceName)); last == replica(task) {
					return fmt.Errorf("%s of %s still holds", last, task.ServiceName)
				}
			}
			return nil
		})
		for _, task := range lost {
			was[task.ID] = true
		}
		trial += len(lost)
		t.Logf("trials to %d, %s of %s with %d singletons: taken over after %.2f s", trial, f.name, node, len(lost), took.Seconds())
		if err := f.back(t, c, node); err != nil {
			t.Fatal(err)
		}
	}
	handovers := 0
	files, err := filepath.Glob(filepath.Join(dir, "lone_*"))
	if err != nil || len(files) != singletons {
		t.Fatalf("files: %v, %v", files, err)
	}
	for _, file := range files {
		handovers += neverTwo(t, file)
	}
	if handovers < trials {
		t.Errorf("%d tasks held after another in %d trials", handovers, trials)
	}
}

// neverTwo checks that nobody held a file while another did, and returns how
// often one held it after another.
func neverTwo(t *testing.T, file string) int {
	t.Helper()
	spans := holders(t, file)
	var gaps []time.Duration
	for i := 1; i < len(spans); i++ {
		gap := spans[i].first - spans[i-1].last
		if gaps = append(gaps, gap.Round(time.Millisecond)); gap <= 0 {
			t.Errorf("%s: %s and %s ran at the same time, for %v", filepath.Base(file), spans[i-1].who, spans[i].who, -gap)
		}
	}
	t.Logf("%s: %d tasks, between one and the next %v", filepath.Base(file), len(spans), gaps)
	return len(spans) - 1
}

// holding are the singletons' tasks that run, as any manager that answers says:
// one of each service, which writes so, and none that has lost its node.
func (c *cluster) holding(t *testing.T, dir string, was map[api.TaskID]bool) ([]api.TaskEntry, error) {
	err := errors.New("no manager answers")
	for _, asked := range c.managers() {
		var tasks []api.TaskEntry
		if tasks, err = c.tasks(t.Context(), asked, lone); err != nil {
			continue
		}
		tasks = slices.DeleteFunc(tasks, func(task api.TaskEntry) bool {
			return was[task.ID] || task.Desired != api.DesiredRun || task.Status.State != api.TaskRunning ||
				lastHolder(t, filepath.Join(dir, task.ServiceName)) != replica(task)
		})
		if len(tasks) == singletons {
			return tasks, nil
		}
		err = fmt.Errorf("%d do", len(tasks))
	}
	return nil, err
}

// most is the node with the most of the tasks, and those.
func most(tasks []api.TaskEntry) (node string, there []api.TaskEntry) {
	on := map[string][]api.TaskEntry{}
	for _, task := range tasks {
		on[task.NodeName] = append(on[task.NodeName], task)
	}
	for _, name := range slices.Sorted(maps.Keys(on)) {
		if len(on[name]) > len(there) {
			node, there = name, on[name]
		}
	}
	return node, there
}

// allReady checks that every node is ready, as one says that is not to be lost.
func (c *cluster) allReady(t *testing.T, node string) error {
	nodes, err := c.nodes(t.Context(), c.names(node)[0])
	for _, n := range nodes {
		if n.State != api.NodeReady {
			err = fmt.Errorf("%s is %s", n.Hostname, n.State)
		}
	}
	return err
}

// lastHolder is who wrote the last whole line, "" if nobody has: the end of a line
// that lies on two pages comes later than its begin.
func lastHolder(t *testing.T, file string) string {
	t.Helper()
	const enough = 4 << 10 // for some lines
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	tail, err := io.ReadAll(io.NewSectionReader(f, max(0, info.Size()-enough), enough))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(tail), "\n") // of which the last is none, or not whole
	if len(lines) < 2 {
		return ""
	}
	who, _, _ := strings.Cut(lines[len(lines)-2], " ")
	return who
}

// span is from when to when somebody is known to have run.
type span struct {
	who         string
	first, last time.Duration
}

// holders are all who held, in the order in which they began.
func holders(t *testing.T, file string) []span {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	at := map[string]*span{}
	for line := range strings.Lines(string(content)) {
		who, text, _ := strings.Cut(strings.TrimSpace(line), " ")
		ns, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			t.Fatalf("line %q: %v", line, err)
		}
		when := time.Duration(ns)
		if at[who] == nil {
			at[who] = &span{who, when, when}
		}
		at[who].first, at[who].last = min(at[who].first, when), max(at[who].last, when)
	}
	var spans []span
	for _, s := range at {
		spans = append(spans, *s)
	}
	slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.first, b.first) })
	return spans
}
