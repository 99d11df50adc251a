/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A packet: its headers, and the frame that carries it.
 */
#ifndef RSTTRACE_PACKET_H
#define RSTTRACE_PACKET_H

#include "read.h"

#define ETH_IP 0x0800
#define ETH_IPV6 0x86dd
#define ETH_VLAN 0x8100
#define ETH_QINQ 0x88a8
#define ARPHRD_ETHER_ 1
#define IFF_LOOPBACK_ 8
#define PROTO_IPIP 4
#define PROTO_TCP 6
#define PROTO_UDP 17
#define PROTO_IPV6 41
#define PROTO_ICMPV6 58

#define TH_FIN 0x01
#define TH_SYN 0x02
#define TH_RST 0x04
#define TH_ACK 0x10

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
	const __u8 *end;    /* behind the last byte that is the packet's and can be read at l3 */
	const char *shinfo; /* skb_shinfo(): behind the buffer; 0: not known */
	struct tuple t;
	__u32 seq;
	__u32 ack;
	__u32 payload_len;
	__u32 tsval;
	__u32 tsecr;
	__u16 ip_id;
	__u16 window;
	__u8 flags;
	__u8 ttl;
	__u8 df;
	__u8 tos;
	__u8 stamped; /* there are TCP timestamps, laid out as usual */
	__u8 options_len;
};

/* What is said of a packet's headers. */
#define NO_TCP 0
#define PARSED 1
#define ELSEWHERE 2 /* a TCP header may come, but not here: see mark() in packets.c */
#define UNUSUAL 3   /* of parse_window(): see parse_whole() */

/* The TCP header's offset in an IPv6 packet, whose first header has the number `next`, behind
 * hop-by-hop, routing and destination options (RFC 8200 section 4); of fragments the first only.
 * Says what is there. A packet inside comes out of a tunnel, and is then seen again; but a segment router
 * (RFC 8986, End.DT6 and the like) hands it straight to the stack. */
INLINE int tcp_in_ipv6(const __u8 *l3, const __u8 *end, __u8 next, __u32 *offset)
{
	*offset = 40; /* not looked at by its callers unless it is right: the verifier is quicker so */
	for (int i = 0; i < EXTENSIONS_READ; i++) {
		__u8 ext[4];

		if (next == PROTO_TCP)
			return PARSED;
		if (next == PROTO_IPV6 || next == PROTO_IPIP)
			break;
		if (next != 0 && next != 43 && next != 60 && next != 44)
			return NO_TCP;
		if (l3 + *offset + 8 > end || bpf_probe_read_kernel(ext, 4, l3 + *offset))
			break;
		if (next == 44 && (be16(ext + 2) & 0xfff8))
			break;
		*offset += next == 44 ? 8 : (ext[1] + 1) * 8;
		next = ext[0];
	}
	return ELSEWHERE;
}

/* What an IPv6 header says (RFC 8200 section 3). */
INLINE void take_ipv6(struct parsed *p, const __u8 *ip)
{
	p->tos = ip[0] << 4 | ip[1] >> 4;
	p->ttl = ip[7];
	p->ip_id = 0;
	p->df = 0;
	__builtin_memcpy(p->t.saddr, ip + 8, 16);
	__builtin_memcpy(p->t.daddr, ip + 24, 16);
}

/* How long the packet in a buffer of so many bytes is, by its IP header. That says 0 of what is longer
 * than it can say (BIG TCP; of IPv6 since 5.19, until 7.0 with a hop-by-hop header, of IPv4 since 6.3),
 * which then fills the buffer (iph_totlen()); of anything else 0 is wrong, and every stack drops it. */
#define LENGTH_V4(says, buffer) ((says) || (buffer) <= 0xffff ? (says) : (buffer))
#define LENGTH_V6(says, buffer) ((says) || (buffer) <= 0xffff + 40 ? (says) + 40 : (buffer))

/* What a TCP header says, beside its ports. `headers`: bytes of all headers, `total`: of the packet,
 * as the IP header says. */
INLINE int fill_segment(struct parsed *p, __u8 offset, __u8 flags, __u32 headers, __u32 total)
{
	p->flags = flags;
	p->options_len = offset > 5 ? (offset - 5) * 4 : 0;
	if ((flags & TH_RST) && (offset < 5 || total < headers))
		return NO_TCP; /* malformed: the stack drops it unread */
	p->payload_len = total > headers ? total - headers : 0;
	return PARSED;
}

/* NOP NOP TS: how every stack in use lays out the timestamp option (RFC 7323 appendix A) */
#define USUAL_STAMPS 0x0101080a

