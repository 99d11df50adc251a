/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The event: what one reset looks like on its way from the kernel to Python. This is its one
 * definition: rsttrace/kernel/decode.py reads this file too. Numbers that Python knows as well come
 * from there, in config.h (rsttrace/kernel/config.py). Only fixed-width members, naturally
 * aligned, with explicit padding; the loader checks the total size on both sides.
 *
 * Times are CLOCK_MONOTONIC nanoseconds. Addresses are 16 bytes in network order, IPv4 as
 * ::ffff:a.b.c.d. Ports and everything else are in host byte order.
 */
#ifndef RSTTRACE_EVENT_H
#define RSTTRACE_EVENT_H

#include "config.h"

#define HEADER 60   /* longest IPv4 and TCP headers (RFC 791, RFC 9293) */
#define COMM 16     /* TASK_COMM_LEN */
#define OPTIONS 40  /* longest TCP options */
#define SHELF 8

/* A packet at one interface. */
struct rst_frame {
	__u32 netns;
	__u32 ifindex;
	__u8 mac[6];      /* source MAC; valid if has_mac */
	__u8 has_mac;
	__u8 ttl;
};

/* A packet's headers as they were; l3 and l4 may carry trailing bytes that are not theirs. */
struct rst_headers {
	__u8 l3[HEADER];
	__u8 l4[HEADER];
	__u32 payload_len;
	__u8 present;
	__u8 kept;        /* bytes of l4 that are the packet's: TCP header, and payload behind it */
	__u8 pad[2];
};

/* A task: the one that wrote or closed, or the one that connected. */
struct rst_task {
	__u32 pid;        /* tgid in the initial pid namespace */
	__u32 uid;
	__u8 comm[COMM];
	__u32 exit_code;  /* as wait(2) has it; valid if exiting. Of who had a socket reset only */
	__u8 exiting;     /* it ran no more: the kernel was closing its files */
	__u8 pad[3];
	__u64 cgroup;     /* its cgroup v2 id */
};

/* The socket. */
struct rst_socket {
	__u64 address;    /* kernel address: identity only */
	__u64 cookie;     /* 0: none assigned yet */
	__u64 inode;      /* 0: orphaned or not a full socket */
	__u64 cgroup;     /* cgroup v2 id; 0: unknown */
	__u32 netns;
	__u32 uid;
	__u32 srtt_us;    /* 0: not measured */
	__u32 min_rtt_us; /* 0xffffffff: not measured */
	__u32 rcv_nxt;
	__u32 snd_nxt;
	__u8 local[16];
	__u8 remote[16];
	__u16 lport;
	__u16 rport;
	__u8 state;       /* before the reset */
	__u8 full;        /* a full socket: the tcp_sock members are valid */
	__u8 present;
	__u8 owned;       /* locked by a task: current is that task (sk_lock.owned) */
	__u8 state_now;   /* at the reset itself: CLOSE where the reset followed tcp_set_state() */
	__u8 pad[3];
	__u32 unread;     /* sequence numbers (data, FIN) received that no program has read */
};

/* What else a socket tells of why: its timers, a listener's queue, what is left of a minisocket. */
struct rst_detail {
	__u32 silent_ms;     /* since the peer was last heard */
	__u32 user_timeout_ms; /* TCP_USER_TIMEOUT; 0: not set */
	__u32 keepalive_idle_ms;
	__u32 keepalive_interval_ms;
	__u32 keepalive_probes; /* how many are sent */
	__u32 queued;        /* connections that wait for accept() */
	__u32 queue_max;     /* more than so many are too many */
	__u32 rcv_nxt;       /* of a minisocket */
	__u8 has_timers;     /* valid: silent_ms to keepalive_probes, unanswered, retransmits */
	__u8 unanswered;     /* keepalive or window probes */
	__u8 retransmits;
	__u8 has_queue;      /* valid: queued, queue_max, aborts_on_overflow */
	__u8 aborts_on_overflow; /* net.ipv4.tcp_abort_on_overflow */
	__u8 substate;       /* of a minisocket: TIME_WAIT or FIN_WAIT2; 0: it is none */
	__u8 rfc1337;        /* of a minisocket's namespace: net.ipv4.tcp_rfc1337 */
	__u8 pad;
};

