from __future__ import annotations

import json
from dataclasses import replace

import pytest

from rsttrace.model import AddressHolders, BridgePort, Holder
from rsttrace.render.drawing import WIDTH
from rsttrace.render.holders import holders_lines, holders_object
from rsttrace.render.json import object_line
from tests.unit.test_render_json import VALIDATOR
from tests.unit.test_render_samples import GOLDEN, NODE, check_golden

FIRST, SECOND = "00:d0:f8:22:33:44", "52:54:00:12:34:56"
TWICE = AddressHolders(
    ip="192.168.1.7",
    method="arp",
    netns=NODE,
    ifindex=4,
    ifname="br0",
    sent=3,
    holders=(
        Holder(FIRST, "Ruijie Networks", 3, BridgePort("br0", 4, "eth0", 2)),
        Holder(SECOND, "locally administered (random or virtual)", 1),
    ),
    duration_ns=1_251_000_000,
    seen=(FIRST, SECOND),
)
ONCE = replace(TWICE, holders=TWICE.holders[:1])
NOBODY = replace(TWICE, ip="fd00::7", method="nd", ifname=None, holders=(), sent=1)
CASES = (TWICE, ONCE, NOBODY, replace(TWICE, ip="fd00::7", method="nd", seen=()))
HOSTILE = "evil\x1b[2J\u202etxt.example\n\x07"


def test_golden() -> None:
    pictures = [holders_lines(found, indent="    ") for found in CASES]
    made = "\n\n".join("\n".join(lines) for lines in pictures)
    check_golden(GOLDEN / "render_holders.txt", made + "\n")


@pytest.mark.parametrize("found", CASES)
def test_the_json_fits_the_schema(found: AddressHolders) -> None:
    for entry in (None, 17):
        made = holders_object(found, entry=entry)
        VALIDATOR.validate(made)
        assert made["address"]["confirmed"] is (len(found.holders) == 2)


@pytest.mark.parametrize("plain", [False, True])
def test_no_line_is_too_long_and_none_acts_on_a_terminal(plain: bool) -> None:
    port = BridgePort(HOSTILE * 3, 4, HOSTILE * 3, 2)
    found = replace(
        TWICE,
        ip="2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff",
        ifname=HOSTILE * 9,
        holders=(Holder(FIRST, HOSTILE * 9 + "\u00e9", 1, port), Holder(SECOND, None, 1)),
        seen=(HOSTILE,),
    )
    for line in holders_lines(found, plain=plain, indent="    "):
        assert len(line) <= WIDTH
        assert line.isprintable()
        assert line.isascii() or not plain
    line = object_line(holders_object(found))
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["address"]["macs"][0]["bridge"]["port"] == HOSTILE * 3
