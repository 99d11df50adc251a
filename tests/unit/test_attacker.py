"""Who can send packets cannot make the verdict lie: what a stranger adds before, after or beside.

A conversation of two Linux hosts, a genuine RST or a forged one, and packets of an attacker in the
peer's name. A genuine RST must never become forged by them, nor a forged one the peer's.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import scapy.layers.inet as scapy_inet
import scapy.layers.l2 as scapy_l2

from rsttrace.capture.source import CaptureSource
from rsttrace.judge.history import Case, History
from rsttrace.judge.verdict import judge
from rsttrace.model import Origin

IP, TCP, Ether = scapy_inet.IP, scapy_inet.TCP, scapy_l2.Ether
US, PEER = "10.0.0.5", "198.51.100.7"
OURS, GATEWAY, ATTACKER = "02:00:00:00:00:05", "00:d0:f8:22:33:44", "00:11:22:33:44:55"
START = 1_700_000_000.0
STRANGE_CLOCK = (("NOP", None), ("NOP", None), ("Timestamp", (123456, 0)))


class Talk:
    """A connection as a capture shows it; times in seconds."""

    def __init__(self, *, timestamps: bool = True) -> None:
        self.packets: list[tuple[float, bytes]] = []
        self.now = START
        self._timestamps = timestamps
        self.seq = {True: 1000, False: 900_000}  # ours, the peer's
        self._ip_id = {True: 4711, False: 31007}

    def _write(self, frame: Any, *, wrong_sum: bool = False) -> None:
        data = bytearray(bytes(frame))
        if wrong_sum:
            data[14 + 20 + 16] ^= 0x55
        self.packets.append((self.now, bytes(data)))

    def _options(self, ours: bool, syn: bool) -> list[tuple[str, Any]]:
        clocks = {True: 5_000_000, False: 77_000_000}
        ticks = int((self.now - START) * 1000)
        echo = 0 if syn and ours else clocks[not ours] + ticks
        clock = [("Timestamp", (clocks[ours] + ticks, echo))] if self._timestamps else []
        if syn:
            rest = [("NOP", None)] if clock else [("NOP", None), ("NOP", None), ("NOP", None)]
            return [("MSS", 1460), ("SAckOK", b""), *clock, *rest, ("WScale", 7)]
        return [("NOP", None), ("NOP", None), *clock] if clock else []

    def send(self, ours: bool, flags: str, data: bytes = b"", after: float = 0.02) -> None:
        self.now += after
        syn = "S" in flags
        ends = {"src": US, "dst": PEER} if ours else {"src": PEER, "dst": US}
        macs = {"src": OURS, "dst": GATEWAY} if ours else {"src": GATEWAY, "dst": OURS}
        ip_id = 0 if flags == "SA" else self._ip_id[ours]
        self._ip_id[ours] += flags != "SA"
        self._write(
            Ether(**macs)
            / IP(**ends, ttl=64 if ours else 54, id=ip_id, flags="DF")
            / TCP(
                sport=40000 if ours else 443,
                dport=443 if ours else 40000,
                flags=flags,
                seq=self.seq[ours],
                ack=self.seq[not ours] if "A" in flags else 0,
                window=64240 if syn else 502,
                options=self._options(ours, syn),
            )
            / data
        )
        self.seq[ours] += len(data) + syn + ("F" in flags)

    def goes_on(self) -> None:
        self.send(True, "S")
        self.send(False, "SA")
        self.send(True, "A", after=0.0001)
        for _ in range(4):
            self.send(True, "PA", b"q" * 100, after=0.5)
            self.send(False, "A")
            self.send(False, "PA", b"a" * 300, after=0.003)
            self.send(True, "A", after=0.0001)

    def attack(
        self,
        flags: str,
        *,
        seq: int | None = 0,
        data: bytes = b"",
        ttl: int = 61,
        mac: str = ATTACKER,
        options: Iterable[Any] = (),
        wrong_sum: bool = False,
    ) -> None:
        """A packet in the peer's name; `seq`: from where the peer is, ``None``: no number fits."""
        self.now += 0.01
        known = seq is not None
        self._write(
            Ether(src=mac, dst=OURS)
            / IP(src=PEER, dst=US, ttl=ttl, id=4321)
            / TCP(
                sport=443,
                dport=40000,
                flags=flags,
                seq=(self.seq[False] + (seq or 0)) % 2**32 if known else 1 << 31,
                ack=self.seq[True] if known else 1 << 30,
                window=1024,
                options=list(options),
            )
            / data,
            wrong_sum=wrong_sum,
        )

    def capture(self, path: Path) -> Path:
        made = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1)
        for now, data in self.packets:
            seconds = int(now)
            rest = int((now - seconds) * 1e6)
            made += struct.pack("<IIII", seconds, rest, len(data), len(data)) + data
        path.write_bytes(made)
        return path


