"""From the sides of a forger to the boxes: pure, no store."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from rsttrace.fleet.boxes import boxes, ip_id_habit, prefixes

NOON = datetime(2026, 9, 21, 12, tzinfo=timezone.utc)


def side(key: int, hops: int | None, mac: str, *nodes: str, **values: Any) -> dict[str, Any]:
    """A row of boxes.sql."""
    return {
        "side": key, "author": "injector", "device": "", "hops": hops, "mac": mac, "vendor": "",
        "neighbor": "", "resets": 10, "before": 0, "nodes": list(nodes), "node_count": len(nodes),
        "peers": ["::ffff:10.0.0.9"], "peer_count": 1, "never_sent": 0, "first": NOON, "last": NOON,
        "triggers": ["PA, data"], "ports": [443], "ip_ids": [], **values,
    }  # fmt: skip


def link(one: int, other: int, fits: int = 5, way: int = 4, connections: int = 5) -> dict[str, Any]:
    """A row of sides.sql."""
    return {
        "side": one,
        "other_side": other,
        "connections": connections,
        "fits": fits,
        "way": way,
    }


def test_both_ends_of_a_connection_make_one_box_and_place_it() -> None:
    earlier = NOON - timedelta(hours=1)
    (box,) = boxes(
        [side(1, 1, "m1", "a1", "a2"), side(2, 2, "m2", "b1", first=earlier)], [link(1, 2)]
    )
    assert box["resets"] == 20
    assert box["nodes"] == 3
    assert box["first"] == earlier
    place = box["place"]
    assert (place["router"], place["of"], place["from"], place["to"]) == (2, 4, "a1", "b1")
    assert {(seen["hops"], seen["mac"]) for seen in box["sides"]} == {(1, "m1"), (2, "m2")}


def test_what_no_connection_joins_stays_apart() -> None:
    found = boxes([side(1, 1, "m1", "a1"), side(2, 2, "m2", "b1", resets=30)], [])
    assert [box["resets"] for box in found] == [30, 10]
    assert [box["place"] for box in found] == [None, None]


def test_the_same_place_from_both_ends_is_one_box_whatever_it_sends() -> None:
    rows = [
        side(1, 1, "m1", "a1"),
        side(2, 2, "m2", "b1"),
        side(3, 1, "m1", "a2", author="mirror"),
        side(4, 2, "m2", "b2", author="mirror"),
    ]
    (box,) = boxes(rows, [link(1, 2), link(4, 3)])
    assert box["authors"] == ["injector", "mirror"]
    assert len(box["sides"]) == 2


def test_one_common_side_is_no_common_place() -> None:
    """Two boxes behind one gateway, as far from the victims, on the ways to different peers."""
    rows = [
        side(1, 1, "m1", "a1"),
        side(2, 2, "m2", "b1"),
        side(3, 1, "m1", "a1", author="mirror"),
        side(4, 2, "m3", "c1", author="mirror"),
    ]
    assert len(boxes(rows, [link(1, 2), link(3, 4)])) == 2


def test_a_ttl_that_was_taken_over_tells_no_place() -> None:
    (box,) = boxes([side(1, 3, "m1", "a1"), side(2, 4, "m2", "b1")], [link(1, 2, fits=0)])
    assert box["place"] is None


@pytest.mark.parametrize(
    ("samples", "habit"),
    [
        ([("a", n, 54321, 7 * n) for n in range(9)], "always 54321"),
        ([("a", n, 7 * n + 40, 7 * n + 40) for n in range(9)], "packets that it answers"),
        ([("a", n, (65_500 + 9 * n) % 65536, None) for n in range(9)], "a counter of its own"),
        # two nodes whose clocks are apart: each one's packets are in order, all of them are not
        (
            [("a", n, 2 * n + 1, None) for n in range(9)]
            + [("b", n + 500, 2 * n, None) for n in range(9)],
            "a counter of its own",
        ),
        ([("a", n, (n * 40_503) % 65536, None) for n in range(9)], "no pattern"),
        ([("a", 1, 1, 1), ("a", 2, 2, 2)], ""),
        ([("a", n, None, None) for n in range(9)], ""),
    ],
)
def test_what_a_maker_does_with_ip_ids(samples: list[Any], habit: str) -> None:
    found = ip_id_habit(samples)
    assert found.endswith(habit) if habit else found == ""


def test_networks_of_addresses() -> None:
    found = prefixes(["::ffff:10.1.2.3", "::ffff:10.1.2.9", "::ffff:10.9.9.9", "fd00:1:2:3::4"])
    assert found == ["10.1.2.0/24", "10.9.9.0/24", "fd00:1:2::/48"]
