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

/* ---- where flows are ----
 *
 * Flows lie in one array, for a program reads an array's entry without a call: first those that both ends
 * have confirmed. A flow's place is on the shelf that its key says. Most packets need not look there:
 * `hints` has places by a few bits of a sum over a packet's ends, and the entry itself says whether the
 * hint was right. Two CPUs may do all this at once: a flow may then be forgotten, but none is taken for
 * another one. */

INLINE int same_key(const struct rst_flow_key *a, const struct rst_flow_key *b)
{
	const __u64 *p = (const __u64 *)a, *q = (const __u64 *)b;

	return !((p[0] ^ q[0]) | (p[1] ^ q[1]) | (p[2] ^ q[2]) | (p[3] ^ q[3]) | (p[4] ^ q[4]) |
		 (p[5] ^ q[5]));
}

INLINE __u32 hint_of(__u64 dev, const __u64 *source, const __u64 *destination, __u64 ports)
{
	__u64 sum = (dev << 32 ^ ports) * 0x9e3779b97f4a7c15ULL;

	sum ^= (source[1] ^ source[0] << 1) * 0xff51afd7ed558ccdULL;
	sum += (destination[1] ^ destination[0] << 1) * 0xc4ceb9fe1a85ec53ULL;
	sum ^= sum >> 32;
	return (sum * 0x9e3779b97f4a7c15ULL) >> (64 - HINT_BITS);
}

/* A hint: the flow's place, and which half its packet belongs to. */
#define HINT(place, high) ((place) << 1 | (high))

/* The flow that a packet belongs to, if the hint is right: by its ends, and the device that the one before
 * it came or went by (rst_half.dev), which is in one namespace only. */
INLINE struct rst_flow *hinted(__u32 hint, __u64 dev, const __u64 *source, const __u64 *destination,
			   __u64 ports)
{
	__u32 place = hint >> 1;
	struct rst_flow *f = flows.lookup(&place);
	const __u64 *low, *high;

	if (!f)
		return 0;
	if (hint & 1) {
		low = (const __u64 *)f->key.high;
		high = (const __u64 *)f->key.low;
		dev ^= f->half[1].dev;
		ports ^= f->ports[1];
	} else {
		low = (const __u64 *)f->key.low;
		high = (const __u64 *)f->key.high;
		dev ^= f->half[0].dev;
		ports ^= f->ports[0];
	}
	return dev | ports | (low[1] ^ source[1]) | (high[1] ^ destination[1]) |
		       (low[0] ^ source[0]) | (high[0] ^ destination[0]) ? 0 : f;
}

INLINE struct rst_shelf *shelf_of(__u64 sum, __u32 *number)
{
	*number = (sum & 0xffffffff) * SHELVES >> 32;
	return shelves.lookup(number);
}

/* Where a flow is; 0: nowhere. */
INLINE struct rst_flow *find_flow(struct rst_flow_key *key, __u32 *place)
{
	__u64 sum = sum_of(key, seed(place));
	struct rst_shelf *shelf = shelf_of(sum, place);
	struct rst_flow *f;
	__u32 found = 0;

	if (!shelf)
		return 0;
#pragma unroll
	for (int i = SHELF - 1; i >= 0; i--) {
		__u64 one = shelf->places[i];

		if (one >> 32 == sum >> 32)
			found = one;
	}
	*place = found - 1;
	f = flows.lookup(place);
	return f && same_key(&f->key, key) ? f : 0;
}

/* 1 if a number is below 0, else 0. Without a branch, which the compiler else makes of it, and for both ways
 * of which the verifier looks at all that follows. */
INLINE __u64 below_zero(__s64 number)
{
	asm volatile("" : "+r"(number));
	return (__u64)number >> 63;
}

INLINE __u64 equals_zero(__u32 number)
{
	return below_zero((__s64)number - 1);
}

/* Put a place on its flow's shelf, in place of an older one (its number + 1; 0: there is none) or of
 * nothing; where all is taken, of one that is not confirmed, if there is any. */
INLINE void shelve(struct rst_flow *f, __u32 older, __u32 place)
{
	__u64 sum = sum_of(&f->key, seed(&f->shelf));
	struct rst_shelf *shelf = shelf_of(sum, &f->shelf);
	__s64 best = SHELF, better;

	_Static_assert(SHELF == 8, "a number below 16 says which, and 8 that none fits");
	if (!shelf)
		return;
#pragma unroll
	for (int i = 0; i < SHELF; i++) {
		__u32 one = shelf->places[i];

		/* how well it fits, and of those that fit alike the first */
		better = equals_zero(one ^ older) << 6 | equals_zero(one) << 5 |
			 below_zero((__s64)FLOWS - one) << 4 | (SHELF - 1 - i);
		best += (better - best) * below_zero(best - better);
	}
	if (best == SHELF)
		best = SHELF - 1 - (sum & (SHELF - 1));
	shelf->places[(SHELF - 1 - best) & (SHELF - 1)] = sum >> 32 << 32 | (place + 1);
}

