"""Running a function in another network namespace.

setns(2) moves only the calling thread: a thread of its own enters, calls, and ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import threading
from collections.abc import Iterator
from typing import Callable, TypeVar

from rsttrace.enrich import reach
from rsttrace.errors import PrivilegeError, RsttraceError

_SLICE_S = 0.1
"""How often a signal's handler gets its turn while the other thread runs."""

_CLONE_NEWNET = 0x40000000  # include/uapi/linux/sched.h

T = TypeVar("T")


def enter(descriptor: int) -> None:
    """Move the calling thread into the network namespace of an open file (setns(2)).

    Raises:
        OSError: it cannot be entered.
    """
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), "setns(2)")


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
        try:
            enter(descriptor)
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
    helper = reach.helper()
    if helper is not None:
        with _explained(netns_path):
            helper.enter(netns_path)
        with reach.at(netns_path):
            return function()
    entered = False

    def run() -> T:
        nonlocal entered
        entered = True
        return function()

    with _explained(netns_path, lambda: not entered):
        descriptor = os.open(netns_path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return call_in(descriptor, run)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def _explained(path: str, ours: Callable[[], bool] = lambda: True) -> Iterator[None]:
    """Errors of entering, in words; those that are not of that pass as they are."""
    try:
        yield
    except OSError as error:
        if not ours():
            raise
        if error.errno == errno.EPERM:
            what = "entering a network namespace needs root"
            raise PrivilegeError(what, hint="run it with sudo") from None
        raise RsttraceError(
            f"cannot enter the network namespace {path!r}: {error.strerror}"
        ) from None
