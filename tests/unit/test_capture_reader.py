from __future__ import annotations

import os
import random
import struct
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from rsttrace.capture.pcap import MAX_PACKET, Pcap, Record
from rsttrace.capture.pcapng import Pcapng
from rsttrace.capture.reader import Capture
from rsttrace.errors import CaptureError
from rsttrace.model import NO_TIME
from tests.unit import captures as c
from tests.unit.captures import SECOND, START_NS, write

DATA = [bytes([65 + n]) * (60 + n) for n in range(3)]


def read(name: str) -> tuple[list[Record], str | None]:
    with Capture(name) as capture:
        return list(capture), capture.problem


# ---- formats ----


@pytest.mark.parametrize("endian", "<>")
@pytest.mark.parametrize("nano", [False, True], ids=["us", "ns"])
@pytest.mark.parametrize("pack", [bytes, c.compressed], ids=["plain", "gzip"])
def test_pcap(endian: str, nano: bool, pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    made = c.pcap(DATA, endian=endian, nano=nano, start_ns=START_NS + 1_002_003, step_ns=SECOND)
    records, problem = read(write(tmp_path / "x", pack(made)))
    cut = 0 if nano else 3
    assert problem is None
    assert records == [
        Record(n + 1, START_NS + 1_002_003 - cut + n * SECOND, c.ETHERNET, data, len(data))
        for n, data in enumerate(DATA)
    ]


def test_the_upper_bits_of_pcaps_link_type_are_not_the_link_type(tmp_path: Path) -> None:
    made = c.pcap(DATA, link=0x5000_0001)  # a frame check sequence of 4 bytes
    assert {record.link for record in read(write(tmp_path / "x", made))[0]} == {1}


@pytest.mark.parametrize("endian", "<>")
def test_pcapng_interfaces_have_their_own_link_type_and_clock(endian: str, tmp_path: Path) -> None:
    made = (
        c.section(endian)
        + c.interface(endian, c.ETHERNET)
        + c.interface(endian, c.RAW, resolution=9)
        + c.interface(endian, c.SLL, resolution=0x8A, offset=-100)
        + c.enhanced(DATA[0], ticks=5_000_001, endian=endian)
        + c.enhanced(DATA[1], ticks=6_000_000_007, number=1, endian=endian)
        + c.enhanced(DATA[2], ticks=200 << 10 | 512, number=2, endian=endian, direction=2)
    )
    records, problem = read(write(tmp_path / "x", made))
    assert problem is None
    assert records == [
        Record(1, 5_000_001_000, c.ETHERNET, DATA[0], 60, 0, 0),
        Record(2, 6_000_000_007, c.RAW, DATA[1], 61, 0, 1),
        Record(3, 100_500_000_000, c.SLL, DATA[2], 62, 2, 2),
    ]


@pytest.mark.parametrize(("first", "second"), ["<<", "<>", "><"])
def test_a_section_has_its_own_interfaces_and_byte_order(
    first: str, second: str, tmp_path: Path
) -> None:
    made = c.pcapng(DATA[:1], endian=first) + c.pcapng(DATA[1:], c.RAW, endian=second)
    records, problem = read(write(tmp_path / "x", made))
    assert problem is None
    assert [(r.number, r.link, r.data) for r in records] == [
        (1, c.ETHERNET, DATA[0]),
        (2, c.RAW, DATA[1]),
        (3, c.RAW, DATA[2]),
    ]


@pytest.mark.parametrize(("snaplen", "kept"), [(0, 60), (40, 40)])
def test_simple_packets_have_no_time(snaplen: int, kept: int, tmp_path: Path) -> None:
    data = DATA[0][:kept]
    made = c.section() + c.interface(snaplen=snaplen)
    made += c.block("<", 3, struct.pack("<I", 60) + data)
    assert read(write(tmp_path / "x", made)) == ([Record(1, NO_TIME, 1, data, 60)], None)


def test_obsolete_packet_blocks_and_unknown_ones(tmp_path: Path) -> None:
    packet = struct.pack("<HHIIII", 0, 0, 0, 7_000_000, 60, 60) + DATA[0]
    secrets = struct.pack("<II", 0x544C534B, 4) + b"xxxx"
    made = c.section() + c.interface() + c.block("<", 10, secrets) + c.block("<", 0xBAD, b"abc")
    made += c.block("<", 0x80000001, struct.pack("<I", 7)) + c.block("<", 2, packet)
    assert read(write(tmp_path / "x", made)) == ([Record(1, 7 * SECOND, 1, DATA[0], 60)], None)


OTHER_BLOCKS = {
    "statistics": c.block("<", 5, struct.pack("<III", 0, 5, 6)),
    "names": c.block("<", 4, struct.pack("<HH", 0, 0)),
    "secrets": c.block("<", 10, struct.pack("<II", 0x544C534B, 4) + b"key\n"),
    "custom": c.block("<", 0xBAD, struct.pack("<I", 32473) + b"abcd"),
    "custom-not-copied": c.block("<", 0x40000BAD, struct.pack("<I", 32473)),
    "journal": c.block("<", 9, b"__REALTIME_TIMESTAMP=1\n"),
    "process": c.block("<", 0x80000001, struct.pack("<I", 7)),
    "unknown": c.block("<", 0x7777, b"?" * 400),
    "interface": c.interface(),
    "section": c.section(">"),
}


@pytest.mark.parametrize("name", OTHER_BLOCKS)
def test_a_file_may_end_with_any_block(name: str, tmp_path: Path) -> None:
    """draft-ietf-opsawg-pcapng §3.1: blocks, of which packets are one kind; no order at the end."""
    other = OTHER_BLOCKS[name]
    for count in (0, 2):
        made = c.pcapng(DATA[:count])
        for tail in (other, other * 3):
            records, problem = read(write(tmp_path / "x", made + tail))
            assert (len(records), problem) == (count, None)
        records, problem = read(write(tmp_path / "x", made + other + other[:-1]))
        assert len(records) == count
        assert problem is not None
        assert problem.startswith(f"broken at packet {count + 1}, byte {len(made + other)}: ")
    records, problem = read(write(tmp_path / "x", c.pcapng(DATA[:1]) + OTHER_BLOCKS["statistics"]))
    assert (len(records), problem) == (1, None)


def test_a_pipe_is_read_as_it_comes() -> None:
    """What was written is read before the pipe ends: `tcpdump -U -w - | rsttrace read -`."""
    made = c.pcapng(DATA)
    reading, writing = os.pipe()
    try:
        os.write(writing, made)
        with Capture(f"/dev/fd/{reading}") as capture:
            assert capture.size is None
            records = iter(capture)
            assert [next(records).data for _ in DATA] == DATA
    finally:
        os.close(reading)
        os.close(writing)


def test_a_quiet_pipe_can_be_left() -> None:
    reading, writing = os.pipe()
    leave = threading.Event()
    try:
        os.write(writing, c.pcap(DATA[:1]))
        with Capture(f"/dev/fd/{reading}", leave.is_set) as capture:
            records = iter(capture)
            assert next(records).number == 1
            leave.set()
            assert list(records) == []
            assert capture.problem is None
    finally:
        os.close(reading)
        os.close(writing)


# ---- broken files: what can be read is read, and the rest is named ----


def broken(tmp_path: Path, data: bytes) -> tuple[int, str]:
    records, problem = read(write(tmp_path / "x", data))
    assert problem is not None
    return len(records), problem


@pytest.mark.parametrize("cut", range(1, 16))
def test_pcap_cut_in_a_header(cut: int, tmp_path: Path) -> None:
    made = c.pcap(DATA[:2])
    count, problem = broken(tmp_path, made[: 24 + 16 + 60 + cut])
    assert count == 1
    assert problem == "broken at packet 2, byte 100: the file ends inside a packet"


def test_pcap_cut_in_a_packet_gives_what_is_there(tmp_path: Path) -> None:
    records, problem = read(write(tmp_path / "x", c.pcap(DATA)[:-5]))
    assert [len(record.data) for record in records] == [60, 61, 57]
    assert records[2].wire_length == 62
    assert problem == "broken at packet 3, byte 177: the file ends inside a packet"


def test_pcap_with_an_impossible_length(tmp_path: Path) -> None:
    made = c.pcap(DATA[:1]) + struct.pack("<IIII", 1, 1, MAX_PACKET + 1, 60) + b"x" * 400_000
    count, problem = broken(tmp_path, made)
    assert count == 1
    assert problem.startswith("broken at packet 2, byte 100: a packet of 262145 bytes")


@pytest.mark.parametrize(
    ("tail", "words"),
    [
        (c.enhanced(DATA[0])[:50], "the file ends inside a packet"),
        (struct.pack("<II", 6, 11), "length"),
        (struct.pack("<II", 6, 0xFFFFFFF0), "which no capture holds"),
        (c.enhanced(DATA[0])[:-4] + b"\1\2\3\4", "bad blocklen"),
        (c.enhanced(DATA[0], number=7), "a packet of interface 7, where the section has 1"),
        (c.block("<", 6, struct.pack("<5I", 0, 0, 0, 1000, 1000) + b"abcd"), "with room for 4"),
        (c.block("<", 6, b"short"), "EPB is too small"),
        (c.block("<", 1, b"x"), "IDB is too small"),
        (b"\n\r\r\n" + b"\x1c\0\0\0" + b"nonsense" * 3, "Bad magic"),
    ],
)
def test_pcapng_breaks_off(tail: bytes, words: str, tmp_path: Path) -> None:
    good = c.pcapng(DATA[:2])
    count, problem = broken(tmp_path, good + tail)
    assert count == 2
    assert problem.startswith(f"broken at packet 3, byte {len(good)}: ")
    assert words in problem


def test_too_many_interfaces(tmp_path: Path) -> None:
    count, problem = broken(tmp_path, c.section() + c.interface() * 65_537)
    assert (count, "more than 65536 interfaces" in problem) == (0, True)


def test_gzip_cut_and_damaged(tmp_path: Path) -> None:
    many = [os.urandom(1000) for _ in range(500)]
    packed = c.compressed(c.pcap(many))
    count, problem = broken(tmp_path, packed[: len(packed) // 2])
    assert 100 < count < 300
    assert "unpacked byte" in problem
    assert problem.endswith("the compressed data ends too early")
    count, problem = broken(tmp_path, packed[:-8] + b"\0" * 8)
    assert count <= 500
    assert "the compressed data is damaged" in problem


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty"),
        (b"hello, world", "is no capture"),
        (b"\xa1\xb2", "is no capture"),
        (c.pcap([])[:20], "is no capture"),
        (c.section()[:20], "is no capture"),
        (c.compressed(b"hello, world"), "is no capture"),
        (c.compressed(c.compressed(c.pcap(DATA))), "compressed twice"),
        (b"\x1f\x8b\x08garbage", "is no capture"),
        (b"\x28\xb5\x2f\xfd....", "compressed with zstd; unpack it first"),
        (b"\xfd7zXZ\0", "compressed with xz"),
        (b"snoop\0\0\0", "snoop format"),
    ],
)
def test_no_capture(data: bytes, words: str, tmp_path: Path) -> None:
    name = write(tmp_path / "x", data)
    with pytest.raises(CaptureError) as caught:
        Capture(name)
    assert words in str(caught.value)
    assert name in str(caught.value)


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="No such file"):
        Capture(str(tmp_path / "missing"))
    with pytest.raises(CaptureError, match="directory"):
        Capture(str(tmp_path))
    with pytest.raises(CaptureError, match="null byte"):
        Capture("a\0b")


