/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Reading kernel structures: explicit, checked for size at compile time, no map.
 */
#ifndef RSTTRACE_READ_H
#define RSTTRACE_READ_H

#include "event.h"
#include "offsets.h"

#define INLINE static inline __attribute__((always_inline))

/* A load that is one instruction in place of a helper's call: a bad address gives 0, the kernel sees to
 * that. Written in assembler, so that neither bcc nor the compiler changes it: the verifier looks each one
 * up. */
#define LOAD(width, ptr, at) ({ \
	__u64 __loaded; \
	asm volatile("%0 = *(" width " *)(%1 + %2)" : "=r"(__loaded) : "r"(ptr), "i"(at)); \
	__loaded; })
#define LOAD_AS(type, ptr, at) \
	(sizeof(type) == 8 ? (type)LOAD("u64", ptr, at) : \
	 sizeof(type) == 4 ? (type)LOAD("u32", ptr, at) : \
	 sizeof(type) == 2 ? (type)LOAD("u16", ptr, at) : (type)LOAD("u8", ptr, at))

/* Any memory, as what the kernel takes for a READABLE_AS (its BTF's number). The call is none: the verifier
 * puts an assignment in its place (bpf_rdonly_cast(), a35b9af4ec2c, 6.2). */
#define READABLE(address) \
	(((const __u8 *(*)(const void *, __u32))(unsigned long)RDONLY_CAST)(address, READABLE_AS))

/* So many bytes at an address, or what the type has; no more than 8. */
#if RDONLY_CAST
#define FETCH(type, address) LOAD_AS(type, READABLE((const void *)(address)), 0)
#else
#define FETCH(type, address) ({ \
	type __value = 0; \
	bpf_probe_read_kernel(&__value, sizeof(__value), (const void *)(address)); \
	__value; })
#endif

/* A member's value; the type's size must be the member's (the offsets' self-check). */
#define GET(type, ptr, name) ({ \
	_Static_assert(OFF_##name < 0 || sizeof(type) == SIZE_##name, "size of " #name); \
	OFF_##name < 0 ? (type)0 : FETCH(type, (const char *)(ptr) + OFF_##name); })

#define HAS(name) (OFF_##name >= 0)

/* The low byte of a number whose size differs between kernels (little-endian machines only). */
#define GET_LOW(ptr, name) (OFF_##name < 0 ? (__u8)0 : FETCH(__u8, (const char *)(ptr) + OFF_##name))

/* The same in the programs that see every packet, where the kernel knows the types of a program's
 * arguments (rsttrace/kernel/typed.py). */
#if TYPED
#define MEMBER(type, ptr, name) ({ \
	_Static_assert(OFF_##name < 0 || sizeof(type) == SIZE_##name, "size of " #name); \
	OFF_##name < 0 ? (type)0 : LOAD_AS(type, ptr, OFF_##name); })
#else
/* No function-like macro: the headers of a kernel make macros of such names (sk_state). */
#define MEMBER GET
#endif

/* A packet's bytes wherever they lie, also in pages (bpf_dynptr_from_skb(), in such programs since
 * ffc83860d8c0, 6.12; bpf_dynptr_read(), helper 201). */
#if TYPED && DYNPTR_FROM_SKB
#define dynptr_from_skb \
	((int (*)(const void *, __u64, void *))(unsigned long)DYNPTR_FROM_SKB)
#define dynptr_read ((long (*)(void *, __u64, const void *, __u64, __u64))201)
#endif

/* Of memory that is READABLE, or else was copied. */
#if TYPED && RDONLY_CAST
#define BYTE(w, at) ((__u8)LOAD("u8", w, at))
#define HALF(w, at) ((__u16)LOAD("u16", w, at))
#define WORD(w, at) ((__u32)LOAD("u32", w, at))
#define LONG(w, at) LOAD("u64", w, at)
#else
#define BYTE(w, at) (*(const __u8 *)((w) + (at)))
#define HALF(w, at) (*(const __u16 *)((w) + (at)))
#define WORD(w, at) (*(const __u32 *)((w) + (at)))
#define LONG(w, at) (*(const __u64 *)((w) + (at)))
#endif

#define NO_OFFSET 0xffff

INLINE __u16 be16(const __u8 *p) { return (__u16)p[0] << 8 | p[1]; }
INLINE __u32 be32(const __u8 *p)
{
	return (__u32)p[0] << 24 | (__u32)p[1] << 16 | (__u32)p[2] << 8 | p[3];
}

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define FROM_BE16(n) __builtin_bswap16(n)
#define FROM_BE32(n) __builtin_bswap32(n)
#else
#define FROM_BE16(n) (n)
#define FROM_BE32(n) (n)
#endif

INLINE void map_v4(__u8 *to, const __u8 *v4)
{
	*(__u64 *)to = 0;
	to[8] = 0; to[9] = 0; to[10] = 0xff; to[11] = 0xff;
	to[12] = v4[0]; to[13] = v4[1]; to[14] = v4[2]; to[15] = v4[3];
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

#endif
