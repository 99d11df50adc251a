/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The maps, and what their entries look like.
 *
 * The kernel side is one program. Map methods (events.*, flows.*) work in its main text only, for bcc
 * rewrites no header: so the .c files are joined into one text, in the order that
 * rsttrace/kernel/sources.py gives. This one comes first and includes the headers.
 *
 * The packet layer (packets.c: netif_receive_skb, net_dev_queue) sees every RST; the cause layer
 * (causes.c, kprobes.c: kfree_skb, tcp_send_reset, tcp_receive_reset or the functions around them)
 * explains it. A RST is followed by its skb's address, which outlives NAT, veth pairs and network
 * namespaces; it becomes an event only where it was seen to leave or seen to be consumed, so a cause
 * alone is never an event.
 */
#include <linux/types.h>
#include "config.h"
#include "event.h"
#include "read.h"
#include "packet.h"
#include "socket.h"
#include "flow.h"

enum { PHASE_IN = 1, PHASE_OUT = 2, PHASE_TOLD = 3 };

/* A RST that left: clones (a flooding bridge) and copies (nft dup) of it are no RSTs of their own. */
struct sent_key {
	__u64 net; /* net_key() */
	struct tuple t;
	__u32 seq;
	__u32 ack;
	__u16 ip_id;
	__u8 flags;
	__u8 pad;
};

struct sent {
	struct sent_key key;
	__u64 ts;
	__u64 head;
	__u64 skb;
	__u8 kind;
	__u8 pad[7];
};

/* A RST on its way through this node, by skb address. */
struct track {
	__u64 ts;
	__u32 seq;
	__u32 ack;
	__u16 ip_id;
	__u8 flags;
	__u8 phase;
	__u8 has_ingress;
	__u8 forwarded; /* already told for this namespace */
	__u8 no_socket; /* the stack looked for a socket and found none */
	__u8 handshake; /* `sk` is the listener of an unfinished handshake */
	__u64 sk;        /* the socket that judges it, where kfree_skb does not say */
	__u64 net;       /* net_key() of the namespace it is in */
	struct tuple t;  /* as it entered the namespace it is in: NAT may change it later */
	struct rst_headers rst;
	struct rst_frame here;
	struct rst_frame ingress;
	struct rst_made made;
	struct sent_key key; /* its own in `sents`: the stack has no room for it */
};

/* Why the stack decided to send a RST; waits for the packet. */
struct pending {
	__u64 ts;
	__u32 reason;
	__s32 expected; /* packets: several wait where the neighbour is being resolved; 0: all left */
	__u8 kind;
	__u8 hook;
	__u8 has_owner; /* owner: of a connection that has no socket any more */
	__u8 pad[5];
	struct rst_headers trigger;
	struct rst_socket sock;
	struct rst_detail detail;
	struct rst_task owner;
};

/* A RST that answers is known by what it answers: NAT leaves sequence numbers alone. */
struct answer_key {
	__u64 net; /* net_key() */
	__u32 seq;
	__u32 ack;
};

struct arrival_key {
	__u64 net; /* net_key() */
	struct tuple t;
	__u32 pad;
};

/* RSTs of one connection that nothing has consumed yet: several may wait in a socket's backlog. */
#define WAITING 4
struct waiting {
	__u64 ends; /* ends_sum() of its arrival_key */
	__u64 skb[WAITING];
};

/* A RST that came in, by the number that makes it acceptable. */
struct numbered {
	__u64 net; /* net_key(), or ANY_NET */
	__u64 skb;
	__u32 number;
	__u32 is_ack;
};

struct old_state {
	__u64 sk;
	__u64 ts;
	__u8 state;
	__u8 pad[7];
};

/* Whose a socket is, and whose a connection was: see owners.c. */
struct owner {
	__u64 key; /* 0: nobody's */
	__u64 sum;
	struct rst_task task;
	__u64 pad;
};

struct state_change {
	__u64 sk;
	__u32 old;
	__u32 new;
};

/* What tcp_send_active_reset() was about, for a packet that leaves later (an unresolved neighbour). */
struct active_reason {
	__u64 ts;
	__u32 reason;
	__u32 seq;
	struct rst_task task;
	__u8 owned;
	__u8 state_now;
	__u8 pad[6];
};

/* A RST that was told and whose reason is to come. */
struct awaited {
	__u64 sk;
	__u64 ts;
	__u64 skb;
};

/* A packet whose TCP header was not there where it came in: the stack has yet to put it together or to
 * unwrap it. Where it came in. */
struct unread {
	__u64 ts;
	__u64 net; /* net_key() */
	struct rst_frame frame;
	struct parsed room; /* to read it then: the stack has no room for it */
};

/* A TCP header that comes in fragments of its own, put together. */
struct fragments_key {
	__u64 net; /* net_key() */
	__u8 saddr[16];
	__u8 daddr[16];
	__u32 id;
	__u32 pad;
};

struct fragments {
	__u64 ts;
	__u32 have; /* one bit for each 8 bytes of l4 */
	__u32 pad;
	__u8 l4[2 * UNITS * 8]; /* what lies behind is read with it */
};

/* Where a CPU looks for a place next; see take_place(). */
struct hand {
	__u32 at;
	__u32 spare; /* a place that it has just left, + 1: still in its cache */
};

struct net_key {
	__u32 prefixlen;
	__u8 addr[16];
};

