from __future__ import annotations

import os
import random
import select
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from rsttrace.commands import writer
from rsttrace.commands.writer import TOGETHER_BYTES, Stuck, Writer


@pytest.fixture
def pipe() -> Iterator[tuple[int, TextIO]]:
    """A pipe: what to read from, and a stream that writes into it."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "w", encoding="utf-8") as stream:
        yield reading, stream
    os.close(reading)


def waiting(reading: int) -> str:
    """What lies in a pipe."""
    poll = select.poll()
    poll.register(reading, select.POLLIN)
    return os.read(reading, 1 << 20).decode() if poll.poll(0) else ""


def test_a_line_alone_is_there_at_once(pipe: tuple[int, TextIO]) -> None:
    reading, stream = pipe
    made = Writer(stream)
    made.lines(["one", "two"])
    assert waiting(reading) == "one\ntwo\n"


def test_lines_that_belong_together_are_all_there_at_the_end(pipe: tuple[int, TextIO]) -> None:
    reading, stream = pipe
    made = Writer(stream)
    with made.together():
        made.lines(["one"])
        with made.together():
            made.lines(["two"])
        made.lines(["three"])
    assert waiting(reading) == "one\ntwo\nthree\n"
    made.lines(["four"])
    assert waiting(reading) == "four\n"


def test_they_are_written_though_something_fails(pipe: tuple[int, TextIO]) -> None:
    reading, stream = pipe
    made = Writer(stream)

    def fail() -> None:
        with made.together():
            made.lines(["one"])
            raise LookupError

    with pytest.raises(LookupError):
        fail()
    assert waiting(reading) == "one\n"


def test_many_do_not_wait_for_the_end(pipe: tuple[int, TextIO]) -> None:
    reading, stream = pipe
    made = Writer(stream)
    line = "x" * 999
    with made.together():
        for _ in range(TOGETHER_BYTES // 1000 + 1):
            made.lines([line])
        assert len(waiting(reading)) > TOGETHER_BYTES


def test_a_slow_reader_gets_it_all(pipe: tuple[int, TextIO]) -> None:
    reading, stream = pipe
    draw = random.Random(14)
    lines = ["x" * draw.choice((1, 100, 3000, 70_000)) for _ in range(200)]
    found = bytearray()

    def read() -> None:
        while not found.endswith(b"end\n"):
            found.extend(os.read(reading, draw.choice((1, 5000, 1 << 17))))

    thread = threading.Thread(target=read)
    thread.start()
    made = Writer(stream)
    with made.together():
        for line in lines:
            made.lines([line])
    made.lines(["end"])
    thread.join()
    assert found.decode() == "".join(f"{line}\n" for line in (*lines, "end"))


def test_a_reader_that_does_not_read_holds_nothing_up(
    pipe: tuple[int, TextIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, stream = pipe
    monkeypatch.setattr(writer, "GRACE_S", 0.0)
    made = Writer(stream, ended=lambda: True)

    def write_much() -> None:
        with made.together():
            for _ in range(200):
                made.lines(["x" * 1000])

    with pytest.raises(Stuck):
        write_much()


def test_a_file_takes_it_as_it_comes(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with path.open("w", encoding="utf-8") as stream:
        made = Writer(stream)
        with made.together():
            for number in range(500):
                made.lines([f"{number} " + "x" * 1000])
    rows = path.read_text(encoding="utf-8").splitlines()
    assert [row.split()[0] for row in rows] == [str(number) for number in range(500)]


@pytest.mark.parametrize("name", ["out", "/dev/null"])
def test_what_never_makes_us_wait_takes_all_in_one_piece(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrote, write = [], os.write

    def watched(descriptor: int, data: bytes) -> int:
        wrote.append(len(data))
        return write(descriptor, data)

    with (tmp_path / name).open("w", encoding="utf-8") as stream:
        made = Writer(stream)
        monkeypatch.setattr(os, "write", watched)
        made.lines(["x" * 100_000])
    assert wrote == [100_001]
