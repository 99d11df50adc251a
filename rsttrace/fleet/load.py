"""Loads JSON lines of many nodes, in batches: nothing counts twice, and nothing is lost.

A file is known by its path and its first line; how far it was read is kept in the store, so that a
load that was killed goes on there. A line that is loaded twice is one entry. What comes through a
pipe is on the disk until it is in the store, also while that is away.
"""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import hashlib
import io
import os
import select
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from rsttrace import files, jsonl
from rsttrace.errors import CaptureError, DependencyError, RsttraceError
from rsttrace.fleet.rows import ENTRY, RUN, Run, entry_row, run_of
from rsttrace.fleet.store import HINT, Store, StoreAway
from rsttrace.render.escape import safe

BATCH = 20_000
"""Entries that are inserted together; ClickHouse wants few large inserts."""

BATCH_BYTES = 64 << 20
"""And so many bytes of lines at most."""

FLUSH_S = 5.0
"""Of what comes through a pipe, nothing waits longer than so many seconds."""

SPOOL_BYTES = 1 << 30
"""How much waits on the disk at most while the store is away; then reading waits, too."""

RETRY_S = 5.0

OVERLAP_MS = 600_000
"""So long before the newest one the lines of shippers are read again."""

STDIN = "-"

LOADS = ("source", "head", "lines", "skipped", "revision")

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


@dataclass
class Loaded:
    """What a load has done so far."""

    entries: int = 0
    runs: int = 0
    skipped: int = 0
    already: int = 0
    why_skipped: str = ""

    def line(self) -> str:
        """In words."""
        text = f"{self.entries:,} entries of {self.runs} runs loaded"
        if self.already:
            text += f"; {self.already:,} lines were there already"
        if self.skipped:
            why = safe(self.why_skipped, 200)
            text += f"; {self.skipped:,} lines are none of rsttrace's ({why})"
        return text