#define TRACKED_BITS 13
#define TRACKED (1 << TRACKED_BITS)
#define OWNERS_BITS 15
#define PLACES (FLOWS + UNCONFIRMED)
#define SHELVES (PLACES / 2 + 1) /* two flows each: of 5,000 shelves one is too small */
#define HINT_BITS 16
#define PLACES_LOOKED_AT 8
#define ANY_NET 0 /* no namespace has this key */
#define MMAPABLE 1024 /* BPF_F_MMAPABLE (include/uapi/linux/bpf.h, 5.5) */

BPF_RINGBUF_OUTPUT(events, RING_PAGES);
BPF_PERCPU_ARRAY(counts, __u64, (KIND_LATE + 1) * COUNT_KINDS); /* KIND_LATE is the last */

/* Both are mapped into Python's memory. */
BPF_F_TABLE("array", __u32, struct rst_room, rooms, ROOMS, MMAPABLE);
BPF_F_TABLE("array", __u32, struct rst_bucket, buckets, FIXED_BUCKETS + BUCKETS, MMAPABLE);

/* Flows: see baseline.c. First those of which both ends have confirmed the other's packets; all others
 * are apart: a flood of SYNs, or from addresses that are none, pushes out only its like. */
BPF_F_TABLE("array", __u32, struct rst_flow, flows, PLACES, MMAPABLE); /* and so aligned */
BPF_F_TABLE("array", __u32, struct rst_shelf, shelves, SHELVES + 1, MMAPABLE); /* and the seed */
BPF_ARRAY(hints, __u32, 1 << HINT_BITS);
BPF_PERCPU_ARRAY(hands, struct hand, 2); /* of the others, of the confirmed */
BPF_TABLE("lru_hash", struct peer_key, struct rst_peer, peers, PEERS);
BPF_TABLE("lru_hash", struct peer_key, struct watched, watched_peers, PEERS);
BPF_TABLE("lru_hash", __u64, struct track, tracks, TRACKED);
BPF_TABLE("lru_hash", struct answer_key, struct pending, pendings, TRACKED);
/* What a packet program works on: its stack has no room for it. One for each program; on a CPU none
 * of them is run within itself (bpf_prog.active). */
struct work {
	__u64 number; /* see unknown() in baseline.c */
	__u8 window[WINDOW];
	__u8 pages[PAGES_READ]; /* of headers that lie in pages */
	struct parsed p;
};
BPF_PERCPU_ARRAY(work_in, struct work, 1);
BPF_PERCPU_ARRAY(work_out, struct work, 1);
BPF_TABLE("hash", __u64, struct rst_event, held, 1024); /* in the making: deleted at once */
BPF_PERCPU_ARRAY(held_out, struct rst_event, 1); /* likewise, of rt_net_dev_queue(): as work_out */
BPF_TABLE("lru_hash", __u64, struct active_reason, reasons, 1024);
BPF_TABLE("lru_hash", __u64, struct unread, unreads, 1024); /* by skb address */
BPF_TABLE("lru_hash", struct fragments_key, struct fragments, fragmented, 1024);
BPF_TABLE("lru_hash", __u64, __u8, in_neighbour, 1024); /* tasks inside neigh_update() */
BPF_PERCPU_ARRAY(last_change, struct state_change, 1);
#if PAYLOAD
BPF_TABLE("lru_hash", __u64, struct rst_data, sent_data, TRACKED); /* by socket cookie */
BPF_PERCPU_ARRAY(data_in_the_making, struct rst_data, 1);
#endif

/* What is looked for a moment later only. A hash map takes 0.2 us to write to; here what is written later
 * takes the place of what was there: see place_of(). */
BPF_ARRAY(looked_at, __u64, TRACKED); /* sockets and packets, by a first look */
BPF_ARRAY(old_states, struct old_state, TRACKED); /* by socket */
BPF_ARRAY(awaiting, struct awaited, TRACKED); /* by socket */
BPF_ARRAY(arrivals, struct waiting, TRACKED); /* see waiting_for() */
BPF_ARRAY(numbers, struct numbered, 2 * TRACKED);
BPF_ARRAY(sents, struct sent, TRACKED);
/* Who uses a socket, by its address, and who had one that is closed, by its ends as arrivals have them:
 * a closed socket's memory is another one's soon, but its ports are not. */
BPF_ARRAY(owners, struct owner, 1 << OWNERS_BITS);
BPF_ARRAY(past_owners, struct owner, 1 << OWNERS_BITS);

/* Filled once before anything is attached. */
BPF_HASH(only_netns, __u32, __u8, 1024);
BPF_HASH(only_ports, __u16, __u8, 1024);
BPF_LPM_TRIE(only_nets, struct net_key, __u8, 1024);

/* Never written: what new map entries start from (they are too large for the stack). */
BPF_ARRAY(zero_track, struct track, 1);
BPF_ARRAY(zero_peer, struct rst_peer, 1);
BPF_ARRAY(zero_pending, struct pending, 1);
BPF_ARRAY(zero_unread, struct unread, 1);
BPF_ARRAY(zero_fragments, struct fragments, 1);
BPF_ARRAY(zero_event, struct rst_event, 1);

/* The compiler leaves what is written before in front of what is written after. */
#define IN_THIS_ORDER __asm__ volatile("" ::: "memory")

/* Where an array of so many entries has what is known by this number. The entry says whether it is that:
 * what its writer sets to 0 first and writes last. */
INLINE __u32 place_of(__u64 number, const int bits)
{
	return (number * 0x9e3779b97f4a7c15ULL) >> (64 - bits);
}
