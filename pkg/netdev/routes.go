package netdev

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// UplinkOf returns the device that holds an address, and its MTU in bytes.
func UplinkOf(addr netip.Addr) (name string, mtu int, err error) {
	links, err := netlink.LinkList()
	if err != nil {
		return "", 0, fmt.Errorf("list links: %w", err)
	}
	for _, link := range links {
		for _, held := range addrsOf(link) {
			if held == addr {
				return link.Attrs().Name, link.Attrs().MTU, nil
			}
		}
	}
	return "", 0, fmt.Errorf("no network interface of this machine has the address %s", addr)
}

// OverlapsRoutes reports the first route of the node, other than a default
// route or one to a task, that shares addresses with prefix.
func OverlapsRoutes(prefix netip.Prefix) (route string, overlap bool, err error) {
	routes, err := netlink.RouteList(nil, unix.AF_INET)
	if err != nil {
		return "", false, fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		if r.Dst == nil {
			continue
		}
		ones, _ := r.Dst.Mask.Size()
		ip, ok := netip.AddrFromSlice(r.Dst.IP)
		if !ok || ones == 0 {
			continue
		}
		dst := netip.PrefixFrom(ip.Unmap(), ones)
		if !dst.Overlaps(prefix) {
			continue
		}
		device := "no device"
		if link, err := netlink.LinkByIndex(r.LinkIndex); err == nil {
			if strings.HasPrefix(link.Attrs().Alias, "orch:") || halfMade(link) {
				continue
			}
			device = link.Attrs().Name
		}
		return fmt.Sprintf("%s dev %s", dst, device), true, nil
	}
	return "", false, nil
}

// DefaultAddr returns the node's address on the device of its default route.
// When there is more than one to choose from it is an error, which says to use
// --advertise-addr.
func DefaultAddr() (netip.Addr, error) {
	route, err := defaultRoute()
	if err != nil {
		return netip.Addr{}, err
	}
	if src, ok := netip.AddrFromSlice(route.Src); ok {
		return src.Unmap(), nil
	}
	link, err := netlink.LinkByIndex(route.LinkIndex)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("look up device of the default route: %w", err)
	}
	name := link.Attrs().Name
	switch addrs := addrsOf(link); len(addrs) {
	case 1:
		return addrs[0], nil
	case 0:
		return netip.Addr{}, fmt.Errorf("%s, the device of the default route, has no IPv4 address: say which address the other nodes reach with --advertise-addr", name)
	default:
		return netip.Addr{}, fmt.Errorf("%s has more than one address (%s): say which one the other nodes reach with --advertise-addr", name, join(addrs))
	}
}

// DefaultDevice returns the device of the default route, "" if there is none or
// more than one to choose from.
func DefaultDevice() string {
	route, err := defaultRoute()
	if err != nil {
		return ""
	}
	link, err := netlink.LinkByIndex(route.LinkIndex)
	if err != nil {
		return ""
	}
	return link.Attrs().Name
}

// defaultRoute returns the default route with the lowest metric.
func defaultRoute() (netlink.Route, error) {
	routes, err := netlink.RouteList(nil, unix.AF_INET)
	if err != nil {
		return netlink.Route{}, fmt.Errorf("list routes: %w", err)
	}
	var best []netlink.Route
	for _, r := range routes {
		if r.Dst != nil {
			if ones, _ := r.Dst.Mask.Size(); ones != 0 {
				continue
			}
		}
		if len(best) > 0 && r.Priority > best[0].Priority {
			continue
		}
		if len(best) > 0 && r.Priority < best[0].Priority {
			best = best[:0]
		}
		best = append(best, r)
	}
	switch {
	case len(best) == 0:
		return netlink.Route{}, errors.New("this machine has no default route: say which address the other nodes reach with --advertise-addr")
	case len(best) > 1 || len(best[0].MultiPath) > 0:
		return netlink.Route{}, errors.New("this machine has more than one default route: say which address the other nodes reach with --advertise-addr")
	}
	return best[0], nil
}

// addrsOf returns the IPv4 addresses of a link that others can reach.
func addrsOf(link netlink.Link) []netip.Addr {
	held, err := netlink.AddrList(link, unix.AF_INET)
	if err != nil {
		return nil // the link went away
	}
	var addrs []netip.Addr
	for _, a := range held {
		if ip, ok := netip.AddrFromSlice(a.IP); ok && a.Scope == unix.RT_SCOPE_UNIVERSE {
			addrs = append(addrs, ip.Unmap())
		}
	}
	return addrs
}

func firstAddr(link netlink.Link) net.IP {
	if addrs := addrsOf(link); len(addrs) > 0 {
		return addrs[0].AsSlice()
	}
	return nil
}

func join(addrs []netip.Addr) string {
	words := make([]string, len(addrs))
	for i, a := range addrs {
		words[i] = a.String()
	}
	return strings.Join(words, ", ")
}
