"""bpf(2), perf_event_open(2) and fsmount(2), which the C library does not wrap."""

from __future__ import annotations

import ctypes
import os

from rsttrace.errors import KernelError

BPF = {"x86_64": 321, "aarch64": 280, "ppc64le": 361, "s390x": 351, "riscv64": 280}
PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241, "ppc64le": 319, "s390x": 331, "riscv64": 241}
"""The numbers of the two, by machine (arch/*/…/syscall.tbl, asm-generic/unistd.h)."""

ALIKE = ("x86_64", "aarch64", "ppc64le", "s390x", "riscv64")
FSOPEN, FSCONFIG, FSMOUNT = (dict.fromkeys(ALIKE, number) for number in (430, 431, 432))
"""From 5.1 on numbers are the same everywhere. These three are of 5.2 (d8076bdb56af)."""

FSOPEN_CLOEXEC, FSMOUNT_CLOEXEC = 1, 1
FSCONFIG_SET_STRING, FSCONFIG_CMD_CREATE = 1, 6
MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC = 2, 4, 8
"""include/uapi/linux/mount.h."""

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


def detached_tmpfs() -> int:
    """A tmpfs of at most 16 MB that is mounted nowhere and lives as long as its descriptor.

    Returns the descriptor of its root folder, close-on-exec. Only its owner may look into it.

    Raises:
        OSError: the kernel refuses (it wants CAP_SYS_ADMIN), or has no such call.
        KernelError: this machine's numbers are not known here.
    """
    context = _call(FSOPEN, "fsopen", b"tmpfs", FSOPEN_CLOEXEC)
    try:
        for key, value in ((b"size", b"16m"), (b"mode", b"0700")):
            _call(FSCONFIG, "fsconfig", context, FSCONFIG_SET_STRING, key, value, 0)
        _call(FSCONFIG, "fsconfig", context, FSCONFIG_CMD_CREATE, None, None, 0)
        flags = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC
        return _call(FSMOUNT, "fsmount", context, FSMOUNT_CLOEXEC, flags)
    finally:
        os.close(context)


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
