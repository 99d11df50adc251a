/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A socket, and the task that uses it.
 */
#ifndef RSTTRACE_SOCKET_H
#define RSTTRACE_SOCKET_H

#include "read.h"

#define AF_INET6_ 10
#define AF_PACKET_ 17
#define SOCK_STREAM_ 1
#define PF_EXITING_ 0x4 /* include/linux/sched.h */
#define PF_KTHREAD_ 0x200000

/* Minisockets (TIME_WAIT, SYN_RECV) only have struct sock_common. */
INLINE int is_full(__u8 state)
{
	return state != ST_TIME_WAIT && state != ST_NEW_SYN_RECV;
}

/* The owner of an answer: the socket it answers for (ip_send_unicast_reply's orig_sk, newer
 * kernels), or the stack's control socket, which has no file (inet_ctl_sock_create). */
INLINE int is_answering(const void *sk, __u8 state)
{
	const void *socket;

	if (!is_full(state) || state == ST_LISTEN)
		return 1;
	if (GET(__u16, sk, sk_type) == SOCK_STREAM_)
		return 0;
	socket = GET(const void *, sk, sk_socket);
	return socket && !GET(const void *, socket, socket_file);
}

INLINE int is_tcp(const void *sk)
{
	return GET(__u16, sk, sk_type) == SOCK_STREAM_ && GET(__u16, sk, sk_family) != AF_PACKET_;
}

/* A process's raw or packet socket, perhaps closed meanwhile; the stack's own control sockets are
 * open, but have no file. */
INLINE int is_raw(const void *sk, __u8 state)
{
	const void *socket;

	if (!is_full(state) || is_tcp(sk))
		return 0;
	socket = GET(const void *, sk, sk_socket);
	return !socket || GET(const void *, socket, socket_file);
}

INLINE void fill_addresses(const void *sk, __u8 *local, __u8 *remote)
{
	if (GET(__u16, sk, sk_family) == AF_INET6_ && HAS(sk_v6_daddr)) {
		bpf_probe_read_kernel(remote, 16, (const char *)sk + OFF_sk_v6_daddr);
		bpf_probe_read_kernel(local, 16, (const char *)sk + OFF_sk_v6_rcv_saddr);
	} else {
		__u32 daddr = GET(__u32, sk, sk_daddr), saddr = GET(__u32, sk, sk_rcv_saddr);

		map_v4(remote, (__u8 *)&daddr);
		map_v4(local, (__u8 *)&saddr);
	}
}

/* Of a full socket; __tcp_close() unbinds before it resets. */
INLINE __u16 local_port(const void *sk)
{
	__u16 port = GET(__u16, sk, sk_num);

	return port ? port : FROM_BE16(GET(__u16, sk, inet_sport));
}

INLINE void fill_socket(struct rst_socket *s, const void *sk)
{
	const void *socket;

	s->present = 1;
	s->address = (__u64)sk;
	s->state = GET(__u8, sk, sk_state);
	s->state_now = s->state;
	s->full = is_full(s->state);
	s->netns = net_inum(GET(const void *, sk, sk_net));
	s->cookie = GET(__u64, sk, sk_cookie);
	fill_addresses(sk, s->local, s->remote);
	s->rport = FROM_BE16(GET(__u16, sk, sk_dport));
	s->lport = s->full ? local_port(sk) : GET(__u16, sk, sk_num);
	if (!s->full)
		return;
	s->uid = GET(__u32, sk, sk_uid);
	s->owned = GET(__u32, sk, sk_owned) != 0;
	s->srtt_us = GET(__u32, sk, tp_srtt_us) >> 3; /* stored times 8 (tcp_rtt_estimator) */
	/* struct minmax_sample { u32 t, v; } s[3]; s[0].v is the minimum */
	bpf_probe_read_kernel(&s->min_rtt_us, 4, (const char *)sk + OFF_tp_rtt_min + 4);
	s->rcv_nxt = GET(__u32, sk, tp_rcv_nxt);
	s->snd_nxt = GET(__u32, sk, tp_snd_nxt);
	s->unread = s->rcv_nxt - GET(__u32, sk, tp_copied_seq);
	socket = GET(const void *, sk, sk_socket);
	if (socket) { /* SOCK_INODE() */
		bpf_probe_read_kernel(&s->inode, sizeof(s->inode),
			(const char *)socket + OFF_socket_inode + OFF_inode_ino);
	}
	if (HAS(sk_cgroup)) {
		const void *cgroup = GET(const void *, sk, sk_cgroup);
		const void *kn = cgroup ? GET(const void *, cgroup, cgroup_kn) : 0;

		s->cgroup = kn ? GET(__u64, kn, kn_id) : 0;
	}
}

