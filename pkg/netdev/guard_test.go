package netdev

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/orch-dev/orch/pkg/api"
)

var (
	sideAddr       = netip.MustParseAddr("203.0.113.1") // the node's on its second device
	neighbourAddr  = netip.MustParseAddr("203.0.113.2")
	sideAddr6      = netip.MustParseAddr("2001:db8:3::1")
	neighbourAddr6 = netip.MustParseAddr("2001:db8:3::2")
)

// neighbour is a namespace behind a second device of the node, which it takes for
// the way to the pool.
func (f *fabric) neighbour(t *testing.T) string {
	t.Helper()
	ns := newNS(t)
	in(t, f.node, func() error {
		file, err := os.Open(ns)
		if err != nil {
			return err
		}
		defer file.Close()
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "side0"
		pair := netlink.NewVeth(attrs)
		pair.PeerName, pair.PeerNamespace = "eth0", netlink.NsFd(file.Fd())
		if err := netlink.LinkAdd(pair); err != nil {
			return err
		}
		return errors.Join(give("side0", netip.PrefixFrom(sideAddr, 24)), give("side0", netip.PrefixFrom(sideAddr6, 64)))
	})
	in(t, ns, func() error {
		if err := errors.Join(give("eth0", netip.PrefixFrom(neighbourAddr, 24)), give("eth0", netip.PrefixFrom(neighbourAddr6, 64))); err != nil {
			return err
		}
		for prefix, via := range map[netip.Prefix]netip.Addr{pool: sideAddr, pool6: sideAddr6} {
			dst := &net.IPNet{IP: prefix.Addr().AsSlice(), Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen())}
			if err := netlink.RouteAdd(&netlink.Route{Dst: dst, Gw: via.AsSlice()}); err != nil {
				return fmt.Errorf("route to %s: %w", prefix, err)
			}
		}
		return nil
	})
	return ns
}

// refused returns how many packets each rule of our chain has dropped.
func refused(t *testing.T, ns string, family nftables.TableFamily) (packets []uint64) {
	t.Helper()
	in(t, ns, func() error {
		conn, err := nftables.New()
		if err != nil {
			return err
		}
		ours := table(family)
		rules, err := conn.GetRules(ours, &nftables.Chain{Name: forwardChain, Table: ours})
		for _, r := range rules {
			for _, e := range r.Exprs {
				if counter, ok := e.(*expr.Counter); ok {
					packets = append(packets, counter.Packets)
				}
			}
		}
		return err
	})
	return packets
}

// Who takes the node for a router reaches no task, by whatever device, and also
// where the Docker Engine's firewall lets through what is for the pool. Tasks
// reach him, and are answered.
func TestNobodyReachesTasksBySecondDevice(t *testing.T) {
	f := newFabric(t)
	iptables(t, f.node, "-P FORWARD DROP", "-N DOCKER-USER", "-A FORWARD -j DOCKER-USER")
	in(t, f.node, func() error { return f.links.Setup(t.Context()) })
	in(t, f.node, func() error { return f.links.Setup(t.Context()) }) // again: no rule twice
	neighbour, task := f.neighbour(t), newNS(t)
	f.attach(t, Link{Task: taskA, NetNS: task, Addr: addrA})
	for _, ns := range []string{task, neighbour, f.node, f.outside} {
		listen(t, ns, netip.AddrPortFrom(netip.IPv6Unspecified(), 8000))
	}

	for to, by := range map[netip.Addr]netip.Addr{addrA: sideAddr, addrA6: sideAddr6} {
		seenAs(t, neighbour, netip.AddrPortFrom(by, 8000)) // so far it comes
		in(t, neighbour, func() error {
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			conn, err := new(net.Dialer).DialContext(ctx, "tcp", netip.AddrPortFrom(to, 8000).String())
			if err == nil {
				conn.Close()
				t.Errorf("a neighbour behind a second device reaches the task at %s", to)
			}
			return nil
		})
	}
	for _, family := range []nftables.TableFamily{nftables.TableFamilyIPv4, nftables.TableFamilyIPv6} {
		if got := refused(t, f.node, family); got[len(got)-1] == 0 {
			t.Errorf("family %d: packets dropped by each rule: %v; want some by the last", family, got)
		}
	}

	for _, c := range []struct{ to, wantSeen netip.Addr }{
		{farAddr, nodeAddr}, {farAddr6, nodeAddr6}, {neighbourAddr, addrA}, {neighbourAddr6, addrA6},
	} {
		if seen := seenAs(t, task, netip.AddrPortFrom(c.to, 8000)); seen != c.wantSeen.String() {
			t.Errorf("%s sees the task as %s, want %s", c.to, seen, c.wantSeen)
		}
	}
	in(t, f.node, func() error { return f.links.Purge(t.Context()) })
	if left := refused(t, f.node, nftables.TableFamilyIPv4); left != nil {
		t.Errorf("rules are left: %v", left)
	}
}

