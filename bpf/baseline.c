/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The baseline's maps: what is learned of each flow and peer (flow.h says what), and what an event
 * takes from there.
 */

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
		    (!theirs->reset_ts || since(e->ts, theirs->reset_ts) > LATE_FOR_NS)) {
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
