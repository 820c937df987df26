package dataplane_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/dataplane"
)

const (
	appPort       = 80
	publishedPort = 8080
)

var virtualIP = netip.MustParseAddr("10.128.0.200")

// cluster is a fabric with three tasks of one service, one on each node, a task
// that calls them, and one on another network.
type cluster struct {
	*fabric
	web    []*task
	caller *task // n1, network 1
	other  *task // n1, network 2
	dsr    bool  // published ports have direct server return
}

func newCluster(t *testing.T, mode dataplane.Mode) *cluster {
	return newClusterOf(t, mode, 1500)
}

// newClusterOf has an underlay of an MTU.
func newClusterOf(t *testing.T, mode dataplane.Mode, mtu int) *cluster {
	c := &cluster{fabric: newFabric(t, mode, mtu)}
	for i, n := range c.nodes {
		w := c.addTask(n, fmt.Sprintf("web%d", i+1), fmt.Sprintf("10.128.0.%d", i+1))
		w.serve(appPort)
		c.web = append(c.web, w)
	}
	c.caller = c.addTask(c.nodes[0], "caller", "10.128.0.11")
	c.other = c.addTask(c.nodes[0], "other", "10.128.0.12")
	return c
}

// plan is the network plan of a node with these backends.
func (c *cluster) plan(n *node, backends ...api.Backend) api.NetworkPlan {
	p := api.NetworkPlan{Generation: 1, Node: api.NodeID(n.name), Underlay: n.addr, Pool: pool, Pool6: pool6}
	for _, m := range c.nodes {
		p.Members = append(p.Members, api.Member{Node: api.NodeID(m.name), Addr: m.addr})
	}
	tasks := append(slices.Clone(c.web), c.caller, c.other)
	for _, k := range tasks {
		e := api.PlanEndpoint{Addr: k.addr, Node: k.node.addr, Networks: []uint32{1}, Outside: true}
		if k == c.other {
			e.Networks = []uint32{2}
		}
		if k.node == n {
			e.IfIndex = k.ifindex
		}
		p.Endpoints = append(p.Endpoints, e)
	}
	virtual := slices.Clone(backends)
	for i := range virtual {
		virtual[i].Port = 0
	}
	p.Frontends = []api.Frontend{
		{FrontendKey: api.FrontendKey{Addr: netip.IPv4Unspecified(), Port: publishedPort, Protocol: api.TCP}, Service: "web", DSR: c.dsr, Backends: backends},
		{FrontendKey: api.FrontendKey{Addr: netip.IPv4Unspecified(), Port: publishedPort, Protocol: api.UDP}, Service: "web", DSR: c.dsr, Backends: backends},
		{FrontendKey: api.FrontendKey{Addr: virtualIP}, Service: "web", Networks: []uint32{1}, Backends: virtual},
	}
	return p
}

// backends are the web tasks with these numbers, counted from 1.
func (c *cluster) backends(numbers ...int) []api.Backend {
	var list []api.Backend
	for _, i := range numbers {
		list = append(list, api.Backend{Addr: c.web[i-1].addr, Port: appPort, Weight: 1})
	}
	return list
}

// apply gives every node the plan with these backends.
func (c *cluster) apply(backends ...api.Backend) {
	c.t.Helper()
	for _, n := range c.nodes {
		n.apply(c.plan(n, backends...))
	}
}

func (n *node) published() netip.AddrPort { return netip.AddrPortFrom(n.addr, publishedPort) }

func (n *node) stats() dataplane.Stats {
	n.t.Helper()
	s, err := n.dp.Stats()
	if err != nil {
		n.t.Fatal(err)
	}
	return s
}

