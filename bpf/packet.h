/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Parsing: what the programs need to know of an IPv4 packet. */
#ifndef ORCH_PACKET_H
#define ORCH_PACKET_H

#include "count.h"

struct packet {
	__be32 saddr;
	__be32 daddr;
	__be16 sport; /* 0 for protocols without ports */
	__be16 dport;
	__u16 len; /* total, from the IP header on */
	__u8 proto;
	__u8 tcp;	 /* flags of a TCP header */
	__u8 l4_len;	 /* length of the transport header, where it is known */
	__u8 fragment;	 /* one of the below */
	bool error;	 /* an ICMP error, see read_quoted */
	__be16 id;
	__be32 origin; /* source of the packet itself: differs in an ICMP error */
};

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

#define WHOLE 0
#define FIRST_FRAGMENT 1
#define LATER_FRAGMENT 2

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

enum parsed {
	PARSED,
	NOT_IP,	      /* or a packet cut short: not ours to judge */
	WITH_OPTIONS, /* addresses are filled in, ports are not */
};

#define IP_AT(off) ((off) + ETH_HLEN)
#define L4_AT(off) ((off) + ETH_HLEN + (int)sizeof(struct iphdr))

/* Bytes a parse at offset off may look at. */
#define PARSE_BYTES(off) (L4_AT(off) + (int)sizeof(struct tcphdr))

static __always_inline bool has_ports(const struct packet *p)
{
	return p->proto == IPPROTO_TCP || p->proto == IPPROTO_UDP;
}

static __always_inline bool is_loopback(__be32 addr)
{
	return (addr & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000);
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

/* Parses the frame that starts at offset off. */
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

/* At XDP, where a frame may be in several buffers: len is from the IP header on. */
static __always_inline int xdp_drop(const struct xdp_md *xdp, const struct packet *p, __u32 len,
				    enum verdict reason)
{
	__u32 key = reason;
	struct example *e = bpf_map_lookup_elem(&examples, &key);

	count(reason, 1, len);
	if (e) {
		e->when = bpf_ktime_get_coarse_ns();
		e->saddr = p->origin;
		e->daddr = p->daddr;
		e->proto = p->proto;
		e->sport = p->sport;
		e->dport = p->dport;
		e->ifindex = xdp->ingress_ifindex;
		e->len = len;
	}
	return XDP_DROP;
}

/* The TC parse first makes the headers linear. */
static __always_inline int tc_parse(struct __sk_buff *skb, int off, struct packet *p)
{
	__u32 want = PARSE_BYTES(off);

	if ((void *)(long)skb->data + want > (void *)(long)skb->data_end) {
		if (want > skb->len)
			want = skb->len;
		bpf_skb_pull_data(skb, want);
	}
	return parse((void *)(long)skb->data, (void *)(long)skb->data_end, off, p);
}

/* Of an ICMP error, takes the ports, and the protocol that they belong to, of
 * the packet that it quotes, turned round: p is then like a packet of that flow
 * in the direction in which the error goes, and finds the same entries.
 */
static __always_inline void read_quoted(struct __sk_buff *skb, struct packet *p)
{
	struct {
		struct icmphdr icmp;
		struct iphdr ip;
		__be16 sport;
		__be16 dport;
	} e;

	if (p->proto != IPPROTO_ICMP || p->fragment != WHOLE ||
	    bpf_skb_load_bytes(skb, L4_AT(0), &e, sizeof(e)))
		return;
	if (e.icmp.type != ICMP_DEST_UNREACH && e.icmp.type != ICMP_TIME_EXCEEDED &&
	    e.icmp.type != ICMP_PARAMETER_PROBLEM)
		return;
	if (e.ip.version != 4 || e.ip.ihl != 5 || (e.ip.frag_off & bpf_htons(IP_OFFSET)) ||
	    e.ip.saddr != p->daddr ||
	    (e.ip.protocol != IPPROTO_TCP && e.ip.protocol != IPPROTO_UDP))
		return;
	p->error = true;
	p->proto = e.ip.protocol;
	p->saddr = e.ip.daddr;
	p->sport = e.dport;
	p->dport = e.sport;
}

/* Gives a later fragment the ports of its first one. False if that one was
 * not seen.
 */
static __always_inline bool find_ports(struct packet *p)
{
	struct fragment_key key = {
		.saddr = p->saddr, .daddr = p->daddr, .id = p->id, .proto = p->proto};
	struct fragment ports = {.sport = p->sport, .dport = p->dport};
	struct fragment *seen;

	if (p->fragment == FIRST_FRAGMENT) {
		bpf_map_update_elem(&fragments, &key, &ports, BPF_ANY);
	} else if (p->fragment == LATER_FRAGMENT) {
		seen = bpf_map_lookup_elem(&fragments, &key);
		if (!seen)
			return false;
		p->sport = seen->sport;
		p->dport = seen->dport;
	}
	return true;
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

#endif
