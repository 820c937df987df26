/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What the node sends to itself, at TC on its loopback device: its own
 * processes may call a published port by 127.0.0.1 or by the node's address.
 */
#ifndef ORCH_NODE_H
#define ORCH_NODE_H

#include "deliver.h"

static __always_inline int from_node_ip(struct __sk_buff *skb, const struct node_config *cfg)
{
	struct packet *p = room_for_packet();
	struct frontend *fe;

	if (!p || tc_parse(skb, cfg, p) != PARSED)
		return PASS;
	read_quoted(skb, cfg, p);
	if (!find_ports(p))
		return PASS;
	fe = find_published(skb, cfg, uplink_ifindex, p, false);
	if (!fe)
		return PASS;
	return balance(skb, cfg, p, fe, false);
}

#endif