@dataclass
class Batch:
    """Rows that are inserted together, and the lines that they are made of."""

    rows: list[tuple[Any, ...]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    size: int = 0
    began: float = field(default_factory=time.monotonic)

    @property
    def full(self) -> bool:
        """Whether it is time to insert it."""
        return len(self.lines) >= BATCH or self.size >= BATCH_BYTES

    @property
    def due(self) -> bool:
        """Whether it has waited long enough."""
        return bool(self.lines) and time.monotonic() - self.began >= FLUSH_S


class Loader:
    """Takes lines in, and inserts what they say.

    Args:
        store: where to.
        node: whose lines they are, where they do not say; it wins where they do.
        say: takes warnings.
    """

    def __init__(
        self, store: Store, node: str | None = None, say: Callable[[str], None] = print
    ) -> None:
        self.loaded = Loaded()
        self._store = store
        self._node = node
        self._say = say
        self._runs: dict[tuple[str, str], Run] = {}
        self._changed: set[tuple[str, str]] = set()
        self._unasked: set[tuple[str, str]] = set()

    def take(self, batch: Batch, text: str) -> None:
        """Take in a line; one that is none of ours is counted."""
        text = text.rstrip("\n")
        if not text:
            return
        try:
            found = jsonl.decode(text)
            if "id" in found:
                self._entry(batch, found, text)
            elif "totals" in found or "summary" in found:
                self._summary(found)
        except jsonl.WrongLine as error:
            self.loaded.skipped += 1
            self.loaded.why_skipped = self.loaded.why_skipped or str(error)
        batch.lines.append(text)
        batch.size += len(text)

    def _entry(self, batch: Batch, found: jsonl.Object, text: str) -> None:
        node, run, boot, version = run_of(found, self._node)
        row, entry = entry_row(found, text, node, run)
        batch.rows.append(row)
        self._run(node, run, boot, version, entry.reset.time_ns).saw(entry.reset.time_ns)

    def _summary(self, found: jsonl.Object) -> None:
        summary = jsonl.read_summary(found)
        if summary is None:
            return
        node, run, boot, version = run_of(found, self._node)
        began = summary.started_ns or summary.ended_ns or 0
        self._run(node, run, boot, version, began).ends(summary)

    def _run(self, node: str, run: str, boot: str, version: str, time_ns: int) -> Run:
        key = (node, run)
        known = self._runs.get(key)
        if known is None:
            known = self._runs[key] = Run(node, run, boot, version, time_ns, time_ns)
            self._unasked.add(key)
            self.loaded.runs += 1
        self._changed.add(key)
        return known

    def _known(self, key: tuple[str, str]) -> Run | None:
        """What the store has of a run."""
        found = self._store.query(
            "SELECT boot, version, toUnixTimestamp64Nano(first) AS first,"
            " toUnixTimestamp64Nano(last) AS last,"
            " if(started IS NULL, NULL, toUnixTimestamp64Nano(assumeNotNull(started))) AS started,"
            " if(ended IS NULL, NULL, toUnixTimestamp64Nano(assumeNotNull(ended))) AS ended,"
            " lost, filtered FROM runs FINAL WHERE node = {node:String} AND run = {run:String}",
            {"node": key[0], "run": key[1]},
        )
        if not found:
            return None
        row = found[0]
        return Run(
            *key,
            row["boot"],
            row["version"],
            row["first"],
            row["last"],
            row["started"],
            row["ended"],
            row["lost"],
            row["filtered"],
        )

    def insert(self, batch: Batch) -> None:
        """Insert a batch, and what is known of its runs.

        Raises: see `Store.query`.
        """
        for key in sorted(self._unasked):
            if (known := self._known(key)) is not None:
                self._runs[key].follows(known)
            self._unasked.discard(key)
        self._store.insert("entries", ENTRY, batch.rows)
        revision = time.time_ns()
        changed = [self._runs[key].row(revision) for key in sorted(self._changed)]
        self._store.insert("runs", RUN, changed)
        self._changed.clear()
        self.loaded.entries += len(batch.rows)


# ---- files ----


def load_file(loader: Loader, store: Store, path: str) -> None:
    """Load a file from where an earlier load of it has come to.

    Raises:
        CaptureError: it cannot be read.
        RsttraceError: the store refuses, or is away.
    """
    source = str(Path(path).resolve())
    with opened(path) as lines:
        first = next(lines, None)
        if first is None:
            return
        head = hashlib.sha256(first.encode("utf-8", "surrogateescape")).hexdigest()
        known = store.query(
            "SELECT lines FROM loads FINAL WHERE source = {source:String} AND head = {head:String}",
            {"source": source, "head": head},
        )
        done = known[0]["lines"] if known else 0
        read = 0
        batch = Batch()

        def flush() -> None:
            nonlocal batch
            loader.insert(batch)
            row = (source, head, read, loader.loaded.skipped, time.time_ns())
            store.insert("loads", LOADS, [row])
            batch = Batch()

        for text in _again(first, lines):
            if not text.endswith("\n"):
                break  # somebody is writing it: the rest comes with the next load
            read += 1
            if read <= done:
                loader.loaded.already += 1
                continue
            loader.take(batch, text)
            if batch.full:
                flush()
        if batch.lines:
            flush()


def _again(first: str, rest: Iterable[str]) -> Iterator[str]:
    yield first
    yield from rest


@contextlib.contextmanager
def opened(path: str) -> Iterator[Iterator[str]]:
    """The lines of a file, plain or compressed (gzip, zstd), whatever its name is.

    Raises:
        CaptureError: it cannot be read.
        DependencyError: it is zstd, and nothing here reads that.
    """
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(open(path, "rb"))
            start = file.read(4)
            file.seek(0)
            raw: Any = file
            if start.startswith(_GZIP):
                raw = stack.enter_context(gzip.open(file))
            elif start.startswith(_ZSTD):
                raw = stack.enter_context(_zstd(file))
            text = io.TextIOWrapper(raw, encoding="utf-8", errors="surrogateescape")
        except OSError as error:
            raise CaptureError(f"cannot open {path!a}: {error.strerror or error}") from None
        yield _lines(text, path)


def _lines(text: io.TextIOWrapper, path: str) -> Iterator[str]:
    try:
        yield from jsonl.texts(text)
    except (OSError, EOFError) as error:
        raise CaptureError(f"{path!a} breaks off: {error}") from None


def _zstd(raw: IO[bytes]) -> Any:
    try:
        from compression import zstd  # Python 3.14
    except ImportError:
        try:
            from backports import zstd
        except ImportError as error:
            raise DependencyError(f"zstd cannot be read: {error}", hint=HINT) from None
    return zstd.open(raw)


# ---- what shippers have put into the store ----


def load_incoming(loader: Loader, store: Store) -> None:
    """Make entries of the lines in the table `incoming`, from where an earlier load has come to.

    What came shortly before that is read again: an insert is seen some time after its moment.

    Raises: see `Store.query`.
    """
    known = store.query("SELECT lines FROM loads FINAL WHERE source = 'incoming' AND head = ''")
    at, line = max(0, known[0]["lines"] - OVERLAP_MS if known else 0), 0
    while True:
        rows = store.query(
            "SELECT toUnixTimestamp64Milli(received) AS at, cityHash64(log) AS line, log"
            " FROM incoming WHERE received >= fromUnixTimestamp64Milli({at:Int64})"
            " AND (at, line) > ({at:Int64}, {line:UInt64}) ORDER BY at, line LIMIT {most:UInt32}",
            {"at": at, "line": line, "most": BATCH},
        )
        if not rows:
            return
        batch = Batch()
        for row in rows:
            loader.take(batch, row["log"])
        loader.insert(batch)
        at, line = rows[-1]["at"], rows[-1]["line"]
        store.insert("loads", LOADS, [("incoming", "", at, loader.loaded.skipped, time.time_ns())])


# ---- a pipe ----


class Spool:
    """A folder where what came through a pipe waits until it is in the store; bounded.

    What has just been read is in a journal that is locked by its writer: that of a load that was
    killed is found by the next one. While the store is away, batches are in files; one is there
    when its file has its name: what is written by a rename is whole.

    Raises:
        RsttraceError: the folder cannot be written to.
    """

    def __init__(self, folder: Path, most: int = SPOOL_BYTES) -> None:
        self._folder = folder
        self._most = most
        self._journal: int | None = None
        self._tail = b""
        try:
            files.own_folder(str(folder))
        except OSError as error:
            raise RsttraceError(
                f"the spool {str(folder)!a} cannot be used: {error.strerror}",
                hint="name a folder of your own with --spool, or one that can be made",
            ) from None

    def files(self) -> list[Path]:
        """What waits, oldest first."""
        return sorted(self._folder.glob("*.jsonl.gz"))

    @property
    def full(self) -> bool:
        """Whether there is no room for more."""
        return sum(path.stat().st_size for path in self.files()) >= self._most

    def put(self, lines: Iterable[str]) -> None:
        """Keep lines, on the disk when this returns.

        Raises:
            OSError: they cannot be written.
        """
        name = f"{time.time_ns():020d}-{os.getpid()}.jsonl.gz"
        part = self._folder / f".{name}"
        try:
            with open(files.new(str(part)), "wb") as file:
                with gzip.open(file, "wb", compresslevel=3) as out:
                    for line in lines:
                        out.write(line.encode("utf-8", "surrogateescape") + b"\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, self._folder / name)
        except OSError:
            part.unlink(missing_ok=True)
            raise

    # ---- the journal ----

    def note(self, data: bytes) -> None:
        """Keep what was read, before anything is done with it."""
        if self._journal is None:
            path = self._folder / f"{time.time_ns():020d}-{os.getpid()}.journal"
            self._journal = files.new(str(path))
            fcntl.flock(self._journal, fcntl.LOCK_EX)
        with contextlib.suppress(OSError):  # a full disk: then it is safe only from now on
            os.write(self._journal, data)
        self._tail = (self._tail + data).rpartition(b"\n")[2][-jsonl.LONGEST_LINE :]

    def done(self) -> None:
        """All whole lines that were noted are in the store, or in a file."""
        if self._journal is not None:
            os.ftruncate(self._journal, 0)
            os.lseek(self._journal, 0, os.SEEK_SET)
            with contextlib.suppress(OSError):
                os.write(self._journal, self._tail)

    def left(self) -> Iterator[tuple[Path, list[str]]]:
        """The whole lines in the journals of loads that were killed."""
        for path in sorted(self._folder.glob("*.journal")):
            with contextlib.suppress(OSError), open(path, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError: it is in use
                whole = file.read().rpartition(b"\n")[0]
                yield path, whole.decode("utf-8", "surrogateescape").splitlines()

    def close(self) -> None:
        """The pipe has ended, and all of it was taken in."""
        if self._journal is not None:
            name = os.readlink(f"/proc/self/fd/{self._journal}")
            with contextlib.suppress(OSError):
                os.unlink(name)
            os.close(self._journal)
            self._journal = None


def load_stream(
    loader: Loader,
    stream: IO[str],
    spool: Spool,
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Load what comes through a pipe, until it ends.

    Where the store is away batches go to the spool; when that is full, reading waits, so that the
    writer waits, too. What is still in the spool at the end is said, and loaded by the next load.
    """
    away = False
    batch = Batch()

    def flush() -> None:
        nonlocal batch, away
        while True:
            try:
                drain(loader, spool)
                loader.insert(batch)
                if away:
                    print("the store is back", file=sys.stderr, flush=True)
                away = False
                break
            except StoreAway as error:
                if not away:
                    print(
                        f"warning: {error.what}: what comes waits on the disk",
                        file=sys.stderr,
                        flush=True,
                    )
                away = True
                if not batch.lines or _spooled(spool, batch):
                    break
                sleep(RETRY_S)
        batch = Batch()
        spool.done()

    for texts in _chunks(stream, spool):
        for text in texts:
            loader.take(batch, text)
        if batch.full or batch.due:
            flush()
    flush()
    spool.close()
    if left := spool.files():
        raise RsttraceError(
            f"the store is away: {len(left)} batches wait in the spool",
            hint="load anything (or nothing: < /dev/null) with the same --spool when it is back",
        )


def _spooled(spool: Spool, batch: Batch) -> bool:
    """Put a batch into the spool; false: there is no room."""
    if spool.full:
        return False
    try:
        spool.put(batch.lines)
    except OSError:
        return False
    return True


def drain(loader: Loader, spool: Spool) -> None:
    """Load what waits in the spool; each file is removed once it is in the store.

    Raises: see `Store.query`.
    """
    for path, texts in spool.left():
        _load(loader, texts)
        path.unlink(missing_ok=True)
    for path in spool.files():
        with opened(str(path)) as lines:
            _load(loader, lines)
        path.unlink(missing_ok=True)


def _load(loader: Loader, texts: Iterable[str]) -> None:
    batch = Batch()
    for text in texts:
        loader.take(batch, text)
        if batch.full:
            loader.insert(batch)
            batch = Batch()
    loader.insert(batch)


def _descriptor(stream: IO[str]) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        return stream.fileno()
    return None


def _chunks(stream: IO[str], spool: Spool) -> Iterator[list[str]]:
    """The lines of a stream as they come, and none whenever nothing came for a while.

    What comes from a pipe is in the spool's journal before it is given.
    """
    descriptor = _descriptor(stream)
    if descriptor is None:
        for line in stream:
            yield [line]
        return
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    rest = b""
    while True:
        if not poll.poll(FLUSH_S * 1000):
            yield []
            continue
        data = os.read(descriptor, 1 << 16)
        if not data:
            if rest:
                yield [_text(rest)]
            return
        spool.note(data)
        *whole, rest = (rest + data).split(b"\n")
        if len(rest) > jsonl.LONGEST_LINE:
            whole.append(rest)
            rest = b""
        yield [_text(line) for line in whole]


def _text(line: bytes) -> str:
    return line.decode("utf-8", "surrogateescape") + "\n"
