/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * In a storm: which resets are told one by one, which are only counted, and who has room in the ring
 * buffer.
 *
 * Resets that are alike share a bucket of tokens, which come at a steady rate. One that finds a token
 * is sent; the others are counted in the bucket, of which Python makes one line a second. There are
 * buckets for (LEVEL_…):
 *
 * - PEER: kind, cause, namespace, the peer's address, and the service's port;
 * - SERVICE: the same without the address;
 * - NETNS: kind and namespace;
 * - KIND: the kind alone, which is always there.
 *
 * A new bucket needs a token of the one above it, of another kind than those that resets take: so a
 * flood from one source takes nothing from others, and a flood from 100,000 addresses does not make
 * 100,000 buckets. Resets that get no bucket of their own go into the next one above.
 *
 * Every number that a sum is made of only ever grows, by atomic additions. Everything else may be
 * written by two CPUs at once: that costs or gives a token, never a reset.
 */

INLINE int is_sent(__u8 kind)
{
	return kind == KIND_SENT_PASSIVE || kind == KIND_SENT_ACTIVE ||
	       kind == KIND_SENT_NETFILTER || kind == KIND_SENT_RAW;
}

/* ---- room in the ring buffer ---- */

/* Each kind may fill a part of its own, and beyond it what is in nobody's part, as long as that is
 * there: what comes by the thousand (anybody can send RSTs that match nothing) does not keep out the
 * one that killed a connection. */
#define RING_BYTES (RING_PAGES * 4096ULL)
#define OWN_ROOM (RING_BYTES / 2 / ROOMS)
#define SHARED_ROOM (RING_BYTES / 2 - RING_BYTES / 64) /* the last is for reasons, which are small */
#define ALL_ROOMS (ROOMS - 1)

INLINE __u64 in_ring(const struct rst_room *room)
{
	return since(room->sent, room->read);
}

INLINE int has_room(__u32 kind, __u32 size)
{
	__u32 index = ALL_ROOMS;
	struct rst_room *own = rooms.lookup(&kind), *all = rooms.lookup(&index);

	if (!own || !all)
		return 0;
	return in_ring(own) + size <= OWN_ROOM || in_ring(all) + size <= SHARED_ROOM;
}

INLINE void takes_room(__u32 kind, __u32 size)
{
	__u32 index = ALL_ROOMS;
	struct rst_room *own = rooms.lookup(&kind), *all = rooms.lookup(&index);

	if (!own || !all)
		return;
	__sync_fetch_and_add(&own->sent, size);
	__sync_fetch_and_add(&all->sent, size);
}

/* ---- buckets ---- */

#if !RATE

INLINE int admitted(struct rst_event *e, const struct tuple *wire) { return 1; }
INLINE void sampled(const struct rst_event *e) {}
INLINE int aggregates(const struct rst_event *e) { return 0; }

#else

#define TOKEN (SECOND / RATE)
#define FULL (BURST_S * SECOND)
#define IDLE (10 * SECOND) /* after this a bucket is somebody else's */

/* In a flood one more in detail tells nothing new, and what looking at it takes is taken from a node that
 * has enough to do: where so many were counted since the last token, the next one costs as many. */
#define FLOOD 8
#define FLOOD_TOKENS 4

/* Take a token, of which there is one each `every` nanoseconds, and so many at most as come in BURST_S. */
INLINE int takes(__u64 *full_ts, __u64 now, __u64 every)
{
	__u64 full = *full_ts > now ? *full_ts : now;

	if (full - now > FULL)
		return 0;
	*full_ts = full + every;
	return 1;
}

/* What it is in keys: a number that nobody outside can guess, which Python has put there. */
INLINE __u64 secret(void)
{
	__u32 none = 0;
	struct rst_bucket *first = buckets.lookup(&none);

	return first ? first->key : 0;
}

/* The bucket with this key, or a new one, if `parent` has a token for it and there is a place: one
 * that was never used, or that has been idle and whose count was told. */
