/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What arrives on the uplink, at TC. */
#ifndef ORCH_UPLINK_H
#define ORCH_UPLINK_H

#include "deliver.h"

/* Of linux/bpf.h, since Linux 6.3: there is an IPv6 packet inside. */
#define DECAP_IPV6 (1ULL << 8)

/* An older kernel takes a packet for IPv6 once its header has been changed to
 * one, which makes it 20 bytes longer.
 */
static __always_inline bool take_off6(struct __sk_buff *skb)
{
	const int longer = sizeof(struct ipv6hdr) - sizeof(struct iphdr);
	__be16 type = bpf_htons(ETH_P_IPV6);

	if (bpf_skb_adjust_room(skb, -OVERLAY_OVERHEAD, BPF_ADJ_ROOM_MAC,
				BPF_F_ADJ_ROOM_FIXED_GSO | DECAP_IPV6) &&
	    (bpf_skb_change_proto(skb, type, 0) ||
	     bpf_skb_adjust_room(skb, -OVERLAY_OVERHEAD - longer, BPF_ADJ_ROOM_MAC,
				 BPF_F_ADJ_ROOM_FIXED_GSO)))
		return false;
	return bpf_skb_store_bytes(skb, offsetof(struct ethhdr, h_proto), &type, sizeof(type),
				   0) == 0;
}

/* Takes the 50 bytes off again and reads the inner packet. */
static __always_inline bool decapsulate(struct __sk_buff *skb, const struct node_config *cfg,
					const struct tunnelled *h, struct packet *p)
{
	if (h->v6 ? !take_off6(skb)
		  : bpf_skb_adjust_room(skb, -OVERLAY_OVERHEAD, BPF_ADJ_ROOM_MAC,
					BPF_F_ADJ_ROOM_FIXED_GSO))
		return false;
	if (tc_parse(skb, cfg, p) != PARSED)
		return false;
	read_quoted(skb, cfg, p);
	return true;
}

/* Another node's probe goes back short, to the port that it came from, so that
 * it tells of one direction only: from the node that its inner MAC names, so that
 * it also tells whether the network lets pass what comes from another node's
 * address, as direct server return does.
 */
static __noinline int answer_probe(struct __sk_buff *skb, const struct node_config *cfg,
				   const struct packet *outer, __be32 name)
{
	__be32 from = is_member(name) ? name : cfg->underlay;
	struct encapsulation *h;

	if (bpf_skb_change_tail(skb, sizeof(*h) + PROBE_BYTES, 0) ||
	    bpf_skb_pull_data(skb, sizeof(*h)))
		return drop(skb, DROP_REWRITE);
	h = (void *)(long)skb->data;
	if ((void *)(h + 1) > (void *)(long)skb->data_end)
		return drop(skb, DROP_REWRITE);
	write_encapsulation(h, from, outer->saddr, OVERLAY_PROBE, 0, outer->saddr,
			    PROBE_BYTES, 0, bpf_htons(ETH_P_IP));
	h->udp.source = OVERLAY_PORT;
	h->udp.dest = outer->sport;
	return send_out(skb, from, outer->saddr, ANSWERED_PROBE);
}

/* p is the outer packet, and then the inner one. sealed: it was encrypted. */
static __always_inline int from_overlay(struct __sk_buff *skb, const struct node_config *cfg,
					struct packet *p, bool sealed)
{
	struct target t = {};
	struct tunnelled h;

	if (!is_member(p->saddr))
		return drop(skb, DROP_NOT_MEMBER);
	if ((void *)(long)skb->data + sizeof(struct encapsulation) > (void *)(long)skb->data_end)
		bpf_skb_pull_data(skb, sizeof(struct encapsulation));
	if (!read_encapsulation((void *)(long)skb->data, (void *)(long)skb->data_end, &h))
		return drop(skb, DROP_MALFORMED);
	if (h.kind == OVERLAY_PROBE && !sealed)
		return answer_probe(skb, cfg, p, h.name);
	if (!decapsulate(skb, cfg, &h, p))
		return drop(skb, DROP_MALFORMED);
	if (!find_ports(p) && h.kind != OVERLAY_DIRECT)
		return drop(skb, DROP_FRAGMENT);
	if (h.kind == OVERLAY_RETURN) {
		if (!sealed && cfg->tunnel && is_encrypted(p->daddr))
			return drop(skb, DROP_IN_CLEAR);
		return to_client(skb, cfg, p, h.name);
	}
	if (h.kind != OVERLAY_CLIENT && h.kind != OVERLAY_DIRECT)
		return drop(skb, DROP_MALFORMED);
	t.addr = h.kind == OVERLAY_CLIENT ? h.name : p->daddr;
	t.port = h.port;
	t.dsr = h.dsr;
	t.endpoint = endpoint(t.addr);
	if (!t.endpoint || t.endpoint->node != cfg->underlay)
		return drop(skb, DROP_NOT_HERE);
	if (!sealed && (t.endpoint->flags & ENDPOINT_ENCRYPTED))
		return drop(skb, DROP_IN_CLEAR);
	if (h.kind == OVERLAY_DIRECT)
		return deliver(skb, t.addr, t.endpoint);
	return translate(skb, cfg, p, &t, h.from);
}

static __always_inline int from_uplink(struct __sk_buff *skb, const struct node_config *cfg)
{
	struct packet *p = room_for_packet();
	struct target t = {};
	struct frontend *fe;
	int parsed;

	if (!p)
		return PASS;
	parsed = tc_parse(skb, cfg, p);
	if (parsed == NOT_IP)
		return PASS;
	if (parsed == PARSED && is_overlay(cfg, p))
		return from_overlay(skb, cfg, p, false);
	if (p->v6 && is_of_link(p))
		return PASS;
	if (p->v6 ? in_pool6(cfg, &p->saddr6) || in_pool6(cfg, &p->daddr6)
		  : in_pool(cfg, p->origin) || in_pool(cfg, p->daddr))
		return drop(skb, DROP_NOT_ENCAPSULATED);
	if (parsed == WITH_OPTIONS)
		return pass(skb, PASSED_OPTIONS);
	if (is_loopback(p->saddr) || is_loopback(p->daddr))
		return PASS; /* the kernel takes none from outside */
	read_quoted(skb, cfg, p);
	if (!find_ports(p))
		return pass(skb, PASSED_FRAGMENT);
	if (goes_on(p, &t))
		return carry(skb, cfg, p, &t);
	fe = find_published(skb, cfg, skb->ifindex, p, false);
	if (!fe)
		return PASS;
	return balance(skb, cfg, p, fe, false);
}

#endif
