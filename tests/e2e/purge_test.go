package e2e

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/client"

	"github.com/orch-dev/orch/pkg/lab"
)

// A node that leaves with --purge has of orch what it had before orch ran there
// for the first time: nothing, but for the volumes. The same holds for what a lab
// made, once it is down.
func TestPurge(t *testing.T) {
	for _, datapath := range []lab.Datapath{lab.DatapathTC, lab.DatapathXDP} {
		t.Run(string(datapath), func(t *testing.T) {
			name := fmt.Sprintf("e2e-purge-%s-%d", datapath, os.Getpid())
			t.Cleanup(func() {
				if err := lab.Down(context.Background(), name); err != nil {
					t.Error(err)
				}
			})
			l, err := lab.Up(t.Context(), lab.Options{Name: name, Binary: orchProgram, Nodes: 1, Managers: 1})
			if err != nil {
				t.Fatal(err)
			}
			c := &cluster{Lab: l, engine: docker, orch: orchProgram}
			purge(t, c, datapath)
			down(t, c)
		})
	}
}

// guest is a daemon in the namespace of the client.
type guest struct {
	*cluster
	dir, pins string
	daemon    *exec.Cmd
}

// purge has a machine join, run tasks, and leave.
func purge(t *testing.T, c *cluster, datapath lab.Datapath) {
	if err := c.InClient(func() error { return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("0"), 0) }); err != nil {
		t.Fatal(err) // a new namespace has it as the machine has
	}
	var before []string
	await(t, patience, "the addresses are known to be nobody else's", func() error {
		before = c.inventory(t)
		if slices.ContainsFunc(before, func(line string) bool { return strings.Contains(line, "tentative") }) {
			return errors.New("not yet")
		}
		return nil
	})
	g := c.startGuest(t, datapath)
	await(t, patience, "the guest answers", func() error {
		_, err := g.orchErr("info")
		return err
	})
	fresh := g.files(t)
	t.Setenv("PROBE_IMAGE", probeImage("v1"))

	for range 2 { // what the first time leaves would be taken for granted by the second
		g.orchRun(t, "join", strings.TrimSpace(c.run(t, "n1", "join-token", "worker", "-q")))
		c.run(t, "n1", "deploy", "-c", "testdata/guest.yaml", "guest")
		await(t, patience, "the guest serves", func() error {
			_, err := c.on("n1").whoami(lab.ClientAddr.String() + ":8083")
			return err
		})
		objects := kernelObjects(t, g.pins, g.daemon.Process.Pid)
		if len(objects) < 20 {
			t.Errorf("the guest has only %d objects in the kernel: %v", len(objects), objects)
		}
		for _, line := range []string{"/proc/sys/net/ipv4/ip_forward = 1", "/proc/sys/net/ipv6/conf/all/forwarding = 1",
			"/proc/sys/net/ipv4/ip_local_reserved_ports = 48083", "nft list ruleset: table ip orch {"} {
			if slices.Contains(before, line) || !slices.Contains(c.inventory(t), line) {
				t.Errorf("the inventory does not tell what is new on a node: %s", line)
			}
		}

		g.orchRun(t, "leave", "--force", "--purge")
		await(t, patience, "the kernel has none of its objects", func() error { return stillThere(objects) })
		if diff := cmp.Diff(before, c.inventory(t)); diff != "" {
			t.Errorf("of the namespace (-before +after):\n%s", diff)
		}
		if _, err := os.Stat(g.pins); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("pins: %v", err)
		}
		if diff := cmp.Diff(fresh, g.files(t)); diff != "" {
			t.Errorf("files (-of a new node +of this one):\n%s", diff)
		}
		left, err := c.engine.containers(t.Context(), c.Options().Name, true, labelNode+"=guest")
		if err != nil || len(left) > 0 {
			t.Errorf("containers: %v, %v", left, err)
		}
		filter := make(client.Filters).Add("label", labelLab+"="+c.Options().Name, labelNode+"=guest")
		if kept, err := c.engine.VolumeList(t.Context(), client.VolumeListOptions{Filters: filter}); err != nil || len(kept.Items) != 1 {
			t.Errorf("%d volumes, want the one that has a name: %v", len(kept.Items), err)
		}
		c.run(t, "n1", "stack", "rm", "guest")
	}
	g.orchRun(t, "info")
	c.run(t, "n1", "leave", "--force", "--purge")
	await(t, patience, "the engine has no image of orch's own", func() error { return sandboxImageGone(t, c) })
}

