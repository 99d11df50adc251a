from __future__ import annotations

import ipaddress
import os
import struct
from pathlib import Path

import pytest

from rsttrace.capture.sides import ADDRESSES, Network, Sides
from rsttrace.capture.source import CaptureSource
from tests.unit import captures as c
from tests.unit.captures import RAW, SLL, Talk, write


def net(text: str) -> Network:
    return ipaddress.ip_network(text)


def directions(
    tmp_path: Path, made: bytes, local: tuple[Network, ...] = ()
) -> tuple[list[tuple[str, str]], list[str]]:
    """(kind's direction, our address) of every RST, and what was said about it."""
    with CaptureSource(write(tmp_path / "x", made), local=local) as source:
        found = [(reset.kind.direction, reset.local.ip) for reset in source.resets()]
        return found, source.notes()


def bare(packets: list[bytes]) -> list[bytes]:
    """Without Ethernet."""
    return [data[14:] for data in packets]


def both_ways(talk: Talk) -> list[bytes]:
    """A RST of the peer's, then one of ours."""
    return [*talk.handshake(), talk.reset(), talk.reset("R", side=0)]


def cooked(data: bytes, kind: int) -> bytes:
    return struct.pack(">HHH8sH", kind, 1, 6, b"\2\0\0\0\0\1", 0x0800) + data[14:]


OURS = [("received", c.US), ("sent", c.US)]
MIDDLE = [("received", c.US), ("received", c.PEER)]


def test_ttl(tmp_path: Path) -> None:
    found, notes = directions(tmp_path, c.pcap(both_ways(Talk(hops=17))))
    assert found == OURS
    assert notes == [
        "our side is taken to be 10.0.0.5: its packets have passed no router, its peers' have"
    ]


def test_in_the_middle_every_rst_is_received(tmp_path: Path) -> None:
    talk = Talk(hops=17)
    talk.ttls = (60, 47)
    found, notes = directions(tmp_path, c.pcap(both_ways(talk)))
    assert found == MIDDLE
    assert notes == [
        "2 resets are judged as received, as its receiver sees it: our side cannot be told there"
    ]


def test_on_one_link_only_the_common_end_tells(tmp_path: Path) -> None:
    talk = Talk(hops=0)
    assert directions(tmp_path, c.pcap(both_ways(talk)))[0] == MIDDLE
    others = []
    for number in range(8, 11):
        other = Talk(hops=0, port=number)
        packet = other.segment(0, "S")
        packet.dst = f"198.51.100.{number}"
        others.append(c.ethernet(packet))
    found, notes = directions(tmp_path, c.pcap(others + both_ways(Talk(hops=0))))
    assert found == OURS
    assert notes == ["our side is taken to be 10.0.0.5: it is the common end of most connections"]


def test_marks_of_cooked_captures(tmp_path: Path) -> None:
    """They tell, where TTLs cannot: four means outgoing."""
    talk = Talk(hops=0)
    packets = [cooked(data, kind) for data, kind in zip(both_ways(talk), (4, 0, 4, 0, 4))]
    found, notes = directions(tmp_path, c.pcap(packets, link=SLL))
    assert found == OURS
    assert "marks its packets as outgoing" in notes[0]


def test_a_rst_in_our_name_that_comes_in_was_not_sent(tmp_path: Path) -> None:
    talk = Talk(hops=0)
    packets = [cooked(data, kind) for data, kind in zip(both_ways(talk), (4, 0, 4, 0, 0))]
    assert directions(tmp_path, c.pcap(packets, link=SLL))[0] == MIDDLE


def test_forwarded_packets_are_marked_both_ways_and_tell_nothing(tmp_path: Path) -> None:
    packets = [cooked(data, kind) for data in both_ways(Talk(hops=0)) for kind in (0, 4)]
    found, _ = directions(tmp_path, c.pcap(packets, link=SLL))
    assert {direction for direction, _ in found} == {"received"}


