package dataplane_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"
)

func virtual(port uint16) netip.AddrPort { return netip.AddrPortFrom(virtualIP, port) }

func (k *task) app() netip.AddrPort { return netip.AddrPortFrom(k.addr, appPort) }

// asks expects a task to answer another one, which it sees under seen.
func (k *task) asks(to netip.AddrPort, want string, seen netip.Addr) {
	k.t.Helper()
	name, client, err := k.who(to)
	if err != nil || name != want || client.Addr() != seen {
		k.t.Errorf("%s to %s: %q answers and sees %s: %v; verdicts %v", k.name, to, name, client, err, nonZero(k.node))
	}
	u, err := k.datagrams(to)
	if err != nil {
		k.t.Fatal(err)
	}
	defer u.Close()
	name, addr, err := exchange(u, 64)
	if err != nil || name != want || addr != seen {
		k.t.Errorf("%s to %s by udp: %q answers and sees %s: %v; verdicts %v", k.name, to, name, addr, err, nonZero(k.node))
	}
}

// refused expects a connection to fail at once with an error.
func (k *task) refused(to netip.AddrPort, want syscall.Errno) {
	k.t.Helper()
	start := time.Now()
	c, err := k.dial(to)
	if err == nil {
		c.Close()
	}
	if !errors.Is(err, want) || time.Since(start) > patience/2 {
		k.t.Errorf("%s to %s: %v after %v, want %v", k.name, to, err, time.Since(start), want)
	}
}

func (n *node) wantDrop(reason string) {
	n.t.Helper()
	if n.stats().Drops[reason].Packets == 0 {
		n.t.Errorf("%s counted no drop %q: %v", n.name, reason, nonZero(n))
	}
}

func testEastWest(t *testing.T, c *cluster) {
	for i, w := range c.web {
		c.apply(c.backends(i + 1)...)
		c.caller.asks(virtual(appPort), w.name, c.caller.addr)
		c.caller.asks(w.app(), w.name, c.caller.addr)
	}
	if err := c.caller.ping(virtualIP); err != nil {
		t.Errorf("ping of the virtual IP: %v; verdicts %v", err, nonZero(c.nodes[0]))
	}
}

// A task that calls its own service and is chosen itself sees the frontend's
// address as its client's.
func testTaskCallsItself(t *testing.T, c *cluster) {
	c.apply(c.backends(1)...)
	c.web[0].asks(virtual(appPort), "web1", virtualIP)
	c.web[0].asks(c.nodes[0].published(), "web1", c.nodes[0].addr)
}

func testTaskCallsPublishedPort(t *testing.T, c *cluster) {
	for i := range c.web {
		c.apply(c.backends(i + 1)...)
		for _, n := range c.nodes {
			c.caller.asks(n.published(), c.web[i].name, c.caller.addr)
		}
	}
	// Anybody may call a published port, also from another network.
	c.other.asks(c.nodes[1].published(), "web3", c.other.addr)
}

func testNodeCallsTask(t *testing.T, c *cluster) {
	c.apply(c.backends(1)...)
	name, _, err := c.nodes[0].who(c.web[0].app())
	if err != nil || name != "web1" {
		t.Errorf("%q: %v; verdicts %v", name, err, nonZero(c.nodes[0]))
	}
}

// A node's own processes reach a published port by any address of the node.
func testNodeCallsPublishedPort(t *testing.T, c *cluster) {
	n := c.nodes[0]
	for i, w := range c.web[:2] {
		c.apply(c.backends(i + 1)...)
		for _, addr := range []netip.Addr{netip.MustParseAddr("127.0.0.1"), n.addr, c.nodes[1].addr} {
			to := netip.AddrPortFrom(addr, publishedPort)
			name, client, err := n.who(to)
			if err != nil || name != w.name || client.Addr() != n.addr {
				t.Errorf("%s: %q answers and sees %s: %v; verdicts %v, %v", to, name, client, err, nonZero(n), nonZero(c.nodes[1]))
			}
			if err := n.download(to, 1<<20); err != nil {
				t.Error(err)
			}
			if err := n.upload(to, 1<<20); err != nil {
				t.Error(err)
			}
			u, err := n.datagrams(to)
			if err != nil {
				t.Fatal(err)
			}
			name, seen, err := exchange(u, 100)
			if err != nil || name != w.name || seen != n.addr {
				t.Errorf("udp %s: %q answers and sees %s: %v", to, name, seen, err)
			}
			u.Close()
		}
	}
}