INLINE void unshelve(const struct rst_flow *f, __u32 place)
{
	__u32 number = f->shelf;
	struct rst_shelf *shelf = shelves.lookup(&number);

	if (!shelf)
		return;
#pragma unroll
	for (int i = 0; i < SHELF; i++) {
		if ((__u32)shelf->places[i] == place + 1)
			shelf->places[i] = 0;
	}
}

INLINE struct rst_flow *known_flow(struct rst_flow_key *key)
{
	__u32 place;

	return find_flow(key, &place);
}

/* Before anything else of a place changes, and until all of it is another flow's, nobody finds it: neither
 * by a hint, which compares the ports, nor by a shelf. */
INLINE void no_longer_found(struct rst_flow *f)
{
	f->ports[0] = f->ports[1] = 0;
	f->key.net = 0;
	IN_THIS_ORDER;
}

INLINE void found_from_now_on(struct rst_flow *f, const struct rst_flow_key *key, __u32 low, __u32 high)
{
	IN_THIS_ORDER;
	f->key = *key;
	IN_THIS_ORDER;
	f->ports[0] = low;
	f->ports[1] = high;
}

/* A place among those that are confirmed or the others: of one that was not used since it was last
 * looked at (a clock with a hand for each CPU, which begin far apart). */
INLINE struct rst_flow *take_place(int confirmed, __u32 *place)
{
	__u32 which = confirmed, count = confirmed ? FLOWS : UNCONFIRMED, at;
	__u32 begin = ((__u64)(bpf_get_smp_processor_id() * 0x9e3779b9U) * count) >> 32;
	struct hand *hand = hands.lookup(&which);
	struct rst_flow *f = 0;

	if (!hand)
		return 0;
	if (hand->spare) {
		*place = hand->spare - 1;
		hand->spare = 0;
		f = flows.lookup(place);
		if (f && !f->key.net && !f->used) {
			f->used = 1;
			return f;
		}
	}
	for (int i = 0; i < PLACES_LOOKED_AT; i++) {
		at = hand->at + begin;
		hand->at = hand->at + 1 < count ? hand->at + 1 : 0;
		*place = (at < count ? at : at - count) + (confirmed ? 0 : FLOWS);
		f = flows.lookup(place);
		if (!f || !f->used)
			break;
		f->used = 0;
	}
	if (f) {
		int taken = f->key.net != 0;

		f->used = 1;
		no_longer_found(f);
		if (taken)
			unshelve(f, *place);
	}
	return f;
}

INLINE void forget_flow(struct rst_flow *f)
{
	no_longer_found(f);
	f->used = 0;
}

/* This direction's packets, and the other's: most likely they go by way of the same device. */
INLINE void hint_at(__u32 place, int high, __u64 dev, const __u64 *source,
		    const __u64 *destination, __u32 ports)
{
	__u32 at = hint_of(dev, source, destination, ports), *hint = hints.lookup(&at);

	if (hint)
		*hint = HINT(place, high);
	ports = ports << 16 | ports >> 16;
	at = hint_of(dev ^ 1, destination, source, ports);
	hint = hints.lookup(&at);
	if (hint)
		*hint = HINT(place, !high);
}

INLINE struct rst_flow *new_flow(struct rst_flow_key *key, __u32 ports, int high, __u64 dev, __u32 *place)
{
	struct rst_flow *f = take_place(0, place), *faster;
	__u32 made, other;

	if (!f)
		return 0;
	clear_half(&f->half[0]);
	clear_half(&f->half[1]);
	f->half[0].dev = high ? dev ^ 1 : dev;
	f->half[1].dev = high ? dev : dev ^ 1;
	other = ports << 16 | ports >> 16;
	found_from_now_on(f, key, high ? other : ports, high ? ports : other);
	shelve(f, 0, *place);
	made = *place;
	faster = find_flow(key, place);
	if (faster && *place != made) {
		unshelve(f, made);
		forget_flow(f);
		return faster;
	}
	*place = made;
	return f;
}

/* Both ends have confirmed it: it moves to where no flood reaches it. */
INLINE int confirm(struct rst_flow *f, __u32 *place)
{
	__u32 others = 0, left = *place;
	struct hand *hand = hands.lookup(&others);
	struct rst_flow *to = take_place(1, place);

	if (!to || !hand)
		return 0;
	copy_half(&to->half[0], &f->half[0]);
	copy_half(&to->half[1], &f->half[1]);
	found_from_now_on(to, &f->key, f->ports[0], f->ports[1]);
	shelve(to, left + 1, *place);
	forget_flow(f);
	hand->spare = left + 1;
	return 1;
}

/* ---- learning ---- */