/* The IP packet at l3, of which the bytes up to `end` are there: an unfragmented (or first-fragment)
 * TCP packet, or what else. */
INLINE int parse_whole(const __u8 *l3, const __u8 *end, __u32 buffer, struct parsed *p)
{
	__u8 ip[40];
	__u8 th[32];
	__u32 l3_len, total;
	int said;

	if (l3 + 20 > end || bpf_probe_read_kernel(ip, 20, l3))
		return ELSEWHERE;
	p->l3 = l3;
	p->end = end;
	if ((ip[0] >> 4) == 4) {
		if (ip[9] != PROTO_TCP)
			return NO_TCP;
		if (be16(ip + 6) & 0x1fff)
			return ELSEWHERE;
		l3_len = (ip[0] & 15) * 4;
		if (l3_len < 20)
			return NO_TCP;
		total = LENGTH_V4(be16(ip + 2), buffer);
		p->tos = ip[1];
		p->ttl = ip[8];
		p->ip_id = be16(ip + 4);
		p->df = !!(ip[6] & 0x40);
		map_v4(p->t.saddr, ip + 12);
		map_v4(p->t.daddr, ip + 16);
	} else if ((ip[0] >> 4) == 6) {
		if (l3 + 40 > end || bpf_probe_read_kernel(ip, 40, l3))
			return ELSEWHERE;
		said = tcp_in_ipv6(l3, end, ip[6], &l3_len);
		if (said != PARSED)
			return said;
		total = LENGTH_V6(be16(ip + 4), buffer);
		take_ipv6(p, ip);
	} else {
		return NO_TCP;
	}
	p->l4 = l3 + l3_len;
	/* What lies behind the header is inside the same buffer: see fill_headers(). */
	if (p->l4 + 20 > end || bpf_probe_read_kernel(th, sizeof(th), p->l4) ||
	    p->l4 + (th[12] >> 4) * 4 > end)
		return ELSEWHERE;
	p->t.sport = be16(th);
	p->t.dport = be16(th + 2);
	p->seq = be32(th + 4);
	p->ack = be32(th + 8);
	p->window = be16(th + 14);
	p->stamped = (th[12] >> 4) >= 8 && be32(th + 20) == USUAL_STAMPS;
	p->tsval = p->stamped ? be32(th + 24) : 0;
	p->tsecr = p->stamped ? be32(th + 28) : 0;
	return fill_segment(p, th[12] >> 4, th[13], l3_len + (th[12] >> 4) * 4, total);
}

/* ---- the usual packet: no IP options, no extension headers, not fragmented ----
 *
 * Its headers are read in one piece, its frame's with them: `w` are the bytes from WINDOW_BEFORE
 * before its IP header on. What lies beyond the packet's end is inside the same buffer, and unused. */

/* A fragment of an IP packet (RFC 791 section 3.2, RFC 8200 section 4.5). */
struct fragment {
	const __u8 *data;
	__u32 offset; /* in bytes */
	__u32 id;
	__u8 more;
};

#define UNITS 8 /* of 8 bytes, the smallest fragment: there is room for the longest TCP header */

/* Whether there is a fragment of a TCP packet at l3. What its IP header says is in `p`. */
INLINE int parse_fragment(const __u8 *l3, const __u8 *end, struct parsed *p, struct fragment *f)
{
	__u8 ip[48];

	if (l3 + 20 > end || bpf_probe_read_kernel(ip, 20, l3))
		return 0;
	p->l3 = l3;
	p->tos = ip[1];
	p->ttl = ip[8];
	if ((ip[0] >> 4) == 4) {
		f->offset = (be16(ip + 6) & 0x1fff) * 8;
		f->more = !!(ip[6] & 0x20);
		if (ip[9] != PROTO_TCP || (ip[0] & 15) < 5 || !(f->offset | f->more))
			return 0;
		f->data = l3 + (ip[0] & 15) * 4;
		f->id = p->ip_id = be16(ip + 4);
		p->df = !!(ip[6] & 0x40);
		map_v4(p->t.saddr, ip + 12);
		map_v4(p->t.daddr, ip + 16);
		return 1;
	}
	if ((ip[0] >> 4) != 6 || ip[6] != 44 || l3 + 48 > end || bpf_probe_read_kernel(ip, 48, l3) ||
	    ip[40] != PROTO_TCP)
		return 0;
	f->offset = be16(ip + 42) & 0xfff8;
	f->more = ip[43] & 1;
	f->data = l3 + 48;
	f->id = be32(ip + 44);
	take_ipv6(p, ip);
	return 1;
}