/* How this node made a RST, for the end that receives it. */
struct rst_made {
	struct rst_task task;
	__u32 netns;
	__u8 present;
	__u8 kind;
	__u8 hook;        /* netfilter hook number + 1; 0: unknown */
	__u8 has_task;    /* task is the one that wrote the packet */
	__u8 source[16];  /* its source address as it left, before NAT elsewhere */
};

/* One earlier packet of a flow. */
struct rst_seen {
	__u64 ts;
	__u32 seq;
	__u32 ack;
	__u32 payload_len;
	__u32 tsval;      /* valid if stamped */
	__u32 tsecr;
	__u16 ip_id;
	__u16 window;
	__u16 segments;   /* wire packets in this offloaded buffer */
	__u8 flags;
	__u8 ttl;
	__u8 df;
	__u8 tos;         /* of IPv6: the traffic class */
	__u8 stamped;     /* TCP timestamps (RFC 7323) */
	__u8 pad;
};

/* A TTL that packets of one direction came with. */
struct rst_ttl {
	__u64 first_ts;
	__u64 last_ts;
	__u32 packets;    /* whose numbers, timestamps and flags fit */
	__u32 strange;    /* the others */
	__u8 ttl;
	__u8 pad[7];
};

/* What a direction's own clock said, and when. */
struct rst_clock {
	__u64 ts;         /* 0: nothing yet */
	__u32 tsval;
	__u32 pad;
};

/* One direction of a flow. But for `ttls`, `strange` and `new_syn`, only packets that fit count: see
 * flow.h. */
struct rst_half {
	/* What most packets look at, and write: one line of the CPU's cache. */
	__u64 last_ts;
	__u64 dev;        /* the kernel's address of the device it came in by, + 1: left by; identity only */
	__u32 packets;
	__u32 end;        /* the sequence number after all that was sent: data, SYN, FIN */
	__u32 acked;      /* the highest one it acknowledged */
	__u32 ifindex;
	__u8 mac[6];
	__u8 has_mac;
	__u8 slot;        /* of the newest packet's TTL, in ttls */
	__u32 usual;      /* what a packet must look like to be no news: usual_looks(); 0: any is */
	__u8 has_end;
	__u8 has_acked;
	__u8 has_odd;
	__u8 has_syn;
	__u8 has_new_syn;
	__u8 known_ttl;   /* the handshake's, or else the first packet's */
	__u8 ttl;
	__u8 ttl_min;
	__u8 ttl_max;
	__u8 df_always;
	__u8 timestamps;
	__u8 closed;      /* a FIN or RST went this way */
	__u8 confirmed;   /* it acknowledged something that the other end sent */
	__u8 late;        /* packets told that came after the RST at reset_ts */
	__u8 syn_options_len; /* as the SYN's header says: at most OPTIONS */
	__u8 new_options_len;
	__u8 stamps;      /* timestamps also after the handshake */
	__u8 pad[3];
	struct rst_clock clock[2]; /* the first packet with timestamps, and the newest */
	struct rst_ttl ttls[TTLS];
	__u64 first_ts;
	__u64 fin_ts;     /* of the first FIN; 0: none */
	__u64 strange_ts; /* of the newest packet that did not fit */
	__u64 reset_ts;   /* of the RST whose sender is watched; 0: none */
	__u32 strange;    /* packets that did not fit */
	__u32 syns;       /* how often its SYN or SYN-ACK was sent */
	__u32 reset_seq;  /* of the RST that came at reset_ts */
	__u32 odd_end;    /* of the newest packet whose numbers did not fit */
	__u32 odd_ack;
	__u32 pad2;
	/* From here on it is valid only where a member above says so: clear_half(). */
	struct rst_seen recent[RECENT]; /* a ring: the newest is (packets - 1) % RECENT */
	struct rst_seen syn; /* its SYN or SYN-ACK */
	__u8 syn_options[OPTIONS];
	struct rst_seen new_syn; /* the newest SYN with another number while the flow lived */
	__u8 new_options[OPTIONS];
};

/* A connection in a namespace. One entry serves both directions: the smaller (address, port) comes
 * first. */
struct rst_flow_key {
	__u64 net;        /* net_key() */
	__u8 low[16];
	__u8 high[16];
	__u16 low_port;
	__u16 high_port;
	__u32 pad;
};

