package dataplane_test

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/dataplane"
)

// What a trace foretells is what then happens, and what is then listed.
func testTrace(t *testing.T, c *cluster) {
	c.apply(c.backends(1, 2, 3)...)
	const first, count = 21000, 40 // below the ports that the kernel gives away
	traces := make(map[string]int)
	for i := range count {
		n := c.nodes[i%3]
		from := netip.AddrPortFrom(clientAddr, uint16(first+i))
		trace := n.trace(from, netip.Addr{}, publishedPort)
		conn, err := c.client.dialFrom(from, n.published(), patience)
		if err != nil {
			t.Fatal(err)
		}
		defer reset(conn)
		name, _, err := whoOn(conn)
		if err != nil || c.taskAt(trace.Backend) != name || trace.Remembered {
			t.Errorf("%s through %s: %q answers (%v), traced %+v", from, n.name, name, err, trace)
		}
		if again := n.trace(from, netip.Addr{}, publishedPort); !again.Remembered || again.Backend != trace.Backend {
			t.Errorf("%s through %s, open: traced %+v", from, n.name, again)
		}
		traces[trace.Verdict]++
		c.wantFlow(n, from, trace.Backend, name)
	}
	if traces["delivered"] == 0 || traces["forwarded-tunnel"] == 0 {
		t.Errorf("not all ways were taken: %v", traces)
	}
	from := netip.AddrPortFrom(c.caller.addr, 21500)
	trace := c.nodes[0].trace(from, virtualIP, appPort)
	conn, err := c.caller.dialFrom(from, virtual(appPort), patience)
	if err != nil {
		t.Fatal(err)
	}
	defer reset(conn)
	if name, _, err := whoOn(conn); err != nil || c.taskAt(trace.Backend) != name {
		t.Errorf("virtual: %q answers (%v), traced %+v", name, err, trace)
	}

	for _, tt := range []struct {
		client, addr netip.Addr
		port         uint16
		verdict      string
	}{
		{clientAddr, netip.Addr{}, 1, dataplane.NotOurs},
		{clientAddr, c.nodes[1].addr, publishedPort, dataplane.NotOurs},
		{clientAddr, virtualIP, appPort, "drop: not-encapsulated"},
		{c.other.addr, virtualIP, appPort, "drop: isolated"},
		{c.other.addr, c.web[0].addr, appPort, "drop: isolated"},
		{c.caller.addr, c.web[0].addr, appPort, "delivered"},
		{c.caller.addr, c.web[1].addr, appPort, "forwarded-overlay"},
		{c.caller.addr, netip.MustParseAddr("10.190.1.1"), appPort, "drop: unknown-destination"},
		{c.caller.addr, clientAddr, 9, "passed-outside"},
		{c.web[1].addr, virtualIP, appPort, dataplane.NotOurs}, // it is on another node
	} {
		if got := c.nodes[0].trace(netip.AddrPortFrom(tt.client, 40000), tt.addr, tt.port); got.Verdict != tt.verdict {
			t.Errorf("%s to %s:%d: traced %+v, want %q", tt.client, tt.addr, tt.port, got, tt.verdict)
		}
	}
}

func testTraceWithoutBackend(t *testing.T, c *cluster) {
	c.apply()
	for _, client := range []netip.Addr{clientAddr, c.caller.addr} {
		if got := c.nodes[0].trace(netip.AddrPortFrom(client, 40000), netip.Addr{}, publishedPort); got.Verdict != "passed-no-backend" {
			t.Errorf("from %s: traced %+v", client, got)
		}
	}
	if got := c.nodes[0].trace(netip.AddrPortFrom(c.caller.addr, 40000), virtualIP, appPort); got.Verdict != "drop: no-backend" {
		t.Errorf("virtual: traced %+v", got)
	}
}

// reset ends a connection so that nothing of it is sent again later, when other
// tests count.
func reset(conn net.Conn) {
	conn.(*net.TCPConn).SetLinger(0)
	conn.Close()
}

func (n *node) trace(client netip.AddrPort, addr netip.Addr, port uint16) (trace *api.NetTrace) {
	n.t.Helper()
	n.must(func() (err error) {
		trace, err = n.dp.Trace(api.NetTraceRequest{Client: client, Addr: addr, Port: port, Protocol: api.TCP})
		return err
	})
	return trace
}

func whoOn(conn net.Conn) (name, client string, err error) {
	answer, err := ask(conn, "who")
	if err == nil {
		_, err = fmt.Sscan(answer, &name, &client)
	}
	return name, client, err
}

func (c *cluster) taskAt(backend netip.AddrPort) string {
	for _, w := range c.web {
		if w.app() == backend {
			return w.name
		}
	}
	return ""
}

