/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The baseline's maps: what is learned of each flow and peer (flow.h says what), and what an event
 * takes from there.
 */

/* What comes from the peer after "its" RST. Or, with `peer`, its handshake of another connection, which
 * this packet has confirmed. */
INLINE void tell_late(const struct parsed *p, const void *skb, const struct rst_frame *frame,
		      const struct rst_peer *peer, __u64 net, __u64 now)
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
	if (peer) {
		e->scope = SCOPE_PEER;
		bpf_probe_read_kernel(&e->peer, sizeof(e->peer), peer);
	}
	emit(e);
	held.delete(&key);
}

/* A handshake has been confirmed. Only from these an address is known: a lone SYN can be sent by
 * anybody, in any name. */
INLINE void learn_handshake(const struct rst_half *h, const struct parsed *p, const void *skb,
			    const struct rst_frame *frame, __u64 net, __u64 now)
{
	struct peer_key key = { .net = net };
	struct rst_peer *peer, *empty;
	struct watched *watched;
	__u32 zero = 0;

	__builtin_memcpy(key.addr, p->t.saddr, 16);
	peer = peers.lookup(&key);
	if (!peer) {
		empty = zero_peer.lookup(&zero);
		if (!empty)
			return;
		peers.update(&key, empty);
		peer = peers.lookup(&key);
		if (!peer)
			return;
	}
	learn_peer(peer, h);
	watched = watched_peers.lookup(&key);
	if (watched && since(now, watched->ts) <= LATE_FOR_NS && adds_to(watched, h, &p->t))
		tell_late(p, skb, frame, peer, net, now);
}

INLINE struct flow *known_flow(struct flow_key *key)
{
	struct flow *f = flows.lookup(key);

	return f ? f : unconfirmed.lookup(key);
}

INLINE void learn(struct parsed *p, const void *skb, const struct rst_frame *frame, __u64 net,
		  __u32 netns, __u64 now)
{
	struct flow_key key = {};
	struct flow *f, *empty;
	struct rst_half *h, *other;
	__u32 zero = 0;
	int high, told, confirmed = 1;

	/* Of the filters only the namespace's: NAT may make the wire differ from what was asked for. */
	if (FILTER_NETNS && !only_netns.lookup(&netns))
		return;
	high = make_flow_key(&key, net, &p->t);
	f = flows.lookup(&key);
	if (!f) {
		confirmed = 0;
		f = unconfirmed.lookup(&key);
	}
	if (!f) {
		empty = zero_flow.lookup(&zero);
		if (!empty)
			return;
		unconfirmed.update(&key, empty);
		f = unconfirmed.lookup(&key);
		if (!f)
			return;
	}
	h = high ? &f->half[1] : &f->half[0];
	other = high ? &f->half[0] : &f->half[1];
	told = learn_packet(h, other, p, frame, now);
	if (frame && (told & LATE))
		tell_late(p, skb, frame, 0, key.net, now);
	if (frame && (told & CONFIRMED))
		learn_handshake(h, p, skb, frame, key.net, now);
	if (!confirmed && h->confirmed && other->confirmed) {
		flows.update(&key, f);
		unconfirmed.delete(&key);
	}
}

/* A RST that counts ends the flow: a SYN may begin a new one on the same tuple then. */
INLINE int ends_flow(__u8 kind)
{
	return kind != KIND_RECEIVED_REJECTED && kind != KIND_RECEIVED_UNMATCHED &&
	       kind != KIND_FORWARDED;
}

/* Of a RST that is only counted. */
INLINE void end_flow(__u8 kind, __u64 net, const struct tuple *t)
{
	struct flow_key key = {};
	struct flow *f;
	int high;

	if (!BASELINE || !ends_flow(kind))
		return;
	high = make_flow_key(&key, net, t);
	f = known_flow(&key);
	if (f)
		(high ? &f->half[1] : &f->half[0])->closed = 1;
}

INLINE void fill_baseline(struct rst_event *e, __u64 net, const struct tuple *t, __u32 rst_seq)
{
	struct flow_key key = {};
	struct peer_key peer = { .net = net };
	const struct rst_peer *known;
	struct flow *f;
	int high;

	if (!BASELINE)
		return;
	__builtin_memcpy(peer.addr, t->saddr, 16);
	known = peers.lookup(&peer);
	if (known) {
		bpf_probe_read_kernel(&e->peer, sizeof(e->peer), known);
		e->scope = SCOPE_PEER;
	}
	high = make_flow_key(&key, net, t);
	f = known_flow(&key);
	if (f) {
		struct rst_half *theirs = high ? &f->half[1] : &f->half[0];
		struct rst_half *ours = high ? &f->half[0] : &f->half[1];

		bpf_probe_read_kernel(&e->theirs, sizeof(e->theirs), theirs);
		bpf_probe_read_kernel(&e->ours, sizeof(e->ours), ours);
		if (ends_flow(e->kind))
			theirs->closed = 1;
		if (!is_sent(e->kind))
			watch(theirs, e->ts, rst_seq);
		if (e->theirs.packets)
			e->scope = SCOPE_FLOW;
	}
}

/* A RST from elsewhere is told: so will be later handshakes of that address. */
INLINE void watch_peer(const struct rst_event *e, const struct tuple *t)
{
	struct peer_key key = { .net = e->net };
	struct watched watched = { .ts = e->ts, .t = *t };

	if (!BASELINE)
		return;
	__builtin_memcpy(key.addr, t->saddr, 16);
	watched_peers.update(&key, &watched);
}
