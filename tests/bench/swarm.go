package main

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/orch-dev/orch/pkg/api"
)

// Docker Swarm's networks, as its engines lay them out: on each node an overlay network is
// a namespace with a bridge, whose ports are the workloads' veths and a VXLAN device; a
// published port is translated into the sandbox, a host between a bridge of the node's and
// the overlay, and there once more, to the workload. A rule has the place of the sandbox's
// IPVS, which not every kernel has.

func overlayHost(i int) string { return fmt.Sprintf("o%d", i) }

const sandboxHost = "s1"

var (
	// sandboxOverlay and sandboxGateway are the sandbox's addresses on the overlay and on
	// the node's bridge, bridgeAddr is the node's own on the latter.
	sandboxOverlay = netip.MustParseAddr("10.128.0.201")
	sandboxGateway = netip.MustParseAddr("172.18.0.2")
	bridgeAddr     = netip.MustParseAddr("172.18.0.1")
)

// overSwarmOverlay puts the workloads onto an overlay network.
func overSwarmOverlay(ctx context.Context, f *fabric) error {
	for i := 1; i <= nodeCount; i++ {
		if err := f.addOverlay(ctx, i); err != nil {
			return err
		}
		var lines []string
		for j := 1; j <= nodeCount; j++ {
			if i != j {
				lines = append(lines, onLink(workloadAddr(j))...)
			}
		}
		if err := ipBatch(ctx, f.netns(workloadHost(i)), append(lines, onLink(sandboxOverlay)...)...); err != nil {
			return err
		}
		if err := f.engineRules(ctx, i); err != nil {
			return err
		}
	}
	return nil
}

// onLink are the lines by which a host reaches an address of the overlay without asking
// for it while measuring.
func onLink(addr netip.Addr) []string {
	return []string{
		fmt.Sprintf("route add %s/32 dev %s", addr, uplink),
		fmt.Sprintf("neigh add %s lladdr %s dev %s nud permanent", addr, endpointMAC(addr), uplink),
	}
}

// addOverlay makes node i's part of the overlay. Its VXLAN device is made in the node's
// namespace, which its packets leave by, and then moved.
func (f *fabric) addOverlay(ctx context.Context, i int) error {
	if err := f.addHost(ctx, overlayHost(i)); err != nil {
		return err
	}
	overlay := f.netns(overlayHost(i))
	if err := ipBatch(ctx, f.netns(nodeHost(i)),
		fmt.Sprintf("link add vxlan0 mtu %d type vxlan id 4097 local %s dstport %d nolearning", overlayMTU, nodeAddr(i), api.OverlayPort),
		"link set vxlan0 netns "+overlay, "link set "+taskDevice+" netns "+overlay); err != nil {
		return err
	}
	if err := ipBatch(ctx, overlay, "link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0", "link set br0 up",
		"link set vxlan0 master br0 up", "link set "+taskDevice+" master br0 up"); err != nil {
		return err
	}
	elsewhere := map[string]int{}
	for j := 1; j <= nodeCount; j++ {
		elsewhere[endpointMAC(workloadAddr(j))] = j
	}
	elsewhere[endpointMAC(sandboxOverlay)] = 1
	for mac, j := range elsewhere {
		if i == j {
			continue
		}
		for _, entry := range [][]string{{mac, "dev", "vxlan0", "dst", nodeAddr(j).String(), "self", "permanent"}, {mac, "dev", "vxlan0", "master", "static"}} {
			if _, err := outputIn(ctx, overlay, "bridge", append([]string{"fdb", "append"}, entry...)...); err != nil {
				return err
			}
		}
	}
	return nil
}

// engineRules gives node i the rules that an engine makes when it starts. Nothing here
// needs them, but what the node's own stack handles passes them, and is tracked for them.
func (f *fabric) engineRules(ctx context.Context, i int) error {
	return f.iptables(ctx, nodeHost(i),
		"nat -N DOCKER",
		"nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER",
		"nat -A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER",
		"nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE",
		"nat -A DOCKER -i docker0 -j RETURN",
		"filter -N DOCKER-USER", "filter -N DOCKER-FORWARD", "filter -N DOCKER",
		"filter -A FORWARD -j DOCKER-USER", "filter -A FORWARD -j DOCKER-FORWARD",
		"filter -A DOCKER-USER -j RETURN",
		"filter -A DOCKER-FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
		"filter -A DOCKER-FORWARD -o docker0 -j DOCKER",
		"filter -A DOCKER-FORWARD -i docker0 -j ACCEPT",
	)
}

