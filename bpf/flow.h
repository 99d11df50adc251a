/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The baseline: what a flow's packets looked like, both directions. No map here: the functions
 * work on entries that baseline.c looks up.
 */
#ifndef RSTTRACE_FLOW_H
#define RSTTRACE_FLOW_H

#include "packet.h"

struct peer_key {
	__u64 net;
	__u8 addr[16];
};

#define SECOND 1000000000ULL

/* How long ago, 0 if another CPU has noted a time that is later than ours. */
INLINE __u64 since(__u64 now, __u64 then)
{
	return now > then ? now - then : 0;
}

/* Any total order will do, as long as both directions agree on it. */
INLINE int source_is_low(const struct tuple *t)
{
	const __u64 *s = (const __u64 *)t->saddr, *d = (const __u64 *)t->daddr;

	if (s[0] != d[0])
		return s[0] < d[0];
	if (s[1] != d[1])
		return s[1] < d[1];
	return t->sport <= t->dport;
}

/* Returns which half the packet belongs to. */
INLINE int make_flow_key(struct rst_flow_key *k, __u64 net, const struct tuple *t)
{
	k->net = net;
	if (source_is_low(t)) {
		__builtin_memcpy(k->low, t->saddr, 16);
		__builtin_memcpy(k->high, t->daddr, 16);
		k->low_port = t->sport;
		k->high_port = t->dport;
		return 0;
	}
	__builtin_memcpy(k->low, t->daddr, 16);
	__builtin_memcpy(k->high, t->saddr, 16);
	k->low_port = t->dport;
	k->high_port = t->sport;
	return 1;
}

INLINE __u32 rotated(__u32 x, int bits)
{
	return x << bits | x >> (32 - bits);
}

/* On which shelf a flow's place is (the lower half), and the mark that it has there (the upper one): Bob
 * Jenkins's lookup3, with a seed that nobody else knows, as the kernel's own hash maps do
 * (include/linux/jhash.h): else whoever chooses his addresses could fill the shelf of another's flow. */
INLINE __u64 sum_of(const struct rst_flow_key *k, __u64 seed)
{
	const __u32 *w = (const __u32 *)k;
	__u32 a, b, c;

	a = b = c = 0xdeadbeef + sizeof(*k) + (__u32)seed;
	c += seed >> 32;
#pragma unroll
	for (int i = 0; i < 9; i += 3) {
		a += w[i];
		b += w[i + 1];
		c += w[i + 2];
		a = (a - c) ^ rotated(c, 4), c += b;
		b = (b - a) ^ rotated(a, 6), a += c;
		c = (c - b) ^ rotated(b, 8), b += a;
		a = (a - c) ^ rotated(c, 16), c += b;
		b = (b - a) ^ rotated(a, 19), a += c;
		c = (c - b) ^ rotated(b, 4), b += a;
	}
	a += w[9];
	b += w[10];
	c += w[11];
	c = (c ^ b) - rotated(b, 14);
	a = (a ^ c) - rotated(c, 11);
	b = (b ^ a) - rotated(a, 25);
	c = (c ^ b) - rotated(b, 16);
	a = (a ^ c) - rotated(c, 4);
	b = (b ^ a) - rotated(a, 14);
	c = (c ^ b) - rotated(b, 24);
	return (__u64)b << 32 | c;
}

/* Nothing is known of it. What only other members make valid may stay. */
INLINE void clear_half(struct rst_half *h)
{
	__builtin_memset(h, 0, __builtin_offsetof(struct rst_half, recent));
}

INLINE void copy_half(struct rst_half *to, const struct rst_half *h)
{
	__builtin_memcpy(to, h, __builtin_offsetof(struct rst_half, new_syn));
	if (h->has_new_syn) {
		to->new_syn = h->new_syn;
		__builtin_memcpy(to->new_options, h->new_options, OPTIONS);
	}
}

/* Whether sequence number a is older than b (RFC 9293 section 3.4). */
INLINE int before(__u32 a, __u32 b)
{
	return a - b > 0x7fffffff;
}

/* How many sequence numbers a segment takes. */
INLINE __u32 sequence_length(const struct parsed *p)
{
	return p->payload_len + !!(p->flags & TH_SYN) + !!(p->flags & TH_FIN);
}

