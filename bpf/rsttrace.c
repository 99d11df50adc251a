/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * rsttrace's kernel side: maps, filter, emit, and thin probes.
 *
 * The packet layer (netif_receive_skb, net_dev_queue, kfree_skb) sees every RST; the cause layer
 * (tcp_send_reset, tcp_receive_reset or the functions around them) explains it. A RST is followed
 * by its skb's address, which outlives NAT, veth pairs and network namespaces; it becomes an event
 * only where it was seen to leave or seen to be consumed, so a cause alone is never an event.
 *
 * Map methods (events.*, flows.*) work in this file only: bcc rewrites no header.
 */
#include <linux/types.h>
#include "config.h"
#include "event.h"
#include "kernel.h"
#include "flow.h"

enum { PHASE_IN = 1, PHASE_OUT = 2, PHASE_TOLD = 3 };
enum { SCOPE_NONE, SCOPE_FLOW, SCOPE_PEER };
enum { COUNT_SHOWN, COUNT_FILTERED, COUNT_LOST, COUNT_KINDS };

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
	struct sent_key key; /* its own key and value in `sents`: the stack has no room for them */
	struct sent sent;
};

/* Why the stack decided to send a RST; waits for the packet. */
struct pending {
	__u64 ts;
	__u32 reason;
	__s32 expected; /* packets: several wait where the neighbour is being resolved; 0: all left */
	__u8 kind;
	__u8 hook;
	__u8 pad[6];
	struct rst_headers trigger;
	struct rst_socket sock;
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
	__u64 skb[WAITING];
};

struct sequence_key {
	__u64 net; /* net_key() */
	__u32 number;
	__u32 is_ack;
};

