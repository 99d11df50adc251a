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
MAC). decidable: its shape or its numbers are not what this peer's stack makes, or it is of the
shape of a host without that socket, in the middle of a connection, and from another distance than
all of the peer's packets. late: only by what the peer does afterwards. undecidable: an honest one
looks the same to that host (for a genuine reset: a forged one); `Play.tell` names the case. honest:
made by the peer's host (for genuine resets).
"""

LABELS = ("genuine", "forged", "box", "indistinguishable")
"""Who made a reset.

genuine: the peer's host. forged: anybody else. box: a NAT box, proxy or balancer that owns or
translates the address in front of the peer: it is not the peer, and no accusation of an honest host
either; "peer" is wrong. indistinguishable: a matter of words (a program of the peer's host that
writes packets of its own, a gateway that owns the address).
"""


@dataclass(frozen=True)
class Case:
    """One thing that happens. `play` makes it happen on a stage and waits until it is over.

    `source` is who makes the resets. In an `honest` case the owner of the source address makes all
    of them; in others, what left the peer's own interface is genuine, and all else is `label`.
    `fast`: a part of ``make test``. `waits`: it spends its time waiting, and touches nothing that
    other cases of its stage use: such cases are played at the same time.
    """

    name: str
    source: str
    honest: bool
    play: Callable[[Any], None]
    stage: type[Stage] = Stage
    family: int = V4
    fast: bool = False
    programs: tuple[str, ...] = ()
    label: str = "forged"
    waits: bool = False


@dataclass
class Outcome:
    """One reset that reached a victim: the truth and what rsttrace said of it (`entry`).

    `label`, `trust`: see `LABELS`, `TRUST`; `entry` is None where nothing was said. `first` is the
    first entry where a later one amends it. `twin`: the case that looks the same.
    """

    case: str
    source: str
    role: str
    label: str
    trust: str
    entry: Json | None
    first: Json | None = None
    twin: str | None = None

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
