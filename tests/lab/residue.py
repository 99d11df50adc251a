"""What a run could leave on a node: objects in the kernel, files, processes, mounts."""

from __future__ import annotations

import contextlib
import os
import re
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rsttrace.kernel import syscalls

NEXT_ID = {"program": 11, "map": 12, "btf": 23, "link": 31}
"""BPF_PROG_GET_NEXT_ID and its like (enum bpf_cmd); links have ids from 5.8 on."""

PLACES = {tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm", "/run"}
"""Where programs leave files; others do so, too, meanwhile."""

OURS = re.compile("rsttrace|bcc|kheaders")

LISTS = ("tc qdisc", "ip netns", "ip -o -br link")


def ids(what: str) -> Iterator[int]:
    """The ids of all BPF objects of a kind (`NEXT_ID`) in the kernel."""
    current = 0
    while True:
        attributes = bytearray(struct.pack("=III", current, 0, 0))  # start_id, next_id, flags
        try:
            syscalls.bpf(NEXT_ID[what], attributes)
        except OSError:  # ENOENT: that was the last one; EINVAL: this kernel has none
            return
        _, current, _ = struct.unpack("=III", attributes)
        yield current


def processes() -> Iterator[int]:
    """The processes (no zombies) of rsttrace, and those that it runs in a Python of its own."""
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if b"rsttrace" in (path / "cmdline").read_bytes() and int(path.name) != os.getpid():
                yield int(path.name)


def residue() -> frozenset[str]:
    """Everything that is there now, one text each."""
    found = {f"{what} {number}" for what in NEXT_ID for number in ids(what)}
    found |= {f"process {pid}" for pid in processes()}
    for place in PLACES:
        found |= {f"{place}/{name}" for name in os.listdir(place) if OURS.search(name)}
    found |= {f"pin {path}" for path in Path("/sys/fs/bpf").rglob("*")}
    for command in LISTS:
        told = subprocess.run(command.split(), capture_output=True, text=True, check=True).stdout
        found |= {f"{command}: {line}" for line in told.splitlines()}
    mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    return frozenset(found | {f"mount {line}" for line in mounts.splitlines()})
