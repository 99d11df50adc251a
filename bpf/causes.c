/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The cause layer: what became of a RST that came in, and why one was sent.
 */

/* ---- received ---- */

INLINE void forget(__u64 skb, const struct track *t)
{
	struct arrival_key arrival = {};

	arrival.net = t->net;
	arrival.t = t->t;
	unremember(&arrival, skb);
	if (t->phase != PHASE_TOLD)
		tracks.delete(&skb);
}

/* The packet ended in another namespace than where it was seen: a macvlan or VLAN device that was
 * moved away from its lower one. Its own packets were learned there. */
INLINE void move_to(struct rst_event *e, const void *net, const void *dev)
{
	e->net = net_key(net);
	e->netns = e->here.netns = net_inum(net);
	/* TCP takes the device off its packets; skb_iif is the last one that it came in by. */
	e->here.ifindex = dev ? GET(__u32, dev, dev_ifindex) : GET(__u32, e->skb, skb_iif);
}

INLINE void fill_ours(struct rst_event *e, const struct track *t)
{
	struct rst_flow_key key = {};
	struct rst_flow *f;
	int high;

	if (!BASELINE || e->net == t->net || e->ours.packets)
		return;
	high = make_flow_key(&key, e->net, &t->t);
	f = known_flow(&key);
	if (f)
		bpf_probe_read_kernel(&e->ours, sizeof(e->ours), high ? &f->half[0] : &f->half[1]);
}

INLINE void fill_past_owner_of(struct rst_event *e, const struct tuple *t)
{
	struct arrival_key ends = { .net = e->net, .t = *t };

	fill_past_owner(e, &ends);
}

INLINE void emit_received(__u64 skb, struct track *t, __u8 kind, const void *sk, const void *dev,
			  __u32 drop_reason)
{
	const void *net = sk ? GET(const void *, sk, sk_net) : net_of_dev(dev);
	struct rst_event *e;

	/* tcp_timewait_state_process(): what ends a minisocket is dropped like what does not. */
	if (sk && kind == KIND_RECEIVED_REJECTED && is_ended(sk))
		kind = KIND_RECEIVED_ACCEPTED;
	e = new_event(skb, kind);
	if (!e)
		return;
	e->kind = kind;
	fill_received(e, t, skb);
	if (net && net_key(net) != t->net)
		move_to(e, net, dev);
	e->drop_reason = drop_reason;
	if (sk) {
		fill_socket(&e->sock, sk);
		fill_detail(&e->detail, sk);
		e->judged = sk == (const void *)t->sk;
		if (e->judged && t->handshake)
			e->sock.state = ST_SYN_RECV;
	}
	if (only_counted(e, &t->t)) {
		end_flow(kind, t->net, &t->t);
	} else {
		fill_packet(e, t);
		fill_ours(e, t);
		if (e->sock.present && e->sock.state != ST_LISTEN)
			fill_owner(e);
		else if (!e->sock.present)
			fill_past_owner_of(e, &t->t);
		if (e->sock.full && e->sock.state != ST_LISTEN)
			fill_data(e);
		emit(e);
	}
	held.delete(&skb);
	forget(skb, t);
}

INLINE int is_between(const struct track *t, const struct tuple *ends)
{
	const __u64 *p = (const __u64 *)&t->t, *q = (const __u64 *)ends;

	return !((p[0] ^ q[0]) | (p[1] ^ q[1]) | (p[2] ^ q[2]) | (p[3] ^ q[3])) &&
	       t->t.sport == ends->sport && t->t.dport == ends->dport;
}

/* Of the RSTs that wait, the one with the number that tcp_validate_incoming() wants, else (unless
 * it must be exact) the oldest. 0: none. */
