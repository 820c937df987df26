//go:build ignore

// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * orch's data plane. Five programs, one source:
 *
 *   uplink_xdp  on the device of the underlay, where it has native XDP
 *   uplink_tc   on the same device at TC ingress, always
 *   from_task   at TC ingress on the host side of every task's veth
 *   from_node   at TC ingress on the node's loopback device
 *   from_tunnel at TC ingress on the WireGuard devices, if there are any
 *
 * What XDP finds too involved it passes up unchanged, and uplink_tc does it: a
 * packet takes the same way with and without XDP.
 *
 * Published port, through any node
 *
 *   client --> A: frontend, flow or Maglev table --> backend's node B, its task T
 *              the packet, byte for byte, in VXLAN: kind CLIENT, inner MAC = T,
 *              VNI = T's port
 *   B: session {client, T} remembers {destination used, A}
 *      destination becomes T:port --> into T's namespace
 *   T --> B: the session; source becomes the destination used
 *              in VXLAN: kind RETURN --> A
 *   A: takes the VXLAN off --> client, by the routing table
 *
 * A keeps no translation: losing A loses the flows that physically enter there,
 * and another node that gets them chooses the same backend. Where A is B the
 * packet does not leave the node. The client's address is always kept.
 *
 *   With direct server return (FRONTEND_DSR) the packet to B asks for it by its
 *   inner source MAC, and B's session notes that: what T answers goes straight to
 *   the client, from the address that the client used, by B's routing table. Only
 *   what ends a connection goes back through A, as A must know of it.
 *
 * Task to virtual IP, or to a published port of any node
 *
 *   The same walk, with the task's node as A: the backend's node translates, the
 *   reply comes back as RETURN and is delivered to the task. Virtual IPs keep
 *   the port and answer only tasks that share a network with the service.
 *
 * The node itself to a published port of its own
 *
 *   The same, from its loopback device, and the reply goes back to there. The
 *   task sees the node's address in place of 127.0.0.1.
 *
 * Task to task
 *
 *   Both must share a network. On one node: straight into the other namespace.
 *   Else in VXLAN, kind DIRECT.
 *
 * Anything else from a task is the kernel's (masqueraded by rules of its own),
 * if a network of the task reaches outside. A task sends from its own address
 * only. Refusals are ICMP errors, so that applications fail at once.
 *
 * VXLAN is taken from members only, before anything in it is looked at, and no task
 * may send any to a member, whose kernel would masquerade it; bare packets from or to
 * the pool are not taken at all, and loopback's addresses are left to the kernel.
 *
 * Encrypted networks
 *
 *   VXLAN to and from a task on one goes through a WireGuard device, whose peers
 *   are the other nodes by their underlay addresses: it puts the whole packet,
 *   as it would have left, into another between the same two nodes. What cannot
 *   go so does not go, and what did not come so is not taken. The choice is by
 *   task: also its clients, and its peers on networks that are not encrypted,
 *   reach it from other nodes in this way alone.
 *
 * Fragments follow their first one, which has the ports, or if that is late the
 * last datagram in fragments between the same addresses. ICMP errors follow the
 * flow of the packet that they quote. A packet too big for the tunnel is
 * answered with fragmentation needed, also where it may be fragmented: hosts
 * then fragment by themselves, and the fragments pass.
 *
 * Known limits: a task cannot at the same time be connected to a backend by
 * virtual IP from one port and directly from another that is 32768 away (session.h
 * has the few that are paired otherwise), which takes a task whose ephemeral ports
 * span more than half of them or that chooses them itself; a TCP packet that lands
 * on a published port but belongs to a connection of the node's own from there is
 * taken for a client's (published ports are reserved, which leaves connections that
 * chose theirs or were there before), and so is the answer to a task that sent from
 * a port of a number that is published, as masquerading keeps it; VLAN tags pass.
 *
 * IPv6
 *
 *   Between nodes everything is VXLAN over IPv4. In it, from clients and from
 *   tasks, are packets of either family, and they take the same ways: the
 *   cluster's own addresses are known by the IPv4 address in them (types.h). XDP
 *   leaves IPv6 to TC. The uplink's MTU must leave the tunnel 1280 bytes; on a
 *   node where it does not, IPv6 passes, and tasks have none.
 *
 * Maps. Those that user space writes are made equal to the plan on each change;
 * flows, sessions and fragments are written here and swept there.
 *
 *   node_config    array     this node                        user space
 *   members        hash      underlay addresses of the nodes  user space
 *   hops           hash      node -> next hop, per CPU        everywhere
 *   endpoints      hash      task address -> node, veth       user space
 *   net_pairs      hash      sets of networks that overlap    user space
 *   frontends      hash      address, port -> id              user space
 *   frontends6     hash      the same by IPv6 address         user space
 *   backends       array     id -> address, node, draining    user space
 *   tables         array of  frontend id -> Maglev table      user space
 *   flows          hash      client's flow -> backend         at A
 *   brief_flows    LRU hash  the same, of those that open     at A
 *   sessions       hash      {client, T} -> way back          at B
 *   brief_sessions LRU hash  the same, that open or are over  at B
 *   fragments      LRU hash  datagram -> its ports            everywhere
 *   flows6, brief_flows6 and so on            the same for IPv6
 *   frontend_stats, backend_stats, handshakes, verdicts   per-CPU counters
 *   departed       hash      node -> what its backends got    user space
 *   examples       per-CPU   last packet of each drop reason  everywhere
 *   packet_room    per-CPU   a packet, and its session's key   everywhere
 */
#include "express.h"
#include "node.h"
#include "sealed.h"
#include "task.h"
#include "uplink.h"

SEC("xdp")
int uplink_xdp(struct xdp_md *xdp)
{
	struct node_config *cfg = config();
	struct frontend *fe;
	struct target t = {};
	struct packet p;

	if (!cfg || !cfg->underlay ||
	    parse((void *)(long)xdp->data, (void *)(long)xdp->data_end, 0, &p) != PARSED ||
	    p.fragment != WHOLE)
		return XDP_PASS;
	if (is_overlay(cfg, &p))
		return express_return(xdp, cfg, &p);
	if (in_pool(cfg, p.saddr) || in_pool(cfg, p.daddr) || is_loopback(p.saddr) ||
	    is_loopback(p.daddr))
		return XDP_PASS;
	if (!goes_on(&p, &t)) {
		fe = find_published(xdp, cfg, xdp->ingress_ifindex, &p, false);
		if (!fe || choose(&p, fe, &t) != CHOSEN)
			return XDP_PASS;
	}
	return express_tunnel(xdp, cfg, &p, &t);
}

SEC("tc")
int uplink_tc(struct __sk_buff *skb)
{
	struct node_config *cfg = config();

	if (!cfg || !cfg->underlay)
		return PASS;
	return from_uplink(skb, cfg);
}

SEC("tc")
int from_task(struct __sk_buff *skb)
{
	struct node_config *cfg = config();

	if (!cfg || !cfg->underlay)
		return PASS;
	return from_task_ip(skb, cfg);
}

SEC("tc")
int from_node(struct __sk_buff *skb)
{
	struct node_config *cfg = config();

	if (!cfg || !cfg->underlay)
		return PASS;
	return from_node_ip(skb, cfg);
}

SEC("tc")
int from_tunnel(struct __sk_buff *skb)
{
	struct node_config *cfg = config();

	if (!cfg || !cfg->underlay)
		return TC_ACT_SHOT;
	return from_sealed(skb, cfg);
}

char _license[] SEC("license") = "Dual BSD/GPL";
