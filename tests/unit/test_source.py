"""The live source over a ring buffer in a file: no privilege, and no packet, is needed."""

from __future__ import annotations

import ctypes
import mmap
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from rsttrace.kernel import config, layout, loader
from rsttrace.kernel.loader import Loaded
from rsttrace.kernel.protocol import HookStatus, Report, Request
from rsttrace.kernel.source import LiveSource
from rsttrace.model import Kind, LatePacket, Reset
from tests.unit import builders as b
from tests.unit.rings import FileRing

MS = 1_000_000


@pytest.fixture
def kernel() -> Iterator[FileRing]:
    ring = FileRing(config.RING_PAGES * 4096)
    yield ring
    ring.close()


def empty_maps() -> list[int]:
    """The memory of the maps `rooms` and `buckets`."""
    found = layout.structures()
    sizes = (
        mmap.PAGESIZE,
        (config.FIXED_BUCKETS + config.BUCKETS) * ctypes.sizeof(found.rst_bucket),
    )
    descriptors = [os.memfd_create("map") for _ in sizes]
    for descriptor, size in zip(descriptors, sizes):
        os.ftruncate(descriptor, -(-size // mmap.PAGESIZE) * mmap.PAGESIZE)
    return descriptors


class Opened:
    """What the loading child handed over: a ring, a probe, and counters that are no map.

    Attributes:
        probe: reads from the probe's other end: nothing but the end of file once it is closed.
    """

    def __init__(self, kernel: FileRing) -> None:
        self.probe, held = os.pipe()
        os.set_blocking(self.probe, False)
        hook = HookStatus("net_dev_queue", False, True, "sent resets")
        self.loaded = Loaded(
            Report("tracepoints", "btf", [hook]),
            [
                os.dup(kernel.descriptor),
                *(os.open(os.devnull, os.O_RDONLY) for _ in range(3)),
                *empty_maps(),
                held,
            ],
            "",
        )


@contextmanager
def live(kernel: FileRing, monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveSource]:
    """A source that reads the ring."""
    opened = Opened(kernel)
    monkeypatch.setattr(loader, "load", lambda *_: opened.loaded)
    with pytest.raises(OSError, match="bpf") as at_the_end, LiveSource(Request(())) as source:
        yield source
    assert at_the_end.value.__context__ is None, "it hides what failed before"
    os.close(opened.probe)


def test_counts_that_cannot_be_read_leave_nothing_attached(
    kernel: FileRing, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Opened(kernel)
    monkeypatch.setattr(loader, "load", lambda *_: opened.loaded)
    with (
        pytest.raises(OSError, match="bpf"),
        LiveSource(Request(())),
        pytest.raises(BlockingIOError),
    ):
        os.read(opened.probe, 1)  # it is attached
    assert os.read(opened.probe, 1) == b""
    assert (opened.loaded.ring, opened.loaded.counts, opened.loaded.flows) == (-1, -1, (-1, -1))
    os.close(opened.probe)


def test_what_ended_the_run_is_not_hidden_by_that(
    kernel: FileRing, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Opened(kernel)
    monkeypatch.setattr(loader, "load", lambda *_: opened.loaded)
    with pytest.raises(BrokenPipeError), LiveSource(Request(())):
        raise BrokenPipeError
    assert os.read(opened.probe, 1) == b""
    os.close(opened.probe)


def put(kernel: FileRing, time_ns: int, port: int) -> None:
    """An event of that time in the ring; its port tells it from others."""
    found = b.event(Kind.RECEIVED_ACCEPTED, ts=time_ns)
    b.headers(found.rst, b.ipv4_bytes(), b.tcp_bytes(sport=port))
    kernel.write(bytes(found))


def ports(found: list[Reset | LatePacket]) -> list[int]:
    return [item.rst.src.port for item in found if isinstance(item, Reset)]


def test_events_of_two_reads_come_in_order_of_time(
    kernel: FileRing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One CPU reserves its place in the ring and then takes the time, another has it before."""
    with live(kernel, monkeypatch) as source:
        soon = time.monotonic_ns() + 300 * MS
        put(kernel, soon, 2)
        found = ports(source.drain())
        put(kernel, soon - MS, 1)
        while len(found) < 2:
            more = ports(source.wait(0))
            assert more, "it says that there is nothing, and holds something"
            found += more
        assert found == [1, 2]
        assert source.wait(0) == []


def test_the_end_of_a_run_gives_what_is_held(
    kernel: FileRing, monkeypatch: pytest.MonkeyPatch
) -> None:
    with live(kernel, monkeypatch) as source:
        far = time.monotonic_ns() + 3600 * 1000 * MS
        for port in range(200, 0, -1):
            put(kernel, far + port, port)
        assert ports(source.drain()) == []
        put(kernel, far, 0)
        source.detach()
        found: list[int] = []
        while rest := source.drain():
            found += ports(rest)
        assert found == list(range(201))
