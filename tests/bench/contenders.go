package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"regexp"
	"strings"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/dataplane"
)

// network is how a fabric's nodes are joined and what runs on them; paths of
// the same network share one fabric.
type network struct {
	name        string
	workloadMTU int // bytes
	build       []func(context.Context, *fabric) error
}

// path is one contender: a way from a host of a network to the workload on n2.
type path struct {
	name    string
	network network
	from    string
	target  netip.AddrPort
	// sees is the host whose address the workload is to see.
	sees string
	// throughN1: every packet of the connection passes n1, in both directions; with
	// direct, of the replies only what ends it.
	throughN1, direct bool
	// baseline paths are measured always; the first is what ratios refer to.
	baseline bool
}

// table is a set of paths measured in the same ways.
type table struct {
	title    string
	paths    []path
	measures []measure
}

const publishedPort = 8080

var (
	workload  = netip.AddrPortFrom(workloadAddr(2), workloadPort)
	published = netip.AddrPortFrom(nodeAddr(1), publishedPort)
)

// allTables lists the contenders.
func allTables() []table {
	straight := network{"straight", underlayMTU, steps(routed, throughN2)}
	plain := network{"plain", underlayMTU, steps(routed, bothWaysThroughN1)}
	oneWay := network{"one-way", underlayMTU, steps(routed, thereThroughN1)}
	dnat := network{"dnat", underlayMTU, steps(routed, translated)}
	dnatVXLAN := network{"dnat-vxlan", overlayMTU, steps(overVXLAN, translated)}
	haproxy := network{"haproxy", underlayMTU, steps(routed, proxied)}
	vxlan := network{"vxlan", overlayMTU, steps(overVXLAN, proxied)}
	swarm := network{"swarm", overlayMTU, steps(overSwarmOverlay, publishedBySwarm)}
	leastOverlay := network{"least", overlayMTU, steps(underLeast)}
	orchTC := network{"orch-tc", overlayMTU, steps(underOrch(dataplane.ModeTC, api.ReturnTunnel))}
	orchXDP := network{"orch-xdp", overlayMTU, steps(underOrch(dataplane.ModeXDP, api.ReturnTunnel))}
	orchDSR := network{"orch-dsr", overlayMTU, steps(underOrch(dataplane.ModeTC, api.ReturnDSR))}

	return []table{{
		title: "client -> n1 -> workload on n2",
		paths: []path{
			{name: plainPath, network: plain, from: clientHost, target: workload, sees: clientHost, throughN1: true, baseline: true},
			{name: "plain routing, straight to n2", network: straight, from: clientHost, target: workload, sees: clientHost},
			{name: oneWayPath, network: oneWay, from: clientHost, target: workload, sees: clientHost, throughN1: true, direct: true},
			{name: "iptables DNAT + masquerade", network: dnat, from: clientHost, target: published, sees: nodeHost(1), throughN1: true},
			{name: iptablesVXLAN, network: dnatVXLAN, from: clientHost, target: published, sees: nodeHost(1), throughN1: true},
			{name: swarmPath, network: swarm, from: clientHost, target: published, sees: sandboxHost, throughN1: true},
			{name: "HAProxy, TCP mode", network: haproxy, from: clientHost, target: published, sees: nodeHost(1), throughN1: true},
			{name: "HAProxy, TCP mode, kernel VXLAN", network: vxlan, from: clientHost, target: published, sees: nodeHost(1), throughN1: true},
			{name: ingressPath, network: orchTC, from: clientHost, target: published, sees: clientHost, throughN1: true},
			{name: directPath, network: orchDSR, from: clientHost, target: published, sees: clientHost, throughN1: true, direct: true},
			{name: "orch ingress, xdp (on veth)", network: orchXDP, from: clientHost, target: published, sees: clientHost, throughN1: true},
		},
		measures: []measure{keepAlive, newConnection},
	}, {
		title: "workload on n1 -> workload on n2",
		paths: []path{
			{name: "plain routing", network: plain, from: workloadHost(1), target: workload, sees: workloadHost(1), baseline: true},
			{name: vxlanPath, network: vxlan, from: workloadHost(1), target: workload, sees: workloadHost(1)},
			{name: swarmOverlayPath, network: swarm, from: workloadHost(1), target: workload, sees: workloadHost(1)},
			{name: leastPath, network: leastOverlay, from: workloadHost(1), target: workload, sees: workloadHost(1)},
			{name: overlayPath, network: orchTC, from: workloadHost(1), target: workload, sees: workloadHost(1)},
		},
		measures: []measure{keepAlive, newConnection, stream},
	}}
}

func steps(s ...func(context.Context, *fabric) error) []func(context.Context, *fabric) error {
	return s
}

// selectPaths keeps the baselines and the paths that match; a table with no
// match is left out.
func selectPaths(tables []table, only *regexp.Regexp) []table {
	var selected []table
	for _, t := range tables {
		var paths []path
		matched := false
		for _, p := range t.paths {
			match := only.MatchString(p.name)
			matched = matched || match
			if match || p.baseline {
				paths = append(paths, p)
			}
		}
		if matched {
			selected = append(selected, table{t.title, paths, t.measures})
		}
	}
	return selected
}

// routed gives every node a route to the others' workloads.
func routed(ctx context.Context, f *fabric) error {
	for i := 1; i <= nodeCount; i++ {
		for j := 1; j <= nodeCount; j++ {
			if i == j {
				continue
			}
			if err := f.addRoute(ctx, nodeHost(i), workloadAddr(j), nodeAddr(j)); err != nil {
				return err
			}
		}
	}
	return nil
}

