"""Two captures of the same connections, made packet by packet: what is said, and what is not."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6

from rsttrace.compare.clocks import Tick, measure
from rsttrace.compare.files import compare_files
from rsttrace.compare.position import ForgedReset, position_of
from rsttrace.compare.result import Result
from rsttrace.errors import CaptureError
from rsttrace.model import ComparedReset, Fate, Point
from tests.unit import captures
from tests.unit.twopoints import CLIENT, MS, SECOND, SERVER, START_NS, Talk, World, address

FAMILIES = pytest.mark.parametrize("family", [4, 6])


def run(world: World, folder: Path) -> Result:
    return compare_files(dict(zip(Point, world.write(folder))))


def resets(result: Result, point: Point = Point.A, received: bool = True) -> list[ComparedReset]:
    return [
        reset
        for flow in result.comparison.flows
        for reset in flow.resets
        if reset.point is point and reset.received is received
    ]


def fates(result: Result, point: Point = Point.A) -> list[Fate]:
    return [reset.other.fate for reset in resets(result, point)]


def all_fates(result: Result) -> set[Fate]:
    return {reset.other.fate for flow in result.comparison.flows for reset in flow.resets}


# ---- proof ----


@FAMILIES
def test_a_reset_that_the_other_end_never_sent(family: int, tmp_path: Path) -> None:
    world = World(family=family)
    talk = Talk(world).open()
    talk.send(CLIENT, "PA", b"GET /x", lost=True)
    talk.forge(CLIENT, hops=1)
    talk.wait()
    Talk(world, 50000).open()
    (reset,) = resets(run(world, tmp_path))
    assert reset.other.fate is Fate.NEVER_SENT
    assert reset.other.trigger_arrived is False
    assert reset.position is not None
    assert (reset.position.from_a, reset.position.from_b, reset.position.total) == (1, 4, 6)


@FAMILIES
def test_one_that_it_sent(family: int, tmp_path: Path) -> None:
    world = World(family=family)
    Talk(world).open().honest(SERVER)
    result = run(world, tmp_path)
    (reset,) = resets(result)
    assert (reset.other.fate, reset.other.at_sender) == (Fate.LEFT, True)
    (sent,) = resets(result, Point.B, received=False)
    assert sent.other.fate is Fate.ARRIVED


def test_one_that_it_sent_and_that_was_lost(tmp_path: Path) -> None:
    world = World()
    Talk(world).open().send(SERVER, "RA", lost=True)
    Talk(world, 50000).open()
    (sent,) = resets(run(world, tmp_path), Point.B, received=False)
    assert sent.other.fate is Fate.NEVER_ARRIVED


# ---- the same reset, or another one? ----


@FAMILIES
def test_a_forged_one_before_an_honest_one_with_the_same_numbers(
    family: int, tmp_path: Path
) -> None:
    """It came before the server's can have left: only that one is the server's."""
    world = World(family=family)
    talk = Talk(world).open()
    talk.forge(CLIENT, hops=6, ip_id=0)
    talk.wait(13 * MS)  # more than the round trip
    talk.honest(SERVER, "R", ip_id=0, window=0)
    result = run(world, tmp_path)
    assert fates(result) == [Fate.NEVER_SENT, Fate.LEFT]


def test_two_that_cannot_be_told_apart_accuse_nobody(tmp_path: Path) -> None:
    """The client got two equal ones, the server sent one, and either may be it."""
    world = World(family=6)
    talk = Talk(world).open()
    talk.send(SERVER, "R", window=0)
    talk.forge(CLIENT, hops=6, after_ns=world.delay_ns)
    talk.wait()
    Talk(world, 50000).open()
    assert sorted(fates(run(world, tmp_path)), key=str) == [Fate.LEFT, Fate.UNKNOWN]


def test_an_equal_one_by_another_way_accuses_nobody(tmp_path: Path) -> None:
    """Routers may send a RST another way than its connection: by its IPv6 flow label, for one."""
    world = World(family=6)
    talk = Talk(world).open()
    talk.send(SERVER, "R", window=0, lost=True)
    talk.forge(CLIENT, hops=1, after_ns=world.delay_ns)
    talk.wait()
    Talk(world, 50000).open()
    assert fates(run(world, tmp_path)) == [Fate.UNKNOWN]


def test_the_servers_own_ip_id_is_proof_enough(tmp_path: Path) -> None:
    world = World()
    talk = Talk(world).open()
    talk.send(SERVER, "RA", lost=True)
    talk.forge(CLIENT, "RA", hops=1, after_ns=4 * MS, ip_id=talk.ids[SERVER], window=500)
    talk.wait()
    Talk(world, 50000).open()
    assert fates(run(world, tmp_path)) == [Fate.LEFT]


@FAMILIES
def test_an_equal_one_from_another_distance_while_the_servers_arrived(
    family: int, tmp_path: Path
) -> None:
    world = World(family=family)
    talk = Talk(world).open()
    talk.send(SERVER, "R", window=0, ip_id=0)
    talk.forge(CLIENT, hops=1, after_ns=world.delay_ns, ip_id=0)
    talk.wait()
    Talk(world, 50000).open()
    assert sorted(fates(run(world, tmp_path)), key=str) == [Fate.LEFT, Fate.NEVER_SENT]


def test_one_that_was_altered_on_its_way_accuses_nobody(tmp_path: Path) -> None:
    """The server's RST with ACK became one without, from the server's distance."""
    world = World()
    talk = Talk(world).open()
    talk.send(SERVER, "RA", lost=True)
    talk.forge(CLIENT, hops=6, after_ns=world.delay_ns)
    talk.wait()
    Talk(world, 50000).open()
    (reset,) = resets(run(world, tmp_path))
    assert reset.other.fate is Fate.UNKNOWN
    assert "altered" in reset.other.why


def test_repeated_honest_ones_are_all_the_servers(tmp_path: Path) -> None:
    """A closed port answers each packet with the same RST."""
    world = World()
    talk = Talk(world).open()
    for _ in range(3):
        talk.honest(SERVER, "R", ip_id=0, window=0)
    result = run(world, tmp_path)
    assert fates(result) == [Fate.LEFT] * 3


# ---- where the other capture may have missed it ----


def never(world: World, folder: Path) -> str:
    """Why the one RST that came in at A is unknown."""
    (reset,) = resets(run(world, folder))
    assert reset.other.fate is Fate.UNKNOWN
    return reset.other.why


def test_it_ends_before(tmp_path: Path) -> None:
    world = World()
    talk = Talk(world).open()
    talk.forge(CLIENT, hops=1)
    assert "ends before" in never(world, tmp_path)


def test_it_begins_after(tmp_path: Path) -> None:
    world = World()
    talk = Talk(world).open()
    talk.forge(CLIENT, hops=1)
    talk.wait()
    world.seen[1].clear()
    talk.send(SERVER, "PA", b"more")
    talk.send(CLIENT, "PA", b"more")
    talk.wait()
    Talk(world, 50000).open()
    assert "begins only after" in never(world, tmp_path)


def test_it_lacks_other_packets(tmp_path: Path) -> None:
    world = World()
    talk = Talk(world).open()
    talk.send(SERVER, "PA", b"not in B's capture", unseen=SERVER)
    talk.forge(CLIENT, hops=1)
    talk.wait()
    Talk(world, 50000).open()
    assert "lacks other packets" in never(world, tmp_path)


def test_it_shows_one_direction_only(tmp_path: Path) -> None:
    world = World()
    for port in (51234, 50000):
        talk = Talk(world, port)
        for side, flags in ((CLIENT, "S"), (SERVER, "SA"), (CLIENT, "A"), (CLIENT, "PA")):
            missed = SERVER if side == SERVER else None
            talk.send(side, flags, b"x" if flags == "PA" else b"", unseen=missed)
            talk.wait()
        if port == 51234:
            talk.forge(CLIENT, hops=1)
            talk.wait()
    result = run(world, tmp_path)
    assert all_fates(result) == {Fate.UNKNOWN}
    clocks = result.comparison.clocks
    assert clocks is not None
    assert (clocks.offset, clocks.lower) == (None, None)
    assert clocks.upper == world.offset_ns + world.delay_ns


def test_it_shows_another_connection_only(tmp_path: Path) -> None:
    """Nothing of this one: it may lead elsewhere (another host behind the same address)."""
    world = World()
    Talk(world, 50000, isn=(1, 2)).open()
    lonely = Talk(world)
    lonely.send(CLIENT, "S", lost=True)
    lonely.forge(CLIENT, "RA", hops=1)
    world.now += 20 * MS
    Talk(world, 50001, isn=(3, 4)).open()
    result = run(world, tmp_path)
    assert all_fates(result) == {Fate.UNKNOWN}
    assert result.comparison.matched == {"addresses": 2, "one-sided": 1}


def test_injected_data_beside_the_reset_is_no_hole(tmp_path: Path) -> None:
    """A page that a box sends before its RST, from the box's distance."""
    world = World()
    talk = Talk(world).open()
    talk.send(CLIENT, "PA", b"GET /x", lost=True)
    page = talk.packet(SERVER, 0, "PA", b"blocked", ttl=63, ip_id=4)
    world.see(0, world.now, page)
    talk.forge(CLIENT, hops=1, seq=talk.numbers[SERVER] + 7 & 0xFFFFFFFF)
    talk.wait()
    Talk(world, 50000).open()
    result = run(world, tmp_path)
    assert fates(result) == [Fate.NEVER_SENT]
    assert result.comparison.ba is not None
    assert result.comparison.ba.injected == 1