// wantFlow expects a connection in the lists of both its nodes.
func (c *cluster) wantFlow(ingress *node, client, backend netip.AddrPort, name string) {
	c.t.Helper()
	for _, w := range c.web {
		serving := w.name == name
		if !serving && w.node != ingress {
			continue
		}
		list, err := w.node.dp.Flows(api.NetFlowsRequest{Service: "web", Client: client.Addr()})
		if err != nil {
			c.t.Fatal(err)
		}
		want := api.NetFlow{
			Protocol: api.TCP, Client: client, Frontend: ingress.published(), Service: "web", Backend: backend,
			Ingress: w.node == ingress, Serving: serving, State: "established", Verdict: "forwarded-tunnel",
		}
		if serving {
			want.Verdict = "delivered"
			want.State, want.Via, want.DSR = "established", ingress.addr, c.dsr && w.node != ingress
		}
		by, err := w.node.dp.Flows(api.NetFlowsRequest{Verdict: want.Verdict})
		if err != nil || slices.ContainsFunc(by.Flows, func(f api.NetFlow) bool { return f.Verdict != want.Verdict }) {
			c.t.Errorf("%s has flows that are %s: %+v, %v", w.node.name, want.Verdict, by, err)
		}
		found := false
		for _, f := range list.Flows {
			f.Idle = 0
			found = found || f == want
		}
		if !found {
			c.t.Errorf("%s does not list %+v", w.node.name, want)
		}
	}
}

