package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/orch-dev/orch/pkg/agent"
	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/dataplane"
	"github.com/orch-dev/orch/pkg/dns"
	"github.com/orch-dev/orch/pkg/docker"
	"github.com/orch-dev/orch/pkg/fence"
	"github.com/orch-dev/orch/pkg/membership"
	"github.com/orch-dev/orch/pkg/metrics"
	"github.com/orch-dev/orch/pkg/netdev"
	"github.com/orch-dev/orch/pkg/rpc"
	"github.com/orch-dev/orch/pkg/wireguard"
)

// dnsAddr is where tasks find their node's name server. It is link-local, so
// that it can be the same on every node.
var dnsAddr = netip.MustParseAddr("169.254.20.53")

// member is all that runs while a node is in a cluster.
type member struct {
	parts
	id identity // when it started

	fence    *fence.Fence
	engine   *docker.Engine
	plane    *dataplane.Dataplane
	links    *netdev.Links
	tunnels  *wireguard.Tunnels
	names    *dns.Server
	gossip   *gossip
	managers *agent.Directory
	agent    *agent.Agent

	managing atomic.Pointer[managing] // nil on a worker
}

// startMember makes the parts of a member and runs them. The agent, which needs
// the cluster to know the node, is started at once only if withAgent: without,
// the node is to become a member, and what was made is taken away on failure.
func (d *daemon) startMember(id identity, withAgent bool) (*member, error) {
	m := &member{parts: d.newParts(), id: id}
	if err := m.initManagers(); err != nil {
		m.stop()
		return nil, fmt.Errorf("find the way to the managers: %w", err)
	}
	if withAgent {
		defer m.announce()()
	}
	steps := []struct {
		name string
		do   func() error
	}{
		{"the container runtime", m.initRuntime},
		{"the network", m.initNetwork},
		{"gossip", m.initGossip},
		{"the manager", m.initManager},
		{"the agent", m.initAgent},
		{"the API", m.serveAPI},
		{"metrics", m.serveMetrics},
	}
	for _, step := range steps {
		if err := step.do(); err != nil {
			m.stop()
			if !withAgent {
				m.purge()
			}
			return nil, fmt.Errorf("start %s: %w", step.name, err)
		}
	}
	if withAgent {
		m.startAgent()
	}
	return m, nil
}

// engineConfig says which containers are this node's.
func (d *daemon) engineConfig(id identity) docker.Config {
	cfg := docker.Config{
		Host: d.dockerHost, ClusterID: id.ClusterID, Node: id.Node,
		RunDir: d.runDir, Lab: d.lab, ImageDir: d.imageDir(),
	}
	if d.lab != "" {
		cfg.LabNode = d.hostname
	}
	return cfg
}

func (m *member) initRuntime() (err error) {
	if m.engine, err = docker.New(m.d.engineConfig(m.id)); err != nil {
		return err
	}
	if m.fence, err = fence.New(fenceDir(m.d.runDir), m.startGuard); err != nil {
		return err
	}
	return m.engine.SweepImages(time.Now())
}

// newLinks makes the way to the interfaces that the node has in its cluster.
func (d *daemon) newLinks(id identity) (links *netdev.Links, uplink string, err error) {
	pool, err := netip.ParsePrefix(id.Pool)
	if err != nil {
		return nil, "", fmt.Errorf("pool: %w", err)
	}
	if uplink, _, err = netdev.UplinkOf(id.Addr); err != nil {
		return nil, "", err
	}
	return netdev.New(netdev.Config{Uplink: uplink, DNSAddr: dnsAddr, Pool: pool, Pool6: api.Pool6(id.ClusterID), Owner: ownerTag(id.ClusterID), Sysctl: d.sysctls.Set}), uplink, nil
}

func (d *daemon) openPlane(uplink string) (*dataplane.Dataplane, error) {
	return dataplane.Open(dataplane.Config{
		PinDir: d.pinDir, Uplink: uplink, Mode: dataplane.Mode(d.datapath),
		MaxFlows: d.maxFlows, MaxSessions: d.maxFlows, UDPIdle: d.udpIdle, Sysctl: d.sysctls.Set,
	})
}

