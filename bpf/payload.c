/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What a socket sent last (--payload).
 *
 * At the root cgroup, because only there (and in TC and XDP) the helper is allowed that reads data
 * from a packet's fragments.
 */

#if PAYLOAD
int cg_egress(void *ctx)
{
	__u64 cookie = bpf_get_socket_cookie(ctx);
	__u32 zero = 0, l4, tcp, length;
	__u64 kept;
	struct rst_data *data = data_in_the_making.lookup(&zero);
	__u8 *l3;

	if (!data || !cookie)
		return 1;
	l3 = data->headers.l3;
	if (bpf_skb_load_bytes(ctx, 0, l3, 20))
		return 1;
	if (l3[0] >> 4 == 4) {
		l4 = (l3[0] & 15) * 4;
		if (l3[9] != PROTO_TCP || l4 < 20)
			return 1;
		length = be16(l3 + 2);
	} else if (l3[0] >> 4 == 6) {
		l4 = 40; /* this host's own TCP sends no extension headers but by socket options */
		if (l3[6] != PROTO_TCP || bpf_skb_load_bytes(ctx, 20, l3 + 20, 20))
			return 1;
		length = be16(l3 + 4) + 40;
	} else {
		return 1;
	}
	if (bpf_skb_load_bytes(ctx, l4, data->headers.l4, 20))
		return 1;
	tcp = (data->headers.l4[12] >> 4) * 4;
	if (tcp < 20 || length <= l4 + tcp) /* no data, or a length that does not fit its field */
		return 1;
	length -= l4 + tcp;
	/* 1 … PAYLOAD. The compiler knows; the verifier wants to see it, in this very register. */
	kept = (length < PAYLOAD ? length : PAYLOAD) - 1;
	asm volatile("" : "+r"(kept));
	kept = (kept & (PAYLOAD_MAX - 1)) + 1;
	if (bpf_skb_load_bytes(ctx, l4 + tcp, data->payload, kept))
		return 1;
	data->headers.l4[12] = 0x50; /* options are not kept */
	data->headers.payload_len = length;
	data->headers.present = 1;
	data->kept = kept;
	data->ts = bpf_ktime_get_ns();
	sent_data.update(&cookie, data);
	return 1;
}
#endif

INLINE void fill_data(struct rst_event *e)
{
#if PAYLOAD
	__u64 cookie = e->sock.cookie;
	struct rst_data *data = cookie ? sent_data.lookup(&cookie) : 0;

	if (data)
		bpf_probe_read_kernel(&e->data, sizeof(e->data), data);
#endif
}
