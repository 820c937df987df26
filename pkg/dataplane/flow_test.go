package dataplane_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/orch-dev/orch/pkg/dataplane"
)

// run has a node's data plane look after its flows until the test ends.
func (n *node) run() (stop func()) {
	ctx, cancel := context.WithCancel(n.t.Context())
	done := make(chan error)
	go func() { done <- n.dp.Run(ctx, slog.New(slog.DiscardHandler)) }()
	return func() { cancel(); <-done }
}

// A client whose backend is gone is told at once: one that only waits, without
// sending anything, and one that sends. What it can then reach are the others.
func testBackendGone(t *testing.T, c *cluster) {
	c.apply(c.backends(2)...)
	defer c.nodes[0].run()()
	for _, way := range []struct {
		from *space
		to   netip.AddrPort
	}{
		{c.client, c.nodes[0].published()},
		{c.client, c.nodes[0].published6()},
		{c.caller.space, virtual(appPort)},
		{c.caller.space, netip.AddrPortFrom(inner6(virtualIP), appPort)},
		{c.caller.space, c.nodes[0].published()},
		{c.nodes[0].space, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), publishedPort)},
	} {
		waiting, err := way.from.dial(way.to)
		if err != nil {
			t.Fatal(err)
		}
		defer waiting.Close()
		if answer, err := ask(waiting, "echo hello"); err != nil || answer != "hello" {
			t.Fatalf("%q, %v", answer, err)
		}
		start := time.Now()
		c.apply(c.backends(3)...)
		if _, err := waiting.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s to %s, waiting: %v, want a reset; verdicts %v", way.from.name, way.to, err, nonZero(c.nodes[0]))
		}
		t.Logf("%s to %s: reset %v after its backend left", way.from.name, way.to, time.Since(start).Round(time.Millisecond))
		if name, _, err := way.from.who(way.to); err != nil || name != "web3" {
			t.Errorf("%s to %s: then %q, %v", way.from.name, way.to, name, err)
		}
		c.apply(c.backends(2)...)
	}
}

// Flows that are in use while they are looked over stay, and their sessions: a reply
// without its session would leave untranslated.
func testSweepUnderTraffic(t *testing.T, c *cluster) {
	c.apply(c.backends(2)...)
	var talks []func() error
	for _, to := range []netip.AddrPort{c.nodes[0].published(), c.nodes[0].published6()} {
		conn, err := c.client.dial(to)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		datagrams, err := c.client.datagrams(to)
		if err != nil {
			t.Fatal(err)
		}
		defer datagrams.Close()
		talks = append(talks,
			func() error { _, err := ask(conn, "echo hello"); return err },
			func() error { _, _, err := exchange(datagrams, 10); return err })
	}
	talk := func() {
		t.Helper()
		for _, talk := range talks {
			if err := talk(); err != nil {
				t.Fatal(err)
			}
		}
	}
	talk()
	for _, n := range c.nodes[:2] {
		n.sweep() // what the tests before this one left
	}
	var finish []func() (int, error)
	began := tick(t)
	for _, n := range c.nodes[:2] {
		rest, err := n.dp.BeginSweep()
		if err != nil {
			t.Fatal(err)
		}
		finish = append(finish, rest)
	}
	for tick(t) == began {
		time.Sleep(10 * time.Millisecond)
	}
	talk()
	for i, rest := range finish {
		if swept, err := rest(); swept != 0 || err != nil {
			t.Errorf("%s: %d entries in use were forgotten (%v)", c.nodes[i].name, swept, err)
		}
	}
}

// What is swept is compared with a plan that changes meanwhile.
func testSweepDuringChanges(t *testing.T, c *cluster) {
	c.apply(c.backends(1, 2, 3)...)
	n := c.nodes[0]
	for range 50 {
		conn, err := c.client.dial(n.published())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := ask(conn, "echo hello"); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan error)
	over := make(chan struct{})
	go func() {
		for {
			select {
			case <-over:
				done <- nil
				return
			default:
			}
			if _, err := n.dp.Sweep(); err != nil {
				done <- err
				return
			}
		}
	}()
	for i := range 300 {
		backends := c.backends(1, 2, 3)
		backends[i%3].Draining = i%2 == 0
		n.apply(c.plan(n, backends...))
	}
	close(over)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// tick is the programs' time.
func tick(t *testing.T) int64 {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC_COARSE, &now); err != nil {
		t.Fatal(err)
	}
	return now.Nano() >> 30
}

// The programs themselves reset a connection whose backend is gone, also when
// nobody looks after the flows.
func testResetByTheProgram(t *testing.T, c *cluster) {
	c.apply(c.backends(2)...)
	for _, way := range []struct {
		from *space
		to   netip.AddrPort
	}{
		{c.client, c.nodes[0].published()},
		{c.client, c.nodes[0].published6()},
		{c.caller.space, virtual(appPort)},
		{c.caller.space, netip.AddrPortFrom(inner6(virtualIP), appPort)},
		{c.nodes[0].space, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), publishedPort)},
	} {
		conn, err := way.from.dial(way.to)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if answer, err := ask(conn, "echo hello"); err != nil || answer != "hello" {
			t.Fatalf("%q, %v", answer, err)
		}
		c.apply()
		before := c.nodes[0].stats().Verdicts["answered-reset"].Packets
		if _, err := ask(conn, "echo anybody?"); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
			t.Errorf("%s to %s: %v, want a reset; verdicts %v", way.from.name, way.to, err, nonZero(c.nodes[0]))
		}
		if after := c.nodes[0].stats().Verdicts["answered-reset"].Packets; after == before {
			t.Errorf("%s to %s: the reset was not counted", way.from.name, way.to)
		}
		c.apply(c.backends(2)...)
	}
}

