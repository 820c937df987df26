/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Sessions: what the backend's node remembers of a translated flow, so that
 * the reply gets back its original source and the way it came.
 *
 * The key is what the backend sees: {client, backend}. Two flows can want the
 * same key: one client port that reaches one backend through two frontends, or
 * through two addresses of one frontend. The later one then gets another client
 * port, one of a few that its own addresses and ports determine, so that its
 * next packet finds it again; the client's address never changes. A flow whose
 * client is the backend itself gets the frontend's address as its client, as
 * no host accepts a packet from its own address; and one from a node's loopback
 * address gets the node's address.
 *
 * Who can also reach the backend directly, a task or the backend's own node, may
 * do so from the same port at the same time. Nothing remembers its direct flows, so
 * that those by frontends get a port from elsewhere: see apart.
 *
 * As with flows, a first packet is only noted where newer ones push it out. With
 * the client's next one that is no SYN the session moves to where nothing does,
 * until it has ended.
 */
#ifndef ORCH_SESSION_H
#define ORCH_SESSION_H

#include "rewrite.h"

#define OTHER_PORTS 8
#define PRIVILEGED 1024 /* ports below, which mostly not everybody may use */

/* Its key may be taken by another flow. */
static __always_inline bool session_over(const struct session *s, __u8 proto, __u32 now)
{
	__u32 idle = idle_ticks(s->seen, now);

	if (proto == IPPROTO_UDP)
		return idle > ticks_udp_idle;
	if (is_over(s->flags))
		return idle > TICKS_TCP_CLOSED;
	return !(s->flags & SEEN_ESTABLISHED) && idle > TICKS_TCP_OPENING;
}

static __always_inline struct session *session_at(const struct packet *p,
						  const struct session6_key *key, bool *brief)
{
	struct session *s = p->v6 ? bpf_map_lookup_elem(&sessions6, key)
				  : bpf_map_lookup_elem(&sessions, &key->k);

	*brief = !s;
	if (s)
		return s;
	if (p->v6)
		return bpf_map_lookup_elem(&brief_sessions6, key);
	return bpf_map_lookup_elem(&brief_sessions, &key->k);
}

/* In IPv6 that which stands for an address is enough here: of two different
 * destinations on the cluster's own nodes both would have to get the same.
 */
static __always_inline bool session_of(const struct session *s, const struct packet *p)
{
	return s->client == p->saddr && s->client_port == p->sport && s->dest == p->daddr &&
	       s->dest_port == p->dport;
}

/* The last is the client's own: the earlier version's choice, and the last resort. */
static __always_inline __be16 other_port(const struct packet *p, __u32 i)
{
	if (i > OTHER_PORTS)
		return p->sport;
	return bpf_htons(1024 + flow_hash(p, i) % (65536 - 1024));
}

/* Mostly not a port of the client's direct flows: where the client leaves it to its
 * kernel, these have one from 32768 to 60999, if nobody has changed that.
 */
static __always_inline bool is_apart(__be16 port) { return bpf_ntohs(port) < 0x8000; }

/* Such a port for each of these. What is privileged stays so, and nothing else
 * becomes it.
 */
static __always_inline __be16 apart(__be16 port)
{
	__u16 to = bpf_ntohs(port) ^ 0x8000;

	if (bpf_ntohs(port) < PRIVILEGED)
		return port;
	return bpf_htons(to < PRIVILEGED ? to + (65536 - PRIVILEGED) : to);
}

enum found {
	TAKEN, /* and all that it could have instead */
	VACANT,
	FOUND,
};

/* Makes the key in the room that of the session which the packet there belongs to,
 * or the one that it can have. Not static (see struct room): followed from each
 * call, its many ways were half of what the verifier did.
 */
