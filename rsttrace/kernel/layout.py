"""The event's layout, read from its one definition in ``bpf/event.h``."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from rsttrace.errors import RsttraceError
from rsttrace.kernel import config


@functools.lru_cache(maxsize=1)
def bpf_directory() -> Path:
    """Where the BPF sources are: inside the installed package, or beside it in a checkout.

    Raises:
        RsttraceError: neither has them (a damaged installation).
    """
    package = Path(__file__).resolve().parent.parent
    for candidate in (package / "bpf", package.parent / "bpf"):
        if (candidate / "event.h").is_file():
            return candidate
    raise RsttraceError(
        f"the BPF sources are missing: no event.h in {package / 'bpf'} or {package.parent / 'bpf'}",
        hint="reinstall rsttrace",
    )


@functools.lru_cache(maxsize=1)
def structures() -> Any:
    """The parsed ``event.h``: ``structures().rst_event(buffer)`` reads one event."""
    from dissect.cstruct import cstruct

    parser = cstruct(endian="<")
    text = config.defines(config.constants()) + (bpf_directory() / "event.h").read_text()
    parser.load(text, align=True)
    return parser


def event_size() -> int:
    """Bytes of one ``struct rst_event``."""
    return int(structures().rst_event.size)