/* When a packet leaves: as its socket has noted (tcp_wstamp_ns, CLOCK_MONOTONIC), for to read the clock
 * is a good part of what a packet costs. Where it is paced (fq) it leaves at that time, not now. */
INLINE __u64 sent_at(const void *skb)
{
	const void *sk = MEMBER(const void *, skb, skb_sk);
	__u64 noted = MEMBER(__u64, skb, skb_tstamp);

	if (noted && sk && is_full(MEMBER(__u8, sk, sk_state)) &&
	    MEMBER(__u16, sk, sk_type) == SOCK_STREAM_ &&
	    MEMBER(__u16, sk, sk_family) != AF_PACKET_)
		return noted;
	return bpf_ktime_get_ns();
}

/* The usual packet, which nearly all are; whether it was one and is learned. `l3`: where it lies. */
INLINE int learn_usual(const struct usual *u, const void *skb, const __u8 *l3, int own)
{
	__u64 dev = NUMBER(skb, skb_dev) + own;
	__u32 at = hint_of(dev, u->source, u->destination, u->ports), *hint = hints.lookup(&at);
	struct rst_half *h, *other;
	__u16 segments = 1;
	struct rst_flow *f;

	if (!hint)
		return 0;
	f = hinted(*hint, dev, u->source, u->destination, u->ports);
	if (!f)
		return 0;
	h = *hint & 1 ? &f->half[1] : &f->half[0];
	other = *hint & 1 ? &f->half[0] : &f->half[1];
	if (!is_usual(h, other, u, l3, own))
		return 0;
	if (!f->used)
		f->used = 1;
	if (u->payload_len > UNSPLIT)
		segments = gso_segs(MEMBER(const char *, skb, skb_head) + MEMBER(__u32, skb, skb_end));
	note_usual(h, u, segments, own ? sent_at(skb) : bpf_ktime_get_ns());
	return 1;
}

/* A number of which the verifier knows nothing. What follows is then looked at once, and not once for
 * each way by which the number was come by. */
INLINE __u64 unknown(struct work *work, __u64 number)
{
	*(volatile __u64 *)&work->number = number;
	return *(volatile __u64 *)&work->number;
}

INLINE void learn(struct work *work, const void *skb, const struct rst_frame *frame, __u64 net,
		  __u32 netns, __u64 now)
{
	struct parsed *p = &work->p;
	__u64 dev = (__u64)GET(const void *, skb, skb_dev) + !frame;
	const __u64 *source = (const __u64 *)p->t.saddr, *destination = (const __u64 *)p->t.daddr;
	struct rst_flow_key key = {};
	struct rst_flow *f;
	struct rst_half *h, *other;
	__u32 at, place, ports, *hint, guess;
	__u16 both[2] = { FROM_BE16(p->t.sport), FROM_BE16(p->t.dport) };
	int moved = 0, told;
	__u64 high;

	/* Of the filters only the namespace's: NAT may make the wire differ from what was asked for. */
	if (FILTER_NETNS && !only_netns.lookup(&netns))
		return;
	high = unknown(work, make_flow_key(&key, net, &p->t)) & 1;
	__builtin_memcpy(&ports, both, sizeof(ports));
	at = hint_of(dev, source, destination, ports);
	hint = hints.lookup(&at);
	if (!hint)
		return;
	/* Of a SYN the hint is most likely another flow's, which is in no cache: no place at all, then. */
	guess = *hint | -(__u32)equals_zero((p->flags & (TH_SYN | TH_ACK)) ^ TH_SYN);
	place = guess >> 1;
	f = hinted(guess, dev, source, destination, ports);
	if (!f || f->key.net != net) {
		f = find_flow(&key, &place);
		if (f) {
			*hint = HINT(place, high);
		} else {
			f = new_flow(&key, ports, high, dev, &place);
			moved = 1;
		}
		if (!f)
			return;
	}
	place = unknown(work, place);
	moved = unknown(work, moved);
	f->used = 1;
	h = &f->half[high];
	other = &f->half[high ^ 1];
	told = learn_packet(h, other, p, frame, now);
	h->dev = dev;
	if (frame && (told & LATE))
		tell_late(p, skb, frame, 0, key.net, now);
	if (frame && (told & CONFIRMED))
		learn_handshake(h, p, skb, frame, key.net, now);
	if (place >= FLOWS && h->confirmed && other->confirmed && confirm(f, &place))
		moved = 1;
	if (moved)
		hint_at(place, high, dev, source, destination, ports);
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
	struct rst_flow_key key = {};
	struct rst_flow *f;
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
	struct rst_flow_key key = {};
	struct peer_key peer = { .net = net };
	const struct rst_peer *known;
	struct rst_flow *f;
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
		if (!same_key(&f->key, &key)) { /* its place has become another one's meanwhile */
			e->theirs.packets = e->ours.packets = 0;
			return;
		}
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