func testIsolation(t *testing.T, c *cluster) {
	c.apply(c.backends(1, 2, 3)...)
	n := c.nodes[0]
	c.other.refused(virtual(appPort), syscall.EHOSTUNREACH)
	c.other.refused(c.web[0].app(), syscall.EHOSTUNREACH)
	c.other.refused(c.web[1].app(), syscall.EHOSTUNREACH)
	n.wantDrop("isolated")
	c.caller.refused(netip.MustParseAddrPort("10.190.1.1:80"), syscall.EHOSTUNREACH)
	n.wantDrop("unknown-destination")
	c.apply()
	c.caller.refused(virtual(appPort), syscall.ECONNREFUSED)
	n.wantDrop("no-backend")
}

// A task whose networks are all internal reaches its node and nothing beyond.
func testInternal(t *testing.T, c *cluster) {
	plan := c.plan(c.nodes[0], c.backends(1)...)
	for i := range plan.Endpoints {
		plan.Endpoints[i].Outside = false
	}
	c.nodes[0].apply(plan)
	c.caller.refused(netip.AddrPortFrom(clientAddr, 9), syscall.EHOSTUNREACH)
	c.nodes[0].wantDrop("internal")
	// A cloud's metadata, for one, is not the node's though its address is link-local.
	c.nodes[0].ip("route add 169.254.0.0/16 dev eth0\n")
	defer c.nodes[0].ip("route del 169.254.0.0/16 dev eth0\n")
	before := c.nodes[0].drops("internal")
	c.caller.refused(netip.MustParseAddrPort("169.254.169.254:80"), syscall.EHOSTUNREACH)
	if c.nodes[0].drops("internal") == before {
		t.Errorf("not dropped as internal: %v", nonZero(c.nodes[0]))
	}
	c.caller.refused(netip.MustParseAddrPort("169.254.20.53:53"), syscall.ECONNREFUSED)
}

func testSpoofedSource(t *testing.T, c *cluster) {
	c.apply(c.backends(2)...)
	c.caller.ip(fmt.Sprintf("addr add %s/32 dev eth0\n", c.web[0].addr))
	defer c.caller.ip(fmt.Sprintf("addr del %s/32 dev eth0\n", c.web[0].addr))
	conn, err := c.caller.dialFrom(netip.AddrPortFrom(c.web[0].addr, 0), virtual(appPort), time.Second)
	if err == nil {
		conn.Close()
		t.Error("connected under another task's address")
	}
	c.nodes[0].wantDrop("spoofed")
}

// A connection may share its client port and backend with others that reach
// the backend through other addresses.
func testCollidingFlows(t *testing.T, c *cluster) {
	c.apply(c.backends(2)...)
	from := netip.AddrPortFrom(clientAddr, 45678)
	var conns []net.Conn
	seen := make(map[string]bool)
	for _, n := range c.nodes {
		conn, err := c.client.dialFrom(from, n.published(), patience)
		if err != nil {
			t.Fatalf("through %s: %v", n.name, err)
		}
		defer conn.Close()
		conns = append(conns, conn)
		answer, err := ask(conn, "who")
		if err != nil || seen[answer] {
			t.Errorf("through %s: %q (%v), before %v", n.name, answer, err, seen)
		}
		seen[answer] = true
	}
	for i, conn := range conns {
		want := fmt.Sprint("call ", i)
		if got, err := ask(conn, "echo "+want); err != nil || got != want {
			t.Errorf("later, through %s: %q, %v", c.nodes[i].name, got, err)
		}
	}
}

// A client port that was connected by virtual IP may connect to the same
// backend directly once that connection has ended.
func testDirectAfterVirtual(t *testing.T, c *cluster) {
	for i := range c.web[:2] {
		c.apply(c.backends(i + 1)...)
		from := netip.AddrPortFrom(c.caller.addr, 45000)
		for _, to := range []netip.AddrPort{virtual(appPort), c.web[i].app(), virtual(appPort), c.nodes[2].published()} {
			conn, err := c.caller.dialFrom(from, to, patience)
			if err != nil {
				t.Fatalf("%s: %v", to, err)
			}
			if answer, err := ask(conn, "echo "+to.String()); err != nil || answer != to.String() {
				t.Errorf("%s: %q, %v", to, answer, err)
			}
			fmt.Fprintln(conn, "send 0") // the server closes first
			io.Copy(io.Discard, conn)
			conn.Close()
		}
	}
}