// publishedBySwarm publishes the workload on n1 as Swarm's ingress network does.
func publishedBySwarm(ctx context.Context, f *fabric) error {
	if err := f.addHost(ctx, sandboxHost); err != nil {
		return err
	}
	node, sandbox, overlay := f.netns(nodeHost(1)), f.netns(sandboxHost), f.netns(overlayHost(1))
	const bridge, gatewayDevice = "docker_gwbridge", "eth1"
	if err := ipBatch(ctx, node,
		"link add "+bridge+" type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
		fmt.Sprintf("addr add %s/16 dev %s", bridgeAddr, bridge), "link set "+bridge+" up",
		fmt.Sprintf("link add gw type veth peer name %s netns %s", gatewayDevice, sandbox),
		"link set gw master "+bridge+" up"); err != nil {
		return err
	}
	if err := ipBatch(ctx, overlay,
		fmt.Sprintf("link add sandbox mtu %d type veth peer name %s netns %s address %s mtu %d", overlayMTU, uplink, sandbox, endpointMAC(sandboxOverlay), overlayMTU),
		"link set sandbox master br0 up"); err != nil {
		return err
	}
	lines := []string{
		fmt.Sprintf("addr add %s/32 dev %s", sandboxOverlay, uplink), "link set " + uplink + " up",
		fmt.Sprintf("addr add %s/16 dev %s", sandboxGateway, gatewayDevice), "link set " + gatewayDevice + " up",
		fmt.Sprintf("route add default via %s dev %s", bridgeAddr, gatewayDevice),
	}
	if err := ipBatch(ctx, sandbox, append(lines, onLink(workload.Addr())...)...); err != nil {
		return err
	}
	if err := setSysctls(sandbox, "ipv4/ip_forward=1"); err != nil {
		return err
	}
	err := f.iptables(ctx, nodeHost(1),
		"nat -N DOCKER-INGRESS",
		"nat -I PREROUTING -m addrtype --dst-type LOCAL -j DOCKER-INGRESS",
		"nat -I OUTPUT -m addrtype --dst-type LOCAL -j DOCKER-INGRESS",
		fmt.Sprintf("nat -A DOCKER-INGRESS -p tcp --dport %d -j DNAT --to-destination %s:%d", published.Port(), sandboxGateway, published.Port()),
		"nat -A DOCKER-INGRESS -j RETURN",
		fmt.Sprintf("nat -A POSTROUTING -o %s -m addrtype --src-type LOCAL -j MASQUERADE", bridge),
		fmt.Sprintf("nat -A POSTROUTING -s 172.18.0.0/16 ! -o %s -j MASQUERADE", bridge),
		"filter -N DOCKER-INGRESS",
		"filter -I FORWARD -j DOCKER-INGRESS",
		fmt.Sprintf("filter -A DOCKER-INGRESS -p tcp --sport %d -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", published.Port()),
		fmt.Sprintf("filter -A DOCKER-INGRESS -p tcp --dport %d -j ACCEPT", published.Port()),
		"filter -A DOCKER-INGRESS -j RETURN",
	)
	if err != nil {
		return err
	}
	return f.iptables(ctx, sandboxHost,
		fmt.Sprintf("nat -A PREROUTING -p tcp -d %s --dport %d -j DNAT --to-destination %s", sandboxGateway, published.Port(), workload),
		fmt.Sprintf("nat -A POSTROUTING -d 10.128.0.0/24 -j SNAT --to-source %s", sandboxOverlay),
	)
}

// iptables runs iptables on the host with each line's table and arguments.
func (f *fabric) iptables(ctx context.Context, host string, lines ...string) error {
	for _, line := range lines {
		args := append([]string{"-w", "-t"}, strings.Fields(line)...)
		if _, err := outputIn(ctx, f.netns(host), "iptables", args...); err != nil {
			return err
		}
	}
	return nil
}