__noinline int session_search(void)
{
	struct session6_key *key;
	struct room *r = room();
	__u32 now = now_ticks();
	bool brief, direct, vacant = true;
	__be16 free_port;
	struct packet *p;
	struct session *s;

	if (!r)
		return TAKEN;
	key = &r->key;
	p = &r->packet;
	s = session_at(p, key, &brief);
	free_port = key->k.client_port;
	direct = free_port != p->sport; /* see session_open */
	if (s && session_of(s, p))
		return FOUND;
	if (s && !session_over(s, p->proto, now))
		vacant = false;
	else if (is_syn(p))
		return VACANT;
#pragma unroll
	for (__u32 i = 1; i <= OTHER_PORTS + 1; i++) {
		key->k.client_port = other_port(p, i);
		s = session_at(p, key, &brief);
		if (s && session_of(s, p))
			return FOUND;
		if (!vacant && (!direct || is_apart(key->k.client_port) || i > OTHER_PORTS) &&
		    (!s || session_over(s, p->proto, now))) {
			vacant = true;
			free_port = key->k.client_port;
		}
	}
	key->k.client_port = free_port;
	return vacant ? VACANT : TAKEN;
}

/* The same for a key that is elsewhere. */
static __always_inline enum found session_find(struct session6_key *key)
{
	struct room *r = room();
	enum found found;

	if (!r)
		return TAKEN;
	r->key = *key;
	found = session_search();
	*key = r->key;
	return found;
}

static __always_inline void session_see(struct session *s, const struct packet *p, bool from_client,
					__u32 now)
{
	if (p->error)
		return;
	touch(&s->seen, now);
	if (p->proto != IPPROTO_TCP)
		return;
	if (p->tcp & TCP_RST)
		raise_flags(&s->flags, SEEN_RST);
	if (p->tcp & TCP_FIN)
		raise_flags(&s->flags, from_client ? SEEN_FIN_CLIENT : SEEN_FIN_BACKEND);
	if (from_client && !(p->tcp & TCP_SYN))
		raise_flags(&s->flags, SEEN_ESTABLISHED);
}

/* The newest packet decides, so that open flows follow a change. */
static __always_inline void session_answer(struct session *s, bool dsr)
{
	if (!(s->flags & SEEN_DSR) == dsr)
		s->flags ^= SEEN_DSR;
}

/* The source that the backend must see. */
static __always_inline struct address seen_client(const struct node_config *cfg,
						  const struct packet *p, __be32 backend,
						  __be32 via)
{
	if (p->saddr == backend)
		return (struct address){p->daddr, p->daddr6};
	if (is_loopback(p->saddr))
		return address_for(cfg, p, via);
	return (struct address){p->saddr, p->saddr6};
}

/* Here, as translate has little room on the stack. */
static __noinline bool session_put(const struct packet *p, const struct session6_key *key,
				   __be32 via, bool dsr)
{
	bool may_last = p->proto == IPPROTO_UDP; /* one that is over, idle as it is */
	struct session6 fresh = {.s = {.client = p->saddr,
				       .client_port = p->sport,
				       .dest = p->daddr,
				       .dest_port = p->dport,
				       .via = via,
				       .flags = dsr ? SEEN_DSR : 0},
				 .client = p->saddr6,
				 .dest = p->daddr6};

	session_see(&fresh.s, p, true, now_ticks());
	if (!p->v6) {
		if (may_last)
			bpf_map_delete_elem(&sessions, &key->k);
		return bpf_map_update_elem(&brief_sessions, &key->k, &fresh.s, BPF_ANY) == 0;
	}
	if (may_last)
		bpf_map_delete_elem(&sessions6, key);
	return bpf_map_update_elem(&brief_sessions6, key, &fresh, BPF_ANY) == 0;
}

/* To where nothing pushes a session out. */
static __noinline int session_keep(const struct packet *p, const struct session6_key *key)
{
	long full = 0;
	void *s;

	if (p->v6) {
		s = bpf_map_lookup_elem(&brief_sessions6, key);
		if (s)
			full = bpf_map_update_elem(&sessions6, key, s, BPF_ANY);
		if (!full)
			bpf_map_delete_elem(&brief_sessions6, key);
	} else {
		s = bpf_map_lookup_elem(&brief_sessions, &key->k);
		if (s)
			full = bpf_map_update_elem(&sessions, &key->k, s, BPF_ANY);
		if (!full)
			bpf_map_delete_elem(&brief_sessions, &key->k);
	}
	if (full)
		count(FULL_SESSIONS, 1, p->len);
	return 0;
}

