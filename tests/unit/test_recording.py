"""``-w``: what is written when, what is never overwritten, and what a full disk leaves."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from scapy.utils import PcapNgReader

from rsttrace.commands.recording import Recording, Rotation, rotation
from rsttrace.errors import RsttraceError, UsageError
from rsttrace.judge.verdict import judge
from rsttrace.model import Entry
from tests.unit import captures as c
from tests.unit.captures import Talk, write
from tests.unit.command import run
from tests.unit.test_render_pcapng import SEEN, TIME_NS, V4, reset_of

DEADLINE_S = 60
BEFORE = b"what was there before"


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    """Three resets, of three connections one after another."""
    packets = []
    for port in (50000, 50001, 50002):
        talk = Talk(port=port)
        packets += [*talk.handshake(), talk.reset(ttl=47)]
    return Path(write(tmp_path / "in.pcap", c.pcap(packets)))


@pytest.fixture
def quiet(tmp_path: Path) -> Path:
    """No reset."""
    return Path(write(tmp_path / "quiet.pcap", c.pcap(Talk(port=50000).handshake())))


def numbers(path: Path) -> list[str]:
    """The first words of all comments."""
    with PcapNgReader(str(path)) as reader:
        return [packet.comments[0].decode().split(";")[0] for packet in reader]


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


# ---- never over an input ----


@pytest.mark.parametrize("way", ["itself", "symbolic", "hard", "dots", "stdin", "rotated"])
def test_an_input_is_never_an_output(way: str, capture: Path, tmp_path: Path) -> None:
    before = capture.read_bytes()
    out = tmp_path / "other.pcap"
    if way == "symbolic":
        out.symlink_to(capture)
    elif way == "hard":
        os.link(capture, out)
    elif way == "dots":
        out = tmp_path / ".." / tmp_path.name / capture.name
    else:
        out = capture
    more = ("--rotate", "1k", "--keep", "1") if way == "rotated" else ()
    if way == "stdin":
        done = run("read", "-", "-w", str(out), stdin=capture)
    else:
        done = run("read", str(capture), "-w", str(out), *more)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"it is read" in done.stderr
    assert capture.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted({"in.pcap", out.name})


@pytest.mark.parametrize("which", [0, 1])
def test_neither_file_of_a_comparison_is_overwritten(
    which: int, capture: Path, tmp_path: Path
) -> None:
    other = tmp_path / "b.pcap"
    other.write_bytes(capture.read_bytes())
    both = (capture, other)
    before = both[which].read_bytes()
    done = run("compare", str(capture), str(other), "-w", str(both[which]))
    assert done.returncode == 2
    assert b"it is read" in done.stderr
    assert both[which].read_bytes() == before


def test_a_file_of_fingerprints_is_an_input(capture: Path, tmp_path: Path) -> None:
    table = tmp_path / "mine.toml"
    table.write_text("[[fingerprint]]\n")
    done = run("read", str(capture), "--fingerprints", str(table), "-w", str(table))
    assert done.returncode != 0
    assert table.read_text() == "[[fingerprint]]\n"


def test_output_does_not_go_into_the_file_that_is_read(capture: Path) -> None:
    before = capture.read_bytes()
    with capture.open("ab") as out:
        done = run("read", str(capture), stdout=out.fileno())
    assert done.returncode == 2
    assert b"standard output goes to" in done.stderr
    assert capture.read_bytes() == before


def test_lines_and_packets_do_not_share_a_file(capture: Path, tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as out:
        done = run("read", str(capture), "-w", out.name, stdout=out.fileno())
    assert done.returncode == 2
    assert b"standard output goes to" in done.stderr


def test_the_oldest_that_is_removed_is_no_input(capture: Path, tmp_path: Path) -> None:
    first = tmp_path / "out.1"
    os.link(capture, first)
    before = capture.read_bytes()
    run("read", str(first), "-w", str(tmp_path / "out"), "--rotate", "1", "--keep", "1")
    assert first.read_bytes() == before
    assert (tmp_path / "out.3").exists()


# ---- made when there is something to write ----


@pytest.mark.parametrize("failing", ["no reset", "no capture", "missing"])
def test_what_was_there_stays_until_the_first_entry(
    failing: str, quiet: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.pcapng"
    out.write_bytes(BEFORE)
    source = quiet
    if failing == "no capture":
        source = tmp_path / "text"
        source.write_text("not a capture\n")
    elif failing == "missing":
        source = tmp_path / "missing"
    done = run("read", str(source), "-w", str(out))
    assert done.returncode == (0 if failing == "no reset" else 1)
    assert out.read_bytes() == BEFORE
    assert b"nothing was written" in done.stderr
    assert leftovers(tmp_path) == []


def test_no_file_is_made_for_nothing(quiet: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.pcapng"
    assert run("read", str(quiet), "-w", str(out)).returncode == 0
    assert not out.exists()


def test_a_file_is_replaced_with_its_mode_and_through_a_link(capture: Path, tmp_path: Path) -> None:
    out, link = tmp_path / "out.pcapng", tmp_path / "link"
    out.write_bytes(BEFORE)
    out.chmod(0o640)
    link.symlink_to(out)
    assert run("read", str(capture), "-w", str(link)).returncode == 0
    assert link.is_symlink()
    assert stat.S_IMODE(out.stat().st_mode) == 0o640
    assert len([text for text in numbers(out) if text.startswith("rsttrace #")]) == 3
    assert leftovers(tmp_path) == []


def test_a_new_file_has_the_mode_of_any_new_file(capture: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "out.pcapng", tmp_path / "other"
    other.touch()
    assert run("read", str(capture), "-w", str(out)).returncode == 0
    assert out.stat().st_mode == other.stat().st_mode


@pytest.mark.parametrize(
    ("name", "words"), [("no/such/folder/x", "no folder"), (".", "it is a folder")]
)
def test_what_cannot_be_written_is_said_before_anything_is_read(
    name: str, words: str, capture: Path, tmp_path: Path
) -> None:
    done = run("read", str(capture), "-w", name, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, b"")
    assert words in done.stderr.decode()


# ---- standard output, pipes, devices ----


def test_packets_on_standard_output(capture: Path, tmp_path: Path) -> None:
    done = run("read", str(capture), "-w", "-")
    assert done.returncode == 0
    (tmp_path / "out").write_bytes(done.stdout)
    assert sum(text.startswith("rsttrace #") for text in numbers(tmp_path / "out")) == 3
    assert done.stderr.count(b" IN  ") == 3  # the text


def test_standard_output_is_not_for_packets_and_json(capture: Path) -> None:
    done = run("read", str(capture), "-o", "json", "-w", "-")
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"both want standard output" in done.stderr


def test_a_reader_of_packets_that_goes_away_ends_it_quietly(capture: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = run("read", str(capture), "-w", "-", stdout=writing)
    os.close(writing)
    assert done.returncode == 0
    assert b"Traceback" not in done.stderr


def test_a_named_pipe(capture: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE) as reader:
        assert run("read", str(capture), "-w", str(pipe)).returncode == 0
        got, _ = reader.communicate(timeout=DEADLINE_S)
    (tmp_path / "out").write_bytes(got)
    assert len(numbers(tmp_path / "out")) >= 3
    assert pipe.is_fifo()


# ---- a full disk ----


@pytest.fixture
def long_capture(tmp_path: Path) -> Path:
    packets = []
    for port in range(50000, 50100):
        talk = Talk(port=port)
        packets += [*talk.handshake(), talk.reset(ttl=47)]
    return Path(write(tmp_path / "long.pcap", c.pcap(packets)))


@pytest.mark.parametrize("most_bytes", [20_000, 50, 0])
def test_a_full_disk_ends_the_writing_not_the_run(
    most_bytes: int, long_capture: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.pcapng"
    out.write_bytes(BEFORE)
    done = run("read", "--each", str(long_capture), "-w", str(out), most_bytes=most_bytes)
    assert done.returncode == 1  # what was asked for is not whole
    assert done.stdout.count(b" IN  ") == 100
    warnings = [line for line in done.stderr.splitlines() if line.startswith(b"warning")]
    assert len(warnings) == 1
    assert b"File too large" in warnings[0]
    if most_bytes < 100:
        assert out.read_bytes() == BEFORE
    else:
        assert out.stat().st_size <= most_bytes
        found = numbers(out)  # whole packets only
        assert 3 < sum(text.startswith("rsttrace #") for text in found) < 100
    assert leftovers(tmp_path) == []


def test_a_full_device(capture: Path) -> None:
    done = run("read", str(capture), "-w", "/dev/full")
    assert done.returncode == 1
    assert done.stdout.count(b" IN  ") == 3
    assert done.stderr.count(b"No space left") == 1


def test_packets_are_written_though_nothing_takes_the_text(capture: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with open("/dev/full", "wb") as full:
        done = run("read", str(capture), "-w", str(out), stdout=full.fileno())
    assert done.returncode == 1
    assert done.stderr.count(b"No space left") == 1
    assert sum(text.startswith("rsttrace #") for text in numbers(out)) == 3


# ---- order ----


def entry(number: int, seconds: float, before_s: float = 0.001) -> Entry:
    """A reset so many seconds later, and what provoked it so long before."""
    time_ns = TIME_NS + round(seconds * 1e9)
    seen = replace(SEEN, time_ns=time_ns - round(before_s * 1e9), seq=number)
    reset = replace(reset_of(V4, 20, seen), time_ns=time_ns)
    return Entry(number, reset, judge(reset))


def times(path: Path) -> list[float]:
    with PcapNgReader(str(path)) as reader:
        return [float(packet.time) for packet in reader]


def test_frames_are_in_order_of_time(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with Recording(str(out), pytest.fail) as recording:
        recording.add(entry(1, 10))
        recording.add(entry(2, 11, before_s=5))
        recording.add(entry(3, 2))
        unsorted = times(out)  # each is there at once
        assert len(unsorted) == 6
    assert times(out) == sorted(unsorted)
    assert times(out) != unsorted
    assert leftovers(tmp_path) == []


def test_a_crash_leaves_every_entry(tmp_path: Path) -> None:
    out = tmp_path / "out"
    child = os.fork()
    if child == 0:
        recording = Recording(str(out), print).__enter__()
        for number in range(3):
            recording.add(entry(number, number))
        os._exit(0)  # as if killed: nothing is closed
    os.waitpid(child, 0)
    assert len(times(out)) == 6
    assert leftovers(tmp_path) == []


def test_a_file_that_somebody_moved_is_left_alone(tmp_path: Path) -> None:
    out, moved = tmp_path / "out", tmp_path / "moved"
    with Recording(str(out), pytest.fail) as recording:
        recording.add(entry(1, 10))
        out.rename(moved)
        out.write_bytes(BEFORE)
        recording.add(entry(2, 1))
    assert out.read_bytes() == BEFORE
    assert len(times(moved)) == 4


# ---- rotation ----


@pytest.fixture
def said() -> Iterator[list[str]]:
    lines: list[str] = []
    yield lines
    assert lines == []


def test_a_full_file_is_put_aside_whole(tmp_path: Path, said: list[str]) -> None:
    out = tmp_path / "out"
    with Recording(str(out), said.append, full=Rotation(size=1)) as recording:
        for number in range(1, 4):
            recording.add(entry(number, number))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out.1", "out.2"]
    for path in tmp_path.iterdir():
        assert len(times(path)) == 2
    assert "#1" in numbers(tmp_path / "out.1")[-1]
    assert "#3" in numbers(out)[-1]


def test_so_many_are_kept_and_a_later_run_goes_on(tmp_path: Path, said: list[str]) -> None:
    out = tmp_path / "out"
    stranger = tmp_path / "out.old"
    stranger.write_bytes(BEFORE)
    for _ in range(2):
        with Recording(str(out), said.append, full=Rotation(size=1, keep=2)) as recording:
            for number in range(1, 4):
                recording.add(entry(number, number))
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["out", "out.4", "out.5", "out.old"]  # the first run left out.1, out.2, out
    assert stranger.read_bytes() == BEFORE


def test_rotation_by_time(tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    out = tmp_path / "out"
    with Recording(str(out), said.append, full=Rotation(seconds=60)) as recording:
        for number, at in enumerate((100, 159, 160, 161)):
            now[0] = at
            recording.add(entry(number, number))
    assert len(times(tmp_path / "out.1")) == 4
    assert len(times(out)) == 4


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1000", Rotation(size=1000)),
        ("100M", Rotation(size=100_000_000)),
        ("100MB", Rotation(size=100_000_000)),
        ("2GiB", Rotation(size=2 << 30)),
        ("64Ki", Rotation(size=64 << 10)),
        ("90s", Rotation(seconds=90)),
        ("10m", Rotation(seconds=600)),
        ("10min", Rotation(seconds=600)),
        ("1 h", Rotation(seconds=3600)),
        ("7d", Rotation(seconds=7 * 86400)),
    ],
)
def test_sizes_and_times(text: str, expected: Rotation) -> None:
    assert rotation(text, None) == expected


@pytest.mark.parametrize("text", ["", "0", "0h", "-1M", "1.5G", "M", "10 parsecs", "1e9", "¹k"])
def test_neither_size_nor_time(text: str) -> None:
    with pytest.raises(UsageError, match="neither a size nor a time"):
        rotation(text, None)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--rotate", "1M"), "-w"),
        (("-w", "out", "--keep", "3"), "--rotate"),
        (("-w", "-", "--rotate", "1M"), "needs a file"),
        (("-w", "/dev/null", "--rotate", "1M"), "needs a file"),
    ],
)
def test_what_cannot_be_rotated(arguments: tuple[str, ...], words: str, capture: Path) -> None:
    done = run("read", str(capture), *arguments, cwd=capture.parent)
    assert (done.returncode, done.stdout) == (2, b"")
    assert words in done.stderr.decode()


def test_no_recording_where_nothing_may_be_made(tmp_path: Path) -> None:
    with pytest.raises(RsttraceError, match=r"cannot write .*no-such-folder"):
        Recording(str(tmp_path / "no-such-folder" / "x"), print)
