"""Running a function in another network namespace.

setns(2) moves only the calling thread: a thread of its own enters, calls, and ends.
"""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from typing import Callable, TypeVar

from rsttrace.enrich import lean
from rsttrace.errors import PrivilegeError, RsttraceError

_SLICE_S = 0.1
"""How often a signal's handler gets its turn while the other thread runs."""

T = TypeVar("T")


def call_in(descriptor: int, function: Callable[[], T]) -> T:
    """Call a function in the network namespace of an open file.

    Raises:
        OSError: it cannot be entered.
        RuntimeError: no thread can be started.
        BaseException: whatever the function raises.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        lean.prepare()
        from pyroute2.netns import setns

        try:
            # with a descriptor pyroute2 neither forks nor creates; without libc it runs ldconfig
            setns(descriptor, libc=ctypes.CDLL(None, use_errno=True))
            results.append(function())
        except BaseException as error:  # handed to the caller
            errors.append(error)

    thread = threading.Thread(target=run, name="rsttrace-netns", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(_SLICE_S)
    if errors:
        raise errors[0]
    return results[0]


def inside(netns_path: str | None, function: Callable[[], T]) -> T:
    """Call a function in the network namespace at a path (``None``: our own, in this thread).

    Raises:
        PrivilegeError: not allowed to enter.
        RsttraceError: it cannot be entered.
        BaseException: whatever the function raises.
    """
    if netns_path is None:
        return function()
    entered = False

    def run() -> T:
        nonlocal entered
        entered = True
        return function()

    try:
        descriptor = os.open(netns_path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return call_in(descriptor, run)
        finally:
            os.close(descriptor)
    except OSError as error:
        if entered:
            raise
        if error.errno == errno.EPERM:
            what = "entering a network namespace needs root"
            raise PrivilegeError(what, hint="run it with sudo") from None
        raise RsttraceError(
            f"cannot enter the network namespace {netns_path!r}: {error.strerror}"
        ) from None
