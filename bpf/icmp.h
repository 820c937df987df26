/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* ICMP that the programs write themselves: errors about a packet, sent in the
 * name of the address that the client used (RFC 792, RFC 1191), and the answer
 * to a ping of a virtual IP.
 */
#ifndef ORCH_ICMP_H
#define ORCH_ICMP_H

#include "overlay.h"

#define ICMP_HOST_UNREACHABLE 1
#define ICMP_PORT_UNREACHABLE 3
#define ICMP_FRAG_NEEDED 4
#define ICMP_PROHIBITED 13

#define QUOTED 28 /* IP header and the 8 bytes after it */

struct icmp_error {
	struct ethhdr eth;
	struct iphdr ip;
	struct icmphdr icmp;
	__u8 quoted[QUOTED];
} __attribute__((packed));

_Static_assert(sizeof(struct icmp_error) == 70, "icmp_error");

/* Is the packet one that may be answered with an error? (RFC 1122, 3.2.2) */
static __always_inline bool may_complain(const struct packet *p)
{
	return p->fragment != LATER_FRAGMENT && has_ports(p) && !p->error;
}

/* Builds the error (destination unreachable) about the frame at eth, whose IP header follows it. */
static __always_inline void write_icmp_error(struct icmp_error *e, const struct ethhdr *eth,
					     __be32 from, __be32 to, __u8 code, __u16 mtu)
{
	__builtin_memcpy(e->eth.h_dest, eth->h_source, ETH_ALEN);
	__builtin_memcpy(e->eth.h_source, eth->h_dest, ETH_ALEN);
	e->eth.h_proto = bpf_htons(ETH_P_IP);
	__builtin_memcpy(e->quoted, eth + 1, QUOTED);
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

/* Turns the packet into the error about it. False if it cannot be. */
static __always_inline bool tc_icmp_error(struct __sk_buff *skb, const struct packet *p, __u8 code,
					  __u16 mtu)
{
	struct {
		struct ethhdr eth;
		__u8 quoted[QUOTED];
	} __attribute__((packed)) head;
	struct icmp_error e;

	if (bpf_skb_load_bytes(skb, 0, &head, sizeof(head)))
		return false;
	write_icmp_error(&e, &head.eth, p->daddr, p->saddr, code, mtu);
	if (bpf_skb_change_tail(skb, sizeof(e), 0))
		return false;
	return bpf_skb_store_bytes(skb, 0, &e, sizeof(e), 0) == 0;
}

#endif