/* A TCP header that was put together at l4. */
INLINE int parse_header(const __u8 *l4, struct parsed *p)
{
	__u8 th[20];

	if (bpf_probe_read_kernel(th, sizeof(th), l4))
		return 0;
	p->l4 = l4;
	p->end = l4 + (th[12] >> 4) * 4;
	p->t.sport = be16(th);
	p->t.dport = be16(th + 2);
	p->seq = be32(th + 4);
	p->ack = be32(th + 8);
	p->window = be16(th + 14);
	p->stamped = 0;
	p->tsval = p->tsecr = 0;
	return fill_segment(p, th[12] >> 4, th[13], (th[12] >> 4) * 4, (th[12] >> 4) * 4);
}

#define PAGES_READ 128 /* a power of two: IPv6 and the longest TCP header */

#define WINDOW_BEFORE 16
#define WINDOW 88 /* IPv6, and TCP with timestamps */

/* The window of a packet; `room` is where it may be copied to. 0: it cannot be read. */
INLINE const __u8 *open_window(__u8 *room, const char *head, const __u8 *l3)
{
#if TYPED && RDONLY_CAST
	return READABLE(l3 - WINDOW_BEFORE);
#else
	if (l3 - (const __u8 *)head < WINDOW_BEFORE ||
	    bpf_probe_read_kernel(room, WINDOW, l3 - WINDOW_BEFORE))
		return 0;
	return room;
#endif
}

/* How many packets a buffer will become on the wire, or was made of. */
INLINE __u16 gso_segs(const char *shinfo)
{
#if TYPED && RDONLY_CAST
	return HALF(READABLE(shinfo), OFF_shinfo_gso_segs);
#else
	return GET(__u16, shinfo, shinfo_gso_segs);
#endif
}

INLINE void copy_v4(__u8 *to, __u32 address)
{
	*(__u64 *)to = 0;
	*(__u32 *)(to + 8) = FROM_BE32(0xffff);
	*(__u32 *)(to + 12) = address;
}

/* A TCP header that begins `at` so many bytes into the window. */
INLINE int parse_segment(const __u8 *w, const __u32 at, const __u8 *end, __u32 total,
			 struct parsed *p)
{
	__u8 offset = BYTE(w, at + 12) >> 4;

	if (p->l4 + 20 > end || p->l4 + offset * 4 > end)
		return ELSEWHERE;
	p->t.sport = FROM_BE16(HALF(w, at));
	p->t.dport = FROM_BE16(HALF(w, at + 2));
	p->seq = FROM_BE32(WORD(w, at + 4));
	p->ack = FROM_BE32(WORD(w, at + 8));
	p->window = FROM_BE16(HALF(w, at + 14));
	p->stamped = offset >= 8 && WORD(w, at + 20) == FROM_BE32(USUAL_STAMPS);
	p->tsval = p->stamped ? FROM_BE32(WORD(w, at + 24)) : 0;
	p->tsecr = p->stamped ? FROM_BE32(WORD(w, at + 28)) : 0;
	return fill_segment(p, offset, BYTE(w, at + 13),
			    at - WINDOW_BEFORE + offset * 4, total);
}

INLINE int parse_window(const __u8 *w, const __u8 *l3, const __u8 *end, __u32 buffer,
			struct parsed *p)
{
	const __u8 *ip = w + WINDOW_BEFORE;
	__u8 next;

	p->l3 = l3;
	p->end = end;
	if (BYTE(ip, 0) == 0x45) {
		if (l3 + 20 > end || (HALF(ip, 6) & FROM_BE16(0x3fff)))
			return UNUSUAL;
		if (BYTE(ip, 9) != PROTO_TCP)
			return NO_TCP;
		p->l4 = l3 + 20;
		p->tos = BYTE(ip, 1);
		p->ip_id = FROM_BE16(HALF(ip, 4));
		p->df = !!(BYTE(ip, 6) & 0x40);
		p->ttl = BYTE(ip, 8);
		copy_v4(p->t.saddr, WORD(ip, 12));
		copy_v4(p->t.daddr, WORD(ip, 16));
		return parse_segment(w, WINDOW_BEFORE + 20, end,
				     LENGTH_V4(FROM_BE16(HALF(ip, 2)), buffer), p);
	}
	if (BYTE(ip, 0) >> 4 != 6 || l3 + 40 > end)
		return UNUSUAL;
	next = BYTE(ip, 6);
	if (next != PROTO_TCP)
		return next == PROTO_UDP || next == PROTO_ICMPV6 ? NO_TCP : UNUSUAL;
	p->l4 = l3 + 40;
	p->tos = BYTE(ip, 0) << 4 | BYTE(ip, 1) >> 4;
	p->ip_id = 0;
	p->df = 0;
	p->ttl = BYTE(ip, 7);
	*(__u64 *)p->t.saddr = LONG(ip, 8);
	*(__u64 *)(p->t.saddr + 8) = LONG(ip, 16);
	*(__u64 *)p->t.daddr = LONG(ip, 24);
	*(__u64 *)(p->t.daddr + 8) = LONG(ip, 32);
	return parse_segment(w, WINDOW_BEFORE + 40, end, LENGTH_V6(FROM_BE16(HALF(ip, 4)), buffer), p);
}

