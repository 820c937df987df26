package dataplane

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/orch-dev/orch/pkg/api"
)

const (
	protoICMP, protoTCP, protoUDP, protoICMP6 = 1, 6, 17, 58
	etherAt, ipAt                             = 12, 14 // in a frame
)

// ipPacket is a packet with its checksums, of the family of its addresses. Of l4 the
// checksum is filled in.
func ipPacket(proto byte, from, to netip.Addr, l4 []byte) []byte {
	l4 = slices.Clone(l4)
	at := map[byte]int{protoICMP: 2, protoICMP6: 2, protoUDP: 6, protoTCP: 16}[proto]
	pseudo := slices.Concat(from.AsSlice(), to.AsSlice(), []byte{0, proto}, binary.BigEndian.AppendUint16(nil, uint16(len(l4))))
	if proto == protoICMP {
		pseudo = nil
	}
	binary.BigEndian.PutUint16(l4[at:], 0)
	binary.BigEndian.PutUint16(l4[at:], checksum(pseudo, l4))
	if from.Is6() {
		head := slices.Concat([]byte{0x60, 0, 0, 0}, binary.BigEndian.AppendUint16(nil, uint16(len(l4))), []byte{proto, 61})
		return slices.Concat(head, from.AsSlice(), to.AsSlice(), l4)
	}
	head := slices.Concat([]byte{0x45, 0}, binary.BigEndian.AppendUint16(nil, uint16(20+len(l4))), []byte{0, 1, 0x40, 0, 61, proto, 0, 0},
		from.AsSlice(), to.AsSlice())
	binary.BigEndian.PutUint16(head[10:], checksum(head))
	return append(head, l4...)
}

// checksum is the Internet checksum (RFC 1071) of parts of even length but for the last.
func checksum(parts ...[]byte) uint16 {
	sum := uint32(0)
	for i, b := range slices.Concat(parts...) {
		sum += uint32(b) << (8 * (1 - i%2))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// segment is one of TCP or a datagram of UDP, from one end to the other.
func segment(proto byte, from, to netip.AddrPort, flags byte) []byte {
	l4 := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, from.Port()), to.Port())
	if proto == protoUDP {
		l4 = append(l4, 0, 13, 0, 0)
	} else {
		l4 = append(l4, 0, 0, 0, 1, 0, 0, 0, 2, 5<<4, flags, 0x20, 0, 0, 0, 0, 0)
	}
	return ipPacket(proto, from.Addr(), to.Addr(), append(l4, "hello"...))
}

// icmpError is one about a packet of the kind that a type of ICMP (RFC 792) names: that
// it is too big, for 1300 bytes, or that its port is closed. Of IPv6 it is the same kind.
// The quoted checksum is that of sent, the packet as its sender knows it: programs leave
// it as it is, as nobody can verify it.
func icmpError(kind byte, from netip.Addr, about, sent []byte) []byte {
	const tooBig = 4
	quoted, sums := slices.Clone(about[:28]), 26
	proto, l4 := byte(protoICMP), []byte{3, kind, 0, 0, 0, 0, 0, 0}
	to := netip.AddrFrom4([4]byte(about[12:]))
	if from.Is6() {
		quoted, sums = slices.Clone(about[:48]), 46
		proto, l4 = protoICMP6, []byte{1, 4, 0, 0, 0, 0, 0, 0}
		to = netip.AddrFrom16([16]byte(about[8:]))
		if kind == tooBig {
			l4[0], l4[1] = 2, 0
		}
	}
	if kind == tooBig {
		binary.BigEndian.PutUint16(l4[6:], 1300)
	}
	copy(quoted[sums:], sent[sums:sums+2]) // of TCP it is a part of the sequence number
	return ipPacket(proto, from, to, append(l4, quoted...))
}

// frame puts a packet into a link layer without addresses.
func frame(packet []byte) []byte {
	f := make([]byte, ipAt, ipAt+len(packet))
	binary.BigEndian.PutUint16(f[etherAt:], map[byte]uint16{4: 0x0800, 6: 0x86dd}[packet[0]>>4])
	return append(f, packet...)
}

