package netdev

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/orch-dev/orch/pkg/api"
)

const (
	taskA = api.TaskID("a1b2c3d4e5f6g7h8i9j0k1l2m")
	taskB = api.TaskID("z9y8x7w6v5u4t3s2r1q0p9o8n")
)

var (
	addrA = netip.MustParseAddr("10.128.0.5")
	addrB = netip.MustParseAddr("10.128.0.6")

	addrA6 = netip.MustParseAddr("fd00:1:2:3::a80:5")
)

func TestTaskReachesNodeDNSAndOutside(t *testing.T) {
	f := newFabric(t)
	task := newNS(t)
	f.attach(t, Link{Task: taskA, NetNS: task, Addr: addrA})

	listen(t, f.node, netip.AddrPortFrom(netip.IPv6Unspecified(), 8000))
	listen(t, f.outside, netip.AddrPortFrom(netip.IPv6Unspecified(), 8000))
	listen(t, task, netip.AddrPortFrom(netip.IPv6Unspecified(), 80))

	for _, c := range []struct {
		name     string
		from     string
		to       netip.Addr
		port     uint16
		wantSeen netip.Addr
	}{
		{"task to node", task, nodeAddr, 8000, addrA},
		{"task to the node's DNS address", task, dnsAddr, 8000, addrA},
		{"task to the node's neighbour", task, outsideAddr, 8000, nodeAddr},
		{"task to far outside", task, farAddr, 8000, nodeAddr},
		{"node to task", f.node, addrA, 80, nodeAddr},
		{"task to node by IPv6", task, nodeAddr6, 8000, addrA6},
		{"task to the node's neighbour by IPv6", task, outsideAddr6, 8000, nodeAddr6},
		{"task to far outside by IPv6", task, farAddr6, 8000, nodeAddr6},
		{"node to task by IPv6", f.node, addrA6, 80, nodeAddr6},
	} {
		t.Run(c.name, func(t *testing.T) {
			if seen := seenAs(t, c.from, netip.AddrPortFrom(c.to, c.port)); seen != c.wantSeen.String() {
				t.Errorf("seen as %s, want %s", seen, c.wantSeen)
			}
		})
	}
}

// ip returns what the ip command shows in a namespace.
func ip(t *testing.T, ns string, args ...string) string {
	t.Helper()
	var out []byte
	in(t, ns, func() (err error) {
		out, err = exec.Command("ip", args...).CombinedOutput()
		return err
	})
	var lines []string
	for line := range strings.Lines(string(out)) {
		lines = append(lines, strings.Join(strings.Fields(line), " "))
	}
	return strings.Join(lines, "\n")
}

func TestTaskNamespaceAsMade(t *testing.T) {
	f := newFabric(t)
	task := newNS(t)
	f.attach(t, Link{Task: taskA, NetNS: task, Addr: addrA})

	in(t, task, func() error {
		if err := awaitUp("eth0"); err != nil {
			return err
		}
		eth0, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		attrs := eth0.Attrs()
		got := []any{attrs.MTU, attrs.HardwareAddr.String(), attrs.Flags&net.FlagUp != 0}
		want := []any{1450, "02:6f:0a:80:00:05", true}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("eth0 (-want +got):\n%s", diff)
		}
		return nil
	})
	for _, c := range []struct{ show, want string }{
		{"-4 route show", "default via 169.254.1.1 dev eth0 onlink"},
		{"-4 neighbour show", "169.254.1.1 dev eth0 lladdr 02:6f:a9:fe:01:01 PERMANENT"},
		{"-4 -brief address show dev eth0", "eth0@if3 UP 10.128.0.5/32"},
		{"-6 route show default", "default via fe80::1 dev eth0 metric 1024 pref medium"},
		{"-6 neighbour show", "fe80::1 dev eth0 lladdr 02:6f:a9:fe:01:01 PERMANENT"},
		{"-6 -brief address show dev eth0", "eth0@if3 UP fd00:1:2:3::a80:5/128"},
	} {
		if diff := cmp.Diff(c.want, ip(t, task, strings.Fields(c.show)...)); diff != "" {
			t.Errorf("ip %s (-want +got):\n%s", c.show, diff)
		}
	}
}