// The tests of a mode share one cluster. Each gives it the plan that it needs,
// and undoes what else it changed.
func TestDataplane(t *testing.T) {
	for _, mode := range []dataplane.Mode{dataplane.ModeXDP, dataplane.ModeTC} {
		t.Run(string(mode), func(t *testing.T) {
			c := newCluster(t, mode)
			for _, test := range []struct {
				name string
				run  func(t *testing.T, c *cluster)
			}{
				{"ingress", testIngress},
				{"ingress by ipv6", testIngress6},
				{"east west by ipv6", testEastWest6},
				{"published on an address", testPublishedOnAnAddress},
				{"host port", testHostPort},
				{"two ports, one source", testTwoPortsOneSource},
				{"east west", testEastWest},
				{"task calls itself", testTaskCallsItself},
				{"task calls published port", testTaskCallsPublishedPort},
				{"node calls task", testNodeCallsTask},
				{"node calls published port", testNodeCallsPublishedPort},
				{"isolation", testIsolation},
				{"internal", testInternal},
				{"spoofed source", testSpoofedSource},
				{"colliding flows", testCollidingFlows},
				{"direct after virtual", testDirectAfterVirtual},
				{"direct beside virtual", testDirectBesideVirtual},
				{"datagrams, direct beside virtual", testDatagramsDirectBesideVirtual},
				{"ports used again", testPortsUsedAgain},
				{"late ends", testLateEnds},
				{"trace", testTrace},
				{"trace without a backend", testTraceWithoutBackend},
				{"frontends", testFrontends},
				{"drops add up", testDropsAddUp},
				{"handshakes and pairs", testHandshakesAndPairs},
				{"balance", testBalance},
				{"affinity", testAffinity},
				{"weights", testWeights},
				{"transfers", testTransfers},
				{"large datagrams", testLargeDatagrams},
				{"too big", testTooBig},
				{"ping", testPing},
				{"fragments", testFragments},
				{"draining", testDraining},
				{"backend gone", testBackendGone},
				{"sweep under traffic", testSweepUnderTraffic},
				{"sweep during changes", testSweepDuringChanges},
				{"reset by the program", testResetByTheProgram},
				{"dsr", testDSR},
				{"dsr: ingress", withDSR(testIngress)},
				{"dsr: ingress by ipv6", withDSR(testIngress6)},
				{"dsr: two ports, one source", withDSR(testTwoPortsOneSource)},
				{"dsr: task calls published port", withDSR(testTaskCallsPublishedPort)},
				{"dsr: node calls published port", withDSR(testNodeCallsPublishedPort)},
				{"dsr: colliding flows", withDSR(testCollidingFlows)},
				{"dsr: trace", withDSR(testTrace)},
				{"dsr: large datagrams", withDSR(testLargeDatagrams)},
				{"dsr: too big", withDSR(testTooBig)},
				{"dsr: fragments", withDSR(testFragments)},
				{"dsr: errors follow the flow", withDSR(testErrorsFollowTheFlow)},
				{"dsr: draining", withDSR(testDraining)},
				{"dsr: backend gone", withDSR(testBackendGone)},
				{"dsr: reset by the program", withDSR(testResetByTheProgram)},
				{"dsr: ends are known", testDSREnds},
				{"dsr: change under open flows", testDSRChange},
				{"dsr: no way", testDSRNoWay},
				{"flood", testFlood},
				{"full", testFull},
				{"restart under traffic", testRestartUnderTraffic},
				{"restart with other sizes", testRestartWithOtherSizes},
				{"strangers", testStrangers},
				{"encrypted", testEncrypted},
				{"large plan", testLargePlan},
				{"empty plan leaves nothing", testEmptyPlanLeavesNothing},
				{"no backend is refused by the kernel", testNoBackendIsRefusedByTheKernel},
				{"errors follow the flow", testErrorsFollowTheFlow},
			} {
				ok := t.Run(test.name, func(t *testing.T) {
					whole := c.t
					c.t = t
					defer func() { c.t = whole }()
					test.run(t, c)
				})
				if !ok {
					return // the next one would fail for reasons of this one
				}
			}
		})
	}
}

func testIngress(t *testing.T, c *cluster) {
	c.apply(c.backends(2)...)
	for _, n := range c.nodes {
		name, client, err := c.client.who(n.published())
		if err != nil || name != "web2" || client.Addr() != clientAddr {
			t.Errorf("through %s: %q for client %s: %v; verdicts %v", n.name, name, client, err, nonZero(n))
		}
		u, err := c.client.datagrams(n.published())
		if err != nil {
			t.Fatal(err)
		}
		defer u.Close()
		name, seen, err := exchange(u, 100)
		if err != nil || name != "web2" || seen != clientAddr {
			t.Errorf("udp through %s: %q for client %s: %v; verdicts %v", n.name, name, seen, err, nonZero(n))
		}
	}
}

// nonZero lists a node's drops and verdicts that happened.
func nonZero(n *node) map[string]uint64 {
	s := n.stats()
	m := make(map[string]uint64)
	for name, c := range s.Drops {
		if c.Packets > 0 {
			m["drop "+name] = c.Packets
		}
	}
	for name, c := range s.Verdicts {
		if c.Packets > 0 {
			m[name] = c.Packets
		}
	}
	return m
}