/* And back from there, for the last packets of a connection. */
static __noinline int session_end(const struct packet *p, const struct session6_key *key)
{
	void *s;

	if (p->v6) {
		s = bpf_map_lookup_elem(&sessions6, key);
		if (s)
			bpf_map_update_elem(&brief_sessions6, key, s, BPF_ANY);
		bpf_map_delete_elem(&sessions6, key);
	} else {
		s = bpf_map_lookup_elem(&sessions, &key->k);
		if (s)
			bpf_map_update_elem(&brief_sessions, &key->k, s, BPF_ANY);
		bpf_map_delete_elem(&sessions, &key->k);
	}
	return 0;
}

/* Remembers a client's packet on its way to a backend. The key's client is the
 * source that the backend must see. False if there is no room for it.
 */
static __always_inline bool session_open(const struct node_config *cfg, const struct packet *p,
					 const struct target *t, __be32 via,
					 struct session6_key *key)
{
	struct address client = seen_client(cfg, p, t->addr, via);
	__u32 now = now_ticks();
	bool direct = in_pool(cfg, p->saddr) || client.v4 == via; /* it may be so, too */
	enum found found = VACANT;
	struct session *s;
	bool brief;

	__builtin_memset(key, 0, sizeof(*key));
	key->k.client = client.v4;
	key->k.client_port = direct ? apart(p->sport) : p->sport;
	key->k.backend = t->addr;
	key->k.backend_port = t->port;
	key->k.proto = p->proto;
	key->client = client.v6;
	s = session_at(p, key, &brief);
	if (s ? !session_of(s, p) : !is_syn(p)) { /* not there: another key, or none */
		found = session_find(key);
		s = found == FOUND ? session_at(p, key, &brief) : NULL;
	}
	if (!s) {
		if (found == TAKEN || p->error)
			return false;
		return session_put(p, key, via, t->dsr);
	}
	if (is_syn(p) && brief)
		s->flags = 0;
	if (s->via != via)
		s->via = via;
	session_answer(s, t->dsr);
	session_see(s, p, true, now);
	if (!brief && is_over(s->flags))
		session_end(p, key);
	else if (brief && !is_over(s->flags) && !is_syn(p) && !p->error)
		session_keep(p, key);
	return true;
}

/* Of a session that a task's packet is a reply of: where it goes, and as whose. */
struct way_back {
	struct address client;
	struct address dest;
	__be16 client_port;
	__be16 dest_port;
	__be32 via;
	bool dsr;
};

static __always_inline void copy_way(const struct packet *p, const struct session6_key *key,
				     const struct session *s, bool brief, struct way_back *back)
{
	struct session6 *wide;

	back->client.v4 = s->client;
	back->dest.v4 = s->dest;
	back->client_port = s->client_port;
	back->dest_port = s->dest_port;
	back->via = s->via;
	back->dsr = s->flags & SEEN_DSR;
	if (!p->v6)
		return;
	/* Again, so that the verifier knows which map it is from. */
	wide = brief ? bpf_map_lookup_elem(&brief_sessions6, key)
		     : bpf_map_lookup_elem(&sessions6, key);
	if (wide) {
		back->client.v6 = wide->client;
		back->dest.v6 = wide->dest;
	}
}

/* False if the packet is no reply. */
static __noinline bool session_reply(const struct packet *p, struct way_back *back)
{
	struct session6_key key = {.k = {.client = p->daddr,
					 .client_port = p->dport,
					 .backend = p->saddr,
					 .backend_port = p->sport,
					 .proto = p->proto},
				   .client = p->daddr6};
	__u32 now = now_ticks();
	struct session *s;
	bool brief;

	if (!has_ports(p) || is_syn(p))
		return false;
	s = session_at(p, &key, &brief);
	if (!s || session_over(s, p->proto, now))
		return false;
	if ((p->tcp & (TCP_SYN | TCP_ACK)) == (TCP_SYN | TCP_ACK) && is_over(s->flags)) {
		/* A translated SYN would have opened it again: the client now
		 * connects to the backend directly, from the same port.
		 */
		if (p->v6)
			bpf_map_delete_elem(&brief_sessions6, &key);
		else
			bpf_map_delete_elem(&brief_sessions, &key.k);
		return false;
	}
	session_see(s, p, false, now);
	copy_way(p, &key, s, brief, back);
	if (!brief && is_over(s->flags))
		session_end(p, &key);
	return true;
}

#endif
