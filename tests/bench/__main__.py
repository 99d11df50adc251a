"""What tracing costs: the same traffic with and without it, in turns, as ratios.

Run as root: ``make bench``. Absolute numbers are this machine's; the ratios are what to look at.
"""

from __future__ import annotations

import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from rsttrace.demo.lab import Lab
from rsttrace.kernel.cache import VARIABLE
from tests.bench import captures, judging, stages
from tests.lab.harness import linger_zero, out_rsts

ROUNDS = 5
SERVER, PORT = "10.73.0.2", 7000
PLANS: dict[str, list[str] | None] = {
    "no tracer": None,
    "rsttrace": [],
    "rsttrace --no-baseline": ["--no-baseline"],
}


class Silent:
    """A tracer whose output goes nowhere."""

    def __init__(self, options: list[str], cache: str | None = None) -> None:
        """Starts it; `cache` is where compiled programs are kept (as usual; empty: nowhere)."""
        began = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "rsttrace", "-o", "json", *options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=None if cache is None else {**os.environ, VARIABLE: cache},
        )
        assert self.process.stderr is not None
        assert "tracing resets" in self.process.stderr.readline()
        self.start_s = time.monotonic() - began

    def memory_kb(self) -> dict[str, int]:
        """Resident memory, from /proc/PID/status."""
        rows = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        fields = dict(row.split(":", 1) for row in rows)
        return {name: int(fields[name].split()[0]) for name in ("VmRSS", "RssAnon", "RssFile")}

    def cpu_s(self) -> float:
        """CPU seconds used so far (proc(5): utime and stime)."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> str:
        """End it; returns what it said."""
        self.process.terminate()
        assert self.process.stderr is not None
        said = self.process.stderr.read()
        self.process.wait()
        self.process.stderr.close()
        return said


def served(lab: Lab, handle: Callable[[socket.socket], None]) -> socket.socket:
    """A listener in the server's namespace whose connections a thread handles."""
    with lab.inside("server"):
        listener = socket.create_server((SERVER, PORT), reuse_port=True, backlog=4096)

    def serve() -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            handle(sock)

    threading.Thread(target=serve, daemon=True).start()
    return listener


def connect(lab: Lab) -> socket.socket:
    """A connection from the client's namespace."""
    with lab.inside("client"):
        sock = socket.socket()
    sock.connect((SERVER, PORT))
    return sock


def bulk(lab: Lab) -> int:
    """One stream; returns how many bytes."""
    total, chunk = 1 << 29, b"x" * (1 << 18)

    def drain(sock: socket.socket) -> None:
        while sock.recv(1 << 18):
            pass
        sock.send(b"!")
        sock.close()

    listener = served(lab, drain)
    with connect(lab) as sock:
        for _ in range(total // len(chunk)):
            sock.sendall(chunk)
        sock.shutdown(socket.SHUT_WR)
        sock.recv(1)
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    return total


def ping_pong(lab: Lab) -> int:
    """Small requests and answers over one connection; returns how many."""
    turns = 20_000

    def echo(sock: socket.socket) -> None:
        while data := sock.recv(64):
            sock.send(data)
        sock.close()

    listener = served(lab, echo)
    with connect(lab) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(turns):
            sock.send(b"x" * 64)
            sock.recv(64)
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    return turns


def connections(lab: Lab) -> int:
    """Connections opened and reset at once (SO_LINGER 0); returns how many."""
    turns = 1_500
    listener = served(lab, lambda sock: sock.close())
    with lab.inside("client"):
        for _ in range(turns):
            sock = socket.create_connection((SERVER, PORT))
            linger_zero(sock)
            sock.close()
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    return turns


def storm(lab: Lab) -> int:
    """Refused connections as fast as one process can; returns how many."""
    turns = 10_007
    before = out_rsts(lab, "server")
    with lab.inside("client"):
        for _ in range(turns):
            with socket.socket() as sock:
                sock.connect_ex((SERVER, 9))
    return out_rsts(lab, "server") - before


def starts() -> None:
    """How long a start takes that compiles, and one that finds what an earlier one compiled."""
    spent: dict[str, list[float]] = {"compiled": [], "kept from an earlier start": []}
    with tempfile.TemporaryDirectory() as folder:
        Silent([], folder).stop()
        for _ in range(ROUNDS):
            for seconds, cache in zip(spent.values(), ("", folder)):
                tracer = Silent([], cache)
                seconds.append(tracer.start_s)
                tracer.stop()
    base = statistics.median(spent["compiled"])
    print("start, to `tracing resets`")
    for name, seconds in spent.items():
        median = statistics.median(seconds)
        print(f"    {median / base:5.2f} x  {name}: {median:.2f} s", flush=True)


def measure_storm(lab: Lab, options: list[str]) -> None:
    """What a storm costs in the tracer, and what it says became of every reset."""
    tracer = Silent(["--netns", lab.name("server"), *options])
    first = tracer.memory_kb()
    used = tracer.cpu_s()
    began = time.monotonic()
    count = storm(lab)
    took_s = time.monotonic() - began
    meanwhile = tracer.cpu_s() - used
    time_limit = time.monotonic() + 30
    last = -1.0
    while tracer.cpu_s() != last and time.monotonic() < time_limit:
        last = tracer.cpu_s()
        threading.Event().wait(0.3)
    print(f"storm {' '.join(options)}: {count} resets in {took_s:.2f} s, to JSON")
    print(f"    {100 * meanwhile / took_s:.0f} % of a CPU meanwhile")
    print(f"    {(tracer.cpu_s() - used) / count * 1e6:.0f} µs of CPU each in the tracer")
    print(f"    start to `tracing resets`: {tracer.start_s:.2f} s")
    print(f"    memory at start: {first}, after the storm: {tracer.memory_kb()} (kB)")
    print(f"    {tracer.stop().strip().splitlines()[-1]}")


def main() -> None:
    """Measure and print."""
    captures.main()
    judging.main()
    stages.main()
    starts()
    with Lab("rstbench") as lab:
        lab.add("client", "server")
        lab.link("client", "eth0", "server", "eth0")
        lab.addresses("client", "eth0", "10.73.0.1/24")
        lab.addresses("server", "eth0", f"{SERVER}/24")
        for work in (bulk, ping_pong, connections):
            seconds: dict[str, list[float]] = {name: [] for name in PLANS}
            for _ in range(ROUNDS):
                for name, options in PLANS.items():
                    tracer = None if options is None else Silent(options)
                    began = time.monotonic()
                    work(lab)
                    seconds[name].append(time.monotonic() - began)
                    if tracer:
                        tracer.stop()
            base = statistics.median(seconds["no tracer"])
            print(f"{work.__name__}: {base:.3f} s without a tracer")
            for name, measured in seconds.items():
                print(f"    {statistics.median(measured) / base:5.2f} x  {name}", flush=True)
        for options in ([], ["--no-aggregate"]):
            measure_storm(lab, options)
        child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        print(f"    largest child (the compiler, which exits): {child // 1024} MB")


if __name__ == "__main__":
    main()
