"""What `rsttrace read` costs beside the bare reader: packets/s and memory. No root needed.

Run as ``python -m tests.bench.captures``; also a part of ``make bench``.
"""

from __future__ import annotations

import statistics
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.unit.captures import Talk, enhanced, interface, pcap, section

ROUNDS = 3
SIZES = (100_000, 1_000_000)
"""Packets of the smaller and of the larger file."""

PARALLEL = 50
"""Connections at a time."""

WORK = {
    "scapy's bare reader": "from scapy.utils import RawPcapReader as R; n = sum(1 for _ in R(f))",
    "with link layer, flows, kinds": (
        "from rsttrace.capture.source import CaptureSource as S; n = sum(1 for _ in S(f).resets())"
    ),
    "rsttrace read, all of it": (
        "from rsttrace.commands.filters import Filter\n"
        "from rsttrace.commands.read import read\n"
        "from rsttrace.commands.run import Options\n"
        "read([f], Options(output='json'), Filter(), out=open('/dev/null', 'w'), status=len)"
    ),
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
                changed = bytearray(data)
                ours = 26 if data[14 + 8] == 64 else 30  # our address: source or destination
                changed[ours : ours + 4] = struct.pack(">I", 0x0A000000 + number + offset)
                yield bytes(changed)
        number += PARALLEL


def write(path: Path, count: int, pcapng: bool) -> None:
    """A file of about so many packets."""
    with path.open("wb") as file:
        file.write(section() + interface() if pcapng else pcap([]))
        for number, data in enumerate(packets(count)):
            if pcapng:
                file.write(enhanced(data, ticks=10**15 + number))
            else:
                file.write(struct.pack("<IIII", number, 0, len(data), len(data)) + data)


def measure(code: str, path: Path) -> tuple[float, int]:
    """(seconds, peak memory in kB) in a process of its own, without its start."""
    script = (
        f"import resource, time, scapy.utils, rsttrace.commands.read\nf = {str(path)!r}\n"
        f"began = time.perf_counter()\n{code}\n"
        "print(time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    seconds, memory = done.stdout.split()
    return float(seconds), int(memory)


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as directory:
        for pcapng in (False, True):
            for size in SIZES:
                path = Path(directory) / "capture"
                write(path, size, pcapng)
                print(f"reading {size:,} packets, {'pcapng' if pcapng else 'pcap'}")
                results: dict[str, list[tuple[float, int]]] = {name: [] for name in WORK}
                for _ in range(ROUNDS):
                    for name, code in WORK.items():
                        results[name].append(measure(code, path))
                base = statistics.median(row[0] for row in results["scapy's bare reader"])
                for name, rows in results.items():
                    seconds = statistics.median(row[0] for row in rows)
                    memory = max(row[1] for row in rows) // 1024
                    print(
                        f"    {seconds / base:5.2f} x  {name}: "
                        f"{size / seconds:,.0f} packets/s, {memory} MB",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
