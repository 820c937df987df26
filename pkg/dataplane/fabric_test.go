package dataplane_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/dataplane"
)

// A fabric is what the data plane needs around it, in network namespaces: a
// switch, a client, and three nodes, each with tasks behind veths.
//
//	client .100 --+
//	              switch (bridge) --+-- n1 .1 -- tasks
//	                                +-- n2 .2 -- tasks
//	                                +-- n3 .3 -- tasks
type fabric struct {
	t      *testing.T // the test that uses it now
	prefix string
	mtu    int // of the underlay
	client *space
	nodes  [3]*node
}

// space is a network namespace.
type space struct {
	*fabric
	name string
}

type node struct {
	*space
	addr netip.Addr
	mode dataplane.Mode
	pins string
	dp   *dataplane.Dataplane
}

// minMTU6 is the smallest that a device can have for IPv6 (RFC 8200, section 5).
const minMTU6 = 1280

type task struct {
	*space
	name    string
	addr    netip.Addr
	node    *node
	ifindex int
}

var (
	underlay   = netip.MustParsePrefix("172.31.77.0/24")
	pool       = netip.MustParsePrefix("10.128.0.0/10")
	clientAddr = netip.MustParseAddr("172.31.77.100")
)

// pool6 is the prefix of the tasks' IPv6 addresses.
var pool6 = api.Pool6("data plane test")

// outer6 is the IPv6 address of a node or of the client beside its IPv4 address.
func outer6(addr netip.Addr) netip.Addr {
	return netip.MustParseAddr(fmt.Sprintf("2001:db8:77::%d", addr.As4()[3]))
}

func inner6(addr netip.Addr) netip.Addr { return api.Address6(pool6, addr) }

func run(t *testing.T, command string, args ...string) string {
	t.Helper()
	out, err := exec.Command(command, args...).Output()
	if err != nil {
		var exit *exec.ExitError
		errors.As(err, &exit)
		t.Fatalf("%s %s: %v\n%+v", command, strings.Join(args, " "), err, exit)
	}
	return string(out)
}

// ip runs ip commands, one per line, in a namespace.
func (s *space) ip(commands string) {
	s.t.Helper()
	cmd := exec.Command("ip", "-n", s.name, "-batch", "-")
	cmd.Stdin = strings.NewReader(commands)
	if out, err := cmd.CombinedOutput(); err != nil {
		s.t.Fatalf("ip in %s: %v\n%s%s", s.name, err, commands, out)
	}
}

// do runs f on a thread in the namespace.
func (s *space) do(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		ns, err := os.Open("/run/netns/" + s.name)
		if err == nil {
			err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
			ns.Close()
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

func (s *space) must(f func() error) {
	s.t.Helper()
	if err := s.do(f); err != nil {
		s.t.Fatalf("in %s: %v", s.name, err)
	}
}

var fabrics int

func newFabric(t *testing.T, mode dataplane.Mode, mtu int) *fabric {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	fabrics++
	f := &fabric{t: t, mtu: mtu, prefix: fmt.Sprintf("dpt-%d-%d", os.Getpid(), fabrics)}
	sw := f.space("sw")
	sw.ip("link add br0 type bridge\nlink set br0 up\n")
	f.client = f.space("client")
	f.plug(sw, f.client, clientAddr)
	for i := range f.nodes {
		name := fmt.Sprintf("n%d", i+1)
		n := &node{space: f.space(name), mode: mode, addr: underlay.Addr().Next()}
		for range i {
			n.addr = n.addr.Next()
		}
		n.pins = filepath.Join("/sys/fs/bpf", f.prefix+"-"+name)
		f.plug(sw, n.space, n.addr)
		if mode == dataplane.ModeXDP {
			f.prepareForXDP(sw, name)
		}
		f.nodes[i] = n
		n.open()
		t.Cleanup(n.purge)
	}
	return f
}

// ownPorts are the client ports that tests choose, of which the kernel gives none to
// other connections.
const ownPorts = "32768,45000-46000,51000,60000"

func (f *fabric) space(name string) *space {
	f.t.Helper()
	s := &space{fabric: f, name: f.prefix + "-" + name}
	run(f.t, "ip", "netns", "add", s.name)
	f.t.Cleanup(func() { run(f.t, "ip", "netns", "del", s.name) })
	s.ip("link set lo up\n")
	s.must(func() error { return writeSysctl("ipv4/ip_local_reserved_ports", ownPorts) })
	return s
}

// plug connects a namespace to the switch by its eth0.
func (f *fabric) plug(sw, s *space, addr netip.Addr) {
	f.t.Helper()
	port := strings.TrimPrefix(s.name, f.prefix+"-")
	sw.ip(fmt.Sprintf("link add %s mtu %d type veth peer name eth0 mtu %d netns %s\nlink set %s master br0 up\n", port, f.mtu, f.mtu, s.name, port))
	s.ip(fmt.Sprintf("addr add %s dev eth0\naddr add %s/64 dev eth0 nodad\nlink set eth0 up\n", netip.PrefixFrom(addr, underlay.Bits()), outer6(addr)))
}

// prepareForXDP gives the switch's end of a veth what the other end needs to
// transmit from XDP, and packets whose checksums are complete.
func (f *fabric) prepareForXDP(sw *space, port string) {
	f.t.Helper()
	spec := &ebpf.ProgramSpec{
		Type:         ebpf.XDP,
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()},
		License:      "GPL",
		Flags:        unix.BPF_F_XDP_HAS_FRAGS,
	}
	pass, err := ebpf.NewProgram(spec)
	if err != nil {
		spec.Flags = 0 // before Linux 5.18
		pass, err = ebpf.NewProgram(spec)
	}
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { pass.Close() })
	index := f.index(sw, port)
	sw.must(func() error {
		if out, err := exec.Command("ethtool", "-K", port, "tx", "off").CombinedOutput(); err != nil {
			return fmt.Errorf("ethtool: %w: %s", err, out)
		}
		l, err := link.AttachXDP(link.XDPOptions{Program: pass, Interface: index, Flags: link.XDPDriverMode})
		if err == nil {
			f.t.Cleanup(func() { l.Close() })
		}
		return err
	})
}

