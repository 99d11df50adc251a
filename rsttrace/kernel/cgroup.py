"""Attaching a program to the root of the cgroup tree; closing it leaves nothing behind."""

from __future__ import annotations

import os
import struct
from pathlib import Path

from rsttrace.kernel import syscalls

BPF_CGROUP_INET_EGRESS = 1  # enum bpf_attach_type, include/uapi/linux/bpf.h

MOUNTS = Path("/proc/self/mounts")


def root() -> str:
    """Where the cgroup v2 tree is mounted.

    Raises:
        OSError: nowhere (a cgroup v1 host).
    """
    for line in MOUNTS.read_text().splitlines():
        _, where, kind = line.split()[:3]
        if kind == "cgroup2":
            return where.encode().decode("unicode_escape")  # spaces are \\040 (proc(5))
    raise OSError("no cgroup v2 tree is mounted here (cgroup v1 only)")


def attach(program: int) -> int:
    """Attach a loaded program to what all sockets of the tree send.

    Returns the link's descriptor; closing it detaches.

    Raises:
        OSError: the kernel refuses, or there is no cgroup v2 tree.
    """
    directory = os.open(root(), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # union bpf_attr, the link_create member: prog_fd, target_fd, attach_type, flags
        attributes = struct.pack("=IIII", program, directory, BPF_CGROUP_INET_EGRESS, 0)
        return syscalls.bpf(syscalls.BPF_LINK_CREATE, attributes)
    except OSError as error:
        what = f"the kernel refuses the cgroup program: {error.strerror}"
        raise OSError(error.errno, what) from None
    finally:
        os.close(directory)
