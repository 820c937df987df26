/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The last step of every TC walk: into a task, out of a device, into a tunnel,
 * or back to the sender as an error.
 */
#ifndef ORCH_DELIVER_H
#define ORCH_DELIVER_H

#include "frontend.h"
#include "hop.h"
#include "icmp.h"
#include "overlay.h"
#include "reset.h"
#include "rewrite.h"
#include "session.h"

/* Set before load: bpf_redirect_peer silently drops what is longer than the MTU
 * of the task's device (before Linux 5.12).
 */
const volatile bool peer_keeps_mtu;

/* Straight into the namespace of a task on this node. */
static __noinline int deliver(struct __sk_buff *skb, __be32 addr, const struct endpoint *ep)
{
	struct ethhdr eth;

	if (!ep->ifindex)
		return drop(skb, DROP_NOT_HERE);
	mac_of(eth.h_dest, addr);
	mac_of(eth.h_source, ep->node);
	if (bpf_skb_store_bytes(skb, 0, &eth, 2 * ETH_ALEN, 0))
		return drop(skb, DROP_REWRITE);
	if (skb->pkt_type != 0 /* PACKET_HOST */)
		bpf_skb_change_type(skb, 0);
	tc_count(skb, DELIVERED);
	return bpf_redirect_peer(ep->ifindex, 0);
}

/* Up into the node itself, as if it came over its loopback. */
static __always_inline int to_node(struct __sk_buff *skb)
{
	__u8 none[2 * ETH_ALEN] = {};

	if (bpf_skb_store_bytes(skb, 0, none, sizeof(none), 0))
		return drop(skb, DROP_REWRITE);
	return bpf_redirect(LOOPBACK_IFINDEX, BPF_F_INGRESS);
}

/* Out by what the routing table answered. */
static __noinline int leave(struct __sk_buff *skb, const struct bpf_fib_lookup *fib, long rc,
			    enum verdict v)
{
	struct bpf_redir_neigh next = {.nh_family = fib->family};

	if (rc == BPF_FIB_LKUP_RET_SUCCESS) {
		if (bpf_skb_store_bytes(skb, offsetof(struct ethhdr, h_dest), fib->dmac, ETH_ALEN,
					0) ||
		    bpf_skb_store_bytes(skb, offsetof(struct ethhdr, h_source), fib->smac, ETH_ALEN,
					0))
			return drop(skb, DROP_REWRITE);
		tc_count(skb, v);
		return bpf_redirect(fib->ifindex, 0);
	}
	if (rc == BPF_FIB_LKUP_RET_NO_NEIGH) {
		tc_count(skb, v);
		__builtin_memcpy(next.ipv6_nh, fib->ipv6_dst, sizeof(next.ipv6_nh));
		return bpf_redirect_neigh(fib->ifindex, &next, sizeof(next), 0);
	}
	if (rc == BPF_FIB_LKUP_RET_FWD_DISABLED) {
		tc_count(skb, v);
		return bpf_redirect_neigh(uplink_ifindex, NULL, 0, 0);
	}
	if (rc == BPF_FIB_LKUP_RET_NOT_FWDED) {
		tc_count(skb, v);
		return to_node(skb);
	}
	return drop(skb, DROP_NO_ROUTE);
}

/* Out by the routing table, which is asked by what fib has. Inlined, as the calls
 * from from_task on would need more stack together than older kernels have.
 */
static __always_inline int route(struct __sk_buff *skb, struct bpf_fib_lookup *fib,
				 enum verdict v)
{
	return leave(skb, fib, bpf_fib_lookup(skb, fib, sizeof(*fib), 0), v);
}

/* To an IPv4 address of the underlay or beyond. */
static __noinline int send_out(struct __sk_buff *skb, __be32 from, __be32 to, enum verdict v)
{
	struct bpf_fib_lookup fib = {.family = AF_INET, .ifindex = uplink_ifindex};

	fib.l4_protocol = IPPROTO_UDP;
	fib.ipv4_src = from;
	fib.ipv4_dst = to;
	return route(skb, &fib, v);
}

/* To an IPv6 address outside; see route6. */
static __noinline int send_out6(struct __sk_buff *skb, const struct addr6 *to, enum verdict v)
{
	struct bpf_fib_lookup fib = {.family = AF_INET6, .ifindex = LOOPBACK_IFINDEX};

	__builtin_memcpy(fib.ipv6_dst, to, sizeof(*to));
	return route(skb, &fib, v);
}

/* The longest IP packet that the skb becomes on the wire. */
static __always_inline __u32 wire_length(const struct __sk_buff *skb, const struct packet *p)
{
	__u32 gso = skb->gso_size;

	return gso ? p->l4_at - ETH_HLEN + p->l4_len + gso : p->len;
}