def test_a_clock_that_was_set(tmp_path: Path) -> None:
    world = World()
    Talk(world, 50000).open()
    world.offset_ns -= 10 * SECOND
    talk = Talk(world).open()
    talk.forge(CLIENT, hops=1)
    talk.wait()
    Talk(world, 50001).open()
    result = run(world, tmp_path)
    assert Fate.NEVER_SENT not in all_fates(result)
    assert result.comparison.clocks is not None
    assert result.comparison.clocks.steady is False


# ---- until when it was watching ----


def early(world: World) -> Talk:
    """A connection whose forged RST comes after all that B's capture shows."""
    talk = Talk(world).open()
    talk.send(CLIENT, "PA", b"GET /x", lost=True)
    talk.forge(CLIENT, hops=1)
    talk.wait()
    return talk


def ticks(world: World, point: int, later_ns: int = 0) -> int:
    """What a point's clock shows at the end, or so much later."""
    return world.clock(point, world.now + later_ns)


@FAMILIES
def test_its_own_statistics_tell(family: int, tmp_path: Path) -> None:
    world = World(family=family)
    early(world)
    end = captures.statistics(end=ticks(world, 1, SECOND), counts={4: 7, 5: 0})
    result = compare_files(dict(zip(Point, world.write_ng(tmp_path, b"", end))))
    assert fates(result) == [Fate.NEVER_SENT]
    assert result.comparison.b.until_ns == ticks(world, 1, SECOND)


