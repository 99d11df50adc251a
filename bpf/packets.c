/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The packet layer: every RST that comes in (netif_receive_skb) or leaves (net_dev_queue).
 */

INLINE int same_packet(const struct track *t, const struct parsed *p, __u64 now)
{
	return since(now, t->ts) < 10 * SECOND && t->seq == p->seq &&
	       t->ack == p->ack && t->flags == p->flags && t->ip_id == p->ip_id;
}

/* `old`: the track of what was in this memory before, if there is one. It becomes this one's: to put one in
 * its place takes ten times as long. */
INLINE struct track *new_track(__u64 skb, struct track *old, const struct parsed *p, __u64 now)
{
	__u32 zero = 0;
	struct track *empty = zero_track.lookup(&zero), *t = old;

	if (!empty)
		return 0;
	if (t) {
		t->phase = 0; /* first: nobody takes it for one that waits */
		IN_THIS_ORDER;
		bpf_probe_read_kernel(t, sizeof(*t), empty);
	} else {
		tracks.update(&skb, empty);
		t = tracks.lookup(&skb);
	}
	if (!t)
		return 0;
	t->seq = p->seq;
	t->ack = p->ack;
	t->flags = p->flags;
	t->ip_id = p->ip_id;
	t->ts = now;
	return t;
}

/* The track of a RST that nothing has consumed yet; 0: none. */
INLINE struct track *waiting_track(__u64 skb, __u64 now)
{
	struct track *t = skb ? tracks.lookup(&skb) : 0;

	return t && t->phase == PHASE_IN && since(now, t->ts) < 2 * SECOND ? t : 0;
}

/* A free place. Two CPUs may look for one at once: each begins elsewhere. */
INLINE void enqueue(struct waiting *w, __u64 skb, __u64 now)
{
	__u32 start = bpf_get_smp_processor_id();

#pragma unroll
	for (int i = 0; i < WAITING; i++) {
		__u32 at = (start + i) & (WAITING - 1);

		if (w->skb[at] == skb || !waiting_track(w->skb[at], now)) {
			w->skb[at] = skb;
			return;
		}
	}
	w->skb[start & (WAITING - 1)] = skb;
}

/* A connection's RSTs that wait are in one of two places. */
INLINE struct waiting *waiting_at(__u64 ends, __u32 other)
{
	__u32 at = (ends >> (64 - TRACKED_BITS)) ^ other;

	return arrivals.lookup(&at);
}

INLINE struct waiting *waiting_for(__u64 ends)
{
	struct waiting *first = waiting_at(ends, 0), *second = waiting_at(ends, 1);

	if (first && first->ends == ends)
		return first;
	return second && second->ends == ends ? second : 0;
}

/* Where both places have another connection's RSTs (its first one waits), the second one's are forgotten:
 * accepted() still finds them by their numbers. */
INLINE void remember(const struct arrival_key *arrival, __u64 skb, __u64 now)
{
	__u64 ends = ends_sum(arrival);
	struct waiting *w = waiting_for(ends);

	if (w) {
		enqueue(w, skb, now);
		return;
	}
	w = waiting_at(ends, 0);
	if (w && waiting_track(w->skb[0], now))
		w = waiting_at(ends, 1);
	if (!w)
		return;
	w->ends = 0;
	IN_THIS_ORDER;
	w->skb[0] = skb;
	w->skb[1] = w->skb[2] = w->skb[3] = 0;
	IN_THIS_ORDER;
	w->ends = ends;
}

INLINE void unremember(const struct arrival_key *arrival, __u64 skb)
{
	struct waiting *waiting = waiting_for(ends_sum(arrival));

	if (!waiting)
		return;
#pragma unroll
	for (int i = 0; i < WAITING; i++) {
		if (waiting->skb[i] == skb)
			waiting->skb[i] = 0;
	}
}