/* ---- the usual segment: acknowledges, perhaps with data ---- */

#define TH_PSH 0x08

/* Of bytes that were read as one number: those from the one `at` on, as they lie. */
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define PART(type, number, at) ((type)((number) >> 8 * (at)))
#define FIRST_SIX(number) ((number) << 16)
#else
#define PART(type, number, at) ((type)((number) >> (64 - 8 * ((at) + sizeof(type)))))
#define FIRST_SIX(number) ((number) >> 16)
#endif

/* What is to be known of it; parts of its header as they lie there, for most are looked at once. */
struct usual {
	__u64 source[2]; /* its ends, as struct tuple has them */
	__u64 destination[2];
	__u64 ports;     /* as they are in the header */
	__u64 begin;     /* ports and sequence number */
	__u64 middle;    /* ack number, offset, flags, window */
	__u64 stamps;    /* value and echo; 0: it has none */
	__u64 payload_len;
	__u64 id;
	__u64 tos;
	__u64 looks;     /* LOOKS() */
};

/* What must be the same of all packets of a direction for that they are usual. Never 0. */
#define LOOKS(ttl, df, stamped) (1 | (ttl) << 8 | (df) << 16 | (stamped) << 24)
#define SEQ(u) FROM_BE32(PART(__u32, (u)->begin, 4))
#define ACK(u) FROM_BE32(PART(__u32, (u)->middle, 0))

/* Any address of the kernel's as memory that is read with BYTE() to LONG(), each of its numbers at a
 * multiple of its size; elsewhere what was copied from there. */
#if TYPED && RDONLY_CAST
#define AT(address) READABLE(address)
#else
#define AT(address) (address)
#endif

/* A member that is an address, as no more than a number (see as_number() in packets.c). */
#define NUMBER(ptr, name) LONG(AT((const __u8 *)(ptr) + OFF_##name), 0)

/* The TCP header behind so many bytes of an IP header. */
INLINE int take_segment(struct usual *u, const __u8 *l4, const __u32 behind, __u64 linear,
			__u64 total, __u64 looks)
{
	const __u8 *t = AT(l4);
	__u64 begin = LONG(t, 0), middle = LONG(t, 8), options;
	__u64 headers = behind + (PART(__u8, middle, 4) >> 4) * 4;

	if (headers < behind + 20 || (PART(__u8, middle, 5) & ~TH_PSH) != TH_ACK ||
	    linear < headers || total < headers)
		return 0;
	u->begin = begin;
	u->ports = PART(__u32, begin, 0);
	u->middle = middle;
	u->payload_len = total - headers;
	u->stamps = 0;
	if (headers >= behind + 32) {
		options = LONG(t, 16);
		if (PART(__u32, options, 4) != FROM_BE32(USUAL_STAMPS))
			return 0;
		u->stamps = LONG(t, 24);
		looks |= LOOKS(0, 0, 1);
	}
	u->looks = looks;
	return 1;
}

INLINE __u64 mapped_v4(__u32 address)
{
	__u32 both[2] = { FROM_BE32(0xffff), address };
	__u64 number;

	__builtin_memcpy(&number, both, sizeof(number));
	return number;
}

/* Whether there is a usual segment at l3, where so many bytes are there (`linear`). What parse_window()
 * and parse_whole() say of it is the same. */
