package netdev

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/orch-dev/orch/pkg/api"
)

// Link is the interface a task is to have.
type Link struct {
	Task api.TaskID
	// NetNS is the path of the task's network namespace, for instance
	// /proc/PID/ns/net.
	NetNS string
	Addr  netip.Addr
	// Encrypted: its packets are encrypted between nodes, which leaves them
	// api.TunnelOverhead less of the interface's MTU.
	Encrypted bool
}

// pathMTU is what the task's routes say, 0 where it is the interface's MTU. That
// stays as it is, so that the task takes what others send to it at theirs.
func (want Link) pathMTU(mtu int) int {
	if !want.Encrypted {
		return 0
	}
	return mtu - api.TunnelOverhead
}

// Attach gives a task its interface, and returns the index of the host side.
// The task side is called eth0. If the task has that interface already it is
// left as it is, apart from settings that are missing; a half-made one is made
// anew.
func (l *Links) Attach(ctx context.Context, want Link) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	index, err := l.attach(want)
	if err != nil {
		return 0, fmt.Errorf("attach interface of task %s: %w", want.Task, err)
	}
	return index, nil
}

// Detach removes a task's interface, if it has one.
func (l *Links) Detach(ctx context.Context, task api.TaskID) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	link, err := l.find(task)
	if err != nil || link == nil {
		return err
	}
	if err := deleteLink(link); err != nil {
		return fmt.Errorf("delete interface of task %s: %w", task, err)
	}
	return nil
}

func (l *Links) attach(want Link) (int, error) {
	ns, err := os.Open(want.NetNS)
	if err != nil {
		return 0, fmt.Errorf("open network namespace: %w", err)
	}
	defer ns.Close()
	inside, err := netlink.NewHandleAt(netns.NsHandle(ns.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		return 0, fmt.Errorf("open netlink in %s: %w", want.NetNS, err)
	}
	defer inside.Close()

	host, err := l.find(want.Task)
	if err != nil {
		return 0, err
	}
	if host != nil && !l.joined(host, inside, ns, want) {
		if err := deleteLink(host); err != nil {
			return 0, fmt.Errorf("delete earlier %s: %w", host.Attrs().Name, err)
		}
		host = nil
	}
	if host == nil {
		if host, err = l.create(ns, want); err != nil {
			return 0, err
		}
	}
	// Inside first: what the host sends then finds the task's side ready.
	addr6 := l.address6(want.Addr, host.Attrs().MTU)
	if err := configureTask(inside, ns, want.Addr, addr6, want.pathMTU(host.Attrs().MTU)); err != nil {
		return 0, err
	}
	if err := l.configureHost(host, want.Addr, addr6); err != nil {
		return 0, fmt.Errorf("configure %s: %w", host.Attrs().Name, err)
	}
	return host.Attrs().Index, nil
}

// find returns the host side of a task's pair, half-made ones included, or nil.
func (l *Links) find(task api.TaskID) (netlink.Link, error) {
	name := DeviceName(task)
	link, err := netlink.LinkByName(name)
	if isNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up %s: %w", name, err)
	}
	if link.Attrs().Alias != l.alias(task) && !halfMade(link) {
		return nil, fmt.Errorf("interface %s exists and is not of task %s (alias %q)", name, task, link.Attrs().Alias)
	}
	return link, nil
}

// joined reports whether host and the task's eth0 are the two ends of one pair,
// and have the task's address.
func (l *Links) joined(host netlink.Link, inside *netlink.Handle, ns *os.File, want Link) bool {
	if host.Attrs().Alias != l.alias(want.Task) {
		return false
	}
	peer, err := inside.LinkByName(taskDevice)
	if err != nil || peer.Type() != "veth" {
		return false
	}
	// Indexes repeat between namespaces; the namespace's ID does not.
	id, err := netlink.GetNetNsIdByFd(int(ns.Fd()))
	return err == nil && id == host.Attrs().NetNsID &&
		host.Attrs().ParentIndex == peer.Attrs().Index &&
		peer.Attrs().ParentIndex == host.Attrs().Index &&
		peer.Attrs().HardwareAddr.String() == hardwareAddr(want.Addr).String()
}

