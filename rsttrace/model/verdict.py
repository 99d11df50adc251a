"""Who made a reset, how sure, and why: what the judge says and the renderers write."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any

from rsttrace.model.reset import Reset


class Origin(enum.Enum):
    """Who made the RST. ``forged`` says nothing about intent."""

    LOCAL = "local"
    PEER = "peer"
    FORGED = "forged"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class Evidence:
    """One rule's finding.

    `weight` is the log-odds it adds for "forged" (natural logarithm; negative speaks for the
    peer; 0: looked at, says nothing). `proof` decides alone. `values` are the numbers compared.
    """

    rule: str
    weight: float
    text: str
    values: dict[str, Any] = field(default_factory=dict)
    proof: bool = False


@dataclass(frozen=True)
class Verdict:
    """Who made a reset, how sure, and why.

    `confidence` is the probability given to `origin` (``None`` when inconclusive); `score` the sum
    of the weights. `considered` holds every rule that was looked at, `evidence` those that spoke.
    `hops_rst` and `hops_peer` are router hops implied by the TTLs.
    """

    origin: Origin
    confidence: float | None
    score: float
    evidence: tuple[Evidence, ...] = ()
    considered: tuple[Evidence, ...] = ()
    hops_rst: int | None = None
    hops_peer: int | None = None
    findings: tuple[str, ...] = ()
    device_name: str | None = None
    device_fingerprint: str | None = None
    summary: str = ""


@dataclass(frozen=True)
class Entry:
    """One line of output: a reset with its verdict. `id` counts a run's entries from 1."""

    id: int
    reset: Reset
    verdict: Verdict
    amends: int | None = None