def test_marks_of_pcapng(tmp_path: Path) -> None:
    packets = both_ways(Talk(hops=0))
    made = c.section() + c.interface()
    for data, way in zip(packets, (2, 1, 2, 1, 2)):
        made += c.enhanced(data, direction=way)
    assert directions(tmp_path, made)[0] == OURS


def test_checksums_left_to_the_card(tmp_path: Path) -> None:
    from rsttrace.capture.layers import Dissector
    from rsttrace.tcp import sum16

    packets = bare(both_ways(Talk(hops=0)))
    first = bytearray(packets[0])
    found = Dissector().segment(RAW, bytes(first), len(first))
    assert found is not None
    pseudo = found.source + found.destination + struct.pack(">HH", 6, len(first) - 20)
    first[36:38] = struct.pack(">H", sum16(pseudo))
    shown, notes = directions(tmp_path, c.pcap([bytes(first), *packets[1:]], link=RAW))
    assert shown == OURS
    assert "left to the network card" in notes[0]


@pytest.mark.parametrize(
    ("local", "expected"),
    [
        ("10.0.0.0/8", OURS),
        ("10.0.0.5/32", OURS),
        ("198.51.100.0/24", [("sent", c.PEER), ("received", c.PEER)]),
        ("0.0.0.0/0", MIDDLE),
        ("fd00::/8", MIDDLE),
    ],
)
def test_local_decides_alone(local: str, expected: list[tuple[str, str]], tmp_path: Path) -> None:
    talk = Talk(hops=17)
    found, notes = directions(tmp_path, c.pcap(both_ways(talk)), (net(local),))
    if local.startswith("198"):
        expected = [("sent", c.PEER), ("received", c.PEER)]
    assert found == expected
    assert all("--local" in note for note in notes)


def test_a_rst_in_our_name_from_farther_away_was_not_sent(tmp_path: Path) -> None:
    """A box on the path resets both ends: at a mirror port, one of the two is in our name."""
    talk = Talk(hops=17)
    packets = [*talk.handshake(), talk.reset("R", side=0, ttl=60)]
    for local in ((), (net("10.0.0.0/8"),)):
        assert directions(tmp_path, c.pcap(packets), local)[0] == [("received", c.PEER)]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "sent"),  # another interface of ours
        ({"flags_ip": 0}, "received"),
        ({"ttl": 128}, "received"),
    ],
    ids=["made like ours", "no DF", "another TTL"],
)
def test_a_rst_in_our_name_from_another_mac(
    fields: dict[str, int], expected: str, tmp_path: Path
) -> None:
    talk = Talk(hops=17)
    frames = [*talk.handshake(), talk.frame(0, "PA", b"x"), talk.frame(0, "PA", b"y")]
    made = bytearray(talk.reset("R", side=0, **fields))
    made[6:12] = bytes.fromhex("020000000066")
    found, _ = directions(tmp_path, c.pcap([*frames, bytes(made)]))
    assert [direction for direction, _ in found] == [expected]


def test_what_comes_later_in_a_file_counts_for_its_beginning(tmp_path: Path) -> None:
    """The first RST has no flow; who is ours is known from what follows it."""
    packets = both_ways(Talk(hops=17))
    made = c.pcap([packets[-1], *packets])
    assert directions(tmp_path, made)[0] == [("sent", c.US), *OURS]
    reading, writing = os.pipe()
    try:
        os.write(writing, made)
        os.close(writing)
        with CaptureSource(f"/dev/fd/{reading}") as source:  # a pipe cannot be read twice
            found = [reset.kind.direction for reset in source.resets()]
    finally:
        os.close(reading)
    assert found == ["received", "received", "sent"]


def test_addresses_are_bounded() -> None:
    from rsttrace.capture.layers import Dissector

    sides, talk = Sides(), Talk()
    packet = bytearray(bytes(talk.segment(0, "S")))
    for number in range(ADDRESSES + 100):
        packet[12:16] = struct.pack(">I", number)
        found = Dissector().segment(RAW, bytes(packet), len(packet))
        assert found is not None
        sides.learn(found)
    assert len(sides._addresses) == ADDRESSES
