"""The BPF programs that a process keeps attached, as the kernel tells of them."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rsttrace.kernel import syscalls

BPF_PROG_GET_FD_BY_ID = 13
RAW_TRACEPOINT, TRACING = 17, 26  # enum bpf_prog_type

SIZE, NAME, RUNS, VERIFIED = 224, 64, 192, 216
"""Of struct bpf_prog_info (include/uapi/linux/bpf.h): its bytes up to attach_btf_obj_id, and the
places of its name, of run_time_ns, run_cnt and recursion_misses, and of verified_insns."""

PACKETS = {"rt_netif_receiv": "in", "rt_net_dev_queu": "out"}
"""The packet layer's, by the 15 bytes that the kernel keeps of a name."""


@dataclass(frozen=True)
class Attached:
    """One of them: its type, and what it has done while the kernel counted (BPF_ENABLE_STATS).

    `skipped`: how often it was left out, for it was running already (9ed9e9ba2337, 5.12).
    `verified`: the instructions that the verifier has looked at (since 5.16; before that 0).
    """

    name: str
    type: int
    time_ns: int
    runs: int
    skipped: int
    verified: int


def attached(pid: int) -> Iterator[Attached]:
    """Those of the raw tracepoints that a process has a descriptor of."""
    for file in Path(f"/proc/{pid}/fdinfo").iterdir():
        try:
            text = file.read_text()
        except FileNotFoundError:
            continue  # closed meanwhile
        rows = (row.partition(":") for row in text.splitlines())
        number = {name: value.strip() for name, _, value in rows}.get("prog_id")
        if number is not None:
            yield loaded(int(number))


def packet_layer(pid: int) -> dict[str, Attached]:
    """The packet layer's, by direction (``in``, ``out``)."""
    return {PACKETS[one.name]: one for one in attached(pid) if one.name in PACKETS}


def loaded(number: int) -> Attached:
    """A program of the kernel's, by its number."""
    program = syscalls.bpf(BPF_PROG_GET_FD_BY_ID, struct.pack("=III", number, 0, 0))
    room = ctypes.create_string_buffer(SIZE)
    try:
        attributes = struct.pack("=IIQ", program, SIZE, ctypes.addressof(room))
        syscalls.bpf(syscalls.BPF_OBJ_GET_INFO_BY_FD, attributes)
    finally:
        os.close(program)
    name = room.raw[NAME : NAME + 16].rstrip(b"\0").decode()
    (kind,) = struct.unpack_from("=I", room.raw)
    return Attached(name, kind, *struct.unpack_from("=QQQI", room.raw, RUNS))
