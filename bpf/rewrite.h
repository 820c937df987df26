/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Rewriting addresses and ports with their checksums (TC). The helpers are
 * used throughout, as they know what is left to do where a device is to fill
 * in the checksum (CHECKSUM_PARTIAL).
 */
#ifndef ORCH_REWRITE_H
#define ORCH_REWRITE_H

#include "follow.h"

#define IP_CHECK_AT (IP_AT(0) + (int)offsetof(struct iphdr, check))
#define IP_SADDR_AT (IP_AT(0) + (int)offsetof(struct iphdr, saddr))
#define IP_DADDR_AT (IP_AT(0) + (int)offsetof(struct iphdr, daddr))
#define IP6_SADDR_AT (IP_AT(0) + (int)offsetof(struct ipv6hdr, saddr))
#define IP6_DADDR_AT (IP_AT(0) + (int)offsetof(struct ipv6hdr, daddr))
#define ICMP_CHECK_AT(p) ((p)->l4_at + (int)offsetof(struct icmphdr, checksum))

/* Of linux/bpf.h: the pseudo header is that of IPv6 (Linux 6.16, and older
 * ones that have the correction).
 */
#define CSUM_IPV6 (1ULL << 7)

/* An address in the family of the packet that it is meant for. */
struct address {
	__be32 v4; /* of IPv6, what stands for it */
	struct addr6 v6;
};

/* A cluster's address in the family of a packet. */
static __always_inline struct address address_for(const struct node_config *cfg,
						  const struct packet *p, __be32 addr)
{
	struct address a = {.v4 = addr};

	if (p->v6)
		a.v6 = address6(cfg, addr);
	return a;
}

/* Where the transport checksum is, and what to tell the helper; 0 where the
 * packet has none.
 */
static __always_inline int l4_check_at(const struct packet *p, __u64 *flags)
{
	*flags = 0;
	if (p->fragment == LATER_FRAGMENT || p->error)
		return 0;
	if (p->proto == IPPROTO_TCP)
		return p->l4_at + (int)offsetof(struct tcphdr, check);
	if (p->proto == IPPROTO_UDP) {
		*flags = BPF_F_MARK_MANGLED_0;
		return p->l4_at + (int)offsetof(struct udphdr, check);
	}
	return 0;
}

/* ICMP's checksum covers the addresses in IPv6 only. */
static __always_inline int pseudo_check_at(const struct packet *p, __u64 *flags)
{
	if (p->v6 && p->fragment != LATER_FRAGMENT && (p->error || p->proto == IPPROTO_ICMP)) {
		*flags = 0;
		return ICMP_CHECK_AT(p);
	}
	return l4_check_at(p, flags);
}

static __always_inline __u64 difference6(const struct addr6 *from, const struct addr6 *to)
{
	return bpf_csum_diff((__be32 *)from, sizeof(*from), (__be32 *)to, sizeof(*to), 0);
}

static __always_inline void rewrite_addr6(struct __sk_buff *skb, const struct packet *p, int at,
					  const struct addr6 *from, const struct addr6 *to)
{
	__u64 flags, diff;
	int check = pseudo_check_at(p, &flags);

	if (same(from, to))
		return;
	diff = difference6(from, to);
	flags |= BPF_F_PSEUDO_HDR;
	if (check && bpf_l4_csum_replace(skb, check, 0, diff, flags | CSUM_IPV6))
		bpf_l4_csum_replace(skb, check, 0, diff, flags);
	bpf_skb_store_bytes(skb, at, to, sizeof(*to), 0);
}

static __always_inline void rewrite_addr(struct __sk_buff *skb, const struct packet *p, int at,
					 __be32 from, __be32 to)
{
	__u64 flags;
	int check = l4_check_at(p, &flags);

	if (from == to)
		return;
	if (check)
		bpf_l4_csum_replace(skb, check, from, to, flags | BPF_F_PSEUDO_HDR | 4);
	bpf_l3_csum_replace(skb, IP_CHECK_AT, from, to, 4);
	bpf_skb_store_bytes(skb, at, &to, sizeof(to), 0);
}

