"""This process's capabilities and what else decides what it may do (capabilities(7), prctl(2)).

Three system calls; the C library has them all, so ctypes does (docs/dependencies.md).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import struct
from collections.abc import Iterable
from pathlib import Path

# include/uapi/linux/capability.h
CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER = 0, 1, 2, 3
SETGID, SETUID = 6, 7
NET_ADMIN, NET_RAW, SYS_PTRACE, SYS_ADMIN = 12, 13, 19, 21
PERFMON, BPF = 38, 39

_VERSION_3 = 0x20080522  # _LINUX_CAPABILITY_VERSION_3
# include/uapi/linux/prctl.h
_PR_SET_PDEATHSIG, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT = 1, 24, 38, 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_LAST = Path("/proc/sys/kernel/cap_last_cap")


def mask(numbers: Iterable[int]) -> int:
    """Capabilities as a set of bits."""
    return sum({1 << number for number in numbers})


def keep_only(capabilities: int) -> None:
    """Have these (a set of bits) at most from now on, in this thread.

    Those who are executed get no others, whoever they are: the bounding set has them alone, as far
    as this process may change it (CAP_SETPCAP).

    Raises:
        OSError: the kernel refuses.
    """
    keep_bounding(capabilities)
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    capabilities &= permitted()
    low, high = capabilities & 0xFFFFFFFF, capabilities >> 32
    # struct __user_cap_header_struct; then effective, permitted, inheritable, each in two halves
    header = ctypes.create_string_buffer(struct.pack("=Ii", _VERSION_3, 0))
    data = ctypes.create_string_buffer(struct.pack("=6I", low, low, 0, high, high, 0))
    _check(_libc().capset(header, data), "capset")


def keep_bounding(capabilities: int = 0) -> None:
    """What this thread executes has these at most, as far as this process may say so (CAP_SETPCAP).

    Raises:
        OSError: the kernel does not tell how many capabilities it has.
    """
    last = int(_LAST.read_text())
    for number in range(last + 1):
        if not capabilities >> number & 1:
            with contextlib.suppress(OSError):
                _prctl(_PR_CAPBSET_DROP, number)


def no_new_privileges() -> None:
    """Nothing that this thread, or one that it starts, executes gets rights that it has not.

    Raises:
        OSError: the kernel refuses.
    """
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def die_with(parent: int) -> bool:
    """Be killed when the parent ends; false if that one is not our parent any more.

    Raises:
        OSError: the kernel refuses.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    return os.getppid() == parent


def permitted() -> int:
    """What this thread has, as a set of bits (proc_pid_status(5), CapPrm)."""
    status = Path("/proc/thread-self/status").read_text()
    return int(status.split("CapPrm:")[1].split()[0], 16)


def _prctl(option: int, argument: int) -> None:
    zero = ctypes.c_ulong(0)
    _check(_libc().prctl(option, ctypes.c_ulong(argument), zero, zero, zero), "prctl")


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int, name: str) -> None:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), f"{name}(2)")
