"""All live cases."""

from __future__ import annotations

from tests.accuracy import distance, forged, honest, wire
from tests.accuracy.case import Case


def all_cases() -> list[Case]:
    """Every live case."""
    return [*forged.cases(), *honest.cases(), *distance.cases(), *wire.cases()]
