/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What comes from a task, at TC on the host side of its veth. */
#ifndef ORCH_TASK_H
#define ORCH_TASK_H

#include "deliver.h"

static __always_inline int refuse(struct __sk_buff *skb, const struct packet *p, __u8 code,
				  enum verdict reason)
{
	return complain(skb, p, code, 0, reason);
}

/* Gives the reply of a translated flow its way back. */
static __noinline int translate_back(struct __sk_buff *skb, struct packet *p,
				     const struct way_back *way)
{
	rewrite_source(skb, p, &way->dest, way->dest_port);
	rewrite_dest(skb, p, &way->client, way->client_port);
	return 0;
}

/* The reply of a translated flow, to its client. */
static __always_inline int reply(struct __sk_buff *skb, const struct node_config *cfg,
				 struct packet *p, const struct endpoint *task,
				 const struct way_back *way)
{
	struct target back = {.addr = p->saddr, .node = way->via};
	int sent = PASS;

	translate_back(skb, p, way);
	back.sealed = is_sealed(cfg, task, p->daddr);
	if (back.node == cfg->underlay)
		return to_client(skb, cfg, p, back.addr);
	if (way->dsr)
		sent = send_dsr(skb, p);
	if (sent != PASS)
		return sent;
	return tunnel(skb, cfg, p, OVERLAY_RETURN, &back);
}

/* A ping of a virtual IP is answered here: it says that the name resolves and
 * that the task is on the network, as no backend can be asked for more.
 */
static __noinline int answer_echo(struct __sk_buff *skb, struct packet *p)
{
	struct address client = {p->saddr, p->saddr6}, dest = {p->daddr, p->daddr6};
	__u8 echo = p->v6 ? ICMP6_ECHO : ICMP_ECHO;
	struct icmphdr icmp;
	__be16 from, to;

	if (p->proto != IPPROTO_ICMP || p->fragment != WHOLE ||
	    bpf_skb_load_bytes(skb, p->l4_at, &icmp, sizeof(icmp)) || icmp.type != echo)
		return drop(skb, DROP_UNSUPPORTED);
	from = bpf_htons(echo << 8 | icmp.code);
	to = bpf_htons((p->v6 ? ICMP6_ECHOREPLY : ICMP_ECHOREPLY) << 8 | icmp.code);
	rewrite_saddr(skb, p, &dest);
	rewrite_daddr(skb, p, &client);
	bpf_l4_csum_replace(skb, ICMP_CHECK_AT(p), from, to, 2);
	bpf_skb_store_bytes(skb, p->l4_at, &to, sizeof(to), 0);
	tc_count(skb, ANSWERED_ECHO);
	return bpf_redirect_peer(skb->ifindex, 0);
}

static __always_inline int to_virtual(struct __sk_buff *skb, const struct node_config *cfg,
				      struct packet *p, const struct endpoint *task,
				      const struct frontend *fe)
{
	if (!share_network(task->netset, fe->netset))
		return refuse(skb, p, ICMP_PROHIBITED, DROP_ISOLATED);
	if (!has_ports(p))
		return answer_echo(skb, p);
	return balance(skb, cfg, p, fe, true);
}

/* To an address of the pool: a virtual IP or another task. */
static __always_inline int to_pool(struct __sk_buff *skb, const struct node_config *cfg,
				   struct packet *p, const struct endpoint *task)
{
	struct target t = {.addr = p->daddr};
	struct frontend *fe = find_virtual(p->daddr);

	if (fe)
		return to_virtual(skb, cfg, p, task, fe);
	t.endpoint = endpoint(p->daddr);
	if (!t.endpoint)
		return refuse(skb, p, ICMP_HOST_UNREACHABLE, DROP_UNKNOWN_DESTINATION);
	if (!share_network(task->netset, t.endpoint->netset))
		return refuse(skb, p, ICMP_PROHIBITED, DROP_ISOLATED);
	t.node = t.endpoint->node;
	if (t.node == cfg->underlay)
		return deliver(skb, t.addr, t.endpoint);
	t.sealed = is_sealed(cfg, task, t.addr);
	return tunnel(skb, cfg, p, OVERLAY_DIRECT, &t);
}

