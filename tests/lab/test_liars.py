"""Who can send packets cannot make the verdict lie: the ways of tests/unit/test_attacker.py, live.

Real stacks, a tracer that knows only what the client's machine could, and a stranger on the path
who sends in the server's name, before and after a genuine reset or his own.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import scapy.layers.inet as scapy_inet
import scapy.layers.l2 as scapy_l2

from rsttrace.demo.lab import Lab
from tests.lab.harness import (
    ADDRESSES,
    Fence,
    Json,
    Tracer,
    counter,
    linger_zero,
    mac_of,
    pair,
    poll_until,
    send_frame,
)
from tests.lab.test_late import TCP_REPAIR, next_expected
from tests.unit.test_attacker import AFTER, ATTACKER, BEFORE, GATEWAY, knows_the_numbers

IP, TCP, Ether = scapy_inet.IP, scapy_inet.TCP, scapy_l2.Ether
CLIENT, SERVER = ADDRESSES["client"][0], ADDRESSES["server"][0]
STRANGE_ID = 4321
"""IP ID of all that the stranger sends."""


ALL_KNOWN = "data over the peer's gateway, too"
"""After a genuine reset of a connection without timestamps, one on the path who sends data with the
right numbers, TTL and MAC may yet make it a forgery where our host has acknowledged nothing since:
docs/security.md says so."""


class Conversation:
    """A connection, and a stranger who knows its numbers (`test_attacker.Talk`, on real stacks)."""

    def __init__(self, lab: Lab, client: socket.socket, accepted: socket.socket) -> None:
        self._lab, self._client, self._accepted = lab, client, accepted
        self._macs = {GATEWAY: mac_of(lab, "router", "cl0"), ATTACKER: ATTACKER}
        self._ours = mac_of(lab, "client", "eth0")
        self._ports = {"sport": 7000, "dport": client.getsockname()[1]}

    def goes_on(self) -> None:
        """Questions and answers."""
        for _ in range(4):
            for one, two in ((self._client, self._accepted), (self._accepted, self._client)):
                one.sendall(b"q" * 100)
                assert len(two.recv(100)) == 100
        self.seq = next_expected(self._lab, "client", self._client)
        self.ack = next_expected(self._lab, "server", self._accepted)

    def attack(self, flags: str, **packet: Any) -> None:
        """As `test_attacker.Talk.attack`, with the same names and defaults."""
        seq, mac = packet.get("seq", 0), packet.get("mac", ATTACKER)
        known = seq is not None
        network = IP(src=SERVER, dst=CLIENT, ttl=packet.get("ttl", 61), id=STRANGE_ID)
        segment = TCP(
            flags=flags,
            seq=(self.seq + (seq if known else 2**31)) % 2**32,
            ack=(self.ack + (0 if known else 2**30)) % 2**32,
            window=1024,
            options=list(packet.get("options", ())),
            **self._ports,
        )
        made = Ether(src=self._macs[mac], dst=self._ours) / network / segment
        frame = bytearray(bytes(made / packet.get("data", b"")))
        if packet.get("wrong_sum"):
            frame[14 + 20 + 16] ^= 0x55
        send_frame(self._lab, "router", "cl0", frame)


@contextlib.contextmanager
def conversation(lab: Lab) -> Iterator[tuple[Conversation, socket.socket, socket.socket]]:
    """One, with its ends; they close without a packet."""
    with pair(lab, "client", "server") as (client, accepted):
        talk = Conversation(lab, client, accepted)
        talk.goes_on()
        try:
            yield talk, client, accepted
        finally:
            for sock in (client, accepted):
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)


@pytest.fixture(
    params=[True, pytest.param(False, marks=pytest.mark.slow)],  # twice the same, 10 s
    ids=["timestamps", "none"],
)
def path(request: pytest.FixtureRequest, routed: Lab) -> tuple[Lab, bool]:
    """The lab with its server 10 hops away; whether the ends use timestamps."""
    for role in ("client", "server"):
        routed.sysctl(role, net__ipv4__tcp_timestamps=int(request.param))
    routed.sysctl("server", net__ipv4__ip_default_ttl=55)  # 54 at the client, as in test_attacker
    return routed, request.param


def told(tracer: Tracer, lab: Lab, port: int) -> list[Json]:
    """The last word on each reset that the client received in one connection."""
    return [
        entry
        for entry in tracer.of(lab.inode("client"))
        if entry["direction"] == "received" and entry["local"]["port"] == port
    ]


def by_stranger(entry: Json) -> bool:
    """Whether the stranger sent it."""
    return bool(entry["rst"]["ip_id"] == STRANGE_ID)


def wrong(entries: list[Json], case: str, sure: bool) -> list[str]:
    """What was said that is not so. `sure`: of the stranger's it must be said."""
    found = []
    for entry in entries:
        said = f"{entry['origin']} {entry['confidence']} {[e['rule'] for e in entry['evidence']]}"
        if not by_stranger(entry) and entry["origin"] == "forged":
            found.append(f"{case}: a genuine one is {said}")
        if by_stranger(entry) and entry["origin"] == "peer":
            found.append(f"{case}: the stranger's is {said}")
        if by_stranger(entry) and sure and entry["origin"] != "forged":
            found.append(f"{case}: the stranger's is only {said}")
    return found