// create makes the pair, with one end in the task's namespace from the start.
func (l *Links) create(ns *os.File, want Link) (netlink.Link, error) {
	mtu, err := l.taskMTU()
	if err != nil {
		return nil, err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = DeviceName(want.Task)
	attrs.MTU = mtu
	attrs.HardwareAddr = hardwareAddr(Gateway)
	pair := netlink.NewVeth(attrs)
	pair.PeerName = taskDevice
	pair.PeerHardwareAddr = hardwareAddr(want.Addr)
	pair.PeerNamespace = netlink.NsFd(ns.Fd())
	if err := netlink.LinkAdd(pair); err != nil {
		if errors.Is(err, unix.EEXIST) {
			return nil, fmt.Errorf("%s has an %s that is not the task's: %w", want.NetNS, taskDevice, err)
		}
		return nil, fmt.Errorf("create %s: %w", attrs.Name, err)
	}
	// The kernel takes no alias on creation.
	if err := netlink.LinkSetAlias(pair, l.alias(want.Task)); err != nil {
		return nil, fmt.Errorf("set alias of %s: %w", attrs.Name, err)
	}
	// No IPv6 link-local address, nor the packets that come with having one.
	if err := withoutIPv6(netlink.LinkSetIP6AddrGenMode(pair, addrGenNone)); err != nil {
		return nil, fmt.Errorf("set IPv6 address mode of %s: %w", attrs.Name, err)
	}
	return netlink.LinkByName(attrs.Name)
}

func (l *Links) taskMTU() (int, error) {
	if l.cfg.TaskMTU > 0 {
		return l.cfg.TaskMTU, nil
	}
	uplink, err := netlink.LinkByName(l.cfg.Uplink)
	if err != nil {
		return 0, fmt.Errorf("look up uplink %s: %w", l.cfg.Uplink, err)
	}
	return uplink.Attrs().MTU - api.OverlayOverhead, nil
}

// configureTask sets up the task's end of the pair, and its loopback.
func configureTask(inside *netlink.Handle, ns *os.File, addr, addr6 netip.Addr, pathMTU int) error {
	eth0, err := inside.LinkByName(taskDevice)
	if err != nil {
		return fmt.Errorf("look up task's %s: %w", taskDevice, err)
	}
	lo, err := inside.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("look up task's lo: %w", err)
	}
	index := eth0.Attrs().Index
	steps := []struct {
		what string
		do   func() error
	}{
		{"offloads and sysctls", func() error { return doIn(ns, tuneTask) }},
		{"loopback", func() error { return inside.LinkSetUp(lo) }},
		{"IPv6 address mode", func() error {
			if eth0.Attrs().Flags&net.FlagUp != 0 {
				return nil
			}
			return withoutIPv6(inside.LinkSetIP6AddrGenMode(eth0, addrGenNone))
		}},
		{"address", func() error { return inside.AddrReplace(eth0, &netlink.Addr{IPNet: single(addr)}) }},
		{"link up", func() error { return inside.LinkSetUp(eth0) }},
		{"gateway", func() error { return inside.NeighSet(neighbour(index, Gateway, Gateway)) }},
		{"default route", func() error {
			return inside.RouteReplace(&netlink.Route{
				LinkIndex: index,
				Dst:       &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)},
				Gw:        Gateway.AsSlice(),
				Flags:     int(netlink.FLAG_ONLINK),
				MTU:       pathMTU,
			})
		}},
		{"IPv6", func() error { return configureTask6(inside, ns, eth0, addr6, pathMTU) }},
	}
	for _, step := range steps {
		if err := step.do(); err != nil {
			return fmt.Errorf("set task's %s: %w", step.what, err)
		}
	}
	return nil
}

// tuneTask runs in the task's namespace.
func tuneTask() error {
	if err := SetGRO(taskDevice, true); err != nil {
		return err
	}
	// As Docker's own networks have it: an application that is not root may
	// listen on port 80, and ping.
	if err := sysctl("net/ipv4/ip_unprivileged_port_start", "0"); err != nil {
		return err
	}
	return sysctl("net/ipv4/ping_group_range", "0\t2147483647")
}

// configureHost sets up the node's end of the pair.
func (l *Links) configureHost(host netlink.Link, addr, addr6 netip.Addr) error {
	name, index := host.Attrs().Name, host.Attrs().Index
	// A reply whose source the eBPF program has already translated may have
	// to be routed by the kernel: check that a source is reachable, not how.
	if err := sysctl("net/ipv4/conf/"+name+"/rp_filter", "2"); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(host); err != nil {
		return fmt.Errorf("set up: %w", err)
	}
	if err := netlink.NeighSet(neighbour(index, addr, addr)); err != nil {
		return fmt.Errorf("set neighbour %s: %w", addr, err)
	}
	route := &netlink.Route{LinkIndex: index, Dst: single(addr), Scope: netlink.SCOPE_LINK}
	if uplink, err := netlink.LinkByName(l.cfg.Uplink); err == nil {
		route.Src = firstAddr(uplink)
	}
	if err := netlink.RouteReplace(route); err != nil {
		return fmt.Errorf("set route to %s: %w", addr, err)
	}
	return configureHost6(name, index, addr, addr6)
}

// neighbour is a permanent entry, so that nobody ever asks for it: addr has the
// hardware address of the endpoint.
func neighbour(index int, addr, endpoint netip.Addr) *netlink.Neigh {
	family := unix.AF_INET
	if addr.Is6() {
		family = unix.AF_INET6
	}
	return &netlink.Neigh{
		LinkIndex:    index,
		Family:       family,
		State:        netlink.NUD_PERMANENT,
		IP:           addr.AsSlice(),
		HardwareAddr: hardwareAddr(endpoint),
	}
}

// addrGenNone is IN6_ADDR_GEN_MODE_NONE of linux/if_link.h.
const addrGenNone = 1

// withoutIPv6 passes over the error of a kernel that has no IPv6.
func withoutIPv6(err error) error {
	if errors.Is(err, syscall.EAFNOSUPPORT) || errors.Is(err, syscall.EOPNOTSUPP) {
		return nil
	}
	return err
}
