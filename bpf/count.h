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

static __always_inline struct addr6 mapped(__be32 addr)
{
	return (struct addr6){.w = {0, 0, bpf_htonl(0xffff), addr}};
}

static __always_inline void keep_header(struct __sk_buff *skb, struct example *e, __be16 ports[2])
{
	struct iphdr ip = {};

	bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip));
	if (ip.ihl == 5 && (ip.protocol == IPPROTO_TCP || ip.protocol == IPPROTO_UDP) &&
	    !(ip.frag_off & bpf_htons(IP_OFFSET)))
		bpf_skb_load_bytes(skb, ETH_HLEN + sizeof(ip), ports, 4);
	e->saddr = mapped(ip.saddr);
	e->daddr = mapped(ip.daddr);
	e->proto = ip.protocol;
}

static __always_inline void keep_header6(struct __sk_buff *skb, struct example *e, __be16 ports[2])
{
	struct ipv6hdr ip = {};

	bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip));
	if (ip.nexthdr == IPPROTO_TCP || ip.nexthdr == IPPROTO_UDP)
		bpf_skb_load_bytes(skb, ETH_HLEN + sizeof(ip), ports, 4);
	__builtin_memcpy(&e->saddr, &ip.saddr, sizeof(e->saddr));
	__builtin_memcpy(&e->daddr, &ip.daddr, sizeof(e->daddr));
	e->proto = ip.nexthdr;
}

/* Keeps a packet that is about to be dropped for whoever asks why. Not static: see
 * struct room.
 */
__noinline int keep_example(struct __sk_buff *skb, __u32 reason)
{
	struct example *e = bpf_map_lookup_elem(&examples, &reason);
	__be16 ports[2] = {};

	if (!e)
		return 0;
	if (skb->protocol == bpf_htons(ETH_P_IPV6))
		keep_header6(skb, e, ports);
	else
		keep_header(skb, e, ports);
	e->when = bpf_ktime_get_coarse_ns();
	e->sport = ports[0];
	e->dport = ports[1];
	e->ifindex = skb->ifindex;
	e->len = skb->len - ETH_HLEN;
	return 0;
}

static __always_inline void count_drop(struct __sk_buff *skb, enum verdict reason)
{
	tc_count(skb, reason);
	keep_example(skb, reason);
}

static __always_inline int drop(struct __sk_buff *skb, enum verdict reason)
{
	count_drop(skb, reason);
	return TC_ACT_SHOT;
}

/* To the next program on the hook, and after the last one to the kernel. */
#define PASS TC_ACT_UNSPEC

static __always_inline int pass(const struct __sk_buff *skb, enum verdict v)
{
	tc_count(skb, v);
	return PASS;
}

#endif