@pytest.mark.parametrize(
    ("end", "why"),
    [
        ({"end": -30 * MS}, "ends before"),
        ({"end": SECOND, "counts": {5: 1}}, "1 packet was lost"),
        ({"end": SECOND, "counts": {7: 12}}, "12 packets were lost"),
        ({"end": SECOND, "counts": {8: 100}}, "ends before"),
    ],
    ids=["too-early", "dropped", "os-dropped", "cut-by-a-tool"],
)
def test_its_own_statistics_do_not_say_enough(
    end: dict[str, Any], why: str, tmp_path: Path
) -> None:
    world = World()
    early(world)
    block = captures.statistics(**{**end, "end": ticks(world, 1, end["end"])})
    result = compare_files(dict(zip(Point, world.write_ng(tmp_path, b"", block))))
    (reset,) = resets(result)
    assert reset.other.fate is Fate.UNKNOWN
    assert why in reset.other.why


def test_another_interfaces_end_is_not_this_ones(tmp_path: Path) -> None:
    world = World()
    early(world)
    end = captures.interface(link=captures.RAW, resolution=9)
    end += captures.statistics(end=ticks(world, 1, SECOND), number=1)
    stray = bytes(Talk(world, 50000).packet(CLIENT, 1, "PA", b"x"))
    end += captures.enhanced(stray, ticks=ticks(world, 1, SECOND), number=1)
    result = compare_files(dict(zip(Point, world.write_ng(tmp_path, b"", end))))
    assert fates(result) == [Fate.UNKNOWN]


def test_any_later_packet_tells_whatever_it_is(tmp_path: Path) -> None:
    world = World()
    early(world)
    names = IP(src="10.0.0.7", dst="10.0.0.53") / UDP(sport=999, dport=53) / b"a question"
    world.see(1, world.now + 20 * MS, names)
    assert fates(run(world, tmp_path)) == [Fate.NEVER_SENT]


@pytest.mark.parametrize("later", [True, False])
def test_the_user_tells(later: bool, tmp_path: Path) -> None:
    world = World()
    early(world)
    files = dict(zip(Point, world.write(tmp_path)))
    moment = ticks(world, 1, SECOND if later else -30 * MS)
    result = compare_files(files, until={Point.B: lambda last_ns: moment})
    assert fates(result) == [Fate.NEVER_SENT if later else Fate.UNKNOWN]


def test_the_user_is_told_what_cannot_be(tmp_path: Path) -> None:
    world = World()
    early(world)
    files = dict(zip(Point, world.write(tmp_path)))
    result = compare_files(files, until={Point.B: lambda last_ns: last_ns - SECOND})
    assert any("--until-b is before the last packet" in note for note in result.comparison.notes)


def test_a_capture_of_syns_alone_accuses_nobody(tmp_path: Path) -> None:
    """B's filter let nothing else through, so the server's own RST is not there."""
    world = World()
    for port in range(50000, 50004):
        talk = Talk(world, port, isn=(port * 7, port * 11))
        talk.send(CLIENT, "S")
        talk.wait()
        talk.send(SERVER, "SA")
        talk.wait()
        talk.send(CLIENT, "A", unseen=1)
        talk.send(SERVER, "RA", unseen=1)
        talk.wait()
    assert all_fates(run(world, tmp_path)) == {Fate.UNKNOWN}


# ---- finding the connection ----


