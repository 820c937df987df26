package dataplane_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/dataplane"
)

// learns sends datagrams that must not be fragmented, of the size that the
// sender's own device takes, until the sender has been told what passes.
func (s *space) learns(to netip.AddrPort, length, want int) {
	s.t.Helper()
	level, discover, do, mtu := unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO, unix.IP_MTU
	if to.Addr().Is6() {
		level, discover, do, mtu = unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO, unix.IPV6_MTU
	}
	conn, err := s.datagrams(to)
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close()
	raw, err := conn.(*net.UDPConn).SyscallConn()
	if err != nil {
		s.t.Fatal(err)
	}
	if controlErr := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, discover, do) }); errors.Join(err, controlErr) != nil {
		s.t.Fatal(err, controlErr)
	}
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if _, err = conn.Write(make([]byte, length)); errors.Is(err, syscall.EMSGSIZE) {
			break
		}
	}
	if !errors.Is(err, syscall.EMSGSIZE) {
		s.t.Errorf("%s was not told that %d bytes to %s are too many: %v", s.name, length, to, err)
		return
	}
	var got int
	controlErr := raw.Control(func(fd uintptr) { got, err = unix.GetsockoptInt(int(fd), level, mtu) })
	if errors.Join(err, controlErr) != nil || got != want {
		s.t.Errorf("%s learned that %d bytes pass to %s (%v, %v), want %d", s.name, got, to, err, controlErr, want)
	}
}

// Datagrams that fill the client's MTU and must not be fragmented, as QUIC's are
// when it looks for the size of its path, are answered at once with what passes.
func testTooBig(t *testing.T, c *cluster) {
	const fits = 1500 - api.OverlayOverhead
	c.apply(c.backends(2)...)
	for _, family := range []string{"-4", "-6"} {
		run(t, "ip", family, "-n", c.client.name, "route", "flush", "cache")
	}
	c.client.learns(c.nodes[0].published(), 1500-28, fits)
	c.client.learns(c.nodes[0].published6(), 1500-48, fits)
}

// echo is the header of an ICMP echo request with its checksum, which the kernel
// fills in for ICMPv6.
func echo(v6 bool) []byte {
	if v6 {
		return []byte{128, 0, 0, 0, 0x12, 0x34, 0, 1}
	}
	return []byte{8, 0, 0xe5, 0xca, 0x12, 0x34, 0, 1}
}

// ping sends an echo request and waits for the reply to it.
func (s *space) ping(to netip.Addr) error {
	network, reply := "ip4:icmp", byte(0)
	if to.Is6() {
		network, reply = "ip6:ipv6-icmp", 129
	}
	return s.do(func() error {
		conn, err := net.Dial(network, to.String())
		if err != nil {
			return err
		}
		defer conn.Close()
		if _, err := conn.Write(echo(to.Is6())); err != nil {
			return err
		}
		if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
			return err
		}
		for buf := make([]byte, 256); ; {
			n, _, err := conn.(*net.IPConn).ReadFromIP(buf)
			if err != nil {
				return err
			}
			if n >= 8 && buf[0] == reply && binary.BigEndian.Uint16(buf[4:]) == 0x1234 {
				return nil
			}
		}
	})
}

// A virtual IP answers a ping from tasks on its networks, a task from those that
// share one with it.
func testPing(t *testing.T, c *cluster) {
	c.apply(c.backends(2)...)
	for _, to := range []netip.Addr{virtualIP, inner6(virtualIP), c.web[0].addr, inner6(c.web[0].addr), c.web[1].addr, inner6(c.web[1].addr)} {
		if err := c.caller.ping(to); err != nil {
			t.Errorf("ping %s: %v; verdicts %v", to, err, nonZero(c.nodes[0]))
		}
	}
	before := c.nodes[0].stats()
	if got := before.Verdicts["answered-echo"].Packets; got < 2 {
		t.Errorf("%d pings answered", got)
	}
	c.other.must(func() error { return sendEcho(virtualIP) })
	if after := c.nodes[0].stats(); after.Drops["isolated"].Packets == before.Drops["isolated"].Packets {
		t.Error("a ping from a task of another network was not refused")
	}
}

// sendEcho sends an echo request and waits for nothing.
func sendEcho(to netip.Addr) error {
	conn, err := net.Dial("ip4:icmp", to.String())
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Write(echo(false))
	return err
}

// A way to a client over a router that passes on less than the underlay takes:
// what tasks send is cut to that, since the router's word reaches them.
func TestPathMTU(t *testing.T) {
	for _, mode := range []dataplane.Mode{dataplane.ModeXDP, dataplane.ModeTC} {
		t.Run(string(mode), func(t *testing.T) {
			c := newCluster(t, mode)
			far, addrs := c.behindRouter(1300)
			c.wantHops(far, addrs)
			for i, w := range append(c.web[:2:2], c.web[2]) { // on the ingress node, on another, and on one that answers straight
				c.dsr = i == 2
				c.apply(c.backends(i + 1)...)
				for _, to := range []netip.AddrPort{c.nodes[0].published(), c.nodes[0].published6()} {
					if err := far.download(to, 1<<20); err != nil {
						t.Errorf("from %s by %s: %v; verdicts %v, %v", w.name, to, err, nonZero(c.nodes[0]), nonZero(w.node))
					}
					u, err := far.datagrams(to)
					if err != nil {
						t.Fatal(err)
					}
					defer u.Close()
					if _, client, err := exchange(u, 1380); err != nil || client != addrs[to.Addr().Is6()] {
						t.Errorf("datagrams to %s by %s, which sees %s: %v", w.name, to, client, err)
					}
				}
			}
		})
	}
}

