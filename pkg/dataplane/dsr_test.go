package dataplane_test

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/orch-dev/orch/pkg/api"
)

// withDSR runs a test with direct server return of the published ports.
func withDSR(test func(*testing.T, *cluster)) func(*testing.T, *cluster) {
	return func(t *testing.T, c *cluster) {
		c.dsr = true
		defer func() { c.dsr = false }()
		test(t, c)
	}
}

// returns counts what the nodes did with replies to clients: through the node of
// entry, and straight to the client.
func (c *cluster) returns() (tunnel, dsr uint64) {
	c.t.Helper()
	for _, n := range c.nodes {
		v := n.stats().Verdicts
		tunnel += v["forwarded-return"].Bytes
		dsr += v["sent-dsr"].Bytes
	}
	return tunnel, dsr
}

// wantWay expects the replies to what call asks to go straight to the client, or none of
// them. What was under way before, or is sent again, may go as it did before: the call
// is made a few times.
func (c *cluster) wantWay(dsr bool, call func(), format string, args ...any) {
	c.t.Helper()
	var tunnel, direct uint64
	for range 5 {
		tunnelBefore, directBefore := c.returns()
		call()
		tunnel, direct = c.returns()
		tunnel, direct = tunnel-tunnelBefore, direct-directBefore
		if (tunnel == 0) == dsr && (direct == 0) != dsr {
			return
		}
	}
	c.t.Errorf("%s, dsr %v: %d bytes back through the tunnel, %d straight", fmt.Sprintf(format, args...), dsr, tunnel, direct)
}

// What a task on another node answers goes straight to the client, of either
// family: all that datagrams are, and all but the end of a connection.
func testDSR(t *testing.T, c *cluster) {
	const bytes = 4 << 20
	for _, to := range []netip.AddrPort{c.nodes[0].published(), c.nodes[0].published6()} {
		for _, dsr := range []bool{true, false} {
			c.dsr = dsr
			c.apply(c.backends(2)...)
			c.dsr = false
			c.wantReturn(c.nodes[0], map[bool]api.Return{true: api.ReturnDSR, false: api.ReturnTunnel}[dsr])
			u, err := c.client.datagrams(to)
			if err != nil {
				t.Fatal(err)
			}
			c.wantWay(dsr, func() {
				if name, _, err := exchange(u, 1000); err != nil || name != "web2" {
					t.Errorf("%s: %q, %v", to, name, err)
				}
			}, "a datagram to %s", to)
			u.Close()
			before := [2]uint64{}
			before[0], before[1] = c.returns()
			if err := c.client.download(to, bytes); err != nil {
				t.Errorf("%s, dsr %v: %v; verdicts %v, %v", to, dsr, err, nonZero(c.nodes[0]), nonZero(c.nodes[1]))
			}
			if err := c.client.upload(to, bytes); err != nil {
				t.Errorf("%s, dsr %v: %v", to, dsr, err)
			}
			after := [2]uint64{}
			after[0], after[1] = c.returns()
			tunnel, direct := after[0]-before[0], after[1]-before[1]
			// The end may come with up to 64 KB of what was sent last, and again.
			if dsr && (tunnel+direct < bytes || tunnel == 0 || tunnel > bytes/8) || !dsr && (tunnel < bytes || direct != 0) {
				t.Errorf("%s, dsr %v: %d bytes back through the tunnel, %d straight", to, dsr, tunnel, direct)
			}
		}
	}
}

// The node of entry sees nothing of what goes straight to the client, but when a
// connection ends, by either side or by a reset, it knows.
func testDSREnds(t *testing.T, c *cluster) {
	withDSR(func(*testing.T, *cluster) { c.apply(c.backends(2)...) })(t, c)
	n := c.nodes[0]
	for _, way := range []struct {
		name string
		end  func(c net.Conn) error
	}{
		{"the client ends it", func(c net.Conn) error { return c.Close() }},
		{"the client ends its half first", func(c net.Conn) error {
			if err := c.(*net.TCPConn).CloseWrite(); err != nil {
				return err
			}
			_, err := io.Copy(io.Discard, c)
			return err
		}},
		{"the task ends it", func(c net.Conn) error {
			if _, err := io.WriteString(c, "send 10\n"); err != nil {
				return err
			}
			if _, err := io.Copy(io.Discard, c); err != nil {
				return err
			}
			return c.Close()
		}},
		{"the task resets it", func(c net.Conn) error {
			// It closes with something unread in its socket.
			if _, err := io.WriteString(c, "send 10\n"+string(make([]byte, 8192))); err != nil {
				return err
			}
			_, _ = io.Copy(io.Discard, c)
			return nil
		}},
	} {
		for _, to := range []netip.AddrPort{n.published(), n.published6()} {
			conn, err := c.client.dial(to)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if answer, err := ask(conn, "echo hello"); err != nil || answer != "hello" {
				t.Fatalf("%q, %v", answer, err)
			}
			if !c.remembers(n, conn) {
				t.Errorf("%s, %s: its flow is not remembered while it is open", way.name, to)
			}
			if err := way.end(conn); err != nil {
				t.Errorf("%s, %s: %v", way.name, to, err)
			}
			c.await(func() bool { return !c.remembers(n, conn) }, "%s, %s: its flow is remembered as if it were open", way.name, to)
		}
	}
}