struct old_state {
	__u64 ts;
	__u8 state;
	__u8 pad[7];
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

struct net_key {
	__u32 prefixlen;
	__u8 addr[16];
};

struct peer_ttls {
	__u8 ttl[PEER_TTLS]; /* neighbours differ: a run of the same TTL is kept once */
};

#define KIND_LATE KIND_COUNT

#ifndef FLOWS
#define FLOWS 16384
#endif
#define TRACKED 8192
#define ANY_NET 0 /* no namespace has this key */

BPF_RINGBUF_OUTPUT(events, RING_PAGES);
BPF_PERCPU_ARRAY(counts, __u64, (KIND_COUNT + 1) * COUNT_KINDS); /* KIND_LATE is the last */

BPF_TABLE("lru_hash", struct flow_key, struct flow, flows, FLOWS);
BPF_TABLE("lru_hash", struct peer_key, struct rst_half, peers, 4096);
BPF_TABLE("lru_hash", struct peer_key, struct peer_ttls, ttls_of, 4096);
BPF_TABLE("lru_hash", __u64, struct track, tracks, TRACKED);
BPF_TABLE("lru_hash", struct arrival_key, struct waiting, arrivals, TRACKED);
BPF_TABLE("lru_hash", struct sequence_key, __u64, sequences, TRACKED);
BPF_TABLE("lru_hash", struct answer_key, struct pending, pendings, TRACKED);
BPF_TABLE("hash", __u64, struct rst_event, held, 1024); /* in the making: deleted at once */
BPF_TABLE("lru_hash", __u64, struct active_reason, reasons, 1024);
BPF_TABLE("lru_hash", struct sent_key, struct sent, sents, TRACKED);
BPF_TABLE("lru_hash", __u64, __u8, in_neighbour, 1024); /* tasks inside neigh_update() */
BPF_TABLE("lru_hash", __u64, struct old_state, old_states, TRACKED);
BPF_TABLE("lru_hash", __u64, struct rst_task, owners, TRACKED);
#if PAYLOAD
BPF_TABLE("lru_hash", __u64, struct rst_data, sent_data, TRACKED); /* by socket cookie */
BPF_PERCPU_ARRAY(data_in_the_making, struct rst_data, 1);
#endif
BPF_TABLE("lru_hash", __u64, __u8, looked_at, 1024); /* sockets and packets, by a first look */

/* Filled once before anything is attached. */
BPF_HASH(only_netns, __u32, __u8, 1024);
BPF_HASH(only_ports, __u16, __u8, 1024);
BPF_LPM_TRIE(only_nets, struct net_key, __u8, 1024);

/* Never written: what new map entries start from (they are too large for the stack). */
BPF_ARRAY(zero_track, struct track, 1);
BPF_ARRAY(zero_flow, struct flow, 1);
BPF_ARRAY(zero_half, struct rst_half, 1);
BPF_ARRAY(zero_pending, struct pending, 1);
BPF_ARRAY(zero_event, struct rst_event, 1);

/* ---- first and second look ----
 *
 * The stack drops, resets and changes state in process context too. A softirq that comes while one
 * of our programs runs there finds it running on its CPU, and the kernel skips it (bpf_prog.active;
 * kprobe_running() for kprobes). So these are looked at by two programs: while the first is running,
 * the second is not. What the first look has dealt with, the second leaves alone. */

INLINE void looked(__u64 object)
{
	__u8 one = 1;

	looked_at.update(&object, &one);
}

INLINE int was_looked_at(__u64 object)
{
	if (!looked_at.lookup(&object))
		return 0;
	looked_at.delete(&object);
	return 1;
}

/* ---- filter ---- */

INLINE int address_wanted(const __u8 *addr)
{
	struct net_key key = { .prefixlen = 128 };

	__builtin_memcpy(key.addr, addr, 16);
	return only_nets.lookup(&key) != 0;
}

INLINE int wanted(__u32 netns, const __u8 *a, const __u8 *b, __u16 port_a, __u16 port_b)
{
	if (FILTER_NETNS && !only_netns.lookup(&netns))
		return 0;
	if (FILTER_PORTS && !only_ports.lookup(&port_a) && !only_ports.lookup(&port_b))
		return 0;
	if (FILTER_NETS && !address_wanted(a) && !address_wanted(b))
		return 0;
	return 1;
}

INLINE void count(__u32 kind, __u32 what)
{
	__u32 index = kind * COUNT_KINDS + what;
	__u64 *value = counts.lookup(&index);

	if (value)
		*value += 1;
}

INLINE int event_wanted(const struct rst_event *e, const struct tuple *wire)
{
	const struct rst_socket *s = &e->sock;

	if (!(KIND_MASK & (1 << e->kind)))
		return 0;
	/* As the socket sees it, or as it is on the wire: NAT may make them differ. */
	if (s->present && s->rport && wanted(e->netns, s->local, s->remote, s->lport, s->rport))
		return 1;
	return wanted(e->netns, wire->saddr, wire->daddr, wire->sport, wire->dport);
}

/* ---- baseline ---- */

INLINE void learn_handshake(const struct rst_half *h, __u64 net, const struct parsed *p)
{
	struct peer_key peer = { .net = net };
	struct peer_ttls one = {}, *known;

	__builtin_memcpy(peer.addr, p->t.saddr, 16);
	peers.update(&peer, (struct rst_half *)h);
	known = ttls_of.lookup(&peer);
	if (!known) {
		one.ttl[0] = p->ttl;
		ttls_of.update(&peer, &one);
		return;
	}
	if (known->ttl[0] == p->ttl)
		return;
#pragma unroll
	for (int i = PEER_TTLS - 1; i > 0; i--)
		known->ttl[i] = known->ttl[i - 1];
	known->ttl[0] = p->ttl;
}

INLINE int is_sent(__u8 kind)
{
	return kind == KIND_SENT_PASSIVE || kind == KIND_SENT_ACTIVE ||
	       kind == KIND_SENT_NETFILTER || kind == KIND_SENT_RAW;
}

INLINE void emit(struct rst_event *e);
INLINE void fill_data(struct rst_event *e);
INLINE struct rst_event *new_event(__u64 key, __u32 kind);

/* What comes from the peer after "its" RST. */
INLINE void tell_late(const struct parsed *p, const void *skb, const struct rst_frame *frame,
		      __u64 net, __u64 now)
{
	struct rst_event *e = new_event((__u64)skb, KIND_LATE);
	__u64 key = (__u64)skb;

	if (!e)
		return;
	e->ts = now;
	e->kind = KIND_LATE;
	e->net = net;
	e->here = *frame;
	e->netns = frame->netns;
	fill_headers(&e->rst, p);
	emit(e);
	held.delete(&key);
}

INLINE void learn(const struct parsed *p, const void *skb, const struct rst_frame *frame,
		  const void *net)
{
	struct flow_key key = {};
	__u64 now = bpf_ktime_get_ns();
	struct flow *f, *empty;
	struct rst_half *h;
	__u32 zero = 0, only;
	int high;

	/* Of the filters only the namespace's: NAT may make the wire differ from what was asked for. */
	only = net_inum(net);
	if (FILTER_NETNS && !only_netns.lookup(&only))
		return;
	high = make_flow_key(&key, net_key(net), &p->t);
	f = flows.lookup(&key);
	if (!f) {
		empty = zero_flow.lookup(&zero);
		if (!empty)
			return;
		flows.update(&key, empty);
		f = flows.lookup(&key);
		if (!f)
			return;
	}
	h = high ? &f->half[1] : &f->half[0];
	if (begins_anew(f, h, p, now))
		__builtin_memset(f, 0, sizeof(*f));
	stop_watching(f, p);
	if (frame && is_late(h, p, now))
		tell_late(p, skb, frame, key.net, now);
	learn_packet(h, p, skb, frame, now);
	if (frame && (p->flags & TH_SYN))
		learn_handshake(h, key.net, p);
}

/* A RST that counts ends the flow: a SYN may begin a new one on the same tuple then. */
INLINE int ends_flow(__u8 kind)
{
	return kind != KIND_RECEIVED_REJECTED && kind != KIND_RECEIVED_UNMATCHED &&
	       kind != KIND_FORWARDED;
}

INLINE void fill_baseline(struct rst_event *e, __u64 net, const struct tuple *t, __u32 rst_seq)
{
	struct flow_key key = {};
	struct peer_key peer = { .net = net };
	const struct rst_half *p;
	struct peer_ttls *ttls;
	struct flow *f;
	int high;

	if (!BASELINE)
		return;
	__builtin_memcpy(peer.addr, t->saddr, 16);
	ttls = ttls_of.lookup(&peer);
	if (ttls)
		__builtin_memcpy(e->peer_ttls, ttls->ttl, PEER_TTLS);
	high = make_flow_key(&key, net, t);
	f = flows.lookup(&key);
	if (f) {
		struct rst_half *theirs = high ? &f->half[1] : &f->half[0];
		struct rst_half *ours = high ? &f->half[0] : &f->half[1];

		bpf_probe_read_kernel(&e->theirs, sizeof(e->theirs), theirs);
		bpf_probe_read_kernel(&e->ours, sizeof(e->ours), ours);
		if (ends_flow(e->kind))
			theirs->closed = 1;
		if (!is_sent(e->kind) &&
		    (!theirs->reset_ts || since(e->ts, theirs->reset_ts) > LATE_FOR)) {
			theirs->reset_ts = e->ts;
			theirs->reset_seq = rst_seq;
			theirs->late = 0;
		}
		if (e->theirs.packets) {
			e->scope = SCOPE_FLOW;
			return;
		}
	}
	p = peers.lookup(&peer);
	if (p) {
		bpf_probe_read_kernel(&e->theirs, sizeof(e->theirs), p);
		e->scope = SCOPE_PEER;
	}
}

/* ---- emit ---- */

INLINE int filtered(const struct rst_event *e, const struct tuple *wire)
{
	if (event_wanted(e, wire))
		return 0;
	count(e->kind, COUNT_FILTERED);
	return 1;
}

INLINE void emit(struct rst_event *e)
{
	if (events.ringbuf_output(e, PAYLOAD ? sizeof(*e) : sizeof(*e) - sizeof(e->data), 0))
		count(e->kind, COUNT_LOST);
	else
		count(e->kind, COUNT_SHOWN);
}

INLINE struct rst_event *new_event(__u64 key, __u32 kind)
{
	__u32 zero = 0;
	struct rst_event *empty = zero_event.lookup(&zero);

	if (!empty || held.update(&key, empty)) {
		count(kind, COUNT_LOST);
		return 0;
	}
	return held.lookup(&key);
}

/* The state before tcp_set_state(TCP_CLOSE), which comes just before an active reset, and before
 * the answer to data that comes after shutdown(). */
INLINE void fix_state(struct rst_socket *sock)
{
	struct old_state *old;

	if (sock->state != ST_CLOSE)
		return;
	old = old_states.lookup(&sock->address);
	if (old && since(bpf_ktime_get_ns(), old->ts) < SECOND)
		sock->state = old->state;
}

INLINE void fill_owner(struct rst_event *e)
{
	struct rst_task *owner;

	/* close() and disconnect() hold the socket's lock and have set CLOSE; the task is the owner.
	 * tcp_abort() (ss -K) holds the lock too, but the state is still the old one: not the owner. */
	if (e->kind == KIND_SENT_ACTIVE && e->sock.owned && e->sock.state == ST_CLOSE) {
		fill_task(&e->owner);
		e->has_owner = 1;
		return;
	}
	if (e->kind == KIND_SENT_ACTIVE && e->sock.owned) {
		fill_task(&e->actor);
		e->has_actor = 1;
	}
	owner = owners.lookup(&e->sock.address);
	if (owner) {
		bpf_probe_read_kernel(&e->owner, sizeof(e->owner), owner);
		e->has_owner = 1;
	}
}

/* ---- the packet layer ---- */

INLINE int same_packet(const struct track *t, const struct parsed *p)
{
	return since(bpf_ktime_get_ns(), t->ts) < 10 * SECOND && t->seq == p->seq &&
	       t->ack == p->ack && t->flags == p->flags && t->ip_id == p->ip_id;
}

INLINE struct track *new_track(__u64 skb, const struct parsed *p)
{
	__u32 zero = 0;
	struct track *empty = zero_track.lookup(&zero), *t;

	if (!empty)
		return 0;
	tracks.update(&skb, empty);
	t = tracks.lookup(&skb);
	if (!t)
		return 0;
	t->seq = p->seq;
	t->ack = p->ack;
	t->flags = p->flags;
	t->ip_id = p->ip_id;
	t->ts = bpf_ktime_get_ns();
	return t;
}

INLINE int is_waiting(__u64 skb)
{
	struct track *t = skb ? tracks.lookup(&skb) : 0;

	return t && t->phase == PHASE_IN && since(bpf_ktime_get_ns(), t->ts) < 2 * SECOND;
}

/* A free place. Two CPUs may look for one at once: each begins elsewhere. */
INLINE void enqueue(struct waiting *w, __u64 skb)
{
	__u32 start = bpf_get_smp_processor_id();

#pragma unroll
	for (int i = 0; i < WAITING; i++) {
		__u32 at = (start + i) & (WAITING - 1);

		if (w->skb[at] == skb || !is_waiting(w->skb[at])) {
			w->skb[at] = skb;
			return;
		}
	}
	w->skb[start & (WAITING - 1)] = skb;
}

INLINE void remember(struct arrival_key *arrival, __u64 skb)
{
	struct waiting *waiting = arrivals.lookup(arrival);
	struct waiting none = {};

	if (!waiting) {
		arrivals.insert(arrival, &none); /* or another CPU does */
		waiting = arrivals.lookup(arrival);
	}
	if (waiting)
		enqueue(waiting, skb);
}

/* The entry stays, for another CPU may just be using it; in time the map drops it. */
INLINE void unremember(struct arrival_key *arrival, __u64 skb)
{
	struct waiting *waiting = arrivals.lookup(arrival);

	if (!waiting)
		return;
#pragma unroll
	for (int i = 0; i < WAITING; i++) {
		if (waiting->skb[i] == skb)
			waiting->skb[i] = 0;
	}
}

INLINE void arrived(__u64 skb, const void *dev, const struct parsed *p)
{
	struct track *t = tracks.lookup(&skb);
	struct arrival_key arrival = {};
	struct sequence_key sequence = {};
	struct rst_frame frame = {};

	fill_frame(&frame, (void *)skb, dev, p->ttl);
	if (t && (!same_packet(t, p) ||
		  (t->phase == PHASE_IN && t->here.netns == frame.netns &&
		   t->here.ifindex == frame.ifindex)))
		t = 0; /* the skb's memory is another packet now (perhaps the same RST, sent again) */
	if (!t) {
		t = new_track(skb, p);
		if (!t) {
			count(KIND_RECEIVED_UNMATCHED, COUNT_LOST);
			return;
		}
		t->ingress = frame;
		t->has_ingress = 1;
	} else if (t->phase == PHASE_IN && t->here.netns == frame.netns) {
		return; /* a bridge behind its port: the first sight in a namespace counts */
	}
	t->phase = PHASE_IN;
	t->forwarded = t->no_socket = t->handshake = 0;
	t->sk = 0;
	t->ts = bpf_ktime_get_ns();
	t->here = frame;
	t->t = p->t;
	t->net = net_key(net_of_dev(dev));
	fill_headers(&t->rst, p);

	arrival.net = sequence.net = t->net;
	arrival.t = p->t;
	remember(&arrival, skb);
	arrival.net = ANY_NET;
	remember(&arrival, skb);
	sequence.number = p->seq;
	sequences.update(&sequence, &skb);
	if (p->flags & TH_ACK) {
		sequence.number = p->ack;
		sequence.is_ack = 1;
		sequences.update(&sequence, &skb);
	}
}

int rt_netif_receive_skb(struct bpf_raw_tracepoint_args *ctx)
{
	const void *skb = (const void *)ctx->args[0], *dev;
	const __u8 *l3 = l3_received(skb);
	struct rst_frame frame = {};
	struct parsed p = {};

	if (!l3 || !parse(l3, &p))
		return 0;
	dev = GET(const void *, skb, skb_dev);
	if (p.flags & TH_RST) {
		arrived((__u64)skb, dev, &p);
		return 0;
	}
	if (!BASELINE)
		return 0;
	fill_frame(&frame, skb, dev, p.ttl);
	learn(&p, skb, &frame, net_of_dev(dev));
	return 0;
}

/* The owner of an answer: the socket it answers for (ip_send_unicast_reply's orig_sk, newer
 * kernels), or the stack's control socket, which has no file (inet_ctl_sock_create). */
INLINE int is_answering(const void *sk, __u8 state)
{
	const void *socket;

	if (!is_full(state) || state == ST_LISTEN)
		return 1;
	if (GET(__u16, sk, sk_type) == SOCK_STREAM_)
		return 0;
	socket = GET(const void *, sk, sk_socket);
	return socket && !GET(const void *, socket, socket_file);
}

/* Who made an IPv6 RST that has no socket and that no probe announced: tcp_v6_send_response() leaves
 * the checksum to the device (csum_start and csum_offset say where), nf_send_reset6() computes it. */
INLINE int checksum_left_to_device(const void *skb, const struct parsed *p)
{
	const __u8 *head = GET(const __u8 *, skb, skb_head);

	return GET(__u16, skb, skb_csum_offset) == 16 &&
	       head + GET(__u16, skb, skb_csum_start) == p->l4;
}

INLINE int is_ipv6(const struct parsed *p)
{
	__u8 version = 0;

	bpf_probe_read_kernel(&version, 1, p->l3);
	return (version >> 4) == 6;
}

INLINE int is_tcp(const void *sk)
{
	return GET(__u16, sk, sk_type) == SOCK_STREAM_ && GET(__u16, sk, sk_family) != AF_PACKET_;
}

/* A process's raw or packet socket, perhaps closed meanwhile; the stack's own control sockets are
 * open, but have no file. */
INLINE int is_raw(const void *sk, __u8 state)
{
	const void *socket;

	if (!is_full(state) || is_tcp(sk))
		return 0;
	socket = GET(const void *, sk, sk_socket);
	return !socket || GET(const void *, socket, socket_file);
}

/* Whether a decision to answer fits the packet: fresh, and one port at least (NAT) is the other
 * way round. */
INLINE int answers(const struct pending *pending, const struct parsed *p, __u64 now)
{
	return since(now, pending->ts) < 5 * SECOND &&
	       (be16(pending->trigger.l4) == p->t.dport || be16(pending->trigger.l4 + 2) == p->t.sport);
}

/* A clone shares its data; a copy (nft dup) comes at once and has no sender of its own. */
INLINE int is_copy(const struct sent *sent, const void *skb, const void *sk, __u64 now)
{
	const char *head = GET(const char *, skb, skb_head);

	if (since(now, sent->ts) > SECOND)
		return 0;
	if (sent->head == (__u64)head &&
	    (GET(__u32, head + GET(__u32, skb, skb_end), shinfo_dataref) & 0xffff) > 1)
		return 1;
	return !sk && sent->kind != KIND_SENT_NETFILTER && since(now, sent->ts) < 2000000;
}

/* A RST this namespace made leaves it. */
INLINE void leaves(__u64 skb, const void *dev, const struct parsed *p)
{
	struct answer_key answer = {};
	struct sent *before;
	struct pending *pending = 0;
	struct active_reason *why;
	struct rst_event *e;
	struct track *t, *original;
	const void *sk = GET(const void *, skb, skb_sk);
	__u64 now = bpf_ktime_get_ns(), sk_key = (__u64)sk, task;
	__u8 state = 0, hold = 0, raw = 0;

	if (sk) {
		state = GET(__u8, sk, sk_state);
		raw = is_raw(sk, state);
	}
	t = new_track(skb, p);
	if (!t) {
		count(KIND_SENT_PASSIVE, COUNT_LOST);
		return;
	}
	answer.net = t->key.net = net_key(net_of_dev(dev));
	answer.seq = t->key.seq = p->seq;
	answer.ack = t->key.ack = p->ack;
	t->key.t = p->t;
	t->key.ip_id = p->ip_id;
	t->key.flags = p->flags;
	if (!raw)
		pending = pendings.lookup(&answer);
	if (pending && (pending->expected <= 0 || !answers(pending, p, now)))
		pending = 0;
	before = pending || raw ? 0 : sents.lookup(&t->key);
	t->phase = PHASE_OUT;
	t->net = answer.net;
	if (before && is_copy(before, (const void *)skb, sk, now)) {
		sk_key = before->skb;
		original = tracks.lookup(&sk_key);
		if (original) {
			t->made = original->made;
			t->here = original->here;
		}
		return;
	}
	e = new_event(sk ? sk_key : skb, KIND_SENT_PASSIVE);
	if (!e)
		return;
	e->ts = t->ts;
	e->skb = skb;
	e->net = answer.net;
	e->reason = e->drop_reason = NO_REASON;
	e->here.ifindex = GET(__u32, dev, dev_ifindex);
	e->here.netns = e->netns = net_inum(net_of_dev(dev));
	e->here.ttl = p->ttl;
	fill_headers(&e->rst, p);

	if (pending) { /* an active RST has both numbers, an answer only one: no mix-up */
		e->kind = pending->kind;
		e->reason = pending->reason;
		e->hook = pending->hook;
		bpf_probe_read_kernel(&e->trigger, sizeof(e->trigger), &pending->trigger);
		bpf_probe_read_kernel(&e->sock, sizeof(e->sock), &pending->sock);
		/* Not deleted: another CPU may just be expecting one more, the same to the last bit. */
		__sync_fetch_and_add(&pending->expected, -1);
		if (e->sock.present)
			fill_owner(e);
	} else if (raw) {
		e->kind = KIND_SENT_RAW;
		fill_writer(&e->sock, sk);
		e->sock.netns = e->netns;
		/* sendto() runs in the writer's context down to here, unless the packet had to wait for
		 * its neighbour: then we are in whatever neigh_update() interrupted. */
		task = bpf_get_current_pid_tgid();
		if (task && !in_neighbour.lookup(&task)) {
			fill_task(&e->owner);
			e->has_owner = 1;
		}
	} else if (sk && is_answering(sk, state)) {
		e->kind = KIND_SENT_PASSIVE; /* its cause was missed */
	} else if (sk && is_tcp(sk)) {
		e->kind = KIND_SENT_ACTIVE;
		fill_socket(&e->sock, sk);
		why = reasons.lookup(&sk_key);
		if (why && (since(now, why->ts) < SECOND ||
			    (since(now, why->ts) < 30 * SECOND && why->seq == p->seq))) {
			e->reason = why->reason;
			e->sock.owned = why->owned;
			e->sock.state_now = why->state_now;
			if (why->owned && why->state_now == ST_CLOSE) {
				e->owner = why->task;
				e->has_owner = 1;
			} else {
				e->sock.owned = 0; /* whoever runs now is not the one */
				fill_owner(e);
				e->sock.owned = why->owned;
				e->actor = why->task;
				e->has_actor = why->owned;
			}
			reasons.delete(&sk_key);
		} else {
			fill_owner(e);
			hold = ACTIVE_REASON_FOLLOWS;
		}
		fix_state(&e->sock);
	} else if (is_ipv6(p) && checksum_left_to_device((const void *)skb, p)) {
		e->kind = KIND_SENT_PASSIVE; /* before 6.10, tcp_send_reset is silent without a socket */
	} else {
		e->kind = KIND_SENT_NETFILTER;
	}
	fill_baseline(e, t->net, &p->t, p->seq);

	t->here = e->here;
	t->made.present = 1;
	t->made.netns = e->netns;
	t->made.kind = e->kind;
	t->made.hook = e->hook;
	__builtin_memcpy(t->made.source, p->t.saddr, 16);
	if (e->has_owner) {
		t->made.task = e->owner;
		t->made.has_task = 1;
	}
	t->sent.ts = now;
	t->sent.head = (__u64)GET(const char *, skb, skb_head);
	t->sent.skb = skb;
	t->sent.kind = e->kind;
	sents.update(&t->key, &t->sent);
	if (!filtered(e, &p->t)) {
		if (hold)
			return; /* tcp_send_reset, which follows at once, completes it */
		emit(e);
	}
	if (!sk)
		sk_key = skb;
	held.delete(&sk_key);
}

/* The same memory, and in it the same RST once more, sent again: it was made here, though the one
 * before it had come in, or leaves by the device by which that one has left. (That one's end was not
 * seen: a network card freed it, or a kernel without drop reasons did.) */
INLINE int is_sent_again(const struct track *t, const void *skb, const void *dev)
{
	if (GET(__u32, skb, skb_iif))
		return 0;
	return t->phase != PHASE_OUT || t->here.ifindex == GET(__u32, dev, dev_ifindex);
}

INLINE void fill_received(struct rst_event *e, const struct track *t, __u64 skb)
{
	e->ts = t->ts;
	e->skb = skb;
	e->netns = t->here.netns;
	e->net = t->net;
	e->reason = e->drop_reason = NO_REASON;
	e->here = t->here;
	e->ingress = t->ingress;
	e->has_ingress = t->has_ingress;
	e->made = t->made;
	bpf_probe_read_kernel(&e->rst, sizeof(e->rst), &t->rst);
	fill_baseline(e, t->net, &t->t, t->seq);
}

int rt_net_dev_queue(struct bpf_raw_tracepoint_args *ctx)
{
	const void *skb = (const void *)ctx->args[0], *dev;
	const __u8 *l3 = l3_at_offset(skb);
	struct parsed p = {};
	struct rst_event *e;
	struct track *t;
	__u64 key = (__u64)skb;

	if (!l3 || !parse(l3, &p))
		return 0;
	dev = GET(const void *, skb, skb_dev);
	if (!(p.flags & TH_RST)) {
		/* Forwarded packets and loopback's were or will be learned where they come in. */
		if (!BASELINE || GET(__u32, skb, skb_iif) || (GET(__u32, dev, dev_flags) & IFF_LOOPBACK_))
			return 0;
		learn(&p, skb, 0, net_of_dev(dev));
		return 0;
	}
	t = tracks.lookup(&key);
	if (t && (!same_packet(t, &p) || is_sent_again(t, skb, dev)))
		t = 0;
	if (!t) {
		if (!GET(__u32, skb, skb_iif))
			leaves(key, dev, &p);
		return 0;
	}
	if (t->phase == PHASE_OUT)
		return 0; /* a lower device: VLAN, bridge, tunnel */
	t->phase = PHASE_OUT;
	if (t->forwarded || !(KIND_MASK & (1 << KIND_FORWARDED)))
		return 0;
	t->forwarded = 1;
	e = new_event(key, KIND_FORWARDED);
	if (!e)
		return 0;
	e->kind = KIND_FORWARDED;
	fill_received(e, t, key);
	if (!filtered(e, &t->t))
		emit(e);
	held.delete(&key);
	return 0;
}

/* ---- the cause layer: received ---- */

INLINE void forget(__u64 skb, const struct track *t)
{
	struct arrival_key arrival = {};
	struct sequence_key sequence = {};

	arrival.net = sequence.net = t->net;
	arrival.t = t->t;
	unremember(&arrival, skb);
	arrival.net = ANY_NET;
	unremember(&arrival, skb);
	sequence.number = t->seq;
	sequences.delete(&sequence);
	if (t->flags & TH_ACK) {
		sequence.number = t->ack;
		sequence.is_ack = 1;
		sequences.delete(&sequence);
	}
	if (t->phase != PHASE_TOLD)
		tracks.delete(&skb);
}

/* The packet ended in another namespace than where it was seen: a macvlan or VLAN device that was
 * moved away from its lower one. Its own packets were learned there. */
INLINE void move_to(struct rst_event *e, const struct track *t, const void *net, const void *dev)
{
	struct flow_key key = {};
	struct flow *f;
	int high;

	e->net = net_key(net);
	e->netns = e->here.netns = net_inum(net);
	/* TCP takes the device off its packets; skb_iif is the last one that it came in by. */
	e->here.ifindex = dev ? GET(__u32, dev, dev_ifindex) : GET(__u32, e->skb, skb_iif);
	if (!BASELINE || e->ours.packets)
		return;
	high = make_flow_key(&key, e->net, &t->t);
	f = flows.lookup(&key);
	if (f)
		bpf_probe_read_kernel(&e->ours, sizeof(e->ours), high ? &f->half[0] : &f->half[1]);
}

INLINE void emit_received(__u64 skb, struct track *t, __u8 kind, const void *sk, const void *dev,
			  __u32 drop_reason, __u8 local_route)
{
	const void *net = sk ? GET(const void *, sk, sk_net) : net_of_dev(dev);
	struct rst_event *e = new_event(skb, kind);

	if (!e)
		return;
	e->kind = kind;
	fill_received(e, t, skb);
	if (net && net_key(net) != t->net)
		move_to(e, t, net, dev);
	e->drop_reason = drop_reason;
	e->local_route = local_route;
	if (sk) {
		fill_socket(&e->sock, sk);
		e->judged = sk == (const void *)t->sk;
		if (e->judged && t->handshake)
			e->sock.state = ST_SYN_RECV;
		if (e->sock.full && e->sock.state != ST_LISTEN) {
			fill_owner(e);
			fill_data(e);
		}
	}
	if (!filtered(e, &t->t))
		emit(e);
	held.delete(&skb);
	forget(skb, t);
}

/* Of the RSTs that wait, the one with the number that tcp_validate_incoming() wants, else (unless
 * it must be exact) the oldest. 0: none. */
INLINE __u64 pick(const struct arrival_key *arrival, __u32 expected, __u32 is_ack, __u8 must)
{
	struct waiting *waiting = arrivals.lookup((void *)arrival);
	__u64 chosen = 0, oldest = 0;
	__u8 exact = 0;

	if (!waiting)
		return 0;
#pragma unroll
	for (int i = 0; i < WAITING; i++) {
		__u64 candidate = waiting->skb[i];
		struct track *t;
		__u8 fits;

		if (!is_waiting(candidate))
			continue;
		t = tracks.lookup(&candidate);
		if (!t)
			continue;
		fits = (is_ack ? t->ack : t->seq) == expected;
		if (fits < exact || (must && !fits))
			continue;
		if (fits > exact || !chosen || t->ts < oldest) {
			chosen = candidate;
			oldest = t->ts;
			exact = fits;
		}
	}
	return chosen;
}

/* tcp_reset() with only the socket given: find the RST by the connection, then (NAT) by the
 * sequence number that made it acceptable. No RST found: tcp_reset() was called for a data segment
 * that came after close(), which is no reset at all. */
INLINE void accepted(const void *sk)
{
	struct arrival_key arrival = {};
	struct sequence_key sequence = {};
	struct rst_socket s = {};
	struct track *t;
	__u32 expected;
	__u64 skb, *found;

	fill_socket(&s, sk);
	sequence.is_ack = s.state == ST_SYN_SENT;
	expected = sequence.is_ack ? s.snd_nxt : s.rcv_nxt;
	arrival.net = sequence.net = net_key(GET(const void *, sk, sk_net));
	__builtin_memcpy(arrival.t.saddr, s.remote, 16);
	__builtin_memcpy(arrival.t.daddr, s.local, 16);
	arrival.t.sport = s.rport;
	arrival.t.dport = s.lport;
	skb = pick(&arrival, expected, sequence.is_ack, 0);
	if (!skb) {
		sequence.number = expected;
		found = sequences.lookup(&sequence);
		if (found)
			skb = *found;
	}
	if (!skb) {
		/* A macvlan in another namespace than its lower device: seen once, at the lower one. */
		arrival.net = ANY_NET;
		skb = pick(&arrival, expected, sequence.is_ack, 1);
	}
	if (!is_waiting(skb))
		return;
	t = tracks.lookup(&skb);
	if (!t)
		return;
	/* Two that fit may be judged in another order than they came (two CPUs). If this one is
	 * dropped after all, it was the other one; see dropped(). */
	t->phase = PHASE_TOLD;
	emit_received(skb, t, KIND_RECEIVED_ACCEPTED, sk, 0, NO_REASON, 1);
}

#if !PLAN_KPROBES
int rt_tcp_receive_reset(struct bpf_raw_tracepoint_args *ctx)
{
	looked(ctx->args[0]);
	accepted((const void *)ctx->args[0]);
	return 0;
}
#endif

int rt_tcp_receive_reset_again(struct bpf_raw_tracepoint_args *ctx)
{
	if (!was_looked_at(ctx->args[0]))
		accepted((const void *)ctx->args[0]);
	return 0;
}

/* Whether the packet was routed to this host (RTCF_LOCAL, RTF_LOCAL: the same bit). 2: not routed. */
INLINE __u8 route_is_local(const void *skb, const struct parsed *p)
{
	__u64 dst = GET(__u64, skb, skb_dst) & ~1ULL; /* SKB_DST_NOREF */
	__u8 version = 0;
	__u32 flags;

	if (!dst)
		return 2;
	bpf_probe_read_kernel(&version, 1, p->l3);
	if ((version >> 4) == 4)
		flags = GET(__u32, dst, rt_flags);
	else if (HAS(rt6_flags))
		flags = GET(__u32, dst, rt6_flags);
	else
		return 2;
	return !!(flags & 0x80000000);
}

INLINE int dropped(struct bpf_raw_tracepoint_args *ctx)
{
	__u64 skb = ctx->args[0];
	struct track *t = tracks.lookup(&skb);
	const void *sk = 0;
	struct parsed p = {};
	const __u8 *l3;
	__u32 reason = NO_REASON;
	__u8 kind = KIND_RECEIVED_REJECTED, route;
	struct arrival_key arrival = {};
	__u64 freed = skb;

	if (!t)
		return 0;
	l3 = l3_at_offset((const void *)skb);
	if (!l3 || !parse(l3, &p) || !same_packet(t, &p))
		return 0; /* another packet in the same memory */
	if (t->phase == PHASE_TOLD) {
		arrival.net = t->net;
		arrival.t = t->t;
		skb = pick(&arrival, p.seq, 0, 1);
		tracks.delete(&freed);
		t = skb ? tracks.lookup(&skb) : 0;
		if (!t)
			return 0;
	}
	if (t->phase != PHASE_IN) {
		tracks.delete(&skb);
		return 0;
	}
#if HAVE_DROP_REASON
	reason = (__u32)ctx->args[2];
#endif
#if HAVE_RX_SK
	sk = (const void *)ctx->args[3];
#endif
	if (!sk)
		sk = (const void *)t->sk;
	route = route_is_local((const void *)freed, &p);
	if (reason == DROP_OTHERHOST) {
		forget(skb, t);
		return 0;
	}
	if (reason == DROP_NO_SOCKET || (t->no_socket && reason == NO_REASON))
		kind = KIND_RECEIVED_UNMATCHED;
	else if (!route || (route == 2 && is_bridged_out((const void *)freed, t->here.ifindex)))
		kind = KIND_FORWARDED;
	emit_received(skb, t, kind, sk, GET(const void *, (void *)freed, skb_dev), reason, route);
	return 0;
}

INLINE int state_changes(struct bpf_raw_tracepoint_args *ctx)
{
	__u64 sk = ctx->args[0];
	int old = (int)ctx->args[1], new = (int)ctx->args[2];
	struct old_state was = {};
	struct rst_task task = {};

	if (GET(__u16, sk, sk_protocol) != PROTO_TCP)
		return 0;
	if (new == ST_SYN_SENT) { /* connect(): in the caller's context */
		fill_task(&task);
		owners.update(&sk, &task);
	} else if (new == ST_CLOSE) {
		was.ts = bpf_ktime_get_ns();
		was.state = old;
		old_states.update(&sk, &was);
	} else if (old == ST_CLOSE || new == ST_LISTEN || new == ST_SYN_RECV) {
		owners.delete(&sk); /* the memory is another socket's now */
	}
	return 0;
}

/* Attached twice: twice the same does no harm. */
int rt_inet_sock_set_state(struct bpf_raw_tracepoint_args *ctx)
{
	return state_changes(ctx);
}

/* Attached twice: what the first look has told, the second no longer finds. */
int rt_kfree_skb(struct bpf_raw_tracepoint_args *ctx)
{
	return dropped(ctx);
}

/* Packets that waited for their neighbour leave from inside neigh_update(). */
int rt_neigh_update(struct bpf_raw_tracepoint_args *ctx)
{
	__u64 task = bpf_get_current_pid_tgid();
	__u8 one = 1;

	in_neighbour.update(&task, &one);
	return 0;
}

int rt_neigh_update_done(struct bpf_raw_tracepoint_args *ctx)
{
	__u64 task = bpf_get_current_pid_tgid();

	in_neighbour.delete(&task);
	return 0;
}

/* ---- what a socket sent last ----
 *
 * At the root cgroup, because only there (and in TC and XDP) the helper is allowed that reads data
 * from a packet's fragments. */

#if PAYLOAD
int cg_egress(void *ctx)
{
	__u64 cookie = bpf_get_socket_cookie(ctx);
	__u32 zero = 0, l4, tcp, length;
	__u64 kept;
	struct rst_data *data = data_in_the_making.lookup(&zero);
	__u8 *l3;

	if (!data || !cookie)
		return 1;
	l3 = data->headers.l3;
	if (bpf_skb_load_bytes(ctx, 0, l3, 20))
		return 1;
	if (l3[0] >> 4 == 4) {
		l4 = (l3[0] & 15) * 4;
		if (l3[9] != PROTO_TCP || l4 < 20)
			return 1;
		length = be16(l3 + 2);
	} else if (l3[0] >> 4 == 6) {
		l4 = 40; /* this host's own TCP sends no extension headers but by socket options */
		if (l3[6] != PROTO_TCP || bpf_skb_load_bytes(ctx, 20, l3 + 20, 20))
			return 1;
		length = be16(l3 + 4) + 40;
	} else {
		return 1;
	}
	if (bpf_skb_load_bytes(ctx, l4, data->headers.l4, 20))
		return 1;
	tcp = (data->headers.l4[12] >> 4) * 4;
	if (tcp < 20 || length <= l4 + tcp) /* no data, or a length that does not fit its field */
		return 1;
	length -= l4 + tcp;
	/* 1 … PAYLOAD. The compiler knows; the verifier wants to see it, in this very register. */
	kept = (length < PAYLOAD ? length : PAYLOAD) - 1;
	asm volatile("" : "+r"(kept));
	kept = (kept & (PAYLOAD_MAX - 1)) + 1;
	if (bpf_skb_load_bytes(ctx, l4 + tcp, data->payload, kept))
		return 1;
	data->headers.l4[12] = 0x50; /* options are not kept */
	data->headers.payload_len = length;
	data->headers.present = 1;
	data->kept = kept;
	data->ts = bpf_ktime_get_ns();
	sent_data.update(&cookie, data);
	return 1;
}
#endif

INLINE void fill_data(struct rst_event *e)
{
#if PAYLOAD
	__u64 cookie = e->sock.cookie;
	struct rst_data *data = cookie ? sent_data.lookup(&cookie) : 0;

	if (data)
		bpf_probe_read_kernel(&e->data, sizeof(e->data), data);
#endif
}

/* ---- the cause layer: sent ---- */

/* The stack is about to answer `trigger` with a RST (tcp_v4_send_reset, nf_send_reset). */
INLINE void will_answer(const void *sk, const void *trigger, __u32 reason, __u8 kind, __u8 hook)
{
	struct answer_key answer = {};
	const __u8 *l3 = l3_at_offset(trigger);
	struct pending *pending, *empty;
	struct parsed p = {};
	__u64 now = bpf_ktime_get_ns();
	__u32 zero = 0;

	if (!l3 || !parse(l3, &p) || (p.flags & TH_RST)) /* a RST is never answered (RFC 9293) */
		return;
	/* A packet that has found its socket may have lost its device (tcp_v4_rcv). */
	answer.net = net_key(sk ? GET(const void *, sk, sk_net)
				: net_of_dev(GET(const void *, trigger, skb_dev)));
	if (p.flags & TH_ACK)
		answer.seq = p.ack;
	else
		answer.ack = p.seq + !!(p.flags & TH_SYN) + !!(p.flags & TH_FIN) + p.payload_len;
	pending = pendings.lookup(&answer);
	if (!pending) {
		empty = zero_pending.lookup(&zero);
		if (!empty)
			return;
		pendings.insert(&answer, empty); /* or another CPU does */
		pending = pendings.lookup(&answer);
		if (!pending)
			return;
	} else if (since(now, pending->ts) > SECOND || pending->expected < 0) {
		pending->expected = 0; /* it never left, or two left for one */
	}
	pending->ts = now;
	__sync_fetch_and_add(&pending->expected, 1);
	pending->reason = reason;
	pending->kind = kind;
	pending->hook = hook;
	fill_headers(&pending->trigger, &p);
	__builtin_memset(&pending->sock, 0, sizeof(pending->sock));
	if (sk) {
		fill_socket(&pending->sock, sk);
		fix_state(&pending->sock);
	}
}

/* tcp_send_active_reset(): before the packet (function entry) or after it (tracepoint). */
INLINE void active(__u64 sk, __u32 reason)
{
	struct active_reason why = { .ts = bpf_ktime_get_ns(), .reason = reason };
	struct rst_event *e = held.lookup(&sk);

	if (!e || e->kind != KIND_SENT_ACTIVE) {
		why.seq = GET(__u32, sk, tp_snd_nxt);
		why.owned = GET(__u32, sk, sk_owned) != 0;
		why.state_now = GET(__u8, sk, sk_state);
		if (why.owned)
			fill_task(&why.task);
		reasons.update(&sk, &why);
		return;
	}
	e->reason = reason;
	emit(e);
	held.delete(&sk);
}

INLINE int sends(struct bpf_raw_tracepoint_args *ctx, __u8 first)
{
	const void *sk = (const void *)ctx->args[0], *skb = (const void *)ctx->args[1];
	__u32 reason = NO_REASON;

#if SEND_RESET_HAS_REASON
	reason = (__u32)ctx->args[2];
#endif
	if (first)
		looked(skb ? (__u64)skb : (__u64)sk);
	else if (was_looked_at(skb ? (__u64)skb : (__u64)sk))
		return 0;
	if (skb)
		will_answer(sk, skb, reason, KIND_SENT_PASSIVE, 0);
	else if (sk && !PLAN_KPROBES) /* there, this comes too late: the packet is gone */
		active((__u64)sk, reason);
	return 0;
}

#if !PLAN_KPROBES
int rt_tcp_send_reset(struct bpf_raw_tracepoint_args *ctx)
{
	return sends(ctx, 1);
}
#endif

int rt_tcp_send_reset_again(struct bpf_raw_tracepoint_args *ctx)
{
	return sends(ctx, 0);
}

/* ---- the same causes at the functions themselves (kprobes) ---- */

#if PLAN_KPROBES

#define ARG(ctx, n) GET(__u64, ctx, regs_arg##n)

/* tcp_reset(sk, skb); tcp_reset(sk) before 049fe386d353 (5.12) */
int kp_tcp_reset(struct pt_regs *ctx)
{
	const void *sk = (const void *)ARG(ctx, 1);
#if TCP_RESET_HAS_SKB
	__u64 skb = ARG(ctx, 2);
	struct track *t = tracks.lookup(&skb);

	looked((__u64)sk);
	if (t && t->phase == PHASE_IN)
		emit_received(skb, t, KIND_RECEIVED_ACCEPTED, sk, 0, NO_REASON, 1);
#else
	looked((__u64)sk);
	accepted(sk);
#endif
	return 0;
}

/* tcp_v4_send_reset(sk, skb[, reason]) and its IPv6 twin */
int kp_tcp_send_reset(struct pt_regs *ctx)
{
	const void *sk = (const void *)ARG(ctx, 1), *skb = (const void *)ARG(ctx, 2);
	__u32 reason = NO_REASON;

#if SEND_RESET_REASON_ARG == 3
	reason = (__u32)ARG(ctx, 3);
#endif
	if (!sk) { /* called for a RST too, to send nothing: that tells that it has no socket */
		__u64 key = (__u64)skb;
		struct track *t = tracks.lookup(&key);

		if (t && t->phase == PHASE_IN)
			t->no_socket = 1;
	}
	looked((__u64)skb);
	will_answer(sk, skb, reason, KIND_SENT_PASSIVE, 0);
	return 0;
}

INLINE void judged_by(struct pt_regs *ctx, __u8 handshake)
{
	__u64 skb = ARG(ctx, 2);
	struct track *t = tracks.lookup(&skb);

	if (t && t->phase == PHASE_IN) {
		t->sk = ARG(ctx, 1);
		t->handshake = handshake;
	}
}

/* tcp_validate_incoming(sk, skb, …), tcp_rcv_state_process(sk, skb), tcp_timewait_state_process(tw,
 * skb, …): what judges a RST, where kfree_skb does not name the socket (before c53795d48ee8, 6.11) */
int kp_tcp_judge(struct pt_regs *ctx)
{
	judged_by(ctx, 0);
	return 0;
}

#if !HAVE_DROP_REASON
/* __kfree_skb(skb): how TCP drops what it has judged, past the tracepoint (until 5.18) */
int kp_kfree_skb(struct pt_regs *ctx)
{
	__u64 skb = ARG(ctx, 1);
	struct track *t = tracks.lookup(&skb);

	if (t && t->phase == PHASE_IN && t->sk)
		emit_received(skb, t, KIND_RECEIVED_REJECTED, (const void *)t->sk, 0, NO_REASON, 1);
	return 0;
}
#endif

/* tcp_check_req(listener, skb, request, …) */
int kp_tcp_check_req(struct pt_regs *ctx)
{
	judged_by(ctx, 1);
	return 0;
}

/* tcp_send_active_reset(sk, gfp[, reason]), (sk, reason) from 7.1 on */
int kp_tcp_send_active_reset(struct pt_regs *ctx)
{
	__u32 reason = NO_REASON;

#if ACTIVE_RESET_REASON_ARG == 2
	reason = (__u32)ARG(ctx, 2);
#elif ACTIVE_RESET_REASON_ARG == 3
	reason = (__u32)ARG(ctx, 3);
#endif
	active(ARG(ctx, 1), reason);
	return 0;
}

/* nf_send_reset(net, sk, oldskb, hook) and nf_send_reset6; oldskb is third on every kernel */
int kp_nf_send_reset(struct pt_regs *ctx)
{
	will_answer(0, (const void *)ARG(ctx, 3), NO_REASON, KIND_SENT_NETFILTER,
		    (__u8)ARG(ctx, 4) + 1);
	return 0;
}
#endif