def settled(tracer: Tracer, fence: Fence) -> None:
    """All is told, amendments too."""
    fence.cross(tracer)
    fence.cross(tracer)


Scene = Callable[[Lab, Conversation, socket.socket], None]


def play(
    path: tuple[Lab, bool], tracer: Tracer, fence: Fence, scene: Scene, leave_out: str | None = None
) -> dict[int, tuple[str, str]]:
    """A scene after every attack before it and before every one after it, by the client's port."""
    lab, _ = path
    settled(tracer, fence)
    tracer.forget()
    played = {}
    for before, first in BEFORE.items():
        for after, then in AFTER.items():
            if after == leave_out:
                continue
            with conversation(lab) as (talk, client, accepted):
                first(talk)  # type: ignore[arg-type]
                scene(lab, talk, accepted)
                then(talk)  # type: ignore[arg-type]
                played[client.getsockname()[1]] = before, after
    settled(tracer, fence)
    return played


def server_resets(lab: Lab, talk: Conversation, accepted: socket.socket) -> None:
    """And the client's stack has got it; an attack may have put it out of window."""
    got = counter(lab, "client", "Tcp", "InSegs")
    linger_zero(accepted)
    accepted.close()
    poll_until(lambda: counter(lab, "client", "Tcp", "InSegs") > got, "the reset")


def stranger_resets(lab: Lab, talk: Conversation, accepted: socket.socket) -> None:
    """In the server's name."""
    talk.attack("R")


def test_a_genuine_reset_is_not_made_a_forgery(
    path: tuple[Lab, bool], machines: Tracer, fence: Fence
) -> None:
    """Nor does what he sends beside it become the peer's."""
    lab, timestamps = path
    found = []
    played = play(path, machines, fence, server_resets, None if timestamps else ALL_KNOWN)
    for port, (before, after) in played.items():
        entries = told(machines, lab, port)
        assert any(not by_stranger(entry) for entry in entries), (before, after)
        if knows_the_numbers(before, timestamps):  # what he has sent is the peer's, for all we know
            entries = [entry for entry in entries if not by_stranger(entry)]
        found += wrong(entries, f"{before}, {after}", sure=False)
    assert found == []


def test_a_forged_reset_does_not_become_the_peer_s(
    path: tuple[Lab, bool], machines: Tracer, fence: Fence
) -> None:
    """What is certain without the attack stays certain with it, as in the unit test."""
    lab, timestamps = path
    found = []
    for port, (before, after) in play(path, machines, fence, stranger_resets).items():
        entries = told(machines, lab, port)
        assert any(by_stranger(entry) for entry in entries), (before, after)
        sure = not knows_the_numbers(before, timestamps)
        found += wrong(entries, f"{before}, {after}", sure)
    assert found == []


def test_forgeries_that_look_alike_do_not_vouch_for_each_other(
    path: tuple[Lab, bool], machines: Tracer, fence: Fence
) -> None:
    """Five in a row, from another distance than the peer's, over its gateway."""
    lab, _ = path
    settled(machines, fence)
    machines.forget()
    with conversation(lab) as (talk, client, _):
        for number in range(5):
            talk.attack("RA", seq=number * 1460, mac=GATEWAY)
        port = client.getsockname()[1]
    settled(machines, fence)
    entries = told(machines, lab, port)
    assert len(entries) == 5
    assert {entry["origin"] for entry in entries} == {"forged"}