/* To anywhere else: a published port of some node, or the kernel's business. */
static __always_inline int to_outside(struct __sk_buff *skb, const struct node_config *cfg,
				      struct packet *p, const struct endpoint *task)
{
	bool own = p->daddr == cfg->underlay || (is_link_local(p->daddr) &&
						 is_local(skb, cfg, uplink_ifindex, p->daddr));
	struct frontend *fe = find_published(skb, cfg, uplink_ifindex, p, true);

	/* Masqueraded, it would come from a node. */
	if (p->proto == IPPROTO_UDP && p->dport == OVERLAY_PORT && is_member(p->daddr))
		return refuse(skb, p, ICMP_PROHIBITED, DROP_FORGED);
	/* Many nodes have no way to the outside by IPv6: say so. */
	if (p->v6 && !own && !fe && route6(skb, &p->daddr6) == BPF_FIB_LKUP_RET_UNREACHABLE)
		return refuse(skb, p, ICMP_HOST_UNREACHABLE, DROP_NO_ROUTE);
	/* The node answers on link-local addresses (DNS), and is answered. */
	if (!own && !fe && !(task->flags & ENDPOINT_OUTSIDE))
		return refuse(skb, p, ICMP_PROHIBITED, DROP_INTERNAL);
	if (!fe)
		return pass(skb, PASSED_OUTSIDE);
	return balance(skb, cfg, p, fe, false);
}

/* While sessions are carried over from maps of another layout, a reply may not be
 * known for one: it would leave untranslated, and end its connection. It is sent
 * again. Should user space die meanwhile, this is over after two ticks at most.
 */
static __always_inline bool may_be_reply(const struct node_config *cfg, const struct packet *p)
{
	return p->proto == IPPROTO_TCP && !is_syn(p) && !p->error &&
	       now_ticks() - cfg->moved_at <= 1;
}

static __always_inline int from_task_ip(struct __sk_buff *skb, const struct node_config *cfg)
{
	struct packet *p = room_for_packet();
	struct endpoint *task;
	struct way_back way;
	int parsed;

	if (!p)
		return TC_ACT_SHOT;
	if (skb->protocol == bpf_htons(ETH_P_ARP))
		return PASS;
	parsed = tc_parse(skb, cfg, p);
	if (skb->protocol == bpf_htons(ETH_P_IPV6) &&
	    (!has_ipv6(cfg) || (p->v6 && is_of_link(p)))) {
		tc_count(skb, ABSORBED_LINK_LOCAL);
		return TC_ACT_SHOT;
	}
	if (parsed == NOT_IP)
		return drop(skb, DROP_UNSUPPORTED);
	if (is_loopback(p->saddr) || is_loopback(p->daddr))
		return drop(skb, DROP_SPOOFED);
	task = endpoint(p->origin);
	if (!task || task->ifindex != skb->ifindex)
		return drop(skb, DROP_SPOOFED);
	if (parsed == WITH_OPTIONS)
		return drop(skb, DROP_UNSUPPORTED);
	read_quoted(skb, cfg, p);
	if (p->saddr != p->origin)
		return drop(skb, DROP_SPOOFED);
	if (!find_ports(p))
		return drop(skb, DROP_FRAGMENT);
	if (session_reply(p, &way))
		return reply(skb, cfg, p, task, &way);
	if (cfg->moved_at && may_be_reply(cfg, p))
		return drop(skb, DROP_MOVING);
	if (in_pool(cfg, p->daddr))
		return to_pool(skb, cfg, p, task);
	return to_outside(skb, cfg, p, task);
}

#endif