/* Whether an ack number acknowledges something that a direction was seen to send. */
INLINE int acknowledges(__u32 ack, const struct rst_half *h)
{
	return h->has_syn && before(h->syn.seq, ack) && !before(h->end, ack);
}

/* ---- after a RST ---- */

/* A RST was received in this direction: look at what comes after it. */
INLINE void watch(struct rst_half *h, __u64 now, __u32 seq)
{
	if (h->reset_ts && since(now, h->reset_ts) <= LATE_FOR_NS)
		return;
	h->reset_ts = now;
	h->reset_seq = seq;
	h->late = 0;
	h->usual = 0;
}

/* Whether to tell of a packet that came after a RST in its sender's name: the first one (it shows
 * where the sender is), and those that an honest sender would not have sent: a SYN-ACK (not one seen
 * before: a host in SYN-RECEIVED may reset a wrong ACK and repeat it), or data or a FIN beyond the
 * RST's sequence number (after Weaver, Sommer, Paxson, NDSS 2009); a refused SYN's RST has none. */
INLINE int is_late(struct rst_half *h, const struct parsed *p, __u64 now)
{
	__u32 length = p->payload_len + !!(p->flags & TH_FIN);
	int beyond;

	if (!h->reset_ts || since(now, h->reset_ts) > LATE_FOR_NS || (p->flags & TH_RST))
		return 0;
	if (p->flags & TH_SYN)
		beyond = (p->flags & TH_ACK) && !(h->has_syn && h->syn.seq == p->seq);
	else
		beyond = h->reset_seq && length && before(h->reset_seq, p->seq + length);
	if (h->late >= (beyond ? LATE_TOLD : 1))
		return 0;
	h->late++;
	return 1;
}

/* An address in whose name a RST came: its later handshakes are told. */
struct watched {
	__u64 ts;
	struct tuple t; /* the RST's */
	__u8 ttl[HANDSHAKES_TOLD];
	__u8 told;
	__u8 pad;
};

/* Whether to tell of a handshake that has just been confirmed by a packet from t->saddr: it is of
 * another connection than the RST, began after it, and its TTL is news. */
INLINE int adds_to(struct watched *w, const struct rst_half *h, const struct tuple *t)
{
	const __u64 *to = (const __u64 *)t->daddr, *was_to = (const __u64 *)w->t.daddr;

	if (h->syn.ts <= w->ts)
		return 0;
	if (t->sport == w->t.sport && t->dport == w->t.dport && to[0] == was_to[0] &&
	    to[1] == was_to[1])
		return 0;
#pragma unroll
	for (int i = 0; i < HANDSHAKES_TOLD; i++) {
		if (i == w->told) {
			w->ttl[i] = h->syn.ttl;
			w->told++;
			return 1;
		}
		if (w->ttl[i] == h->syn.ttl)
			return 0;
	}
	return 0;
}

/* ---- what fits ----
 *
 * Anybody may send packets in a peer's name. A baseline takes in what the peer's own stack could have
 * sent and the other end would accept; the rest is counted, and changes nothing else. Our own packets
 * on their way out always fit. rsttrace/capture/flows.py does the same for captures, where nothing is
 * our own. */

/* Whether a number is near one of two that are known, or between them; or neither is known. The
 * oldest is what the other end has acknowledged: a gap is filled from there. */
INLINE int is_near(__u32 number, __u32 newest, __u8 has_newest, __u32 oldest, __u8 has_oldest)
{
	if (has_newest && number - newest + NEAR <= 2 * NEAR)
		return 1;
	if (!has_oldest)
		return !has_newest;
	if (number - oldest + NEAR <= 2 * NEAR)
		return 1;
	return has_newest && !before(number, oldest) && !before(newest, number);
}

/* Neither end sends what we would expect, but each what the other one acknowledges: part of the
 * connection was not seen. */
