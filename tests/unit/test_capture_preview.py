"""A file that is looked at as a whole first tells the same as one that is read in one pass."""

from __future__ import annotations

import os
import random
import struct
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from rsttrace.capture.flows import Flows
from rsttrace.capture.layers import Segment
from rsttrace.capture.source import CaptureSource
from rsttrace.limits import FLOWS
from tests.unit import captures as c
from tests.unit.captures import PEER, US, Talk, write
from tests.unit.frames import FRAMES

SEEDS = 120


def told(
    name: str, flows: int = FLOWS, *, ahead: bool, flags_alone: bool = False
) -> tuple[list[str], bool]:
    """All that a source tells of a file, and whether it is one of SYN, FIN and RST alone.

    `flags_alone`: that the file is such a one, which only a look at all of it can tell.
    """
    with CaptureSource(name, flows=flows, ahead=ahead) as source:
        source.flags_alone = flags_alone
        found = []
        for item in source.items():
            if not isinstance(item, int):
                source.wake_ns = item.time_ns + c.SECOND
            found.append(repr(item))
        assert ahead or source.preview is None
        counts = f"{source.packets} packets, {source.segments} segments; {source.problem}"
        return [*found, *source.notes(), counts], source.flags_alone


def check_alike(name: str, flows: int = FLOWS) -> list[str]:
    found, flags_alone = told(name, flows, ahead=True)
    assert found == told(name, flows, ahead=False, flags_alone=flags_alone)[0]
    return found


@pytest.mark.parametrize("path", c.known(), ids=lambda path: path.name)
def test_known_captures(path: Path) -> None:
    for flows in (1, 2, 3, 7, 50, FLOWS):
        check_alike(str(path), flows)


def changed(draw: random.Random, data: bytes) -> bytes:
    """A frame that differs a little: its TTL, its flags, where it comes from, its number."""
    made = bytearray(data)
    which = draw.randrange(12)
    if which == 0:
        made[22] = draw.choice((1, 40, 64, 255))
    elif which == 1:
        made[47] = draw.choice((2, 4, 16, 17, 18, 20, 24))
    elif which == 2:
        made[6:12] = bytes.fromhex("02000000ff01")
    elif which == 3:
        made[38:42] = struct.pack(">I", draw.choice((1, 1000, 2**32 - 1)))
    elif which == 4:
        made[20] ^= draw.choice((0x20, 0x1F))
    elif which == 5:
        made[16:18] = struct.pack(">H", draw.choice((0, 20, 39, 40, 60, 65535)))
    elif which == 6:
        made[46] = draw.choice((0x00, 0x40, 0xF0))
    elif which == 7:
        return bytes(made[: draw.randrange(14, len(made) + 1)])
    elif which == 8:
        made[14] = 0x46
    return bytes(made)


@cache
def talk_of(family: int, port: int, hops: int, end: str) -> tuple[bytes, ...]:
    """A connection from its SYN to its end, if it has one."""
    talk = Talk(family=family, port=port, hops=hops)
    frames = [*talk.handshake(), talk.frame(1, "PA", b"y" * 50), talk.frame(0, "A")]
    if end == "FIN":
        frames += [talk.frame(1, "FA"), talk.frame(0, "FA"), talk.frame(1, "A")]
    elif end == "RST":
        frames.append(talk.reset())
    return (*frames, talk.frame(0, "A"), talk.frame(1, "A"))


def talks(draw: random.Random) -> list[bytes]:
    """Packets of connections between few ends: whole ones and parts, on ports that come again."""
    made: list[list[bytes]] = []
    for _ in range(draw.randrange(1, 9)):
        family, port = draw.choice((4, 4, 4, 6)), draw.choice((50000, 50001, 50002))
        hops, end = draw.choice((17, 17, 12)), draw.choice(("", "FIN", "RST"))
        frames = list(talk_of(family, port, hops, end))
        first = draw.choice((0, 0, 0, 1, 2, 3))
        made.append(frames[first:])
    mixed = []
    while made:
        talk_ = draw.choice(made)
        mixed.append(talk_.pop(0))
        if draw.random() < 0.05:
            mixed.append(changed(draw, mixed[-1]))
        if not talk_:
            made.remove(talk_)
    return mixed


def file_of(draw: random.Random, frames: Sequence[bytes]) -> bytes:
    if draw.random() < 0.5:
        return c.pcap(frames, step_ns=draw.choice((1000, 1_000_000, 40_000_000_000)))
    made = c.section() + c.interface() + c.interface()
    ticks = c.START_NS // 1000
    for frame in frames:
        ticks += draw.choice((0, 1, 5000))
        for number in (0, 1) if draw.random() < 0.3 else (draw.choice((0, 0, 0, 1)),):
            made += c.enhanced(frame, ticks=ticks, number=number)
    return made


