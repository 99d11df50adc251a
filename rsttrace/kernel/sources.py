"""The BPF program's text: the ``.c`` files of ``bpf/`` joined into one.

bcc rewrites the main text only: map methods (``flows.lookup()``) in an included file would not
compile. So the files are joined, and ``#line`` directives (C11 6.10.4) keep the compiler's messages
on the right file and line.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.abc import Traversable

SOURCES = (
    "maps.c",
    "owners.c",
    "storm.c",
    "events.c",
    "baseline.c",
    "payload.c",
    "packets.c",
    "causes.c",
    "kprobes.c",
)
"""In this order, for each uses what stands in those before it."""


def joined(directory: Traversable, epilogue: str = "") -> str:
    """The text of every file of `SOURCES` in a directory, and then of `epilogue`."""
    parts = [(str(directory / name), (directory / name).read_text()) for name in SOURCES]
    parts.append(("<epilogue>", epilogue))
    return "".join(
        f"#line 1 {json.dumps(name, ensure_ascii=False)}\n{text}\n" for name, text in parts if text
    )
