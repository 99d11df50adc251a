"""What `rsttrace read` costs beside what else finds resets in a file: CPU and memory. No root.

Run as ``python -m tests.bench.captures``; also a part of ``make bench``. Two kinds of files, each
with one RST in 20 packets: in one every connection ends with its RST, in the other most packets
belong to a few long connections that have none.
"""

from __future__ import annotations

import itertools
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rsttrace.tcp import sum16
from tests.unit.captures import Talk, enhanced, interface, pcap, section

ROUNDS = 3
SIZES = (100_000, 1_000_000)
"""Packets of the smaller and of the larger file."""

LONG = 500_000
"""Packets of files that are read once by each, and as pcap only: that takes minutes."""

PARALLEL = 50
"""Connections at a time."""

READ = [sys.executable, "-m", "rsttrace", "read"]
WORK = {
    "tshark -Y tcp.flags.reset==1 -T json": [
        *("tshark", "-r", "FILE", "-Y", "tcp.flags.reset==1", "-T", "json"),
    ],
    "tcpdump 'tcp[13] & 4 != 0'": ["tcpdump", "-n", "-r", "FILE", "tcp[13] & 4 != 0"],
    "scapy's bare reader": [
        *(sys.executable, "-c"),
        "from scapy.utils import RawPcapReader as R; n = sum(1 for _ in R('FILE'))",
    ],
    "rsttrace read -o json": [*READ, "-o", "json", "FILE"],
    "rsttrace read -o json, in one pass (a pipe)": [
        *("sh", "-c", f"cat FILE | {sys.executable} -m rsttrace read -o json -"),
    ],
}


def frames() -> list[bytes]:
    """One connection of 20 packets: data both ways, then a RST."""
    talk = Talk()
    made = talk.handshake()
    for _ in range(8):
        made += [talk.frame(1, "PA", b"y" * 1448), talk.frame(0, "A")]
    return [*made, talk.reset()]


def packets(count: int) -> Iterator[bytes]:
    """So many packets of ever new connections, several at a time."""
    template, number = frames(), 0
    while number * len(template) < count:
        for data in template:
            for offset in range(PARALLEL):
                yield changed(data, number + offset)
        number += PARALLEL


def long_ones(count: int) -> Iterator[bytes]:
    """So many packets: refused connections, and data of a few long ones."""
    refused, long = Talk(), Talk(port=51235)
    syn, reset = refused.frame(0, "S"), refused.reset("RA")
    handshake = long.handshake()
    data = [long.frame(1, "PA", b"y" * 1448), long.frame(0, "A")] * 9
    number = 0
    while number * 20 < count:
        if number < PARALLEL:
            yield from (changed(frame, number) for frame in handshake)
        yield from (changed(frame, number % PARALLEL) for frame in data)
        yield changed(syn, PARALLEL + number)
        yield changed(reset, PARALLEL + number)
        number += 1


def changed(data: bytes, number: int) -> bytes:
    """The packet with another address of ours, and checksums that are right (RFC 1624)."""
    made = bytearray(data)
    ours = 26 if data[14 + 8] == 64 else 30  # our address: source or destination
    address = struct.pack(">I", 0x0A000000 + number)
    less = bytes(byte ^ 0xFF for byte in data[ours : ours + 4])
    for at in (24, 50):
        before = bytes(byte ^ 0xFF for byte in data[at : at + 2])
        made[at : at + 2] = struct.pack(">H", ~sum16(before + less + address) & 0xFFFF)
    made[ours : ours + 4] = address
    return bytes(made)


KINDS: dict[str, Callable[[int], Iterator[bytes]]] = {
    "every connection reset": packets,
    "long connections beside refused ones": long_ones,
}


def write(path: Path, count: int, pcapng: bool, make: Callable[[int], Iterator[bytes]]) -> None:
    """A file of about so many packets."""
    with path.open("wb") as file:
        file.write(section() + interface() if pcapng else pcap([]))
        for number, data in enumerate(make(count)):
            if pcapng:
                file.write(enhanced(data, ticks=10**15 + number))
            else:
                file.write(
                    struct.pack("<IIII", number // 1000, number % 1000, len(data), len(data))
                )
                file.write(data)


def measure(command: list[str], path: Path) -> tuple[float, int]:
    """(CPU seconds, peak memory in kB) of a process and its children."""
    script = (
        "import resource, subprocess, sys\n"
        "subprocess.run(sys.argv[1:], check=True, stdout=-3, stderr=-3)\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(used.ru_utime + used.ru_stime, used.ru_maxrss)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *(part.replace("FILE", str(path)) for part in command)],
        check=True,
        capture_output=True,
        text=True,
    )
    seconds, memory = done.stdout.split()
    return float(seconds), int(memory)


def main(sizes: Sequence[int] = SIZES) -> None:
    """Measure and print; of other tools those that are installed."""
    work = {name: command for name, command in WORK.items() if shutil.which(command[0])}
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "capture"
        for (kind, make), pcapng, size in itertools.product(KINDS.items(), (False, True), sizes):
            rounds = ROUNDS if size <= LONG else 1  # CPU time, which hardly differs
            if pcapng and size > LONG:
                continue  # the reader's share is that of the smaller one
            write(path, size, pcapng, make)
            print(f"reading {size:,} packets, {'pcapng' if pcapng else 'pcap'}: {kind}")
            results: dict[str, list[tuple[float, int]]] = {name: [] for name in work}
            for _ in range(rounds):
                for name, command in work.items():
                    results[name].append(measure(command, path))
            base = statistics.median(row[0] for row in next(iter(results.values())))
            for name, rows in results.items():
                seconds = statistics.median(row[0] for row in rows)
                memory = max(row[1] for row in rows) // 1024
                print(
                    f"    {seconds / base:5.2f} x  {name}: {seconds:.2f} s, {memory} MB", flush=True
                )


if __name__ == "__main__":
    main([int(size) for size in sys.argv[1:]] or SIZES)