// A flood of connections that are never completed, from addresses that nobody
// has, at the rate that this machine can send it: connections that are open go
// on, idle ones as well, and new ones open. Here and on the backend's node.
func testFlood(t *testing.T, c *cluster) {
	c.apply(c.backends(1, 2)...)
	var idle, busy []net.Conn
	for i := range 40 {
		conn, err := c.client.dial(c.nodes[0].published())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if answer, err := ask(conn, "echo before"); err != nil || answer != "before" {
			t.Fatalf("%q, %v", answer, err)
		}
		if i%2 == 0 {
			idle = append(idle, conn)
		} else {
			busy = append(busy, conn)
		}
	}
	type result struct {
		syns int
		err  error
	}
	flooded := make(chan result, 1)
	go func() {
		n, err := c.client.flood(c.nodes[0], 150_000, patience/2)
		flooded <- result{n, err}
	}()
	var flood result
	opened := 0
	for done := false; !done; {
		select {
		case flood = <-flooded:
			if done = true; flood.err != nil {
				t.Fatal(flood.err)
			}
		default:
		}
		for _, conn := range busy {
			conn.SetDeadline(time.Now().Add(2 * patience)) // anew: an emulated machine is slow
			if answer, err := ask(conn, "echo meanwhile"); err != nil || answer != "meanwhile" {
				t.Fatalf("an open connection: %q, %v; verdicts %v", answer, err, nonZero(c.nodes[0]))
			}
		}
		if _, _, err := c.client.who(c.nodes[0].published()); err != nil {
			t.Errorf("a new connection: %v", err)
		}
		opened++
	}
	// Where they go to is remembered: nothing depends on the table any more.
	c.apply(append(draining(c.backends(1, 2)), c.backends(3)...)...)
	for _, conn := range slices.Concat(idle, busy) {
		conn.SetDeadline(time.Now().Add(2 * patience))
		if answer, err := ask(conn, "echo after"); err != nil || answer != "after" {
			t.Errorf("a connection that was open before: %q, %v; verdicts %v", answer, err, nonZero(c.nodes[0]))
		}
	}
	var seen uint64
	for _, f := range c.nodes[0].stats().Frontends {
		seen += f.Flows
	}
	t.Logf("%d SYNs, of which the frontends have seen %d, and %d connections opened meanwhile", flood.syns, seen, opened)
	if room := uint64(4096); seen < 2*room { // of the fabric's small maps
		t.Errorf("only %d SYNs of the flood came through, which may push nothing out", seen)
	}
}

// flood sends first packets of connections to a node's published port, each
// from another address of a network that leads nowhere: so many, or as many as
// it can in a time.
func (s *space) flood(n *node, count int, limit time.Duration) (sent int, err error) {
	end := time.Now().Add(limit)
	err = s.do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		to := &unix.SockaddrInet4{Addr: n.addr.As4()}
		for i := 0; i < count && time.Now().Before(end); i++ {
			sent++
			from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), uint16(1024+rand.IntN(60000)))
			if err := unix.Sendto(fd, synPacket(from, n.published()), 0, to); err != nil && !errors.Is(err, unix.ENOBUFS) {
				return fmt.Errorf("send SYN %d: %w", i, err)
			}
		}
		return nil
	})
	return sent, err
}

// synPacket is a TCP packet that asks for a connection.
func synPacket(from, to netip.AddrPort) []byte {
	p := make([]byte, 40)
	src, dst := from.Addr().As4(), to.Addr().As4()
	p[0], p[8], p[9] = 0x45, 64, unix.IPPROTO_TCP
	copy(p[12:], src[:])
	copy(p[16:], dst[:])
	binary.BigEndian.PutUint16(p[20:], from.Port())
	binary.BigEndian.PutUint16(p[22:], to.Port())
	binary.BigEndian.PutUint32(p[24:], rand.Uint32())
	p[32], p[33] = 5<<4, 2 // length, SYN
	binary.BigEndian.PutUint16(p[34:], 65535)
	sum := uint32(unix.IPPROTO_TCP + 20)
	for covered := p[12:]; len(covered) > 0; covered = covered[2:] {
		sum += uint32(binary.BigEndian.Uint16(covered))
	}
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(p[36:], ^uint16(sum>>16+sum))
	return p
}

// More connections than the node has room to remember: all of them work, and a
// counter says so.
func testFull(t *testing.T, c *cluster) {
	n := c.nodes[0]
	n.must(n.dp.Close)
	n.must(func() (err error) {
		n.dp, err = dataplane.Open(dataplane.Config{PinDir: n.pins, Uplink: "eth0", Mode: n.mode, MaxFlows: 64, MaxSessions: 64})
		return err
	})
	c.apply(c.backends(1, 2)...)
	before := n.stats().Verdicts
	var conns []net.Conn
	for i := range 200 {
		conn, err := c.client.dial(n.published())
		if err != nil {
			t.Fatalf("connection %d: %v; verdicts %v", i, err, nonZero(n))
		}
		defer conn.Close()
		conns = append(conns, conn)
	}
	for i, conn := range conns {
		if answer, err := ask(conn, "echo hello"); err != nil || answer != "hello" {
			t.Errorf("connection %d of %d: %q, %v; verdicts %v", i, len(conns), answer, err, nonZero(n))
		}
	}
	for _, counter := range []string{"full-flows", "full-sessions"} {
		if n.stats().Verdicts[counter].Packets == before[counter].Packets {
			t.Errorf("%s is not counted", counter)
		}
	}
	n.must(n.dp.Close)
	n.open()
	c.apply(c.backends(1, 2)...)
}
