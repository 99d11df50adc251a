"""rsttrace, which also writes down all that its judge is given: see `tests.accuracy.record`.

``python -m tests.accuracy.recorder FILE trace …`` or ``… FILE read …``.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from typing import IO, Any

from rsttrace.cli import main as rsttrace
from rsttrace.commands import run
from rsttrace.judge.history import Case, History
from rsttrace.model import LatePacket, Reset


def recording(file: IO[bytes]) -> type[History]:
    """A History that appends to a file what comes in, before it changes it, and when it is asked.

    Each record is a pickle of its own: ``(item, now_ns)`` of `History.add`, ``now_ns`` of `due`.
    """

    class Recorded(History):
        def add(self, item: Reset | LatePacket, now_ns: int) -> None:
            pickle.dump((item, now_ns), file)
            super().add(item, now_ns)

        def due(self, now_ns: int | None = None) -> Iterator[Case]:
            pickle.dump(now_ns, file)
            return super().due(now_ns)

    return Recorded


def main() -> None:
    """Run the command."""
    target, *words = sys.argv[1:]
    shared: Any = run
    with open(target, "wb") as file:
        shared.History = recording(file)
        sys.argv = ["rsttrace", *words]
        rsttrace()


if __name__ == "__main__":
    main()