// wantHops follows the ways hop by hop, as traceroute does: routers tell of
// themselves under their own addresses, and tunnels and backends are no hops.
func (c *cluster) wantHops(far *space, addrs map[bool]netip.Addr) {
	c.t.Helper()
	c.apply(c.backends(2)...)
	n := c.nodes[0]
	n.must(func() error {
		return errors.Join(writeSysctl("ipv4/ip_forward", "1"), writeSysctl("ipv6/conf/all/forwarding", "1"))
	})
	arrived := netip.Addr{}
	for _, hop := range []struct {
		from *space
		to   netip.AddrPort
		ttl  int
		want netip.Addr
	}{
		{far, n.published(), 1, netip.MustParseAddr("172.31.78.1")},
		{far, n.published(), 2, arrived},
		{far, n.published6(), 1, netip.MustParseAddr("2001:db8:78::1")},
		{far, n.published6(), 2, arrived},
		{c.caller.space, virtual(appPort), 1, arrived},
		{c.caller.space, c.web[1].app(), 1, arrived},
		{c.caller.space, netip.AddrPortFrom(inner6(virtualIP), appPort), 1, arrived},
		{c.caller.space, netip.AddrPortFrom(inner6(c.web[1].addr), appPort), 1, arrived},
		{c.caller.space, netip.AddrPortFrom(addrs[false], 9), 1, n.addr},
		{c.caller.space, netip.AddrPortFrom(addrs[true], 9), 1, outer6(n.addr)},
	} {
		var got netip.Addr
		err := hop.from.do(func() (err error) { got, err = hopTo(hop.to, hop.ttl); return err })
		if err != nil || got != hop.want {
			c.t.Errorf("%s to %s, hop %d: %v, %v, want %v; verdicts %v", hop.from.name, hop.to, hop.ttl, got, err, hop.want, nonZero(n))
		}
	}
}

// hopTo sends a datagram that may pass so many routers less one, and returns the
// address of the one that let it pass no further; none if it was answered.
func hopTo(to netip.AddrPort, ttl int) (netip.Addr, error) {
	family, level, hops, errs := unix.AF_INET, unix.IPPROTO_IP, unix.IP_TTL, unix.IP_RECVERR
	var dest unix.Sockaddr = &unix.SockaddrInet4{Port: int(to.Port())}
	if to.Addr().Is6() {
		family, level, hops, errs = unix.AF_INET6, unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, unix.IPV6_RECVERR
		dest = &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
	} else {
		dest.(*unix.SockaddrInet4).Addr = to.Addr().As4()
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM, 0)
	if err != nil {
		return netip.Addr{}, err
	}
	defer unix.Close(fd)
	timeout := unix.NsecToTimeval(patience.Nanoseconds())
	err = errors.Join(
		unix.SetsockoptInt(fd, level, hops, ttl),
		unix.SetsockoptInt(fd, level, errs, 1),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout),
		unix.Connect(fd, dest),
		unix.Send(fd, []byte("hello"), 0))
	if err != nil {
		return netip.Addr{}, err
	}
	buf, control := make([]byte, 512), make([]byte, 512)
	if _, err = unix.Read(fd, buf); !errors.Is(err, unix.EHOSTUNREACH) {
		return netip.Addr{}, err
	}
	_, n, _, _, err := unix.Recvmsg(fd, buf, control, unix.MSG_ERRQUEUE)
	if err != nil {
		return netip.Addr{}, err
	}
	messages, err := unix.ParseSocketControlMessage(control[:n])
	for _, m := range messages {
		// struct sock_extended_err, then the sockaddr of who sent the error.
		const from4, from6 = 16 + 4, 16 + 8
		switch data := m.Data; {
		case m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_RECVERR && len(data) >= from4+4:
			return netip.AddrFrom4([4]byte(data[from4:])), nil
		case m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_RECVERR && len(data) >= from6+16:
			return netip.AddrFrom16([16]byte(data[from6:])), nil
		}
	}
	return netip.Addr{}, errors.Join(err, errors.New("the error does not say whose it is"))
}

// behindRouter adds a client that the nodes reach through the other one, which
// passes on to it what is not larger than mtu. It has an address of each family;
// by it being IPv6.
func (c *cluster) behindRouter(mtu int) (far *space, addrs map[bool]netip.Addr) {
	c.t.Helper()
	addrs = map[bool]netip.Addr{false: netip.MustParseAddr("172.31.78.2"), true: netip.MustParseAddr("2001:db8:78::2")}
	far = c.space("far")
	c.client.ip(fmt.Sprintf("link add far type veth peer name eth0 netns %s\nlink set far up\n"+
		"addr add 172.31.78.1/30 dev far\naddr add 2001:db8:78::1/64 dev far nodad\n"+
		"route add %s dev far mtu lock %d\nroute add %s dev far mtu lock %d\n", far.name, addrs[false], mtu, addrs[true], mtu))
	far.ip(fmt.Sprintf("link set eth0 up\naddr add %s/30 dev eth0\naddr add %s/64 dev eth0 nodad\n"+
		"route add default via 172.31.78.1\nroute add default via 2001:db8:78::1\n", addrs[false], addrs[true]))
	c.client.must(func() error {
		return errors.Join(writeSysctl("ipv4/ip_forward", "1"), writeSysctl("ipv6/conf/all/forwarding", "1"))
	})
	for _, n := range c.nodes {
		n.ip(fmt.Sprintf("route add 172.31.78.0/30 via %s\nroute add 2001:db8:78::/64 via %s\n", clientAddr, outer6(clientAddr)))
	}
	return far, addrs
}

// writeSysctl sets a value of the network namespace that the thread is in.
func writeSysctl(key, value string) error {
	return os.WriteFile("/proc/sys/net/"+key, []byte(value), 0)
}
