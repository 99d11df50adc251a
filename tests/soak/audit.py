"""Holds what the tracer told against what tcpdump saw in every namespace."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from scapy.utils import RawPcapReader

from tests.lab.harness import Json, wire

COOKED = {113: (16, 14), 276: (20, 0)}
"""Linux's "cooked" headers, v1 and v2: their length, and where the protocol is in them."""

IPV4, IPV6 = 0x0800, 0x86DD


def seen(path: Path) -> Counter[str]:
    """The RSTs of a dump, by their TCP header without the checksum."""
    found: Counter[str] = Counter()
    with RawPcapReader(str(path)) as packets:
        length, at = COOKED[packets.linktype]
        for data, _ in packets:
            protocol = int.from_bytes(data[at : at + 2], "big")
            ip = data[length:]
            tcp = ip[20:] if protocol == IPV4 else ip[40:]
            size = (tcp[12] >> 4) * 4
            found[(tcp[:16] + tcp[18:size]).hex()] += 1
    return found


def told(entries: list[Json], netns: int) -> dict[str, Counter[str]]:
    """The entries of a namespace, by direction; one that amends is no reset of its own."""
    found: dict[str, Counter[str]] = {
        "sent": Counter(),
        "received": Counter(),
        "forwarded": Counter(),
    }
    for entry in entries:
        if entry.get("netns") == netns and entry["amends"] is None:
            found[entry["direction"]][wire(entry)] += 1
    return found


def differences(entries: list[Json], netns: int, path: Path) -> list[str]:
    """What only one of them has; one that was forwarded is seen twice, coming and going."""
    by_way = told(entries, netns)
    expected = by_way["sent"] + by_way["received"] + by_way["forwarded"] + by_way["forwarded"]
    dumped = seen(path)
    lines = [f"tcpdump only: {key} x {n}" for key, n in (dumped - expected).items()]
    return lines + [f"rsttrace only: {key} x {n}" for key, n in (expected - dumped).items()]