INLINE __u64 pick(const struct arrival_key *arrival, __u32 expected, __u32 is_ack, __u8 must, __u64 now)
{
	struct waiting *waiting = waiting_for(ends_sum(arrival));
	__u64 chosen = 0, oldest = 0;
	__u8 exact = 0;

	if (!waiting)
		return 0;
#pragma unroll
	for (int i = 0; i < WAITING; i++) {
		__u64 candidate = waiting->skb[i];
		struct track *t = waiting_track(candidate, now);
		__u8 fits;

		/* its place may be just becoming another connection's */
		if (!t || t->net != arrival->net || !is_between(t, &arrival->t))
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

/* A connection's ends, as its RSTs have them. */
INLINE void fill_ends(struct arrival_key *ends, const void *sk)
{
	ends->net = net_key(GET(const void *, sk, sk_net));
	fill_addresses(sk, ends->t.daddr, ends->t.saddr);
	ends->t.sport = FROM_BE16(GET(__u16, sk, sk_dport));
	ends->t.dport = local_port(sk);
}

/* A RST that could not be read where it came in, as the stack has it now: put together, unwrapped, its
 * headers in one piece. */
INLINE struct track *read_late(__u64 skb, struct unread *unread)
{
	const __u8 *l3 = l3_at_offset((const void *)skb);
	struct parsed *p = &unread->room;
	struct arrival_key arrival = {};
	__u64 first, now = bpf_ktime_get_ns();
	struct track *t, *old;

	if (since(now, unread->ts) > 2 * SECOND || !l3 ||
	    !GET(__u32, (const void *)skb, skb_iif) || /* it came from nowhere: memory used again */
	    !parse((const void *)skb, l3, p) || !(p->flags & TH_RST))
		return 0;
	t = old = tracks.lookup(&skb);
	if (t && t->phase != PHASE_OUT && same_packet(t, p, now))
		return t; /* it was read, and the mark is of what was in this memory before */
	arrival.net = unread->net;
	arrival.t = p->t;
	first = pick(&arrival, p->seq, 0, 1, now); /* its first fragment was read */
	t = first ? tracks.lookup(&first) : 0;
	if (t) {
		tracks.update(&skb, t);
		tracks.delete(&first);
		return tracks.lookup(&skb);
	}
	t = new_track(skb, old, p, now);
	if (!t) {
		count(KIND_RECEIVED_UNMATCHED, COUNT_LOST);
		return 0;
	}
	t->phase = PHASE_IN;
	t->here = unread->frame;
	t->here.ttl = p->ttl;
	t->t = p->t;
	t->net = unread->net;
	fill_headers(&t->rst, p);
	announce(skb, t);
	return t;
}

/* A RST's track, where it has found its socket. */
INLINE struct track *track_of(__u64 skb)
{
	struct unread *unread = unreads.lookup(&skb);
	struct track *t = 0;

	if (unread) { /* first: its memory may have been another RST's */
		t = read_late(skb, unread);
		unreads.delete(&skb);
	}
	return t ? t : tracks.lookup(&skb);
}

#define RCV_SHUTDOWN_ 1 /* include/net/sock.h */

/* tcp_reset() for a RST that was not read: its headers lay where they could not be. Told with what the
 * socket knows. It is also called for data that comes where the socket takes none any more
 * (tcp_rcv_state_process()): that is no reset, and where it may be that nothing is told. */
INLINE void accepted_unread(const void *sk, const struct tuple *wire)
{
	const void *net = GET(const void *, sk, sk_net);
	__u64 key = (__u64)sk;
	struct rst_event *e;

	if (GET(__u8, sk, sk_shutdown) & RCV_SHUTDOWN_)
		return;
	e = new_event(key, KIND_RECEIVED_ACCEPTED);
	if (!e)
		return;
	e->kind = KIND_RECEIVED_ACCEPTED;
	e->ts = bpf_ktime_get_ns();
	e->net = net_key(net);
	e->netns = net_inum(net);
	e->reason = e->drop_reason = NO_REASON;
	e->judged = 1;
	fill_socket(&e->sock, sk);
	fill_detail(&e->detail, sk);
	end_flow(e->kind, e->net, wire);
	if (!only_counted(e, wire)) {
		fill_owner(e);
		fill_data(e);
		emit(e);
	}
	held.delete(&key);
}

/* The RST that has announced this number and waits; 0: none. */
INLINE __u64 announced(__u64 net, __u32 number, __u32 is_ack, __u64 now)
{
	struct numbered *n = numbered_at(net, number, is_ack);
	__u64 skb = n ? n->skb : 0;
	struct track *t;

	if (!skb || n->net != net || n->number != number || n->is_ack != is_ack)
		return 0;
	t = waiting_track(skb, now);
	return t && (is_ack ? t->ack : t->seq) == number ? skb : 0;
}

/* tcp_reset() with only the socket given: find the RST by the connection, then (NAT) by the
 * sequence number that made it acceptable. */
INLINE void accepted(const void *sk)
{
	__u32 is_ack = GET(__u8, sk, sk_state) == ST_SYN_SENT;
	__u32 expected = is_ack ? GET(__u32, sk, tp_snd_nxt) : GET(__u32, sk, tp_rcv_nxt);
	struct arrival_key arrival = {};
	__u64 skb, now = bpf_ktime_get_ns();
	struct track *t;

	fill_ends(&arrival, sk);
	skb = pick(&arrival, expected, is_ack, 0, now);
	if (!skb)
		skb = announced(arrival.net, expected, is_ack, now);
	if (!skb) {
		/* A macvlan in another namespace than its lower device: seen once, at the lower one. */
		skb = announced(ANY_NET, expected, is_ack, now);
		t = skb ? tracks.lookup(&skb) : 0;
		if (!t || !is_between(t, &arrival.t))
			skb = 0;
	}
	t = waiting_track(skb, now);
	if (!t) {
		accepted_unread(sk, &arrival.t);
		return;
	}
	/* Two that fit may be judged in another order than they came (two CPUs). If this one is
	 * dropped after all, it was the other one; see dropped(). */
	t->phase = PHASE_TOLD;
	emit_received(skb, t, KIND_RECEIVED_ACCEPTED, sk, 0, NO_REASON);
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
	struct parsed p = {};
	struct track *t = track_of(skb);
	const void *sk = 0;
	const __u8 *l3;
	__u32 reason = NO_REASON;
	__u8 kind = KIND_RECEIVED_REJECTED, route;
	struct arrival_key arrival = {};
	__u64 freed = skb, now;

	if (!t)
		return 0;
	now = bpf_ktime_get_ns();
	l3 = l3_at_offset((const void *)skb);
	if (!l3 || !parse((const void *)skb, l3, &p) ||
	    !same_packet(t, &p, now))
		return 0; /* another packet in the same memory */
	if (t->phase == PHASE_TOLD) {
		arrival.net = t->net;
		arrival.t = t->t;
		skb = pick(&arrival, p.seq, 0, 1, now);
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
	emit_received(skb, t, kind, sk, GET(const void *, (void *)freed, skb_dev), reason);
	return 0;
}

/* ---- whose ----
 *
 * A socket's user is whoever holds its lock in process context: nobody else can run there, for softirqs
 * put their packets off (sk_lock.owned). Noted when it connects, accepts (where that can be seen), reads,
 * and closes: a socket may have gone from hand to hand, and who closed it was the last. Kernel threads
 * are passed over: they do it for somebody. */

INLINE void is_used(__u64 sk, __u8 locked)
{
	struct owner *known = owner_at(sk);
	struct rst_task task = {};

	if (known && known->key == sk && known->task.pid == (__u32)(bpf_get_current_pid_tgid() >> 32))
		return;
	if (GET(__u16, sk, sk_protocol) != PROTO_TCP || (locked && !GET(__u32, sk, sk_owned)) ||
	    is_kernel_thread())
		return;
	fill_task(&task);
	belongs_to(sk, &task);
}

INLINE void is_closed_by_user(__u64 sk)
{
	struct rst_task task = {};

	if (!GET(__u32, sk, sk_owned) || is_kernel_thread())
		return;
	fill_task(&task);
	fill_exit(&task);
	belongs_to(sk, &task);
}

/* It goes by its ends from now on: what comes late is answered without it. */
INLINE void is_gone(__u64 sk)
{
	struct arrival_key ends = {};
	struct rst_task owner;

	fill_ends(&ends, (const void *)sk);
	if (find_owner(&owner, sk))
		belonged_to(&ends, &owner);
	else
		belonged_to_nobody(&ends);
}

/* sock_recvmsg() returns (6e6eda44b939, 6.3), to whoever reads, whatever it has found. */
int rt_sock_recv_length(struct bpf_raw_tracepoint_args *ctx)
{
	is_used(ctx->args[0], 0);
	return 0;
}

/* tcp_recvmsg() has copied data for who reads; later kernels tell of few of these. */
int rt_tcp_rcv_space_adjust(struct bpf_raw_tracepoint_args *ctx)
{
	is_used(ctx->args[0], 1);
	return 0;
}

/* Whether this CPU's other look has dealt with this change of state. (If one more came in between, this
 * says no, and it is dealt with twice: that does no harm.) */
INLINE int is_second_look(__u64 sk, __u32 old, __u32 new)
{
	__u32 zero = 0;
	struct state_change *last = last_change.lookup(&zero);

	if (!last)
		return 0;
	if (last->sk == sk && last->old == old && last->new == new) {
		last->sk = 0;
		return 1;
	}
	last->sk = sk;
	last->old = old;
	last->new = new;
	return 0;
}

/* Whether there is something to note: most changes of a connection's state are none of ours. */
INLINE int matters(int old, int new)
{
	return old == ST_CLOSE || 1 << new & (1 << ST_SYN_SENT | 1 << ST_CLOSE | 1 << ST_FIN_WAIT1 |
					      1 << ST_LAST_ACK | 1 << ST_LISTEN | 1 << ST_SYN_RECV);
}

INLINE int state_changes(struct bpf_raw_tracepoint_args *ctx)
{
	__u64 sk = ctx->args[0];
	int old = (int)ctx->args[1], new = (int)ctx->args[2];
	__u32 at = place_of(sk, TRACKED_BITS);
	struct old_state *was;
	struct rst_task task = {};

	if (!matters(old, new) || is_second_look(sk, old, new) || GET(__u16, sk, sk_protocol) != PROTO_TCP)
		return 0;
	if (new == ST_SYN_SENT) { /* connect(): in the caller's context */
		fill_task(&task);
		belongs_to(sk, &task);
	} else if (new == ST_CLOSE) {
		was = old_states.lookup(&at);
		if (was) {
			was->sk = 0;
			IN_THIS_ORDER;
			was->ts = bpf_ktime_get_ns();
			was->state = old;
			IN_THIS_ORDER;
			was->sk = sk;
		}
		is_gone(sk);
	} else if (new == ST_FIN_WAIT1 || new == ST_LAST_ACK) { /* tcp_close_state() */
		is_closed_by_user(sk);
	} else if (old == ST_CLOSE || new == ST_LISTEN || new == ST_SYN_RECV) {
		belongs_to_nobody(sk); /* the memory is another socket's now */
	}
	return 0;
}

/* Attached twice: see is_second_look(). */
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

/* ---- sent ---- */

INLINE void fill_pending_owner(struct pending *pending, __u64 net, const struct tuple *t)
{
	struct arrival_key ends = { .net = net, .t = *t };

	pending->has_owner = find_past_owner(&pending->owner, &ends);
}

/* The stack is about to answer `trigger` with a RST (tcp_v4_send_reset, nf_send_reset). */
INLINE void will_answer(const void *sk, const void *trigger, __u32 reason, __u8 kind, __u8 hook)
{
	struct answer_key answer = {};
	const __u8 *l3 = l3_at_offset(trigger);
	struct pending *pending, *empty;
	struct parsed p = {};
	__u64 now = bpf_ktime_get_ns();
	__u32 zero = 0;

	/* a RST is never answered (RFC 9293) */
	if (!l3 || !parse(trigger, l3, &p) || (p.flags & TH_RST))
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
	pending->has_owner = 0;
	/* A listener answers for what it knows no more; a SYN is for no connection that was. */
	if (kind == KIND_SENT_PASSIVE && !(p.flags & TH_SYN) &&
	    (!sk || GET(__u8, sk, sk_state) == ST_LISTEN))
		fill_pending_owner(pending, answer.net, &p.t);
	fill_headers(&pending->trigger, &p);
	__builtin_memset(&pending->sock, 0, sizeof(pending->sock));
	__builtin_memset(&pending->detail, 0, sizeof(pending->detail));
	if (sk) {
		fill_socket(&pending->sock, sk);
		fill_detail(&pending->detail, sk);
		fix_state(&pending->sock);
	}
}

/* tcp_send_active_reset(): before the packet (function entry) or after it (tracepoint). */
INLINE void active(__u64 sk, __u32 reason)
{
	struct active_reason why = { .ts = bpf_ktime_get_ns(), .reason = reason };
	__u32 at = place_of(sk, TRACKED_BITS);
	struct awaited *awaited = awaiting.lookup(&at);
	struct rst_reason behind = { .reason = reason };

	if (awaited && awaited->sk == sk && since(why.ts, awaited->ts) < SECOND) {
		behind.ts = awaited->ts;
		behind.skb = awaited->skb;
		if (behind.skb)
			events.ringbuf_output(&behind, sizeof(behind), 0);
		awaited->sk = 0;
		return;
	}
	why.seq = GET(__u32, sk, tp_snd_nxt);
	why.owned = GET(__u32, sk, sk_owned) != 0;
	why.state_now = GET(__u8, sk, sk_state);
	if (why.owned) {
		fill_task(&why.task);
		fill_exit(&why.task);
	}
	reasons.update(&sk, &why);
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
