/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What the node sends to itself, at TC on its loopback device: its own
 * processes may call a published port by 127.0.0.1 or by the node's address.
 */
#ifndef ORCH_NODE_H
#define ORCH_NODE_H

#include "deliver.h"

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

static __always_inline int from_node_ip(struct __sk_buff *skb, const struct node_config *cfg)
{
	struct packet *p = room_for_packet();
	struct frontend *fe;
	struct target t;
	__u32 backend;

	if (!p || tc_parse(skb, cfg, p) != PARSED)
		return PASS;
	read_quoted(skb, cfg, p);
	if (!find_ports(p))
		return PASS;
	fe = find_published(skb, cfg, uplink_ifindex, p, false);
	if (!fe)
		return PASS;
	if (!choose(p, fe, &t, &backend))
		return pass(skb, PASSED_NO_BACKEND);
	count_target(fe, backend, tc_packets(skb), skb->len - ETH_HLEN);
	forget_route(skb);
	return to_backend(skb, cfg, p, &t);
}

#endif
