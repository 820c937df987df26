package faults

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// fault is something that is done to a node, and how it is undone.
type fault struct {
	name string
	hit  func(t *testing.T, c *cluster, node string) (undo func())
}

// faults are those of the network and of processes; those of disks need nodes
// with disks of their own.
var faults = []fault{
	{"is killed", func(t *testing.T, c *cluster, node string) func() {
		must(t, c.KillDaemon(context.Background(), node))
		return func() { c.begin(t, node) }
	}},
	{"is stopped", func(t *testing.T, c *cluster, node string) func() {
		pid := c.pid(node)
		must(t, syscall.Kill(pid, syscall.SIGSTOP))
		return func() { must(t, syscall.Kill(pid, syscall.SIGCONT)) }
	}},
	{"is cut off", func(t *testing.T, c *cluster, node string) func() {
		must(t, c.Cut(node))
		return func() { must(t, c.Heal(node)) }
	}},
	{"hears nobody", func(t *testing.T, c *cluster, node string) func() { return c.deaf(t, node, "input", "iif") }},
	{"is not heard", func(t *testing.T, c *cluster, node string) func() { return c.deaf(t, node, "output", "oif") }},
	{"has a full disk", func(t *testing.T, c *cluster, node string) func() {
		if !c.hasDisk(node) {
			return nil
		}
		fill := filepath.Join(c.raftDir(node), "fill")
		f, err := os.Create(fill)
		must(t, err)
		defer f.Close()
		for block := make([]byte, 64<<10); err == nil; _, err = f.Write(block) {
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("fill the disk of %s: %v", node, err)
		}
		return func() {
			must(t, os.Remove(fill))
			c.begin(t, node) // a manager that cannot write may have ended itself
		}
	}},
	{"has a disk that hangs", func(t *testing.T, c *cluster, node string) func() {
		if !c.hasDisk(node) {
			return nil
		}
		run(t, "fsfreeze", "--freeze", c.raftDir(node))
		return func() {
			run(t, "fsfreeze", "--unfreeze", c.raftDir(node))
			c.begin(t, node)
		}
	}},
}

// victim says to whom faults happen.
type victim struct {
	name string
	// of picks those that are hit, and those that are not, of the leader and of the
	// others, which come in any order.
	of func(leader string, others []string, rng *rand.Rand) (hit, rest []string)
}

var victims = []victim{
	{"the leader", func(leader string, others []string, _ *rand.Rand) (hit, rest []string) {
		return []string{leader}, others
	}},
	{"a follower", func(leader string, others []string, _ *rand.Rand) (hit, rest []string) {
		return others[:1], append([]string{leader}, others[1:]...)
	}},
	{"two of three", func(leader string, others []string, rng *rand.Rand) (hit, rest []string) {
		if rng.IntN(2) == 0 {
			return others, []string{leader}
		}
		return []string{leader, others[0]}, others[1:]
	}},
}

// others are the nodes but one, in any order.
func (c *cluster) others(but string, rng *rand.Rand) (names []string) {
	for _, i := range rng.Perm(len(c.Nodes())) {
		if name := c.Nodes()[i].Name; name != but {
			names = append(names, name)
		}
	}
	return names
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func run(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func (c *cluster) pid(node string) int {
	n, err := c.Find(node)
	if err != nil {
		return 0
	}
	return c.Status(n).PID
}

// deaf cuts one direction of a node's wire.
func (c *cluster) deaf(t *testing.T, node, hook, device string) func() {
	table := fmt.Sprintf("table inet faults { chain c { type filter hook %s priority -300; %s != lo drop; }; }", hook, device+"name")
	_, err := c.Exec(context.Background(), node, "nft", table)
	must(t, err)
	return func() {
		_, err := c.Exec(context.Background(), node, "nft", "delete table inet faults")
		must(t, err)
	}
}

func (c *cluster) raftDir(node string) string {
	n, err := c.Find(node)
	if err != nil {
		return ""
	}
	return filepath.Join(n.StateDir, "raft")
}

func (c *cluster) hasDisk(node string) bool { return isMount(c.raftDir(node)) }

func isMount(dir string) bool {
	var here, parent syscall.Stat_t
	return syscall.Stat(dir, &here) == nil && syscall.Stat(filepath.Dir(dir), &parent) == nil && here.Dev != parent.Dev
}

// giveDisks puts each node's log on a small disk of its own.
func (c *cluster) giveDisks(t *testing.T) {
	for _, n := range c.Nodes() {
		must(t, c.KillDaemon(context.Background(), n.Name))
		dir := c.raftDir(n.Name)
		image, before := filepath.Join(n.StateDir, "disk.img"), dir+".before"
		must(t, os.WriteFile(image, nil, 0o600))
		must(t, os.Truncate(image, diskSize))
		run(t, "mkfs.ext4", "-q", "-m", "0", image)
		must(t, os.Rename(dir, before))
		must(t, os.Mkdir(dir, 0o700))
		run(t, "mount", "-o", "loop", image, dir)
		run(t, "cp", "-a", before+"/.", dir)
		must(t, os.RemoveAll(before))
		c.begin(t, n.Name)
	}
}

// diskSize leaves room for some segments of a log.
const diskSize = 400 << 20

// takeDisks unmounts what giveDisks mounted in a lab, frozen or not.
func takeDisks(labName string) error {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return err
	}
	var errs []error
	for line := range strings.Lines(string(mounts)) {
		dir := strings.Fields(line)[1]
		if !strings.HasPrefix(dir, filepath.Join("/var/lib/orch-lab", labName)+"/") {
			continue
		}
		_ = exec.Command("fsfreeze", "--unfreeze", dir).Run() // an error: it is not frozen
		if out, err := exec.Command("umount", "--lazy", dir).CombinedOutput(); err != nil {
			errs = append(errs, fmt.Errorf("umount %s: %w: %s", dir, err, out))
		}
	}
	return errors.Join(errs...)
}
