/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The baseline: what a flow's packets looked like, both directions. No map here: the functions
 * work on entries that baseline.c looks up.
 */
#ifndef RSTTRACE_FLOW_H
#define RSTTRACE_FLOW_H

#include "packet.h"

/* One entry serves both directions: the smaller (address, port) comes first. */
struct flow_key {
	__u64 net; /* net_key() */
	__u16 low_port;
	__u16 high_port;
	__u8 low[16];
	__u8 high[16];
	__u32 pad;
};

struct flow {
	struct rst_half half[2]; /* [0]: sent by the low end, [1]: by the high end */
};

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
INLINE int make_flow_key(struct flow_key *k, __u64 net, const struct tuple *t)
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

/* A SYN that begins a new connection on a tuple that an old one used. Not a retransmission, and
 * not a SYN thrown into a live flow: that must not wipe what the flow has taught us. */
INLINE int begins_anew(const struct flow *f, const struct rst_half *h, const struct parsed *p,
		       __u64 now)
{
	if ((p->flags & (TH_SYN | TH_ACK)) != TH_SYN || (h->has_syn && h->syn_seq == p->seq))
		return 0;
	return f->half[0].closed || f->half[1].closed ||
	       (since(now, f->half[0].last_ts) > IDLE_REUSE_NS &&
		since(now, f->half[1].last_ts) > IDLE_REUSE_NS);
}

/* Either end begins a connection, anew or again: what follows is no word on an earlier RST. A host in
 * SYN-SENT answers a half-open peer with a RST and repeats its SYN (RFC 9293 3.5.1), some stacks
 * repeat a SYN that was refused. */
INLINE void stop_watching(struct flow *f, const struct parsed *p)
{
	if ((p->flags & (TH_SYN | TH_ACK)) == TH_SYN)
		f->half[0].reset_ts = f->half[1].reset_ts = 0;
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
		beyond = (p->flags & TH_ACK) && !(h->has_syn && h->syn_seq == p->seq);
	else
		beyond = h->reset_seq && length && (__s32)(p->seq + length - h->reset_seq) > 0;
	if (h->late >= (beyond ? LATE_TOLD : 1))
		return 0;
	h->late++;
	return 1;
}

INLINE void learn_packet(struct rst_half *h, const struct parsed *p, const void *skb,
			 const struct rst_frame *frame, __u64 now)
{
	struct rst_seen *r = &h->recent[h->packets & (RECENT - 1)];
	__u8 again = (p->flags & TH_SYN) && h->has_syn; /* of another connection, or forged */
	__u32 end;

	if (!h->packets) {
		h->first_ts = now;
		h->ttl_min = p->ttl;
		h->ttl_max = p->ttl;
		h->df_always = 1;
	}
	if ((p->flags & TH_SYN) && !h->has_syn) {
		h->has_syn = 1;
		h->syn_ttl = p->ttl;
		h->syn_window = p->window;
		h->syn_seq = p->seq;
		h->syn_ts = now;
		h->syn_options_len = p->options_len;
		/* As in fill_headers(), the buffer goes on behind the header. */
		bpf_probe_read_kernel(h->syn_options, OPTIONS, p->l4 + 20);
	}
	if (p->flags & TH_FIN)
		h->closed = 1;
	h->ttl = p->ttl;
	if (p->ttl < h->ttl_min)
		h->ttl_min = p->ttl;
	if (p->ttl > h->ttl_max)
		h->ttl_max = p->ttl;
	h->df_always &= p->df;
	h->timestamps |= p->timestamps;
	h->last_ts = now;
	if (frame) {
		h->received = 1;
		h->ifindex = frame->ifindex;
		h->has_mac = frame->has_mac;
		__builtin_memcpy(h->mac, frame->mac, 6);
	}
	end = p->seq + p->payload_len + !!(p->flags & TH_SYN) + !!(p->flags & TH_FIN);
	if (!h->packets || (!again && (__s32)(end - h->end) > 0))
		h->end = end;
	r->ts = now;
	r->seq = p->seq;
	r->ack = p->ack;
	r->payload_len = p->payload_len;
	r->ip_id = p->ip_id;
	r->window = p->window;
	r->flags = p->flags;
	r->ttl = p->ttl;
	r->df = p->df;
	/* skb_shinfo(skb): the buffer's end; gso_segs counts the packets it will become on the wire */
	r->segments = GET(__u16, GET(const char *, skb, skb_head) + GET(__u32, skb, skb_end),
			  shinfo_gso_segs);
	h->packets++;
}

#endif
