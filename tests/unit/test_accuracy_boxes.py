"""The boxes of the live lab, and who is said to have made what: no root, no kernel."""

from __future__ import annotations

from typing import Any

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from tests.accuracy import forge
from tests.accuracy.run import DRAWN_TWIN, Played, outcomes_of, outcomes_of_dumps
from tests.accuracy.sniff import Sighting, parse
from tests.accuracy.stage import V4, Play
from tests.accuracy.tap import Tap
from tests.lab.harness import Json

CLIENT, SERVER = ("10.79.0.1", 40000), ("10.81.0.1", 20001)
STAMPS = [("NOP", None), ("NOP", None), ("Timestamp", (1000, 500))]


def packet(
    source: tuple[str, int] = SERVER,
    target: tuple[str, int] = CLIENT,
    data: bytes = b"",
    **fields: Any,
) -> Any:
    """A packet with data or without, as a socket sends it."""
    made = IP(src=source[0], dst=target[0], ttl=60, id=700, flags="DF") / TCP(
        sport=source[1],
        dport=target[1],
        flags="PA",
        seq=9000,
        ack=3000,
        window=63,
        options=STAMPS,
        **fields,
    )
    return IP(bytes(made / data))


def tap() -> Tap:
    """A bridge that sends nothing."""
    unused: Any = None
    return Tap((unused, unused), [0.0])


def through(bridge: Tap, one: Any) -> Any:
    """A packet, behind the bridge."""
    return Ether(bridge.handled(bytes(Ether(type=0x0800) / one)))[IP]


@pytest.mark.parametrize(
    ("how", "flags", "window", "stamped", "data"),
    [
        ("bare", "R", 0, False, False),
        ("window", "R", 63, False, False),
        ("payload", "RA", 63, True, True),
        ("perfect", "RA", 63, True, False),
        ("unstamped", "RA", 63, False, False),
        ("stamped-r", "R", 63, True, False),
        ("payload-bare", "R", 63, False, True),
    ],
)
def test_a_swap_keeps_the_peers_numbers(
    how: str, flags: str, window: int, stamped: bool, data: bool
) -> None:
    made = through(tap(), packet(data=b"SWAP " + how.encode()))
    tcp = made[TCP]
    assert (made.ttl, made.id, tcp.seq) == (60, 700, 9000)
    assert (tcp.flags, tcp.window, bool(tcp.options)) == (flags, window, stamped)
    assert (Raw in tcp) is data
    whole = bytes(made)
    del made.len, made.chksum, tcp.chksum, tcp.dataofs
    assert bytes(made) == whole  # lengths and checksums are right


def test_a_swap_may_break_the_checksum() -> None:
    made = through(tap(), packet(data=b"SWAP checksum"))
    wrong = made[TCP].chksum
    del made[TCP].chksum
    assert IP(bytes(made))[TCP].chksum != wrong


def test_the_next_packet_of_the_other_direction_is_swapped_once() -> None:
    bridge = tap()
    request = packet(CLIENT, SERVER, b"SWAPNEXT perfect")
    assert through(bridge, request)[TCP].flags == "PA"
    assert through(bridge, packet(("10.81.0.2", 20001)))[TCP].flags == "PA"
    assert through(bridge, packet())[TCP].flags == "RA"
    assert through(bridge, packet())[TCP].flags == "PA"


def view() -> forge.View:
    """A client that expects 9000 and whose server's last packet is 250 ms old."""
    return forge.View(packet(CLIENT, SERVER, b"FORGE"), packet(), 9000, 3005, age_ms=250)


def stamps(one: Any) -> tuple[int, int] | None:
    """A packet's timestamps."""
    found: tuple[int, int] | None = dict(o for o in one[TCP].options if o[0] == "Timestamp").get(
        "Timestamp"
    )
    return found


def test_a_copied_live_socket_goes_on() -> None:
    (made,) = forge.live(view())
    assert (made.ttl, made.id, made[TCP].flags, made[TCP].window) == (59, 701, "RA", 63)
    assert (made[TCP].seq, made[TCP].ack, stamps(made)) == (9000, 3005, (1250, 1000))


@pytest.mark.parametrize("shape", ["stamps_foreign", "stamps_val", "stamps_past", "stamps_secr"])
def test_wrong_timestamps_are_all_that_is_wrong(shape: str) -> None:
    (right,), (made,) = forge.live(view()), forge.ALL_SHAPES[shape](view())
    assert stamps(made) != stamps(right)
    made[TCP].options = right[TCP].options
    assert bytes(made) == bytes(right)


