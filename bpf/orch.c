//go:build ignore

// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
#include "express.h"
#include "task.h"
#include "uplink.h"

SEC("xdp")
int uplink_xdp(struct xdp_md *xdp)
{
	struct node_config *cfg = config();
	struct frontend *fe;
	struct packet p;

	if (!cfg || !cfg->underlay ||
	    parse((void *)(long)xdp->data, (void *)(long)xdp->data_end, 0, &p) != PARSED ||
	    p.fragment != WHOLE)
		return XDP_PASS;
	if (is_overlay(cfg, &p))
		return express_return(xdp, &p);
	if (in_pool(cfg, p.saddr) || in_pool(cfg, p.daddr))
		return XDP_PASS;
	fe = find_published(xdp, cfg, xdp->ingress_ifindex, &p, false);
	return fe ? express_tunnel(xdp, cfg, &p, fe) : XDP_PASS;
}

SEC("tc")
int uplink_tc(struct __sk_buff *skb)
{
	struct node_config *cfg = config();

	if (!cfg || !cfg->underlay)
		return PASS;
	return from_uplink(skb, cfg);
}

SEC("tc")
int from_task(struct __sk_buff *skb)
{
	struct node_config *cfg = config();

	if (!cfg || !cfg->underlay)
		return PASS;
	return from_task_ip(skb, cfg);
}

char _license[] SEC("license") = "Dual BSD/GPL";
