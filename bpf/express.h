/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* XDP: the two steps that need no socket buffer, done before there is one. A
 * client's packet goes into the tunnel to its backend's node, a tunnelled reply
 * out to its client. Whatever is not plain enough for that goes up to the TC
 * program, which does the same and everything else.
 */
#ifndef ORCH_EXPRESS_H
#define ORCH_EXPRESS_H

#include "frontend.h"
#include "hop.h"
#include "icmp.h"
#include "overlay.h"

/* The way out, if all of it is known. */
static __always_inline bool express_route(struct xdp_md *xdp, struct bpf_fib_lookup *fib,
					  __be32 from, __be32 to, __u16 len)
{
	__builtin_memset(fib, 0, sizeof(*fib));
	fib->family = AF_INET;
	fib->l4_protocol = IPPROTO_UDP;
	fib->tot_len = len;
	fib->ifindex = xdp->ingress_ifindex;
	fib->ipv4_src = from;
	fib->ipv4_dst = to;
	return bpf_fib_lookup(xdp, fib, sizeof(*fib), 0) == BPF_FIB_LKUP_RET_SUCCESS;
}

/* Out where it came in: not every device sends what XDP gives it from another. */
static __always_inline int express_out(struct ethhdr *eth, const __u8 *dest, const __u8 *source,
				       __u32 len, enum verdict v)
{
	__builtin_memcpy(eth->h_dest, dest, ETH_ALEN);
	__builtin_memcpy(eth->h_source, source, ETH_ALEN);
	count(v, 1, len);
	return XDP_TX;
}

static __always_inline int express_too_big(struct xdp_md *xdp, const struct packet *p, __u16 mtu)
{
	struct ethhdr *eth = (void *)(long)xdp->data;
	struct icmp_error e;

	if ((void *)eth + ETH_HLEN + QUOTED > (void *)(long)xdp->data_end)
		return XDP_PASS;
	__builtin_memcpy(&e.eth, eth, ETH_HLEN);
	__builtin_memcpy(e.quoted, eth + 1, QUOTED);
	write_icmp_error(&e, p->daddr, p->saddr, ICMP_FRAG_NEEDED, mtu);
	/* The frame's length by its IP header: xdp->data_end may be the end of
	 * the first of several buffers only.
	 */
	if (bpf_xdp_adjust_tail(xdp, (int)sizeof(e) - (int)(ETH_HLEN + p->len)))
		return XDP_PASS;
	count(ANSWERED_TOO_BIG, 1, p->len);
	eth = (void *)(long)xdp->data;
	if ((void *)eth + sizeof(e) > (void *)(long)xdp->data_end)
		return xdp_drop(xdp, p, p->len, DROP_REWRITE);
	__builtin_memcpy(eth, &e, sizeof(e));
	return XDP_TX;
}

static __always_inline int express_tunnel(struct xdp_md *xdp, const struct node_config *cfg,
					  const struct packet *p, const struct target *t)
{
	__u32 len = p->len + OVERLAY_OVERHEAD;
	struct encapsulation *h;
	struct hop *hop;
	int asked;

	if (t->node == cfg->underlay || t->sealed)
		return XDP_PASS;
	if (len > cfg->mtu)
		return express_too_big(xdp, p, cfg->mtu - OVERLAY_OVERHEAD);
	hop = find_hop(xdp, cfg->underlay, t->node, &asked);
	if (!hop || hop->ifindex != xdp->ingress_ifindex ||
	    bpf_xdp_adjust_head(xdp, -OVERLAY_OVERHEAD))
		return XDP_PASS;
	h = (void *)(long)xdp->data;
	if ((void *)(h + 1) > (void *)(long)xdp->data_end)
		return xdp_drop(xdp, p, p->len, DROP_REWRITE);
	goes_to(p, t, 1, p->len);
	write_encapsulation(h, cfg->underlay, t->node, OVERLAY_CLIENT, t->port, t->addr, p->len,
			    flow_hash(p, 0), bpf_htons(ETH_P_IP));
	if (t->dsr)
		ask_dsr(h);
	return express_out(&h->eth, hop->dest, hop->source, len, FORWARDED_TUNNEL);
}

static __always_inline int express_return(struct xdp_md *xdp, const struct node_config *cfg,
					  const struct packet *outer)
{
	void *data = (void *)(long)xdp->data, *data_end = (void *)(long)xdp->data_end;
	struct bpf_fib_lookup fib;
	struct tunnelled h;
	struct ethhdr *eth;
	struct packet p;

	if (!is_member(outer->saddr))
		return xdp_drop(xdp, outer, outer->len, DROP_NOT_MEMBER);
	if (!read_encapsulation(data, data_end, &h) || h.kind != OVERLAY_RETURN || h.v6 ||
	    parse(data, data_end, OVERLAY_OVERHEAD, &p) != PARSED || endpoint(p.daddr) ||
	    !express_route(xdp, &fib, p.saddr, p.daddr, p.len) ||
	    fib.ifindex != xdp->ingress_ifindex || bpf_xdp_adjust_head(xdp, OVERLAY_OVERHEAD))
		return XDP_PASS;
	eth = (void *)(long)xdp->data;
	if ((void *)(eth + 1) > (void *)(long)xdp->data_end)
		return xdp_drop(xdp, &p, p.len, DROP_REWRITE);
	flow_answered(cfg, &p, h.name);
	return express_out(eth, fib.dmac, fib.smac, p.len, SENT_TO_CLIENT);
}

#endif
