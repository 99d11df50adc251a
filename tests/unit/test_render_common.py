"""What forged resets have in common, in the summary."""

from __future__ import annotations

import json
from dataclasses import replace

from rsttrace.model import Origin, SentData
from rsttrace.render.summary import Tally
from tests.unit.test_render_samples import FORGED


def forged(number: int, payload: bytes | None = None, *, hops: int = 1, sent: int = 38) -> object:
    reset = FORGED.reset
    ours = reset.baseline.ours
    assert ours is not None
    recent = (replace(ours.recent[0], payload_len=sent), *ours.recent[1:])
    data = None
    if payload is not None:
        data = SentData(reset.time_ns - 1000, reset.rst, payload)
    return replace(
        FORGED,
        id=number,
        reset=replace(
            reset,
            sent_data=data,
            baseline=replace(reset.baseline, ours=replace(ours, recent=recent)),
        ),
        verdict=replace(FORGED.verdict, hops_rst=hops),
    )


def summary(*entries: object) -> tuple[dict[str, object], str]:
    tally = Tally(clock=None)
    for entry in entries:
        tally.add(entry)  # type: ignore[arg-type]
    made = json.loads(json.dumps(tally.object()))
    return made["totals"]["forged"], "\n".join(tally.text_lines())


def test_one_forged_reset_has_nothing_in_common() -> None:
    made, text = summary(forged(1, b"GET /use"))
    assert made["count"] == 1
    assert made["hops"] is made["sent_prefix"] is None
    assert "in common" not in text


def test_the_hop_the_neighbour_and_the_data_before() -> None:
    made, text = summary(
        *(forged(number, b"GET /use?db=%d" % number) for number in range(1, 5)),
        forged(5, b"GET /use", hops=3, sent=99),
    )
    assert made["hops"] == {"value": 1, "count": 4}
    assert made["neighbor"] == {"value": "00:d0:f8:22:33:44", "count": 5}
    assert made["sent_len"] == {"value": 38, "count": 4}
    assert made["sent_prefix"] == "GET /use"
    assert (
        "the 5 forged ones have in common: 1 hop away (4); handed over by 00:d0:f8:22:33:44; "
        "after 38 bytes of ours (4);"
    ) in text
    assert "after data that begins with 'GET /use'" in text


def test_what_only_some_have_is_not_common() -> None:
    made, _ = summary(*(forged(number, hops=number) for number in range(1, 6)))
    assert made["hops"] is None
    assert made["neighbor"] == {"value": "00:d0:f8:22:33:44", "count": 5}


def test_an_amended_verdict_takes_its_reset_out() -> None:
    first, second = forged(1), forged(2)
    cleared = replace(
        first,  # type: ignore[type-var]
        id=3,
        amends=1,
        verdict=replace(FORGED.verdict, origin=Origin.PEER),
    )
    made, _ = summary(first, second, cleared)
    assert made["count"] == 1


def test_a_hostile_payload_is_escaped() -> None:
    made, text = summary(forged(1, b"\x1b[31mred\n"), forged(2, b"\x1b[31mred\n"))
    assert made["sent_prefix"] == "\\x1b[31mred\\x0a"
    assert "\x1b" not in text
