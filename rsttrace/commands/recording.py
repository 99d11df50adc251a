"""The pcapng file of ``-w``: made when there is something to write, never over an input.

What a crash leaves: before the first entry, the file that was there before, untouched; after it, a
new file with every entry so far, each whole, in the order in which they came. A run that ends puts
the frames in order of time. Until the rename there is a file ``.NAME.…`` in the same folder.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rsttrace.commands.writer import Sink
from rsttrace.errors import RsttraceError, UsageError
from rsttrace.files import Identity, Place
from rsttrace.model import Entry
from rsttrace.privileges.outfile import NEVER, OutFile, out_file
from rsttrace.render.escape import safe
from rsttrace.render.pcapng import Frame, Frames

STDOUT = "-"

SORTED_MOST = 1_000_000
"""Frames of one file that are put in order of time; a larger one stays in the order they came."""

NAME = 4096


@dataclass(frozen=True)
class Rotation:
    """When a file is full: after so many bytes or seconds; and how many full ones are kept."""

    size: int | None = None
    seconds: float | None = None
    keep: int | None = None


_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
_AMOUNT = re.compile(r"(\d{1,15})\s*([A-Za-z]*)", re.ASCII)


def rotation(text: str | None, keep: int | None) -> Rotation | None:
    """What ``--rotate`` (``100M``, ``1h``) and ``--keep`` ask for.

    Raises:
        UsageError: it is neither a size nor a time, or 0; ``--keep`` alone.
    """
    if text is None:
        if keep is not None:
            raise UsageError("--keep says how many of --rotate's files to keep: give that too")
        return None
    match = _AMOUNT.fullmatch(text.strip())
    if match is not None and int(match.group(1)):
        number, unit = int(match.group(1)), match.group(2)
        if unit in _SECONDS:
            return Rotation(seconds=number * _SECONDS[unit], keep=keep)
        if unit.removesuffix("B") in _UNITS:
            return Rotation(size=number * _UNITS[unit.removesuffix("B")], keep=keep)
    raise UsageError(
        f"--rotate {text!a} is neither a size nor a time",
        hint="write 500k, 100M or 1GiB; or 90s, 10min, 1h or 1d",
    )


def check_stdout(inputs: Sequence[str]) -> None:
    """Raises UsageError where standard output is a file that is read, too: it would never end."""
    with contextlib.suppress(OSError, ValueError):
        found = os.fstat(sys.stdout.fileno())
        if stat.S_ISREG(found.st_mode):
            name = _input_with((found.st_dev, found.st_ino), inputs)
            if name is not None:
                raise UsageError(
                    f"standard output goes to {name!a}, which is read too",
                    hint="send the output to another file",
                )


class Recording:
    """Writes the packets of entries. A context manager; leaving finishes the file.

    Args:
        path: where to; ``-`` is standard output.
        inputs: files that are read, ``-`` for standard input: never written.
        full: when to begin the next file.
        say: takes a warning.
        ended: whether the run is to end; see `Sink`.
        private: it may hold secrets: only its owner may read it.

    Attributes:
        failed: whether writing has ended before its time (a full disk); it was warned of.

    Raises:
        UsageError: it is one of the inputs, or cannot be rotated.
        RsttraceError: nothing can be written there.
    """

    def __init__(
        self,
        path: str,
        say: Callable[[str], None],
        *,
        inputs: Sequence[str] = (),
        full: Rotation | None = None,
        ended: Callable[[], bool] = lambda: False,
        private: bool = False,
    ) -> None:
        self._name = path
        self._private = private
        self._say = say
        self._ended = ended
        self._inputs = inputs
        self._rotation = full
        self._frames = Frames()
        self._descriptor: int | None = None
        self._sink: Sink | None = None
        self._index: list[tuple[int, int, int]] = []  # time, offset, length
        self._size = 0
        self._began = 0.0
        self._streams = False
        self._written = False
        self.failed = False
        self._found = None if path == STDOUT else self._find()
        self._check()
        self._place = None if self._streams else self._writable()

    def __enter__(self) -> Recording:
        if self._streams:
            try:
                self._open_stream()
            except BrokenPipeError:
                raise
            except OSError as error:
                self._fail(error)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._finish()
        if not (self._written or self._streams or self.failed or exc_info[0]):
            self._say(f"nothing was written to {safe(self._name, NAME)}: no reset was shown")

    def add(self, entry: Entry) -> None:
        """Write an entry's packets; on the disk's way when this returns.

        Raises:
            BrokenPipeError: nobody reads what goes to standard output or a pipe.
        """
        if self.failed:
            return
        frames = self._frames.of(entry)
        try:
            if self._descriptor is not None and self._is_full():
                self._rotate()
            if self._descriptor is None:
                self._begin(frames)
            else:
                self._append(frames)
        except BrokenPipeError:
            raise
        except OSError as error:
            self._fail(error)
        else:
            self._written = True

    # ---- before anything is written ----

    def _find(self) -> Place:
        try:
            return Place(self._name)
        except FileNotFoundError:
            folder = os.path.dirname(os.path.abspath(self._name))
            raise self._error(f"there is no folder {folder!a}") from None
        except (OSError, ValueError) as error:
            raise self._error(error) from None

    def _writable(self) -> OutFile:
        """The place, for whoever is to make files there."""
        try:
            aside = NEVER if self._rotation is None else self._rotation.keep
            return out_file(self._name, filter(None, map(_identity, self._inputs)), aside)
        except OSError as error:
            raise self._error(error) from None

    def _check(self) -> None:
        """Find out early what would fail at the first entry."""
        if self._name == STDOUT:
            self._streams = True
            if sys.stdout.isatty():
                raise UsageError(
                    "-w - writes packets to standard output, which is a terminal",
                    hint="send them to a file or a program: -w - | wireshark -k -i -",
                )
        try:
            found = None if self._found is None else self._found.stat()
        except OSError as error:
            raise self._error(error) from None
        if found is not None:
            self._check_existing(found)
        if self._streams or self._found is None:
            if self._rotation is not None:
                raise UsageError("--rotate needs a file: -w names none that can be renamed")
            return
        if not self._found.is_open_to_us():
            folder = os.path.dirname(os.path.abspath(self._name))
            raise self._error(f"nothing may be made in {folder!a}")

    def _check_existing(self, found: os.stat_result) -> None:
        if stat.S_ISDIR(found.st_mode):
            raise self._error("it is a folder")
        self._streams = not stat.S_ISREG(found.st_mode)
        if self._streams:
            return
        identity = (found.st_dev, found.st_ino)
        name = _input_with(identity, self._inputs)
        if name is not None:
            same = "" if name == self._name else f", which is {self._name!a}"
            raise UsageError(
                f"-w would overwrite {name!a}{same}: it is read", hint="name another file with -w"
            )
        with contextlib.suppress(OSError, ValueError):
            out = os.fstat(sys.stdout.fileno())
            if identity == (out.st_dev, out.st_ino):
                raise UsageError(
                    f"standard output goes to {self._name!a} already",
                    hint="name another file with -w, or -w - for packets only",
                )

    def _error(self, why: Exception | str) -> RsttraceError:
        text = getattr(why, "strerror", None) or str(why)
        return RsttraceError(
            f"cannot write {self._name!r}: {text}", hint="name a file you may write with -w"
        )

    # ---- writing ----

    def _open_stream(self) -> None:
        """Standard output, a pipe or a device: its reader wants the head at once."""
        if self._found is None:
            self._descriptor = os.dup(sys.stdout.fileno())
        else:
            self._descriptor = self._found.stream()
        self._sink = Sink(self._descriptor, self._ended)
        self._write(self._frames.head)

    def _begin(self, frames: list[Frame]) -> None:
        """Make the file, with its first entry in it."""
        assert self._place is not None
        if self._rotation is not None and self._place.identity() is not None:
            self._place.put_aside(self._rotation.keep)  # an earlier run's
        descriptor, name = self._place.temporary()
        try:
            self._descriptor = descriptor
            self._index, self._size = [], 0
            self._write(self._frames.head)
            self._append(frames)
            self._place.replace(name, private=self._private, alike=True)
        except BaseException:
            self._descriptor = None
            os.close(descriptor)
            with contextlib.suppress(OSError):
                self._place.discard(name)
            raise
        self._began = time.monotonic()

    def _append(self, frames: list[Frame]) -> None:
        """Write whole blocks, or none of them."""
        at = self._size
        added = []
        for frame in frames:
            added.append((frame.time_ns, at, len(frame.block)))
            at += len(frame.block)
        self._write(b"".join(frame.block for frame in frames))
        if self._sink is None and len(self._index) <= SORTED_MOST:
            self._index += added

    def _write(self, data: bytes) -> None:
        assert self._descriptor is not None
        if self._sink is not None:
            self._sink.write(data)
            return
        left = memoryview(data)
        try:
            while left:
                left = left[os.write(self._descriptor, left) :]
        except OSError:
            with contextlib.suppress(OSError):  # what is there stays a whole file
                os.ftruncate(self._descriptor, self._size)
                os.lseek(self._descriptor, self._size, os.SEEK_SET)
            raise
        self._size += len(data)

    def abandoned(self) -> bool:
        """Whether nobody reads the pipe that it goes to."""
        return self._sink is not None and not self.failed and self._sink.abandoned()

    def _fail(self, error: OSError) -> None:
        """Give up writing, not the run."""
        self.failed = True
        kept = ""
        if self._written and not self._streams:
            kept = "; what was written before is kept"
        self._say(
            f"warning: cannot write to {safe(self._name, NAME)}: {error.strerror or error}; "
            f"no more packets are written there{kept}"
        )
        self._close()

    # ---- the end of a file ----

    def _is_full(self) -> bool:
        rotation = self._rotation
        if rotation is None:
            return False
        if rotation.size is not None:
            return self._size >= rotation.size
        assert rotation.seconds is not None
        return time.monotonic() - self._began >= rotation.seconds

    def _rotate(self) -> None:
        assert self._place is not None
        assert self._rotation is not None
        self._finish()
        self._place.put_aside(self._rotation.keep)

    def _finish(self) -> None:
        """Put the frames in order of time, and close the file."""
        try:
            self._sort()
        except OSError as error:  # not sorted is not lost
            self._say(
                f"warning: the packets in {safe(self._name, NAME)} are not in order of time: "
                f"{error.strerror or error}"
            )
        self._close()

    def _sort(self) -> None:
        index = self._index
        if self._descriptor is None or self._place is None or len(index) > SORTED_MOST:
            return
        order = sorted(index, key=lambda row: row[0])
        written = os.fstat(self._descriptor)
        if order == index or (written.st_dev, written.st_ino) != self._place.identity():
            return  # or somebody has moved it
        unsorted = self._descriptor
        descriptor, name = self._place.temporary()
        try:
            with open(descriptor, "wb", closefd=False) as target:
                target.write(self._frames.head)
                for _, offset, length in order:
                    target.write(os.pread(unsorted, length, offset))
            self._descriptor = descriptor
            self._place.replace(name, private=self._private, alike=True)
        except BaseException:
            self._descriptor = unsorted
            os.close(descriptor)
            with contextlib.suppress(OSError):
                self._place.discard(name)
            raise
        os.close(unsorted)

    def _close(self) -> None:
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            with contextlib.suppress(OSError):
                os.close(descriptor)


def input_at(path: Path, inputs: Sequence[str]) -> str | None:
    """The input that is the file at this path, by whatever name; ``None``: none is, or no file."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return _input_with((found.st_dev, found.st_ino), inputs)


def _input_with(identity: Identity, inputs: Sequence[str]) -> str | None:
    """The input that is this file, by whatever name."""
    return next((name for name in inputs if _identity(name) == identity), None)


def _identity(name: str) -> Identity | None:
    """Which file an input is; ``None``: none."""
    try:
        found = os.fstat(0) if name == "-" else os.stat(name)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino
