"""What packages carry fits what the program asks for."""

from __future__ import annotations

import re
from importlib.metadata import requires

from packaging.requirements import Requirement

from packages import VENDORED
from packages.lock import COMPILED
from tests.unit.test_lock import pins


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


OLDEST = {"python_version": "3.9", "python_full_version": "3.9.2"}


def needed_by(*names: str) -> set[str]:
    """All that these need in turn on the oldest Python, as installed here."""
    found: set[str] = set()
    waiting = [(name, "") for name in names]
    while waiting:
        name, extra = waiting.pop()
        for line in requires(name) or []:
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({**OLDEST, "extra": extra}):
                if needed.name not in found:
                    waiting += [(needed.name, more) for more in ("", *needed.extras)]
                found.add(needed.name)
    return {name.lower().replace("_", "-") for name in found}


def test_every_dependency_is_carried_in_a_version_of_its_range() -> None:
    carried = pins(VENDORED.read_text(encoding="utf-8"), "3.9")
    wanted = {
        re.split(r"[<>=;\[ ]", line)[0].lower(): line.partition(";")[0]
        for line in requires("rsttrace") or []
        if "extra ==" not in line or "extra == 'top'" in line.replace('"', "'")
    }
    for name in COMPILED:  # render/json.py does without
        del wanted[name]
    assert len(wanted) > 4
    assert wanted.keys() - carried.keys() == set()
    for name, ranges in wanted.items():
        assert fits(carried[name], ranges), f"{name} {carried[name]} is not {ranges}"
    older = {"uc-micro-py"}  # that linkify-it-py needs which runs on Python 3.9
    assert carried.keys() - wanted.keys() - older == needed_by("jinja2", "textual") - wanted.keys()
    assert not fits("2.0", ">=1.2,<2")
    assert not fits("1.1.9", ">=1.2,<2")
