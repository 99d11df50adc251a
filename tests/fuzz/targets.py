"""What is fuzzed: each target takes bytes, and lets out no error but those that it documents.

`seeds` are what the fuzzer begins with: ordinary inputs, from which it finds its way.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from rsttrace import jsonl
from rsttrace.enrich.lldp import read_neighbors
from rsttrace.enrich.ruleset import NftReader, Packet, SaveReader, candidates
from rsttrace.errors import KernelError, RsttraceError
from rsttrace.judge import fingerprints, formula
from rsttrace.judge.verdict import judge
from rsttrace.kernel import layout
from rsttrace.kernel.btf import Btf
from rsttrace.model import Entry, Kind, Reset
from rsttrace.render.json import entry_line
from rsttrace.render.text import entry_lines
from tests.unit.builders import decoded, event
from tests.unit.test_capture_fuzz import SAMPLES, read_all

REJECTED = Packet("10.0.0.1", 40000, "10.0.0.2", 80)
SEEN = 2 * ctypes.sizeof(layout.structures().rst_headers)
"""Bytes of an event that packets decide: the RST's headers and the trigger's."""


class Target(NamedTuple):
    """What is called, and what it is given at first."""

    run: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]


@contextmanager
def file(data: bytes) -> Iterator[str]:
    """The path of a file with this in it, that is on no disk."""
    descriptor = os.memfd_create("rsttrace-fuzz")
    try:
        os.write(descriptor, data)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def show(reset: Reset) -> None:
    """Judge and render a reset: what is shown is printable, whatever it is made of."""
    entry = Entry(1, reset, judge(reset))
    json.loads(entry_line(entry, explain=True))
    for line in entry_lines(entry, explain=True, verbose=True):
        assert line.isprintable(), line


def captures(data: bytes) -> None:
    """Read a capture, as `rsttrace read` does."""
    with file(data) as path:
        read_all(path)


def events(data: bytes) -> None:
    """Decode an event whose headers packets have decided; its first byte chooses the kind."""
    if not data:
        return
    found = event(tuple(Kind)[data[0] % len(Kind)])
    given = data[1 : 1 + SEEN].ljust(SEEN, b"\0")
    half = SEEN // 2
    for headers, raw in ((found.rst, given[:half]), (found.trigger, given[half:])):
        ctypes.memmove(ctypes.addressof(headers), raw, half)
        headers.kept = min(headers.kept, len(headers.l4))  # fill_headers() in bpf/packet.h
        headers.present = min(headers.present, 1)
    found.rst.present = 1
    show(decoded(found))


def lines(data: bytes) -> None:
    """Read a line of a log, and show it again."""
    text = data.decode("utf-8", "surrogateescape")
    with contextlib.suppress(jsonl.WrongLine):
        found = jsonl.decode(text)
        if jsonl.read_summary(found) is None:
            show(jsonl.read_entry(found).entry.reset)


def prints(data: bytes) -> None:
    """Load a file of fingerprints and match a reset against it."""
    with file(data) as path, contextlib.suppress(RsttraceError):
        fingerprints.load([Path(path)]).match(decoded(event()))


def formulas(data: bytes) -> None:
    """A formula of a fingerprint."""
    names = fingerprints.known_names()
    with contextlib.suppress(formula.FormulaError):
        made = formula.parse(data.decode("utf-8", "replace"), names)
        made.holds(fingerprints.names(decoded(event())))


def types(data: bytes) -> None:
    """A kernel's BTF."""
    with file(data) as path, contextlib.suppress(KernelError):
        found = Btf(path)
        try:
            found.field("sk_buff", "len")
            found.field("sock", "__sk_common.skc_net.net")
            found.enum("skb_drop_reason")
        finally:
            found.close()


def neighbours(data: bytes) -> None:
    """What lldpcli writes."""
    for ports in read_neighbors(data).values():
        for port in ports:
            assert len(str(port)) < 10_000


def rules(reader: NftReader | SaveReader, data: bytes) -> None:
    """What nft and iptables-save list."""
    for line in data.decode("utf-8", "replace").split("\n"):
        reader.line(line)
    found = reader.ruleset()
    candidates(found, REJECTED, found, after=True)


SAVED = b"""*filter
:INPUT ACCEPT [0:0]
:sub - [0:0]
[1:60] -A INPUT -p tcp -m tcp --dport 80 -j REJECT --reject-with tcp-reset
[0:0] -A INPUT -s 10.0.0.0/8 -p tcp -m multiport --dports 1:80,443 -j sub
[0:0] -A sub ! -d 10.0.0.2/32 -p tcp -j REJECT --reject-with tcp-reset
COMMIT
"""
LISTED = b"""table inet t { # handle 1
\tchain f { # handle 1
\t\ttype filter hook forward priority filter; policy accept;
\t\ttcp dport { 22, 80-90 } counter packets 1 bytes 60 reject with tcp reset # handle 2
\t\tip saddr != 10.0.0.0/8 tcp sport 1-5 jump sub # handle 3
\t}
\tchain sub { # handle 4
\t\tmeta l4proto tcp ct state new reject with tcp reset # handle 5
\t}
}
"""


def _lines() -> list[bytes]:
    return [
        entry_line(Entry(1, reset, judge(reset))).encode()
        for reset in map(decoded, map(event, Kind))
    ]


def _events() -> list[bytes]:
    made = []
    for number, kind in enumerate(Kind):
        found = event(kind)
        made.append(bytes([number]) + bytes(found.rst) + bytes(found.rst))
    return made


def _types() -> list[bytes]:
    """An empty one: struct btf_header, and a string table with the empty name."""
    return [struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, 0, 0, 1) + b"\0"]


PRINTS = b"""[box]
name = "A box"
source = "https://example.org"
[[box.pattern]]
ttl = 64
ip_id = { min = 1, max = 5 }
when = ["rst.seq == trigger.ack"]
"""

TARGETS: dict[str, Target] = {
    "captures": Target(captures, lambda: [data for data in SAMPLES.values() if len(data) < 5000]),
    "events": Target(events, _events),
    "lines": Target(lines, _lines),
    "fingerprints": Target(prints, lambda: [PRINTS]),
    "formulas": Target(formulas, lambda: [b"ttl > 3 and ip_id == 0 or not df"]),
    "btf": Target(types, _types),
    "lldp": Target(neighbours, lambda: [b'{"lldp":[{"interface":[{"name":"eth0"}]}]}']),
    "nft": Target(lambda data: rules(NftReader(), data), lambda: [LISTED]),
    "iptables": Target(lambda data: rules(SaveReader("iptables", "ip"), data), lambda: [SAVED]),
}