INLINE struct numbered *numbered_at(__u64 net, __u32 number, __u32 is_ack)
{
	__u32 at = place_of(net << 33 ^ (__u64)number << 1 ^ is_ack, TRACKED_BITS + 1);

	return numbers.lookup(&at);
}

INLINE void announce_number(__u64 net, __u32 number, __u32 is_ack, __u64 skb)
{
	struct numbered *n = numbered_at(net, number, is_ack);

	if (!n)
		return;
	n->skb = 0;
	IN_THIS_ORDER;
	n->net = net;
	n->number = number;
	n->is_ack = is_ack;
	IN_THIS_ORDER;
	n->skb = skb;
}

/* Where tcp_reset(), which is given the socket only, looks for its RST: see accepted(). */
INLINE void announce(__u64 skb, const struct track *t)
{
	struct arrival_key arrival = {};

	arrival.net = t->net;
	arrival.t = t->t;
	remember(&arrival, skb, t->ts);
	announce_number(t->net, t->seq, 0, skb);
	announce_number(ANY_NET, t->seq, 0, skb);
	if (t->flags & TH_ACK) {
		announce_number(t->net, t->ack, 1, skb);
		announce_number(ANY_NET, t->ack, 1, skb);
	}
}

INLINE void arrived(__u64 skb, const void *dev, const struct parsed *p)
{
	struct track *t = tracks.lookup(&skb), *old = t;
	struct rst_frame frame = {};
	__u64 now = bpf_ktime_get_ns();

	fill_frame(&frame, (void *)skb, dev, p->ttl);
	if (t && (!same_packet(t, p, now) ||
		  (t->phase == PHASE_IN && t->here.netns == frame.netns &&
		   t->here.ifindex == frame.ifindex)))
		t = 0; /* the skb's memory is another packet now (perhaps the same RST, sent again) */
	if (!t) {
		t = new_track(skb, old, p, now);
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
	t->ts = now;
	t->here = frame;
	t->t = p->t;
	t->net = net_key(net_of_dev(dev));
	fill_headers(&t->rst, p);
	announce(skb, t);
}

/* A namespace's net_key(), and with it its inode number. */
INLINE __u64 read_net(const void *net, __u32 *inum)
{
	__u64 cookie = MEMBER(__u64, net, net_cookie);

	*inum = MEMBER(__u32, net, net_inum);
	return cookie ? cookie : *inum;
}

/* An address that is no more than a number to the verifier, as older kernels take what typed programs load
 * from a member that points to bytes. To newer ones that is a pointer (rdonly_untrusted_mem;
 * tools/testing/selftests/bpf/progs/mem_rdonly_untrusted.c), and so is
 * all that is computed with it, lengths too. */
INLINE const void *as_number(struct work *work, const void *address)
{
	return (const void *)unknown(work, (__u64)address);
}

/* Headers that lie in pages: of a packet socket's ring, or of a network card that puts them there. */
INLINE int read_pages(struct work *work, const void *skb, const __u8 *l3, __u32 buffer)
{
#if TYPED && DYNPTR_FROM_SKB
	const __u8 *data = as_number(work, MEMBER(const __u8 *, skb, skb_data));
	__u64 at = l3 - data, length = MEMBER(__u32, skb, skb_len);
	const __u8 *copy;
	__u64 dynptr[2];

	if (at + 40 > length || dynptr_from_skb(skb, 0, dynptr))
		return ELSEWHERE;
	length = (length - at < PAGES_READ ? length - at : PAGES_READ) - 1;
	asm volatile("" : "+r"(length)); /* the verifier wants to see it, in this very register */
	length = (length & (PAGES_READ - 1)) + 1;
	if (dynptr_read(work->pages, length, dynptr, at, 0))
		return ELSEWHERE;
	work->p.l3 = work->pages;
	copy = *(const __u8 *volatile *)&work->p.l3; /* a number now, to the verifier */
	return parse_whole(copy, copy + length, buffer, &work->p);
#else
	return ELSEWHERE;
#endif
}

/* Read a packet's headers where they are expected, else look closer. */
INLINE int read_headers(struct work *work, const __u8 *window, const void *skb, const char *head,
			const __u8 *l3)
{
	const __u8 *end = (const __u8 *)head + MEMBER(__u32, skb, skb_tail);
	const __u8 *data = as_number(work, MEMBER(const __u8 *, skb, skb_data));
	__u32 buffer = MEMBER(__u32, skb, skb_len) - (__u32)(l3 - data);
	int said = window ? parse_window(window, l3, end, buffer, &work->p) : UNUSUAL;

	work->p.shinfo = head + MEMBER(__u32, skb, skb_end);
	if (said == UNUSUAL)
		said = parse_whole(l3, end, buffer, &work->p);
	if (said == ELSEWHERE && MEMBER(__u32, skb, skb_data_len))
		said = read_pages(work, skb, l3, buffer);
	return said;
}

/* fill_frame(), with the source MAC from the window if it is there. */
INLINE void read_frame(struct rst_frame *f, const struct parsed *p, const __u8 *window,
		       const void *skb, const char *head, const void *dev)
{
	__u16 offset = MEMBER(__u16, skb, skb_mac_header);

	f->ifindex = MEMBER(__u32, dev, dev_ifindex);
	f->ttl = p->ttl;
	f->has_mac = 0;
	if (offset == NO_OFFSET || MEMBER(__u16, dev, dev_type) != ARPHRD_ETHER_)
		return;
	if (window && (const __u8 *)head + offset + 14 == p->l3) {
		*(__u32 *)f->mac = WORD(window, WINDOW_BEFORE - 8);
		*(__u16 *)(f->mac + 4) = HALF(window, WINDOW_BEFORE - 4);
		f->has_mac = 1;
	} else {
		f->has_mac = !bpf_probe_read_kernel(f->mac, 6, head + offset + 6);
	}
}

/* A TCP header in several fragments is put together here as they come, for a RST that is accepted is
 * freed past every tracepoint. Whether `p` is that RST now; the stack puts it together in the memory of
 * the fragment that came last. */
INLINE int gather(struct parsed *p, const __u8 *l3, const __u8 *end, const void *dev)
{
	struct fragments_key key = {};
	struct fragment f = {};
	struct fragments *all, *empty;
	__u32 zero = 0, unit, length;
	__u64 now;

	if (!parse_fragment(l3, end, p, &f) || f.offset >= UNITS * 8)
		return 0;
	now = bpf_ktime_get_ns();
	key.net = net_key(net_of_dev(dev));
	__builtin_memcpy(key.saddr, p->t.saddr, 16);
	__builtin_memcpy(key.daddr, p->t.daddr, 16);
	key.id = f.id;
	all = fragmented.lookup(&key);
	if (!all || since(now, all->ts) > SECOND) {
		empty = zero_fragments.lookup(&zero);
		if (!empty)
			return 0;
		fragmented.update(&key, empty);
		all = fragmented.lookup(&key);
		if (!all)
			return 0;
	}
	all->ts = now;
	for (int i = 0; i < UNITS; i++) {
		if (f.data >= end)
			break;
		unit = (f.offset / 8 + i) & (2 * UNITS - 1);
		bpf_probe_read_kernel(all->l4 + unit * 8, 8, f.data);
		all->have |= 1 << unit;
		f.data += 8;
	}
	/* The first 16 bytes tell how long it is. */
	length = ((all->l4[12] >> 4) * 4 + 7) / 8;
	if ((all->have & 3) != 3 || length > UNITS ||
	    (all->have & ((1 << length) - 1)) != (1 << length) - 1)
		return 0;
	p->l4 = all->l4;
	if (parse_header(*(const __u8 *volatile *)&p->l4, p) != PARSED || !(p->flags & TH_RST))
		return 0;
	all->have = 0; /* not deleted: it is read in a moment */
	return 1;
}

/* Read it again where the stack has it in one piece: read_late() in causes.c. */
INLINE void mark(__u64 skb, const void *dev)
{
	__u32 zero = 0;
	struct unread *unread, *empty = zero_unread.lookup(&zero);

	if (!empty)
		return;
	unreads.update(&skb, empty);
	unread = unreads.lookup(&skb);
	if (!unread)
		return;
	unread->ts = bpf_ktime_get_ns();
	unread->net = net_key(net_of_dev(dev));
	fill_frame(&unread->frame, (const void *)skb, dev, 0);
}

#if BASELINE && TYPED && RDONLY_CAST

INLINE int is_learned_in(const void *skb, __u16 protocol)
{
	__u64 linear = LOAD("u32", skb, OFF_skb_len) - LOAD("u32", skb, OFF_skb_data_len);
	const __u8 *l3 = MEMBER(const __u8 *, skb, skb_data);
	struct usual u;

	return (protocol == ETH_IP || protocol == ETH_IPV6) && take_usual(&u, l3, linear) &&
	       learn_usual(&u, skb, l3, 0);
}

/* Forwarded packets were learned where they came in. */
INLINE int is_learned_out(const void *skb, __u16 offset)
{
	__u64 tail = LOAD("u32", skb, OFF_skb_tail), linear = tail > offset ? tail - offset : 0;
	const __u8 *l3 = MEMBER(const __u8 *, skb, skb_head) + offset;
	struct usual u;

	return take_usual(&u, l3, linear) && !MEMBER(__u32, skb, skb_iif) &&
	       learn_usual(&u, skb, l3, 1);
}

#else

INLINE int is_learned_in(const void *skb, __u16 protocol) { return 0; }
INLINE int is_learned_out(const void *skb, __u16 offset) { return 0; }

#endif

int rt_netif_receive_skb(struct bpf_raw_tracepoint_args *ctx)
{
	const void *skb = (const void *)ctx->args[0], *dev;
	__u16 protocol = FROM_BE16(MEMBER(__u16, skb, skb_protocol));
	struct rst_frame frame = {};
	const __u8 *window = 0, *l3;
	const char *head;
	struct work *work;
	int said = NO_TCP;
	__u32 zero = 0;
	__u64 net;

	if (is_learned_in(skb, protocol))
		return 0;
	work = work_in.lookup(&zero);
	if (!work)
		return 0;
	head = as_number(work, MEMBER(const char *, skb, skb_head));
	if (protocol == ETH_IP || protocol == ETH_IPV6)
		l3 = as_number(work, MEMBER(const __u8 *, skb, skb_data));
	else
		l3 = l3_received(skb, &said);
	if (l3) {
		window = open_window(work->window, head, l3);
		said = read_headers(work, window, skb, head, l3);
	}
	if (said == NO_TCP)
		return 0;
	dev = MEMBER(const void *, skb, skb_dev);
	if (said != PARSED) {
		if (l3 && gather(&work->p, l3, (const __u8 *)head + MEMBER(__u32, skb, skb_tail), dev))
			arrived((__u64)skb, dev, &work->p);
		else
			mark((__u64)skb, dev);
		return 0;
	}
	if (work->p.flags & TH_RST) {
		arrived((__u64)skb, dev, &work->p);
		return 0;
	}
	if (!BASELINE)
		return 0;
#if TYPED && RDONLY_CAST
	window = READABLE((const __u8 *)as_number(work, work->p.l3) - WINDOW_BEFORE); /* whatever way l3 was come by */
#endif
	net = read_net(MEMBER(const void *, dev, dev_net), &frame.netns);
	read_frame(&frame, &work->p, window, skb, head, dev);
	learn(work, skb, &frame, net, frame.netns, bpf_ktime_get_ns());
	return 0;
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

/* The stack's decision to send this RST, if a probe saw it. */
INLINE struct pending *decision(const struct answer_key *answer, const struct parsed *p, __u64 now)
{
	struct pending *pending = pendings.lookup((void *)answer);

	if (!pending || pending->expected <= 0 || !answers(pending, p, now))
		return 0;
	return pending;
}

/* The stack or the firewall answers; both numbers of an active RST are its own, of an answer's only
 * one: no mix-up. */
INLINE void fill_answer(struct rst_event *e, struct pending *pending)
{
	e->kind = pending->kind;
	e->reason = pending->reason;
	e->hook = pending->hook;
	bpf_probe_read_kernel(&e->trigger, sizeof(e->trigger), &pending->trigger);
	bpf_probe_read_kernel(&e->sock, sizeof(e->sock), &pending->sock);
	bpf_probe_read_kernel(&e->detail, sizeof(e->detail), &pending->detail);
	/* Not deleted: another CPU may just be expecting one more, the same to the last bit. */
	__sync_fetch_and_add(&pending->expected, -1);
	if (pending->has_owner) {
		bpf_probe_read_kernel(&e->owner, sizeof(e->owner), &pending->owner);
		e->has_owner = 1;
	} else if (e->sock.present) {
		fill_owner(e);
	}
}

/* A process wrote it. */
INLINE void fill_raw(struct rst_event *e, const void *sk)
{
	__u64 task = bpf_get_current_pid_tgid();

	e->kind = KIND_SENT_RAW;
	fill_writer(&e->sock, sk);
	e->sock.netns = e->netns;
	/* sendto() runs in the writer's context down to here, unless the packet had to wait for its
	 * neighbour: then we are in whatever neigh_update() interrupted. */
	if (task && !in_neighbour.lookup(&task)) {
		fill_task(&e->owner);
		e->has_owner = 1;
	}
}

/* A socket resets its connection. What tcp_send_active_reset() said is there already where its entry
 * is probed, or where the packet had to wait (for its neighbour, for a program's verdict). */
INLINE void fill_active(struct rst_event *e, const void *sk, const struct parsed *p, __u64 now)
{
	__u64 key = (__u64)sk;
	struct active_reason *why = reasons.lookup(&key);

	e->kind = KIND_SENT_ACTIVE;
	fill_socket(&e->sock, sk);
	if (!why || !(since(now, why->ts) < SECOND ||
		      (since(now, why->ts) < 30 * SECOND && why->seq == p->seq))) {
		fill_owner(e);
		e->reason_follows = ACTIVE_REASON_FOLLOWS;
		fix_state(&e->sock);
		return;
	}
	e->reason = why->reason;
	e->sock.state_now = why->state_now;
	if (why->owned && why->state_now == ST_CLOSE) {
		e->owner = why->task;
		e->has_owner = 1;
	} else {
		e->sock.owned = 0; /* whoever runs now is not the one */
		fill_owner(e);
		e->actor = why->task;
		e->has_actor = why->owned;
	}
	e->sock.owned = why->owned;
	reasons.delete(&key);
	fix_state(&e->sock);
}

INLINE struct sent *sent_at_place(const struct sent_key *key)
{
	__u32 at = place_of((__u64)key->seq << 32 ^ key->ack ^ key->net << 16 ^ key->ip_id, TRACKED_BITS);

	return sents.lookup(&at);
}

INLINE int same_sent_key(const struct sent_key *a, const struct sent_key *b)
{
	const __u64 *p = (const __u64 *)a, *q = (const __u64 *)b;

	_Static_assert(sizeof(*a) == 7 * sizeof(*p), "a sent_key is seven numbers");
	return !((p[0] ^ q[0]) | (p[1] ^ q[1]) | (p[2] ^ q[2]) | (p[3] ^ q[3]) | (p[4] ^ q[4]) |
		 (p[5] ^ q[5]) | (p[6] ^ q[6]));
}

/* Whoever looks at it later, on its way through this node or as a copy, is told who made it. */
INLINE void remember_made(struct track *t, const struct rst_event *e, const struct parsed *p,
			  __u64 skb, __u64 now)
{
	struct sent *sent = sent_at_place(&t->key);

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
	if (!sent)
		return;
	sent->key.net = 0;
	IN_THIS_ORDER;
	sent->ts = now;
	sent->head = (__u64)GET(const char *, skb, skb_head);
	sent->skb = skb;
	sent->kind = e->kind;
	IN_THIS_ORDER;
	sent->key = t->key;
}

/* Whether it is a copy of a RST that has left; its track is then the original's. */
INLINE int is_told(struct track *t, __u64 skb, const void *sk, __u64 now)
{
	struct sent *before = sent_at_place(&t->key);
	struct track *original;
	__u64 first;

	if (!before || !same_sent_key(&before->key, &t->key) || !is_copy(before, (const void *)skb, sk, now))
		return 0;
	first = before->skb;
	original = tracks.lookup(&first);
	if (original) {
		t->made = original->made;
		t->here = original->here;
	}
	return 1;
}

/* tcp_send_reset, which comes next, tells why: that is sent behind the event. Not in place of it: it
 * does not come where the packet waited so long that what it said (`reasons`) is forgotten. Of a RST
 * that is only counted it is taken note of too, else it would be kept for the next one. */
INLINE void await_reason(const struct rst_event *e, const void *sk, __u8 told)
{
	__u32 at = place_of((__u64)sk, TRACKED_BITS);
	struct awaited *awaited = awaiting.lookup(&at);

	if (!awaited)
		return;
	awaited->sk = 0;
	IN_THIS_ORDER;
	awaited->ts = e->ts;
	awaited->skb = told ? e->skb : 0;
	IN_THIS_ORDER;
	awaited->sk = (__u64)sk;
}

/* Of an answer for which no probe gave a reason: by the ends that it goes between. One with ACK answers
 * a SYN, which is for no connection that was. */
INLINE void fill_answered_owner(struct rst_event *e, const struct parsed *p)
{
	struct arrival_key ends = { .net = e->net };

	if (p->flags & TH_ACK)
		return;
	__builtin_memcpy(ends.t.saddr, p->t.daddr, 16);
	__builtin_memcpy(ends.t.daddr, p->t.saddr, 16);
	ends.t.sport = p->t.dport;
	ends.t.dport = p->t.sport;
	fill_past_owner(e, &ends);
}

/* A RST this namespace made leaves it. */
INLINE void leaves(__u64 skb, struct track *old, const void *dev, const struct parsed *p, __u64 now)
{
	struct answer_key answer = {};
	struct pending *pending = 0;
	struct rst_event *e;
	struct track *t;
	const void *sk = GET(const void *, skb, skb_sk);
	__u8 state = 0, raw = 0, told;

	if (sk) {
		state = GET(__u8, sk, sk_state);
		raw = is_raw(sk, state);
	}
	t = new_track(skb, old, p, now);
	if (!t) {
		count(KIND_SENT_PASSIVE, COUNT_LOST);
		return;
	}
	answer.net = t->net = t->key.net = net_key(net_of_dev(dev));
	answer.seq = t->key.seq = p->seq;
	answer.ack = t->key.ack = p->ack;
	t->key.t = p->t;
	t->key.ip_id = p->ip_id;
	t->key.flags = p->flags;
	t->phase = PHASE_OUT;
	if (!raw)
		pending = decision(&answer, p, now);
	if (!raw && !pending && is_told(t, skb, sk, now))
		return;
	e = new_event_out(KIND_SENT_PASSIVE);
	if (!e)
		return;
	e->ts = t->ts;
	e->skb = skb;
	e->net = answer.net;
	e->reason = e->drop_reason = NO_REASON;
	e->here.ifindex = GET(__u32, dev, dev_ifindex);
	e->here.netns = e->netns = net_inum(net_of_dev(dev));
	e->here.ttl = p->ttl;

	if (pending)
		fill_answer(e, pending);
	else if (raw)
		fill_raw(e, sk);
	else if (sk && is_answering(sk, state))
		e->kind = KIND_SENT_PASSIVE; /* its cause was missed */
	else if (sk && is_tcp(sk))
		fill_active(e, sk, p, now);
	else if (is_ipv6(p) && checksum_left_to_device((const void *)skb, p))
		e->kind = KIND_SENT_PASSIVE; /* before 6.10, tcp_send_reset is silent without a socket */
	else
		e->kind = KIND_SENT_NETFILTER;
	if (e->kind == KIND_SENT_PASSIVE && !pending)
		fill_answered_owner(e, p);
	remember_made(t, e, p, skb, now);
	told = !only_counted(e, &p->t);
	if (told) {
		if (e->kind == KIND_SENT_ACTIVE)
			fill_timers(&e->detail, sk);
		fill_headers(&e->rst, p);
		fill_baseline(e, t->net, &p->t, p->seq);
		emit(e);
	} else {
		end_flow(e->kind, t->net, &p->t);
	}
	if (e->reason_follows)
		await_reason(e, sk, told);
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
}

/* What a RST that is told has beside that. */
INLINE void fill_packet(struct rst_event *e, const struct track *t)
{
	bpf_probe_read_kernel(&e->rst, sizeof(e->rst), &t->rst);
	fill_baseline(e, t->net, &t->t, t->seq);
	watch_peer(e, &t->t);
}

/* A RST is about to leave by a device: made here, or on its way through. */
INLINE void departs(__u64 key, const void *dev, const struct parsed *p)
{
	const void *skb = (const void *)key;
	struct track *t = tracks.lookup(&key), *old = t;
	__u64 now = bpf_ktime_get_ns();
	struct rst_event *e;

	if (t && (!same_packet(t, p, now) || is_sent_again(t, skb, dev)))
		t = 0;
	if (!t) {
		if (!GET(__u32, skb, skb_iif))
			leaves(key, old, dev, p, now);
		return;
	}
	if (t->phase == PHASE_OUT)
		return; /* a lower device: VLAN, bridge, tunnel */
	t->phase = PHASE_OUT;
	if (t->forwarded || !(KIND_MASK & (1 << KIND_FORWARDED)))
		return;
	t->forwarded = 1;
	e = new_event_out(KIND_FORWARDED);
	if (!e)
		return;
	e->kind = KIND_FORWARDED;
	fill_received(e, t, key);
	if (!only_counted(e, &t->t)) {
		fill_packet(e, t);
		emit(e);
	}
}

int rt_net_dev_queue(struct bpf_raw_tracepoint_args *ctx)
{
	const void *skb = (const void *)ctx->args[0], *dev;
	__u16 offset = MEMBER(__u16, skb, skb_network_header);
	const char *head;
	const __u8 *l3;
	struct work *work;
	__u32 zero = 0, netns;
	__u64 net;

	if (offset == NO_OFFSET || !offset || is_learned_out(skb, offset))
		return 0;
	work = work_out.lookup(&zero);
	if (!work)
		return 0;
	head = as_number(work, MEMBER(const char *, skb, skb_head));
	l3 = (const __u8 *)head + offset;
	if (read_headers(work, open_window(work->window, head, l3), skb, head, l3) != PARSED)
		return 0;
	dev = MEMBER(const void *, skb, skb_dev);
	if (work->p.flags & TH_RST) {
		departs((__u64)skb, dev, &work->p);
		return 0;
	}
	/* Forwarded packets and loopback's were or will be learned where they come in. */
	if (!BASELINE || MEMBER(__u32, skb, skb_iif) ||
	    (MEMBER(__u32, dev, dev_flags) & IFF_LOOPBACK_))
		return 0;
	net = read_net(MEMBER(const void *, dev, dev_net), &netns);
	learn(work, skb, 0, net, netns, sent_at(skb));
	return 0;
}
