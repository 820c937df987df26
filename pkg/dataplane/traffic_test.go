package dataplane_test

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/dataplane"
)

func testBalance(t *testing.T, c *cluster) {
	c.apply() // which clears the counters of backends
	c.apply(c.backends(1, 2, 3)...)
	const connections = 600
	var earlier uint64
	for _, n := range c.nodes {
		for _, f := range n.stats().Frontends {
			earlier += f.Flows
		}
	}
	for what, ask := range map[string]func(i int) (string, netip.AddrPort, error){
		"published": func(i int) (string, netip.AddrPort, error) { return c.client.who(c.nodes[i%3].published()) },
		"virtual":   func(int) (string, netip.AddrPort, error) { return c.caller.who(virtual(appPort)) },
	} {
		count := make(map[string]int)
		for i := range connections {
			name, _, err := ask(i)
			if err != nil {
				t.Fatal(err)
			}
			count[name]++
		}
		for _, w := range c.web {
			if n := count[w.name]; n < connections*25/100 || n > connections*42/100 {
				t.Errorf("%s: %s got %d of %d", what, w.name, n, connections)
			}
		}
		t.Log(what, count)
	}
	var flows, backendFlows uint64
	for _, n := range c.nodes {
		s := n.stats()
		for _, f := range s.Frontends {
			flows += f.Flows
		}
		for _, b := range s.Backends {
			backendFlows += b.Flows
		}
	}
	// On a slow machine a client sends a SYN again, which counts again.
	const again = connections / 100
	if flows -= earlier; flows < 2*connections || flows > 2*connections+again || backendFlows != flows {
		t.Errorf("%d flows counted at frontends and %d at backends, want %d", flows, backendFlows, 2*connections)
	}
}

// bulk is how much a transfer is that is to take a while.
func bulk(megabytes int64) int64 {
	if testing.Short() {
		megabytes /= 10 // for an emulated machine
	}
	return megabytes << 20
}

func testTransfers(t *testing.T, c *cluster) {
	bytes := bulk(20)
	for i, w := range c.web[:2] {
		c.apply(c.backends(i + 1)...)
		for _, way := range []struct {
			from *space
			to   netip.AddrPort
		}{
			{c.client, c.nodes[0].published()},
			{c.caller.space, virtual(appPort)},
			{c.caller.space, w.app()},
		} {
			start := time.Now()
			if err := way.from.download(way.to, bytes); err != nil {
				t.Errorf("%s from %s at %s: %v", way.from.name, way.to, w.name, err)
			}
			down := time.Since(start)
			if err := way.from.upload(way.to, bytes); err != nil {
				t.Errorf("%s to %s at %s: %v", way.from.name, way.to, w.name, err)
			}
			t.Logf("%s, %s at %s: %d bytes down in %v, up in %v", way.from.name, way.to, w.name, bytes, down, time.Since(start)-down)
		}
	}
}

// Datagrams that fill the client's MTU, and longer ones that come in fragments.
func testLargeDatagrams(t *testing.T, c *cluster) {
	for i := range c.web[:2] {
		c.apply(c.backends(i + 1)...)
		for _, length := range []int{1400, 1472, 4000, 20000} {
			for _, way := range []struct {
				from *space
				to   netip.AddrPort
			}{
				{c.client, c.nodes[0].published()},
				{c.caller.space, virtual(appPort)},
			} {
				u, err := way.from.datagrams(way.to)
				if err != nil {
					t.Fatal(err)
				}
				name, _, err := exchange(u, length)
				if err != nil || name != c.web[i].name {
					t.Errorf("%s to %s: %q: %v; verdicts %v, %v", way.from.name, way.to, name, err, nonZero(c.nodes[0]), nonZero(c.nodes[i]))
				}
				u.Close()
			}
		}
	}
	if n := c.nodes[0].stats().Verdicts["answered-too-big"].Packets; n == 0 {
		t.Error("no ICMP fragmentation needed was sent")
	}
}