INLINE int take_usual(struct usual *u, const __u8 *l3, __u64 linear)
{
	const __u8 *w = AT(l3);
	__u64 first = LONG(w, 0), second = LONG(w, 8);

	if (PART(__u8, first, 0) == 0x45) {
		if (PART(__u8, second, 1) != PROTO_TCP || (PART(__u16, first, 6) & FROM_BE16(0xbfff)))
			return 0;
		u->source[0] = u->destination[0] = 0;
		u->source[1] = mapped_v4(PART(__u32, second, 4));
		u->destination[1] = mapped_v4(WORD(w, 16));
		u->tos = PART(__u8, first, 1);
		u->id = PART(__u16, first, 4);
		return take_segment(u, l3 + 20, 20, linear, FROM_BE16(PART(__u16, first, 2)),
				    LOOKS((__u64)PART(__u8, second, 0), PART(__u8, first, 6) >> 6, 0));
	}
	if (PART(__u8, first, 0) >> 4 != 6 || PART(__u8, first, 6) != PROTO_TCP)
		return 0;
	u->source[0] = second;
	u->source[1] = LONG(w, 16);
	u->destination[0] = LONG(w, 24);
	u->destination[1] = LONG(w, 32);
	u->tos = (__u8)(PART(__u8, first, 0) << 4 | PART(__u8, first, 1) >> 4);
	u->id = 0;
	return take_segment(u, l3 + 40, 40, linear, FROM_BE16(PART(__u16, first, 4)) + 40,
			    LOOKS((__u64)PART(__u8, first, 7), 0, 0));
}

/* Where the bytes end that lie in one piece behind skb->data (skb_tail_pointer()). Behind that is
 * what the buffer's last user left there. */
INLINE const __u8 *linear_end(const void *skb)
{
	return GET(const __u8 *, skb, skb_head) + GET(__u32, skb, skb_tail);
}

/* The IP packet at l3 of this buffer. Whether it is an unfragmented (or first-fragment) TCP packet,
 * all headers of which are there. */
INLINE int parse(const void *skb, const __u8 *l3, struct parsed *p)
{
	/* TCP takes the IP header off: then the data begin behind l3, and this is below 0. */
	__u32 before = l3 - GET(const __u8 *, skb, skb_data);

	return parse_whole(l3, linear_end(skb), GET(__u32, skb, skb_len) - before, p) == PARSED;
}

#define TAGS_READ 8

/* The IP header of a packet on its way up: at skb->data, behind VLAN tags that are still there. 0: see
 * `said`. */
INLINE const __u8 *l3_received(const void *skb, int *said)
{
	const __u8 *data = GET(const __u8 *, skb, skb_data), *end = linear_end(skb);
	__u16 protocol = FROM_BE16(GET(__u16, skb, skb_protocol));

	*said = ELSEWHERE;
	for (int i = 0; i < TAGS_READ; i++) {
		__u8 tag[4];

		if (protocol != ETH_VLAN && protocol != ETH_QINQ)
			break;
		if (data + 4 > end || bpf_probe_read_kernel(tag, 4, data))
			return 0;
		protocol = be16(tag + 2);
		data += 4;
	}
	if (protocol == ETH_IP || protocol == ETH_IPV6)
		return data;
	if (protocol != ETH_VLAN && protocol != ETH_QINQ)
		*said = NO_TCP;
	return 0;
}

/* The IP header of a packet on its way out or being dropped. */
INLINE const __u8 *l3_at_offset(const void *skb)
{
	__u16 offset = GET(__u16, skb, skb_network_header);

	if (offset == NO_OFFSET || !offset)
		return 0;
	return GET(const __u8 *, skb, skb_head) + offset;
}

/* Who made an IPv6 RST that has no socket and that no probe announced: tcp_v6_send_response() leaves
 * the checksum to the device (csum_start and csum_offset say where), nf_send_reset6() computes it. */
INLINE int checksum_left_to_device(const void *skb, const struct parsed *p)
{
	const __u8 *head = GET(const __u8 *, skb, skb_head);

	return GET(__u16, skb, skb_csum_offset) == 16 &&
	       head + GET(__u16, skb, skb_csum_start) == p->l4;
}

INLINE int is_ipv6(const struct parsed *p)
{
	__u8 version = 0;

	bpf_probe_read_kernel(&version, 1, p->l3);
	return (version >> 4) == 6;
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
	long kept = (long)p->end - (long)p->l4; /* payload may be elsewhere, in pages */

	/* Headers may end short of 60 bytes; what follows is inside the same buffer (skb_shared_info
	 * ends it), so the read does not fault, and Python cuts it by the headers' own lengths. */
	bpf_probe_read_kernel(h->l3, HEADER, p->l3);
	bpf_probe_read_kernel(h->l4, HEADER, p->l4);
	h->payload_len = p->payload_len;
	h->kept = kept < 0 ? 0 : kept > HEADER ? HEADER : kept;
	h->present = 1;
}

#endif