@FAMILIES
def test_nat(family: int, tmp_path: Path) -> None:
    world = World(family=family, nat=True)
    talk = Talk(world).open()
    talk.forge(CLIENT, hops=2)
    talk.wait()
    Talk(world, 50000, isn=(5, 6)).open().honest(SERVER)
    result = run(world, tmp_path)
    assert result.comparison.matched == {"initial-sequence-numbers": 2}
    assert fates(result) == [Fate.NEVER_SENT, Fate.LEFT]


def test_nat_without_the_handshake(tmp_path: Path) -> None:
    """Both captures begin later: the numbers of the data are the same."""
    world = World(nat=True)
    talk = Talk(world).open()
    for rows in world.seen:
        rows.clear()
    for side in (CLIENT, SERVER, CLIENT, SERVER):
        talk.send(side, "PA", b"some more")
        talk.wait()
    talk.forge(CLIENT, hops=2)
    talk.wait()
    talk.send(SERVER, "PA", b"after it")
    result = run(world, tmp_path)
    assert result.comparison.matched == {"sequence-numbers": 1}
    assert fates(result) == [Fate.NEVER_SENT]


def test_two_that_could_be_it(tmp_path: Path) -> None:
    """NAT, and two connections with the same numbers (as after a replay)."""
    world = World(nat=True)
    talk = Talk(world).open()
    talk.forge(CLIENT, hops=2)
    talk.wait()
    world.seen[1].extend(
        (time_ns + SECOND, bytes(_with_port(data, 60000))) for time_ns, data in world.seen[1][:]
    )
    result = run(world, tmp_path)
    assert result.comparison.matched.get("ambiguous") == 1
    assert all_fates(result) == {Fate.UNKNOWN}


def _with_port(data: bytes, port: int) -> bytes:
    """An IPv4 packet with the client's port changed."""
    raw = bytearray(data)
    at = 20 if int.from_bytes(raw[22:24], "big") == 443 else 22
    raw[at : at + 2] = port.to_bytes(2, "big")
    return bytes(raw)


def test_the_same_ports_again(tmp_path: Path) -> None:
    """Two connections one after the other with the same addresses and ports."""
    world = World()
    Talk(world).open().honest(SERVER)
    second = Talk(world, isn=(77, 88)).open()
    second.forge(CLIENT, hops=1)
    second.wait()
    second.send(SERVER, "PA", b"it goes on")
    result = run(world, tmp_path)
    assert result.comparison.matched == {"addresses": 2}
    assert fates(result) == [Fate.LEFT, Fate.NEVER_SENT]


def renumbered(world: World, *, by: tuple[int, int], stamp: int = 0) -> None:
    """B's packets get other sequence numbers: more by so much, the client's and the server's."""
    rows = world.seen[1]
    for at, (time_ns, data) in enumerate(rows):
        packet = IP(data) if world.family == 4 else IPv6(data)
        tcp = packet[TCP]
        way = int(tcp.sport == 443)
        tcp.seq = tcp.seq + by[way] & 0xFFFFFFFF
        if "A" in tcp.flags:
            tcp.ack = tcp.ack + by[1 - way] & 0xFFFFFFFF
        if stamp:
            tcp.options = [
                (name, (value[0] + stamp, value[1]) if name == "Timestamp" else value)
                for name, value in tcp.options
            ]
        rows[at] = (time_ns, bytes(packet))


@FAMILIES
@pytest.mark.parametrize("nat", [False, True], ids=["same", "nat"])
def test_a_firewall_that_renumbers(nat: bool, family: int, tmp_path: Path) -> None:
    """The SYN's timestamps say that it is one connection: the rest follows with a fixed shift."""
    world = World(family=family, nat=nat)
    talk = Talk(world).open()
    talk.forge(CLIENT, hops=1)
    talk.wait()
    talk.honest(SERVER)
    renumbered(world, by=(12345, -99999))
    result = run(world, tmp_path)
    assert result.comparison.matched == {"shifted-numbers": 1}
    assert result.comparison.ab is not None
    assert (result.comparison.ab.lost, result.comparison.ab.injected) == (0, 0)
    assert fates(result) == [Fate.NEVER_SENT, Fate.LEFT]


@FAMILIES
def test_a_proxy_is_no_firewall_that_renumbers(family: int, tmp_path: Path) -> None:
    """Its own SYN has timestamps of its own."""
    world = World(family=family)
    talk = Talk(world).open()
    talk.forge(CLIENT, hops=1)
    renumbered(world, by=(12345, -99999), stamp=777)
    result = run(world, tmp_path)
    assert result.comparison.matched == {"renumbered": 1, "one-sided": 1}
    assert all_fates(result) == {Fate.UNKNOWN}
    (reset,) = (item for flow in result.comparison.flows for item in flow.resets)
    assert "proxy" in reset.other.why


