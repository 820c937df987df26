/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* ICMP that the programs write themselves: errors about a packet, sent in the
 * name of the address that the client used (RFC 792, RFC 1191, RFC 4443), and the answer
 * to a ping of a virtual IP.
 */
#ifndef ORCH_ICMP_H
#define ORCH_ICMP_H

#include "overlay.h"

#define ICMP_HOST_UNREACHABLE 1
#define ICMP_PORT_UNREACHABLE 3
#define ICMP_FRAG_NEEDED 4
#define ICMP_PROHIBITED 13

#define ICMP6_PROHIBITED 1
#define ICMP6_ADDRESS_UNREACHABLE 3
#define ICMP6_PORT_UNREACHABLE 4

#define QUOTED (int)(sizeof(struct iphdr) + 8)
#define QUOTED6 (int)(sizeof(struct ipv6hdr) + 8)

struct icmp_error {
	struct ethhdr eth;
	struct iphdr ip;
	struct icmphdr icmp;
	__u8 quoted[QUOTED];
} __attribute__((packed));

struct icmp6_error {
	struct ethhdr eth;
	struct ipv6hdr ip;
	struct icmphdr icmp;
	__u8 quoted[QUOTED6];
} __attribute__((packed));

_Static_assert(sizeof(struct icmp_error) == 70, "icmp_error");
_Static_assert(sizeof(struct icmp6_error) == 110, "icmp6_error");

/* Is the packet one that may be answered with an error? (RFC 1122, 3.2.2) */
static __always_inline bool may_complain(const struct packet *p)
{
	return p->fragment != LATER_FRAGMENT && has_ports(p) && !p->error;
}

/* Makes of the link layer header and the beginning of a packet, which are in
 * their places, the error (destination unreachable) about it.
 */
static __always_inline void write_icmp_error(struct icmp_error *e, __be32 from, __be32 to,
					     __u8 code, __u16 mtu)
{
	__u8 mac[ETH_ALEN];

	__builtin_memcpy(mac, e->eth.h_dest, ETH_ALEN);
	__builtin_memcpy(e->eth.h_dest, e->eth.h_source, ETH_ALEN);
	__builtin_memcpy(e->eth.h_source, mac, ETH_ALEN);
	e->eth.h_proto = bpf_htons(ETH_P_IP);
	e->ip.version = 4;
	e->ip.ihl = 5;
	e->ip.tos = 0;
	e->ip.tot_len = bpf_htons(sizeof(*e) - sizeof(e->eth));
	e->ip.id = 0;
	e->ip.frag_off = 0;
	e->ip.ttl = 64;
	e->ip.protocol = IPPROTO_ICMP;
	e->ip.saddr = from;
	e->ip.daddr = to;
	ip_checksum(&e->ip);
	e->icmp.type = ICMP_DEST_UNREACH;
	e->icmp.code = code;
	e->icmp.unused = 0;
	e->icmp.mtu = bpf_htons(mtu);
	e->icmp.checksum = 0;
	e->icmp.checksum = fold_checksum(
		bpf_csum_diff(NULL, 0, (void *)&e->icmp, sizeof(e->icmp) + QUOTED, 0));
}

/* The numbers in ICMPv6 of an error that goes by those of ICMP. */
static __always_inline void number6(struct icmp6_error *e, __u8 code, __u16 mtu)
{
	e->icmp.type = code == ICMP_FRAG_NEEDED ? ICMP6_TOO_BIG : ICMP6_DEST_UNREACH;
	e->icmp.code = code == ICMP_FRAG_NEEDED	       ? 0
		       : code == ICMP_PORT_UNREACHABLE ? ICMP6_PORT_UNREACHABLE
		       : code == ICMP_PROHIBITED       ? ICMP6_PROHIBITED
						       : ICMP6_ADDRESS_UNREACHABLE;
	e->icmp.unused = 0;
	e->icmp.mtu = bpf_htons(mtu);
	e->icmp.checksum = 0;
}

/* Written in place: there is little room on the stack at the end of a walk. */
static __noinline bool tc_icmp6_error(struct __sk_buff *skb, const struct packet *p, __u8 code,
				      __u16 mtu)
{
	const __u16 len = sizeof(struct icmphdr) + QUOTED6;
	__u8 quoted[QUOTED6], mac[ETH_ALEN];
	struct icmp6_error *e;
	__u32 sum;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, quoted, sizeof(quoted)) ||
	    bpf_skb_change_tail(skb, sizeof(*e), 0) || bpf_skb_pull_data(skb, sizeof(*e)))
		return false;
	e = (void *)(long)skb->data;
	if ((void *)(e + 1) > (void *)(long)skb->data_end)
		return false;
	__builtin_memcpy(e->quoted, quoted, sizeof(quoted));
	__builtin_memcpy(mac, e->eth.h_dest, ETH_ALEN);
	__builtin_memcpy(e->eth.h_dest, e->eth.h_source, ETH_ALEN);
	__builtin_memcpy(e->eth.h_source, mac, ETH_ALEN);
	__builtin_memset(&e->ip, 0, sizeof(e->ip));
	e->ip.version = 6;
	e->ip.payload_len = bpf_htons(len);
	e->ip.nexthdr = IPPROTO_ICMPV6;
	e->ip.hop_limit = 64;
	__builtin_memcpy(&e->ip.saddr, &p->daddr6, sizeof(p->daddr6));
	__builtin_memcpy(&e->ip.daddr, &p->saddr6, sizeof(p->saddr6));
	number6(e, code, mtu);
	/* The pseudo header's length and protocol, then its addresses and all that follows. */
	sum = bpf_htons(len) + bpf_htons(IPPROTO_ICMPV6);
	sum = bpf_csum_diff(NULL, 0, (void *)&e->ip.saddr, 2 * sizeof(e->ip.saddr), sum);
	sum = bpf_csum_diff(NULL, 0, (void *)&e->icmp, len, sum);
	e->icmp.checksum = fold_checksum(sum);
	return true;
}

/* Turns the packet into the error about it. False if it cannot be. */
static __noinline bool tc_icmp_error(struct __sk_buff *skb, const struct packet *p, __u8 code,
				     __u16 mtu)
{
	struct icmp_error e;

	if (bpf_skb_load_bytes(skb, 0, &e.eth, sizeof(e.eth)) ||
	    bpf_skb_load_bytes(skb, ETH_HLEN, e.quoted, QUOTED))
		return false;
	write_icmp_error(&e, p->daddr, p->saddr, code, mtu);
	if (bpf_skb_change_tail(skb, sizeof(e), 0))
		return false;
	return bpf_skb_store_bytes(skb, 0, &e, sizeof(e), 0) == 0;
}

#endif