INLINE struct rst_bucket *bucket(__u64 key, struct rst_bucket *parent, __u32 level, __u64 now,
				 __u32 *index)
{
	struct rst_bucket *free = 0;
	__u32 free_index = 0;

	key |= 1;
#pragma unroll
	for (int i = 0; i < 2; i++) {
		__u32 at = FIXED_BUCKETS + ((key >> 1) + i) % BUCKETS;
		struct rst_bucket *b = buckets.lookup(&at);

		if (!b)
			return 0;
		if (b->key == key) {
			b->used_ts = now;
			*index = at;
			return b;
		}
		if (!b->key || (since(now, b->used_ts) > IDLE && b->counted == b->told)) {
			free = b;
			free_index = at;
		}
	}
	if (!free || !takes(&parent->births_ts, now, TOKEN / 4))
		return 0;
	free->full_ts = free->births_ts = 0;
	free->sampled = free->passed = 0;
	free->level = level;
	free->kind = parent->kind;
	free->used_ts = now;
	free->key = key;
	*index = free_index;
	return free;
}

INLINE void add_to(struct rst_bucket *b, __u64 now)
{
	if (b->counted == b->told)
		b->first_ts = now;
	b->last_ts = now;
	__sync_fetch_and_add(&b->counted, 1);
}

/* The smaller port: of a client's and a service's it is the service's (RFC 6335 section 6: clients
 * take theirs from the dynamic range, the highest). */
INLINE __u16 service(const struct tuple *wire)
{
	return wire->sport < wire->dport ? wire->sport : wire->dport;
}

/* Whether it is to be told in detail; else it has been counted in its bucket. */
INLINE int admitted(struct rst_event *e, const struct tuple *wire)
{
	const __u8 *peer = is_sent(e->kind) ? wire->daddr : wire->saddr;
	__u64 now = bpf_ktime_get_ns(), netns, alike, key, address[2];
	struct rst_bucket *b, *parent;
	__u64 every = TOKEN;
	__u32 index = 1 + e->kind;

	__builtin_memcpy(address, peer, 16);
	netns = mixed(mixed(secret(), e->net), e->kind);
	alike = mixed(netns, (__u64)e->reason << 32 | e->drop_reason);
	alike = mixed(alike, e->sock.state | e->hook << 8 | service(wire) << 16);
	key = mixed(mixed(alike, address[0]), address[1]);
	parent = buckets.lookup(&index);
	if (!parent)
		return 1;
	parent->key = index;
	parent->kind = e->kind;
	parent->level = LEVEL_KIND;
	b = bucket(netns, parent, LEVEL_NETNS, now, &index);
	if (b) {
		parent = b;
		b = bucket(alike, parent, LEVEL_SERVICE, now, &index);
	}
	if (b) {
		parent = b;
		b = bucket(key, parent, LEVEL_PEER, now, &index);
	}
	if (!b) { /* of these a few will do */
		b = parent;
		every = 16 * TOKEN;
	}
	if (b->passed > FLOOD)
		every *= FLOOD_TOKENS;
	if (takes(&b->full_ts, now, every) || !b->sampled) {
		b->passed = 0;
		e->bucket = index;
		e->bucket_key = b->key;
		return 1;
	}
	b->passed++;
	add_to(b, now);
	return 0;
}

INLINE struct rst_bucket *bucket_of(const struct rst_event *e)
{
	__u32 index = e->bucket;
	struct rst_bucket *b = index ? buckets.lookup(&index) : 0;

	return b && b->key == e->bucket_key ? b : 0;
}

/* It was sent: from now on others may be counted as being like it. */
INLINE void sampled(const struct rst_event *e)
{
	struct rst_bucket *b = bucket_of(e);

	if (b)
		b->sampled = 1;
}

/* There was no room for it; whether it could be counted instead. */
INLINE int aggregates(const struct rst_event *e)
{
	struct rst_bucket *b = bucket_of(e);

	if (!b || !b->sampled)
		return 0;
	add_to(b, bpf_ktime_get_ns());
	return 1;
}

#endif
