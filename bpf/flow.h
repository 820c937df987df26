/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Flows: what the ingress node remembers of a client, so that it stays with its
 * backend while others come and go.
 *
 * A first packet costs its sender nothing, not even an address of his own. So it
 * is noted in brief_flows only, where newer ones push it out. The flow moves to
 * flows with another packet that is not a mere repetition of the first: from
 * there nothing pushes it out. It leaves when it has ended. Where flows has no
 * room it stays in brief_flows, and where it is in neither the Maglev table
 * decides, on every node alike.
 */
#ifndef ORCH_FLOW_H
#define ORCH_FLOW_H

#include "packet.h"

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

static __always_inline struct flow *lasting_flow(const struct packet *p,
						 const struct flow6_key *key)
{
	if (p->v6)
		return bpf_map_lookup_elem(&flows6, key);
	return bpf_map_lookup_elem(&flows, &key->k);
}

static __always_inline struct flow *flow_at(const struct packet *p, const struct flow6_key *key,
					    bool *brief)
{
	struct flow *f = lasting_flow(p, key);

	*brief = !f;
	if (f)
		return f;
	if (p->v6)
		return bpf_map_lookup_elem(&brief_flows6, key);
	return bpf_map_lookup_elem(&brief_flows, &key->k);
}

static __always_inline void flow_forget(const struct packet *p, const struct flow6_key *key)
{
	if (p->v6)
		bpf_map_delete_elem(&flows6, key);
	else
		bpf_map_delete_elem(&flows, &key->k);
}

/* From brief_flows to flows. */
static __noinline int flow_keep(const struct packet *p, const struct flow6_key *key,
				const struct flow *f)
{
	long full = p->v6 ? bpf_map_update_elem(&flows6, key, f, BPF_ANY)
			  : bpf_map_update_elem(&flows, &key->k, f, BPF_ANY);

	if (full)
		count(FULL_FLOWS, 1, p->len);
	else if (p->v6)
		bpf_map_delete_elem(&brief_flows6, key);
	else
		bpf_map_delete_elem(&brief_flows, &key->k);
	return 0;
}

/* Wraps around after an hour. */
static __always_inline __u32 now_micros(void) { return bpf_ktime_get_ns() / 1000; }

/* Counts a handshake that the client's acknowledgment ends. Not static: see
 * struct room.
 */
__noinline int handshake_ends(__u32 frontend, __u32 began)
{
	struct handshakes *h = bpf_map_lookup_elem(&handshakes, &frontend);
	__u32 took = now_micros() - began, bucket = 0;

	if (!h)
		return 0;
#pragma unroll
	for (__u32 i = 0; i < HANDSHAKE_BUCKETS - 1; i++)
		bucket += took >= (HANDSHAKE_LEAST << i);
	h->micros += took;
	h->count[bucket & (HANDSHAKE_BUCKETS - 1)]++;
	return 0;
}

/* Notes a packet that begins a flow; one that ends it begins none. */
static __noinline int flow_open(const struct packet *p, const struct flow6_key *key, __u32 id,
				const struct backend *b, __u32 now)
{
	struct flow fresh = {
		.backend = id, .addr = b->addr, .frontend = b->frontend, .seen = now};

	if (p->error || (p->tcp & (TCP_FIN | TCP_RST)))
		return 0;
	if (is_syn(p)) {
		fresh.flags = SEEN_SYN;
		fresh.ack = now_micros();
	}
	if (p->v6)
		bpf_map_update_elem(&brief_flows6, key, &fresh, BPF_ANY);
	else
		bpf_map_update_elem(&brief_flows, &key->k, &fresh, BPF_ANY);
	return 0;
}

/* Notes another packet of the client. True if the flow is one to keep. */
static __always_inline bool flow_see(const struct packet *p, struct flow *f, __u32 frontend,
				     __u32 now)
{
	/* The TC program may look again at what XDP passed up: where there was
	 * no SYN, only time tells that it is another packet.
	 */
	bool another = !is_syn(p) && ((f->flags & SEEN_SYN) || f->seen != now);

	if (p->error)
		return false;
	touch(&f->seen, now);
	if (p->tcp & TCP_ACK) {
		if ((f->flags & (SEEN_SYN | SEEN_ESTABLISHED)) == SEEN_SYN)
			handshake_ends(frontend, f->ack);
		if (f->ack != p->ack)
			f->ack = p->ack;
		raise_flags(&f->flags, SEEN_ESTABLISHED);
	}
	if (p->tcp & TCP_RST)
		raise_flags(&f->flags, SEEN_RST);
	if (p->tcp & TCP_FIN)
		raise_flags(&f->flags, SEEN_FIN_CLIENT);
	return another && !is_over(f->flags);
}

/* A reply on its way to the client: has the backend, which it is from, ended the
 * connection? An earlier backend, to which the same ports belonged once, may end its
 * own late. Nodes of before named none; what they named is no address of a task. A
 * flow of UDP is in use as long as one side sends.
 */
static __noinline int flow_answered(const struct node_config *cfg, const struct packet *p,
				    __be32 from)
{
	struct flow6_key key = {.k = {.client = p->daddr,
				      .dest = p->saddr,
				      .client_port = p->dport,
				      .dest_port = p->sport,
				      .proto = p->proto}};
	struct flow *f;

	if (p->error || !has_ports(p) ||
	    (p->proto == IPPROTO_TCP && !(p->tcp & (TCP_FIN | TCP_RST))))
		return 0;
	if (p->v6) {
		key.client = p->daddr6;
		key.dest = p->saddr6;
	}
	f = lasting_flow(p, &key);
	if (!f || (in_pool(cfg, from) && f->addr != from))
		return 0;
	if (p->tcp & TCP_RST)
		flow_forget(p, &key);
	else if (p->tcp & TCP_FIN)
		raise_flags(&f->flags, SEEN_FIN_BACKEND);
	else
		touch(&f->seen, now_ticks());
	return 0;
}

#endif