def test_an_empty_capture_is_a_capture(tmp_path: Path) -> None:
    assert read(write(tmp_path / "a", c.pcap([]))) == ([], None)
    assert read(write(tmp_path / "b", c.section())) == ([], None)


def test_no_file_is_left_open(tmp_path: Path) -> None:
    name = write(tmp_path / "x", b"hello, world")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(CaptureError):
            Capture(name)
        read(write(tmp_path / "y", c.compressed(c.pcap(DATA))))
    assert len(os.listdir("/proc/self/fd")) == before


# ---- what is ordinary is read here, the rest by scapy: one and the same ----


def interface_with(endian: str, link: int, options: bytes) -> bytes:
    return c.block(endian, 1, struct.pack(endian + "HHI", link, 0, 0) + options)


def packet_with(endian: str, data: bytes, options: bytes) -> bytes:
    head = struct.pack(endian + "5I", 0, 1, 2, len(data), len(data) + 7)
    return c.block(endian, 6, head + data + b"\0" * (-len(data) % 4) + options)


def random_blocks(draw: random.Random) -> bytes:
    """A pcapng file of any blocks: mostly ordinary, now and then broken."""
    made = b""
    for _ in range(draw.randrange(1, 4)):
        endian = draw.choice("<>")
        made += c.section(endian)
        for _ in range(draw.randrange(3)):
            made += interface_with(
                endian,
                draw.choice((1, 101)),
                draw.choice(
                    (
                        b"",
                        c.option(endian, 9, bytes([draw.choice((3, 6, 9, 0x8A))])),
                        c.option(endian, 9, b"\6\6") + c.option(endian, 2, b"eth0"),
                        c.option(endian, 2, b"eth1") + c.option(endian, 14, b"\0" * 7 + b"\1"),
                    )
                ),
            )
        for _ in range(draw.randrange(8)):
            data = draw.randbytes(draw.randrange(80))
            made += draw.choice(
                (
                    c.enhanced(data, endian=endian, number=draw.choice((0, 0, 0, 1, 5))),
                    packet_with(endian, data, c.option(endian, 1, b"a note")),
                    packet_with(
                        endian,
                        data,
                        c.option(endian, 2, draw.choice((b"\1\0\0\0", b"\0\0\0\2", b"x")))
                        + c.option(endian, 4, b"\0" * 7 + b"\3")
                        + c.option(endian, 0, b""),
                    ),
                    c.block(endian, 3, struct.pack(endian + "I", len(data)) + data),
                    c.block(endian, 5, struct.pack(endian + "III", 0, 1, 2)),
                    c.block(endian, 4, data),
                    c.block(endian, 0x80000001, data),
                )
            )
    if draw.random() < 0.4:
        made = made[: draw.randrange(len(made))]
    if draw.random() < 0.2:
        place = draw.randrange(len(made) or 1)
        made = made[:place] + draw.randbytes(1) + made[place + 1 :]
    return made


