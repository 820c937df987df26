/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Ending a packet's walk: count the verdict, return what the hook wants. */
#ifndef ORCH_COUNT_H
#define ORCH_COUNT_H

#include <linux/pkt_cls.h>
#include "maps.h"

static __always_inline void count(__u32 verdict, __u64 packets, __u64 bytes)
{
	struct counter *c = bpf_map_lookup_elem(&verdicts, &verdict);

	if (c) {
		c->packets += packets;
		c->bytes += bytes;
	}
}

static __always_inline __u64 tc_packets(const struct __sk_buff *skb)
{
	__u32 segments = skb->gso_segs;

	return segments ? segments : 1;
}

static __always_inline void tc_count(const struct __sk_buff *skb, enum verdict v)
{
	count(v, tc_packets(skb), skb->len - ETH_HLEN);
}

static __always_inline void xdp_count(const struct xdp_md *xdp, enum verdict v)
{
	count(v, 1, xdp->data_end - xdp->data - ETH_HLEN);
}

static __always_inline int drop(const struct __sk_buff *skb, enum verdict reason)
{
	tc_count(skb, reason);
	return TC_ACT_SHOT;
}

static __always_inline int xdp_drop(const struct xdp_md *xdp, enum verdict reason)
{
	xdp_count(xdp, reason);
	return XDP_DROP;
}

/* To the next program on the hook, and after the last one to the kernel. */
#define PASS TC_ACT_UNSPEC

static __always_inline int pass(const struct __sk_buff *skb, enum verdict v)
{
	tc_count(skb, v);
	return PASS;
}

#endif
