"""Gives memory that is free back to the kernel."""

from __future__ import annotations

import contextlib
import ctypes


def give_back() -> None:
    """Have the C library return what it holds and nobody uses (malloc_trim(3)).

    Thousands of raw events that waited leave holes between what lives on; by itself the C library
    returns only what lies above all that is used. Where it has no such function, nothing is done.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
