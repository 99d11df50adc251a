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
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from rsttrace.demo.lab import Lab
from rsttrace.kernel import syscalls
from tests.lab.harness import linger_zero
from tests.lab.programs import packet_layer

ROUNDS = 5
SERVER, PORT = "10.73.0.2", 7000
HERE = Path(__file__).resolve().parent.parent.parent

BPF_ENABLE_STATS, BPF_STATS_RUN_TIME = 32, 0


@contextmanager
def counted() -> Iterator[None]:
    """The kernel takes the time of every program (d46edd671a14, 5.8)."""
    stats = syscalls.bpf(BPF_ENABLE_STATS, struct.pack("=I", BPF_STATS_RUN_TIME))
    try:
        yield
    finally:
        os.close(stats)


class Tracer:
    """A checkout's tracer whose output goes nowhere."""

    def __init__(self, checkout: Path, *options: str) -> None:
        """Returns when it traces."""
        self._process = subprocess.Popen(
            [checkout / ".venv/bin/python", "-m", "rsttrace", "-o", "json", *options],
            cwd=checkout,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stderr is not None
        line = self._process.stderr.readline()
        assert "tracing resets" in line, line + self._process.stderr.read()
        self.pid = self._process.pid

    def close(self) -> None:
        """End it."""
        assert self._process.stderr is not None
        self._process.terminate()
        self._process.stderr.read()
        self._process.stderr.close()
        self._process.wait()


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
            while time.monotonic() < began + 2:
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
    turns = 5_000

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


def resets(lab: Lab) -> float:
    """Connections made and reset; returns how many a second."""
    turns = 5_000

    def close(sock: socket.socket) -> None:
        sock.close()

    with _serving(lab, close), lab.inside("client"):
        began = time.monotonic()
        for _ in range(turns):
            with socket.create_connection((SERVER, PORT)) as sock:
                linger_zero(sock)
        return turns / (time.monotonic() - began)


WORKS: tuple[Callable[[Lab], float], ...] = (bulk, requests, connections, resets)


def measure(lab: Lab, checkouts: dict[str, Path], rounds: int) -> None:
    """All works, the checkouts in turns, and print."""
    for work in WORKS:
        times: dict[str, dict[str, list[float]]] = {name: {} for name in checkouts}
        rates: dict[str, list[float]] = {name: [] for name in ("no tracer", *checkouts)}
        for _ in range(rounds):
            rates["no tracer"].append(work(lab))
            for name, checkout in checkouts.items():
                with closing(Tracer(checkout)) as tracer:
                    rates[name].append(work(lab))
                    with counted():
                        before = packet_layer(tracer.pid)
                        work(lab)
                        after = packet_layer(tracer.pid)
                for side, runs in after.items():
                    count = runs.runs - before[side].runs
                    took = (runs.time_ns - before[side].time_ns) / count
                    times[name].setdefault(side, []).append(took)
        base = statistics.median(rates["no tracer"])
        print(f"{work.__name__}: {base:.4g} a second without a tracer")
        for name in checkouts:
            ratio = statistics.median(rates[name]) / base
            spent = ", ".join(
                f"{side} {statistics.median(values):.0f}" for side, values in times[name].items()
            )
            print(f"    {ratio:5.3f} x  {name}; ns a packet: {spent}", flush=True)


def main(arguments: list[str]) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", type=Path, help="another checkout, with a .venv of its own")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args(arguments)
    checkouts = {"this one": HERE}
    if options.against:
        checkouts["the other"] = options.against.resolve()
    with Lab("rstpackets") as lab:
        lab.add("client", "server")
        lab.link("client", "eth0", "server", "eth0")
        lab.addresses("client", "eth0", "10.73.0.1/24")
        lab.addresses("server", "eth0", f"{SERVER}/24")
        measure(lab, checkouts, options.rounds)


if __name__ == "__main__":
    main(sys.argv[1:])
