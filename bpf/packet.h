/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Parsing: what the programs need to know of a packet.
 *
 * They go by IPv4 addresses. In an IPv6 packet an address of the cluster stands
 * there as the IPv4 address in it, and any other as one of 240.0.0.0/4, which
 * nobody has: enough for hashing and to see that it is not the cluster's, but
 * not to tell one from all others. What needs that takes the whole address.
 */
#ifndef ORCH_PACKET_H
#define ORCH_PACKET_H

#include "count.h"

struct packet {
	__be32 saddr;
	__be32 daddr;
	__be16 sport; /* 0 for protocols without ports */
	__be16 dport;
	__u16 len; /* total, from the IP header on */
	bool v6;
	__u8 proto; /* ICMP for both */
	__u8 tcp;	 /* flags of a TCP header */
	__u8 l4_at;	 /* where it begins, from the frame on */
	__u8 l4_len;	 /* length of the transport header, where it is known */
	__u8 fragment;	 /* one of the below */
	bool error;	 /* an ICMP error, see read_quoted */
	bool relayed;	 /* one that comes from between the two ends */
	__be32 id;
	__be32 ack;    /* of a TCP header */
	__be32 origin; /* source of the packet itself: differs in an ICMP error */
	struct addr6 saddr6; /* of an IPv6 packet in full */
	struct addr6 daddr6;
};

#define WHOLE 0
#define FIRST_FRAGMENT 1
#define LATER_FRAGMENT 2

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

/* Ours, as linux/ipv6.h lacks it (RFC 8200, section 4.5). */
struct fraghdr {
	__u8 nexthdr;
	__u8 reserved;
	__be16 offset; /* in units of 8 bytes, 3 bits of flags below it */
	__be32 id;
};

#define IP6_MF 0x0001
#define IP6_OFFSET 0xfff8

enum parsed {
	PARSED,
	NOT_IP,	      /* or a packet cut short: not ours to judge */
	WITH_OPTIONS, /* or extension headers: addresses are filled in, ports are not */
};

#define IP_AT(off) ((off) + ETH_HLEN)
#define L4_AT(off) ((off) + ETH_HLEN + (int)sizeof(struct iphdr))
#define L4_AT6 (ETH_HLEN + (int)sizeof(struct ipv6hdr))

/* Bytes a parse at offset off may look at. */
#define PARSE_BYTES(off) (L4_AT(off) + (int)sizeof(struct tcphdr))
#define PARSE_BYTES6 (L4_AT6 + (int)(sizeof(struct fraghdr) + sizeof(struct tcphdr)))

static __always_inline bool has_ports(const struct packet *p)
{
	return p->proto == IPPROTO_TCP || p->proto == IPPROTO_UDP;
}

static __always_inline bool is_loopback(__be32 addr)
{
	return (addr & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000);
}

static __always_inline bool is_link_local(__be32 addr)
{
	return (addr & bpf_htonl(0xffff0000)) == bpf_htonl(0xa9fe0000);
}

static __always_inline bool same(const struct addr6 *a, const struct addr6 *b)
{
	return a->w[0] == b->w[0] && a->w[1] == b->w[1] && a->w[2] == b->w[2] && a->w[3] == b->w[3];
}

/* Neither multicast, nor link-local, nor unspecified. */
static __always_inline bool is_routable6(const struct addr6 *a)
{
	return (a->w[0] & bpf_htonl(0xff000000)) != bpf_htonl(0xff000000) &&
	       (a->w[0] & bpf_htonl(0xffc00000)) != bpf_htonl(0xfe800000) &&
	       (a->w[0] || a->w[1] || a->w[2] || a->w[3]);
}

/* Neighbour discovery and the like. */
static __always_inline bool is_of_link(const struct packet *p)
{
	return !is_routable6(&p->saddr6) || !is_routable6(&p->daddr6);
}

