"""Resets as no stack writes them, thousands of them: each is told once, or was none.

Held against what was sent, tcpdump, and the kernel's own counters.
"""

from __future__ import annotations

import contextlib
import random
import socket
from collections import Counter
from pathlib import Path

import pytest

from rsttrace.demo.lab import Lab
from tests.accuracy.dump import Dump
from tests.lab.harness import V4, V6, Fence, Json, Tracer, counter, drop_reasons, mac_of, poll_until
from tests.lab.test_delivery import UNDER, linked
from tests.lab.test_late import TCP_REPAIR, next_expected
from tests.lab.test_storm import many_files
from tests.soak.audit import seen
from tests.soak.mutate import Ends, Mutated, Mutator

PLAIN = (
    "(ip[0] = 0x45 and ip[9] = 6 and ip[6:2] & 0x3fff = 0 and tcp[13] & 4 != 0)"
    " or (ip6[6] = 6 and ip6[53] & 4 != 0)"
)
"""What tcpdump can find: a TCP header right behind the IP header."""

LISTENS, NOBODY, MARK = 7000, 7999, 7998
LIVE = 12
"""Of so many, one has a connection of its own."""

COUNTERS = ("InSegs", "InErrs", "InCsumErrors", "EstabResets", "OutRsts")
Key = str


def key(header: str) -> Key:
    """Ports, numbers, flags and window."""
    return header[:32]


def tcp_header(entry: Json) -> str:
    """The entry's TCP header without the checksum; IPv6 extension headers are not kept."""
    raw = bytes.fromhex(entry["rst"]["raw"])
    at = 4 * (raw[0] & 0xF) if entry["family"] == 4 else 40
    return (raw[at : at + 16] + raw[at + 18 :]).hex()


class Sender:
    """Sends them from the client, some into live connections of its stack, some to nobody."""

    def __init__(self, lab: Lab, seed: int) -> None:
        self._lab = lab
        self._chance = random.Random(seed)
        macs = [bytes.fromhex(mac_of(lab, r, "eth0").replace(":", "")) for r in UNDER]
        self._mutator = Mutator(seed, *macs)
        with lab.inside("client"):
            self._wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
            self._wire.bind(("eth0", 0))
        self._connected: list[socket.socket] = []
        self._listeners = {}
        for family in (V4, V6):
            with lab.inside("server"):
                listener = socket.create_server(
                    (UNDER["server"][family == V6], LISTENS), family=family
                )
            self._listeners[family] = listener

    def close(self) -> None:
        """Connections end without a packet."""
        for sock in self._connected:
            with contextlib.suppress(OSError):  # one that was reset is closed
                sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
        for sock in (*self._connected, *self._listeners.values(), self._wire):
            sock.close()

    def play(self) -> list[Mutated]:
        """One to nobody, or a few into a connection."""
        family = self._chance.choice((V4, V6))
        source, target = (UNDER[role][family == V6] for role in ("client", "server"))
        if self._chance.randrange(LIVE):
            dport = self._chance.choice((NOBODY, LISTENS))
            ends = Ends(source, target, self._chance.randrange(1024, 32768), dport)
            return [self._send(ends)]
        with self._lab.inside("client"):
            client = socket.create_connection((target, LISTENS))
        accepted, _ = self._listeners[family].accept()
        ends = Ends(
            source,
            target,
            client.getsockname()[1],
            LISTENS,
            next_expected(self._lab, "server", accepted),
            next_expected(self._lab, "client", client),
        )
        self._connected += [client, accepted]
        return [self._send(ends) for _ in range(self._chance.randrange(1, 4))]

    def _send(self, ends: Ends) -> Mutated:
        made = self._mutator.make(ends)
        for frame in made.frames:
            self._wire.send(frame)
        return made


def counted(lab: Lab) -> Counter[str]:
    """The server's counters of TCP."""
    return Counter({name: counter(lab, "server", "Tcp", name) for name in COUNTERS})


