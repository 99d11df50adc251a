"""Numbers that Python and the C side share: Python's, handed to C when it is compiled."""

from __future__ import annotations

from rsttrace.model import Kind

KIND_NUMBERS = {kind: number for number, kind in enumerate(Kind)}
"""How kinds are numbered in rst_event.kind; handed to C as KIND_<NAME>."""

LATE = len(Kind)
"""rst_event.kind of what is no RST: a packet that came after one (KIND_LATE)."""

COUNT_SHOWN, COUNT_FILTERED, COUNT_LOST = range(3)
"""Columns of the `counts` map, a row for each kind; the same order as the enum in rsttrace.c."""
COUNT_KINDS = 3

RING_PAGES = 2048
"""Ring buffer size in 4 KiB pages (8 MiB): 9,000 events while Python handles a chunk of 64."""