static __always_inline void rewrite_saddr(struct __sk_buff *skb, const struct packet *p,
					  const struct address *to)
{
	if (p->v6)
		rewrite_addr6(skb, p, IP6_SADDR_AT, &p->saddr6, &to->v6);
	else
		rewrite_addr(skb, p, IP_SADDR_AT, p->saddr, to->v4);
}

static __always_inline void rewrite_daddr(struct __sk_buff *skb, const struct packet *p,
					  const struct address *to)
{
	if (p->v6)
		rewrite_addr6(skb, p, IP6_DADDR_AT, &p->daddr6, &to->v6);
	else
		rewrite_addr(skb, p, IP_DADDR_AT, p->daddr, to->v4);
}

/* at: of the port, from the transport header on. */
static __always_inline void rewrite_port(struct __sk_buff *skb, const struct packet *p, int at,
					 __be16 from, __be16 to)
{
	__u64 flags;
	int check = l4_check_at(p, &flags);

	if (from == to || !check)
		return;
	bpf_l4_csum_replace(skb, check, from, to, flags | 2);
	bpf_skb_store_bytes(skb, p->l4_at + at, &to, sizeof(to), 0);
}

/* In the packet that an ICMP error quotes. In IPv4 a changed address and the
 * changed checksum of its header cancel out in the error's own checksum. The
 * checksum of the quoted transport header stays as it was, as nobody can verify
 * it. source: the quoted source changes, from the error's destination.
 */
static __always_inline void rewrite_quoted(struct __sk_buff *skb, const struct packet *p,
					   bool source, const struct address *to, __be16 to_port)
{
	__be16 from_port = source ? p->dport : p->sport;
	int port_at = QUOTED_AT(p) + (source ? 0 : 2);
	int at = QUOTED_AT(p), check = ICMP_CHECK_AT(p);

	if (p->v6) {
		at += source ? offsetof(struct ipv6hdr, saddr) : offsetof(struct ipv6hdr, daddr);
		port_at += sizeof(struct ipv6hdr);
		bpf_l4_csum_replace(skb, check, 0,
				    difference6(source ? &p->daddr6 : &p->saddr6, &to->v6), 0);
		bpf_skb_store_bytes(skb, at, &to->v6, sizeof(to->v6), 0);
	} else {
		bpf_l3_csum_replace(skb, at + offsetof(struct iphdr, check),
				    source ? p->daddr : p->saddr, to->v4, 4);
		at += source ? offsetof(struct iphdr, saddr) : offsetof(struct iphdr, daddr);
		port_at += sizeof(struct iphdr);
		bpf_skb_store_bytes(skb, at, &to->v4, sizeof(to->v4), 0);
	}
	bpf_l4_csum_replace(skb, check, from_port, to_port, 2);
	bpf_skb_store_bytes(skb, port_at, &to_port, sizeof(to_port), 0);
}

static __always_inline void rewrite_source(struct __sk_buff *skb, struct packet *p,
					   const struct address *to, __be16 port)
{
	if (p->error)
		rewrite_quoted(skb, p, false, to, port);
	else
		rewrite_port(skb, p, 0, p->sport, port);
	if (!p->relayed) {
		rewrite_saddr(skb, p, to);
		p->origin = to->v4;
	}
	p->saddr = to->v4;
	p->saddr6 = to->v6;
	p->sport = port;
}

static __always_inline void rewrite_dest(struct __sk_buff *skb, struct packet *p,
					 const struct address *to, __be16 port)
{
	rewrite_daddr(skb, p, to);
	if (p->error)
		rewrite_quoted(skb, p, true, to, port);
	else
		rewrite_port(skb, p, 2, p->dport, port);
	p->daddr = to->v4;
	p->daddr6 = to->v6;
	p->dport = port;
}

#endif
