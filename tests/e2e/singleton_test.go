package e2e

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/orch-dev/orch/pkg/api"
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

// testSingleton loses the node of a singleton in every way, again and again. It
// is started elsewhere each time, and never do two run: they would have written
// so.
func testSingleton(t *testing.T, c *cluster) {
	trials := setting(t, trialsVariable, 10)
	dir := t.TempDir()
	t.Setenv("HOLD_DIR", dir)
	c.deploy(t, "lone", "v1")
	t.Cleanup(func() {
		if out, err := c.Orch(context.Background(), "n1", "stack", "rm", "lone"); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
	holder := ""
	for trial := range trials {
		f := faults[trial%len(faults)]
		var node string
		await(t, 3*patience, "the singleton runs", func() error {
			task, err := c.lone(t)
			if err == nil && string(task.ID[:12]) == holder {
				err = fmt.Errorf("%s is the one of before", task.Name())
			}
			if err == nil {
				node, holder = task.NodeName, string(task.ID[:12])
			}
			return err
		})
		await(t, patience, "all nodes are there", func() error { return c.allReady(t, node) })
		if err := f.lose(t, c, node); err != nil {
			t.Fatal(err)
		}
		took := await(t, 3*patience, "it runs elsewhere", func() error {
			last := lastHolder(t, filepath.Join(dir, "log"))
			if last == holder {
				return fmt.Errorf("%s still holds", last)
			}
			return nil
		})
		t.Logf("trial %d, %s of %s: taken over after %.2f s", trial+1, f.name, node, took.Seconds())
		if err := f.back(t, c, node); err != nil {
			t.Fatal(err)
		}
	}
	spans := holders(t, filepath.Join(dir, "log"))
	if len(spans) < trials+1 {
		t.Errorf("%d tasks held in %d trials", len(spans), trials)
	}
	for i := 1; i < len(spans); i++ {
		if gap := spans[i].first - spans[i-1].last; gap <= 0 {
			t.Errorf("%s and %s ran at the same time, for %v", spans[i-1].who, spans[i].who, -gap)
		} else {
			t.Logf("%v between one and the next", gap.Round(time.Millisecond))
		}
	}
}

// lone is the singleton's task that runs, as any manager that answers says.
func (c *cluster) lone(t *testing.T) (api.TaskEntry, error) {
	err := fmt.Errorf("no manager answers")
	for _, asked := range c.managers() {
		var tasks []api.TaskEntry
		if tasks, err = c.serving(t.Context(), asked, "lone_lone"); err == nil {
			if len(tasks) == 1 {
				return tasks[0], nil
			}
			err = fmt.Errorf("%d tasks run", len(tasks))
		}
	}
	return api.TaskEntry{}, err
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

// lastHolder is who wrote the last line: a line is written at once.
func lastHolder(t *testing.T, file string) string {
	t.Helper()
	const enough = 4 << 10 // for some lines
	f, err := os.Open(file)
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
	lines := strings.Split(strings.TrimSuffix(string(tail), "\n"), "\n")
	who, _, _ := strings.Cut(lines[len(lines)-1], " ")
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
