/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The same causes at the functions themselves (kprobes).
 */

#if PLAN_KPROBES

#define ARG(ctx, n) GET(__u64, ctx, regs_arg##n)

/* tcp_reset(sk, skb); tcp_reset(sk) before 049fe386d353 (5.12) */
int kp_tcp_reset(struct pt_regs *ctx)
{
	const void *sk = (const void *)ARG(ctx, 1);
#if TCP_RESET_HAS_SKB
	__u64 skb = ARG(ctx, 2);
	struct parsed p = {};
	struct track *t = track_of(skb);
	const __u8 *l3 = l3_at_offset((const void *)skb);

	looked((__u64)sk);
	if (t && t->phase == PHASE_IN)
		emit_received(skb, t, KIND_RECEIVED_ACCEPTED, sk, 0, NO_REASON);
	else if (l3 && parse((const void *)skb, l3, &p) && (p.flags & TH_RST))
		accepted_unread(sk, &p.t);
#else
	looked((__u64)sk);
	accepted(sk);
#endif
	return 0;
}

/* tcp_v4_send_reset(sk, skb[, reason]) and its IPv6 twin */
int kp_tcp_send_reset(struct pt_regs *ctx)
{
	const void *sk = (const void *)ARG(ctx, 1), *skb = (const void *)ARG(ctx, 2);
	__u32 reason = NO_REASON;

#if SEND_RESET_REASON_ARG == 3
	reason = (__u32)ARG(ctx, 3);
#endif
	if (!sk) { /* called for a RST too, to send nothing: that tells that it has no socket */
		__u64 key = (__u64)skb;
		struct track *t = track_of(key);

		if (t && t->phase == PHASE_IN)
			t->no_socket = 1;
	}
	looked((__u64)skb);
	will_answer(sk, skb, reason, KIND_SENT_PASSIVE, 0);
	return 0;
}

INLINE void judged_by(struct pt_regs *ctx, __u8 handshake)
{
	__u64 skb = ARG(ctx, 2);
	struct track *t = track_of(skb);

	if (t && t->phase == PHASE_IN) {
		t->sk = ARG(ctx, 1);
		t->handshake = handshake;
	}
}

/* tcp_validate_incoming(sk, skb, …), tcp_rcv_state_process(sk, skb), tcp_timewait_state_process(tw,
 * skb, …): what judges a RST, where kfree_skb does not name the socket (before c53795d48ee8, 6.11) */
int kp_tcp_judge(struct pt_regs *ctx)
{
	judged_by(ctx, 0);
	return 0;
}

#if !HAVE_DROP_REASON
/* __kfree_skb(skb): how TCP drops what it has judged, past the tracepoint (until 5.18) */
int kp_kfree_skb(struct pt_regs *ctx)
{
	__u64 skb = ARG(ctx, 1);
	struct track *t = tracks.lookup(&skb);

	if (t && t->phase == PHASE_IN && t->sk)
		emit_received(skb, t, KIND_RECEIVED_REJECTED, (const void *)t->sk, 0, NO_REASON);
	return 0;
}
#endif

/* tcp_check_req(listener, skb, request, …) */
int kp_tcp_check_req(struct pt_regs *ctx)
{
	judged_by(ctx, 1);
	return 0;
}

/* security_sock_graft(sk, parent): accept() gives a connection to who called it */
int kp_sock_graft(struct pt_regs *ctx)
{
	is_used(ARG(ctx, 1), 1);
	return 0;
}

/* tcp_send_active_reset(sk, gfp[, reason]), (sk, reason) from 7.1 on */
int kp_tcp_send_active_reset(struct pt_regs *ctx)
{
	__u32 reason = NO_REASON;

#if ACTIVE_RESET_REASON_ARG == 2
	reason = (__u32)ARG(ctx, 2);
#elif ACTIVE_RESET_REASON_ARG == 3
	reason = (__u32)ARG(ctx, 3);
#endif
	active(ARG(ctx, 1), reason);
	return 0;
}

/* nf_send_reset(net, sk, oldskb, hook) and nf_send_reset6; oldskb is third on every kernel */
int kp_nf_send_reset(struct pt_regs *ctx)
{
	will_answer(0, (const void *)ARG(ctx, 3), NO_REASON, KIND_SENT_NETFILTER,
		    (__u8)ARG(ctx, 4) + 1);
	return 0;
}
#endif