def test_random_captures(tmp_path: Path) -> None:
    resets = 0
    for seed in range(SEEDS):
        draw = random.Random(seed)
        frames = talks(draw)
        data = file_of(draw, frames)
        if seed % 7 == 0:
            data = data[: draw.randrange(200, len(data))]
        if seed % 5 == 0:
            data = c.compressed(data)
        name = write(tmp_path / "x", data)
        for flows in (draw.choice((1, 2, 3)), FLOWS):
            resets += sum(item.startswith("Reset(") for item in check_alike(name, flows))
    assert resets > SEEDS


def test_the_usual_packet_teaches_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As without a shorter way for it, whatever comes before it and after."""
    taken = 0
    take = Flows.take_usual

    def counted(*args: Any) -> bool:
        nonlocal taken
        found = take(*args)
        taken += found
        return found

    for seed in range(SEEDS):
        draw = random.Random(seed)
        name = write(tmp_path / "x", file_of(draw, [*talks(draw), *talks(draw)]))
        ahead = draw.random() < 0.5
        monkeypatch.setattr(Flows, "take_usual", counted)
        found = told(name, ahead=ahead)
        monkeypatch.setattr(Flows, "take_usual", lambda *args: False)
        assert found == told(name, ahead=ahead)
    assert taken > SEEDS


def test_tunnels_and_tags(tmp_path: Path) -> None:
    links = sorted({link for link, _ in FRAMES.values()})
    made = c.section() + b"".join(c.interface(link=link) for link in links)
    for turn in range(3):
        for name, (link, data) in FRAMES.items():
            ticks = c.START_NS // 1000 + turn * 1000
            made += c.enhanced(data, ticks=ticks, number=links.index(link))
            assert name
    path = write(tmp_path / "x", made)
    for flows in (1, 2, 5, FLOWS):
        check_alike(path, flows)


def test_a_file_that_grows_is_read_as_far_as_it_went(tmp_path: Path) -> None:
    quiet, other = Talk(), Talk(port=50001)
    frames = [*quiet.handshake(), *other.handshake(), other.reset()]
    name = write(tmp_path / "x", c.pcap(frames))
    whole = told(name, ahead=True)[0]
    with CaptureSource(name) as source, open(name, "ab") as file:
        file.write(c.pcap([quiet.frame(1, "PA", b"x"), quiet.reset()])[24:])
        file.flush()
        found = [repr(item) for item in source.items()]
        counts = f"{source.packets} packets, {source.segments} segments; None"
        assert [*found, *source.notes(), counts] == whole


def test_of_quiet_connections_little_is_taken_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet, other = Talk(), Talk(port=50001)
    frames = [*other.handshake(), *quiet.handshake(), *[quiet.frame(1, "PA", b"x" * 9)] * 500]
    name = write(tmp_path / "x", c.pcap([*frames, other.reset()]))
    with CaptureSource(name) as source:
        learned: list[Segment] = []
        learn = source._flows.learn

        def counted(segment: Segment) -> bool:
            learned.append(segment)
            return learn(segment)

        monkeypatch.setattr(source._flows, "learn", counted)
        assert len(list(source.resets())) == 1
    assert len(learned) == 6


@pytest.mark.parametrize("ends", [(US, PEER)])
def test_more_connections_than_pay_are_read_in_one_pass(
    ends: tuple[str, str], tmp_path: Path
) -> None:
    frames = [frame for port in range(50000, 50020) for frame in Talk(port=port).handshake()]
    name = write(tmp_path / "x", c.pcap([*frames, Talk(port=50000).reset()]))
    with CaptureSource(name, flows=2) as source:
        assert len(list(source.resets())) == 1
        assert source.preview is None
    check_alike(name, 2)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
def test_standard_input_that_cannot_be_opened_again_is_read_in_one_pass(tmp_path: Path) -> None:
    talk = Talk()
    frames = [*talk.handshake(), *[talk.frame(1, "PA", b"x" * 1400)] * 400, talk.reset()]
    path = Path(write(tmp_path / "x", c.pcap(frames)))  # more than is read at once
    path.chmod(0o600)
    code = (
        "import os, sys\n"
        "from rsttrace.capture.source import CaptureSource\n"
        "os.setuid(65534)\n"
        "with CaptureSource('-') as source:\n"
        "    print(len(list(source.resets())), source.packets, source.preview)\n"
    )
    with path.open("rb") as file:
        done = subprocess.run(
            [sys.executable, "-c", code], stdin=file, capture_output=True, text=True, check=True
        )
    assert done.stdout == "1 404 None\n"


@pytest.mark.parametrize(("flows", "ahead"), [(FLOWS, True), (1, True), (FLOWS, False)])
def test_progress_is_told_of_both_passes(flows: int, ahead: bool, tmp_path: Path) -> None:
    frames = [frame for port in range(50000, 50020) for frame in Talk(port=port).handshake()]
    name = write(tmp_path / "x", c.pcap(frames * 200))
    told_: list[int] = []
    with CaptureSource(name, flows=flows, ahead=ahead) as source:
        assert list(source.items(told_.append)) == []
    assert sum(told_) == Path(name).stat().st_size
    assert min(told_) >= 0
    assert len(told_) > 2