// remembers reports whether the node of entry knows of the connection, and of no end.
func (c *cluster) remembers(n *node, conn net.Conn) bool {
	c.t.Helper()
	client := conn.LocalAddr().(*net.TCPAddr).AddrPort()
	list, err := n.dp.Flows(api.NetFlowsRequest{Client: client.Addr().Unmap()})
	if err != nil {
		c.t.Fatal(err)
	}
	return slices.ContainsFunc(list.Flows, func(f api.NetFlow) bool { return f.Client.Port() == client.Port() })
}

func (c *cluster) await(done func() bool, format string, args ...any) {
	c.t.Helper()
	for deadline := time.Now().Add(patience); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			c.t.Errorf(format, args...)
			return
		}
	}
}

// Open flows go the way that the newest plan says, in both directions of the
// change, and none is lost. What one node has heard of it counts for it alone.
func testDSRChange(t *testing.T, c *cluster) {
	c.apply(c.backends(2)...)
	for _, to := range []netip.AddrPort{c.nodes[0].published(), c.nodes[0].published6()} {
		conn, err := c.client.dial(to)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		u, err := c.client.datagrams(to)
		if err != nil {
			t.Fatal(err)
		}
		defer u.Close()
		for i, dsr := range []bool{false, true, false, true} {
			plan := c.plan(c.nodes[0], c.backends(2)...)
			for i := range plan.Frontends {
				plan.Frontends[i].DSR = dsr && !plan.Frontends[i].Virtual()
			}
			c.nodes[0].apply(plan)
			c.wantWay(dsr, func() {
				if answer, err := ask(conn, "echo hello"); err != nil || answer != "hello" {
					t.Errorf("%s, change %d: %q, %v", to, i, answer, err)
				}
				if name, _, err := exchange(u, 100); err != nil || name != "web2" {
					t.Errorf("%s, change %d: %q, %v", to, i, name, err)
				}
			}, "%s, change %d", to, i)
		}
	}
	c.apply(c.backends(2)...)
}

// A backend's node that knows no way to the client sends through the node of
// entry, which has one.
func testDSRNoWay(t *testing.T, c *cluster) {
	far, addrs := c.behindRouter(1500)
	defer func() { run(t, "ip", "-n", c.client.name, "link", "del", "far") }()
	withDSR(func(*testing.T, *cluster) { c.apply(c.backends(2)...) })(t, c)
	for _, gone := range []bool{false, true} {
		if gone {
			c.nodes[1].ip("route del 172.31.78.0/30\nroute del 2001:db8:78::/64\n")
		}
		for _, to := range []netip.AddrPort{c.nodes[0].published(), c.nodes[0].published6()} {
			_, before := c.returns()
			name, client, err := far.who(to)
			if err != nil || name != "web2" || client.Addr() != addrs[to.Addr().Is6()] {
				t.Errorf("%s, no route %v: %q for %s: %v; verdicts %v, %v", to, gone, name, client, err, nonZero(c.nodes[0]), nonZero(c.nodes[1]))
			}
			if _, direct := c.returns(); (direct == before) != gone {
				t.Errorf("%s, no route %v: %d bytes went straight", to, gone, direct-before)
			}
		}
	}
	for i, n := range c.nodes {
		if i != 1 {
			n.ip("route del 172.31.78.0/30\nroute del 2001:db8:78::/64\n")
		}
	}
	c.apply(c.backends(2)...)
}

// wantReturn expects what is listed and what a trace foretells to say which
// return holds.
func (c *cluster) wantReturn(n *node, want api.Return) {
	c.t.Helper()
	list, err := n.dp.Frontends()
	if err != nil {
		c.t.Fatal(err)
	}
	for _, f := range list {
		if key := f.Key(); !key.Virtual() && f.Return != want {
			c.t.Errorf("%s lists %+v, want return %s", n.name, f, want)
		}
	}
	trace := n.trace(netip.AddrPortFrom(clientAddr, 40000), netip.Addr{}, publishedPort)
	if strings.Contains(trace.Return, "straight to the client") != (want == api.ReturnDSR) {
		c.t.Errorf("%s traces %+v, want return %s", n.name, trace, want)
	}
}