def verdicts(talk: Talk, folder: Path) -> list[Origin]:
    """What ``rsttrace read`` says of each reset, in the order of the capture."""
    history, now_ns = History(hold_ns=60 * 10**9, decide=judge), 0
    last: dict[int, Case] = {}
    with CaptureSource(str(talk.capture(folder / "attack.pcap"))) as source:
        for item in source.items():
            now_ns = item if isinstance(item, int) else item.time_ns
            if not isinstance(item, int):
                history.add(item, now_ns)
            last.update((id(case.reset), case) for case in history.due(now_ns))
        last.update((id(case.reset), case) for case in history.due(None))
    cases = sorted(last.values(), key=lambda case: case.reset.time_ns)
    return [case.verdict.origin for case in cases if case.verdict is not None]


Attack = Callable[[Talk], object]


def nothing(talk: Talk) -> None:
    """No attack."""


def several(times: int, **packet: Any) -> Attack:
    def attack(talk: Talk) -> None:
        for _ in range(times):
            talk.attack(**packet)

    return attack


BEFORE: dict[str, Attack] = {
    "nothing": nothing,
    "four blind packets with timestamps": several(4, flags="A", seq=None, options=STRANGE_CLOCK),
    "four blind packets from the peer's distance": several(
        4, flags="A", seq=None, options=STRANGE_CLOCK, ttl=54, mac=GATEWAY
    ),
    "a blind SYN-ACK": several(1, flags="SA", seq=None, options=[("MSS", 1460)]),
    "a blind SYN": several(1, flags="S", seq=None, options=[("MSS", 1460)]),
    "data that fits": several(4, flags="PA", data=b"zz"),
    "an ACK out of window": several(1, flags="A", seq=1 << 30),
    "a RST out of window": several(1, flags="R", seq=1 << 29),
}
AFTER: dict[str, Attack] = {
    "nothing": nothing,
    "data with a wrong checksum": several(1, flags="PA", data=b"x" * 10, wrong_sum=True),
    "data from elsewhere": several(1, flags="PA", data=b"x" * 10),
    "data from the peer's distance": several(1, flags="PA", data=b"x" * 10, ttl=54),
    "data over the peer's gateway, too": several(
        1, flags="PA", data=b"x" * 10, ttl=54, mac=GATEWAY
    ),
    "an ACK out of window": several(1, flags="A", seq=1 << 30, ttl=54, mac=GATEWAY),
    "another RST": several(1, flags="R"),
}


def knows_the_numbers(before: str, timestamps: bool) -> bool:
    """Whether its packets were the peer's for all that our stack can tell: it is on the path."""
    return before == "data that fits" and not timestamps


@pytest.mark.parametrize("timestamps", [True, False], ids=["timestamps", "none"])
@pytest.mark.parametrize("after", AFTER)
@pytest.mark.parametrize("before", BEFORE)
def test_a_genuine_reset_is_not_made_a_forgery(
    before: str, after: str, timestamps: bool, tmp_path: Path
) -> None:
    talk = Talk(timestamps=timestamps)
    talk.goes_on()
    BEFORE[before](talk)
    forged_before = "RST" in before
    talk.send(False, "RA", after=0.2)
    AFTER[after](talk)
    found = verdicts(talk, tmp_path)
    assert found[int(forged_before)] is not Origin.FORGED
    if forged_before:
        assert found[0] is not Origin.PEER
    if after == "another RST" and not knows_the_numbers(before, timestamps):
        assert found[-1] is not Origin.PEER


@pytest.mark.parametrize("timestamps", [True, False], ids=["timestamps", "none"])
@pytest.mark.parametrize("after", sorted({*AFTER} - {"another RST"}))
@pytest.mark.parametrize("before", sorted({*BEFORE} - {"a RST out of window"}))
def test_a_forged_reset_does_not_become_the_peer_s(
    before: str, after: str, timestamps: bool, tmp_path: Path
) -> None:
    """What is certain without the attack stays certain with it, but where the attacker has sent
    what our stack took for the peer's: then it is not decided (docs/evidence.md says so)."""
    talk = Talk(timestamps=timestamps)
    talk.goes_on()
    BEFORE[before](talk)
    talk.attack("R")
    AFTER[after](talk)
    (found,) = verdicts(talk, tmp_path)
    assert found is not Origin.PEER
    if not knows_the_numbers(before, timestamps):
        assert found is Origin.FORGED


def test_several_forgeries_do_not_vouch_for_each_other(tmp_path: Path) -> None:
    talk = Talk()
    talk.goes_on()
    for number in range(5):
        talk.attack("RA", seq=number * 1460)
    assert set(verdicts(talk, tmp_path)) == {Origin.FORGED}
