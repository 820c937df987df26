package netdev

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/orch-dev/orch/pkg/api"
)

// gateway6 is the next hop of every task in IPv6, and like Gateway nobody's.
var gateway6 = netip.MustParseAddr("fe80::1")

// minMTU6 is the least that a device must carry to have IPv6 (RFC 8200, section 5).
const minMTU6 = 1280

// lastMetric makes a route the last that the kernel would take.
const lastMetric = 1<<32 - 1

// hasIPv6 reports whether the kernel has IPv6, and it is not turned off here.
func hasIPv6() bool {
	off, err := os.ReadFile("/proc/sys/net/ipv6/conf/lo/disable_ipv6")
	return err == nil && strings.TrimSpace(string(off)) == "0"
}

// address6 is the task's IPv6 address beside its IPv4 address; invalid where
// tasks have none: without a prefix, without IPv6 in the kernel, or on a device
// too narrow for it.
func (l *Links) address6(addr netip.Addr, mtu int) netip.Addr {
	if !l.cfg.Pool6.IsValid() || mtu < minMTU6 || !hasIPv6() {
		return netip.Addr{}
	}
	return api.Address6(l.cfg.Pool6, addr)
}

// setupIPv6 lets the node forward what tasks send to the outside. A node that
// forwards heeds no router advertisements unless told to: where it did, it is.
func (l *Links) setupIPv6() error {
	if !l.cfg.Pool6.IsValid() || !hasIPv6() {
		return nil
	}
	if err := l.heedRouters(); err != nil {
		return err
	}
	if err := l.cfg.Sysctl("net/ipv6/conf/all/forwarding", "1"); err != nil {
		return err
	}
	// The programs tell an address of the node from one that no route leads to
	// by what the routing table says of the latter.
	if err := netlink.RouteReplace(nowhere6()); err != nil {
		return fmt.Errorf("set the route of last resort: %w", err)
	}
	return nil
}

// heedRouters lets devices that take router advertisements go on when the node
// begins to forward (2: even then).
func (l *Links) heedRouters() error {
	settings, err := filepath.Glob("/proc/sys/net/ipv6/conf/*/accept_ra")
	if err != nil {
		return err
	}
	for _, path := range settings {
		now, err := os.ReadFile(path)
		if err != nil || strings.TrimSpace(string(now)) != "1" {
			continue // also a device that has just gone
		}
		if err := l.cfg.Sysctl(strings.TrimPrefix(path, "/proc/sys/"), "2"); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

func nowhere6() *netlink.Route {
	return &netlink.Route{
		Family:   netlink.FAMILY_V6,
		Dst:      &net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)},
		Type:     unix.RTN_UNREACHABLE,
		Priority: lastMetric,
	}
}

func removeNowhere6() error {
	err := netlink.RouteDel(nowhere6())
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return withoutIPv6(err)
}

// configureTask6 gives the task's end its IPv6 address and route. The engine
// turns IPv6 off in a sandbox without networks of its own.
func configureTask6(inside *netlink.Handle, ns *os.File, eth0 netlink.Link, addr netip.Addr, pathMTU int) error {
	if !addr.IsValid() {
		return nil
	}
	err := doIn(ns, func() error {
		for _, device := range []string{"lo", taskDevice} {
			if err := sysctl("net/ipv6/conf/"+device+"/disable_ipv6", "0"); err != nil {
				return err
			}
		}
		return sysctl("net/ipv6/conf/"+taskDevice+"/accept_ra", "0")
	})
	if err != nil {
		return err
	}
	index := eth0.Attrs().Index
	if err := inside.AddrReplace(eth0, &netlink.Addr{IPNet: single(addr), Flags: unix.IFA_F_NODAD}); err != nil {
		return fmt.Errorf("address %s: %w", addr, err)
	}
	if err := inside.NeighSet(neighbour(index, gateway6, Gateway)); err != nil {
		return fmt.Errorf("gateway %s: %w", gateway6, err)
	}
	route := &netlink.Route{
		LinkIndex: index,
		Dst:       &net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)},
		Gw:        gateway6.AsSlice(),
	}
	if pathMTU >= minMTU6 {
		route.MTU = pathMTU
	}
	if err := inside.RouteReplace(route); err != nil {
		return fmt.Errorf("default route: %w", err)
	}
	return nil
}

// configureHost6 leads the node to the task's IPv6 address.
func configureHost6(name string, index int, addr, addr6 netip.Addr) error {
	if !addr6.IsValid() {
		return nil
	}
	if err := sysctl("net/ipv6/conf/"+name+"/disable_ipv6", "0"); err != nil {
		return err
	}
	if err := netlink.NeighSet(neighbour(index, addr6, addr)); err != nil {
		return fmt.Errorf("set neighbour %s: %w", addr6, err)
	}
	if err := netlink.RouteReplace(&netlink.Route{LinkIndex: index, Dst: single(addr6)}); err != nil {
		return fmt.Errorf("set route to %s: %w", addr6, err)
	}
	return nil
}