/* A connection's first packet. */
static __always_inline bool is_syn(const struct packet *p)
{
	return p->proto == IPPROTO_TCP && (p->tcp & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

static __always_inline int parse_l4(void *l4, void *data_end, struct packet *p)
{
	struct tcphdr *tcp = l4;
	struct udphdr *udp = l4;

	if (p->proto == IPPROTO_TCP) {
		if ((void *)(tcp + 1) > data_end)
			return NOT_IP;
		p->sport = tcp->source;
		p->dport = tcp->dest;
		p->tcp = ((__u8 *)tcp)[13];
		p->ack = tcp->ack_seq;
		p->l4_len = tcp->doff * 4;
	} else if (p->proto == IPPROTO_UDP) {
		if ((void *)(udp + 1) > data_end)
			return NOT_IP;
		p->sport = udp->source;
		p->dport = udp->dest;
		p->l4_len = sizeof(*udp);
	}
	return PARSED;
}

/* Parses the IPv4 frame that starts at offset off. */
static __always_inline int parse(void *data, void *data_end, int off, struct packet *p)
{
	struct ethhdr *eth = data + off;
	struct iphdr *ip = (void *)(eth + 1);
	__u16 frag;

	__builtin_memset(p, 0, sizeof(*p));
	if ((void *)(ip + 1) > data_end)
		return NOT_IP;
	if (eth->h_proto != bpf_htons(ETH_P_IP) || ip->version != 4)
		return NOT_IP;
	p->saddr = p->origin = ip->saddr;
	p->daddr = ip->daddr;
	p->proto = ip->protocol;
	p->len = bpf_ntohs(ip->tot_len);
	p->id = ip->id;
	p->l4_at = L4_AT(0);
	if (ip->ihl != 5)
		return WITH_OPTIONS;
	frag = bpf_ntohs(ip->frag_off);
	if (frag & IP_OFFSET) {
		p->fragment = LATER_FRAGMENT;
		return PARSED;
	}
	if (frag & IP_MF)
		p->fragment = FIRST_FRAGMENT;
	return parse_l4(ip + 1, data_end, p);
}

/* What stands for an IPv6 address where an IPv4 address is wanted. */
static __always_inline __be32 short_of(const struct node_config *cfg, const struct addr6 *a)
{
	__u64 h;

	if (in_pool6(cfg, a))
		return a->w[3];
	if (!a->w[0] && !a->w[1] && !a->w[2] && a->w[3] == bpf_htonl(1))
		return bpf_htonl(0x7f000001);
	h = ((__u64)a->w[0] << 32 | a->w[1]) * 0xff51afd7ed558ccdULL;
	h ^= h >> 32;
	h = (h + ((__u64)a->w[2] << 32 | a->w[3])) * 0xc4ceb9fe1a85ec53ULL;
	return bpf_htonl(0xf0000000 | h >> 36);
}

/* Only at the packet's end may there be other headers than the transport's. */
static __always_inline bool is_extension(__u8 header)
{
	return header == IPPROTO_HOPOPTS || header == IPPROTO_ROUTING ||
	       header == IPPROTO_FRAGMENT || header == IPPROTO_DSTOPTS || header == IPPROTO_AH;
}

static __noinline int parse6(struct __sk_buff *skb, const struct node_config *cfg, struct packet *p)
{
	void *data_end = (void *)(long)skb->data_end;
	struct ethhdr *eth = (void *)(long)skb->data;
	struct ipv6hdr *ip = (void *)(eth + 1);
	struct fraghdr *fragment = (void *)(ip + 1);

	__builtin_memset(p, 0, sizeof(*p));
	if ((void *)(ip + 1) > data_end || ip->version != 6 || !has_ipv6(cfg))
		return NOT_IP;
	p->v6 = true;
	__builtin_memcpy(&p->saddr6, &ip->saddr, sizeof(p->saddr6));
	__builtin_memcpy(&p->daddr6, &ip->daddr, sizeof(p->daddr6));
	p->saddr = p->origin = short_of(cfg, &p->saddr6);
	p->daddr = short_of(cfg, &p->daddr6);
	p->len = bpf_ntohs(ip->payload_len) + sizeof(*ip);
	p->l4_at = L4_AT6;
	p->proto = ip->nexthdr;
	if (p->proto == IPPROTO_FRAGMENT) {
		if ((void *)(fragment + 1) > data_end)
			return NOT_IP;
		p->l4_at += sizeof(*fragment);
		p->proto = fragment->nexthdr;
		p->id = fragment->id;
		if (fragment->offset & bpf_htons(IP6_OFFSET))
			p->fragment = LATER_FRAGMENT;
		else if (fragment->offset & bpf_htons(IP6_MF))
			p->fragment = FIRST_FRAGMENT;
	}
	if (is_extension(p->proto))
		return WITH_OPTIONS;
	if (p->proto == IPPROTO_ICMPV6)
		p->proto = IPPROTO_ICMP;
	if (p->fragment == LATER_FRAGMENT)
		return PARSED;
	return parse_l4(p->l4_at == L4_AT6 ? (void *)fragment : (void *)(fragment + 1), data_end, p);
}

/* At XDP, where a frame may be in several buffers: len is from the IP header on. */
static __always_inline int xdp_drop(const struct xdp_md *xdp, const struct packet *p, __u32 len,
				    enum verdict reason)
{
	__u32 key = reason;
	struct example *e = bpf_map_lookup_elem(&examples, &key);

	count(reason, 1, len);
	if (e) {
		e->when = bpf_ktime_get_coarse_ns();
		e->saddr = mapped(p->origin);
		e->daddr = mapped(p->daddr);
		e->proto = p->proto;
		e->sport = p->sport;
		e->dport = p->dport;
		e->ifindex = xdp->ingress_ifindex;
		e->len = len;
	}
	return XDP_DROP;
}

/* Where a TC program keeps its packet: one at a time runs on a CPU. It leaves
 * more of the small stack, and the verifier, which knows nothing of what is in a
 * map, follows one way through the program for all packets that look alike. And
 * what is in it is there without a pointer for functions that are not static, as a
 * verifier follows these by themselves, and once: the rest of a program takes their
 * results as they come.
 */
struct room {
	struct packet packet;
	struct session6_key key; /* see session_search */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct room);
} packet_room SEC(".maps");

static __always_inline struct room *room(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&packet_room, &zero);
}