// down removes the lab, and with it all that its nodes have in the kernel.
func down(t *testing.T, c *cluster) {
	n := c.Node(1)
	c.run(t, n.Name, "init")
	objects := kernelObjects(t, n.PinDir, c.Status(n).PID)
	if len(objects) < 20 {
		t.Errorf("%s has only %d objects in the kernel: %v", n.Name, len(objects), objects)
	}
	name := c.Options().Name
	if out, err := exec.CommandContext(t.Context(), c.orch, "lab", "down", "--name", name).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	await(t, patience, "the kernel has none of the lab's objects", func() error { return stillThere(objects) })
	found, err := c.engine.containers(t.Context(), name, true)
	if err != nil || len(found) > 0 {
		t.Errorf("containers: %v, %v", found, err)
	}
	filter := make(client.Filters).Add("label", labelLab+"="+name)
	if volumes, err := c.engine.VolumeList(t.Context(), client.VolumeListOptions{Filters: filter}); err != nil || len(volumes.Items) > 0 {
		t.Errorf("volumes: %v, %v", volumes, err)
	}
	for _, pattern := range []string{filepath.Dir(n.PinDir), filepath.Dir(n.StateDir), filepath.Dir(n.RunDir), "/run/netns/orch-" + name + "-*"} {
		if paths, err := filepath.Glob(pattern); err != nil || len(paths) > 0 {
			t.Errorf("left: %v, %v", paths, err)
		}
	}
}

func (c *cluster) startGuest(t *testing.T, datapath lab.Datapath) *guest {
	t.Helper()
	g := &guest{cluster: c, dir: t.TempDir(), pins: filepath.Join(filepath.Dir(c.Node(1).PinDir), "guest")}
	g.daemon = exec.Command(c.orch, "daemon", "--lab", c.Options().Name, "--hostname", "guest", "--datapath", string(datapath),
		"--state-dir", filepath.Join(g.dir, "state"), "--run-dir", filepath.Join(g.dir, "run"), "--pin-dir", g.pins,
		"--advertise-addr", lab.ClientAddr.String(), "--metrics-addr", "")
	log, err := os.Create(filepath.Join(g.dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	g.daemon.Stdout, g.daemon.Stderr = log, log
	if err := c.Spawn(lab.ClientName, g.daemon); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = g.daemon.Process.Kill()
		_ = g.daemon.Wait()
		if text, err := os.ReadFile(log.Name()); t.Failed() && err == nil {
			t.Logf("the guest's log:\n%s", text)
		}
	})
	return g
}

func (g *guest) orchErr(args ...string) (string, error) {
	host := "unix://" + filepath.Join(g.dir, "run", "orch.sock")
	out, err := exec.Command(g.orch, append([]string{"--host", host}, args...)...).CombinedOutput()
	return string(out), err
}