INLINE int both_are_elsewhere(struct rst_half *h, struct rst_half *other, const struct parsed *p)
{
	if (!other->has_odd || !is_near(p->seq, other->odd_ack, 1, 0, 0) ||
	    !is_near(p->ack, other->odd_end, 1, 0, 0)) {
		h->odd_end = p->seq + sequence_length(p);
		h->odd_ack = p->ack;
		h->has_odd = 1;
		return 0;
	}
	other->end = other->odd_end;
	other->acked = other->odd_ack;
	h->end = p->seq;
	h->acked = p->ack;
	h->has_end = h->has_acked = other->has_end = other->has_acked = 1;
	h->has_odd = other->has_odd = 0;
	return 1;
}

/* Sequence and ack number. A SYN that repeats the handshake's number is a retransmission, one with
 * another number does not fit, nor does a SYN-ACK that acknowledges nothing. */
INLINE int numbers_fit(struct rst_half *h, struct rst_half *other, const struct parsed *p)
{
	int fits;

	if (p->flags & TH_SYN) {
		if (h->has_syn)
			return h->syn.seq == p->seq;
		if ((p->flags & TH_ACK) && other->has_syn && !acknowledges(p->ack, other))
			return 0;
	}
	fits = is_near(p->seq, h->end, h->has_end, other->acked, other->has_acked);
	if (fits && (p->flags & TH_ACK) && other->has_end)
		fits = is_near(p->ack, other->end, 1, h->acked, h->has_acked);
	if (!fits && (p->flags & (TH_SYN | TH_ACK)) == TH_ACK)
		fits = both_are_elsewhere(h, other, p);
	return fits;
}

/* Timestamps are in every packet once both SYNs had them, and else in none (RFC 7323 section 3.2). An
 * end that never used them after the handshake has them taken off on the way. */
INLINE int timestamps_fit(const struct rst_half *h, const struct rst_half *other,
			  const struct parsed *p)
{
	if ((p->flags & TH_SYN) || !h->has_syn || !other->has_syn)
		return 1;
	if (!p->stamped && !h->stamps)
		return 1;
	return p->stamped == (h->syn.stamped && other->syn.stamped);
}

/* Timestamps that are not laid out as NOP NOP TS: of a SYN, or beside an MD5 signature. */
INLINE void find_timestamps(struct parsed *p)
{
	__u8 option[16];
	__u32 at = 0;

	/* First where Linux has them: MSS, SACK permitted, timestamps. */
	if (p->options_len >= 16 && !bpf_probe_read_kernel(option, 16, p->l4 + 20) &&
	    be16(option) == 0x0204 && be32(option + 4) == 0x0402080a) {
		p->stamped = 1;
		p->tsval = be32(option + 8);
		p->tsecr = be32(option + 12);
		return;
	}
	for (int i = 0; i < OPTIONS_READ; i++) {
		if (at + 10 > p->options_len)
			return;
		if (bpf_probe_read_kernel(option, 10, p->l4 + 20 + at) || !option[0])
			return;
		if (option[0] == 1) {
			at++;
			continue;
		}
		if (option[0] == 8 && option[1] == 10) {
			p->stamped = 1;
			p->tsval = be32(option + 2);
			p->tsecr = be32(option + 6);
		}
		if (option[0] == 8 || option[1] < 2)
			return;
		at += option[1];
	}
}

/* Where a TTL is counted. A new one takes the place of the rarest, but not of the known one. */
INLINE __u8 find_slot(const struct rst_half *h, __u8 ttl)
{
	__u32 count, rarest = ~0U;
	__u64 oldest = ~0ULL;
	__u8 found = 0;

#pragma unroll
	for (int i = 0; i < TTLS; i++) {
		const struct rst_ttl *t = &h->ttls[i];

		count = t->packets + t->strange;
		if (count && t->ttl == ttl)
			return i;
		if (count && h->packets && t->ttl == h->known_ttl)
			continue;
		if (count < rarest || (count == rarest && t->last_ts < oldest)) {
			rarest = count;
			oldest = t->last_ts;
			found = i;
		}
	}
	return found;
}

/* Count a packet's TTL; whether the packet fits: its TTL is the known one, or so many came with it
 * that it is this direction's, too (the way has changed, or there are several). */
