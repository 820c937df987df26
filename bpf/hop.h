/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The next hop to another node of the cluster. The routing table is asked once a
 * tick, which is how long a change of it, or of a neighbour's address, may take
 * to be heeded: a look at what it said costs a third of asking again.
 */
#ifndef ORCH_HOP_H
#define ORCH_HOP_H

#include "maps.h"

/* Set before load: the device of the underlay. */
const volatile __u32 uplink_ifindex;

/* Asks the routing table, and remembers what it says. False if it is not certain
 * about all of the way.
 */
static __noinline bool ask_hop(void *ctx, __be32 from, __be32 to, struct hop *hop)
{
	struct bpf_fib_lookup fib = {.family = AF_INET, .ifindex = uplink_ifindex};

	fib.l4_protocol = IPPROTO_UDP;
	fib.ipv4_src = from;
	fib.ipv4_dst = to;
	if (bpf_fib_lookup(ctx, &fib, sizeof(fib), 0) != BPF_FIB_LKUP_RET_SUCCESS)
		return false;
	__builtin_memcpy(hop->dest, fib.dmac, ETH_ALEN);
	__builtin_memcpy(hop->source, fib.smac, ETH_ALEN);
	hop->ifindex = fib.ifindex;
	hop->asked = now_ticks();
	bpf_map_update_elem(&hops, &to, hop, BPF_ANY);
	return true;
}

static __always_inline bool find_hop(void *ctx, __be32 from, __be32 to, struct hop *hop)
{
	struct hop *known = bpf_map_lookup_elem(&hops, &to);

	if (!known || known->asked != now_ticks())
		return ask_hop(ctx, from, to, hop);
	*hop = *known;
	return true;
}

#endif
