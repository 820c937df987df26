/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The name of everything that can become of a packet. User space takes the
 * names from the type information: DROP_NOT_MEMBER becomes the drop reason
 * "not-member", FORWARDED_TUNNEL the verdict "forwarded-tunnel".
 */
#ifndef ORCH_VERDICT_H
#define ORCH_VERDICT_H

enum verdict {
	VERDICT_NONE = 0,

	/* Went on. */
	DELIVERED,	    /* into a task on this node */
	FORWARDED_TUNNEL,   /* client's packet, to the backend's node */
	FORWARDED_RETURN,   /* reply, to the ingress node */
	FORWARDED_OVERLAY,  /* task to task, to the other node */
	SENT_TO_CLIENT,	    /* reply, out of this node to the client */
	PASSED_NO_BACKEND,  /* published port without a usable backend: the kernel refuses */
	PASSED_OPTIONS,	    /* IP options: left to the kernel */
	PASSED_FRAGMENT,    /* fragment of a datagram whose first one was not seen */
	PASSED_OUTSIDE,	    /* task to an address that is not ours: left to the kernel */
	ANSWERED_ECHO,	    /* ping of a virtual IP */
	ANSWERED_TOO_BIG,   /* with ICMP fragmentation needed */

	/* Went nowhere. */
	DROP_NOT_MEMBER,	 /* VXLAN whose sender is no node of the cluster */
	DROP_MALFORMED,		 /* VXLAN that is not ours inside, or cut short */
	DROP_NOT_ENCAPSULATED,	 /* from or to the pool, from outside, bare */
	DROP_SPOOFED,		 /* task's source address is not its own, or one is of loopback */
	DROP_ISOLATED,		 /* the two share no network */
	DROP_INTERNAL,		 /* outside, but all networks of the task are internal */
	DROP_UNKNOWN_DESTINATION, /* in the pool, but nobody's address */
	DROP_NO_BACKEND,	 /* virtual IP without a usable backend */
	DROP_NOT_HERE,		 /* tunnelled to an endpoint that is not on this node */
	DROP_UNSUPPORTED,	 /* protocol or IP option a task cannot use here */
	DROP_FRAGMENT,		 /* from a task: first fragment not seen */
	DROP_COLLISION,		 /* no free client port for a colliding flow */
	DROP_NO_ROUTE,		 /* to a node, a client, or the outside */
	DROP_REWRITE,		 /* a packet could not be resized */

	/* Later ones, at the end: counters outlive the programs. */
	ANSWERED_PROBE, /* another node asked whether this size arrives */
	DROP_TOO_BIG,	/* for the tunnel, and its sender cannot be told */
	ABSORBED_LINK_LOCAL, /* IPv6 to neighbours, of which a task has none, or where there is none */
	ANSWERED_RESET,	     /* the connection's backend is gone */
	DROP_MOVING,	     /* from a task, and its session may not have been carried over yet */

	/* Besides what became of the packet: its flow may be forgotten, as ... */
	FULL_FLOWS,    /* ... flows has no room for it */
	FULL_SESSIONS, /* ... sessions has none */

	/* Went on, later ones. */
	SENT_DSR, /* reply, straight to the client, as from the ingress node */

	/* Went nowhere, later ones. */
	DROP_IN_CLEAR,	    /* came bare, to a task on an encrypted network */
	DROP_NOT_ENCRYPTED, /* would have left bare: one of the two nodes has no key */
	DROP_FORGED,	    /* from a task, to where nodes take VXLAN from each other */

	VERDICTS
};

_Static_assert(VERDICTS <= 64, "the verdicts map is too small");

#endif
