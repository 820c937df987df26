package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/rlimit"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/orch-dev/orch/pkg/netdev"
)

// uplink is what a node and the client call their underlay interface; the
// switch names the other end after the member.
const uplink = "eth0"

// makeFabric makes the namespaces and the wires between them.
func (l *Lab) makeFabric() error {
	members := []string{switchName, ClientName}
	for _, n := range l.nodes {
		members = append(members, n.Name)
	}
	for _, member := range members {
		if err := addNamespace(l.namespacePath(member)); err != nil {
			return err
		}
	}
	if err := netdev.Do(l.namespacePath(switchName), l.makeSwitch); err != nil {
		return fmt.Errorf("make switch: %w", err)
	}
	if err := l.join(ClientName, ClientAddr, false); err != nil {
		return err
	}
	for _, addr := range []netip.Addr{OutsideAddr, OutsideAddr6} {
		if err := netdev.Do(l.namespacePath(ClientName), func() error { return addAddr("lo", netip.PrefixFrom(addr, addr.BitLen())) }); err != nil {
			return fmt.Errorf("add outside address %s: %w", addr, err)
		}
	}
	for _, n := range l.nodes {
		if err := l.join(n.Name, n.Addr, l.options.Datapath == DatapathXDP); err != nil {
			return err
		}
	}
	return nil
}

// makeSwitch runs in the switch's namespace.
func (l *Lab) makeSwitch() error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = switchName
	attrs.MTU = l.options.MTU
	bridge := &netlink.Bridge{LinkAttrs: attrs}
	if err := netlink.LinkAdd(bridge); err != nil {
		return err
	}
	return netlink.LinkSetUp(bridge)
}

// join wires a member to the switch, and gives it its address and, unless it is
// the gateway itself, its default route. With xdp the switch's end can take the
// frames that a native XDP program of the member sends.
func (l *Lab) join(member string, addr netip.Addr, xdp bool) error {
	err := netdev.Do(l.namespacePath(switchName), func() error { return l.plugIn(member, addr, xdp) })
	if err != nil {
		return fmt.Errorf("wire %s to the switch: %w", member, err)
	}
	err = netdev.Do(l.namespacePath(member), func() error {
		if err := tune(uplink, l.options.Datapath == DatapathXDP); err != nil {
			return err
		}
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		if err := netlink.LinkSetUp(lo); err != nil {
			return err
		}
		for _, a := range []netip.Prefix{netip.PrefixFrom(addr, underlay.Bits()), netip.PrefixFrom(Addr6(addr), underlay6.Bits())} {
			if err := addAddr(uplink, a); err != nil {
				return err
			}
		}
		if addr == ClientAddr {
			return nil
		}
		for _, gateway := range []netip.Addr{ClientAddr, Addr6(ClientAddr)} {
			if err := netlink.RouteAdd(&netlink.Route{Gw: gateway.AsSlice()}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("configure %s of %s: %w", uplink, member, err)
	}
	return nil
}

// plugIn runs in the switch's namespace.
func (l *Lab) plugIn(member string, addr netip.Addr, xdp bool) error {
	ns, err := os.Open(l.namespacePath(member))
	if err != nil {
		return err
	}
	defer ns.Close()
	bridge, err := netlink.LinkByName(switchName)
	if err != nil {
		return err
	}
	a := addr.As4()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = member
	attrs.MTU = l.options.MTU
	attrs.MasterIndex = bridge.Attrs().Index
	port := netlink.NewVeth(attrs)
	port.PeerName = uplink
	port.PeerNamespace = netlink.NsFd(ns.Fd())
	port.PeerHardwareAddr = net.HardwareAddr{0x02, 0x6c, a[0], a[1], a[2], a[3]}
	if err := netlink.LinkAdd(port); err != nil {
		return fmt.Errorf("create port: %w", err)
	}
	if err := tune(member, l.options.Datapath == DatapathXDP); err != nil {
		return err
	}
	if xdp {
		if err := passXDP(port, l.options.MTU); err != nil {
			return fmt.Errorf("attach XDP program to port: %w", err)
		}
	}
	return netlink.LinkSetUp(port)
}

// tune sets offloads as the XDP programs of a lab need them: frames that they
// redirect arrive only through NAPI, and checksums they cannot finish.
func tune(device string, xdp bool) error {
	if !xdp {
		return nil
	}
	if err := netdev.SetGRO(device, true); err != nil {
		return err
	}
	return netdev.SetTxChecksum(device, false)
}

// frameMTU is what fits one page beside XDP's headroom; above it a program must
// say that it takes frames of several buffers (kernel 5.18).
const frameMTU = 3000

// passXDP attaches a native program that passes every frame. A veth drops what
// its peer sends by XDP_TX unless it has a native program of its own.
func passXDP(port netlink.Link, mtu int) error {
	if err := rlimit.RemoveMemlock(); err != nil {
		return err
	}
	const pass = 2 // XDP_PASS of linux/bpf.h
	spec := &ebpf.ProgramSpec{
		Name:         "lab_pass",
		Type:         ebpf.XDP,
		License:      "Dual BSD/GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, pass), asm.Return()},
	}
	if mtu > frameMTU {
		spec.Flags = unix.BPF_F_XDP_HAS_FRAGS
	}
	program, err := ebpf.NewProgram(spec)
	if err != nil {
		return err
	}
	defer program.Close() // the device holds it
	return netlink.LinkSetXdpFdWithFlags(port, program.FD(), unix.XDP_FLAGS_DRV_MODE)
}

func addAddr(device string, addr netip.Prefix) error {
	link, err := netlink.LinkByName(device)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return err
	}
	ipnet := &net.IPNet{IP: addr.Addr().AsSlice(), Mask: net.CIDRMask(addr.Bits(), addr.Addr().BitLen())}
	// No time is lost in asking whether someone else has an IPv6 address.
	return netlink.AddrAdd(link, &netlink.Addr{IPNet: ipnet, Flags: unix.IFA_F_NODAD})
}

// setPort turns the switch's end of a node's wire on or off.
func (l *Lab) setPort(n *Node, up bool) error {
	return netdev.Do(l.namespacePath(switchName), func() error {
		port, err := netlink.LinkByName(n.Name)
		if err != nil {
			return err
		}
		if up {
			return netlink.LinkSetUp(port)
		}
		return netlink.LinkSetDown(port)
	})
}

// portUp reports whether the switch's end of a node's wire is on.
func (l *Lab) portUp(n *Node) bool {
	var up bool
	err := netdev.Do(l.namespacePath(switchName), func() error {
		port, err := netlink.LinkByName(n.Name)
		up = err == nil && port.Attrs().Flags&net.FlagUp != 0
		return err
	})
	return err == nil && up
}

// unplug deletes the links of the switch, and with them the uplinks of all
// members: namespaces that something is still in lose them at once.
func unplug(switchPath string) error {
	return netdev.Do(switchPath, func() error {
		links, err := netlink.LinkList()
		if err != nil {
			return err
		}
		var errs []error
		for _, link := range links {
			if link.Type() != "veth" && link.Type() != "bridge" {
				continue
			}
			if err := netlink.LinkDel(link); err != nil {
				errs = append(errs, fmt.Errorf("delete %s: %w", link.Attrs().Name, err))
			}
		}
		return errors.Join(errs...)
	})
}
