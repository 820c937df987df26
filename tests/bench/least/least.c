//go:build ignore

// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* The least that an overlay of eBPF programs can do: what goes to another node's
 * workload is put into VXLAN and sent, what comes is taken out and delivered. There is
 * no table, no check and no state, so that no overlay that has any costs less.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define NODES 4 /* from 1 on */
#define OVERHEAD 50
#define VXLAN_PORT bpf_htons(4789)

/* All set before load. A node's number is the last byte of its address and of its
 * workload's.
 */
const volatile __u8 node;
const volatile __u32 uplink, task;	 /* devices */
const volatile __be32 nodes, workloads;	 /* /24 each */
const volatile __u8 node_macs[NODES][ETH_ALEN];
const volatile __u8 workload_mac[ETH_ALEN], gateway_mac[ETH_ALEN];

struct vxlanhdr {
	__be32 flags;
	__be32 vni;
};

struct encapsulation {
	struct ethhdr eth;
	struct iphdr ip;
	struct udphdr udp;
	struct vxlanhdr vxlan;
	struct ethhdr inner;
} __attribute__((packed));

static __always_inline void copy_mac(__u8 *to, const volatile __u8 *from)
{
#pragma unroll
	for (int i = 0; i < ETH_ALEN; i++)
		to[i] = from[i];
}

/* Of a header whose checksum is 0. */
static __always_inline __u16 ip_checksum(const void *header)
{
	const __u16 *half = header;
	__u32 sum = 0;

#pragma unroll
	for (int i = 0; i < (int)sizeof(struct iphdr) / 2; i++)
		sum += half[i];
	sum = (sum & 0xffff) + (sum >> 16);
	return ~((sum & 0xffff) + (sum >> 16));
}

SEC("tc")
int least_from_task(struct __sk_buff *skb)
{
	const __u64 flags = BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 | BPF_F_ADJ_ROOM_ENCAP_L4_UDP |
			    BPF_F_ADJ_ROOM_ENCAP_L2(ETH_HLEN) | BPF_F_ADJ_ROOM_FIXED_GSO;
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethhdr *eth = data;
	struct iphdr *ip = (void *)(eth + 1);
	__u32 len = skb->len - ETH_HLEN, to;
	struct encapsulation *h;

	if ((void *)(ip + 1) > end || eth->h_proto != bpf_htons(ETH_P_IP) ||
	    (ip->daddr & bpf_htonl(0xffffff00)) != workloads)
		return TC_ACT_OK;
	to = bpf_ntohl(ip->daddr) & 0xff;
	if (to == node || to >= NODES)
		return TC_ACT_OK;
	if (bpf_skb_adjust_room(skb, OVERHEAD, BPF_ADJ_ROOM_MAC, flags))
		return TC_ACT_SHOT;
	h = (void *)(long)skb->data;
	if ((void *)(h + 1) > (void *)(long)skb->data_end)
		return TC_ACT_SHOT;
	copy_mac(h->eth.h_dest, node_macs[to]);
	copy_mac(h->eth.h_source, node_macs[node % NODES]);
	h->eth.h_proto = bpf_htons(ETH_P_IP);
	h->ip = (struct iphdr){
		.version = 4,
		.ihl = 5,
		.tot_len = bpf_htons(len + OVERHEAD),
		.frag_off = bpf_htons(0x4000 /* do not fragment */),
		.ttl = 64,
		.protocol = IPPROTO_UDP,
		.saddr = nodes | bpf_htonl(node),
		.daddr = nodes | bpf_htonl(to),
	};
	h->ip.check = ip_checksum((void *)h + offsetof(struct encapsulation, ip));
	h->udp = (struct udphdr){
		.source = bpf_htons(49152),
		.dest = VXLAN_PORT,
		.len = bpf_htons(len + OVERHEAD - sizeof(struct iphdr)),
	};
	h->vxlan = (struct vxlanhdr){.flags = bpf_htonl(0x08000000)};
	copy_mac(h->inner.h_dest, node_macs[to]); /* nobody reads them */
	copy_mac(h->inner.h_source, node_macs[to]);
	h->inner.h_proto = bpf_htons(ETH_P_IP);
	return bpf_redirect(uplink, 0);
}

SEC("tc")
int least_from_uplink(struct __sk_buff *skb)
{
	struct encapsulation *h = (void *)(long)skb->data;
	struct ethhdr eth;

	if ((void *)(h + 1) > (void *)(long)skb->data_end || h->eth.h_proto != bpf_htons(ETH_P_IP) ||
	    h->ip.protocol != IPPROTO_UDP || h->udp.dest != VXLAN_PORT)
		return TC_ACT_OK;
	if (bpf_skb_adjust_room(skb, -OVERHEAD, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO))
		return TC_ACT_SHOT;
	copy_mac(eth.h_dest, workload_mac);
	copy_mac(eth.h_source, gateway_mac);
	if (bpf_skb_store_bytes(skb, 0, &eth, 2 * ETH_ALEN, 0))
		return TC_ACT_SHOT;
	return bpf_redirect_peer(task, 0);
}

char _license[] SEC("license") = "Dual BSD/GPL";
