/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Reading kernel structures and packets: explicit, checked for size at compile time, no map.
 */
#ifndef RSTTRACE_KERNEL_H
#define RSTTRACE_KERNEL_H

#include "event.h"
#include "offsets.h"

#define INLINE static inline __attribute__((always_inline))

/* A member's value; the type's size must be the member's (the offsets' self-check). */
#define GET(type, ptr, name) ({ \
	type __value = 0; \
	_Static_assert(OFF_##name < 0 || sizeof(type) == SIZE_##name, "size of " #name); \
	if (OFF_##name >= 0) \
		bpf_probe_read_kernel(&__value, sizeof(__value), (const char *)(ptr) + OFF_##name); \
	__value; })

#define HAS(name) (OFF_##name >= 0)

#define ETH_IP 0x0800
#define ETH_IPV6 0x86dd
#define ETH_VLAN 0x8100
#define ETH_QINQ 0x88a8
#define ARPHRD_ETHER_ 1
#define IFF_LOOPBACK_ 8
#define PROTO_TCP 6
#define NO_OFFSET 0xffff

#define TH_FIN 0x01
#define TH_SYN 0x02
#define TH_RST 0x04
#define TH_ACK 0x10

/* include/net/tcp_states.h */
#define ST_SYN_SENT 2
#define ST_SYN_RECV 3
#define ST_SYN_RECV 3
#define ST_TIME_WAIT 6
#define ST_CLOSE 7
#define ST_LISTEN 10
#define ST_NEW_SYN_RECV 12

#define AF_INET_ 2
#define AF_INET6_ 10
#define AF_PACKET_ 17
#define SOCK_STREAM_ 1

struct tuple {
	__u8 saddr[16];
	__u8 daddr[16];
	__u16 sport;
	__u16 dport;
};

/* A TCP packet, parsed. */
struct parsed {
	const __u8 *l3;
	const __u8 *l4;
	struct tuple t;
	__u32 seq;
	__u32 ack;
	__u32 payload_len;
	__u16 ip_id;
	__u16 window;
	__u8 flags;
	__u8 ttl;
	__u8 df;
	__u8 timestamps;
	__u8 options_len;
};

INLINE __u16 be16(const __u8 *p) { return (__u16)p[0] << 8 | p[1]; }
INLINE __u32 be32(const __u8 *p)
{
	return (__u32)p[0] << 24 | (__u32)p[1] << 16 | (__u32)p[2] << 8 | p[3];
}

INLINE void map_v4(__u8 *to, const __u8 *v4)
{
	*(__u64 *)to = 0;
	to[8] = 0; to[9] = 0; to[10] = 0xff; to[11] = 0xff;
	to[12] = v4[0]; to[13] = v4[1]; to[14] = v4[2]; to[15] = v4[3];
}

/* Parse the IP packet at l3. Returns 1 for an unfragmented (or first-fragment) TCP packet. */
INLINE int parse(const __u8 *l3, struct parsed *p)
{
	__u8 ip[40];
	__u8 th[24];
	__u32 l3_len, total;

	if (bpf_probe_read_kernel(ip, 20, l3))
		return 0;
	p->l3 = l3;
	if ((ip[0] >> 4) == 4) {
		if (ip[9] != PROTO_TCP || (be16(ip + 6) & 0x1fff))
			return 0;
		l3_len = (ip[0] & 15) * 4;
		if (l3_len < 20)
			return 0;
		total = be16(ip + 2);
		p->ttl = ip[8];
		p->ip_id = be16(ip + 4);
		p->df = !!(ip[6] & 0x40);
		map_v4(p->t.saddr, ip + 12);
		map_v4(p->t.daddr, ip + 16);
	} else if ((ip[0] >> 4) == 6) {
		__u8 next;

		if (bpf_probe_read_kernel(ip, 40, l3))
			return 0;
		next = ip[6];
		l3_len = 40;
		total = be16(ip + 4) + 40;
		/* hop-by-hop, routing, destination options (RFC 8200 section 4); fragments: first only */
#pragma unroll
		for (int i = 0; i < 4; i++) {
			__u8 ext[4];

			if (next == PROTO_TCP)
				break;
			if (next != 0 && next != 43 && next != 60 && next != 44)
				return 0;
			if (bpf_probe_read_kernel(ext, 4, l3 + l3_len))
				return 0;
			if (next == 44 && (be16(ext + 2) & 0xfff8))
				return 0;
			l3_len += next == 44 ? 8 : (ext[1] + 1) * 8;
			next = ext[0];
		}
		if (next != PROTO_TCP)
			return 0;
		p->ttl = ip[7];
		p->ip_id = 0;
		p->df = 0;
		__builtin_memcpy(p->t.saddr, ip + 8, 16);
		__builtin_memcpy(p->t.daddr, ip + 24, 16);
	} else {
		return 0;
	}
	p->l4 = l3 + l3_len;
	if (bpf_probe_read_kernel(th, 24, p->l4))
		return 0;
	p->t.sport = be16(th);
	p->t.dport = be16(th + 2);
	p->seq = be32(th + 4);
	p->ack = be32(th + 8);
	p->flags = th[13];
	p->window = be16(th + 14);
	p->options_len = (th[12] >> 4) > 5 ? ((th[12] >> 4) - 5) * 4 : 0;
	/* NOP NOP TS: how every stack in use lays out the timestamp option (RFC 7323 appendix A) */
	p->timestamps = (th[12] >> 4) >= 8 && be32(th + 20) == 0x0101080a;
	l3_len += (th[12] >> 4) * 4;
	if ((p->flags & TH_RST) && ((th[12] >> 4) < 5 || total < l3_len))
		return 0; /* malformed: the stack drops it unread */
	p->payload_len = total > l3_len ? total - l3_len : 0;
	return 1;
}

/* The IP header of a packet on its way up: at skb->data, behind VLAN tags that are still there. */
INLINE const __u8 *l3_received(const void *skb)
{
	const __u8 *data = GET(const __u8 *, skb, skb_data);
	__u16 protocol = GET(__u16, skb, skb_protocol);

	protocol = protocol << 8 | protocol >> 8;
#pragma unroll
	for (int i = 0; i < 2; i++) {
		__u8 tag[4];

		if (protocol != ETH_VLAN && protocol != ETH_QINQ)
			break;
		if (bpf_probe_read_kernel(tag, 4, data))
			return 0;
		protocol = be16(tag + 2);
		data += 4;
	}
	if (protocol != ETH_IP && protocol != ETH_IPV6)
		return 0;
	return data;
}

/* The IP header of a packet on its way out or being dropped. */
INLINE const __u8 *l3_at_offset(const void *skb)
{
	__u16 offset = GET(__u16, skb, skb_network_header);

	if (offset == NO_OFFSET || !offset)
		return 0;
	return GET(const __u8 *, skb, skb_head) + offset;
}

INLINE __u32 net_inum(const void *net)
{
	return net ? GET(__u32, net, net_inum) : 0;
}

/* A namespace as a map key. Inode numbers are given anew when a namespace is gone; cookies never
 * are (before 3d368ab87cf6, 5.12, they may not be assigned yet). */
INLINE __u64 net_key(const void *net)
{
	__u64 cookie = net ? GET(__u64, net, net_cookie) : 0;

	return cookie ? cookie : net_inum(net);
}

INLINE const void *net_of_dev(const void *dev)
{
	return dev ? GET(const void *, dev, dev_net) : 0;
}

INLINE void fill_frame(struct rst_frame *f, const void *skb, const void *dev, __u8 ttl)
{
	__u16 offset = GET(__u16, skb, skb_mac_header);

	f->netns = net_inum(net_of_dev(dev));
	f->ifindex = GET(__u32, dev, dev_ifindex);
	f->ttl = ttl;
	f->has_mac = 0;
	if (offset != NO_OFFSET && GET(__u16, dev, dev_type) == ARPHRD_ETHER_)
		f->has_mac = !bpf_probe_read_kernel(f->mac, 6,
			GET(const char *, skb, skb_head) + offset + 6);
}

/* A frame that a bridge was about to send out of another port than it came in by (__br_forward() has
 * set skb->dev): nobody routed it, and it is not for this host. */
INLINE int is_bridged_out(const void *skb, __u32 came_in)
{
	const void *dev = GET(const void *, skb, skb_dev);
	__u16 offset = GET(__u16, skb, skb_mac_header);
	__u8 to[6] = {}, own[6] = {};

	if (!dev || offset == NO_OFFSET || GET(__u16, dev, dev_type) != ARPHRD_ETHER_ ||
	    GET(__u32, dev, dev_ifindex) == came_in)
		return 0;
	bpf_probe_read_kernel(to, 6, GET(const char *, skb, skb_head) + offset);
	bpf_probe_read_kernel(own, 6, GET(const char *, dev, dev_addr));
	return be32(to) != be32(own) || be16(to + 4) != be16(own + 4);
}

INLINE void fill_headers(struct rst_headers *h, const struct parsed *p)
{
	/* Headers may end short of 60 bytes; what follows is inside the same buffer (skb_shared_info
	 * ends it), so the read does not fault, and Python cuts it by the headers' own lengths. */
	bpf_probe_read_kernel(h->l3, HEADER, p->l3);
	bpf_probe_read_kernel(h->l4, HEADER, p->l4);
	h->payload_len = p->payload_len;
	h->present = 1;
}

/* Minisockets (TIME_WAIT, SYN_RECV) only have struct sock_common. */
INLINE int is_full(__u8 state)
{
	return state != ST_TIME_WAIT && state != ST_NEW_SYN_RECV;
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

INLINE void fill_socket(struct rst_socket *s, const void *sk)
{
	__u16 port;
	const void *socket;

	s->present = 1;
	s->address = (__u64)sk;
	s->state = GET(__u8, sk, sk_state);
	s->state_now = s->state;
	s->full = is_full(s->state);
	s->netns = net_inum(GET(const void *, sk, sk_net));
	s->cookie = GET(__u64, sk, sk_cookie);
	fill_addresses(sk, s->local, s->remote);
	port = GET(__u16, sk, sk_dport);
	s->rport = port << 8 | port >> 8;
	s->lport = GET(__u16, sk, sk_num);
	if (!s->full)
		return;
	if (!s->lport) { /* __tcp_close() unbinds before it resets */
		port = GET(__u16, sk, inet_sport);
		s->lport = port << 8 | port >> 8;
	}
	s->uid = GET(__u32, sk, sk_uid);
	s->owned = GET(__u32, sk, sk_owned) != 0;
	s->srtt_us = GET(__u32, sk, tp_srtt_us) >> 3; /* stored times 8 (tcp_rtt_estimator) */
	/* struct minmax_sample { u32 t, v; } s[3]; s[0].v is the minimum */
	bpf_probe_read_kernel(&s->min_rtt_us, 4, (const char *)sk + OFF_tp_rtt_min + 4);
	s->rcv_nxt = GET(__u32, sk, tp_rcv_nxt);
	s->snd_nxt = GET(__u32, sk, tp_snd_nxt);
	s->unread = s->rcv_nxt - GET(__u32, sk, tp_copied_seq);
	socket = GET(const void *, sk, sk_socket);
	s->orphan = !socket;
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

INLINE void fill_task(struct rst_task *t)
{
	t->pid = bpf_get_current_pid_tgid() >> 32;
	t->uid = (__u32)bpf_get_current_uid_gid();
	bpf_get_current_comm(t->comm, COMM);
}

#endif