// What goes to other nodes encrypted has to be shorter; what comes may be as long as
// ever.
func TestEncryptedTask(t *testing.T) {
	f := newFabric(t)
	task := newNS(t)
	f.attach(t, Link{Task: taskA, NetNS: task, Addr: addrA, Encrypted: true})
	for _, c := range []struct{ show, want string }{
		{"-4 route show", "default via 169.254.1.1 dev eth0 onlink mtu 1390"},
		{"-6 route show default", "default via fe80::1 dev eth0 metric 1024 mtu 1390 pref medium"},
	} {
		if got := ip(t, task, strings.Fields(c.show)...); strings.Join(strings.Fields(got), " ") != c.want {
			t.Errorf("%s: %q, want %q", c.show, got, c.want)
		}
	}
	in(t, task, func() error {
		eth0, err := netlink.LinkByName("eth0")
		if err == nil && eth0.Attrs().MTU != 1450 {
			t.Errorf("eth0 has an MTU of %d", eth0.Attrs().MTU)
		}
		return err
	})
}

func TestAttachAgainDisturbsNothing(t *testing.T) {
	f := newFabric(t)
	task := newNS(t)
	link := Link{Task: taskA, NetNS: task, Addr: addrA}
	first := f.attach(t, link)
	listen(t, f.node, netip.AddrPortFrom(netip.IPv4Unspecified(), 8000))

	var updates int
	in(t, f.node, func() error {
		// The kernel tells of a link that came up only some time after it did.
		for _, name := range []string{"up0", DeviceName(taskA)} {
			if err := awaitUp(name); err != nil {
				return err
			}
		}
		changes := make(chan netlink.LinkUpdate, 64)
		done := make(chan struct{})
		defer close(done)
		if err := netlink.LinkSubscribe(changes, done); err != nil {
			return err
		}
		// A daemon that has just started knows nothing but its configuration.
		again, err := New(f.links.cfg).Attach(t.Context(), link)
		if err != nil {
			return err
		}
		if again != first {
			t.Errorf("second Attach gave interface %d, first %d", again, first)
		}
		if err := New(f.links.cfg).Setup(t.Context()); err != nil {
			return err
		}
		updates = len(changes)
		return nil
	})
	if updates != 0 {
		t.Errorf("second Attach changed links %d times", updates)
	}
	seenAs(t, task, netip.AddrPortFrom(nodeAddr, 8000))
}

func TestAttachRedoes(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(t *testing.T, f *fabric, old string)
		// fresh: the task is in a new namespace since.
		fresh bool
	}{
		{name: "died before the alias", spoil: func(t *testing.T, f *fabric, _ string) {
			in(t, f.node, func() error {
				link, err := netlink.LinkByName(DeviceName(taskA))
				if err != nil {
					return err
				}
				return exec.Command("ip", "link", "set", link.Attrs().Name, "alias", "").Run()
			})
		}},
		{name: "died before the addresses", spoil: func(t *testing.T, f *fabric, old string) {
			in(t, old, func() error {
				eth0, err := netlink.LinkByName("eth0")
				if err != nil {
					return err
				}
				return netlink.LinkSetDown(eth0)
			})
		}},
		{name: "route lost", spoil: func(t *testing.T, f *fabric, old string) {
			in(t, f.node, func() error { return exec.Command("ip", "route", "del", addrA.String()).Run() })
		}},
		{name: "sandbox rebuilt", fresh: true, spoil: func(*testing.T, *fabric, string) {}},
		{name: "address changed", spoil: func(t *testing.T, f *fabric, old string) {
			f.attach(t, Link{Task: taskA, NetNS: old, Addr: addrB})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFabric(t)
			task := newNS(t)
			f.attach(t, Link{Task: taskA, NetNS: task, Addr: addrA})
			c.spoil(t, f, task)
			if c.fresh {
				task = newNS(t)
			}
			f.attach(t, Link{Task: taskA, NetNS: task, Addr: addrA})
			listen(t, f.outside, netip.AddrPortFrom(netip.IPv4Unspecified(), 8000))
			seenAs(t, task, netip.AddrPortFrom(farAddr, 8000))
		})
	}
}