func testFrontends(t *testing.T, c *cluster) {
	c.apply()
	c.nodes[0].sweep()
	backends := c.backends(1, 2, 3)
	backends[2].Draining = true
	plan := c.plan(c.nodes[0], backends...)
	for i := range plan.Endpoints {
		if plan.Endpoints[i].Addr == c.web[0].addr {
			plan.Endpoints[i].IfIndex = 0
		}
	}
	c.nodes[0].apply(plan)
	conn, err := c.client.dial(c.nodes[0].published())
	if err != nil {
		t.Fatal(err)
	}
	defer reset(conn)
	list, err := c.nodes[0].dp.Frontends()
	if err != nil || len(list) != 3 {
		t.Fatalf("%+v, %v", list, err)
	}
	got := list[0]
	got.Packets, got.Bytes, got.NewFlows = 0, 0, 0
	for i := range got.Backends {
		got.Backends[i].Packets, got.Backends[i].Bytes = 0, 0
	}
	want := api.NetFrontend{
		Addr: netip.IPv4Unspecified(), Port: publishedPort, Protocol: api.TCP, Service: "web", Return: api.ReturnTunnel,
		Backends: []api.NetBackend{
			{Addr: c.web[0].addr, Port: appPort, Node: c.nodes[0].addr.String(), State: api.BackendUnreachable},
			{Addr: c.web[1].addr, Port: appPort, Node: c.nodes[1].addr.String(), State: api.BackendActive, Share: 1, Flows: 1, NewFlows: 1},
			{Addr: c.web[2].addr, Port: appPort, Node: c.nodes[2].addr.String(), State: api.BackendDraining},
		},
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	c.apply(c.backends(1, 2, 3)...)
}

// Every packet that is lost is counted under the reason for which it was: known
// losses of all kinds that can be brought about are the sum of the counters.
func testDropsAddUp(t *testing.T, c *cluster) {
	plan := c.plan(c.nodes[0], c.backends(1, 2)...)
	for i := range plan.Endpoints {
		if plan.Endpoints[i].Addr == c.other.addr {
			plan.Endpoints[i].Outside = false
		}
	}
	empty := api.Frontend{FrontendKey: api.FrontendKey{Addr: netip.MustParseAddr("10.128.0.201")}, Service: "empty", Networks: []uint32{1}}
	plan.Frontends = append(plan.Frontends, empty)
	n := c.nodes[0]
	n.apply(plan)
	overlay := netip.AddrPortFrom(n.addr, api.OverlayPort)
	c.client.ip(fmt.Sprintf("route add 10.128.0.0/10 via %s\n", n.addr))
	defer c.client.ip("route del 10.128.0.0/10\n")
	c.caller.ip(fmt.Sprintf("addr add %s/32 dev eth0\n", c.web[1].addr))
	defer c.caller.ip(fmt.Sprintf("addr del %s/32 dev eth0\n", c.web[1].addr))

	vxlan := func(kind byte, name netip.Addr) []byte {
		frame := make([]byte, 8+14+40)
		frame[0], frame[4] = 0x08, kind
		mac := api.EndpointMAC(name)
		copy(frame[8:], mac[:])
		frame[20] = 0x08 // IPv4
		frame[22], frame[31] = 0x45, 1
		binary.BigEndian.PutUint16(frame[24:], 40)
		return frame
	}
	raw := func(to netip.Addr, proto int, source netip.Addr, data []byte) func(*space) error {
		return func(s *space) error { return s.sendRaw(source, to, proto, data) }
	}
	udp := func(to netip.AddrPort, data []byte) func(*space) error {
		return func(s *space) error { return s.sendUDP(to, data) }
	}
	injected := []struct {
		reason string
		from   *space
		send   func(*space) error
		count  int
		bytes  int // of one packet
	}{
		{"not-member", c.client, udp(overlay, make([]byte, 100)), 11, 128},
		{"malformed", c.nodes[1].space, udp(overlay, make([]byte, 100)), 12, 128},
		{"not-here", c.nodes[1].space, udp(overlay, vxlan(1, netip.MustParseAddr("10.128.0.99"))), 13, 40},
		{"not-encapsulated", c.client, udp(c.web[0].app(), make([]byte, 30)), 14, 58},
		{"isolated", c.other.space, udp(virtual(appPort), make([]byte, 10)), 15, 38},
		{"internal", c.other.space, udp(netip.AddrPortFrom(clientAddr, 9), make([]byte, 10)), 16, 38},
		{"unknown-destination", c.caller.space, udp(netip.MustParseAddrPort("10.190.1.1:80"), make([]byte, 10)), 17, 38},
		{"no-backend", c.caller.space, udp(netip.AddrPortFrom(empty.Addr, appPort), make([]byte, 10)), 18, 38},
		{"spoofed", c.caller.space, raw(virtualIP, unix.IPPROTO_ICMP, c.web[1].addr, make([]byte, 8)), 19, 28},
		{"unsupported", c.caller.space, raw(virtualIP, 132, c.caller.addr, make([]byte, 12)), 20, 32},
		{"forged", c.caller.space, udp(netip.AddrPortFrom(c.nodes[1].addr, api.OverlayPort), vxlan(3, c.web[1].addr)), 21, 28 + 62},
	}
	before := n.stats().Drops
	want := make(map[string]dataplane.Counter)
	for reason := range before {
		want[reason] = dataplane.Counter{}
	}
	for _, in := range injected {
		for range in.count {
			if err := in.send(in.from); err != nil {
				t.Fatalf("%s: %v", in.reason, err)
			}
		}
		want[in.reason] = dataplane.Counter{Packets: uint64(in.count), Bytes: uint64(in.count * in.bytes)}
	}
	var got map[string]dataplane.Counter
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		got = n.stats().Drops
		for reason, b := range before {
			a := got[reason]
			got[reason] = dataplane.Counter{Packets: a.Packets - b.Packets, Bytes: a.Bytes - b.Bytes}
		}
		if cmp.Equal(want, got) {
			break
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("drops (-injected +counted):\n%s", diff)
	}
	c.wantExamples(n, plan)
}

// wantExamples expects every reason to have a meaning, and the last packet of
// some to be known.
func (c *cluster) wantExamples(n *node, plan api.NetworkPlan) {
	c.t.Helper()
	var drops []api.NetDrop
	n.must(func() (err error) { drops, err = n.dp.Drops(); return err })
	seen := make(map[string]*api.NetExample)
	for _, d := range drops {
		if d.Meaning == "" {
			c.t.Errorf("drop reason %q has no meaning in explain.go", d.Reason)
		}
		if seen[d.Reason] = d.Last; d.Last != nil {
			if d.Last.Ago < -time.Second || d.Last.Ago > time.Hour {
				c.t.Errorf("%s: %+v", d.Reason, d.Last)
			}
			d.Last.Ago, d.Last.Source = 0, netip.AddrPortFrom(d.Last.Source.Addr(), 0)
		}
	}
	for reason, want := range map[string]api.NetExample{
		"not-member": {Source: netip.AddrPortFrom(clientAddr, 0), Destination: netip.AddrPortFrom(n.addr, api.OverlayPort), Protocol: "udp", Device: "eth0", Length: 128},
		"isolated":   {Source: netip.AddrPortFrom(c.other.addr, 0), Destination: virtual(appPort), Protocol: "udp", Device: "t-other", Length: 38},
	} {
		if got := seen[reason]; got == nil || *got != want {
			c.t.Errorf("the last packet that was %s: %+v, want %+v", reason, got, want)
		}
	}
}

// sendUDP sends one datagram from a socket of its own, so that errors about an
// earlier one are not in its way.
func (s *space) sendUDP(to netip.AddrPort, data []byte) error {
	u, err := s.datagrams(to)
	if err != nil {
		return err
	}
	defer u.Close()
	_, err = u.Write(data)
	return err
}

func (s *space) sendRaw(source, to netip.Addr, proto int, data []byte) error {
	return s.do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, proto)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: source.As4()}); err != nil {
			return err
		}
		return syscall.Sendto(fd, data, 0, &syscall.SockaddrInet4{Addr: to.As4()})
	})
}
