"""bpf(2) and perf_event_open(2), which the C library does not wrap."""

from __future__ import annotations

import ctypes
import os

from rsttrace.errors import KernelError

BPF = {"x86_64": 321, "aarch64": 280, "ppc64le": 361, "s390x": 351, "riscv64": 280}
PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241, "ppc64le": 319, "s390x": 331, "riscv64": 241}
"""The numbers of the two, by machine (arch/*/…/syscall.tbl, asm-generic/unistd.h)."""

BPF_MAP_CREATE, BPF_MAP_LOOKUP_ELEM, BPF_MAP_UPDATE_ELEM = 0, 1, 2
BPF_PROG_LOAD, BPF_OBJ_GET_INFO_BY_FD, BPF_RAW_TRACEPOINT_OPEN = 5, 15, 17
BPF_LINK_CREATE = 28
"""enum bpf_cmd, include/uapi/linux/bpf.h (the last: af6eea57437a, 5.7)."""

PERF_FLAG_FD_CLOEXEC = 8  # include/uapi/linux/perf_event.h


def bpf(command: int, attributes: bytes | bytearray) -> int:
    """Call bpf(2); returns its result: a descriptor, or 0.

    Args:
        command: of enum bpf_cmd.
        attributes: the command's member of union bpf_attr. What the kernel writes into it is there
            afterwards if it is a bytearray.

    Raises:
        OSError: the kernel refuses.
        KernelError: this machine's number is not known here.
    """
    buffer = (ctypes.c_char * len(attributes)).from_buffer_copy(attributes)
    result = _call(BPF, "bpf", command, buffer, len(attributes))
    if isinstance(attributes, bytearray):
        attributes[:] = buffer.raw
    return result


def perf_event_open(attributes: bytes) -> int:
    """Open an event on CPU 0, of every task; returns its descriptor, close-on-exec.

    Args:
        attributes: a struct perf_event_attr.

    Raises:
        OSError: the kernel refuses.
        KernelError: this machine's number is not known here.
    """
    buffer = (ctypes.c_char * len(attributes)).from_buffer_copy(attributes)
    return _call(PERF_EVENT_OPEN, "perf_event_open", buffer, -1, 0, -1, PERF_FLAG_FD_CLOEXEC)


def _call(numbers: dict[str, int], name: str, *arguments: object) -> int:
    machine = os.uname().machine
    if machine not in numbers:
        raise KernelError(
            f"rsttrace does not know the number of {name}(2) on {machine}",
            hint=f"it runs on {', '.join(numbers)}",
        )
    libc = ctypes.CDLL(None, use_errno=True)
    result: int = libc.syscall(numbers[machine], *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), f"{name}(2)")
    return result