def test_ports_used_again_in_a_connection_that_lives(tmp_path: Path) -> None:
    """The client lost its connection; B's capture did not see the RST that ended it there."""
    world = World()
    Talk(world).open()
    world.see(0, world.now, Talk(world).packet(CLIENT, 0, "R", ttl=64, seq=1_000_011, window=0))
    second = Talk(world, isn=(77, 88)).open()
    second.forge(CLIENT, hops=1)
    second.wait()
    second.send(SERVER, "PA", b"it goes on")
    result = run(world, tmp_path)
    assert result.comparison.matched == {"addresses": 2}
    assert fates(result) == [Fate.NEVER_SENT]


def test_a_blind_syn_at_one_point_changes_nothing(tmp_path: Path) -> None:
    world = World()
    talk = Talk(world).open()
    world.see(1, world.now, talk.packet(CLIENT, 1, "S", seq=5, ttl=33))
    talk.wait()
    talk.forge(CLIENT, hops=1)
    talk.wait()
    talk.honest(SERVER)
    result = run(world, tmp_path)
    assert result.comparison.matched == {"addresses": 1}
    assert fates(result) == [Fate.NEVER_SENT, Fate.LEFT]


def test_a_forged_syn_ack_before_the_servers(tmp_path: Path) -> None:
    """Two initial sequence numbers of one side at A: one of them is the server's."""
    world = World(nat=True)
    talk = Talk(world)
    talk.send(CLIENT, "S")
    world.see(0, world.now, talk.packet(SERVER, 0, "SA", seq=4711, ttl=63))
    talk.wait()
    talk.send(SERVER, "SA")
    talk.wait()
    talk.send(CLIENT, "A")
    talk.wait()
    talk.honest(SERVER)
    result = run(world, tmp_path)
    assert result.comparison.matched == {"initial-sequence-numbers": 1}
    assert fates(result) == [Fate.LEFT]


@FAMILIES
def test_syns_sent_again(family: int, tmp_path: Path) -> None:
    world = World(family=family, nat=True)
    talk = Talk(world)
    talk.send(CLIENT, "S", lost=True)
    talk.numbers[CLIENT] -= 1
    talk.wait(1000 * MS)
    talk.open()
    talk.honest(SERVER)
    result = run(world, tmp_path)
    assert result.comparison.matched == {"initial-sequence-numbers": 1}
    assert fates(result) == [Fate.LEFT]


@FAMILIES
def test_the_files_in_the_other_order_say_the_same(family: int, tmp_path: Path) -> None:
    world = World(family=family, service=True)
    talk = Talk(world).open()
    talk.send(SERVER, "PA", b"escapes", escaped=True)
    talk.wait()
    talk.send(CLIENT, "R", window=0, ip_id=0, view=1)
    talk.wait()
    other = Talk(world, 50000, isn=(5, 6)).open()
    other.forge(CLIENT, hops=1)
    other.wait()
    other.honest(SERVER)
    names = world.write(tmp_path)
    there, back = (
        compare_files(dict(zip(Point, order))) for order in (names, (names[1], names[0]))
    )
    assert {(point.other, frame): other.fate for (point, frame), other in there.resets.items()} == {
        key: other.fate for key, other in back.resets.items()
    }
    assert there.comparison.matched == back.comparison.matched
    (one,), (two,) = (
        [escape for flow in result.comparison.flows for escape in flow.escapes]
        for result in (there, back)
    )
    assert (one.point.other, one.frame, one.text) == (two.point, two.frame, two.text)


# ---- packets that escaped NAT ----


@FAMILIES
def test_an_answer_that_was_not_translated_back(family: int, tmp_path: Path) -> None:
    """The client's kernel knows no such connection and resets the server's."""
    world = World(family=family, service=True)
    talk = Talk(world).open()
    talk.send(SERVER, "PA", b"escapes", escaped=True)
    talk.wait()
    talk.send(CLIENT, "R", window=0, ip_id=0, view=1)
    talk.wait()
    Talk(world, 50000, isn=(5, 6)).open().honest(SERVER)
    result = run(world, tmp_path)
    assert result.comparison.matched == {"initial-sequence-numbers": 2, "escaped": 1}
    assert all_fates(result) == {Fate.LEFT, Fate.ARRIVED}
    assert result.comparison.ba is not None
    assert (result.comparison.ba.lost, result.comparison.ba.injected) == (0, 0)
    (escape,) = (item for flow in result.comparison.flows for item in flow.escapes)
    own, service = address("server", family), address("service", family)
    assert (escape.point, escape.packets, escape.frame, escape.other_frame) == (Point.A, 1, 8, 8)
    assert (escape.src.ip, escape.wanted_src.ip, escape.reset_frame) == (own, service, 9)
    assert f"its answer came from {escape.src} instead of {escape.wanted_src}" in escape.text
    assert escape.text.endswith("it was not translated back")
    told = {key for key, other in result.resets.items() if other.escaped}
    assert told == {(Point.A, 9), (Point.B, 9)}


