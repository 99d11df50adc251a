"""The headers that bcc wants of a kernel source tree, as stubs: the real contents come from BTF."""

from __future__ import annotations

from pathlib import Path

STUBS = {
    "linux/kconfig.h": "#define CONFIG_BPF_SYSCALL 1\n",
    "linux/types.h": """\
typedef unsigned char __u8; typedef signed char __s8;
typedef unsigned short __u16; typedef short __s16;
typedef unsigned int __u32; typedef int __s32;
typedef unsigned long long __u64; typedef long long __s64;
typedef __u8 u8; typedef __u16 u16; typedef __u32 u32; typedef __u64 u64;
typedef __s8 s8; typedef __s16 s16; typedef __s32 s32; typedef __s64 s64;
typedef __u16 __be16; typedef __u32 __be32; typedef __u64 __be64;
typedef __u16 __le16; typedef __u32 __le32; typedef __u64 __le64;
typedef __u16 __sum16; typedef __u32 __wsum;
typedef unsigned long size_t; typedef unsigned long uintptr_t;
typedef int pid_t; typedef _Bool bool;
#define __aligned_u64 __u64 __attribute__((aligned(8)))
#define NULL ((void *)0)
struct pt_regs;
""",
    "linux/version.h": (
        "#define LINUX_VERSION_CODE 0\n"
        "#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + (c))\n"
    ),
    "asm/page.h": "#define PAGE_SIZE 4096\n",
    **dict.fromkeys(
        (
            "linux/bpf.h",
            "linux/bpf_common.h",
            "linux/log2.h",
            "linux/ptrace.h",
            "linux/sched.h",
            "net/sock.h",
            "uapi/linux/bpf.h",
            "uapi/linux/if_packet.h",
            "uapi/linux/ptrace.h",
        ),
        "",
    ),
}
"""What bcc includes; this much is enough (measured with bcc 0.26)."""


def write(directory: Path) -> None:
    """The stub kernel tree that BCC_KERNEL_SOURCE names."""
    for name, text in STUBS.items():
        path = directory / "include" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#pragma once\n{text}")
    (directory / "include/generated/uapi/linux").mkdir(parents=True, exist_ok=True)
