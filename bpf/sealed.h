/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What was encrypted on its way here, at TC on the WireGuard device that has
 * opened it. The device knows by its keys which node a packet is from, and takes
 * only that node's address for its source.
 */
#ifndef ORCH_SEALED_H
#define ORCH_SEALED_H

#include "uplink.h"

/* There is no link layer on the device: the packet gets the header that it would
 * have on the uplink.
 */
static __always_inline int from_sealed(struct __sk_buff *skb, const struct node_config *cfg)
{
	struct packet *p = room_for_packet();
	__be16 type = bpf_htons(ETH_P_IP);

	if (!p || bpf_skb_change_head(skb, ETH_HLEN, 0))
		return TC_ACT_SHOT;
	if (bpf_skb_store_bytes(skb, offsetof(struct ethhdr, h_proto), &type, sizeof(type), 0))
		return drop(skb, DROP_REWRITE);
	if (tc_parse(skb, cfg, p) != PARSED || !is_overlay(cfg, p))
		return drop(skb, DROP_MALFORMED);
	return from_overlay(skb, cfg, p, true);
}

#endif
