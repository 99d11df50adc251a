/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Whose a socket is, and whose a connection was that has none any more. Noted at nearly every change of
 * state, so in arrays, as what is looked for a moment later only (maps.c). But these are looked for much
 * later, too, and say who it was: what two CPUs have written into one place at once must not be taken for
 * either's. So an entry has a sum over all that belongs together, and one that it does not fit is nobody's.
 */

/* Every bit of both counts for every bit of it (the end of MurmurHash3, fmix64). */
INLINE __u64 mixed(__u64 hash, __u64 value)
{
	hash ^= value;
	hash = (hash ^ hash >> 33) * 0xff51afd7ed558ccdULL;
	hash = (hash ^ hash >> 33) * 0xc4ceb9fe1a85ec53ULL;
	return hash ^ hash >> 33;
}

/* What nobody outside can guess; behind the last shelf (child.py). `room`: for the number, in place of any
 * on the stack. */
INLINE __u64 seed(__u32 *room)
{
	const struct rst_shelf *behind;

	*room = SHELVES;
	behind = shelves.lookup(room);
	return behind ? behind->places[0] : 0;
}

/* Of a task, and of what it is noted for. */
INLINE __u64 task_sum(const struct rst_task *task, __u64 noted)
{
	const __u64 *w = (const __u64 *)task;

	_Static_assert(sizeof(*task) == 5 * sizeof(*w), "a task is five numbers");
#pragma unroll
	for (int i = 0; i < 5; i++)
		noted = noted * 0x9e3779b97f4a7c15ULL + w[i];
	return noted;
}

/* An entry's key is a socket's address, or ends_sum(). */
INLINE void note_owner(struct owner *o, __u64 key, const struct rst_task *task)
{
	if (!o)
		return;
	o->key = key;
	o->task = *task;
	o->sum = task_sum(task, key);
}

INLINE void forget_owner(struct owner *o, __u64 key)
{
	if (o && o->key == key)
		o->key = 0;
}

/* Whether it is known; `task` is then who. */
INLINE int take_owner(struct rst_task *task, const struct owner *o, __u64 key)
{
	__u64 sum;

	if (!o || o->key != key)
		return 0;
	sum = o->sum;
	*task = o->task;
	return task_sum(task, key) == sum;
}

/* ---- by socket ---- */

INLINE struct owner *owner_at(__u64 sk)
{
	__u32 at = place_of(sk, OWNERS_BITS);

	return owners.lookup(&at);
}

INLINE void belongs_to(__u64 sk, const struct rst_task *task)
{
	note_owner(owner_at(sk), sk, task);
}

INLINE void belongs_to_nobody(__u64 sk)
{
	forget_owner(owner_at(sk), sk);
}

INLINE int find_owner(struct rst_task *task, __u64 sk)
{
	return take_owner(task, owner_at(sk), sk);
}

/* ---- by a connection's ends ---- */

/* Which others may choose: so with the seed. */
INLINE __u64 ends_sum(const struct arrival_key *ends)
{
	const __u64 *w = (const __u64 *)ends;
	__u32 room;
	__u64 sum = seed(&room);

	_Static_assert(sizeof(*ends) == 6 * sizeof(*w), "ends are six numbers");
#pragma unroll
	for (int i = 0; i < 5; i++) { /* half of mixed() for each is enough: all of it comes in the end */
		sum = (sum ^ w[i]) * 0xff51afd7ed558ccdULL;
		sum ^= sum >> 33;
	}
	return mixed(sum, w[5]);
}

INLINE struct owner *past_owner_at(__u64 sum)
{
	__u32 at = sum >> (64 - OWNERS_BITS);

	return past_owners.lookup(&at);
}

INLINE void belonged_to(const struct arrival_key *ends, const struct rst_task *task)
{
	__u64 sum = ends_sum(ends);

	note_owner(past_owner_at(sum), sum, task);
}

INLINE void belonged_to_nobody(const struct arrival_key *ends)
{
	__u64 sum = ends_sum(ends);

	forget_owner(past_owner_at(sum), sum);
}

INLINE int find_past_owner(struct rst_task *task, const struct arrival_key *ends)
{
	__u64 sum = ends_sum(ends);

	return take_owner(task, past_owner_at(sum), sum);
}
