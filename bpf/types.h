/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The layouts shared between the programs and user space, and the numbers of
 * the overlay. Addresses and ports are in network order everywhere.
 */
#ifndef ORCH_TYPES_H
#define ORCH_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define OVERLAY_PORT bpf_htons(4789)
#define OVERLAY_OVERHEAD 50 /* IPv4 20, UDP 8, VXLAN 8, Ethernet 14 */
#define TUNNEL_OVERHEAD 60 /* of WireGuard: IPv4 20, UDP 8, header 16, tag 16 */

#define IP_DF 0x4000
#define IP_MF 0x2000
#define IP_OFFSET 0x1fff

/* IPv6. The cluster's own addresses are its prefix with the IPv4 address in the
 * last 32 bits, so that endpoints, backends and virtual IPs are known by their
 * IPv4 address alone. Maps whose keys or values need an address of the outside
 * have a twin, whose structures begin with those for IPv4.
 */
struct addr6 {
	__be32 w[4];
};

#define AF_INET 2
#define AF_INET6 10
#define LOOPBACK_IFINDEX 1

/* Hosts need not heed a smaller one (RFC 8200, section 5). */
#define IPV6_MIN_MTU 1280

/* What the node is: one entry, index 0. */
struct node_config {
	__be32 underlay;
	__be32 pool;
	__be32 pool_mask;
	__u32 mtu;	  /* of the uplink */
	__u64 generation; /* of the plan that is in the maps */
	__be32 pool6[3];  /* prefix of the cluster's IPv6 addresses; 0: has none */
	__u32 moved_at;	  /* ticks: entries are being carried over from other maps; 0: none are */
	__u32 tunnel;	  /* what encrypts; 0: nothing is to be, see TUNNEL_MISSING */
	__u32 pad;
};

/* There is no device to encrypt what must be. */
#define TUNNEL_MISSING 0xffffffff

/* Flags are enums, so that the type information has their names. */
enum endpoint_flags {
	ENDPOINT_OUTSIDE = 1,	/* may send to addresses outside the pool */
	ENDPOINT_ENCRYPTED = 2, /* between nodes its packets go encrypted, or not at all */
};

enum member_flags {
	MEMBER_KNOWN = 1,
	MEMBER_ENCRYPTS = 2, /* it has a key, so that what is encrypted can go there */
};

/* Where a task is and whom it may talk to; the key is its address. */
struct endpoint {
	__be32 node;
	__u32 ifindex; /* host side of its veth; 0 on other nodes */
	__u64 netset;  /* names its set of networks; 0 is the empty set */
	enum endpoint_flags flags;
	__u32 pad;
};

/* Two sets of networks that have one in common. */
struct net_pair {
	__u64 a;
	__u64 b;
};

/* A virtual IP has port and protocol 0; a published port on every address of
 * the node has address 0.
 */
struct frontend_key {
	__be32 addr;
	__be16 port;
	__u8 proto;
	__u8 pad;
};

struct frontend6_key {
	struct frontend_key k; /* addr is 0 */
	struct addr6 addr;
};

enum frontend_flags {
	FRONTEND_HOST = 1,     /* a port published on this node alone */
	FRONTEND_AFFINITY = 2, /* all flows from one address go to one backend */
	FRONTEND_DSR = 4,      /* replies go straight from the backend's node to the client */
};

struct frontend {
	__u32 id;
	enum frontend_flags flags;
	__u64 netset; /* of a virtual IP: the networks it answers on */
};

enum backend_flags {
	BACKEND_DRAINING = 1, /* keeps its flows, gets no new ones */
	BACKEND_DSR = 2,      /* its frontend has FRONTEND_DSR */
	BACKEND_ENCRYPTED = 4, /* its endpoint has ENDPOINT_ENCRYPTED */
};

/* One backend of one frontend, by its id; address 0 marks a free id. */
struct backend {
	__be32 addr;
	__be32 node; /* that it is on; 0: there is no such endpoint */
	__be16 port; /* 0: the client's destination port */
	__u16 pad;
	enum backend_flags flags;
	__u32 frontend;
};

/* Part of a Maglev table: backend ids. A table's first part has only the number
 * of its places.
 */
#define PLACES 16

struct places {
	__u32 backend[PLACES];
};

/* What was seen of a flow or a session. */
enum seen {
	SEEN_FIN_CLIENT = 1,
	SEEN_FIN_BACKEND = 2,
	SEEN_RST = 4,
	SEEN_ESTABLISHED = 8, /* the client answered the backend's SYN */
	SEEN_SYN = 16,	      /* of a flow: its first packet was one */
	SEEN_DSR = 32,	      /* of a session: the client's last packet asked for it */
};

/* What another version might remember besides, for the tests of a change of
 * layout: the compiler is told.
 */
#ifndef MORE_OF_A_FLOW
#define MORE_OF_A_FLOW
#define SIZE_OF_MORE 0
#endif

/* Ingress node: which backend a client's flow goes to. */
struct flow_key {
	__be32 client;
	__be32 dest;
	__be16 client_port;
	__be16 dest_port;
	__u8 proto;
	__u8 pad[3];
};

struct flow6_key {
	struct flow_key k;
	struct addr6 client;
	struct addr6 dest;
};

