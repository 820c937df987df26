package dataplane_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"

	"github.com/orch-dev/orch/pkg/dataplane"
)

// otherVersion are programs whose flows and sessions have two numbers more, in
// front of all others.
func otherVersion() (*ebpf.CollectionSpec, error) {
	return ebpf.LoadCollectionSpec("testdata/other.o")
}

// Between versions with different layouts, and with another size of the maps, up
// and down again, no connection is lost: neither one that was open before, also to
// a backend that gets no new ones, nor one that is opened meanwhile.
func TestLayoutChange(t *testing.T) {
	for _, mode := range []dataplane.Mode{dataplane.ModeXDP, dataplane.ModeTC} {
		t.Run(string(mode), func(t *testing.T) {
			c := newCluster(t, mode)
			c.apply(c.backends(1, 2, 3)...)
			open := c.openMany(20)
			backends := c.backends(1, 2, 3)
			backends[0].Draining = true
			c.apply(backends...)
			before := c.nodes[0].stats()
			stop := c.keepConnecting()

			for round := range 4 {
				for _, n := range c.nodes {
					n.must(n.dp.Close)
					n.reopen(dataplane.Config{MaxFlows: 8192 << (round % 2), MaxSessions: 16384}, round%2 == 0)
					n.mustHaveCarried("sessions")
					open.mustAnswer(fmt.Sprint(n.name, " runs another version, round ", round))
					n.apply(c.plan(n, backends...))
					n.mustHaveOnePinEach()
				}
			}
			c.nodes[0].mustHaveCarried("flows", "flows6")
			stop()
			open.mustAnswer("all is as before")
			after := c.nodes[0].stats()
			for i := range before.Backends {
				if a, b := before.Backends[i], after.Backends[i]; a.Addr != b.Addr || b.Packets < a.Packets {
					t.Errorf("counters were lost: %+v, then %+v", a, b)
				}
			}
		})
	}
}

// A daemon that is started with another --datapath attaches the other way and leaves
// nothing of the one before, and no connection is lost.
func TestAnotherMode(t *testing.T) {
	c := newCluster(t, dataplane.ModeXDP)
	c.apply(c.backends(1, 2, 3)...)
	open := c.openMany(20)
	stop := c.keepConnecting()
	for _, mode := range []dataplane.Mode{dataplane.ModeTC, dataplane.ModeXDP, dataplane.ModeTC} {
		for _, n := range c.nodes {
			n.must(n.dp.Close)
			n.mode = mode
			n.open()
			n.apply(c.plan(n, c.backends(1, 2, 3)...))
			if xdp := n.hasXDP(); xdp != (mode == dataplane.ModeXDP) {
				t.Errorf("%s by %s: XDP on its uplink: %v; %s", n.name, mode, xdp, n.dp.Describe())
			}
			open.mustAnswer(fmt.Sprint(n.name, " goes by ", mode))
		}
	}
	stop()
}

// hasXDP reports whether a program is attached to the uplink in XDP.
func (n *node) hasXDP() (attached bool) {
	n.t.Helper()
	n.must(func() error {
		uplink, err := netlink.LinkByName("eth0")
		if err == nil {
			xdp := uplink.Attrs().Xdp
			attached = xdp != nil && xdp.Attached
		}
		return err
	})
	return attached
}

// What cannot be understood is said, and does not hold up the rest.
func TestUnknownLayout(t *testing.T) {
	c := newCluster(t, dataplane.ModeTC)
	n := c.nodes[0]
	n.must(n.dp.Close)
	restore := dataplane.UseSpec(func() (*ebpf.CollectionSpec, error) {
		spec, err := otherVersion()
		if err == nil {
			spec.Maps["flows"].Key, spec.Maps["flows"].Value = nil, nil
		}
		return spec, err
	})
	n.open()
	restore()
	c.apply(c.backends(1, 2, 3)...)
	open := c.openMany(5)
	n.must(n.dp.Close)
	n.open()
	said := make(map[string]dataplane.Carried)
	for _, carried := range n.dp.Carried() {
		said[carried.Map] = carried
	}
	if got := said["flows"]; got.Why != "the kernel keeps no type information of it" || got.Entries != 0 {
		t.Errorf("of the flows is said %+v", got)
	}
	if got := said["sessions"]; got.Why != "" || got.Entries == 0 || got.Left != 0 {
		t.Errorf("of the sessions is said %+v", got)
	}
	open.mustAnswer("the tables choose the same backends")
	n.mustHaveOnePinEach()
}

