"""From what each victim saw of a forger to the boxes themselves. Pure.

A box is seen from several sides: another distance, another neighbour. Two sides are one box's where
it has reset both ends of the same connections, and where two such pairs stand at the same places.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MANY = 0.9
"""So large a share of a side's packets must do what is called its habit."""

FEW = 3
"""Fewer packets have no habit."""

STEP = 1000
"""A counter of IP IDs goes on by less from one of a box's packets to its next one (of 65,536)."""

LISTED = 5

Sample = tuple[str, int, "int | None", "int | None"]
"""(node, time in nanoseconds, IP ID of the RST, IP ID of the packet that it answers)"""


def ip_id_habit(samples: Iterable[Sample]) -> str:
    """What a maker does with IP IDs, as a clause; empty: unknown (IPv6 has none), or too few."""
    known = [sample for sample in samples if sample[2] is not None]
    if len(known) < FEW:
        return ""
    numbers = [sample[2] for sample in known]
    (most, count), *_ = Counter(numbers).most_common(1)
    if count >= MANY * len(numbers):
        return f"always {most}"
    answering = [(mine, theirs) for _, _, mine, theirs in known if theirs is not None]
    copies = sum(mine in (theirs, theirs + 1) for mine, theirs in answering if mine is not None)
    if len(answering) >= FEW and copies >= MANY * len(answering):
        return "those of the packets that it answers"
    steps = [step for node in {sample[0] for sample in known} for step in _steps(known, node)]
    if len(steps) >= FEW and sum(0 < step < STEP for step in steps) >= MANY * len(steps):
        return "from a counter of its own"
    return "of no pattern"


def _steps(samples: Sequence[Sample], node: str) -> list[int]:
    """From each of a node's packets to its next one; clocks of different nodes are apart."""
    own = sorted((time, number) for who, time, number, _ in samples if who == node)
    numbers = [number for _, number in own if number is not None]
    return [(after - before) % 65536 for before, after in zip(numbers, numbers[1:])]


def prefixes(addresses: Iterable[str]) -> list[str]:
    """The networks (/24, /48) that most of these addresses are in, the most frequent first."""
    counts: Counter[str] = Counter()
    for text in addresses:
        address: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.ip_address(text)
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        size = 24 if address.version == 4 else 48
        counts[str(ipaddress.ip_network((address, size), strict=False))] += 1
    return [name for name, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]


@dataclass(frozen=True)
class _Link:
    """Two sides that have reset the two ends of the same connections."""

    one: int
    other: int
    connections: int
    fits: int
    way: int | None

    @property
    def placed(self) -> bool:
        """Whether both distances together are the whole way."""
        return self.fits >= MANY * self.connections


def boxes(
    sides: Sequence[Mapping[str, Any]], pairs: Iterable[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Boxes, those with most resets first.

    Args:
        sides: rows of boxes.sql.
        pairs: rows of sides.sql.
    """
    by_key = {row["side"]: row for row in sides}
    links = [
        _Link(row["side"], row["other_side"], row["connections"], row["fits"], row["way"])
        for row in pairs
        if row["side"] in by_key and row["other_side"] in by_key
    ]
    leaders = {key: key for key in by_key}

    def leader(key: int) -> int:
        while leaders[key] != key:
            leaders[key] = leaders[leaders[key]]
            key = leaders[key]
        return key

    places: dict[frozenset[tuple[Any, Any]], int] = {}
    for link in links:
        leaders[leader(link.one)] = leader(link.other)
        if link.placed:
            # as far from both ends, and handed over by the same neighbours: the same place
            place = frozenset((by_key[key]["hops"], by_key[key]["mac"]) for key in _both(link))
            leaders[leader(link.one)] = leader(places.setdefault(place, link.one))
    groups: dict[int, list[Mapping[str, Any]]] = {}
    for key, row in by_key.items():
        groups.setdefault(leader(key), []).append(row)
    made = [
        _box(rows, [link for link in links if leader(link.one) == key])
        for key, rows in groups.items()
    ]
    return sorted(made, key=lambda box: (-box["resets"], str(box["first"])))


def _both(link: _Link) -> tuple[int, int]:
    return link.one, link.other


def _box(rows: Sequence[Mapping[str, Any]], links: Sequence[_Link]) -> dict[str, Any]:
    by_key = {row["side"]: row for row in rows}
    return {
        "resets": sum(row["resets"] for row in rows),
        "before": sum(row["before"] for row in rows),
        "never_sent": sum(row["never_sent"] for row in rows),
        "first": min(row["first"] for row in rows),
        "last": max(row["last"] for row in rows),
        "authors": _most((row["author"], row["resets"]) for row in rows),
        "devices": _most((row["device"], row["resets"]) for row in rows),
        "nodes": _count("node", rows),
        "some_nodes": sorted({node for row in rows for node in row["nodes"]})[:LISTED],
        "peers": _count("peer", rows),
        "prefixes": prefixes({peer for row in rows for peer in row["peers"]})[:LISTED],
        "triggers": _most((each, row["resets"]) for row in rows for each in row["triggers"]),
        "ports": _most((each, row["resets"]) for row in rows for each in row["ports"]),
        "place": _place(by_key, links),
        "sides": _sides(rows),
    }


def _sides(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What victims see of it: how far away it is, who hands its packets over, and its habits."""
    found: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        place = tuple(row[name] for name in ("hops", "mac", "vendor", "neighbor"))
        found.setdefault(place, []).append(row)
    made = [
        {
            "hops": hops,
            "mac": mac,
            "vendor": vendor,
            "neighbor": neighbor,
            "resets": sum(row["resets"] for row in seen),
            "nodes": _count("node", seen),
            "some_nodes": sorted({node for row in seen for node in row["nodes"]})[:LISTED],
            "ip_ids": sorted({ip_id_habit(row["ip_ids"]) for row in seen} - {""}),
        }
        for (hops, mac, vendor, neighbor), seen in found.items()
    ]
    return sorted(made, key=lambda side: -side["resets"])


def _place(
    by_key: Mapping[int, Mapping[str, Any]], links: Sequence[_Link]
) -> dict[str, int | str] | None:
    """Which router it is, of how many on the way; ``None``: two ends do not tell."""
    placed = [link for link in links if link.placed and link.way is not None]
    if not placed:
        return None
    best = max(placed, key=lambda link: link.connections)
    one, other = by_key[best.one], by_key[best.other]
    return {
        "router": one["hops"] + 1,
        "of": best.way or 0,
        "from": min(one["nodes"], default=""),
        "to": min(other["nodes"], default=""),
        "connections": best.connections,
    }


def _count(what: str, rows: Sequence[Mapping[str, Any]]) -> int:
    """How many different ones; where a list is cut off, at least so many."""
    listed = {each for row in rows for each in row[f"{what}s"]}
    return max(len(listed), *(int(row[f"{what}_count"]) for row in rows))


def _most(pairs: Iterable[tuple[Any, int]]) -> list[Any]:
    """The different values, those with most resets first, without empty ones."""
    counts: Counter[Any] = Counter()
    for value, count in pairs:
        if value not in ("", None):
            counts[value] += count
    return [value for value, _ in counts.most_common(LISTED)]