def problems(sent: list[Mutated], told: list[Json], dumped: Counter[str]) -> list[str]:
    """What is missing, double, invented or wrong."""
    by_key: dict[Key, list[Mutated]] = {}
    for made in sent:
        by_key.setdefault(key(made.header), []).append(made)
    entries: dict[Key, list[Json]] = {}
    for entry in told:
        entries.setdefault(key(tcp_header(entry)), []).append(entry)
    found = [
        f"invented: {tcp_header(e[0])} {e[0]['kind']}"
        for k, e in entries.items()
        if k not in by_key
    ]
    for this, made_alike in by_key.items():
        here = entries.get(this, [])
        for made in made_alike:
            text = f"{made.how} {made.header}"
            if made.arrives and not here:
                found.append(f"missing: {text}")
            if made.arrives and here and tcp_header(here[0]) != made.header:
                found.append(f"changed: {text} told as {tcp_header(here[0])}")
            if not made.sum_ok and any(e["kind"] == "received-accepted" for e in here):
                found.append(f"accepted with a wrong checksum: {text}")
            if made.arrives is False and any(e["kind"] == "received-accepted" for e in here):
                found.append(f"accepted, and never arrived: {text}")
        if len(here) > len(made_alike):
            found.append(f"double: {made_alike[0].how} {[e['kind'] for e in here]}")
    plain = {made.header for made in sent if made.arrives}
    found += [f"tcpdump only: {h}" for h in dumped if h in plain and key(h) not in entries]
    return found


@pytest.mark.parametrize(
    "count",
    [2_003, pytest.param(20_011, marks=pytest.mark.slow)],  # the latter: two minutes
)
def test_each_of_many_mutated_resets_is_told_once(count: int, fence: Fence, tmp_path: Path) -> None:
    with linked() as lab, many_files(count // 4):
        tracer = Tracer("--kind", "received", "--kind", "sent")
        sender = Sender(lab, seed=count)
        dump = Dump(lab, "server", tmp_path / "dump", PLAIN)
        try:
            netns = lab.inode("server")
            for address in UNDER["server"]:  # neighbours are found before
                with lab.inside("client"), socket.socket(V6 if ":" in address else V4) as sock:
                    sock.connect_ex((address, NOBODY))
            fence.cross(tracer)
            before, known = counted(lab), len(tracer.told(netns))
            sent: list[Mutated] = []
            while len(sent) < count:
                sent += sender.play()
                if len(sent) % 64 == 0:
                    fence.cross(tracer)  # a bounded rate
            fence.cross(tracer)
            after = counted(lab) - before
            entries = tracer.told(netns)[known:]
            with lab.inside("client"), socket.socket() as sock:
                sock.connect_ex((UNDER["server"][0], MARK))
            poll_until(
                lambda: any(h.startswith(f"{MARK:04x}") for h in seen(dump.path)), "the dump"
            )
        finally:
            dump.stop()
            sender.close()
            assert tracer.stop() == 0
    told = [e for e in entries if e["amends"] is None]
    received = [e for e in told if e["direction"] == "received"]
    assert problems(sent, received, seen(dump.path)) == []
    live = [e for e in received if e["kind"] == "received-accepted"]
    alive = [e for e in live if e["socket"]["state"] in ("ESTABLISHED", "CLOSE_WAIT")]
    assert after["EstabResets"] == len(alive) > count / 100
    assert after["OutRsts"] == sum(e["direction"] == "sent" for e in told)
    if "TCP_CSUM" in drop_reasons():
        bad = sum(entry["cause"]["name"] == "bad-checksum" for entry in received)
        assert after["InCsumErrors"] == bad > count / 20
    assert sum(bool(made.arrives) for made in sent) > count / 2
    assert {how for made in sent for how in made.how} >= {"checksum", "fragments", "IP options"}
