"""What a packet costs in the kernel: nanoseconds in each program, and what the traffic loses by it.

Run as root: ``python -m tests.bench.packets [--against DIR] [--rounds N]``; DIR is another checkout
with a .venv of its own, measured in turns with this one on the same traffic. Also a part of ``make
bench``. Times are bpf_stats' (492ecee892c2, 5.1); they hold what an empty program costs.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import struct
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rsttrace.demo.lab import Lab
from rsttrace.kernel import syscalls
from tests.bench.ways import Way, ours
from tests.lab.harness import ETHTOOL_SGRO, ETHTOOL_SGSO, ETHTOOL_STSO, linger_zero, offload
from tests.lab.programs import packet_layer

ROUNDS = 5
SERVER, PORT = "10.73.0.2", 7000
BPF_ENABLE_STATS, BPF_STATS_RUN_TIME = 32, 0
BULK_S = 2.0
CONNECTIONS, RESETS = 15_000, 60_000


@dataclass
class Cost:
    """Of one kind of traffic: its rate a second without anything (`base`), and with each way the
    share of it that is left; nanoseconds a packet in its programs, by direction, if it is ours.
    `spread`: how far apart the rounds without anything are, as a share (of the middle half)."""

    traffic: str
    base: float
    spread: float = 0.0
    share: dict[str, float] = field(default_factory=dict)
    packet_ns: dict[str, dict[str, float]] = field(default_factory=dict)


@contextmanager
def counted() -> Iterator[None]:
    """The kernel takes the time of every program (d46edd671a14, 5.8)."""
    stats = syscalls.bpf(BPF_ENABLE_STATS, struct.pack("=I", BPF_STATS_RUN_TIME))
    try:
        yield
    finally:
        os.close(stats)


def _forked(work: Callable[[], None]) -> int:
    """Do it in a process of its own; returns its number."""
    child = os.fork()
    if child:
        return child
    try:
        work()
    finally:
        os._exit(0)


@contextmanager
def _serving(lab: Lab, handle: Callable[[socket.socket], None]) -> Iterator[None]:
    """A server, in a process of its own, until it is told to end."""
    with lab.inside("server"):
        listener = socket.create_server((SERVER, PORT), backlog=4096)

    def serve() -> None:
        while True:
            sock, _ = listener.accept()
            handle(sock)

    child = _forked(serve)
    try:
        yield
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
        listener.close()


def bulk(lab: Lab) -> float:
    """One stream, as much as there is in two seconds; returns bytes a second."""
    chunk = b"x" * (1 << 18)

    def drain(sock: socket.socket) -> None:
        room = bytearray(1 << 18)
        total = 0
        while count := sock.recv_into(room):
            total += count
        sock.send(struct.pack("=Q", total))
        sock.close()

    with _serving(lab, drain):
        with lab.inside("client"):
            sock = socket.create_connection((SERVER, PORT))
        with closing(sock):
            began = time.monotonic()
            while time.monotonic() < began + BULK_S:
                sock.sendall(chunk)
            sock.shutdown(socket.SHUT_WR)
            (total,) = struct.unpack("=Q", sock.recv(8, socket.MSG_WAITALL))
            return float(total) / (time.monotonic() - began)


def requests(lab: Lab) -> float:
    """Small requests and answers over one connection; returns how many a second."""
    turns = 20_000

    def echo(sock: socket.socket) -> None:
        while data := sock.recv(64):
            sock.send(data)
        sock.close()

    with _serving(lab, echo):
        with lab.inside("client"):
            sock = socket.create_connection((SERVER, PORT))
        with closing(sock):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            began = time.monotonic()
            for _ in range(turns):
                sock.send(b"x" * 64)
                sock.recv(64)
            return turns / (time.monotonic() - began)


def connections(lab: Lab) -> float:
    """Connections made, used and ended, none of them reset; returns how many a second."""
    turns = CONNECTIONS

    def answer(sock: socket.socket) -> None:
        sock.recv(64)
        sock.send(b"x")
        sock.close()

    with _serving(lab, answer), lab.inside("client"):
        began = time.monotonic()
        for _ in range(turns):
            with socket.create_connection((SERVER, PORT)) as sock:
                sock.send(b"x")
                while sock.recv(64):
                    pass
        return turns / (time.monotonic() - began)


def resets(lab: Lab, turns: int | None = None) -> float:
    """Connections made and reset; returns how many a second.

    So many that what is shown one by one at the start (`--rate`) is a small part.
    """
    turns = turns or RESETS

    def close(sock: socket.socket) -> None:
        sock.close()

    with _serving(lab, close), lab.inside("client"):
        began = time.monotonic()
        for _ in range(turns):
            with socket.create_connection((SERVER, PORT)) as sock:
                linger_zero(sock)
        return turns / (time.monotonic() - began)


def single(lab: Lab) -> float:
    """The same stream in packets of one segment each, as a device without offloads has them
    (``ethtool -K eth0 gso off tso off gro off``); returns bytes a second.
    """
    features = (ETHTOOL_STSO, ETHTOOL_SGSO, ETHTOOL_SGRO)
    for role in ("client", "server"):
        offload(lab, role, "eth0", *features)
    try:
        return bulk(lab)
    finally:
        for role in ("client", "server"):
            offload(lab, role, "eth0", *reversed(features), on=True)


WORKS: dict[str, Callable[[Lab], float]] = {
    "one stream (bytes)": bulk,
    "one stream, no offloads (bytes)": single,
    "requests over one connection": requests,
    "connections": connections,
    "connections that are reset": resets,
}


@contextmanager
def bench_lab() -> Iterator[Lab]:
    """client and server on one cable."""
    with Lab("rstbench") as lab:
        lab.add("client", "server")
        lab.link("client", "eth0", "server", "eth0")
        lab.addresses("client", "eth0", "10.73.0.1/24")
        lab.addresses("server", "eth0", f"{SERVER}/24")
        yield lab


def measure(lab: Lab, ways: Sequence[Way], rounds: int) -> list[Cost]:
    """All kinds of traffic, the ways in turns; printed as it comes. Medians."""
    costs = []
    for name, work in WORKS.items():
        rates: dict[str, list[float]] = {"": [], **{way.name: [] for way in ways}}
        times: dict[str, dict[str, list[float]]] = {}
        for _ in range(rounds):
            rates[""].append(work(lab))
            for way in ways:
                with way.watching(lab) as pid:
                    rates[way.name].append(work(lab))
                    if way.is_ours:
                        for side, spent in _packet_ns(lab, work, pid).items():
                            times.setdefault(way.name, {}).setdefault(side, []).append(spent)
        base = statistics.median(rates[""])
        cost = Cost(name, base, _middle_half(rates[""]) / base)
        for way in ways:
            turns = zip(rates[way.name], rates[""])  # of a turn, for the machine may have its moods
            cost.share[way.name] = statistics.median(rate / bare for rate, bare in turns)
        for way_name, sides in times.items():
            cost.packet_ns[way_name] = {side: statistics.median(v) for side, v in sides.items()}
        costs.append(cost)
        print(f"{name}: {cost.base:.4g} a second without a tracer")
        for way_name, share in cost.share.items():
            packet = cost.packet_ns.get(way_name, {})
            said = "".join(f", {side} {value:.0f} ns" for side, value in sorted(packet.items()))
            print(f"    {share:5.3f} x  {way_name}{said}", flush=True)
    return costs


def _middle_half(values: Sequence[float]) -> float:
    """From the first quartile to the third."""
    if len(values) == 1:
        return 0.0
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return third - first


def _packet_ns(lab: Lab, work: Callable[[Lab], float], pid: int) -> dict[str, float]:
    """By direction, what a run of the packet layer's programs takes (ns)."""
    with counted():
        before = packet_layer(pid)
        work(lab)
        after = packet_layer(pid)
    return {
        side: (after[side].time_ns - one.time_ns) / (after[side].runs - one.runs)
        for side, one in before.items()
    }


def main(arguments: list[str]) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", type=Path, help="another checkout, with a .venv of its own")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args(arguments)
    ways = [ours("this one")]
    if options.against:
        ways.append(ours("the other", checkout=options.against.resolve()))
    with bench_lab() as lab:
        measure(lab, ways, options.rounds)


if __name__ == "__main__":
    main(sys.argv[1:])