INLINE int count_ttl(struct rst_half *h, __u8 ttl, int passes, __u64 now)
{
	struct rst_ttl *t = &h->ttls[h->slot & (TTLS - 1)];

	if (t->ttl != ttl || !t->last_ts) {
		h->slot = find_slot(h, ttl);
		t = &h->ttls[h->slot & (TTLS - 1)];
		if (t->ttl != ttl || !t->last_ts) {
			t->ttl = ttl;
			t->first_ts = now;
			t->packets = t->strange = 0;
		}
	}
	t->last_ts = now;
	if (!passes) {
		t->strange++;
		return 0;
	}
	t->packets++;
	return !h->packets || ttl == h->known_ttl || t->packets >= OTHER_TTL_FITS;
}

/* ---- learning ---- */

#define UNSPLIT 512 /* a shorter payload is one packet: no MSS in use is smaller */

INLINE void fill_seen(struct rst_seen *r, const struct parsed *p, __u64 now)
{
	r->ts = now;
	r->seq = p->seq;
	r->ack = p->ack;
	r->payload_len = p->payload_len;
	r->tsval = p->tsval;
	r->tsecr = p->tsecr;
	r->ip_id = p->ip_id;
	r->window = p->window;
	r->flags = p->flags;
	r->ttl = p->ttl;
	r->df = p->df;
	r->tos = p->tos;
	r->stamped = p->stamped;
	r->segments = 1;
	if (p->payload_len > UNSPLIT && p->shinfo)
		r->segments = gso_segs(p->shinfo);
}

/* The newest is the one with the highest TSval, not the one that came last: packets overtake each other, and
 * come twice. What goes back farther than that, or for longer, is believed: the one before it was none of its. */
INLINE void note_clock(struct rst_clock *clock, __u32 tsval, __u64 now)
{
	if (before(tsval, clock->tsval) && clock->tsval - tsval < OVERTAKEN_TICKS &&
	    since(now, clock->ts) < OVERTAKEN_NS)
		return;
	clock->ts = now;
	clock->tsval = tsval;
}

/* Learn from a packet that fits; r is its place in h->recent. */
INLINE void note(struct rst_half *h, const struct rst_seen *r)
{
	const struct rst_seen *last = &h->recent[(h->packets - 1) & (RECENT - 1)];
	__u32 end = r->seq + r->payload_len;
	__u8 ttl = r->ttl;

	if (!h->packets) {
		h->first_ts = r->ts;
		h->ttl_min = h->ttl_max = h->known_ttl = ttl;
		h->df_always = 1;
	}
	if (r->flags & TH_SYN) {
		end++;
		if (!h->has_syn) {
			h->has_syn = 1;
			h->syn = *r;
			h->known_ttl = ttl;
		}
		if (!h->packets || !(last->flags & TH_SYN) || since(r->ts, last->ts) > COPY_NS)
			h->syns++;
	}
	if (r->flags & TH_FIN) {
		end++;
		if (!h->fin_ts)
			h->fin_ts = r->ts;
		h->closed = 1;
	}
	if (!h->has_end || !before(end, h->end))
		h->end = end;
	h->has_end = 1;
	if ((r->flags & TH_ACK) && (!h->has_acked || !before(r->ack, h->acked))) {
		h->acked = r->ack;
		h->has_acked = 1;
	}
	h->ttl = ttl;
	if (ttl < h->ttl_min)
		h->ttl_min = ttl;
	if (ttl > h->ttl_max)
		h->ttl_max = ttl;
	h->df_always &= r->df;
	if (r->stamped) {
		note_clock(h->timestamps ? &h->clock[1] : &h->clock[0], r->tsval, r->ts);
		h->timestamps = 1;
		h->stamps |= !(r->flags & TH_SYN);
	}
	h->last_ts = r->ts;
	h->packets++;
}

/* ---- the usual packet ----
 *
 * Nearly all packets of a connection look like the one before them, and only a few numbers are news. For
 * these, what learn_packet() would do is done in a few instructions, to the same result. */

/* What the next packet must look like, after the newest one; 0: none is usual, for something is yet to be
 * found out, or watched for. What follows a handshake has timestamps if both ends offered them. */
