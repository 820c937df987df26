/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What belongs to a flow without having its ports where they are expected:
 * ICMP errors about it, and the later fragments of its datagrams.
 */
#ifndef ORCH_FOLLOW_H
#define ORCH_FOLLOW_H

#include "packet.h"

/* Ours, as linux/icmp.h drags in the C library. */
struct icmphdr {
	__u8 type;
	__u8 code;
	__u16 checksum;
	__be16 unused; /* the identifier of an echo */
	__be16 mtu;    /* the sequence number of an echo */
};

#define ICMP_ECHOREPLY 0
#define ICMP_DEST_UNREACH 3
#define ICMP_ECHO 8
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETER_PROBLEM 12

#define ICMP6_DEST_UNREACH 1
#define ICMP6_TOO_BIG 2
#define ICMP6_TIME_EXCEEDED 3
#define ICMP6_PARAMETER_PROBLEM 4
#define ICMP6_ECHO 128
#define ICMP6_ECHOREPLY 129

static __always_inline bool is_icmp_error(const struct packet *p, __u8 type)
{
	if (p->v6)
		return type >= ICMP6_DEST_UNREACH && type <= ICMP6_PARAMETER_PROBLEM;
	return type == ICMP_DEST_UNREACH || type == ICMP_TIME_EXCEEDED ||
	       type == ICMP_PARAMETER_PROBLEM;
}

#define QUOTED_AT(p) ((p)->l4_at + (int)sizeof(struct icmphdr))

static __always_inline bool quotes4(struct __sk_buff *skb, struct packet *p, __be16 ports[2])
{
	struct iphdr ip;

	if (bpf_skb_load_bytes(skb, QUOTED_AT(p), &ip, sizeof(ip)) ||
	    bpf_skb_load_bytes(skb, QUOTED_AT(p) + sizeof(ip), ports, 4) || ip.version != 4 ||
	    ip.ihl != 5 || (ip.frag_off & bpf_htons(IP_OFFSET)) || ip.saddr != p->daddr ||
	    (ip.protocol != IPPROTO_TCP && ip.protocol != IPPROTO_UDP))
		return false;
	p->proto = ip.protocol;
	p->relayed = ip.daddr != p->saddr;
	p->saddr = ip.daddr;
	return true;
}

static __always_inline bool quotes6(struct __sk_buff *skb, const struct node_config *cfg,
				    struct packet *p, __be16 ports[2])
{
	struct ipv6hdr ip;

	if (bpf_skb_load_bytes(skb, QUOTED_AT(p), &ip, sizeof(ip)) ||
	    bpf_skb_load_bytes(skb, QUOTED_AT(p) + sizeof(ip), ports, 4) || ip.version != 6 ||
	    !same((struct addr6 *)&ip.saddr, &p->daddr6) ||
	    (ip.nexthdr != IPPROTO_TCP && ip.nexthdr != IPPROTO_UDP))
		return false;
	p->proto = ip.nexthdr;
	p->relayed = !same((struct addr6 *)&ip.daddr, &p->saddr6);
	__builtin_memcpy(&p->saddr6, &ip.daddr, sizeof(p->saddr6));
	p->saddr = short_of(cfg, &p->saddr6);
	return true;
}

static __noinline int read_icmp(struct __sk_buff *skb, const struct node_config *cfg,
			       struct packet *p)
{
	struct icmphdr icmp;
	__be16 ports[2];

	if (bpf_skb_load_bytes(skb, p->l4_at, &icmp, sizeof(icmp)) || !is_icmp_error(p, icmp.type))
		return 0;
	if (p->v6 ? !quotes6(skb, cfg, p, ports) : !quotes4(skb, p, ports))
		return 0;
	p->error = true;
	p->sport = ports[1];
	p->dport = ports[0];
	return 0;
}

/* Of an ICMP error, takes the ports, and the protocol that they belong to, of
 * the packet that it quotes, turned round: p is then like a packet of that flow
 * in the direction in which the error goes, and finds the same entries.
 */
static __always_inline void read_quoted(struct __sk_buff *skb, const struct node_config *cfg,
					struct packet *p)
{
	if (p->proto == IPPROTO_ICMP && p->fragment == WHOLE)
		read_icmp(skb, cfg, p);
}

static __always_inline void fragment_put(const struct packet *p, const struct fragment6_key *key,
					 const struct fragment *ports)
{
	if (p->v6)
		bpf_map_update_elem(&fragments6, key, ports, BPF_ANY);
	else
		bpf_map_update_elem(&fragments, &key->k, ports, BPF_ANY);
}

static __always_inline struct fragment *fragment_at(const struct packet *p,
						    const struct fragment6_key *key)
{
	return p->v6 ? bpf_map_lookup_elem(&fragments6, key)
		     : bpf_map_lookup_elem(&fragments, &key->k);
}

/* A fragment that overtakes its first one is taken for a piece of the same flow
 * as the last datagram in pieces between the two addresses, which is kept as
 * that of number 0.
 */
static __noinline bool find_fragment(struct packet *p)
{
	struct fragment6_key key = {
		.k = {.saddr = p->saddr, .daddr = p->daddr, .id = p->id, .proto = p->proto},
	};
	struct fragment ports = {.sport = p->sport, .dport = p->dport};
	struct fragment *seen;

	if (p->v6) {
		key.saddr = p->saddr6;
		key.daddr = p->daddr6;
	}
	if (p->fragment == FIRST_FRAGMENT) {
		fragment_put(p, &key, &ports);
		key.k.id = 0;
		fragment_put(p, &key, &ports);
		return true;
	}
	seen = fragment_at(p, &key);
	if (!seen) {
		key.k.id = 0;
		seen = fragment_at(p, &key);
	}
	if (!seen)
		return false;
	p->sport = seen->sport;
	p->dport = seen->dport;
	return true;
}

/* Gives a later fragment the ports of its first one. False if that one was
 * not seen, nor one of an earlier datagram.
 */
static __always_inline bool find_ports(struct packet *p)
{
	return p->fragment == WHOLE || find_fragment(p);
}

#endif
