package dataplane_test

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A client that has few ports uses each again as soon as its connection has ended,
// however that ended, toward other nodes and while backends come and go: what is
// remembered of the earlier one, here and at the tasks, is in no new one's way.
func testPortsUsedAgain(t *testing.T, c *cluster) {
	const ports = 16
	rounds := 24
	if testing.Short() {
		rounds = 6
	}
	for _, s := range []*space{c.client, c.caller.space} {
		defer s.sysctl("ip_local_port_range", fmt.Sprintf("40000 %d", 40000+ports-1))()
		defer s.sysctl("tcp_max_tw_buckets", "0")() // nothing keeps a port back
	}
	published := []netip.AddrPort{c.nodes[0].published(), c.nodes[1].published(), c.nodes[2].published()}
	for round := range rounds {
		leaves := round%3 + 1
		stay := c.backends(leaves%3+1, (leaves+1)%3+1)
		c.apply(append(draining(c.backends(leaves)), stay...)...)
		for i := range ports {
			c.client.callAndEnd(published[i%3], i/3)
		}
		c.apply(stay...)
		for i := range ports {
			c.client.callAndEnd(published[(i+round)%3], i)
		}
		c.apply(append(c.backends(leaves), stay...)...)
		for i := range ports {
			c.caller.callAndEnd([]netip.AddrPort{virtual(appPort), c.web[i%3].app(), published[i%3]}[i/3%3], i)
		}
	}
}

// callAndEnd makes a connection whose end one of three ways is.
func (s *space) callAndEnd(to netip.AddrPort, way int) {
	s.t.Helper()
	conn, err := s.dial(to)
	if err != nil {
		s.t.Errorf("%s to %s: %v", s.name, to, err)
		return
	}
	defer conn.Close() // first, if nothing has ended it yet
	if answer, err := ask(conn, "echo hello"); err != nil || answer != "hello" {
		s.t.Errorf("%s from %s to %s: %q, %v", s.name, conn.LocalAddr(), to, answer, err)
	}
	switch way % 3 {
	case 1:
		fmt.Fprintln(conn, "send 0") // the task closes
		io.Copy(io.Discard, conn)
	case 2:
		conn.(*net.TCPConn).SetLinger(0) // a reset
	}
}

// A client that went without a word uses its port again, and is given another backend.
// What the earlier one still says of the connection that it had ends nothing now.
func testLateEnds(t *testing.T, c *cluster) {
	n, port := c.nodes[0], uint16(45900)
	for _, earlier := range []int{1, 2} { // on the client's own ingress node, and on another
		for _, way := range []string{"end", "reset"} {
			port++
			from, name := netip.AddrPortFrom(clientAddr, port), fmt.Sprint(t.Name(), port)
			c.apply(c.backends(earlier)...)
			first, err := c.client.dialFrom(from, n.published(), patience)
			if err != nil {
				t.Fatal(err)
			}
			if answer, err := ask(first, "keep "+name); err != nil || answer != name {
				t.Fatalf("%q, %v", answer, err)
			}
			forget(t, first)

			c.apply(append(draining(c.backends(earlier)), c.backends(3)...)...)
			second, err := c.client.dialFrom(from, n.published(), patience)
			if err != nil {
				t.Fatal(err)
			}
			defer second.Close()
			if answer, err := ask(second, "who"); err != nil || !strings.HasPrefix(answer, "web3 ") {
				t.Fatalf("%q, %v", answer, err)
			}
			side, _ := kept.Load(name)
			before := n.stats().Verdicts["sent-to-client"].Packets
			if way == "end" {
				side.(*net.TCPConn).CloseWrite()
			} else {
				side.(*net.TCPConn).SetLinger(0)
				side.(*net.TCPConn).Close()
			}
			for deadline := time.Now().Add(patience); n.stats().Verdicts["sent-to-client"].Packets == before; time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatal("the late packet did not come by")
				}
			}
			if way == "end" {
				forget(t, side.(net.Conn)) // nobody acknowledges it, and it would be sent again for minutes
			}

			// The client's acknowledgments find their way while others get new flows.
			c.apply(append(draining(c.backends(3)), c.backends(earlier)...)...)
			const bytes = 1 << 20
			fmt.Fprintln(second, "send", bytes)
			second.(*net.TCPConn).CloseWrite()
			if got, err := io.Copy(io.Discard, second); got != bytes || err != nil {
				t.Errorf("after a late %s of web%d: %d bytes of %d, %v; verdicts %v", way, earlier, got, bytes, err, nonZero(n))
			}
		}
	}
}

// forget ends a connection at this side alone: nothing is sent.
func forget(t *testing.T, conn net.Conn) {
	t.Helper()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if ctlErr := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_REPAIR, 1) }); ctlErr != nil || err != nil {
		t.Fatal(ctlErr, err)
	}
	conn.Close()
}

// sysctl sets one of net.ipv4, and gives what sets it back.
func (s *space) sysctl(name, value string) (restore func()) {
	s.t.Helper()
	path := "/proc/sys/net/ipv4/" + name
	var before []byte
	s.must(func() (err error) {
		if before, err = os.ReadFile(path); err == nil {
			err = os.WriteFile(path, []byte(value), 0o644)
		}
		return err
	})
	return func() {
		s.must(func() error { return os.WriteFile(path, []byte(strings.TrimSpace(string(before))), 0o644) })
	}
}
