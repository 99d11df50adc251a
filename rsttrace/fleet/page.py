"""A report's answers as one page of HTML: nothing in it is fetched from anywhere.

Every text is escaped by Jinja2 (autoescape), after `safe` has spelled out what could deceive.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from rsttrace.fleet import text as words
from rsttrace.fleet.report import Answers
from rsttrace.model import Origin
from rsttrace.render.escape import safe
from rsttrace.render.page import page
from rsttrace.render.timeline import Timeline, draw
from rsttrace.render.times import duration

NUMBERS = ("resets", "nodes", "peers", "clients", "before", "now", "seconds", "others")
"""Columns of numbers."""

WIDEST_WAY = 30
"""A way of more routers is not drawn."""


def html(found: Answers, about: Sequence[tuple[str, str]]) -> str:
    """The page. `about` says how it was made."""
    timeline = _timeline(found.timeline, found.bin_s)
    nodes = words.many(found.totals["nodes"], "node")
    return page(
        "fleet.html.j2",
        title=f"TCP resets of {nodes}",
        sentences=_sentences(found),
        drawn=draw(timeline, utc=True),
        bin_width=duration(timeline.width_ns),
        first=words.moment(found.totals["first"]),
        last=words.moment(found.totals["last"]),
        boxes=[_box(box, compared=found.before > 0) for box in found.boxes],
        boxes_left=found.boxes_left,
        tables=[table for table in _tables(found) if table["rows"]],
        numbers=NUMBERS,
        note="" if found.before else words.NOTHING_BEFORE.capitalize() + ".",
        about=[(name, safe(text, 1000)) for name, text in about],
    )


def _sentences(found: Answers) -> list[str]:
    """What happened, what the other ends say, and who did most of it."""
    said = [words.totals_text(found) + ".", words.other_ends_text(found.totals).capitalize() + "."]
    if found.boxes:
        box = found.boxes[0]
        said.append(
            f"Most of the forged ones ({box['resets']:,}) were made by "
            f"{words.maker_text(box) or 'a device'}: {words.place_text(box)}."
        )
    elif not found.totals["forged"]:
        said.append("None of them was forged.")
    return said


def _timeline(rows: Iterable[Mapping[str, Any]], bin_s: int) -> Timeline:
    timeline = Timeline(width_ns=bin_s * 1_000_000_000)
    for row in rows:
        time_ns = int(datetime.fromisoformat(row["at"]).timestamp()) * 1_000_000_000
        for origin in Origin:
            if row[origin.value]:
                timeline.add(time_ns, origin, row[origin.value])
    return timeline


def _box(box: Mapping[str, Any], *, compared: bool) -> dict[str, Any]:
    before = f"{box['before']:,}" if box["before"] else "none: it is new"
    facts = [
        ("nodes", words.listed(box["some_nodes"], box["nodes"])),
        ("peers", f"{box['peers']:,}, in {words.listed(box['prefixes'])}"),
        ("first", words.moment(box["first"])),
        ("last", words.moment(box["last"])),
        ("in the time before", before if compared else ""),
        ("after", words.listed(f'"{each}"' for each in box["triggers"])),
        ("ports", words.listed(box["ports"])),
        ("not in the sender's own log", f"{box['never_sent']:,}" if box["never_sent"] else ""),
    ]
    return {
        "title": f"{words.many(box['resets'], 'reset')} by {words.maker_text(box) or 'a device'}",
        "hit": f"{words.many(box['nodes'], 'node')}, {words.many(box['peers'], 'peer')}",
        "where": words.place_text(box),
        "picture": _picture(box["place"]),
        "facts": [(name, text) for name, text in facts if text],
        "sides": [
            {
                "resets": f"{side['resets']:,}",
                "hops": "?" if side["hops"] is None else side["hops"],
                "handed": words.handed_text(side),
                "nodes": words.listed(side["some_nodes"], side["nodes"]),
                "ip_ids": " or ".join(side["ip_ids"]),
            }
            for side in box["sides"]
        ],
    }


def _picture(place: Mapping[str, Any] | None) -> str:
    """The way between two ends, with the box on it."""
    if place is None or not 0 < place["router"] <= place["of"] <= WIDEST_WAY:
        return ""
    routers = [
        f"[ {number}: THE BOX ]" if number == place["router"] else f"( {number} )"
        for number in range(1, place["of"] + 1)
    ]
    return " -- ".join([safe(place["from"]), *routers, safe(place["to"])])


def _tables(found: Answers) -> Iterable[dict[str, Any]]:
    def table(anchor: str, title: str, head: str, rows: list[tuple[Any, ...]]) -> dict[str, Any]:
        cells = [tuple(_cell(cell) for cell in row) for row in rows]
        return {"anchor": anchor, "title": title, "head": head.split("|"), "rows": cells}

    yield table(
        "causes",
        "Honest causes",
        "resets|direction|whose|cause|closed by|nodes|peers|for example",
        [
            (
                row["resets"], row["direction"], words.owner_text(row), row["cause"],
                row["closed_by"], row["nodes"], row["peers"], row["example"],
            )
            for row in found.causes
        ],
    )  # fmt: skip
    yield table(
        "idle",
        "Who closes idle connections first",
        "resets|who|port|whose|seconds|from|to|others",
        [
            (
                row["resets"], words.address(row["closer"]), str(row["port"]), row["owner"],
                row["typical_s"], str(row["least_s"]), str(row["most_s"]), row["used_by"],
            )
            for row in found.idle
        ],
    )  # fmt: skip
    yield table(
        "overflows",
        "Whose accept queue overflows",
        "resets|whose|port|clients|on",
        [
            (
                row["resets"], words.owner_text(row), str(row["port"]), row["clients"],
                words.listed(row["some_nodes"], row["nodes"]),
            )
            for row in found.overflows
        ],
    )  # fmt: skip
    yield table(
        "un-nated",
        "Who answers un-NATed",
        "resets|address|port|whose|its node|reset by",
        [
            (
                row["resets"], words.address(row["answers"]), str(row["port"]), row["owner"],
                row["its_node"], words.listed(row["some_nodes"], row["nodes"]),
            )
            for row in found.unnatted
        ],
    )  # fmt: skip
    yield table(
        "changes",
        "New, or much more or less than in the same time before",
        "before|now|verdict|cause|maker|whose",
        [
            (
                row["before"], row["now"], row["verdict"], row["cause"], row["author"],
                row["owner"],
            )
            for row in found.changes
        ],
    )  # fmt: skip
    yield table(
        "clocks",
        "Clocks that are apart",
        "node|seconds|others|resets",
        [
            (row["node"], f"{row['ahead_s']:+.1f}", row["others"], row["resets"])
            for row in found.clocks
        ],
    )
    yield table(
        "shared",
        "Addresses that several nodes have: nobody is accused by these",
        "address|nodes",
        [(words.address(row["ip"]), row["nodes"]) for row in found.shared],
    )


def _cell(value: Any) -> str:
    """A table's cell: numbers with commas, texts safe to look at."""
    return f"{value:,}" if isinstance(value, (int, float)) else safe(str(value), 300)
