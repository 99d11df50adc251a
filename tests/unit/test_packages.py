"""What packages carry fits what the program asks for."""

from __future__ import annotations

import re
from importlib.metadata import requires
from pathlib import Path

ROOT = Path(__file__).parents[2]


def numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in version.split("."))


def fits(version: str, ranges: str) -> bool:
    """Whether a version is in a range such as ``>=1.2,<2``."""
    found = re.findall(r"(>=|<)\s*([\d.]+)", ranges)
    assert found, ranges
    return all(
        numbers(version) >= numbers(bound) if sign == ">=" else numbers(version) < numbers(bound)
        for sign, bound in found
    )


def test_every_dependency_is_carried_in_a_version_of_its_range() -> None:
    text = (ROOT / "packages" / "vendored.txt").read_text()
    carried = dict(re.findall(r"^([\w-]+)==([\d.]+) --hash=sha256:[0-9a-f]{64}$", text, re.M))
    wanted = {
        re.split(r"[<>=;\[ ]", line)[0].lower(): line.partition(";")[0]
        for line in requires("rsttrace") or []
        if "extra ==" not in line
    }
    assert len(wanted) > 4
    assert wanted.keys() - carried.keys() == set()
    for name, ranges in wanted.items():
        assert fits(carried[name], ranges), f"{name} {carried[name]} is not {ranges}"
    assert carried.keys() - wanted.keys() == {"markupsafe"}  # jinja2 needs it
    assert not fits("2.0", ">=1.2,<2")
    assert not fits("1.1.9", ">=1.2,<2")
