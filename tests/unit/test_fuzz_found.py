"""What `make fuzz` begins with and what it has found is played again."""

from __future__ import annotations

from pathlib import Path

import pytest

from rsttrace.jsonl import decode, read_entry
from tests.fuzz.targets import TARGETS

FOUND = Path(__file__).parents[1] / "fuzz" / "found"


@pytest.mark.parametrize("name", TARGETS)
def test_no_error_comes_out(name: str) -> None:
    target = TARGETS[name]
    seeds = target.seeds()
    assert seeds
    for data in seeds:
        target.run(data)
    for path in sorted((FOUND / name).glob("*")):
        target.run(path.read_bytes())


def test_seeds_are_what_is_read() -> None:
    """Else a fuzzer would look at nothing but refusals."""
    for line in TARGETS["lines"].seeds():
        assert read_entry(decode(line.decode())).entry.reset.rst.flags
    assert len(TARGETS["captures"].seeds()) > 3
