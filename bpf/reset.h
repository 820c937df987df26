/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* A TCP reset in the name of a backend that is gone (RFC 9293, 3.5.2), so that
 * the client need not find out by waiting. What it acknowledged is what it
 * expects next, and only a reset with that number counts (RFC 5961, 3.2). Who
 * sends nothing is told by user space (pkg/dataplane/reset.go), which has that
 * number from the flow.
 */
#ifndef ORCH_RESET_H
#define ORCH_RESET_H

#include "overlay.h"

/* The sum of what a TCP checksum covers besides the segment. The order of the
 * two addresses does not matter to it.
 */
static __always_inline __u32 pseudo_header(const struct packet *p, __u16 len)
{
	__be32 addrs[2] = {p->saddr, p->daddr};
	__be32 rest[2] = {bpf_htonl(len), bpf_htonl(IPPROTO_TCP)};
	struct addr6 addrs6[2] = {p->saddr6, p->daddr6};
	__u32 sum = p->v6 ? bpf_csum_diff(NULL, 0, (void *)addrs6, sizeof(addrs6), 0)
			  : bpf_csum_diff(NULL, 0, addrs, sizeof(addrs), 0);

	return bpf_csum_diff(NULL, 0, rest, sizeof(rest), sum);
}

static __noinline int reset_tcp(struct __sk_buff *skb, const struct packet *p)
{
	__u16 len = p->len - (p->l4_at - ETH_HLEN);
	__u32 sum = pseudo_header(p, sizeof(struct tcphdr));
	struct tcphdr was, tcp = {};

	if (bpf_skb_load_bytes(skb, p->l4_at, &was, sizeof(was)))
		return 0;
	tcp.source = was.dest;
	tcp.dest = was.source;
	tcp.seq = was.ack_seq;
	tcp.doff = sizeof(tcp) / 4;
	tcp.rst = 1;
	/* Where a device is to fill in the checksum there is only its beginning. */
	if (was.check == (__u16)~fold_checksum(pseudo_header(p, len)))
		tcp.check = ~fold_checksum(sum);
	else
		tcp.check = fold_checksum(
			bpf_csum_diff(NULL, 0, (void *)&tcp, sizeof(tcp), sum));
	return bpf_skb_change_tail(skb, p->l4_at + sizeof(tcp), 0) == 0 &&
	       bpf_skb_store_bytes(skb, p->l4_at, &tcp, sizeof(tcp), 0) == 0;
}

static __noinline int reset_ip(struct __sk_buff *skb, const struct packet *p)
{
	struct iphdr ip = {.version = 4,
			   .ihl = 5,
			   .tot_len = bpf_htons(sizeof(ip) + sizeof(struct tcphdr)),
			   .frag_off = bpf_htons(IP_DF),
			   .ttl = 64,
			   .protocol = IPPROTO_TCP,
			   .saddr = p->daddr,
			   .daddr = p->saddr};

	ip_checksum(&ip);
	return bpf_skb_store_bytes(skb, ETH_HLEN, &ip, sizeof(ip), 0) == 0;
}

static __noinline int reset_ip6(struct __sk_buff *skb, const struct packet *p)
{
	struct ipv6hdr ip = {.version = 6,
			     .payload_len = bpf_htons(sizeof(struct tcphdr)),
			     .nexthdr = IPPROTO_TCP,
			     .hop_limit = 64};

	__builtin_memcpy(&ip.saddr, &p->daddr6, sizeof(ip.saddr));
	__builtin_memcpy(&ip.daddr, &p->saddr6, sizeof(ip.daddr));
	return p->l4_at == L4_AT6 && bpf_skb_store_bytes(skb, ETH_HLEN, &ip, sizeof(ip), 0) == 0;
}

/* Turns a client's packet into the reset that answers it. */
static __always_inline bool tc_reset(struct __sk_buff *skb, const struct packet *p)
{
	__u8 was[2 * ETH_ALEN], macs[2 * ETH_ALEN];

	if (bpf_skb_load_bytes(skb, 0, was, sizeof(was)))
		return false;
	__builtin_memcpy(macs, was + ETH_ALEN, ETH_ALEN);
	__builtin_memcpy(macs + ETH_ALEN, was, ETH_ALEN);
	return reset_tcp(skb, p) && (p->v6 ? reset_ip6(skb, p) : reset_ip(skb, p)) &&
	       bpf_skb_store_bytes(skb, 0, macs, sizeof(macs), 0) == 0;
}

#endif