@FAMILIES
@pytest.mark.parametrize("flags", ["PA", "FA", "A"])
def test_a_packet_that_left_untranslated(flags: str, family: int, tmp_path: Path) -> None:
    world = World(family=family, nat=True)
    talk = Talk(world).open()
    talk.send(CLIENT, flags, b"escapes" if flags == "PA" else b"", escaped=True)
    talk.wait()
    talk.send(SERVER, "R", window=0, ip_id=0, view=0)
    talk.wait()
    talk.send(CLIENT, "PA", b"goes on")
    result = run(world, tmp_path)
    assert result.comparison.matched == {"initial-sequence-numbers": 1, "escaped": 1}
    (escape,) = (item for flow in result.comparison.flows for item in flow.escapes)
    assert (escape.point, escape.src.port, escape.wanted_src.port) == (Point.B, 51234, 51241)
    assert escape.text.startswith("the client's packet came from ")
    assert escape.text.endswith("it was not translated")
    assert {other.fate for other in result.resets.values()} == {Fate.LEFT, Fate.ARRIVED}


def test_a_syn_ack_that_was_not_translated_back(tmp_path: Path) -> None:
    world = World(service=True)
    talk = Talk(world)
    talk.send(CLIENT, "S")
    talk.wait()
    talk.send(SERVER, "SA", escaped=True)
    talk.wait()
    talk.send(CLIENT, "R", window=0, ip_id=0, view=1)
    talk.wait()
    Talk(world, 50000, isn=(5, 6)).open()
    result = run(world, tmp_path)
    assert result.comparison.matched == {"initial-sequence-numbers": 2, "escaped": 1}
    (escape,) = (item for flow in result.comparison.flows for item in flow.escapes)
    assert (escape.frame, escape.reset_frame) == (2, 3)


def test_another_connection_of_both_is_no_escape(tmp_path: Path) -> None:
    """The client talks to the server's own address too, from the same port, since long ago."""
    world = World(service=True)
    talk = Talk(world).open()
    other = Talk(world, isn=(77_000, 88_000))
    other.send(SERVER, "PA", b"no part of it", view=1, unseen=SERVER)
    other.wait()
    other.send(CLIENT, "R", window=0, ip_id=0, view=1, lost=True)
    other.wait()
    talk.send(CLIENT, "PA", b"goes on")
    result = run(world, tmp_path)
    assert result.comparison.matched == {"initial-sequence-numbers": 1, "one-sided": 1}
    assert not [item for flow in result.comparison.flows for item in flow.escapes]


# ---- packets ----


def test_lost_retransmitted_and_captured_twice(tmp_path: Path) -> None:
    world = World()
    talk = Talk(world).open()
    talk.send(CLIENT, "PA", b"lost once", lost=True)
    talk.numbers[CLIENT] -= len(b"lost once")
    talk.wait(200 * MS)
    talk.send(CLIENT, "PA", b"lost once")
    talk.honest(SERVER)
    world.seen[1].extend((time_ns + 2000, data) for time_ns, data in world.seen[1][:])
    result = run(world, tmp_path)
    ab, ba = result.comparison.ab, result.comparison.ba
    assert ab is not None
    assert ba is not None
    assert (ab.left, ab.arrived, ab.lost, ab.injected) == (6, 5, 1, 0)
    assert (ba.left, ba.arrived, ba.lost, ba.injected) == (3, 3, 0, 0)
    assert fates(result) == [Fate.LEFT]


@FAMILIES
@pytest.mark.parametrize("point", [0, 1])
def test_a_mirror_port_shows_resets_twice_too(point: int, family: int, tmp_path: Path) -> None:
    """None of them is another one, sent or not."""
    world = World(family=family)
    talk = Talk(world).open()
    talk.honest(SERVER)
    other = Talk(world, 50000, isn=(5, 6)).open()
    other.forge(CLIENT, hops=1)
    other.wait()
    Talk(world, 50001, isn=(7, 8)).open()
    once = run(world, tmp_path)
    rows = world.seen[point]
    rows.extend((time_ns + 2000, data) for time_ns, data in rows[:])
    twice = run(world, tmp_path)
    assert all_fates(twice) == all_fates(once) == {Fate.LEFT, Fate.ARRIVED, Fate.NEVER_SENT}
    assert len(resets(twice)) == len(resets(once))
    there = [key for key in twice.resets if key[0] is (Point.A, Point.B)[point]]
    assert len(there) == 2 * len([key for key in once.resets if key[0] is there[0][0]])


def test_buffers_that_cards_cut_up(tmp_path: Path) -> None:
    """One buffer of 3,000 bytes at A is two packets at B: nothing is lost."""
    world = World()
    talk = Talk(world).open()
    whole = talk.packet(CLIENT, 0, "PA", b"x" * 3000)
    world.see(0, world.now, whole)
    for number in range(2):
        part = talk.packet(
            CLIENT,
            1,
            "PA",
            b"x" * 1500,
            seq=talk.numbers[CLIENT] + 1500 * number,
            ip_id=500 + number,
        )
        world.see(1, world.now + world.delay_ns, part)
    talk.numbers[CLIENT] += 3000
    talk.wait()
    talk.honest(SERVER)
    ab = run(world, tmp_path).comparison.ab
    assert ab is not None
    assert (ab.lost, ab.injected) == (0, 0)


