"""What a case is, and what came of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.accuracy.stage import V4, Stage
from tests.lab.harness import Json

TRUST = ("proven", "decidable", "late", "undecidable", "honest")
"""How well a reset can be told from its packets alone, by one who knows all that is known.

proven: more than two hops nearer than a peer whose data was seen, or it carries what no other
stack can know or make (our IP ID, several resets that contradict each other, payload, another's
MAC). decidable: its shape is not one that this peer's stack makes, at a distance that says nothing.
late: only by what the peer does afterwards. undecidable: nothing on the wire tells it from an
honest one. honest: made by the owner of the source address (for genuine resets).
"""


@dataclass(frozen=True)
class Case:
    """One thing that happens. `play` makes it happen on a stage and waits until it is over.

    `source` is who makes the resets. In an `honest` case the owner of the source address makes all
    of them; in others, what left the peer's own interface is genuine, and all else is forged.
    `fast`: a part of ``make test``.
    """

    name: str
    source: str
    honest: bool
    play: Callable[[Any], None]
    stage: type[Stage] = Stage
    family: int = V4
    fast: bool = False
    programs: tuple[str, ...] = ()


@dataclass
class Outcome:
    """One reset that reached a victim: the truth and what rsttrace said of it (`entry`).

    `trust`: see `TRUST`; `entry` is None where nothing was said. `first` is the first entry where a
    later one amends it.
    """

    case: str
    source: str
    role: str
    label: str
    trust: str
    entry: Json | None
    first: Json | None = None

    @property
    def verdict(self) -> str:
        """The origin that was told, or "untold"."""
        return "untold" if self.entry is None else str(self.entry["origin"])

    @property
    def accused(self) -> bool:
        """An honest reset that was called forged, at first or at last."""
        told = [entry for entry in (self.first, self.entry) if entry is not None]
        return self.label == "genuine" and any(e["origin"] == "forged" for e in told)

    @property
    def found(self) -> bool:
        """A forged reset that was called forged."""
        return self.label == "forged" and self.verdict == "forged"