def random_packets(draw: random.Random) -> bytes:
    """A pcap file, now and then a broken one."""
    made = c.pcap(
        [draw.randbytes(draw.randrange(80)) for _ in range(draw.randrange(9))],
        endian=draw.choice("<>"),
        nano=draw.random() < 0.5,
        snaplen=draw.choice((20, 262144)),
    )
    if draw.random() < 0.5:
        made = made[: draw.randrange(len(made))]
    if draw.random() < 0.3:
        place = draw.randrange(len(made) or 1)
        made = made[:place] + draw.randbytes(1) + made[place + 1 :]
    return made


def everything(name: str) -> object:
    """What a reader tells of a file."""
    try:
        with Capture(name) as capture:
            rows = [
                (record, capture.section, capture.interface(record.interface)) for record in capture
            ]
            return rows, capture.problem, capture.packets, capture.extents
    except CaptureError as error:
        return str(error)


def check_alike(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = everything(name)
    with monkeypatch.context() as patch:
        patch.setattr(Pcap, "ordinary", lambda self, number: iter(()))
        patch.setattr(Pcapng, "ordinary", lambda self, number: iter(()))
        assert everything(name) == found


@pytest.mark.parametrize("make", [random_packets, random_blocks])
def test_ordinary_packets_are_as_scapy_reads_them(
    make: Callable[[random.Random], bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for seed in range(1500):
        data = make(random.Random(seed))
        packed = seed % 5 == 0
        check_alike(write(tmp_path / "x", c.compressed(data) if packed else data), monkeypatch)


@pytest.mark.parametrize("ordinary", [True, False])
def test_of_what_a_file_decides_little_is_kept_and_not_all_is_looked_at(
    ordinary: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interface with a long name, and one whose clock's resolution comes after 256 options."""
    if not ordinary:
        monkeypatch.setattr(Pcapng, "ordinary", lambda self, number: iter(()))
    note, micro = c.option("<", 1, b"x"), c.option("<", 9, b"\3")
    data = c.section() + interface_with("<", 1, c.option("<", 2, b"n" * 60_000))
    data += interface_with("<", 1, note * 255 + micro) + interface_with("<", 1, note * 256 + micro)
    data += b"".join(
        c.block("<", 6, struct.pack("<5I", which, 0, 5_000_000, 60, 60) + DATA[0])
        for which in (0, 1, 2)
    )
    with Capture(write(tmp_path / "x", data)) as capture:
        times = [record.time_ns for record in capture]
        assert capture.interface(0) == (0, "n" * 256)
    assert times == [5 * SECOND, 5000 * SECOND, 5 * SECOND]


@pytest.mark.parametrize("path", c.known(), ids=lambda path: path.name)
def test_captures_are_as_scapy_reads_them(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_alike(str(path), monkeypatch)


@pytest.mark.parametrize("pcapng", [False, True])
def test_larger_than_what_is_read_at_once(
    pcapng: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = random.Random(14)
    many = [draw.randbytes(draw.choice((60, 1500, 70_000))) for _ in range(100)]
    many[50] = draw.randbytes(MAX_PACKET)
    name = write(tmp_path / "x", c.pcapng(many) if pcapng else c.pcap(many))
    assert len(read(name)[0]) == 100
    check_alike(name, monkeypatch)
