/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The overlay's packets: VXLAN (RFC 7348). The VNI says what the inner packet
 * is and, where a client's packet goes to a backend, the backend's port:
 *
 *	 8 bits  kind
 *	16 bits  port
 *
 * The inner destination address of the link layer names the backend, so that a
 * client's packet stays byte for byte as it came.
 */
#ifndef ORCH_OVERLAY_H
#define ORCH_OVERLAY_H

#include "follow.h"

enum overlay_kind {
	OVERLAY_CLIENT = 1, /* a client's packet to the backend that its MAC names */
	OVERLAY_RETURN = 2, /* a reply, source translated, to the ingress node */
	OVERLAY_DIRECT = 3, /* between tasks, as it is */
	OVERLAY_PROBE = 4,  /* does it arrive? For `orch doctor` */
};

/* With this for the first byte of its inner source address a client's packet
 * asks that the replies go straight to the client. Who does not know of it sends
 * them back in VXLAN, as without it.
 */
#define MAC_ASKS_DSR 0x06

struct vxlanhdr {
	__be32 flags;
	__be32 vni; /* and 8 reserved bits */
};

#define PROBE_BYTES 16 /* after the inner Ethernet header, which the answer repeats */

#define VXLAN_HAS_VNI bpf_htonl(0x08000000)

/* What stands before an inner IP packet. */
struct encapsulation {
	struct ethhdr eth;
	struct iphdr ip;
	struct udphdr udp;
	struct vxlanhdr vxlan;
	struct ethhdr inner;
} __attribute__((packed));

_Static_assert(sizeof(struct encapsulation) == ETH_HLEN + OVERLAY_OVERHEAD, "encapsulation");

/* The same as api.EndpointMAC. */
static __always_inline void mac_of(__u8 *mac, __be32 addr)
{
	mac[0] = 0x02;
	mac[1] = 0x6f;
	__builtin_memcpy(mac + 2, &addr, sizeof(addr));
}

static __always_inline __be16 fold_checksum(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

static __always_inline void ip_checksum(void *header)
{
	struct iphdr *ip = header;
	__u16 *half = header;
	__u32 sum = 0;

	ip->check = 0;
#pragma unroll
	for (int i = 0; i < (int)sizeof(*ip) / 2; i++)
		sum += half[i];
	ip->check = fold_checksum(sum);
}

/* Fills in all but the outer link layer addresses. name is the address that
 * the inner destination MAC stands for, len the inner IP packet's length, inner
 * its link layer type.
 */
static __always_inline void write_encapsulation(struct encapsulation *h, __be32 from, __be32 to,
						enum overlay_kind kind, __be16 port, __be32 name,
						__u16 len, __u32 hash, __be16 inner)
{
	h->eth.h_proto = bpf_htons(ETH_P_IP);
	h->ip.version = 4;
	h->ip.ihl = 5;
	h->ip.tos = 0;
	h->ip.tot_len = bpf_htons(len + OVERLAY_OVERHEAD);
	h->ip.id = 0;
	h->ip.frag_off = bpf_htons(IP_DF);
	h->ip.ttl = 64;
	h->ip.protocol = IPPROTO_UDP;
	h->ip.saddr = from;
	h->ip.daddr = to;
	ip_checksum(&h->ip);
	/* Many source ports, so that network cards and links spread the flows. */
	h->udp.source = bpf_htons(49152 | (hash & 0x3fff));
	h->udp.dest = OVERLAY_PORT;
	h->udp.len = bpf_htons(len + OVERLAY_OVERHEAD - sizeof(struct iphdr));
	h->udp.check = 0; /* RFC 7348, section 5 */
	h->vxlan.flags = VXLAN_HAS_VNI;
	h->vxlan.vni = bpf_htonl((__u32)kind << 24 | (__u32)bpf_ntohs(port) << 8);
	mac_of(h->inner.h_dest, name);
	mac_of(h->inner.h_source, from);
	h->inner.h_proto = inner;
}

static __always_inline void ask_dsr(struct encapsulation *h)
{
	h->inner.h_source[0] = MAC_ASKS_DSR;
}

/* What a received one says. */
struct tunnelled {
	__be32 from;
	__be32 name;
	__be16 port;
	__u8 kind;
	bool v6;  /* inside */
	bool dsr; /* asked for */
};

static __always_inline bool is_overlay(const struct node_config *cfg, const struct packet *p)
{
	return !p->v6 && p->proto == IPPROTO_UDP && p->dport == OVERLAY_PORT && p->daddr == cfg->underlay &&
	       p->fragment == WHOLE && !p->error;
}

static __always_inline bool read_encapsulation(void *data, void *data_end, struct tunnelled *t)
{
	struct encapsulation *h = data;
	__u32 vni;

	if ((void *)(h + 1) > data_end)
		return false;
	if (h->vxlan.flags != VXLAN_HAS_VNI || h->inner.h_dest[0] != 0x02 ||
	    h->inner.h_dest[1] != 0x6f)
		return false;
	vni = bpf_ntohl(h->vxlan.vni) >> 8;
	t->from = h->ip.saddr;
	t->kind = vni >> 16;
	t->dsr = h->inner.h_source[0] == MAC_ASKS_DSR;
	t->v6 = h->inner.h_proto == bpf_htons(ETH_P_IPV6);
	t->port = bpf_htons(vni & 0xffff);
	__builtin_memcpy(&t->name, h->inner.h_dest + 2, sizeof(t->name));
	return true;
}

#endif
