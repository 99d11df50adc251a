"""Damaged captures: nothing but CaptureError comes out, and what is before the damage is read."""

from __future__ import annotations

import contextlib
import json
import random
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from rsttrace.capture.source import CaptureSource
from rsttrace.errors import CaptureError
from rsttrace.judge.verdict import judge
from rsttrace.model import Entry
from rsttrace.render.json import entry_line
from rsttrace.render.text import entry_lines
from tests.accuracy.captures import given
from tests.unit import captures as c
from tests.unit.captures import Talk
from tests.unit.frames import FRAMES

CASES = 400
"""Per sample; seeded, so that a failure comes again."""

MAX_SAMPLE = 40_000
"""Only the beginning of a longer sample is damaged: the time goes with the size."""


def samples() -> dict[str, bytes]:
    links = sorted({link for link, _ in FRAMES.values()})
    mixed = c.section() + b"".join(c.interface(link=link, resolution=9) for link in links)
    for link, data in FRAMES.values():
        mixed += c.enhanced(data, number=links.index(link), direction=1)
        mixed += c.enhanced(data[:-6], number=links.index(link))
    talk = Talk(family=6)
    six = [*talk.handshake(), talk.frame(0, "PA", b"x" * 50), talk.reset(), talk.reset("RA")]
    return {
        "pcap": c.pcap(c.incident() + both_closed()),
        "pcap-be-ns": c.pcap(c.incident() + both_closed(), endian=">", nano=True),
        "pcap-6": c.pcap(six),
        "pcapng": c.pcapng(c.incident()) + c.pcapng(six, endian=">"),
        "pcapng-mixed": mixed + c.simple(FRAMES["ethernet"][1]),
        "gzip": c.compressed(c.pcap(c.incident() + both_closed())),
    }


def both_closed() -> list[bytes]:
    talk = Talk(port=50000)
    packets = [*talk.handshake(), talk.frame(0, "FA"), talk.frame(1, "FA"), talk.frame(0, "A")]
    return [*packets, talk.frame(1, "PA", b"late"), talk.reset("R", side=0), talk.reset()]


SAMPLES = samples()
FOLDER = given()
REAL = sorted(FOLDER.glob("*.pcap*")) if FOLDER is not None else []


def damage(data: bytes, chance: random.Random) -> bytes:
    """Bit flips, bytes, runs of bytes, pieces taken out or doubled; cut, or not."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 5, 20))):
        if not changed:
            break
        at = chance.randrange(len(changed))
        what = chance.randrange(6)
        if what == 0:
            changed[at] ^= 1 << chance.randrange(8)
        elif what == 1:
            changed[at] = chance.choice((0, 1, 0x7F, 0x80, 0xFF))
        elif what == 2:
            changed[at : at + 4] = chance.choice(
                (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\0\0\0\x80", b"\xff\xff\0\0")
            )
        elif what == 3:
            del changed[at : at + chance.randrange(1, 40)]
        elif what == 4:
            piece = changed[at : at + chance.randrange(1, 40)]
            changed[at:at] = piece
        else:
            changed[at : at + 8] = chance.randbytes(8)
    if chance.randrange(2):
        del changed[chance.randrange(len(changed) + 1) :]
    return bytes(changed)


def read_all(path: str) -> int:
    """Everything that `rsttrace read` does with a file, but for printing; the packets read."""
    with contextlib.suppress(CaptureError), CaptureSource(path, flows=16) as source:
        for number, reset in enumerate(source.resets(), 1):
            entry = Entry(number, reset, judge(reset))
            json.loads(entry_line(entry, explain=True))
            for line in entry_lines(entry, explain=True, verbose=True):
                assert line.isprintable()
        for line in [*source.notes(), source.problem or ""]:
            assert line.isprintable()
        return source.packets
    return 0


def damaged(name: str, data: bytes, cases: int) -> Iterator[bytes]:
    chance = random.Random(zlib.crc32(name.encode()))
    for _ in range(cases):
        yield damage(data, chance)


@pytest.mark.parametrize("name", SAMPLES)
def test_damaged_samples(name: str, tmp_path: Path) -> None:
    path = tmp_path / "damaged"
    counts = []
    for data in damaged(name, SAMPLES[name], CASES):
        path.write_bytes(data)
        counts.append(read_all(str(path)))
    assert any(counts)  # not all of them are refused at once


@pytest.mark.skipif(not REAL, reason="no labelled captures (RSTTRACE_PCAPS names a folder)")
@pytest.mark.parametrize("sample", REAL, ids=lambda path: path.name)
def test_damaged_real_captures(sample: Path, tmp_path: Path) -> None:
    path = tmp_path / "damaged"
    data = sample.read_bytes()[:MAX_SAMPLE]
    for changed in damaged(sample.name, data, CASES // 4):
        path.write_bytes(changed)
        read_all(str(path))


@pytest.mark.parametrize("name", ["pcap", "pcapng", "gzip"])
def test_cut_anywhere(name: str, tmp_path: Path) -> None:
    """The packets before the cut are read, whatever is missing; and no cut gives more."""
    path, data, last = tmp_path / "cut", SAMPLES[name], 0
    for size in range(len(data) + 1):
        path.write_bytes(data[:size])
        count = read_all(str(path))
        assert last <= count <= last + 1 or name == "gzip"
        last = count
    assert last == {"pcap": 14, "pcapng": 11, "gzip": 14}[name]