INLINE __u32 usual_looks(const struct rst_half *h, const struct rst_half *other)
{
	const struct rst_seen *r = &h->recent[(h->packets - 1) & (RECENT - 1)];
	__u32 stamped = r->stamped;

	if (!h->confirmed || !other->confirmed || !h->has_acked || !other->has_end || h->reset_ts ||
	    r->ttl != h->known_ttl)
		return 0;
	if (r->flags & TH_SYN) {
		if (!h->has_syn || !other->has_syn)
			return 0;
		stamped = h->syn.stamped && other->syn.stamped;
	}
	return LOOKS(r->ttl, r->df, stamped);
}

/* Whether nothing is news of a packet but its numbers, and these fit. `own`: ours, on its way out. */
INLINE int is_usual(const struct rst_half *h, const struct rst_half *other, const struct usual *u,
		    const __u8 *l3, int own)
{
	__u64 mac;

	if (h->usual != u->looks)
		return 0;
	if (own)
		return 1;
	if (SEQ(u) - h->end + NEAR > 2 * NEAR || ACK(u) - other->end + NEAR > 2 * NEAR)
		return 0;
	if (!h->has_mac)
		return 1;
	mac = LONG(AT(l3 - 8), 0);
	return FIRST_SIX(mac) == FIRST_SIX(*(const __u64 *)h->mac);
}

INLINE void note_usual(struct rst_half *h, const struct usual *u, __u16 segments, __u64 now)
{
	struct rst_seen *r = &h->recent[h->packets & (RECENT - 1)];
	struct rst_ttl *t = &h->ttls[h->slot & (TTLS - 1)];
	__u32 seq = SEQ(u), ack = ACK(u), end = seq + u->payload_len;

	h->last_ts = t->last_ts = now;
	t->packets++;
	if (!before(end, h->end))
		h->end = end;
	if (!before(ack, h->acked))
		h->acked = ack;
	r->ts = now;
	r->seq = seq;
	r->ack = ack;
	r->payload_len = u->payload_len;
	r->tsval = FROM_BE32(PART(__u32, u->stamps, 0));
	r->tsecr = FROM_BE32(PART(__u32, u->stamps, 4));
	r->ip_id = FROM_BE16((__u16)u->id);
	r->window = FROM_BE16(PART(__u16, u->middle, 6));
	r->segments = segments;
	r->flags = PART(__u8, u->middle, 5);
	r->ttl = u->looks >> 8;
	r->df = u->looks >> 16;
	r->tos = u->tos;
	r->stamped = u->looks >> 24;
	if (u->looks >> 24) {
		h->stamps = 1;
		note_clock(&h->clock[1], r->tsval, now);
	}
	h->packets++; /* once it is all there */
}

/* A SYN that begins a new connection on a tuple that an old one used. Not a retransmission, and
 * not a SYN thrown into a live flow, however long that was quiet: that must not wipe what the flow
 * has taught us, and renews() finds out. Our own stack sends one only where it has no connection
 * any more. */
INLINE int begins_anew(const struct rst_half *h, const struct rst_half *other,
		       const struct parsed *p, int own)
{
	if ((p->flags & (TH_SYN | TH_ACK)) != TH_SYN || (h->has_syn && h->syn.seq == p->seq) ||
	    (!h->packets && !other->packets))
		return 0;
	return h->closed || other->closed || (own && h->packets);
}

/* A SYN-ACK that takes a SYN which did not fit: the other end has no such connection any more (one
 * that has it sends a challenge ACK, RFC 5961 section 4). */
INLINE int renews(const struct rst_half *h, const struct rst_half *other, const struct parsed *p)
{
	return (p->flags & (TH_SYN | TH_ACK)) == (TH_SYN | TH_ACK) && other->has_new_syn &&
	       p->ack == other->new_syn.seq + 1 && !(h->has_syn && h->syn.seq == p->seq);
}