// throughN2 sends the client's packets for the workload straight to its node.
func throughN2(ctx context.Context, f *fabric) error {
	return f.addRoute(ctx, clientHost, workload.Addr(), nodeAddr(2))
}

// thereThroughN1 makes n1 a router for what the client sends to n2.
func thereThroughN1(ctx context.Context, f *fabric) error {
	return f.addRoute(ctx, clientHost, workload.Addr(), nodeAddr(1))
}

// bothWaysThroughN1 makes n1 a router between the client and n2.
func bothWaysThroughN1(ctx context.Context, f *fabric) error {
	if err := thereThroughN1(ctx, f); err != nil {
		return err
	}
	return f.addRoute(ctx, nodeHost(2), clientAddr, nodeAddr(1))
}

// vxlanAddr and vxlanMAC are those of node i's kernel VXLAN device.
func vxlanAddr(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 127, 0, byte(i)}) }
func vxlanMAC(i int) string      { return fmt.Sprintf("02:78:00:00:00:%02x", i) }

// overVXLAN routes between workloads through one VXLAN device on each node,
// with static entries: nothing is learnt or resolved while measuring.
func overVXLAN(ctx context.Context, f *fabric) error {
	const device = "vxlan0"
	for i := 1; i <= nodeCount; i++ {
		node := f.netns(nodeHost(i))
		lines := []string{
			fmt.Sprintf("link add %s address %s mtu %d type vxlan id 42 local %s dstport %d nolearning", device, vxlanMAC(i), overlayMTU, nodeAddr(i), api.OverlayPort),
			fmt.Sprintf("addr add %s/24 dev %s", vxlanAddr(i), device),
			fmt.Sprintf("link set %s up", device),
		}
		for j := 1; j <= nodeCount; j++ {
			if i != j {
				lines = append(lines,
					fmt.Sprintf("neigh add %s lladdr %s dev %s nud permanent", vxlanAddr(j), vxlanMAC(j), device),
					fmt.Sprintf("route add %s/32 via %s dev %s", workloadAddr(j), vxlanAddr(j), device))
			}
		}
		if err := ipBatch(ctx, node, lines...); err != nil {
			return err
		}
		for j := 1; j <= nodeCount; j++ {
			if i == j {
				continue
			}
			if _, err := outputIn(ctx, node, "bridge", "fdb", "append", vxlanMAC(j), "dev", device, "dst", nodeAddr(j).String(), "self", "permanent"); err != nil {
				return err
			}
		}
	}
	return nil
}

// translated publishes the workload on n1 by iptables: destination and source
// are rewritten, the fewest rules that do it.
func translated(ctx context.Context, f *fabric) error {
	return f.iptables(ctx, nodeHost(1),
		fmt.Sprintf("nat -A PREROUTING -p tcp -d %s --dport %d -j DNAT --to-destination %s", published.Addr(), published.Port(), workload),
		fmt.Sprintf("nat -A POSTROUTING -p tcp -d %s --dport %d -j MASQUERADE", workload.Addr(), workload.Port()))
}

// proxied publishes the workload on n1 by HAProxy in TCP mode.
func proxied(_ context.Context, f *fabric) error {
	config, err := f.file("haproxy.cfg", fmt.Sprintf(`global
    maxconn 4096
defaults
    mode tcp
    timeout connect 5s
    timeout client 60s
    timeout server 60s
listen web
    bind %s
    server w2 %s
`, published, workload))
	if err != nil {
		return err
	}
	return f.start(nodeHost(1), exec.Command("haproxy", "-db", "-f", config))
}

// serveWorkload starts on n2's workload what every path ends at: nginx, one
// process, answering answerBody, and an iperf3 server.
func serveWorkload(f *fabric) error {
	config, err := f.file("nginx.conf", fmt.Sprintf(`daemon off;
master_process off;
pid nginx.pid;
events { worker_connections 4096; }
http {
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    keepalive_requests 1000000000;
    server {
        listen %s backlog=4096;
        location = / { return 200 "%s"; }
        location = %s { return 200 $remote_addr; }
    }
}
`, workload, strings.ReplaceAll(answerBody, "\n", `\n`), peerPath))
	if err != nil {
		return err
	}
	if err := f.start(workloadHost(2), exec.Command("nginx", "-p", f.dir, "-e", "nginx-error.log", "-c", config)); err != nil {
		return err
	}
	return f.start(workloadHost(2), exec.Command("iperf3", "-s", "-B", workload.Addr().String(), "-p", fmt.Sprint(streamPort)))
}

// hostOf names the host that has the address, "" if none does.
func hostOf(addr netip.Addr) string {
	if addr == clientAddr {
		return clientHost
	}
	if addr == sandboxOverlay {
		return sandboxHost
	}
	for i := 1; i <= nodeCount; i++ {
		switch addr {
		case nodeAddr(i), vxlanAddr(i):
			return nodeHost(i)
		case workloadAddr(i):
			return workloadHost(i)
		}
	}
	return ""
}

// dialIn returns a dial function for connections out of the named namespace.
func dialIn(netns string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, proto, addr string) (conn net.Conn, err error) {
		err = inNetns(netns, func() error {
			conn, err = (&net.Dialer{}).DialContext(ctx, proto, addr)
			return err
		})
		return conn, err
	}
}