def test_a_swapped_packet(tmp_path: Path) -> None:
    world = World()
    talk = Talk(world).open()
    ip_id, seq = talk.ids[SERVER], talk.numbers[SERVER] & 0xFFFFFFFF
    talk.send(SERVER, "PA", b"the answer", lost=True)
    talk.forge(CLIENT, "RA", hops=6, ip_id=ip_id, seq=seq, after_ns=world.delay_ns - MS)
    talk.wait()
    Talk(world, 50000).open()
    result = run(world, tmp_path)
    (reset,) = resets(result)
    assert reset.other.fate is Fate.NEVER_SENT
    assert (reset.other.swapped_frame, reset.other.swapped_sure) == (8, True)
    assert reset.position is not None
    assert (reset.position.kind, reset.position.from_a) == ("swap", None)
    assert result.comparison.ba is not None
    assert result.comparison.ba.swapped == 1


def test_a_long_connection_is_looked_at_around_its_resets(tmp_path: Path) -> None:
    """Thousands of packets before, between and after: those of both moments are kept."""
    world = World(delay_ns=MS)
    talk = Talk(world).open()

    def chatter(count: int) -> None:
        for _ in range(count):
            talk.send(CLIENT, "PA", b"x")
            talk.send(SERVER, "PA", b"y")

    chatter(1500)
    talk.wait()
    talk.forge(CLIENT, hops=1, seq=talk.numbers[SERVER] + 1 & 0xFFFFFFFF)
    talk.wait()
    chatter(1500)
    talk.wait()
    talk.honest(SERVER)
    result = run(world, tmp_path)
    assert fates(result) == [Fate.NEVER_SENT, Fate.LEFT]
    ab, ba = result.comparison.ab, result.comparison.ba
    assert ab is not None
    assert ba is not None
    assert ab.arrived < 1000  # not all of it was kept
    assert ab.lost == ab.injected == ba.lost == ba.injected == 0


# ---- clocks ----


@pytest.mark.parametrize("offset", [0, 3 * SECOND, -86_400 * SECOND])
def test_the_offset_is_inside_its_bounds(offset: int, tmp_path: Path) -> None:
    world = World(offset_ns=offset)
    Talk(world).open().honest(SERVER)
    clocks = run(world, tmp_path).comparison.clocks
    assert clocks is not None
    assert clocks.offset == offset  # the way there takes as long as the way back
    assert clocks.error == world.delay_ns


@pytest.mark.parametrize("ppm", [0.0, 20.0, -150.0])
def test_drift(ppm: float) -> None:
    chance = random.Random(ppm)
    ticks = []
    for number in range(2000):
        a_ns = START_NS + number * SECOND // 2
        true = 7 * SECOND + round((a_ns - START_NS) * ppm * 1e-6)
        to_b = number % 2 == 0
        delay = 2 * MS + chance.randrange(3 * MS)
        ticks.append(Tick(a_ns, true + (delay if to_b else -delay), to_b))
    timing = measure(ticks)
    assert timing is not None
    assert timing.clocks.steady
    assert abs(timing.clocks.drift_ppm - ppm) < 2
    for tick in ticks[::100]:
        lower, upper = timing.bounds(tick.a_ns)
        assert lower is not None
        assert upper is not None
        true = 7 * SECOND + round((tick.a_ns - START_NS) * ppm * 1e-6)
        assert lower - MS <= true <= upper + MS


@pytest.mark.parametrize("ppm", [-200.0, 30.0])
@FAMILIES
def test_drift_that_outgrows_a_short_way(family: int, ppm: float, tmp_path: Path) -> None:
    """Two hosts on one link: in seconds the clocks run apart by more than a round trip."""
    world = World(family=family, hops=1, delay_ns=30_000, ppm=ppm)
    talk = Talk(world).open()
    for _ in range(40):
        for side in (CLIENT, SERVER):
            talk.send(side, "PA", b"hello")
            talk.wait(100 * MS)
    talk.forge(CLIENT, hops=0)
    talk.wait()
    talk.honest(SERVER)
    result = run(world, tmp_path)
    assert fates(result) == [Fate.NEVER_SENT, Fate.LEFT]
    clocks = result.comparison.clocks
    assert clocks is not None
    assert clocks.steady
    assert abs(clocks.drift_ppm - ppm) < 10


