"""All live cases."""

from __future__ import annotations

from tests.accuracy import distance, forged, honest, link, own, poison, wire
from tests.accuracy.case import Case


def all_cases() -> list[Case]:
    """Every live case."""
    modules = (forged, honest, distance, wire, poison, link, own)
    return [case for module in modules for case in module.cases()]