// A client port may be connected to a backend directly and through frontends at the
// same time, whichever was first: none of the connections gets another's packets.
func testDirectBesideVirtual(t *testing.T, c *cluster) {
	for i := range c.web[:2] {
		c.apply(c.backends(i + 1)...)
		direct := c.web[i].app()
		c.caller.callsSideBySide(netip.AddrPortFrom(c.caller.addr, 45100), virtual(appPort), direct, c.nodes[2].published())
		c.caller.callsSideBySide(netip.AddrPortFrom(c.caller.addr, 45101), direct, virtual(appPort), c.nodes[2].published())
		c.caller.callsSideBySide(netip.AddrPortFrom(inner6(c.caller.addr), 45102), netip.AddrPortFrom(inner6(virtualIP), appPort), netip.AddrPortFrom(inner6(c.web[i].addr), appPort))
		// Where the translated port would be a privileged one, and where the client's is.
		c.caller.callsSideBySide(netip.AddrPortFrom(c.caller.addr, 32768), virtual(appPort), direct)
		c.caller.callsSideBySide(netip.AddrPortFrom(c.caller.addr, 1000), virtual(appPort))
	}
	c.apply(c.backends(1)...)
	from := netip.AddrPortFrom(c.nodes[0].addr, 45103)
	c.nodes[0].callsSideBySide(from, c.nodes[0].published(), c.web[0].app())
	from = netip.AddrPortFrom(c.nodes[0].addr, 45104)
	c.nodes[0].callsSideBySide(from, c.web[0].app(), c.nodes[0].published())
}

// callsSideBySide opens connections from one port, and uses each once all are open.
func (s *space) callsSideBySide(from netip.AddrPort, all ...netip.AddrPort) {
	s.t.Helper()
	var conns []net.Conn
	for _, to := range all {
		conn, err := s.dialFrom(from, to, patience)
		if err != nil {
			s.t.Errorf("from %s to %s beside %d others: %v", from, to, len(conns), err)
			continue
		}
		defer conn.(*net.TCPConn).SetLinger(0) // nothing of them is left
		defer conn.Close()
		conns = append(conns, conn)
	}
	for range 2 {
		for _, conn := range conns {
			to := conn.RemoteAddr().String()
			conn.SetDeadline(time.Now().Add(patience))
			if answer, err := ask(conn, "echo "+to); err != nil || answer != to {
				s.t.Errorf("from %s to %s beside others: %q, %v", from, to, answer, err)
			}
		}
	}
	for _, conn := range conns {
		answer, err := ask(conn, "who")
		_, text, _ := strings.Cut(answer, " ")
		seen, parseErr := netip.ParseAddrPort(text)
		if err != nil || parseErr != nil || seen.Addr() != from.Addr() || seen.Port() < 1024 != (from.Port() < 1024) {
			s.t.Errorf("from %s to %s: the task sees %q, %v", from, conn.RemoteAddr(), answer, err)
		}
	}
}

// One socket that sends a task datagrams directly and by virtual IP gets each answer
// from where it sent to.
func testDatagramsDirectBesideVirtual(t *testing.T, c *cluster) {
	for i := range c.web[:2] {
		c.apply(c.backends(i + 1)...)
		var u *net.UDPConn
		c.caller.must(func() (err error) {
			u, err = net.ListenUDP("udp4", nil)
			return err
		})
		defer u.Close()
		for range 3 {
			for _, to := range []netip.AddrPort{virtual(appPort), c.web[i].app()} {
				if from, err := exchangeUnconnected(u, to); err != nil || from != to {
					t.Errorf("to %s at %s: answered by %s, %v", to, c.web[i].name, from, err)
				}
			}
		}
	}
}

// exchangeUnconnected sends a datagram until it is answered, and says from where.
func exchangeUnconnected(u *net.UDPConn, to netip.AddrPort) (netip.AddrPort, error) {
	var from netip.AddrPort
	var err error
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if _, err = u.WriteToUDPAddrPort(make([]byte, 40), to); err != nil {
			return from, err
		}
		u.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
		if _, from, err = u.ReadFromUDPAddrPort(make([]byte, 100)); err == nil {
			return from, nil
		}
	}
	return from, err
}
