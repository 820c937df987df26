/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Frontends and the choice of a backend. Shared by XDP and TC. */
#ifndef ORCH_FRONTEND_H
#define ORCH_FRONTEND_H

#include "flow.h"

struct target {
	__be32 addr;
	__be32 node; /* that it is on */
	__be16 port;
	bool last;   /* the flow ends with this packet */
	bool dsr;    /* replies may go straight to the client */
	bool sealed; /* has to be encrypted on its way to another node */
	__u32 backend;
	__u32 frontend;
	struct endpoint *endpoint; /* set where it is on this node */
};

enum choice {
	CHOSEN,
	NOBODY, /* no backend can be used */
	GONE,	/* the connection's backend is gone, and the connection with it */
};

/* Is addr an address of this node? The routing table knows them all. */
static __noinline bool is_local(void *ctx, const struct node_config *cfg, __u32 ifindex,
				__be32 addr)
{
	struct bpf_fib_lookup fib = {.family = AF_INET, .ifindex = ifindex};

	if (addr == cfg->underlay || is_loopback(addr))
		return true;
	fib.ipv4_src = cfg->underlay;
	fib.ipv4_dst = addr;
	return bpf_fib_lookup(ctx, &fib, sizeof(fib), 0) == BPF_FIB_LKUP_RET_NOT_FWDED;
}

/* What the routing table says of an IPv6 address, as from the loopback device,
 * where that needs no forwarding of the node's uplink: unreachable where only
 * the route of last resort leads there, which user space sets.
 */
static __noinline long route6(void *ctx, const struct addr6 *addr)
{
	struct bpf_fib_lookup fib = {.family = AF_INET6, .ifindex = LOOPBACK_IFINDEX};

	__builtin_memcpy(fib.ipv6_dst, addr, sizeof(*addr));
	return bpf_fib_lookup(ctx, &fib, sizeof(fib), 0);
}

/* Multicast and link-local addresses are left to the kernel. */
static __always_inline bool is_local6(void *ctx, const struct addr6 *addr)
{
	return is_routable6(addr) && route6(ctx, addr) == BPF_FIB_LKUP_RET_NOT_FWDED;
}

/* The frontend of a published port at one address. */
static __always_inline struct frontend *frontend_at(const struct packet *p)
{
	struct frontend6_key key = {.k = {.port = p->dport, .proto = p->proto}};

	if (p->v6) {
		key.addr = p->daddr6;
		return bpf_map_lookup_elem(&frontends6, &key);
	}
	key.k.addr = p->daddr;
	return bpf_map_lookup_elem(&frontends, &key.k);
}

/* The frontend of a published port, or NULL. from_task: addresses of other
 * nodes count as well.
 */
static __always_inline struct frontend *find_published(void *ctx, const struct node_config *cfg,
						       __u32 ifindex, const struct packet *p,
						       bool from_task)
{
	struct frontend_key key = {.port = p->dport, .proto = p->proto};
	struct frontend *fe;

	if (!has_ports(p))
		return NULL;
	fe = frontend_at(p);
	if (fe)
		return fe;
	fe = bpf_map_lookup_elem(&frontends, &key);
	if (!fe)
		return NULL;
	if (from_task && is_member(p->daddr) && !(fe->flags & FRONTEND_HOST))
		return fe;
	if (p->v6 && !is_loopback(p->daddr))
		return is_local6(ctx, &p->daddr6) ? fe : NULL;
	return is_local(ctx, cfg, ifindex, p->daddr) ? fe : NULL;
}

static __always_inline struct frontend *find_virtual(__be32 addr)
{
	struct frontend_key key = {.addr = addr};

	return bpf_map_lookup_elem(&frontends, &key);
}

static __always_inline void count_stats(void *map, __u32 id, __u64 packets, __u64 bytes,
					__u64 flows)
{
	struct stats *s = bpf_map_lookup_elem(map, &id);

	if (s) {
		s->packets += packets;
		s->bytes += bytes;
		s->flows += flows;
	}
}

/* Is it the backend that the flow was given to? */
static __always_inline bool is_of(const struct backend *b, const struct flow *flow,
				  __u32 frontend)
{
	return b && b->addr == flow->addr && b->frontend == frontend;
}

/* Is the packet to be treated as the first of another flow? A new connection
 * does not go to a draining backend, and a UDP flow ends by being idle.
 */
static __always_inline bool begins_anew(const struct packet *p, const struct flow *flow,
					const struct backend *b, __u32 now)
{
	if (p->proto == IPPROTO_UDP)
		return idle_ticks(flow->seen, now) > ticks_udp_idle;
	return is_syn(p) && ((b->flags & BACKEND_DRAINING) || (flow->flags & ~SEEN_SYN) ||
			     idle_ticks(flow->seen, now) > TICKS_TCP_OPENING);
}

