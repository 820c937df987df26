/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Every map. Who writes what stands in the table at the top of orch.c. Sizes
 * here are defaults; user space may set others before it loads.
 */
#ifndef ORCH_MAPS_H
#define ORCH_MAPS_H

#include "types.h"
#include "verdict.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct node_config);
} node_config SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __be32);
	__type(value, enum member_flags);
} members SEC(".maps");

/* For each CPU, so that none reads what another is writing. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 4096);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __be32);
	__type(value, struct hop);
} hops SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __be32);
	__type(value, struct endpoint);
} endpoints SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1 << 18);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct net_pair);
	__type(value, __u32);
} net_pairs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct frontend_key);
	__type(value, struct frontend);
} frontends SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct frontend6_key);
	__type(value, struct frontend);
} frontends6 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, struct backend);
} backends SEC(".maps");

/* Frontend id -> Maglev table, with its size M in front, so that replacing the
 * inner map changes both at once. An element of an array takes eight bytes at
 * least: places are kept by sixteen.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 8192);
	__uint(key_size, sizeof(__u32));
	__array(values, struct {
		__uint(type, BPF_MAP_TYPE_ARRAY);
		__uint(max_entries, 1);
		__uint(map_flags, BPF_F_INNER_MAP);
		__uint(key_size, sizeof(__u32));
		__uint(value_size, sizeof(struct places));
	});
} tables SEC(".maps");

/* What lasts is in flows and sessions, where nothing pushes it out; what opens
 * or has ended is in the brief ones.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 131072);
	__type(key, struct flow_key);
	__type(value, struct flow);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 32768);
	__type(key, struct flow_key);
	__type(value, struct flow);
} brief_flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 32768);
	__type(key, struct flow6_key);
	__type(value, struct flow);
} flows6 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct flow6_key);
	__type(value, struct flow);
} brief_flows6 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 131072);
	__type(key, struct session_key);
	__type(value, struct session);
} sessions SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 32768);
	__type(key, struct session_key);
	__type(value, struct session);
} brief_sessions SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 32768);
	__type(key, struct session6_key);
	__type(value, struct session6);
} sessions6 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct session6_key);
	__type(value, struct session6);
} brief_sessions6 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct fragment_key);
	__type(value, struct fragment);
} fragments SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct fragment6_key);
	__type(value, struct fragment);
} fragments6 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 8192);
	__type(key, __u32);
	__type(value, struct stats);
} frontend_stats SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, struct stats);
} backend_stats SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 8192);
	__type(key, __u32); /* id of a frontend */
	__type(value, struct handshakes);
} handshakes SEC(".maps");

/* What was counted of backends that are gone, by their node: user space adds it up
 * so that what went to a node never becomes less.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __be32);
	__type(value, struct stats);
} departed SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 64);
	__type(key, enum verdict); /* so that the type information has the names */
	__type(value, struct counter);
} verdicts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 64);
	__type(key, __u32); /* the verdict */
	__type(value, struct example);
} examples SEC(".maps");

static __always_inline struct node_config *config(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&node_config, &zero);
}

static __always_inline struct endpoint *endpoint(__be32 addr)
{
	return bpf_map_lookup_elem(&endpoints, &addr);
}

static __always_inline bool is_member(__be32 addr)
{
	return bpf_map_lookup_elem(&members, &addr) != NULL;
}

/* Can packets be encrypted for that node? */
static __always_inline bool encrypts(const struct node_config *cfg, __be32 node)
{
	enum member_flags *flags = bpf_map_lookup_elem(&members, &node);

	return cfg->tunnel != TUNNEL_MISSING && flags && (*flags & MEMBER_ENCRYPTS);
}

/* Is it the address of a task on an encrypted network? */
static __always_inline bool is_encrypted(__be32 addr)
{
	struct endpoint *ep = endpoint(addr);

	return ep && (ep->flags & ENDPOINT_ENCRYPTED);
}

/* Must what goes between an endpoint and an address be encrypted on its way from
 * node to node? It must if one of the two is a task on an encrypted network.
 */
static __always_inline bool is_sealed(const struct node_config *cfg, const struct endpoint *ep,
				      __be32 other)
{
	if (!cfg->tunnel)
		return false;
	if (ep->flags & ENDPOINT_ENCRYPTED)
		return true;
	return is_encrypted(other);
}

static __always_inline bool in_pool(const struct node_config *cfg, __be32 addr)
{
	return (addr & cfg->pool_mask) == cfg->pool;
}

/* Is it an address of the cluster's prefix? */
static __always_inline bool in_pool6(const struct node_config *cfg, const struct addr6 *a)
{
	return a->w[0] == cfg->pool6[0] && a->w[1] == cfg->pool6[1] && a->w[2] == cfg->pool6[2];
}

/* The IPv6 address of an endpoint, a virtual IP or a node of the cluster. */
static __always_inline struct addr6 address6(const struct node_config *cfg, __be32 addr)
{
	return (struct addr6){.w = {cfg->pool6[0], cfg->pool6[1], cfg->pool6[2], addr}};
}

/* Does the cluster have IPv6 here? */
static __always_inline bool has_ipv6(const struct node_config *cfg)
{
	return cfg->pool6[0] && cfg->mtu >= IPV6_MIN_MTU + OVERLAY_OVERHEAD;
}

static __always_inline bool share_network(__u64 a, __u64 b)
{
	struct net_pair pair = {.a = a, .b = b};

	if (a == b)
		return a != 0;
	return bpf_map_lookup_elem(&net_pairs, &pair) != NULL;
}

#endif