func (g *guest) orchRun(t *testing.T, args ...string) {
	t.Helper()
	if out, err := g.orchErr(args...); err != nil {
		t.Fatalf("orch %s on the guest: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// files are the names of all that is in the state and the run directory.
func (g *guest) files(t *testing.T) []string {
	t.Helper()
	var names []string
	for _, dir := range []string{"state", "run"} {
		err := filepath.WalkDir(filepath.Join(g.dir, dir), func(path string, _ fs.DirEntry, err error) error {
			names = append(names, strings.TrimPrefix(path, g.dir))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return names
}

// inventory is what there is of interfaces, addresses, routes, rules, neighbours,
// filters, firewall and settings in the namespace of the client, line by line.
func (c *cluster) inventory(t *testing.T) []string {
	t.Helper()
	var lines []string
	for _, command := range []string{
		"ip -o -d link", "ip -o addr", "ip -o rule", "ip -o -6 rule", "ip -o route show table all", "ip -o -6 route show table all",
		"ip neigh show nud permanent", "tc qdisc", "tc filter show dev eth0 ingress", "tc filter show dev eth0 egress",
		"tc filter show dev lo ingress", "nft list ruleset",
	} {
		out, err := c.Exec(t.Context(), lab.ClientName, strings.Fields(command)...)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(out)) {
			lines = append(lines, command+": "+strings.TrimSpace(line))
		}
	}
	err := c.InClient(func() error {
		return filepath.WalkDir("/proc/sys/net", func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || volatile[entry.Name()] {
				return err
			}
			if value, err := os.ReadFile(path); err == nil { // some are for writing alone
				lines = append(lines, path+" = "+strings.TrimSpace(string(value)))
			}
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

// volatile are settings that are counters.
var volatile = map[string]bool{"nf_conntrack_count": true}

// object is a thing of the kernel's eBPF.
type object struct {
	kind string // prog, map, link
	id   uint32
}

// kernelObjects are those that are pinned below a directory, held open by a
// process, used by one of these programs, or part of one of these maps.
func kernelObjects(t *testing.T, pinDir string, pid int) map[object]bool {
	t.Helper()
	objects := make(map[object]bool)
	infos, err := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range infos {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it was closed
		}
		for line := range strings.Lines(string(text)) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), ":")
			kind, isID := strings.CutSuffix(key, "_id")
			id, err := strconv.ParseUint(strings.TrimSpace(value), 10, 32)
			if isID && err == nil && (kind == "prog" || kind == "map" || kind == "link") {
				objects[object{kind, uint32(id)}] = true
			}
		}
	}
	pins, err := filepath.Glob(filepath.Join(pinDir, "links", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, pin := range pins {
		l, err := link.LoadPinnedLink(pin, nil)
		if err != nil {
			continue // the mark of a filter
		}
		info, err := l.Info()
		if err != nil {
			t.Fatal(err)
		}
		objects[object{"link", uint32(info.ID)}], objects[object{"prog", uint32(info.Program)}] = true, true
		l.Close()
	}
	if pins, err = filepath.Glob(filepath.Join(pinDir, "maps", "*")); err != nil {
		t.Fatal(err)
	}
	for _, pin := range pins {
		noteMap(t, pin, objects)
	}
	return objects
}

// noteMap notes a pinned map, and those in it.
func noteMap(t *testing.T, pin string, objects map[object]bool) {
	t.Helper()
	m, err := ebpf.LoadPinnedMap(pin, &ebpf.LoadPinOptions{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	info, err := m.Info()
	if err != nil {
		t.Fatal(err)
	}
	id, _ := info.ID()
	objects[object{"map", uint32(id)}] = true
	if m.Type() != ebpf.ArrayOfMaps {
		return
	}
	var key, inner uint32
	for all := m.Iterate(); all.Next(&key, &inner); {
		objects[object{"map", inner}] = true
	}
}

// stillThere reports those objects that the kernel still has.
func stillThere(objects map[object]bool) error {
	var errs []error
	for o := range objects {
		var err error
		switch o.kind {
		case "prog":
			var p *ebpf.Program
			if p, err = ebpf.NewProgramFromID(ebpf.ProgramID(o.id)); err == nil {
				err = fmt.Errorf("%v", p)
				p.Close()
			}
		case "map":
			var m *ebpf.Map
			if m, err = ebpf.NewMapFromID(ebpf.MapID(o.id)); err == nil {
				err = fmt.Errorf("%v", m)
				m.Close()
			}
		case "link":
			var l link.Link
			if l, err = link.NewFromID(link.ID(o.id)); err == nil {
				err = fmt.Errorf("link %d", o.id)
				l.Close()
			}
		}
		if !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// sandboxImageGone reports the image that orch makes, unless something of another
// lab is made of it.
func sandboxImageGone(t *testing.T, c *cluster) error {
	const name = "orch/sandbox:1"
	users, err := c.engine.ContainerList(t.Context(), client.ContainerListOptions{All: true, Filters: make(client.Filters).Add("ancestor", name)})
	if err != nil || len(users.Items) > 0 {
		return err
	}
	images, err := c.engine.ImageList(t.Context(), client.ImageListOptions{Filters: make(client.Filters).Add("reference", name)})
	if err == nil && len(images.Items) > 0 {
		err = fmt.Errorf("image %s is left", name)
	}
	return err
}