func (f *fabric) index(s *space, dev string) int {
	f.t.Helper()
	var index int
	line := run(f.t, "ip", "-n", s.name, "-o", "link", "show", "dev", dev)
	if _, err := fmt.Sscanf(line, "%d:", &index); err != nil {
		f.t.Fatalf("index of %s in %q: %v", dev, line, err)
	}
	return index
}

func (n *node) open() {
	n.t.Helper()
	n.must(func() (err error) {
		n.dp, err = dataplane.Open(dataplane.Config{PinDir: n.pins, Uplink: "eth0", Mode: n.mode, MaxFlows: 16384, MaxSessions: 16384})
		return err
	})
}

func (n *node) apply(plan api.NetworkPlan) {
	n.t.Helper()
	n.must(func() error { return n.dp.Apply(n.t.Context(), plan) })
}

func (n *node) sweep() {
	n.t.Helper()
	if _, err := n.dp.Sweep(); err != nil {
		n.t.Fatal(err)
	}
}

// purge removes what the data plane made, and reports what it could not.
func (n *node) purge() {
	if n.dp != nil {
		if err := n.dp.Close(); err != nil {
			n.t.Error(err)
		}
	}
	if err := n.do(func() error { return dataplane.Purge(n.pins) }); err != nil {
		n.t.Error(err)
	}
	if _, err := os.Stat(n.pins); !errors.Is(err, os.ErrNotExist) {
		n.t.Errorf("pins are left at %s: %v", n.pins, err)
	}
}

// addTask makes a task's namespace on a node as a sandbox has it: one eth0
// with one address, everything else by way of the node.
func (f *fabric) addTask(n *node, name, addr string) *task {
	f.t.Helper()
	k := &task{space: f.space(name), name: name, addr: netip.MustParseAddr(addr), node: n}
	mac := api.EndpointMAC(k.addr)
	hw := fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3], mac[4], mac[5])
	dev := "t-" + name
	n.ip(fmt.Sprintf("link add %s address 02:00:00:00:00:01 mtu %d type veth peer name eth0 netns %s\nlink set %s up\n"+
		"addr add 169.254.20.53/32 dev %s\nroute add %s dev %s src %s\n", dev, f.mtu-api.OverlayOverhead, k.space.name, dev, dev, k.addr, dev, n.addr))
	k.ip(fmt.Sprintf("link set eth0 address %s mtu %d up\naddr add %s/32 dev eth0\n"+
		"route add 169.254.20.53 dev eth0\nroute add default via 169.254.20.53\n", hw, f.mtu-api.OverlayOverhead, k.addr))
	if f.mtu-api.OverlayOverhead >= minMTU6 {
		n.ip(fmt.Sprintf("neigh add %s lladdr %s dev %s\nroute add %s dev %s\n", inner6(k.addr), hw, dev, inner6(k.addr), dev))
		k.ip(fmt.Sprintf("addr add %s/128 dev eth0 nodad\nneigh add fe80::1 lladdr 02:00:00:00:00:01 dev eth0\nroute add default via fe80::1 dev eth0\n", inner6(k.addr)))
	}
	k.ifindex = f.index(n.space, dev)
	return k
}