/* Either end begins a connection, anew or again. */
INLINE void begin(struct rst_half *h, struct rst_half *other, const struct parsed *p, int own)
{
	int renewed = renews(h, other, p);

	/* Our stack has forgotten that it answered this SYN (its queue was full, or SYN cookies). */
	if (own && (p->flags & TH_ACK) && h->has_syn && h->syn.seq != p->seq) {
		clear_half(h);
		return;
	}
	if (renewed || begins_anew(h, other, p, own)) {
		if (renewed) { /* this half is cleared anyway: keep the SYN there for a moment */
			h->syn = other->new_syn;
			__builtin_memcpy(h->syn_options, other->new_options, OPTIONS);
			h->syn_options_len = other->new_options_len;
			h->ifindex = other->ifindex;
			h->has_mac = other->has_mac;
			__builtin_memcpy(h->mac, other->mac, 6);
		}
		clear_half(other);
		if (renewed) {
			other->ifindex = h->ifindex;
			other->has_mac = h->has_mac;
			__builtin_memcpy(other->mac, h->mac, 6);
			other->syn_options_len = h->syn_options_len;
			__builtin_memcpy(other->syn_options, h->syn_options, OPTIONS);
			other->recent[0] = h->syn;
			count_ttl(other, h->syn.ttl, 1, h->syn.ts);
			note(other, &other->recent[0]);
		}
		clear_half(h);
	}
	/* What follows a SYN says nothing about an earlier RST: a host in SYN-SENT answers a half-open
	 * peer with a RST and repeats its SYN (RFC 9293 3.5.1), some stacks repeat a refused SYN. */
	if (!(p->flags & TH_ACK))
		h->reset_ts = other->reset_ts = 0;
}

/* What learn_packet() says. */
#define LATE 1      /* it came after a RST in its sender's name: to be told */
#define CONFIRMED 2 /* it confirms its sender's handshake */

/* Take a packet in that is no RST: those do not teach what honest packets look like. */
INLINE int learn_packet(struct rst_half *h, struct rst_half *other, struct parsed *p,
			const struct rst_frame *frame, __u64 now)
{
	int own = !frame, told = 0, passes;
	struct rst_seen *r;

	h->usual = 0;
	if (!p->stamped && p->options_len >= 12)
		find_timestamps(p);
	if (p->flags & TH_SYN) {
		other->usual = 0;
		begin(h, other, p, own);
	}
	if (!own && is_late(h, p, now))
		told = LATE;
	passes = own || (numbers_fit(h, other, p) && timestamps_fit(h, other, p));
	if (!count_ttl(h, p->ttl, passes, now) && !own) {
		h->strange++;
		h->strange_ts = now;
		if ((p->flags & (TH_SYN | TH_ACK)) == TH_SYN &&
		    !(h->has_syn && h->syn.seq == p->seq)) {
			h->has_new_syn = 1;
			fill_seen(&h->new_syn, p, now);
			h->new_options_len = p->options_len;
			bpf_probe_read_kernel(h->new_options, OPTIONS, p->l4 + 20);
		}
		return told;
	}
	if (frame) {
		h->ifindex = frame->ifindex;
		h->has_mac = frame->has_mac;
		__builtin_memcpy(h->mac, frame->mac, 6);
	}
	if ((p->flags & TH_SYN) && !h->has_syn) {
		h->syn_options_len = p->options_len;
		bpf_probe_read_kernel(h->syn_options, OPTIONS, p->l4 + 20);
	}
	r = &h->recent[h->packets & (RECENT - 1)];
	fill_seen(r, p, now);
	note(h, r);
	if (!h->confirmed && (p->flags & TH_ACK) && acknowledges(p->ack, other)) {
		h->confirmed = 1;
		if (h->has_syn)
			told |= CONFIRMED;
		other->usual = usual_looks(other, h);
	}
	h->usual = usual_looks(h, other);
	return told;
}

/* An address's newest confirmed handshake. */
INLINE void learn_peer(struct rst_peer *peer, const struct rst_half *h)
{
	if (!peer->known || peer->ttls[0] != h->syn.ttl) {
#pragma unroll
		for (int i = PEER_TTLS - 1; i > 0; i--)
			peer->ttls[i] = peer->ttls[i - 1];
		peer->ttls[0] = h->syn.ttl;
	}
	peer->known = 1;
	peer->syn = h->syn;
	peer->options_len = h->syn_options_len;
	__builtin_memcpy(peer->options, h->syn_options, OPTIONS);
	peer->ifindex = h->ifindex;
	peer->has_mac = h->has_mac;
	__builtin_memcpy(peer->mac, h->mac, 6);
}

#endif
