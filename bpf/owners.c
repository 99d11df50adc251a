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

/* ---- by socket ---- */

INLINE struct owner *owner_at(__u64 sk)
{
	__u32 at = place_of(sk, OWNERS_BITS);

	return owners.lookup(&at);
}

INLINE void belongs_to(__u64 sk, const struct rst_task *task)
{
	struct owner *o = owner_at(sk);

	if (!o)
		return;
	o->sk = sk;
	o->task = *task;
	o->sum = task_sum(task, sk);
}

INLINE void belongs_to_nobody(__u64 sk)
{
	struct owner *o = owner_at(sk);

	if (o && o->sk == sk)
		o->sk = 0;
}

/* Whether it is known; `task` is then who. */
INLINE int find_owner(struct rst_task *task, __u64 sk)
{
	struct owner *o = owner_at(sk);
	__u64 sum;

	if (!o || o->sk != sk)
		return 0;
	sum = o->sum;
	*task = o->task;
	return task_sum(task, sk) == sum;
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

INLINE struct past_owner *past_owner_at(__u64 sum)
{
	__u32 at = sum >> (64 - OWNERS_BITS);

	return past_owners.lookup(&at);
}

INLINE void belonged_to(const struct arrival_key *ends, const struct rst_task *task)
{
	__u64 sum = ends_sum(ends);
	struct past_owner *past = past_owner_at(sum);

	if (!past)
		return;
	past->ends = sum;
	past->task = *task;
	past->sum = task_sum(task, sum);
}

INLINE void belonged_to_nobody(const struct arrival_key *ends)
{
	__u64 sum = ends_sum(ends);
	struct past_owner *past = past_owner_at(sum);

	if (past && past->ends == sum)
		past->ends = 0;
}

INLINE int find_past_owner(struct rst_task *task, const struct arrival_key *ends)
{
	__u64 sum = ends_sum(ends), noted;
	struct past_owner *past = past_owner_at(sum);

	if (!past || past->ends != sum)
		return 0;
	noted = past->sum;
	*task = past->task;
	return task_sum(task, sum) == noted;
}