@pytest.mark.parametrize(("shape", "ttl"), [("nearer", 60), ("copier", 59), ("farther", 58)])
def test_one_hop_off(shape: str, ttl: int) -> None:
    (made,) = forge.ALL_SHAPES[shape](view())
    assert (made.ttl, made.id, made[TCP].flags, made[TCP].window) == (ttl, 0, "R", 0)


@pytest.mark.parametrize("name", forge.COPIES)
def test_copied_shapes_come_from_the_peers_distance(name: str) -> None:
    assert {one.ttl for one in forge.ALL_SHAPES[f"{name}_ttl"](view())} == {59}


@pytest.mark.parametrize("padding", [b"", b"\0" * 6])
def test_a_box_reads_what_scapy_reads(padding: bytes) -> None:
    v6 = IPv6(src="fd79::1", dst="fd81::1") / TCP(sport=1, dport=2, flags="PA") / b"data"
    for one in (packet(data=b"data"), v6):
        key, flags, data = forge.parse(bytes(one) + padding) or pytest.fail("not read")
        assert (flags, data) == (0x18, b"data")
        assert key[2:] == (one.sport.to_bytes(2, "big"), one.dport.to_bytes(2, "big"))


def test_a_box_reads_only_tcp() -> None:
    assert forge.parse(bytes(IP() / b"no TCP")) is None


# ---- who made what ----

NETNS = 4026532000


def rst(ttl: int = 60, flags: str = "R") -> Any:
    """A reset."""
    return IP(src=SERVER[0], dst=CLIENT[0], ttl=ttl) / TCP(
        sport=SERVER[1], dport=CLIENT[1], flags=flags, seq=1, window=0
    )


def sighting(role: str, outgoing: bool, one: Any) -> Sighting:
    """Where it was seen."""
    found = parse(bytes(one))
    assert found is not None
    return Sighting(role, outgoing, *found)


def entry(number: int, one: Any, origin: str, direction: str = "received") -> Json:
    """What was said of it."""
    return {
        "id": number,
        "amends": None,
        "kind": f"{direction}-unmatched",
        "direction": direction,
        "origin": origin,
        "netns": NETNS,
        "local": {"port": CLIENT[1]},
        "remote": {"port": SERVER[1]},
        "rst": {"raw": bytes(one).hex()},
    }


def played(honest: bool = False, label: str = "forged", **more: Any) -> Played:
    """A case in which one reset arrived at the client, four routers from the server."""
    play = Play(1, SERVER[1], V4, 4)
    one = Played("a case v4", "a box", honest, label, play, {NETNS: "client"}, **more)
    one.arrived = [sighting("client", False, rst())]
    return one


def test_what_left_the_peer_is_genuine_and_all_else_is_the_cases_label() -> None:
    said = [entry(1, rst(), "forged")]
    for label in ("forged", "box"):
        (found,) = outcomes_of([played(label=label)], said)
        assert (found.label, found.trust, found.verdict) == (label, "proven", "forged")
    one = played()
    one.left = [sighting("server", True, rst(ttl=64))]
    (found,) = outcomes_of([one], said)
    assert (found.label, found.trust, found.accused) == ("genuine", "undecidable", True)
    assert found.twin == DRAWN_TWIN  # as a host without a socket: so does who copies it
    assert outcomes_of([played(honest=True)], [])[0].verdict == "untold"


def test_a_case_may_say_how_sure_and_by_which_word() -> None:
    one = played()
    one.play.tell("client", "undecidable", "another case")
    (found,) = outcomes_of([one], [])
    assert (found.trust, found.twin) == ("undecidable", "another case")
    one.arrived = [sighting("client", False, rst(flags="RA"))]
    one.left = [sighting("server", True, rst(flags="RA", ttl=64))]  # a live socket's own is sure
    (found,) = outcomes_of([one], [])
    assert (found.trust, found.twin) == ("honest", None)
    one.play.word("client", "indistinguishable")
    assert outcomes_of([one], [])[0].label == "indistinguishable"


def test_a_routers_capture_is_asked_of_honest_resets_alone() -> None:
    said = {"of a router": [entry(1, rst(ttl=61), "peer")], "of the end": [entry(1, rst(), "peer")]}
    names = {"w1": "of a router", "client": "of the end"}
    found = outcomes_of_dumps([played(honest=True, dumps=names)], said)
    assert [(o.role.split(",")[0], o.verdict) for o in found] == [
        ("w1", "peer"),
        ("client", "peer"),
    ]
    found = outcomes_of_dumps([played(dumps=names)], said)
    assert [(o.role.split(",")[0], o.label) for o in found] == [("client", "forged")]
