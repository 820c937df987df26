package e2e

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/lab"
)

// testRemove takes all stacks away, after which only the nodes are left.
func testRemove(t *testing.T, c *cluster) {
	for _, stack := range []string{other, probes, blog} {
		t.Log(c.run(t, "n2", "stack", "rm", stack))
	}
	await(t, patience, "nothing is left", func() error {
		var errs []error
		if stacks, err := list[api.StackEntry](t.Context(), c, "n1", "stack", "ls"); err != nil || len(stacks) > 0 {
			errs = append(errs, fmt.Errorf("stacks: %v, %w", stacks, err))
		}
		containers, err := c.engine.containers(t.Context(), c.Options().Name, true)
		for _, found := range containers {
			errs = append(errs, fmt.Errorf("container %v is %s", found.Names, found.State))
		}
		errs = append(errs, err)
		for _, n := range c.Nodes() {
			errs = append(errs, bare(c, n))
		}
		return errors.Join(errs...)
	})
	for _, node := range c.names() {
		if conn, err := c.outside().dialBriefly("tcp", c.addr(node, blogPort)); err == nil {
			conn.Close()
			t.Errorf("%s still answers on the published port", node)
		}
		if _, err := c.Orch(t.Context(), node, "stack", "ps", blog); err == nil {
			t.Errorf("%s still knows the stack", node)
		}
	}
}

// bare checks that a node has no interface, address, route, map entry or file
// of any task.
func bare(c *cluster, n *lab.Node) error {
	var errs []error
	note := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf(n.Name+": "+format, args...))
	}
	counts, err := mapEntries(n.PinDir)
	if err != nil {
		return err
	}
	for name, count := range counts {
		if count > 0 {
			note("map %s has %d entries", name, count)
		}
	}
	if err := c.In(n.Name, func() error { return bareInterfaces(note) }); err != nil {
		return err
	}
	files, err := os.ReadDir(filepath.Join(n.RunDir, "tasks"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for _, f := range files {
		note("files of task %s", f.Name())
	}
	links, err := filepath.Glob(filepath.Join(n.PinDir, "links", "*task*"))
	if err != nil {
		return err
	}
	for _, link := range links {
		note("pinned program of a task: %s", filepath.Base(link))
	}
	return errors.Join(errs...)
}

// bareInterfaces runs in a node's namespace.
func bareInterfaces(note func(string, ...any)) error {
	links, err := netlink.LinkList()
	if err != nil {
		return err
	}
	for _, link := range links {
		if name := link.Attrs().Name; name != "lo" && name != "eth0" {
			note("interface %s", name)
		}
	}
	pool := netip.MustParsePrefix(api.DefaultPool)
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return err
	}
	for _, route := range routes {
		if addr, ok := netip.AddrFromSlice(route.Dst.IP.To4()); ok && pool.Contains(addr) {
			note("route %s", route)
		}
	}
	return nil
}

// lasting are the maps that do not depend on tasks: settings, members, counters,
// room to work in, and the ways to members.
var lasting = []string{"node_config", "members", "frontend_stats", "backend_stats", "handshakes", "departed", "verdicts", "examples", "packet_room", "hops"}

// mapEntries counts the entries in use of the maps pinned below dir, but those
// that last.
func mapEntries(dir string) (map[string]int, error) {
	pins, err := filepath.Glob(filepath.Join(dir, "maps", "*"))
	if err != nil || len(pins) == 0 {
		return nil, fmt.Errorf("no maps are pinned below %s: %w", dir, err)
	}
	counts := map[string]int{}
	for _, pin := range pins {
		base := filepath.Base(pin)
		name := base[:strings.LastIndex(base, "_")] // the rest is of the layout
		if isLasting(name) {
			continue
		}
		if counts[name], err = entries(pin); err != nil {
			return nil, fmt.Errorf("read map %s: %w", name, err)
		}
	}
	return counts, nil
}

func isLasting(name string) bool {
	for _, l := range lasting {
		if name == l {
			return true
		}
	}
	return false
}

// entries counts those of one map; of an array, those that are not zero.
func entries(pin string) (int, error) {
	m, err := ebpf.LoadPinnedMap(pin, &ebpf.LoadPinOptions{ReadOnly: true})
	if err != nil {
		return 0, err
	}
	defer m.Close()
	count := 0
	var key, value []byte
	for all := m.Iterate(); ; {
		if !all.Next(&key, &value) {
			return count, all.Err()
		}
		if m.Type() != ebpf.Array || strings.Trim(string(value), "\x00") != "" {
			count++
		}
	}
}
