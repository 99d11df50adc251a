"""What the forged resets of a run have in common: the way to the box and to what angers it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from typing import Any

from rsttrace import model
from rsttrace.render import neighbors
from rsttrace.render.escape import safe
from rsttrace.render.payload import quoted

SHARE = 0.8
"""What so many of them have is common to them."""

KEPT = 1000
"""Values of one feature that are told apart; more are too many to be common."""

Features = dict[str, Hashable]

_WORDS = {
    "hops": "{} hops away",
    "neighbor": "handed over by {}",
    "device": "like {}",
    "sent_len": "after {} bytes of ours",
    "answer_len": "after {} bytes of theirs",
    "idle_s": "after {} s of silence",
}


def features(entry: model.Entry) -> Features:
    """What is compared: only what is known, with the names of the JSON summary."""
    reset, verdict = entry.reset, entry.verdict
    neighbor = neighbors.neighbor(reset)
    ours, theirs = reset.baseline.ours, reset.baseline.theirs
    idle = [item.values["idle_s"] for item in verdict.evidence if item.rule == "idle-timeout"]
    known: dict[str, Any] = {
        "hops": verdict.hops_rst,
        "neighbor": neighbor.mac if neighbor else None,
        "device": verdict.device_fingerprint,
        "sent_len": _last_length(ours),
        "answer_len": _last_length(theirs),
        "idle_s": round(idle[0], -1) if idle else None,
    }
    return {name: value for name, value in known.items() if value is not None}


def _last_length(half: model.Half | None) -> int | None:
    """The payload length of the newest packet with data."""
    lengths = [seen.payload_len for seen in (half.recent if half else ()) if seen.payload_len]
    return lengths[0] if lengths else None


class Common:
    """Counts features of forged resets. Memory does not grow with their number."""

    def __init__(self) -> None:
        self.count = 0
        self._counters: dict[str, Counter[Hashable]] = {name: Counter() for name in _WORDS}
        self._prefix: bytes | None = None

    def add(self, found: Features, step: int = 1) -> None:
        """Count one reset's features, or (`step` -1) no longer."""
        self.count += step
        for name, value in found.items():
            counter = self._counters[name]
            if value in counter or len(counter) < KEPT:
                counter[value] += step

    def add_payload(self, data: model.SentData | None) -> None:
        """Take in what was sent before a forged reset."""
        if data is None:
            return
        if self._prefix is None:
            self._prefix = data.payload
        size = 0
        for mine, other in zip(self._prefix, data.payload):
            if mine != other:
                break
            size += 1
        self._prefix = self._prefix[:size]

    def object(self) -> dict[str, Any]:
        """For the JSON summary: each feature's commonest value and how many have it, or null."""
        made: dict[str, Any] = {"count": self.count}
        for name in _WORDS:
            found = self._shared(name)
            made[name] = None if found is None else {"value": found[0], "count": found[1]}
        made["sent_prefix"] = quoted(self._prefix) if self._prefix and self.count > 1 else None
        return made

    def text_line(self) -> str | None:
        """For people; None where nothing is common."""
        words = []
        for name, text in _WORDS.items():
            found = self._shared(name)
            if found is not None:
                value, count = found
                said = text.format(safe(str(value)))
                said = "1 hop away" if said == "1 hops away" else said
                words.append(said if count == self.count else f"{said} ({count})")
        if self._prefix and self.count > 1:
            words.append(f"after data that begins with '{quoted(self._prefix)}'")
        if not words:
            return None
        return f"the {self.count} forged ones have in common: {'; '.join(words)}"

    def _shared(self, name: str) -> tuple[Hashable, int] | None:
        most = self._counters[name].most_common(1)
        if self.count < 2 or not most or most[0][1] < max(2, SHARE * self.count):
            return None
        return most[0]
