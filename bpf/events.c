/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What every probe does with its event: look twice, filter, count, emit.
 */

/* ---- first and second look ----
 *
 * The stack drops, resets and changes state in process context too. A softirq that comes while one
 * of our programs runs there finds it running on its CPU, and the kernel skips it (bpf_prog.active;
 * kprobe_running() for kprobes). So these are looked at by two programs: while the first is running,
 * the second is not. What the first look has dealt with, the second leaves alone. */

INLINE void looked(__u64 object)
{
	__u32 at = place_of(object, TRACKED_BITS);
	__u64 *place = looked_at.lookup(&at);

	if (place)
		*place = object;
}

INLINE int was_looked_at(__u64 object)
{
	__u32 at = place_of(object, TRACKED_BITS);
	__u64 *place = looked_at.lookup(&at);

	if (!place || *place != object)
		return 0;
	*place = 0;
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

/* ---- emit ---- */

INLINE int filtered(const struct rst_event *e, const struct tuple *wire)
{
	if (event_wanted(e, wire))
		return 0;
	count(e->kind, COUNT_FILTERED);
	return 1;
}

/* Whether it is only counted: nobody asked for it, or there are enough like it. */
INLINE int only_counted(struct rst_event *e, const struct tuple *wire)
{
	if (filtered(e, wire))
		return 1;
	if (admitted(e, wire))
		return 0;
	count(e->kind, COUNT_AGGREGATED);
	return 1;
}

INLINE void emit(struct rst_event *e)
{
	__u32 size = PAYLOAD ? sizeof(*e) : sizeof(*e) - sizeof(e->data);

	if (!has_room(e->kind, size) || events.ringbuf_output(e, size, 0)) {
		count(e->kind, aggregates(e) ? COUNT_AGGREGATED : COUNT_LOST);
		return;
	}
	takes_room(e->kind, size);
	sampled(e);
	count(e->kind, COUNT_SENT);
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

INLINE struct rst_event *new_event_out(__u32 kind)
{
	__u32 zero = 0;
	struct rst_event *empty = zero_event.lookup(&zero), *e = held_out.lookup(&zero);

	if (!empty || !e) {
		count(kind, COUNT_LOST);
		return 0;
	}
	bpf_probe_read_kernel(e, sizeof(*e), empty);
	return e;
}

/* The state before tcp_set_state(TCP_CLOSE), which comes just before an active reset, and before
 * the answer to data that comes after shutdown(). */
INLINE void fix_state(struct rst_socket *sock)
{
	__u32 at = place_of(sock->address, TRACKED_BITS);
	struct old_state *old;

	if (sock->state != ST_CLOSE)
		return;
	old = old_states.lookup(&at);
	if (old && old->sk == sock->address && since(bpf_ktime_get_ns(), old->ts) < SECOND)
		sock->state = old->state;
}

/* Who had a connection whose socket is closed. */
INLINE void fill_past_owner(struct rst_event *e, const struct arrival_key *ends)
{
	e->has_owner = find_past_owner(&e->owner, ends);
}

INLINE void fill_owner(struct rst_event *e)
{
	struct arrival_key ends = {};

	/* close() and disconnect() hold the socket's lock and have set CLOSE; the task is the owner.
	 * tcp_abort() (ss -K) holds the lock too, but the state is still the old one: not the owner. */
	if (e->kind == KIND_SENT_ACTIVE && e->sock.owned && e->sock.state == ST_CLOSE) {
		fill_task(&e->owner);
		fill_exit(&e->owner);
		e->has_owner = 1;
		return;
	}
	if (e->kind == KIND_SENT_ACTIVE && e->sock.owned) {
		fill_task(&e->actor);
		fill_exit(&e->actor); /* MPTCP closes its subflows so, too */
		e->has_actor = 1;
	}
	if (e->sock.full && find_owner(&e->owner, e->sock.address)) {
		e->has_owner = 1;
		return;
	}
	if (e->sock.full && e->sock.state_now != ST_CLOSE)
		return; /* these ends are its own now */
	ends.net = e->net;
	__builtin_memcpy(ends.t.saddr, e->sock.remote, 16);
	__builtin_memcpy(ends.t.daddr, e->sock.local, 16);
	ends.t.sport = e->sock.rport;
	ends.t.dport = e->sock.lport;
	fill_past_owner(e, &ends);
}
