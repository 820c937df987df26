package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/dataplane"
)

const (
	mtu  = 1500 // bytes, of an uplink
	pins = "/sys/fs/bpf"
)

var pool = netip.MustParsePrefix("10.128.0.0/10")

// enterNamespaces gives this thread a network and a BPF file system of its own.
func enterNamespaces() error {
	if err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("make namespaces, which needs root: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("bpf", pins, "bpf", 0, ""); err != nil {
		return fmt.Errorf("mount a BPF file system: %w", err)
	}
	return nil
}

// node is a data plane on a veth pair whose other end drops all that it gets.
type node struct {
	*dataplane.Dataplane
	underlay netip.Prefix // of the node and of the other one, that all backends are on
	pinDir   string
	uplink   int // interface index
	wire     netlink.Link
	drop     link.Link
}

func (n *node) addr() netip.Addr   { return n.underlay.Addr().Next() }
func (n *node) remote() netip.Addr { return n.addr().Next() }

// newNode opens data plane number i, of 16, with native XDP; sizes are those of
// cfg.
func newNode(i int, cfg dataplane.Config) (_ *node, err error) {
	n := &node{
		underlay: netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(16 * i)}), 28),
		pinDir:   filepath.Join(pins, fmt.Sprintf("n%d", i)),
	}
	defer func() {
		if err != nil {
			n.close()
		}
	}()
	if err := n.addUplink(i); err != nil {
		return nil, fmt.Errorf("make uplink: %w", err)
	}
	cfg.PinDir, cfg.Uplink, cfg.Mode = n.pinDir, uplinkName(i), dataplane.ModeXDP
	n.Dataplane, err = dataplane.Open(cfg)
	return n, err
}

func uplinkName(i int) string { return fmt.Sprintf("up%d", i) }

// addUplink makes the pair of devices and the neighbour that packets go to.
func (n *node) addUplink(i int) error {
	uplink, wire := uplinkName(i), fmt.Sprintf("wire%d", i)
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: uplink, MTU: mtu}, PeerName: wire}); err != nil {
		return err
	}
	up, err := netlink.LinkByName(uplink)
	if err != nil {
		return err
	}
	n.uplink = up.Attrs().Index
	if n.wire, err = netlink.LinkByName(wire); err != nil {
		return err
	}
	if n.drop, err = attachDrop(n.wire.Attrs().Index); err != nil {
		return err
	}
	addr := &net.IPNet{IP: n.addr().AsSlice(), Mask: net.CIDRMask(n.underlay.Bits(), 32)}
	return errors.Join(netlink.LinkSetUp(up), netlink.LinkSetUp(n.wire),
		netlink.AddrAdd(up, &netlink.Addr{IPNet: addr}),
		netlink.NeighSet(&netlink.Neigh{LinkIndex: n.uplink, IP: n.remote().AsSlice(), HardwareAddr: n.wire.Attrs().HardwareAddr, State: netlink.NUD_PERMANENT}))
}

func attachDrop(ifindex int) (link.Link, error) {
	const drop = 1 // XDP_DROP of linux/bpf.h
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.XDP, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, drop), asm.Return()},
	})
	if err != nil {
		return nil, err
	}
	defer program.Close() // the attachment keeps it
	return link.AttachXDP(link.XDPOptions{Program: program, Interface: ifindex, Flags: link.XDPDriverMode})
}

// ingressProgram is the program that is attached to the uplink.
func (n *node) ingressProgram() (*ebpf.Program, error) {
	attached, err := link.LoadPinnedLink(filepath.Join(n.pinDir, "links", fmt.Sprintf("uplink_xdp_%d", n.uplink)), nil)
	if err != nil {
		return nil, fmt.Errorf("find the ingress program: %w", err)
	}
	defer attached.Close()
	info, err := attached.Info()
	if err != nil {
		return nil, fmt.Errorf("find the ingress program: %w", err)
	}
	return ebpf.NewProgramFromID(info.Program)
}

// close removes the data plane and the devices, and tells what stays.
func (n *node) close() {
	var err error
	if n.Dataplane != nil {
		err = errors.Join(n.Dataplane.Close(), dataplane.Purge(n.pinDir))
	}
	if n.drop != nil {
		err = errors.Join(err, n.drop.Close())
	}
	if n.wire != nil {
		err = errors.Join(err, netlink.LinkDel(n.wire))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "clean up:", err)
	}
}

func (n *node) apply(plan api.NetworkPlan) error { return n.Apply(context.Background(), plan) }

// plan has so many published ports, each with so many backends of its own, all
// of them on the other node.
func (n *node) plan(frontends, backends int) api.NetworkPlan {
	p := api.NetworkPlan{
		Generation: 1, Node: "n1", Underlay: n.addr(), Pool: pool,
		Members: []api.Member{{Node: "n1", Addr: n.addr()}, {Node: "n2", Addr: n.remote()}},
	}
	next := pool.Addr()
	for i := range frontends {
		fe := api.Frontend{
			FrontendKey: api.FrontendKey{Addr: netip.IPv4Unspecified(), Port: firstPort + uint16(i), Protocol: api.TCP},
			Service:     fmt.Sprintf("s%d", i),
		}
		for range backends {
			next = next.Next()
			p.Endpoints = append(p.Endpoints, api.PlanEndpoint{Addr: next, Node: n.remote(), Networks: []uint32{1}, Outside: true})
			fe.Backends = append(fe.Backends, api.Backend{Addr: next, Port: 80, Weight: 1})
		}
		p.Frontends = append(p.Frontends, fe)
	}
	return p
}

// firstPort is the lowest published port of a plan.
const firstPort = 8000

// mapBytes is what the kernel says that the pinned maps take. Maps whose entries
// are made as they are needed count with what they have now.
func (n *node) mapBytes() (sum uint64, err error) {
	pins, err := os.ReadDir(filepath.Join(n.pinDir, "maps"))
	if err != nil {
		return 0, err
	}
	for _, pin := range pins {
		m, err := ebpf.LoadPinnedMap(filepath.Join(n.pinDir, "maps", pin.Name()), nil)
		if err != nil {
			return 0, err
		}
		info, err := m.Info()
		m.Close()
		if err != nil {
			return 0, err
		}
		bytes, ok := info.Memlock()
		if !ok {
			return 0, fmt.Errorf("this kernel does not say what map %s takes", pin.Name())
		}
		sum += bytes
	}
	return sum, nil
}
