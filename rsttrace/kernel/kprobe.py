"""Attaching a kprobe through perf_event_open(2), with nothing left behind when it is closed.

Used instead of bcc's own function because the tracer attaches late hooks without bcc, and because
bcc may fall back to entries in tracefs, which would outlive a killed tracer.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
from pathlib import Path

from rsttrace.kernel import syscalls

PMU_TYPE = Path("/sys/bus/event_source/devices/kprobe/type")
"""The kprobe PMU (e12f03d7031a, 4.17); absent without CONFIG_KPROBE_EVENTS."""

PERF_EVENT_IOC_ENABLE = 0x2400
PERF_EVENT_IOC_SET_BPF = 0x40042408


def available() -> bool:
    """Whether this kernel has the kprobe PMU."""
    return PMU_TYPE.exists()


def attach(program: int, function: str) -> int:
    """Attach a loaded BPF program to a kernel function's entry.

    Returns the perf event's descriptor; closing it detaches.

    Raises:
        OSError: the kernel refuses (ENOENT: no such function; EPERM: lockdown).
    """
    name = ctypes.create_string_buffer(function.encode())
    # struct perf_event_attr up to config2 (PERF_ATTR_SIZE_VER1): type, size, config,
    # sample_period, sample_type, read_format, flags, wakeup_events, bp_type, kprobe_func,
    # probe_offset
    attributes = struct.pack(
        "=IIQQQQQIIQQ",
        int(PMU_TYPE.read_text()), 72, 0, 0, 0, 0, 0, 0, 0, ctypes.addressof(name), 0,
    )  # fmt: skip
    try:
        descriptor = syscalls.perf_event_open(attributes)
    except OSError as error:
        raise OSError(error.errno, error.strerror, f"kprobe {function}") from None
    try:
        fcntl.ioctl(descriptor, PERF_EVENT_IOC_SET_BPF, program)
        fcntl.ioctl(descriptor, PERF_EVENT_IOC_ENABLE, 0)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