def test_a_clock_that_does_not_run_straight() -> None:
    """As it warms up: more in an hour than the round trip, and yet nothing contradicts."""
    ticks = []
    for number in range(7200):
        a_ns = START_NS + number * SECOND // 2
        true = round(5 * MS * (number / 7200) ** 2)
        to_b = number % 2 == 0
        ticks.append(Tick(a_ns, true + (50_000 if to_b else -50_000), to_b))
    timing = measure(ticks)
    assert timing is not None
    assert timing.clocks.steady
    for tick in ticks[::500]:
        lower, upper = timing.bounds(tick.a_ns)
        assert lower is not None
        assert upper is not None
        assert lower <= upper


# ---- positions ----


def forged(**changes: Any) -> ForgedReset:
    base = ForgedReset(
        point=Point.A,
        ttl=62,
        twin_ttl=None,
        usual=64 - 10,
        usual_twin=64 - 10,
        total=10,
        total_twin=10,
        swapped=False,
        delay_ns=None,
        rtt_ns=None,
    )
    return base._replace(**changes)


@pytest.mark.parametrize("x", range(10))
def test_a_router_of_the_path(x: int) -> None:
    for point, mine, twin in ((Point.A, x, 9 - x), (Point.B, 9 - x, x)):
        found = position_of(forged(point=point, ttl=64 - mine, twin_ttl=64 - twin))
        assert (found.from_a, found.from_b, found.kind, found.sure) == (
            x,
            9 - x,
            "router",
            "likely",
        )


@pytest.mark.parametrize("x", range(1, 10))
def test_a_link_of_the_path(x: int) -> None:
    found = position_of(forged(ttl=64 - x, twin_ttl=64 - (10 - x)))
    assert (found.from_a, found.from_b, found.kind) == (x, 10 - x, "link")


@pytest.mark.parametrize(("x", "itself"), list(itertools.product(range(1, 10), (False, True))))
def test_a_copier(x: int, itself: bool) -> None:
    """It sees A's packet after x routers and copies that TTL, or one less."""
    copied = 64 - x - itself
    mine, twin = 64 - (copied - x), 64 - (copied - (9 - x))
    for point, here, there in ((Point.A, mine, twin), (Point.B, twin, mine)):
        if here == there:
            continue  # in the middle both ends look alike
        found = position_of(forged(point=point, ttl=64 - here, twin_ttl=64 - there))
        assert (found.kind, found.from_a, found.from_b) == ("copier", x, 9 - x)


def test_one_end_only_says_what_else_it_may_be() -> None:
    found = position_of(forged(ttl=60))
    assert (found.from_a, found.from_b, found.kind) == (4, 5, "router")
    assert any("2 hops from A" in note for note in found.notes)
    assert position_of(forged(ttl=64 - 13)).kind == "elsewhere"
    assert position_of(forged(ttl=64 - 10)).sure == "unknown"


@pytest.mark.parametrize(
    ("delay", "rtt", "within"),
    [(MS, 10 * MS, 0.1), (9 * MS, 10 * MS, 0.9), (10 * MS, 10 * MS, None), (10, 1000, None)],
)
def test_time(delay: int, rtt: int, within: float | None) -> None:
    found = position_of(forged(ttl=54, delay_ns=delay, rtt_ns=rtt))
    assert found.within == within
    assert ("by time" in found.text) == (within is not None)


def test_time_from_captures(tmp_path: Path) -> None:
    """Answered after 1 ms where the round trip is 10 ms: in the first tenth of the way."""
    world = World()
    talk = Talk(world).open()
    talk.send(CLIENT, "PA", b"GET /x", lost=True)
    talk.forge(CLIENT, hops=1, after_ns=0)
    talk.wait()
    Talk(world, 50000).open()
    (reset,) = resets(run(world, tmp_path))
    assert reset.position is not None
    assert (reset.position.within, reset.position.within_of) == (0.1, Point.A)


# ---- input ----


def test_a_pipe_is_refused(tmp_path: Path) -> None:
    import os
    import threading

    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    a, _ = World().write(tmp_path)
    data = Path(a).read_bytes()
    feeder = threading.Thread(target=pipe.write_bytes, args=(data,))
    feeder.start()
    with pytest.raises(CaptureError, match="is a pipe"):
        compare_files({Point.A: str(pipe), Point.B: a})
    feeder.join()


def test_nothing_in_common(tmp_path: Path) -> None:
    world = World()
    Talk(world).open().honest(SERVER)
    world.seen[1].clear()
    result = run(world, tmp_path)
    assert all_fates(result) == {Fate.UNKNOWN}
    assert result.comparison.clocks is None
    assert result.comparison.notes


def test_few_connections_are_remembered(tmp_path: Path) -> None:
    """Those with resets stay; how many were forgotten is said."""
    world = World()
    Talk(world, 40000).open().honest(SERVER)
    for port in range(50000, 50040):
        Talk(world, port).open()
    result = compare_files(dict(zip(Point, world.write(tmp_path))), flows=16)
    assert fates(result) == [Fate.LEFT]
    assert any("found no room" in note for note in result.comparison.notes)