/* Back to where it came from. */
static __always_inline int send_back(struct __sk_buff *skb)
{
	if (skb->ifindex == LOOPBACK_IFINDEX)
		return to_node(skb);
	if (skb->ifindex == uplink_ifindex)
		return bpf_redirect(skb->ifindex, 0);
	return bpf_redirect_peer(skb->ifindex, 0);
}

/* Back as a TCP reset. */
static __noinline int reset(struct __sk_buff *skb, const struct packet *p)
{
	tc_count(skb, ANSWERED_RESET);
	return tc_reset(skb, p) ? send_back(skb) : drop(skb, DROP_REWRITE);
}

/* Back to where it came from, as an ICMP error; counted as v. */
static __noinline int complain(struct __sk_buff *skb, const struct packet *p, __u8 code, __u16 mtu,
			       enum verdict v)
{
	/* On loopback an answer would shrink the MTU of all of it. */
	bool answered = may_complain(p) && skb->ifindex != LOOPBACK_IFINDEX;

	if (v != ANSWERED_TOO_BIG)
		count_drop(skb, v);
	else if (answered)
		tc_count(skb, v);
	else
		count_drop(skb, DROP_TOO_BIG);
	if (!answered || !(p->v6 ? tc_icmp6_error(skb, p, code, mtu)
				 : tc_icmp_error(skb, p, code, mtu)))
		return TC_ACT_SHOT;
	return send_back(skb);
}

/* Into the tunnel, to the target's node. */
static __noinline int tunnel(struct __sk_buff *skb, const struct node_config *cfg,
			     const struct packet *p, enum overlay_kind kind, const struct target *t)
{
	__u64 flags = BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 | BPF_F_ADJ_ROOM_ENCAP_L4_UDP |
		      BPF_F_ADJ_ROOM_ENCAP_L2(ETH_HLEN) | BPF_F_ADJ_ROOM_FIXED_GSO;
	__be32 from = cfg->underlay, to = t->node;
	__u32 mtu = cfg->mtu - (t->sealed ? TUNNEL_OVERHEAD : 0), len = skb->len - ETH_HLEN;
	enum verdict v = kind == OVERLAY_CLIENT	  ? FORWARDED_TUNNEL
			 : kind == OVERLAY_RETURN ? FORWARDED_RETURN
						  : FORWARDED_OVERLAY;
	struct encapsulation *h;
	struct hop *hop;
	int asked = 0;

	if (t->sealed && !encrypts(cfg, to))
		return complain(skb, p, ICMP_HOST_UNREACHABLE, 0, DROP_NOT_ENCRYPTED);
	if (wire_length(skb, p) + OVERLAY_OVERHEAD > mtu)
		return complain(skb, p, ICMP_FRAG_NEEDED, mtu - OVERLAY_OVERHEAD, ANSWERED_TOO_BIG);
	if (bpf_skb_adjust_room(skb, OVERLAY_OVERHEAD, BPF_ADJ_ROOM_MAC, flags))
		return drop(skb, DROP_REWRITE);
	h = (void *)(long)skb->data;
	if ((void *)(h + 1) > (void *)(long)skb->data_end)
		return drop(skb, DROP_REWRITE);
	write_encapsulation(h, from, to, kind, t->port, t->addr, len, flow_hash(p, 0),
			    bpf_htons(p->v6 ? ETH_P_IPV6 : ETH_P_IP));
	if (t->dsr)
		ask_dsr(h);
	if (t->sealed) {
		tc_count(skb, v);
		return bpf_redirect(cfg->tunnel, 0);
	}
	hop = find_hop(skb, from, to, &asked);
	if (!hop && asked > 0) {
		tc_count(skb, v);
		return bpf_redirect_neigh(asked, NULL, 0, 0);
	}
	if (!hop)
		return drop(skb, DROP_NO_ROUTE);
	__builtin_memcpy(h->eth.h_dest, hop->dest, ETH_ALEN);
	__builtin_memcpy(h->eth.h_source, hop->source, ETH_ALEN);
	tc_count(skb, v);
	return bpf_redirect(hop->ifindex, 0);
}

/* A client's packet to a backend on this node: translate and deliver. */
static __noinline int translate(struct __sk_buff *skb, const struct node_config *cfg,
				struct packet *p, const struct target *t, __be32 via)
{
	struct address client, backend = address_for(cfg, p, t->addr);
	struct session6_key key;

	if (!session_open(cfg, p, t, via, &key))
		return drop(skb, p->error ? DROP_NOT_HERE : DROP_COLLISION);
	client.v4 = key.k.client;
	client.v6 = key.client;
	rewrite_dest(skb, p, &backend, t->port);
	rewrite_source(skb, p, &client, key.k.client_port);
	return deliver(skb, t->addr, t->endpoint);
}