// Neither a process of the node, unless it is root's, nor a container behind it sends
// VXLAN to a member: it would come from a member's address. To others it may, and to
// members all else.
func TestNoVXLANToMembersButThePrograms(t *testing.T) {
	f := newFabric(t)
	container := f.neighbour(t)
	via := func(ns string, to string, by netip.Addr) {
		in(t, ns, func() error {
			_, dst, err := net.ParseCIDR(to)
			return errors.Join(err, netlink.RouteAdd(&netlink.Route{Dst: dst, Gw: by.AsSlice()}))
		})
	}
	via(container, "192.0.2.0/24", sideAddr)
	via(f.outside, "203.0.113.0/24", nodeAddr)

	open := func(port uint16) (conn *net.UDPConn) {
		in(t, f.outside, func() (err error) {
			conn, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(outsideAddr, port)))
			return err
		})
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	overlay, other := open(api.OverlayPort), open(api.OverlayPort+1)
	heard := func(conn *net.UDPConn, within time.Duration) bool {
		conn.SetReadDeadline(time.Now().Add(within))
		_, err := conn.Read(make([]byte, 64))
		return err == nil
	}
	send := func(ns string, user uintptr, port uint16) {
		in(t, ns, func() error {
			unix.RawSyscall(unix.SYS_SETFSUID, user, 0, 0) // of this thread, whose sockets are the user's
			defer unix.RawSyscall(unix.SYS_SETFSUID, 0, 0, 0)
			conn, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(outsideAddr, port)))
			if err != nil {
				return err
			}
			defer conn.Close()
			if _, err = conn.Write([]byte("a packet")); errors.Is(err, unix.EPERM) {
				err = nil // it is told at once
			}
			return err
		})
	}
	// try reports what it had to see and did not. What is sent after VXLAN, to another
	// port, arrives in any case.
	try := func(what, ns string, user uintptr, arrives bool) {
		t.Helper()
		send(ns, user, api.OverlayPort)
		send(ns, user, api.OverlayPort+1)
		if !heard(other, 10*time.Second) {
			t.Fatalf("%s: nothing arrives", what)
		}
		within := 100 * time.Millisecond
		if arrives {
			within = 10 * time.Second
		}
		if got := heard(overlay, within); got != arrives {
			t.Errorf("%s: VXLAN arrives: %t, want %t", what, got, arrives)
		}
	}
	const nobody = 65534
	guard := func(nodes ...netip.Addr) func() error {
		return func() error { return f.links.GuardMembers(nodes) }
	}
	for _, step := range []struct {
		what string
		do   func() error
		want bool
	}{
		{"no member known", func() error { return nil }, true},
		{"a member", guard(nodeAddr, outsideAddr), false},
		{"the daemon starts anew", func() error { return f.links.Setup(t.Context()) }, false},
		{"the rules were removed, and a member comes", func() error {
			return errors.Join(removeTables(), f.links.GuardMembers([]netip.Addr{outsideAddr, farAddr}))
		}, false},
		{"a member no more", guard(farAddr), true},
	} {
		in(t, f.node, step.do)
		try("the node, "+step.what, f.node, nobody, step.want)
		try("root of the node, "+step.what, f.node, 0, true)
		try("a container, "+step.what, container, 0, step.want)
	}
	many := make([]netip.Addr, 2500)
	for i := range many {
		many[i] = netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})
	}
	in(t, f.node, guard(append(many, outsideAddr)...))
	try("the last of many members", f.node, nobody, false)
	in(t, f.node, func() error { return f.links.Purge(t.Context()) })
	try("after a purge", f.node, nobody, true)
}