INLINE __u32 jiffies_to_ms(__u32 jiffies) { return (__u64)jiffies * 1000 / KERNEL_HZ; }

/* What tcp_keepalive_timer() looks at: keepalive_time_elapsed(), keepalive_time_when() … */
INLINE void fill_timers(struct rst_detail *d, const void *sk)
{
	__u32 now = bpf_jiffies64(), heard = now - GET(__u32, sk, tp_rcv_tstamp);
	__u32 data = now - GET(__u32, sk, icsk_lrcvtime), value;
	const void *net = GET(const void *, sk, sk_net);

	if (!HAS(tp_rcv_tstamp) || !HAS(icsk_lrcvtime) || !HAS(icsk_user_timeout) ||
	    !HAS(icsk_probes_out) || !HAS(icsk_retransmits))
		return;
	d->has_timers = 1;
	d->silent_ms = jiffies_to_ms(data < heard ? data : heard);
	d->user_timeout_ms = GET(__u32, sk, icsk_user_timeout);
	d->unanswered = GET(__u8, sk, icsk_probes_out);
	d->retransmits = GET(__u8, sk, icsk_retransmits);
	value = GET(__u32, sk, tp_keepalive_time);
	d->keepalive_idle_ms = jiffies_to_ms(value ? value : GET(__u32, net, net_keepalive_time));
	value = GET(__u32, sk, tp_keepalive_intvl);
	d->keepalive_interval_ms = jiffies_to_ms(value ? value : GET(__u32, net, net_keepalive_intvl));
	value = GET(__u8, sk, tp_keepalive_probes);
	d->keepalive_probes = value ? value : GET_LOW(net, net_keepalive_probes);
}

/* A minisocket in TIME_WAIT that inet_twsk_kill() has taken out of its table. Its memory outlives that
 * for as long as we look (SLAB_TYPESAFE_BY_RCU). */
INLINE int is_ended(const void *sk)
{
	return GET(__u8, sk, sk_state) == ST_TIME_WAIT && !GET(__u64, sk, sk_hash_pprev);
}

/* A listener's accept queue; what a minisocket is for, and what it waits for. */
INLINE void fill_detail(struct rst_detail *d, const void *sk)
{
	const void *net = GET(const void *, sk, sk_net);
	__u8 state = GET(__u8, sk, sk_state);

	if (state == ST_LISTEN && HAS(sk_ack_backlog) && HAS(sk_max_ack_backlog)) {
		d->has_queue = 1;
		d->queued = GET(__u32, sk, sk_ack_backlog);
		d->queue_max = GET(__u32, sk, sk_max_ack_backlog);
		d->aborts_on_overflow = GET_LOW(net, net_abort_on_overflow);
	}
	if (state == ST_TIME_WAIT && HAS(tw_substate) && HAS(tw_rcv_nxt)) {
		d->substate = GET(__u8, sk, tw_substate);
		d->rcv_nxt = GET(__u32, sk, tw_rcv_nxt);
		d->rfc1337 = GET_LOW(net, net_rfc1337);
	}
}

/* A raw or packet socket: who may have written through it. */
INLINE void fill_writer(struct rst_socket *s, const void *sk)
{
	const void *socket = GET(const void *, sk, sk_socket);

	s->present = 1;
	s->uid = GET(__u32, sk, sk_uid);
	if (socket)
		bpf_probe_read_kernel(&s->inode, sizeof(s->inode),
			(const char *)socket + OFF_socket_inode + OFF_inode_ino);
}

/* The process that runs: its name is its first thread's, as in /proc/PID/comm. */
INLINE void fill_task(struct rst_task *t)
{
	const void *leader = GET(const void *, bpf_get_current_task(), task_leader);

	t->pid = bpf_get_current_pid_tgid() >> 32;
	t->uid = (__u32)bpf_get_current_uid_gid();
	t->cgroup = bpf_get_current_cgroup_id();
	_Static_assert(SIZE_task_comm == COMM, "size of comm");
	bpf_probe_read_kernel(t->comm, COMM, (const char *)leader + OFF_task_comm);
}

INLINE int is_kernel_thread(void)
{
	return GET(__u32, bpf_get_current_task(), task_flags) & PF_KTHREAD_;
}

/* Whether who runs is being ended: do_exit() has set both before it closes what was open. */
INLINE void fill_exit(struct rst_task *t)
{
	const void *task = (const void *)bpf_get_current_task();

	if (!(GET(__u32, task, task_flags) & PF_EXITING_))
		return;
	t->exiting = 1;
	t->exit_code = GET(__u32, task, task_exit_code);
}

#endif
