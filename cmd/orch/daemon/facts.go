package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/dataplane"
	"github.com/orch-dev/orch/pkg/netdev"
	"github.com/orch-dev/orch/pkg/network"
	"github.com/orch-dev/orch/pkg/sysctl"
)

const (
	// factTimeout bounds each thing that is tried.
	factTimeout = 5 * time.Second
	// overlayTimeout bounds the search for the size that passes.
	overlayTimeout = 15 * time.Second
	fsyncTries     = 8
)

// Diagnose finds out what there is to know of this node, and tries its ways to
// all others side by side. It changes nothing.
func (d *daemon) Diagnose(ctx context.Context, _ *api.Empty) (*api.NodeFacts, error) {
	m := d.currentMember()
	if m == nil {
		return nil, d.notMember()
	}
	f := &api.NodeFacts{Info: d.nodeInfo(ctx, m), Features: dataplane.Features(), PinDir: d.pinDir, PinsInBPFFS: dataplane.InBPFFS(d.pinDir)}
	var err error
	if f.Attachments, err = m.plane.Attachments(); err != nil {
		return nil, err
	}
	if f.Uplink, f.UplinkMTU, err = netdev.UplinkOf(m.id.Addr); err != nil {
		return nil, err
	}
	f.DefaultDevice = netdev.DefaultDevice()
	if f.TaskLinks, err = m.taskLinks(ctx); err != nil {
		return nil, err
	}
	f.Forwarding = readSysctl("ip_forward") == "1"
	f.StrictSource = max(readSysctl("conf/all/rp_filter"), readSysctl("conf/"+f.Uplink+"/rp_filter")) == "1"
	if chain, blocked, err := netdev.ForwardingBlocked(); err == nil && blocked {
		f.FirewallDrop = chain
	}
	f.EngineError = m.engineError(ctx)
	if f.Fsync, err = measureFsync(d.stateDir); err != nil {
		f.FsyncError = err.Error()
	}
	if f.Ephemeral, f.Reserved, err = sysctl.LocalPorts(); err != nil {
		return nil, err
	}
	if view := m.agent.View(); view != nil {
		if lacks := lacksEncryption(); lacks == "" || view.Encrypts() {
			f.Features = append(f.Features, api.Feature{Name: "WireGuard", Have: lacks == "", Without: "of the encrypted networks no task runs here, and no client gets through here to one"})
		}
		plan := network.Plan(view, m.id.Node, nil, nil)
		f.Published = plan.Published()
		f.DSR = network.DSR(view)
		f.Peers = m.tryPeers(ctx, view, f.UplinkMTU)
	}
	return f, nil
}

func (m *member) engineError(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, factTimeout)
	defer cancel()
	if _, err := m.engine.Info(ctx); err != nil {
		return err.Error()
	}
	return ""
}

func (m *member) taskLinks(ctx context.Context) ([]api.TaskLink, error) {
	links, err := m.links.List(ctx)
	if err != nil {
		return nil, err
	}
	var list []api.TaskLink
	for _, ifindex := range links {
		if dev, err := net.InterfaceByIndex(ifindex); err == nil {
			list = append(list, api.TaskLink{Device: dev.Name, MTU: dev.MTU})
		}
	}
	slices.SortFunc(list, func(a, b api.TaskLink) int { return strings.Compare(a.Device, b.Device) })
	return list, nil
}

func (m *member) tryPeers(ctx context.Context, view *api.Snapshot, mtu int) []api.PeerFacts {
	var peers []api.PeerFacts
	for _, n := range api.Sorted(view.Nodes) {
		if n.ID != m.id.Node {
			peers = append(peers, api.PeerFacts{Node: n.ID, Hostname: n.Hostname, Addr: n.Addr, APIPort: n.APIPort, GossipPort: n.GossipPort})
		}
	}
	slices.SortFunc(peers, func(a, b api.PeerFacts) int { return strings.Compare(a.Hostname, b.Hostname) })
	var wg sync.WaitGroup
	for i := range peers {
		p := &peers[i]
		if as := peers[(i+1)%len(peers)]; len(peers) > 1 {
			wg.Go(func() { p.DSR = m.tryDSR(ctx, *p, as) })
		}
		wg.Go(func() { p.APIError = tryTCP(ctx, netip.AddrPortFrom(p.Addr, p.APIPort)) })
		wg.Go(func() { p.GossipTCPError = tryTCP(ctx, netip.AddrPortFrom(p.Addr, p.GossipPort)) })
		wg.Go(func() { p.GossipUDPError = m.tryGossip(p.Node, netip.AddrPortFrom(p.Addr, p.GossipPort)) })
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, overlayTimeout)
			defer cancel()
			var err error
			if p.Overlay, err = dataplane.Probe(ctx, m.id.Addr, p.Addr, mtu); err != nil {
				p.OverlayError = err.Error()
			}
		})
	}
	wg.Wait()
	return peers
}

// tryDSR has a node answer as another one. What keeps it from asking keeps it from
// probing the overlay too, which says so.
func (m *member) tryDSR(ctx context.Context, to, as api.PeerFacts) api.DSRProbe {
	ctx, cancel := context.WithTimeout(ctx, factTimeout)
	defer cancel()
	source, _ := dataplane.ProbeDSR(ctx, m.id.Addr, to.Addr, as.Addr)
	return api.DSRProbe{As: as.Hostname, Source: source, Arrived: source == as.Addr}
}

// tryTCP says why nothing accepts a connection, "" if something does.
func tryTCP(ctx context.Context, addr netip.AddrPort) string {
	d := net.Dialer{Timeout: factTimeout}
	conn, err := d.DialContext(ctx, "tcp", addr.String())
	if err != nil {
		return err.Error()
	}
	_ = conn.Close()
	return ""
}

// tryGossip takes one lost datagram, or two, for no sign of a blocked port.
func (m *member) tryGossip(id api.NodeID, addr netip.AddrPort) string {
	var err error
	for range 3 {
		if err = m.gossip.members.Ping(id, addr); err == nil {
			return ""
		}
	}
	return err.Error()
}

// Disk measures how fast the state directory's disk is.
func (d *daemon) Disk(ctx context.Context, _ *api.Empty) (*api.Disk, error) {
	if _, err := (nodeRuntime{d}).member(ctx); err != nil {
		return nil, err
	}
	write, err := measureFsync(d.stateDir)
	if err != nil {
		return nil, fmt.Errorf("measure the disk of %s: %w", d.stateDir, err)
	}
	return &api.Disk{Write: write}, nil
}

// measureFsync is what a small synchronous write takes on average, as the Raft log
// does them.
func measureFsync(dir string) (write time.Duration, err error) {
	f, err := os.CreateTemp(dir, "doctor-*")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	start := time.Now()
	for range fsyncTries {
		if _, err := f.Write(make([]byte, 4096)); err != nil {
			return 0, err
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return 0, fmt.Errorf("fdatasync %s: %w", f.Name(), err)
		}
	}
	return time.Since(start) / fsyncTries, nil
}

func readSysctl(name string) string {
	value, err := os.ReadFile(filepath.Join("/proc/sys/net/ipv4", name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(value))
}
