"""Attaching a program to a raw tracepoint; closing it leaves nothing behind."""

from __future__ import annotations

import ctypes
import struct

from rsttrace.kernel import syscalls


def attach(program: int, name: str) -> int:
    """Attach a loaded BPF program to a raw tracepoint (c4f6699dfcb8, 4.17).

    One that knows its arguments' types was loaded for a tracepoint: then the name is empty.

    Returns the link's descriptor; closing it detaches.

    Raises:
        OSError: the kernel refuses (ENOENT: no such tracepoint).
    """
    text = ctypes.create_string_buffer(name.encode())
    # union bpf_attr, the raw_tracepoint member: name, prog_fd
    attributes = struct.pack("=QII", ctypes.addressof(text) if name else 0, program, 0)
    try:
        return syscalls.bpf(syscalls.BPF_RAW_TRACEPOINT_OPEN, attributes)
    except OSError as error:
        what = f"the kernel refuses the raw tracepoint: {error.strerror}"
        raise OSError(error.errno, what) from None