func testDraining(t *testing.T, c *cluster) {
	c.apply(c.backends(2)...)
	old, err := c.client.dial(c.nodes[0].published())
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	udp, err := c.client.datagrams(c.nodes[0].published())
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	if name, _, err := exchange(udp, 10); err != nil || name != "web2" {
		t.Fatalf("udp: %q, %v", name, err)
	}
	c.apply(append(draining(c.backends(2)), c.backends(3)...)...)
	for range 50 {
		if name, _, err := c.client.who(c.nodes[0].published()); err != nil || name != "web3" {
			t.Fatalf("a new flow went to %q, %v", name, err)
		}
	}
	if answer, err := ask(old, "echo still here"); err != nil || answer != "still here" {
		t.Errorf("the old flow: %q, %v", answer, err)
	}
	if name, _, err := exchange(udp, 10); err != nil || name != "web2" {
		t.Errorf("the old udp flow: %q, %v", name, err)
	}
	c.apply(c.backends(3)...)
	if name, _, err := exchange(udp, 10); err != nil || name != "web3" {
		t.Errorf("the udp flow of a gone backend: %q, %v", name, err)
	}
}

func draining(backends []api.Backend) []api.Backend {
	for i := range backends {
		backends[i].Draining = true
	}
	return backends
}

// The daemon may go and come back at any time: pins carry the traffic, and the
// next Open takes over without a gap.
func testRestartUnderTraffic(t *testing.T, c *cluster) {
	c.apply(c.backends(2, 3)...)
	before := c.nodes[0].stats()
	transfers := make(chan error, 2)
	go func() { transfers <- c.client.download(c.nodes[0].published(), bulk(100)) }()
	go func() { transfers <- c.caller.upload(virtual(appPort), bulk(100)) }()
	stop, connects := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				connects <- nil
				return
			default:
			}
			if _, _, err := c.client.who(c.nodes[0].published()); err != nil {
				connects <- err
				return
			}
		}
	}()
	restarts, most := 0, math.MaxInt
	if testing.Short() {
		most = 1 // an emulated processor takes seconds to verify the programs
	}
	again := make(chan struct{})
	close(again)
	for running := 2; running > 0 || restarts < min(most, len(c.nodes)); {
		if restarts == most {
			again = nil
		}
		select {
		case err := <-transfers:
			running--
			if err != nil {
				t.Errorf("a transfer: %v; verdicts %v", err, nonZero(c.nodes[0]))
			}
		case <-again:
			n := c.nodes[restarts%len(c.nodes)]
			n.must(n.dp.Close)
			n.open()
			n.apply(c.plan(n, c.backends(2, 3)...))
			restarts++
		}
	}
	close(stop)
	if err := <-connects; err != nil {
		t.Errorf("a new connection: %v", err)
	}
	after := c.nodes[0].stats()
	for i := range before.Backends {
		if a, b := before.Backends[i], after.Backends[i]; a.Addr != b.Addr || b.Packets < a.Packets {
			t.Errorf("counters were lost: %+v, then %+v", a, b)
		}
	}
	t.Logf("%d restarts; %s", restarts, c.nodes[0].dp.Describe())
}

// Where a map has another size, connections and counters stay, and the old one goes.
func testRestartWithOtherSizes(t *testing.T, c *cluster) {
	c.apply(c.backends(2)...)
	n := c.nodes[0]
	conn, err := c.client.dial(n.published())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if answer, err := ask(conn, "echo first"); err != nil || answer != "first" {
		t.Fatalf("%q, %v", answer, err)
	}
	before := n.stats()
	n.must(n.dp.Close)
	n.must(func() (err error) {
		n.dp, err = dataplane.Open(dataplane.Config{PinDir: n.pins, Uplink: "eth0", Mode: n.mode, MaxBackends: 1024, MaxEndpoints: 1024})
		return err
	})
	if answer, err := ask(conn, "echo before the plan"); err != nil || answer != "before the plan" {
		t.Errorf("%q, %v", answer, err)
	}
	n.apply(c.plan(n, c.backends(2)...))
	if answer, err := ask(conn, "echo after the plan"); err != nil || answer != "after the plan" {
		t.Errorf("%q, %v; verdicts %v", answer, err, nonZero(n))
	}
	after, counted := n.stats(), uint64(0)
	for i := range before.Backends {
		if a, b := before.Backends[i], after.Backends[i]; a.Addr != b.Addr || a.Port != b.Port || b.Packets < a.Packets {
			t.Errorf("counters were lost: %+v, then %+v", a, b)
		}
		counted += before.Backends[i].Packets
	}
	if counted == 0 {
		t.Error("nothing was counted that could be lost")
	}
	c.caller.asks(virtual(appPort), "web2", c.caller.addr)
	n.must(n.dp.Close)
	n.open()
}