// Packets in, bytes out, all the way round: a client's packet through the node that it
// asked to a task elsewhere, the answer back, and what routers on either way say of them.
func TestBytesOfAWalk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	addr := netip.MustParseAddr
	a, b, taskV4 := addr("192.0.2.1"), addr("192.0.2.2"), addr("10.128.0.5")
	pool6 := netip.MustParsePrefix("fd6f:7263:6800::/96")
	for _, tt := range []struct {
		name                      string
		proto                     byte
		client, asked, task, near netip.Addr // near: a router at the client
	}{
		{"TCP", protoTCP, addr("203.0.113.9"), a, taskV4, addr("203.0.113.1")},
		{"UDP", protoUDP, addr("203.0.113.9"), a, taskV4, addr("203.0.113.1")},
		{"TCP by IPv6", protoTCP, addr("2001:db8::9"), addr("2001:db8:1::1"), api.Address6(pool6, taskV4), addr("2001:db8::1")},
		{"UDP by IPv6", protoUDP, addr("2001:db8::9"), addr("2001:db8:1::1"), api.Address6(pool6, taskV4), addr("2001:db8::1")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inLoopback(t)
			node := func(self netip.Addr) walker {
				anywhere := netip.IPv4Unspecified()
				if tt.asked.Is6() {
					anywhere = tt.asked
				}
				return walker{t, loadedFor(t, api.NetworkPlan{
					Underlay: self, Pool: netip.MustParsePrefix(api.DefaultPool), Pool6: pool6,
					Members:   []api.Member{{Node: "a", Addr: a}, {Node: "b", Addr: b}},
					Endpoints: []api.PlanEndpoint{{Addr: taskV4, Node: b, IfIndex: 1, Networks: []uint32{1}, Outside: true}},
					Frontends: []api.Frontend{{
						FrontendKey: api.FrontendKey{Addr: anywhere, Port: 8080, Protocol: map[byte]api.Protocol{protoTCP: api.TCP, protoUDP: api.UDP}[tt.proto]},
						Backends:    []api.Backend{{Addr: taskV4, Port: 80, Weight: 1}},
					}},
				})}
			}
			ingress, backend := node(a), node(b)
			client, asked := netip.AddrPortFrom(tt.client, 51000), netip.AddrPortFrom(tt.asked, 8080)
			task := netip.AddrPortFrom(tt.task, 80)
			const syn, synAck = 0x02, 0x12

			request := segment(tt.proto, client, asked, syn)
			carried := ingress.fromUplink(request)
			carried.carries("a client's packet", request)
			backend.fromUplink(carried.packet()).is("at the task", segment(tt.proto, client, task, syn))

			answer := segment(tt.proto, task, client, synAck)
			asAsked := segment(tt.proto, asked, client, synAck)
			back := backend.fromTask(answer)
			back.carries("the answer", asAsked)
			ingress.fromUplink(back.packet()).is("at the client", asAsked)

			const closed, tooBig = 3, 4
			says := icmpError(tooBig, tt.near, asAsked, asAsked)
			back = ingress.fromUplink(says)
			back.carries("too big, says a router at the client", says)
			backend.fromUplink(back.packet()).is("at the task, whose packet it was", icmpError(tooBig, tt.near, answer, asAsked))

			arrived := segment(tt.proto, client, task, syn)
			back = backend.fromTask(icmpError(closed, tt.task, arrived, arrived))
			says = icmpError(closed, tt.asked, request, arrived)
			back.carries("closed, says the task", says)
			ingress.fromUplink(back.packet()).is("at the client, whose packet it was", says)
		})
	}
}

// inLoopback has the test, and with it the programs that it runs, in a namespace of its
// own, from which all ways lead to its loopback device.
func inLoopback(t *testing.T) {
	t.Helper()
	runtime.LockOSThread() // for good: the namespace ends with the thread
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		t.Fatal(err)
	}
	for _, all := range []string{"0.0.0.0/0", "::/0"} {
		_, to, _ := net.ParseCIDR(all)
		if err := netlink.RouteAdd(&netlink.Route{LinkIndex: lo.Attrs().Index, Dst: to, Scope: netlink.SCOPE_LINK}); err != nil {
			t.Fatalf("route %s: %v", all, err)
		}
	}
}

// walker runs a node's programs.
type walker struct {
	t *testing.T
	d *Dataplane
}

// walked is the frame that a program made of a packet.
type walked struct {
	t     *testing.T
	frame []byte
}

func (w walker) run(program interface {
	Test([]byte) (uint32, []byte, error)
}, packet []byte) walked {
	w.t.Helper()
	const redirected = 7
	verdict, out, err := program.Test(frame(packet))
	if err != nil || verdict != redirected {
		w.t.Fatalf("verdict %d, want that it is sent on: %v", verdict, err)
	}
	return walked{w.t, out}
}

func (w walker) fromUplink(packet []byte) walked {
	w.t.Helper()
	return w.run(w.d.programs.UplinkTc, packet)
}

func (w walker) fromTask(packet []byte) walked {
	w.t.Helper()
	return w.run(w.d.programs.FromTask, packet)
}

func (o walked) packet() []byte { return o.frame[ipAt:] }

func (o walked) is(what string, want []byte) {
	o.t.Helper()
	if !slices.Equal(o.packet(), want) {
		o.t.Errorf("%s:\n%x, want\n%x", what, o.packet(), want)
	}
}

// carries says that the packet is within VXLAN as it was, in a header whose sum is right.
func (o walked) carries(what string, inner []byte) {
	o.t.Helper()
	const vxlan = 20 + 8 + 8
	outer := o.packet()
	if len(outer) != vxlan+len(frame(inner)) || checksum(outer[:20]) != 0 || outer[9] != protoUDP ||
		!slices.Equal(outer[vxlan+etherAt:], frame(inner)[etherAt:]) {
		o.t.Errorf("%s:\n%x, want in VXLAN\n%x", what, outer, inner)
	}
}