/* Where a hash falls in a table of m places, as loadbalancer.Place has it. */
static __always_inline __u32 place_of(__u32 hash, __u32 m)
{
	__u32 mask = m - 1;

	mask |= mask >> 1;
	mask |= mask >> 2;
	mask |= mask >> 4;
	mask |= mask >> 8;
	mask |= mask >> 16;
	return (hash & mask) < m ? hash & mask : hash & (mask >> 1);
}

static __always_inline struct backend *pick(const struct packet *p, const struct frontend *fe,
					    __u32 *id)
{
	void *table = bpf_map_lookup_elem(&tables, &fe->id);
	__u32 place, part = 0;
	struct places *in;
	struct backend *b;

	if (!table)
		return NULL;
	in = bpf_map_lookup_elem(table, &part);
	if (!in || !in->backend[0])
		return NULL;
	place = place_of(fe->flags & FRONTEND_AFFINITY ? client_hash(p) : flow_hash(p, 0),
			 in->backend[0]);
	part = 1 + place / PLACES;
	in = bpf_map_lookup_elem(table, &part);
	if (!in)
		return NULL;
	*id = in->backend[place % PLACES];
	b = bpf_map_lookup_elem(&backends, id);
	return b && b->addr ? b : NULL;
}

/* The backend that a flow keeps. NULL: it has to be picked afresh. */
static __always_inline struct backend *keeps(const struct packet *p, const struct frontend *fe,
					     const struct flow6_key *key, struct target *t,
					     __u32 now, bool *gone)
{
	struct backend *b;
	struct flow *flow;
	bool brief;

	flow = flow_at(p, key, &brief);
	if (!flow)
		return NULL;
	b = bpf_map_lookup_elem(&backends, &flow->backend);
	if (is_of(b, flow, fe->id) && !begins_anew(p, flow, b, now)) {
		t->backend = flow->backend;
		if (flow->frontend != fe->id) /* of before flows knew it */
			flow->frontend = fe->id;
		if (flow_see(p, flow, fe->id, now) && brief)
			flow_keep(p, key, flow);
		t->last = is_over(flow->flags);
		return b;
	}
	*gone = !is_of(b, flow, fe->id) && p->proto == IPPROTO_TCP && !p->error &&
		!(p->tcp & (TCP_SYN | TCP_RST));
	if (!brief && !*gone && !p->error)
		flow_forget(p, key);
	return NULL;
}

static __always_inline void aim(const struct packet *p, const struct backend *b, __u32 id,
				struct target *t)
{
	t->addr = b->addr;
	t->node = b->node;
	t->port = b->port ? b->port : p->dport;
	t->dsr = b->flags & BACKEND_DSR;
	t->sealed = b->flags & BACKEND_ENCRYPTED;
	t->backend = id;
	t->frontend = b->frontend;
}

/* Most packets are of a flow that lasts, which knows its backend without that its
 * frontend is looked for. False: this is none, or one that something is to be
 * decided about.
 */
static __noinline bool goes_on(const struct packet *p, struct target *t)
{
	__u32 now = now_ticks();
	struct flow6_key key;
	struct backend *b;
	struct flow *flow;

	if (!has_ports(p) || is_syn(p))
		return false;
	key = flow_key_of(p);
	flow = lasting_flow(p, &key);
	if (!flow)
		return false;
	b = bpf_map_lookup_elem(&backends, &flow->backend);
	if (!is_of(b, flow, flow->frontend) || !b->node || begins_anew(p, flow, b, now))
		return false;
	flow_see(p, flow, b->frontend, now);
	aim(p, b, flow->backend, t);
	t->last = is_over(flow->flags);
	return true;
}

/* Chooses the backend of a packet to a frontend, and remembers it. */
static __noinline enum choice choose(const struct packet *p, const struct frontend *fe,
				     struct target *t)
{
	struct flow6_key key = flow_key_of(p);
	__u32 now = now_ticks();
	bool gone = false, begins;
	struct backend *b;

	t->last = false;
	b = keeps(p, fe, &key, t, now, &gone);
	if (gone)
		return GONE;
	if (!b) {
		b = pick(p, fe, &t->backend);
		if (!b)
			return NOBODY;
		flow_open(p, &key, t->backend, b, now);
		/* What comes late of a connection that is over begins no other. */
		begins = !p->error && (p->proto != IPPROTO_TCP || is_syn(p));
		count_stats(&frontend_stats, fe->id, 0, 0, begins);
		count_stats(&backend_stats, t->backend, 0, 0, begins);
	}
	aim(p, b, t->backend, t);
	return t->node ? CHOSEN : NOBODY;
}

/* The packet goes to the target. */
static __always_inline void goes_to(const struct packet *p, const struct target *t,
				    __u64 packets, __u64 bytes)
{
	struct flow6_key key;

	count_stats(&frontend_stats, t->frontend, packets, bytes, 0);
	count_stats(&backend_stats, t->backend, packets, bytes, 0);
	if (!t->last)
		return;
	key = flow_key_of(p);
	flow_forget(p, &key);
}

#endif
