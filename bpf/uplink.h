/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What arrives on the uplink, at TC. */
#ifndef ORCH_UPLINK_H
#define ORCH_UPLINK_H

#include "deliver.h"

/* Takes the 50 bytes off again and reads the inner packet. */
static __always_inline bool decapsulate(struct __sk_buff *skb, struct packet *p)
{
	if (bpf_skb_adjust_room(skb, -OVERLAY_OVERHEAD, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO))
		return false;
	if (tc_parse(skb, 0, p) != PARSED)
		return false;
	read_quoted(skb, p);
	return true;
}

/* Another node's probe goes back short, to the port that it came from, so that
 * it tells of one direction only.
 */
static __noinline int answer_probe(struct __sk_buff *skb, const struct node_config *cfg,
				   const struct packet *outer)
{
	struct encapsulation *h;

	if (bpf_skb_change_tail(skb, sizeof(*h) + PROBE_BYTES, 0) ||
	    bpf_skb_pull_data(skb, sizeof(*h)))
		return drop(skb, DROP_REWRITE);
	h = (void *)(long)skb->data;
	if ((void *)(h + 1) > (void *)(long)skb->data_end)
		return drop(skb, DROP_REWRITE);
	write_encapsulation(h, cfg->underlay, outer->saddr, OVERLAY_PROBE, 0, outer->saddr,
			    PROBE_BYTES, 0);
	h->udp.source = OVERLAY_PORT;
	h->udp.dest = outer->sport;
	return send_out(skb, cfg->underlay, outer->saddr, ANSWERED_PROBE);
}

static __always_inline int from_overlay(struct __sk_buff *skb, const struct node_config *cfg,
					const struct packet *outer)
{
	struct target t = {};
	struct tunnelled h;
	struct packet p;

	if (!is_member(outer->saddr))
		return drop(skb, DROP_NOT_MEMBER);
	bpf_skb_pull_data(skb, sizeof(struct encapsulation));
	if (!read_encapsulation((void *)(long)skb->data, (void *)(long)skb->data_end, &h))
		return drop(skb, DROP_MALFORMED);
	if (h.kind == OVERLAY_PROBE)
		return answer_probe(skb, cfg, outer);
	if (!decapsulate(skb, &p))
		return drop(skb, DROP_MALFORMED);
	if (!find_ports(&p) && h.kind != OVERLAY_DIRECT)
		return drop(skb, DROP_FRAGMENT);
	if (h.kind == OVERLAY_RETURN)
		return to_client(skb, &p);
	if (h.kind != OVERLAY_CLIENT && h.kind != OVERLAY_DIRECT)
		return drop(skb, DROP_MALFORMED);
	t.addr = h.kind == OVERLAY_CLIENT ? h.name : p.daddr;
	t.port = h.port;
	t.endpoint = endpoint(t.addr);
	if (!t.endpoint || t.endpoint->node != cfg->underlay)
		return drop(skb, DROP_NOT_HERE);
	if (h.kind == OVERLAY_DIRECT)
		return deliver(skb, t.addr, t.endpoint);
	return translate(skb, &p, &t, h.from);
}

static __always_inline int from_uplink(struct __sk_buff *skb, const struct node_config *cfg)
{
	struct frontend *fe;
	struct target t;
	struct packet p;
	__u32 backend;
	int parsed = tc_parse(skb, 0, &p);

	if (parsed == NOT_IP)
		return PASS;
	if (parsed == PARSED && is_overlay(cfg, &p))
		return from_overlay(skb, cfg, &p);
	if (in_pool(cfg, p.origin) || in_pool(cfg, p.daddr))
		return drop(skb, DROP_NOT_ENCAPSULATED);
	if (parsed == WITH_OPTIONS)
		return pass(skb, PASSED_OPTIONS);
	read_quoted(skb, &p);
	if (!find_ports(&p))
		return pass(skb, PASSED_FRAGMENT);
	fe = find_published(skb, cfg, skb->ifindex, &p, false);
	if (!fe)
		return PASS;
	if (!choose(&p, fe, &t, &backend))
		return pass(skb, PASSED_NO_BACKEND);
	count_target(fe, backend, tc_packets(skb), skb->len - ETH_HLEN);
	return to_backend(skb, cfg, &p, &t);
}

#endif