struct flow {
	MORE_OF_A_FLOW
	__u32 backend;
	__be32 addr; /* of that backend, as ids are used again */
	__u32 seen;  /* ticks */
	enum seen flags;
	__be32 ack; /* the client's last acknowledgment, if SEEN_ESTABLISHED; before that
		     * when its SYN came, in microseconds, if SEEN_SYN
		     */
	__u32 frontend; /* of that backend */
};

/* Backend's node: one translated flow, keyed by what the backend sees. The one
 * entry serves both directions.
 */
struct session_key {
	__be32 client;
	__be32 backend;
	__be16 client_port;
	__be16 backend_port;
	__u8 proto;
	__u8 pad[3];
};

struct session {
	MORE_OF_A_FLOW
	__be32 client; /* as it is on the wire */
	__be32 dest;   /* that the client connected to */
	__be16 client_port;
	__be16 dest_port;
	__be32 via; /* underlay address of the ingress node */
	__u32 seen; /* ticks */
	enum seen flags;
};

struct session6_key {
	struct session_key k;
	struct addr6 client;
};

struct session6 {
	struct session s;
	struct addr6 client;
	struct addr6 dest;
};

/* What the routing table says of the way to another node. */
struct hop {
	__u8 dest[6];
	__u8 source[6];
	__u32 ifindex;
	__u32 asked; /* ticks */
};

/* Ports of a fragmented datagram, which only its first fragment carries. */
struct fragment_key {
	__be32 saddr;
	__be32 daddr;
	__be32 id;
	__u8 proto;
	__u8 pad[3];
};

struct fragment6_key {
	struct fragment_key k;
	struct addr6 saddr;
	struct addr6 daddr;
};

struct fragment {
	__be16 sport;
	__be16 dport;
};

struct counter {
	__u64 packets;
	__u64 bytes; /* from the IP header on */
};

/* The last packet that was dropped for a reason. */
struct example {
	__u64 when; /* ns since boot, to a few ms */
	struct addr6 saddr; /* an IPv4 address as ::ffff:a.b.c.d */
	struct addr6 daddr;
	__be16 sport; /* 0: none, or not in this packet */
	__be16 dport;
	__u8 proto;
	__u8 pad[3];
	__u32 ifindex; /* where it came in */
	__u32 len;     /* from the IP header on */
};

struct stats {
	__u64 packets;
	__u64 bytes;
	__u64 flows;
};

/* How long handshakes of a frontend took where their clients enter: from the SYN to
 * the client's first acknowledgment. The first counts those of less than
 * HANDSHAKE_LEAST microseconds, each further one those of up to twice as much, the
 * last all others.
 */
#define HANDSHAKE_LEAST 128u
#define HANDSHAKE_BUCKETS 16u

struct handshakes {
	__u64 micros; /* of all together */
	__u32 count[HANDSHAKE_BUCKETS];
};

_Static_assert(sizeof(struct handshakes) == 72, "handshakes");
_Static_assert(sizeof(struct node_config) == 48, "node_config");
_Static_assert(sizeof(struct endpoint) == 24, "endpoint");
_Static_assert(sizeof(struct net_pair) == 16, "net_pair");
_Static_assert(sizeof(struct frontend_key) == 8, "frontend_key");
_Static_assert(sizeof(struct frontend) == 16, "frontend");
_Static_assert(sizeof(struct backend) == 20, "backend");
_Static_assert(sizeof(struct places) == 64, "places");
_Static_assert(sizeof(struct flow_key) == 16, "flow_key");
_Static_assert(sizeof(struct flow) == 24 + SIZE_OF_MORE, "flow");
_Static_assert(sizeof(struct hop) == 20, "hop");
_Static_assert(sizeof(struct session_key) == 16, "session_key");
_Static_assert(sizeof(struct session) == 24 + SIZE_OF_MORE, "session");
_Static_assert(sizeof(struct fragment_key) == 16, "fragment_key");
_Static_assert(sizeof(struct example) == 56, "example");
_Static_assert(sizeof(struct frontend6_key) == 24, "frontend6_key");
_Static_assert(sizeof(struct flow6_key) == 48, "flow6_key");
_Static_assert(sizeof(struct session6_key) == 32, "session6_key");
_Static_assert(sizeof(struct session6) == 56 + SIZE_OF_MORE, "session6");
_Static_assert(sizeof(struct fragment6_key) == 48, "fragment6_key");

/* Time is kept in ticks of 2^30 ns, about a second. */
static __always_inline __u32 now_ticks(void)
{
	return bpf_ktime_get_coarse_ns() >> 30;
}

#define TICKS_TCP_OPENING 16
#define TICKS_TCP_CLOSED 60

/* Set before load. */
const volatile __u32 ticks_udp_idle = 168; /* 3 minutes */

/* Of a connection, after which only stray packets follow. */
static __always_inline bool is_over(enum seen flags)
{
	__u32 both = SEEN_FIN_CLIENT | SEEN_FIN_BACKEND;

	return (flags & SEEN_RST) || (flags & both) == both;
}

/* For how many ticks nothing was seen. Another CPU may be in the next tick already, and
 * have written that.
 */
static __always_inline __u32 idle_ticks(__u32 seen, __u32 now)
{
	__s32 idle = now - seen;

	return idle > 0 ? idle : 0;
}

/* Entries are shared between CPUs: write only what changes. */
static __always_inline void touch(__u32 *seen, __u32 now)
{
	if (*seen != now)
		*seen = now;
}

static __always_inline void raise_flags(enum seen *flags, enum seen more)
{
	if ((*flags & more) != more)
		*flags |= more;
}

#endif