/* What is learned of it: an entry of the map `flows`, 20 lines of the CPU's cache. */
struct rst_flow {
	struct rst_flow_key key; /* net 0: nobody's */
	__u32 ports[2];   /* of each half's packets, as they are in their headers */
	__u32 used;       /* since it was last looked at for a place: take_place() in baseline.c */
	__u32 shelf;      /* of `shelves`, on which its place is */
	struct rst_half half[2]; /* [0]: sent by the low end, [1]: by the high end */
	__u64 pad2[2];
};

/* Where flows are: each on the shelf that its key's sum says (sum_of() in flow.h), one line of the CPU's
 * cache. Behind the last one is the seed of these sums. */
struct rst_shelf {
	__u64 places[SHELF]; /* the sum's upper half, and the place + 1; 0: nobody's */
};

/* The newest confirmed handshake of an address. */
struct rst_peer {
	struct rst_seen syn;
	__u8 options[OPTIONS];
	__u32 ifindex;
	__u8 options_len;
	__u8 has_mac;
	__u8 mac[6];
	__u8 ttls[PEER_TTLS]; /* of its confirmed handshakes, newest first; 0: none */
	__u8 known;
	__u8 pad[3];
};

/* The last packet with data that a socket sent, where it is kept (--payload). */
struct rst_data {
	__u64 ts;
	__u32 kept;       /* valid bytes of payload; 0: nothing is known */
	__u32 pad;
	struct rst_headers headers;
	__u8 payload[PAYLOAD_MAX];
};

struct rst_event {
	__u64 ts;
	__u64 skb;        /* kernel address: identity only, together with ts */
	__u64 net;        /* the namespace's cookie, or its inode number: identity only */
	__u32 netns;
	__u32 reason;     /* sk_rst_reason (sent) or NO_REASON */
	__u32 drop_reason; /* skb_drop_reason (received) or NO_REASON */
	__u32 bucket;     /* of `buckets`, from which it was let through; 0: none */
	__u8 kind;        /* KIND_LATE: no RST, but a packet that came after one, in `rst`; with SCOPE_PEER
			   * what it confirmed, in `peer` */
	__u8 scope;       /* SCOPE_…: what `theirs` was learned from */
	__u8 hook;        /* netfilter hook number + 1; 0: unknown */
	__u8 has_owner;   /* owner: the task that connected or closed this socket */
	__u8 reason_follows; /* in a struct rst_reason, most likely */
	__u8 has_ingress;
	__u8 has_actor;   /* actor: the task that had somebody else's socket reset (ss -K) */
	__u8 judged;      /* sock: from the function that judged the RST, not from kfree_skb */
	__u64 bucket_key; /* whose that bucket was then */
	struct rst_frame here;
	struct rst_frame ingress;
	struct rst_made made;
	struct rst_headers rst; /* not present: they could not be read (accepted_unread()) */
	struct rst_headers trigger;
	struct rst_socket sock;
	struct rst_detail detail;
	struct rst_task owner;
	struct rst_task actor;
	struct rst_half theirs;
	struct rst_half ours;
	struct rst_peer peer;
	struct rst_data data; /* sent over the ring only with --payload */
};

/* What resets that are alike share (bpf/storm.c): how many are told in detail, and a count of the
 * others. Python reads it through the map's memory, and writes `told`. */
struct rst_bucket {
	__u64 key;        /* of what they have in common; 0: nobody's yet */
	__u64 counted;    /* resets that were counted in place of being sent: only ever grows */
	__u64 told;       /* so many of these have had their line: Python's */
	__u64 first_ts;   /* of the first one counted since */
	__u64 last_ts;    /* of the newest one counted */
	__u64 used_ts;
	__u64 full_ts;    /* when it will have all its tokens again */
	__u64 births_ts;  /* likewise, of the tokens for new buckets below this one */
	__u32 sampled;    /* one at least was sent */
	__u32 level;      /* LEVEL_… */
	__u32 kind;
	__u32 passed;     /* counted since it last gave a token */
};

/* How much of the ring buffer a kind has, in bytes since the start. */
struct rst_room {
	__u64 sent;
	__u64 read;       /* Python's */
};

/* Why a RST was sent, where the kernel says so only after it has left (tcp_send_active_reset). */
struct rst_reason {
	__u64 ts;         /* of the rst_event that it belongs to */
	__u64 skb;        /* likewise */
	__u32 reason;     /* sk_rst_reason */
	__u32 pad;
};

#endif