/* A reply whose source is already the frontend, from a backend: to the client. */
static __always_inline int to_client(struct __sk_buff *skb, const struct node_config *cfg,
				     const struct packet *p, __be32 from)
{
	struct endpoint *ep = in_pool(cfg, p->daddr) ? endpoint(p->daddr) : NULL;

	flow_answered(cfg, p, from);
	if (ep)
		return deliver(skb, p->daddr, ep);
	if (p->v6)
		return send_out6(skb, &p->daddr6, SENT_TO_CLIENT);
	return send_out(skb, p->saddr, p->daddr, SENT_TO_CLIENT);
}

/* A reply of the address that another node has, straight to its client. What
 * ends a connection goes through that node, which would else not know of the end.
 * PASS: the packet is as it was, and must go there as well, since this node knows
 * no way that it can take.
 */
static __noinline int send_dsr(struct __sk_buff *skb, const struct packet *p)
{
	struct bpf_fib_lookup fib = {};
	long rc;

	if (p->proto == IPPROTO_TCP && !p->error && (p->tcp & (TCP_FIN | TCP_RST)))
		return PASS;
	if (p->v6) { /* as send_out6 */
		fib.family = AF_INET6;
		fib.ifindex = LOOPBACK_IFINDEX;
		__builtin_memcpy(fib.ipv6_dst, &p->daddr6, sizeof(p->daddr6));
	} else {
		fib.family = AF_INET;
		fib.ifindex = uplink_ifindex;
		fib.l4_protocol = p->proto;
		fib.ipv4_src = p->saddr;
		fib.ipv4_dst = p->daddr;
	}
	rc = bpf_fib_lookup(skb, &fib, sizeof(fib), 0);
	if (rc != BPF_FIB_LKUP_RET_SUCCESS && rc != BPF_FIB_LKUP_RET_NO_NEIGH &&
	    rc != BPF_FIB_LKUP_RET_FWD_DISABLED)
		return PASS;
	return leave(skb, &fib, rc, SENT_DSR);
}

/* A client's packet at its ingress node, to the backend chosen. */
static __always_inline int to_backend(struct __sk_buff *skb, const struct node_config *cfg,
				      struct packet *p, struct target *t)
{
	if (t->node == cfg->underlay) {
		t->endpoint = endpoint(t->addr);
		if (!t->endpoint)
			return drop(skb, DROP_NOT_HERE);
		if (peer_keeps_mtu && wire_length(skb, p) + OVERLAY_OVERHEAD > cfg->mtu)
			return complain(skb, p, ICMP_FRAG_NEEDED, cfg->mtu - OVERLAY_OVERHEAD,
					ANSWERED_TOO_BIG);
		return translate(skb, cfg, p, t, cfg->underlay);
	}
	return tunnel(skb, cfg, p, OVERLAY_CLIENT, t);
}

/* A packet on the loopback device still has its route, which is one of the
 * node's. In a task's namespace the kernel would go by it and look among the
 * node's sockets, before it forgets the route by itself (Linux 6.15). The means
 * to lose one is to get another, here one that means nothing.
 */
static __always_inline void forget_route(struct __sk_buff *skb)
{
	struct bpf_tunnel_key none = {};

	/* As long as it was in the oldest kernel. */
	bpf_skb_set_tunnel_key(skb, &none, offsetof(struct bpf_tunnel_key, tunnel_label), 0);
}

/* A client's packet goes to the target. */
static __always_inline int carry(struct __sk_buff *skb, const struct node_config *cfg,
				 struct packet *p, struct target *t)
{
	/* The cluster's own have a way back only by the node that they are on. */
	t->dsr = t->dsr && skb->ifindex == uplink_ifindex;
	t->sealed = cfg->tunnel && (t->sealed || is_encrypted(p->saddr));
	goes_to(p, t, tc_packets(skb), skb->len - ETH_HLEN);
	if (skb->ifindex == LOOPBACK_IFINDEX)
		forget_route(skb);
	return to_backend(skb, cfg, p, t);
}

/* A client's packet to a frontend: to a backend. Without one a virtual IP
 * refuses it; on the node's own addresses the kernel does.
 */
static __always_inline int balance(struct __sk_buff *skb, const struct node_config *cfg,
				   struct packet *p, const struct frontend *fe, bool virtual)
{
	struct target t;

	switch (choose(p, fe, &t)) {
	case CHOSEN:
		return carry(skb, cfg, p, &t);
	case GONE:
		return reset(skb, p);
	default:
		return virtual ? complain(skb, p, ICMP_PORT_UNREACHABLE, 0, DROP_NO_BACKEND)
			       : pass(skb, PASSED_NO_BACKEND);
	}
}

#endif
