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

/* Asks the routing table. 0: it is certain about all of the way, and hops has it;
 * above that the device, where the kernel has to find the neighbour; below, there
 * is no way.
 */
static __noinline int ask_hop(void *ctx, __be32 from, __be32 to)
{
	struct bpf_fib_lookup fib = {.family = AF_INET, .ifindex = uplink_ifindex};
	struct hop hop = {.asked = now_ticks()};
	long rc;

	fib.l4_protocol = IPPROTO_UDP;
	fib.ipv4_src = from;
	fib.ipv4_dst = to;
	rc = bpf_fib_lookup(ctx, &fib, sizeof(fib), 0);
	if (rc == BPF_FIB_LKUP_RET_FWD_DISABLED)
		return uplink_ifindex;
	if (rc == BPF_FIB_LKUP_RET_NO_NEIGH)
		return fib.ifindex;
	if (rc != BPF_FIB_LKUP_RET_SUCCESS)
		return -1;
	hop.ifindex = fib.ifindex;
	__builtin_memcpy(hop.dest, fib.dmac, ETH_ALEN);
	__builtin_memcpy(hop.source, fib.smac, ETH_ALEN);
	return bpf_map_update_elem(&hops, &to, &hop, BPF_ANY) ? fib.ifindex : 0;
}

/* NULL: see asked, which is what ask_hop says. */
static __always_inline struct hop *find_hop(void *ctx, __be32 from, __be32 to, int *asked)
{
	struct hop *hop = bpf_map_lookup_elem(&hops, &to);

	if (hop && hop->asked == now_ticks())
		return hop;
	*asked = ask_hop(ctx, from, to);
	return *asked ? NULL : bpf_map_lookup_elem(&hops, &to);
}

#endif