// reopen is open with other sizes, and perhaps with the programs of another version.
func (n *node) reopen(cfg dataplane.Config, other bool) {
	n.t.Helper()
	if other {
		defer dataplane.UseSpec(otherVersion)()
	}
	cfg.PinDir, cfg.Uplink, cfg.Mode = n.pins, "eth0", n.mode
	n.must(func() (err error) {
		n.dp, err = dataplane.Open(cfg)
		return err
	})
}

// mustHaveCarried checks that all entries of these maps were.
func (n *node) mustHaveCarried(maps ...string) {
	n.t.Helper()
	entries := make(map[string]int)
	for _, carried := range n.dp.Carried() {
		if carried.Why != "" || carried.Left != 0 {
			n.t.Errorf("%s: %+v", n.name, carried)
		}
		entries[carried.Map] = carried.Entries
	}
	for _, name := range maps {
		if entries[name] == 0 {
			n.t.Errorf("%s carried no %s: %v", n.name, name, entries)
		}
	}
}

// mustHaveOnePinEach checks that no map of another version is left.
func (n *node) mustHaveOnePinEach() {
	n.t.Helper()
	pins, err := os.ReadDir(filepath.Join(n.pins, "maps"))
	if err != nil {
		n.t.Fatal(err)
	}
	seen := make(map[string]bool)
	for _, pin := range pins {
		name := pin.Name()[:strings.LastIndexByte(pin.Name(), '_')]
		if seen[name] {
			n.t.Errorf("%s has two maps %s", n.name, name)
		}
		seen[name] = true
	}
}

// opened are connections with the task that has answered on each.
type opened struct {
	c     *cluster
	conns []net.Conn
}

// openMany opens so many connections each by every way to a backend.
func (c *cluster) openMany(each int) *opened {
	c.t.Helper()
	o := &opened{c: c}
	for range each {
		for _, way := range []struct {
			from *space
			to   netip.AddrPort
		}{
			{c.client, c.nodes[0].published()}, {c.client, c.nodes[1].published()}, {c.client, c.nodes[0].published6()},
			{c.caller.space, virtual(appPort)},
		} {
			conn, err := way.from.dial(way.to)
			if err != nil {
				c.t.Fatal(err)
			}
			conn.SetDeadline(time.Time{})
			c.t.Cleanup(func() { conn.Close() })
			o.conns = append(o.conns, conn)
		}
	}
	o.mustAnswer("they were just opened")
	return o
}

func (o *opened) mustAnswer(when string) {
	o.c.t.Helper()
	lost := 0
	var last error
	for i, conn := range o.conns {
		conn.SetDeadline(time.Now().Add(patience))
		if answer, err := ask(conn, fmt.Sprint("echo ", i)); err != nil || answer != fmt.Sprint(i) {
			lost, last = lost+1, fmt.Errorf("%s to %s: %q, %w", conn.LocalAddr(), conn.RemoteAddr(), answer, err)
		}
	}
	if lost > 0 {
		o.c.t.Fatalf("%s: %d of %d connections are lost, the last %v; verdicts %v", when, lost, len(o.conns), last, nonZero(o.c.nodes[0]))
	}
}

// keepConnecting opens a connection after the other, by several ways, until the
// function that it returns is called; that fails if any did.
func (c *cluster) keepConnecting() (stop func()) {
	ended := make(chan struct{})
	var all sync.WaitGroup
	var mu sync.Mutex
	var made int
	var failed []error
	for _, way := range []struct {
		from *space
		to   netip.AddrPort
	}{{c.client, c.nodes[0].published()}, {c.client, c.nodes[1].published()}, {c.caller.space, virtual(appPort)}} {
		all.Go(func() {
			for {
				select {
				case <-ended:
					return
				default:
				}
				_, _, err := way.from.who(way.to)
				mu.Lock()
				if made++; err != nil {
					failed = append(failed, fmt.Errorf("%s to %s: %w", way.from.name, way.to, err))
				}
				mu.Unlock()
			}
		})
	}
	return func() {
		c.t.Helper()
		close(ended)
		all.Wait()
		c.t.Logf("%d new connections meanwhile", made)
		if len(failed) > 0 {
			c.t.Errorf("%d of %d new connections failed, the first %v", len(failed), made, failed[0])
		}
	}
}
