/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Rewriting addresses and ports with their checksums (TC). The helpers are
 * used throughout, as they know what is left to do where a device is to fill
 * in the checksum (CHECKSUM_PARTIAL).
 */
#ifndef ORCH_REWRITE_H
#define ORCH_REWRITE_H

#include "packet.h"

#define IP_CHECK_AT (IP_AT(0) + (int)offsetof(struct iphdr, check))
#define IP_SADDR_AT (IP_AT(0) + (int)offsetof(struct iphdr, saddr))
#define IP_DADDR_AT (IP_AT(0) + (int)offsetof(struct iphdr, daddr))
#define SPORT_AT L4_AT(0)
#define DPORT_AT (L4_AT(0) + 2)

/* Where the transport checksum is, and what to tell the helper; 0 where the
 * packet has none.
 */
static __always_inline int l4_check_at(const struct packet *p, __u64 *flags)
{
	*flags = 0;
	if (p->fragment == LATER_FRAGMENT || p->error)
		return 0;
	if (p->proto == IPPROTO_TCP)
		return L4_AT(0) + (int)offsetof(struct tcphdr, check);
	if (p->proto == IPPROTO_UDP) {
		*flags = BPF_F_MARK_MANGLED_0;
		return L4_AT(0) + (int)offsetof(struct udphdr, check);
	}
	return 0;
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

static __always_inline void rewrite_port(struct __sk_buff *skb, const struct packet *p, int at,
					 __be16 from, __be16 to)
{
	__u64 flags;
	int check = l4_check_at(p, &flags);

	if (from == to || !check)
		return;
	bpf_l4_csum_replace(skb, check, from, to, flags | 2);
	bpf_skb_store_bytes(skb, at, &to, sizeof(to), 0);
}

/* In the packet that an ICMP error quotes. A changed address and the changed
 * checksum of its header cancel out in the error's own checksum; the checksum
 * of the quoted transport header stays as it was, as nobody can verify it.
 */
#define QUOTED_AT (L4_AT(0) + (int)sizeof(struct icmphdr))
#define QUOTED_L4_AT (QUOTED_AT + (int)sizeof(struct iphdr))

static __always_inline void rewrite_quoted(struct __sk_buff *skb, int addr_at, int port_at,
					   __be32 from, __be32 to, __be16 from_port, __be16 to_port)
{
	bpf_l3_csum_replace(skb, QUOTED_AT + offsetof(struct iphdr, check), from, to, 4);
	bpf_skb_store_bytes(skb, addr_at, &to, sizeof(to), 0);
	bpf_l4_csum_replace(skb, L4_AT(0) + offsetof(struct icmphdr, checksum), from_port, to_port,
			    2);
	bpf_skb_store_bytes(skb, port_at, &to_port, sizeof(to_port), 0);
}

static __always_inline void rewrite_source(struct __sk_buff *skb, struct packet *p, __be32 addr,
					   __be16 port)
{
	if (p->error) {
		rewrite_quoted(skb, QUOTED_AT + offsetof(struct iphdr, daddr), QUOTED_L4_AT + 2,
			       p->saddr, addr, p->sport, port);
		if (p->origin == p->saddr) {
			rewrite_addr(skb, p, IP_SADDR_AT, p->saddr, addr);
			p->origin = addr;
		}
	} else {
		rewrite_addr(skb, p, IP_SADDR_AT, p->saddr, addr);
		rewrite_port(skb, p, SPORT_AT, p->sport, port);
	}
	p->saddr = addr;
	p->sport = port;
}

static __always_inline void rewrite_dest(struct __sk_buff *skb, struct packet *p, __be32 addr,
					 __be16 port)
{
	rewrite_addr(skb, p, IP_DADDR_AT, p->daddr, addr);
	if (p->error)
		rewrite_quoted(skb, QUOTED_AT + offsetof(struct iphdr, saddr), QUOTED_L4_AT,
			       p->daddr, addr, p->dport, port);
	else
		rewrite_port(skb, p, DPORT_AT, p->dport, port);
	p->daddr = addr;
	p->dport = port;
}

#endif