static __always_inline struct packet *room_for_packet(void)
{
	struct room *r = room();

	return r ? &r->packet : NULL;
}

/* The TC parse first makes the headers linear. */
static __always_inline int tc_parse(struct __sk_buff *skb, const struct node_config *cfg,
				    struct packet *p)
{
	bool v6 = skb->protocol == bpf_htons(ETH_P_IPV6);
	__u32 want = v6 ? PARSE_BYTES6 : PARSE_BYTES(0);

	if ((void *)(long)skb->data + want > (void *)(long)skb->data_end) {
		if (want > skb->len)
			want = skb->len;
		bpf_skb_pull_data(skb, want);
	}
	if (v6)
		return parse6(skb, cfg, p);
	return parse((void *)(long)skb->data, (void *)(long)skb->data_end, 0, p);
}

/* The same on every node, so that two ingress nodes choose alike. The node's
 * address that was used is part of it only where the caller keeps it in daddr.
 */
static __always_inline __u32 flow_hash(const struct packet *p, __u32 seed)
{
	__u64 h = ((__u64)p->saddr << 32 | p->daddr) ^ seed;

	h *= 0xff51afd7ed558ccdULL;
	h ^= h >> 32;
	h += (__u64)p->sport << 32 | (__u32)p->dport << 8 | p->proto;
	h *= 0xc4ceb9fe1a85ec53ULL;
	h ^= h >> 29;
	h *= 0x9e3779b97f4a7c15ULL;
	return h >> 32;
}

/* The same for all flows from one address. */
static __always_inline __u32 client_hash(const struct packet *p)
{
	__u64 h = (p->saddr ^ 0xff51afd7U) * 0xc4ceb9fe1a85ec53ULL;

	h ^= h >> 29;
	h *= 0x9e3779b97f4a7c15ULL;
	return h >> 32;
}

#endif
