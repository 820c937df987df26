/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Frontends and the choice of a backend. Shared by XDP and TC. */
#ifndef ORCH_FRONTEND_H
#define ORCH_FRONTEND_H

#include "packet.h"

/* Flows that one CPU may remember in one tick for the first packet of a TCP
 * connection. Beyond it, in a SYN flood, the Maglev table alone decides, and
 * the flows that exist are not pushed out.
 */
#define NEW_FLOWS_PER_TICK 65536

struct target {
	__be32 addr;
	__be16 port;
	struct endpoint *endpoint;
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

static __always_inline bool may_remember(const struct packet *p, __u32 now)
{
	__u32 zero = 0;
	struct budget *b;

	if (p->error)
		return false;
	if (!is_syn(p))
		return true;
	b = bpf_map_lookup_elem(&flow_budget, &zero);
	if (!b)
		return false;
	if (b->tick != now) {
		b->tick = now;
		b->spent = 0;
	}
	return b->spent++ < NEW_FLOWS_PER_TICK;
}

/* The backend that a remembered flow keeps, or NULL if it must be picked
 * afresh: the backend is gone, or this is a new connection and the backend is
 * draining, or a UDP flow has been idle for long.
 */
static __always_inline struct backend *kept(const struct packet *p, const struct frontend *fe,
					    struct flow *flow, __u32 now)
{
	struct backend *b = bpf_map_lookup_elem(&backends, &flow->backend);

	if (!b || b->addr != flow->addr || b->frontend != fe->id)
		return NULL;
	if (is_syn(p) && ((b->flags & BACKEND_DRAINING) || flow->flags))
		return NULL;
	if (p->proto == IPPROTO_UDP && now - flow->seen > TICKS_UDP_IDLE)
		return NULL;
	return b;
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
	place = place_of(flow_hash(p, 0), in->backend[0]);
	part = 1 + place / PLACES;
	in = bpf_map_lookup_elem(table, &part);
	if (!in)
		return NULL;
	*id = in->backend[place % PLACES];
	b = bpf_map_lookup_elem(&backends, id);
	return b && b->addr ? b : NULL;
}

static __always_inline struct flow6_key flow_key_of(const struct packet *p)
{
	struct flow6_key key = {.k = {.client = p->saddr,
				      .dest = p->daddr,
				      .client_port = p->sport,
				      .dest_port = p->dport,
				      .proto = p->proto}};

	if (p->v6) {
		key.client = p->saddr6;
		key.dest = p->daddr6;
	}
	return key;
}

static __always_inline struct flow *flow_at(const struct packet *p, const struct flow6_key *key)
{
	if (p->v6)
		return bpf_map_lookup_elem(&flows6, key);
	return bpf_map_lookup_elem(&flows, &key->k);
}

static __always_inline void flow_put(const struct packet *p, const struct flow6_key *key,
				     const struct flow *flow)
{
	if (p->v6)
		bpf_map_update_elem(&flows6, key, flow, BPF_ANY);
	else
		bpf_map_update_elem(&flows, &key->k, flow, BPF_ANY);
}

/* Chooses the backend of a packet to a frontend, remembers and counts it.
 * False if no backend can be used.
 */
static __noinline bool choose(const struct packet *p, const struct frontend *fe,
				   struct target *t, __u32 *backend_id)
{
	struct flow6_key key = flow_key_of(p);
	__u32 now = now_ticks();
	struct flow *flow = flow_at(p, &key);
	struct backend *b = flow ? kept(p, fe, flow, now) : NULL;

	if (b) {
		*backend_id = flow->backend;
		touch(&flow->seen, now);
		if (p->tcp & (TCP_FIN | TCP_RST))
			raise_flags(&flow->flags,
				    p->tcp & TCP_RST ? SEEN_RST : SEEN_FIN_CLIENT);
	} else {
		struct flow fresh = {.seen = now};

		b = pick(p, fe, backend_id);
		if (!b)
			return false;
		fresh.backend = *backend_id;
		fresh.addr = b->addr;
		if (may_remember(p, now))
			flow_put(p, &key, &fresh);
		count_stats(&frontend_stats, fe->id, 0, 0, !p->error);
		count_stats(&backend_stats, *backend_id, 0, 0, !p->error);
	}
	t->addr = b->addr;
	t->port = b->port ? b->port : p->dport;
	t->endpoint = endpoint(b->addr);
	return t->endpoint != NULL;
}

static __always_inline void count_target(const struct frontend *fe, __u32 backend_id, __u64 packets,
					 __u64 bytes)
{
	count_stats(&frontend_stats, fe->id, packets, bytes, 0);
	count_stats(&backend_stats, backend_id, packets, bytes, 0);
}

#endif