func (m *member) initNetwork() error {
	links, uplink, err := m.d.newLinks(m.id)
	if err != nil {
		return err
	}
	m.links, m.tunnels = links, wireguard.New(uplink, ownerTag(m.id.ClusterID))
	if err := m.links.Setup(m.ctx); err != nil {
		return err
	}
	if chain, blocked, err := netdev.ForwardingBlocked(); err != nil {
		m.d.log.Warn("cannot tell whether a firewall blocks forwarding", "err", err)
	} else if blocked {
		m.d.log.Warn("a firewall drops what this node forwards: tasks will not reach addresses outside the cluster until it lets the pool through", "chain", chain, "pool", m.id.Pool)
	}
	if m.plane, err = m.d.openPlane(uplink); err != nil {
		return err
	}
	m.d.log.Info("data plane active", "datapath", m.plane.Describe())
	for _, c := range m.plane.Carried() {
		m.d.logCarried(c)
	}
	m.run("flows", func(ctx context.Context) error { return m.plane.Run(ctx, m.d.log.With("part", "flows")) })
	upstreams, err := dns.Upstreams(m.d.resolvConf)
	if err != nil {
		m.d.log.Warn("names outside the cluster will not resolve", "err", err)
	}
	m.names = dns.New(dns.Config{
		Listen:    []string{netip.AddrPortFrom(dnsAddr, 53).String()},
		Upstreams: upstreams, Log: m.d.log.With("part", "dns"),
	})
	m.run("dns", m.names.Run)
	return nil
}

// logCarried tells what became of a map's entries at a change of its layout.
func (d *daemon) logCarried(c dataplane.Carried) {
	switch {
	case c.Why != "":
		d.log.Warn("the entries of a map of another version are not carried over: flows in it may end", "map", c.Map, "why", c.Why)
	case c.Left > 0:
		d.log.Warn("not all entries of a map of another version or size could be carried over: flows in it may end", "map", c.Map, "carried", c.Entries, "left", c.Left)
	default:
		d.log.Info("a map has another layout or size, and its entries", "map", c.Map, "carried", c.Entries, "added", c.Added, "dropped", c.Dropped)
	}
}

// ownerTag tells the interfaces of one cluster from those of another.
func ownerTag(clusterID string) string { return "orch-" + clusterID[:8] }

func (m *member) initGossip() error {
	members, err := membership.New(membership.Config{
		ID: m.id.Node, BindAddr: m.id.Addr.String(), Port: int(m.d.gossipPort),
		Keys: m.id.gossipRing(), Log: m.d.log.With("part", "gossip"),
	})
	if err != nil {
		return err
	}
	m.gossip = newGossip(members, m.useGossipKeys)
	m.managers.SetHearsay(members.Managers)
	m.run("gossip", func(ctx context.Context) error { return members.Run(ctx, m.gossipPeers) })
	m.run("gossip hints", m.gossip.run)
	m.run("managers alive", func(ctx context.Context) error { return m.managers.Listen(ctx, members.Changed) })
	return nil
}

// gossipPeers are the gossip addresses of the other nodes, as far as this one
// knows of any.
func (m *member) gossipPeers() []string {
	var nodes map[api.NodeID]*api.Node
	if g := m.managing.Load(); g != nil {
		nodes = g.replica.Snapshot().Nodes
	}
	if m.agent != nil && len(nodes) == 0 {
		if view := m.agent.View(); view != nil {
			nodes = view.Nodes
		}
	}
	var peers []string
	for id, n := range nodes {
		if id != m.id.Node {
			peers = append(peers, netip.AddrPortFrom(n.Addr, n.GossipPort).String())
		}
	}
	if len(peers) == 0 {
		for _, addr := range m.id.Managers { // all that is known before the first contact
			if host, _, err := net.SplitHostPort(addr); err == nil && host != m.id.Addr.String() {
				peers = append(peers, net.JoinHostPort(host, fmt.Sprint(m.d.gossipPort)))
			}
		}
	}
	return peers
}

