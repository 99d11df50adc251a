"""docs/performance.md, made of what was measured."""

from __future__ import annotations

from tests.bench import document
from tests.bench.load import Load
from tests.bench.packets import Cost

COSTS = [
    Cost(
        "one stream (bytes)",
        1.5e9,
        0.012,
        {"rsttrace": 0.987, "rsttrace --no-baseline": 0.991, "tcpdump with a RST filter": 0.9},
        {"rsttrace": {"in": 211.4, "out": 140.0}, "rsttrace --no-baseline": {"in": 90, "out": 88}},
    )
]
LOADS = [Load("rsttrace", [(100.0, 0.012), (9_800.0, 0.25)])]


def test_everything_measured_is_in_the_document() -> None:
    printed = {"start": "start\n    1.00 x  compiled\n"}
    facts = document.facts(document.machine(), COSTS, LOADS, [(0.0, 26.0)], printed)
    text = document.text(facts)
    assert "| one stream (bytes) | 1,500,000,000 | 0.987 | 0.991 | 0.900 | 0.012 |" in text
    assert "| one stream (bytes) | 211 / 140 | 90 / 88 |" in text
    assert "| rsttrace | 1 % at 100 | 25 % at 9,800 |" in text
    assert "### start\n\n```\nstart\n    1.00 x  compiled\n```\n" in text
    assert facts["machine"]["date"] in text
    assert facts["machine"]["kernel"].startswith("Linux ")
