"""How long a capture watched, as its packets and the file itself say."""

from __future__ import annotations

from pathlib import Path

import pytest

from rsttrace.capture.extent import Extent
from rsttrace.capture.reader import Capture
from tests.unit import captures as c

SECOND = 1_000_000_000
FIRST = c.START_NS // SECOND * SECOND
DATA = c.incident()[:3]


def extents(path: Path, data: bytes) -> dict[tuple[int, int], Extent]:
    """What is known of each interface of a file, once it was read."""
    found: dict[tuple[int, int], Extent] = {}
    with Capture(c.write(path, data)) as capture:
        for record in capture:
            key = (capture.section, record.interface)
            found[key] = capture.extents.setdefault(key, Extent())
            found[key].add(record.time_ns)
        return {**capture.extents, **found}


def file(
    *blocks: bytes, endian: str = "<", resolution: int | None = None, offset: int | None = None
) -> bytes:
    """One interface, two packets a second apart, and then these blocks."""
    unit = 10 ** (9 - (6 if resolution is None else resolution))
    made = c.section(endian) + c.interface(endian, resolution=resolution, offset=offset)
    for number, data in enumerate(DATA[:2]):
        ticks = (FIRST + number * SECOND) // unit
        made += c.enhanced(data, ticks=ticks, endian=endian)
    return made + b"".join(blocks)


def only(path: Path, data: bytes) -> Extent:
    (extent,) = extents(path, data).values()
    return extent


@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("resolution", [None, 6, 9])
def test_a_statistics_block_tells(endian: str, resolution: int | None, tmp_path: Path) -> None:
    unit = 10 ** (9 - (resolution or 6))
    block = c.statistics(
        taken=(FIRST + 9 * SECOND) // unit,
        start=(FIRST - 5 * SECOND) // unit,
        end=(FIRST + 7 * SECOND) // unit,
        counts={4: 2, 5: 0},
        endian=endian,
    )
    extent = only(tmp_path / "x", file(block, endian=endian, resolution=resolution))
    assert extent.span == (FIRST - 5 * SECOND, FIRST + 7 * SECOND)
    assert (extent.dropped, extent.packets) == (0, 2)


def test_the_offset_of_its_times(tmp_path: Path) -> None:
    block = c.statistics(end=(FIRST + 7 * SECOND) // 1000)
    extent = only(tmp_path / "x", file(block, offset=3600))
    assert extent.span == (FIRST + 3600 * SECOND, FIRST + 3607 * SECOND)


def test_it_tells_when_it_was_taken_at_least(tmp_path: Path) -> None:
    block = c.statistics(taken=(FIRST + 9 * SECOND) // 1000)
    assert only(tmp_path / "x", file(block)).span == (FIRST, FIRST + 9 * SECOND)


def test_a_pcap_file_tells_by_its_packets_alone(tmp_path: Path) -> None:
    extent = only(tmp_path / "x", c.pcap(DATA))
    assert extent.dropped is None
    assert extent.span == (extent.first_ns, extent.last_ns)


@pytest.mark.parametrize(
    ("counts", "dropped"), [({5: 3}, 3), ({7: 4}, 4), ({5: 3, 7: 4}, 7), ({}, None), ({5: 0}, 0)]
)
def test_what_was_dropped(counts: dict[int, int], dropped: int | None, tmp_path: Path) -> None:
    assert only(tmp_path / "x", file(c.statistics(counts=counts))).dropped == dropped


def test_what_was_dropped_before_a_packet(tmp_path: Path) -> None:
    data = file(c.enhanced(DATA[2], ticks=FIRST // 1000, lost=2))
    assert only(tmp_path / "x", data).dropped == 2


@pytest.mark.parametrize(
    "block",
    [
        c.statistics(end=(FIRST + 7 * SECOND) // 1000, counts={8: 3}),
        c.statistics(end=(FIRST + 7 * SECOND) // 1000, counts={4: 4, 5: 1}),
        c.statistics(end=FIRST // 1000),
        c.statistics(start=(FIRST + SECOND // 2) // 1000, end=(FIRST + 7 * SECOND) // 1000),
    ],
    ids=["cut-delivered", "cut-received", "ends-before", "begins-after"],
)
def test_statistics_that_do_not_fit_the_packets_say_nothing(block: bytes, tmp_path: Path) -> None:
    """A tool cut the capture, or moved its times, and left the block as it was."""
    assert only(tmp_path / "x", file(block)).span == (FIRST, FIRST + SECOND)


def test_each_interface_of_each_section_for_itself(tmp_path: Path) -> None:
    whole = file(c.statistics(end=(FIRST + 7 * SECOND) // 1000))
    found = extents(tmp_path / "x", whole + file(c.interface(), c.statistics(number=1)))
    assert {key: extent.packets for key, extent in found.items()} == {
        (0, 0): 2,
        (1, 0): 2,
        (1, 1): 0,
    }
    assert found[0, 0].span == (FIRST, FIRST + 7 * SECOND)
    assert found[1, 0].span == (FIRST, FIRST + SECOND)
    assert found[1, 1].span is None


@pytest.mark.parametrize(
    "block",
    [
        c.block("<", 5, b""),
        c.block("<", 5, b"\0" * 8),
        c.statistics(number=9, end=1),
        c.block("<", 5, b"\0" * 12 + c.option("<", 3, b"\1\2")),
        c.block("<", 5, b"\0" * 12 + c.option("<", 5, b"\1\2")),
    ],
)
def test_blocks_that_make_no_sense_say_nothing(block: bytes, tmp_path: Path) -> None:
    extent = only(tmp_path / "x", file(block))
    assert (extent.span, extent.dropped) == ((FIRST, FIRST + SECOND), None)