func (m *member) initManagers() error {
	home := ""
	if m.id.Role == api.RoleManager && !m.id.Joining {
		home = m.d.apiAddr(m.id.Addr)
	}
	if home == "" && len(m.id.Managers) == 0 {
		return errors.New("no manager's address is known")
	}
	m.managers = agent.NewDirectory(m.id.Node, m.d.peers, home, m.id.Managers, m.d.saveManagers)
	return nil
}

// announce has the managers know that the node lives, until stop is called: by then
// the agent tells them more.
func (m *member) announce() (stop func()) {
	ctx, stop := context.WithCancel(m.ctx)
	m.run("signs of life", func(context.Context) error { return m.managers.Announce(ctx) })
	return stop
}

func (m *member) initAgent() error {
	m.agent = agent.New(agent.Config{
		Node: m.id.Node, Addr: netip.AddrPortFrom(m.id.Addr, m.d.apiPort), Runtime: m.engine, Links: taskLinks{m.links}, Dataplane: m.plane, Tunnels: tunnels{m.tunnels},
		Ports: m.d.sysctls, Names: zoneSetter{m.names}, Gossip: m.gossip, Managers: m.managers, Fence: m.fence, Copies: m.managers, DNS: dnsAddr,
		Info: func(ctx context.Context) api.NodeInfo { return m.d.nodeInfo(ctx, m) },
		Now:  time.Now, Log: m.d.log.With("part", "agent"),
	})
	return nil
}

// startAgent lets the node work for the cluster.
func (m *member) startAgent() {
	m.run("agent", m.agent.Run)
	m.run("certificate", m.renewCertificate)
	if g := m.managing.Load(); g != nil {
		g.follow()
	}
}

// managerNames are the names and addresses of the managers, for people.
func (m *member) managerNames() string {
	var names []string
	if view := m.agent.View(); view != nil {
		for _, n := range api.Sorted(view.Nodes) {
			if n.Role == api.RoleManager {
				names = append(names, fmt.Sprintf("%s, %s", n.Hostname, n.Addr))
			}
		}
	}
	if len(names) == 0 {
		return m.managers.Addr()
	}
	slices.Sort(names)
	return strings.Join(names, "; ")
}

// serveAPI answers other nodes.
func (m *member) serveAPI() error {
	l, err := net.Listen("tcp", m.d.apiAddr(m.id.Addr))
	if err != nil {
		return err
	}
	server := rpc.NewServer(m.d.mux, m.d.sec, m.d.log.With("part", "api"))
	m.run("api", func(ctx context.Context) error { return server.ServePeers(ctx, l, m.deliverRaft) })
	return nil
}

func (m *member) serveMetrics() error {
	if m.d.metricsAddr == "" {
		return nil
	}
	l, err := net.Listen("tcp", m.d.metricsAddr)
	if err != nil {
		return err
	}
	src := metrics.Sources{Node: m.id.Node, Version: m.d.version, Dataplane: m.plane, View: m.agent.View, Raft: m.raftStats}
	m.run("metrics", func(ctx context.Context) error { return metrics.Serve(ctx, l, src) })
	return nil
}

// stop ends all parts. The kernel's programs and the containers go on.
func (m *member) stop() {
	m.cancel()
	if g := m.managing.Swap(nil); g != nil {
		g.stop()
	}
	m.parts.stop()
	if m.plane != nil {
		_ = m.plane.Close()
	}
	if m.engine != nil {
		_ = m.engine.Close()
	}
}

// purge takes away what a failed attempt to become a member made of the network.
func (m *member) purge() {
	if m.links == nil {
		return
	}
	ctx := context.Background()
	if err := errors.Join(m.links.Purge(ctx), m.tunnels.Purge(), dataplane.Purge(m.d.pinDir), m.d.sysctls.Restore()); err != nil {
		m.d.log.Warn("clean up", "err", err)
	}
}