func TestAttachRefusesForeignInterfaces(t *testing.T) {
	f := newFabric(t)
	task := newNS(t)
	in(t, f.node, func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = DeviceName(taskA)
		return netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs})
	})
	in(t, f.node, func() error {
		_, err := f.links.Attach(t.Context(), Link{Task: taskA, NetNS: task, Addr: addrA})
		if err == nil || !strings.Contains(err.Error(), "is not of task") {
			t.Errorf("a foreign interface of the same name: got %v", err)
		}
		if err := f.links.Purge(t.Context()); err != nil {
			return err
		}
		_, err = netlink.LinkByName(DeviceName(taskA))
		return err // Purge left it alone
	})
}

func TestListDetachPurge(t *testing.T) {
	f := newFabric(t)
	a := f.attach(t, Link{Task: taskA, NetNS: newNS(t), Addr: addrA})
	b := f.attach(t, Link{Task: taskB, NetNS: newNS(t), Addr: addrB})
	list := func(want map[api.TaskID]int) {
		t.Helper()
		in(t, f.node, func() error {
			got, err := f.links.List(t.Context())
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("List (-want +got):\n%s", diff)
			}
			return err
		})
	}
	list(map[api.TaskID]int{taskA: a, taskB: b})
	for range 2 {
		in(t, f.node, func() error { return f.links.Detach(t.Context(), taskA) })
		list(map[api.TaskID]int{taskB: b})
	}

	in(t, f.node, func() error {
		return exec.Command("nft", "add table ip other; add chain ip other c { type filter hook forward priority 0; policy drop; }").Run()
	})
	for range 2 {
		in(t, f.node, func() error { return f.links.Purge(t.Context()) })
	}
	list(map[api.TaskID]int{})
	if got := ip(t, f.node, "-6", "route", "show", "default"); got != "default via 2001:db8:1::2 dev up0 metric 1024 pref medium" {
		t.Errorf("IPv6 default routes after Purge: %s", got)
	}
	if got := ip(t, f.node, "-4", "-brief", "address", "show", "dev", "lo"); strings.Contains(got, dnsAddr.String()) {
		t.Errorf("address left after Purge: %s", got)
	}
	in(t, f.node, func() error {
		out, err := exec.Command("nft", "list", "tables").CombinedOutput()
		if diff := cmp.Diff("table ip other\n", string(out)); diff != "" {
			t.Errorf("tables after Purge (-want +got):\n%s", diff)
		}
		if chain, blocked, err := ForwardingBlocked(); err != nil || !blocked || chain != "other/c" {
			t.Errorf("ForwardingBlocked() = %q, %v, %v", chain, blocked, err)
		}
		return err
	})
}

func TestRoutesOfTheNode(t *testing.T) {
	f := newFabric(t)
	f.attach(t, Link{Task: taskA, NetNS: newNS(t), Addr: addrA})
	in(t, f.node, func() error {
		if addr, err := DefaultAddr(); err != nil || addr != nodeAddr {
			t.Errorf("DefaultAddr() = %s, %v", addr, err)
		}
		if name, mtu, err := UplinkOf(nodeAddr); err != nil || name != "up0" || mtu != 1500 {
			t.Errorf("UplinkOf(%s) = %s, %d, %v", nodeAddr, name, mtu, err)
		}
		if _, _, err := UplinkOf(farAddr); err == nil {
			t.Errorf("UplinkOf(%s) found a device", farAddr)
		}
		if name := DefaultDevice(); name != "up0" {
			t.Errorf("DefaultDevice() = %q", name)
		}
		// The route to the task itself lies in the pool, and does not count.
		for prefix, want := range map[string]string{
			pool.String():    "",
			"192.0.0.0/8":    "192.0.2.0/24 dev up0",
			"192.0.2.128/25": "192.0.2.0/24 dev up0",
		} {
			route, overlap, err := OverlapsRoutes(netip.MustParsePrefix(prefix))
			if err != nil || route != want || overlap != (want != "") {
				t.Errorf("OverlapsRoutes(%s) = %q, %v, %v; want %q", prefix, route, overlap, err, want)
			}
		}
		if err := give("up0", netip.MustParsePrefix("192.0.2.9/24")); err != nil {
			return err
		}
		if _, err := DefaultAddr(); err == nil || !strings.Contains(err.Error(), "--advertise-addr") {
			t.Errorf("DefaultAddr() with two addresses: %v", err)
		}
		return nil
	})
	in(t, newNS(t), func() error {
		if _, err := DefaultAddr(); err == nil || !strings.Contains(err.Error(), "--advertise-addr") {
			t.Errorf("DefaultAddr() without a route: %v", err)
		}
		if name := DefaultDevice(); name != "" {
			t.Errorf("DefaultDevice() without a route = %q", name)
		}
		return nil
	})
}

func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	l := New(Config{})
	if _, err := l.Attach(ctx, Link{}); err != context.Canceled {
		t.Errorf("Attach: %v", err)
	}
	if err := l.Setup(ctx); err != context.Canceled {
		t.Errorf("Setup: %v", err)
	}
}

func TestDoComesBack(t *testing.T) {
	inode := func(path string) uint64 {
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			t.Fatal(err)
		}
		return st.Ino
	}
	ns := newNS(t)
	before := inode("/proc/thread-self/ns/net")
	var inside uint64
	in(t, ns, func() error { inside = inode("/proc/thread-self/ns/net"); return nil })
	if inside != inode(ns) {
		t.Error("Do ran outside the namespace")
	}
	for range 64 {
		if now := inode("/proc/thread-self/ns/net"); now != before {
			t.Fatal("a thread was left in the namespace")
		}
	}
	if err := Do("/nonexistent", func() error { return nil }); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Do(/nonexistent): %v", err)
	}
}

// A device that is too narrow for IPv6 has none, and one that took router
// advertisements before the node forwarded takes them still.
func TestIPv6WhereItCanBe(t *testing.T) {
	f := newFabric(t)
	in(t, f.node, func() error {
		if got, err := os.ReadFile("/proc/sys/net/ipv6/conf/up0/accept_ra"); string(got) != "2\n" || err != nil {
			t.Errorf("accept_ra of the uplink: %q, %v", got, err)
		}
		return exec.Command("ip", "link", "set", "up0", "mtu", "1300").Run()
	})
	task := newNS(t)
	f.attach(t, Link{Task: taskA, NetNS: task, Addr: addrA})
	if got := ip(t, task, "-6", "-brief", "address", "show", "dev", "eth0"); got != "" {
		t.Errorf("a task whose device carries 1250 bytes has %s", got)
	}

	off := newNS(t)
	in(t, off, func() error {
		return errors.Join(os.WriteFile("/proc/sys/net/ipv6/conf/all/disable_ipv6", []byte("1"), 0),
			exec.Command("ip", "link", "add", "up0", "type", "bridge").Run(), f.links.Setup(t.Context()))
	})
	task = newNS(t)
	in(t, off, func() error {
		_, err := f.links.Attach(t.Context(), Link{Task: taskA, NetNS: task, Addr: addrA})
		return err
	})
	if got := ip(t, task, "-6", "-brief", "address", "show", "dev", "eth0"); got != "" {
		t.Errorf("a task of a node that has IPv6 turned off has %s", got)
	}
}