// VXLAN from an address that is not a member's, and bare packets to the pool.
func testStrangers(t *testing.T, c *cluster) {
	c.apply(c.backends(1)...)
	n := c.nodes[0]
	u, err := c.client.datagrams(netip.AddrPortFrom(n.addr, 4789))
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	c.client.ip(fmt.Sprintf("route add 10.128.0.0/10 via %s\n", n.addr))
	defer c.client.ip("route del 10.128.0.0/10\n")
	if _, err := u.Write(make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	bare, err := c.client.dialFrom(netip.AddrPort{}, c.web[0].app(), time.Second)
	if err == nil {
		bare.Close()
		t.Error("a client outside reached a task's own address")
	}
	n.wantDrop("not-member")
	n.wantDrop("not-encapsulated")
}

func testEmptyPlanLeavesNothing(t *testing.T, c *cluster) {
	c.apply(c.backends(1, 2, 3)...)
	for _, n := range c.nodes {
		for range 20 {
			if _, _, err := c.client.who(n.published()); err != nil {
				t.Fatal(err)
			}
		}
		u, err := c.client.datagrams(n.published())
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := exchange(u, 4000); err != nil {
			t.Error(err)
		}
		u.Close()
	}
	for range 20 {
		if _, _, err := c.caller.who(virtual(appPort)); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range c.nodes {
		plan := c.plan(n)
		plan.Endpoints, plan.Frontends, plan.Members = nil, nil, nil
		n.apply(plan)
		n.sweep()
		got, err := n.dp.Entries()
		if err != nil {
			t.Fatal(err)
		}
		want := make(map[string]int)
		for name := range got {
			want[name] = 0
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: entries left (-want +got):\n%s", n.name, diff)
		}
	}
	// And the node is as reachable as if there were no data plane.
	c.client.refusedBy(c.nodes[0].published())
}

func (s *space) refusedBy(to netip.AddrPort) {
	s.t.Helper()
	c, err := s.dial(to)
	if err == nil {
		c.Close()
		s.t.Errorf("%s still answers", to)
	}
	if e, ok := err.(net.Error); ok && e.Timeout() {
		s.t.Errorf("%s: %v, want a refusal", to, err)
	}
}

func testNoBackendIsRefusedByTheKernel(t *testing.T, c *cluster) {
	c.apply()
	c.client.refusedBy(c.nodes[0].published())
	if n := c.nodes[0].stats().Verdicts["passed-no-backend"].Packets; n == 0 {
		t.Error("not counted")
	}
}

// ICMP errors about a translated flow reach the end that they are for.
func testErrorsFollowTheFlow(t *testing.T, c *cluster) {
	backends := c.backends(2)
	backends[0].Port = 81 // where nobody listens
	c.apply(backends...)
	closed, err := c.client.datagrams(c.nodes[0].published())
	if err != nil {
		t.Fatal(err)
	}
	defer closed.Close()
	closed.Write([]byte("hello"))
	closed.SetDeadline(time.Now().Add(patience))
	if _, err := closed.Read(make([]byte, 10)); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a datagram to a closed port: %v, want connection refused; verdicts %v, %v", err, nonZero(c.nodes[0]), nonZero(c.nodes[1]))
	}

	c.apply(c.backends(2)...)
	before := c.web[1].icmpErrors()
	for deadline := time.Now().Add(patience); c.web[1].icmpErrors() == before; {
		if time.Now().After(deadline) {
			t.Fatalf("the task was not told; verdicts %v, %v", nonZero(c.nodes[0]), nonZero(c.nodes[1]))
		}
		gone, err := c.client.datagrams(c.nodes[0].published())
		if err != nil {
			t.Fatal(err)
		}
		gone.Write([]byte("hello"))
		gone.Close() // mostly before the answer is there, which the client's kernel then refuses
		time.Sleep(time.Millisecond)
	}
}

// icmpErrors counts the destination unreachable messages that a task accepted.
func (k *task) icmpErrors() string {
	k.t.Helper()
	var value string
	k.must(func() error {
		snmp, err := os.ReadFile("/proc/thread-self/net/snmp")
		var names []string
		for _, line := range strings.Split(string(snmp), "\n") {
			fields := strings.Fields(line)
			if len(fields) == 0 || fields[0] != "Icmp:" {
				continue
			}
			if names == nil {
				names = fields
				continue
			}
			value = fields[slices.Index(names, "InDestUnreachs")]
		}
		return err
	})
	return value
}

// Kernels without TCX have clsact filters instead; the mark of one makes the
// data plane stay with it.
func TestClsact(t *testing.T) {
	c := newCluster(t, dataplane.ModeTC)
	n := c.nodes[0]
	n.purge()
	n.dp = nil
	links := filepath.Join(n.pins, "links")
	marks := []string{
		fmt.Sprintf("uplink_tc_%d", c.index(n.space, "eth0")),
		fmt.Sprintf("task_%d", c.caller.ifindex),
		fmt.Sprintf("task_%d", c.web[0].ifindex),
	}
	for _, mark := range marks {
		if err := os.MkdirAll(filepath.Join(links, mark), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	filters := func() string {
		return run(t, "tc", "-n", n.space.name, "filter", "show", "dev", "eth0", "ingress") +
			run(t, "tc", "-n", n.space.name, "filter", "show", "dev", "t-web1", "ingress")
	}
	for range 2 { // the second time they are replaced
		n.open()
		c.apply(c.backends(1, 2)...)
		c.caller.asks(c.web[0].app(), "web1", c.caller.addr)
		if _, client, err := c.client.who(n.published()); err != nil || client.Addr() != clientAddr {
			t.Errorf("%s: %v; verdicts %v", client, err, nonZero(n))
		}
		if got := strings.Count(filters(), "direct-action"); got != 2 {
			t.Errorf("%d filters on two interfaces:\n%s", got, filters())
		}
		if got := n.dp.Describe(); got != "clsact on eth0" {
			t.Error(got)
		}
		want := api.Attachment{Device: "t-web1", Program: "task", How: "clsact", Why: "attached so by an earlier run"}
		if here := byTC(); here.How == "clsact" {
			want.Why = here.Why
		}
		if got := n.attached("task", "t-web1"); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
		n.must(n.dp.Close)
	}
	n.open()
	n.purge()
	n.dp = nil
	if got := filters(); got != "" {
		t.Errorf("filters are left:\n%s", got)
	}
}

// A large cluster's plan is applied in reasonable time, and applying it again
// costs next to nothing.
func testLargePlan(t *testing.T, c *cluster) {
	n := c.nodes[0]
	plan := c.plan(n, c.backends(2)...)
	var backends []api.Backend
	for i := range 5000 {
		addr := netip.AddrFrom4([4]byte{10, 130, byte(i >> 8), byte(i)})
		plan.Endpoints = append(plan.Endpoints, api.PlanEndpoint{Addr: addr, Node: c.nodes[1+i%2].addr, Networks: []uint32{uint32(i % 100), 1000}})
		backends = append(backends, api.Backend{Addr: addr, Port: appPort, Weight: 1})
	}
	for i := range 500 {
		key := api.FrontendKey{Addr: netip.AddrFrom4([4]byte{10, 131, byte(i >> 8), byte(i)})}
		plan.Frontends = append(plan.Frontends, api.Frontend{FrontendKey: key, Service: fmt.Sprint("s", i), Networks: []uint32{uint32(i % 100)}, Backends: backends[10*i : 10*i+10]})
	}
	start := time.Now()
	n.apply(plan)
	first := time.Since(start)
	start = time.Now()
	n.apply(plan)
	t.Logf("5000 endpoints and 500 frontends in %v, again in %v", first, time.Since(start))
	c.caller.asks(virtual(appPort), "web2", c.caller.addr)
	got, err := n.dp.Entries()
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]int{"endpoints": 5000 + 5, "frontends": 500 + 3, "backends": 5000 + 3, "tables": 500 + 3}
	for name, count := range want {
		if got[name] != count {
			t.Errorf("%d %s, want %d", got[name], name, count)
		}
	}
	if first > patience {
		t.Errorf("took %v", first)
	}
}
