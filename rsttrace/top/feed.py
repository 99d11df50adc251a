"""Where the screen's entries come from: a tracer of its own, a capture, or a file of JSON lines.

The tracer is a process of its own, so that the screen never holds it up; what the screen cannot
take in is left out and counted.
"""

from __future__ import annotations

import contextlib
import subprocess
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from typing import IO, TextIO

from rsttrace import home, jsonl, programs
from rsttrace.compare.files import is_log
from rsttrace.errors import CaptureError
from rsttrace.model import Entry
from rsttrace.render.escape import safe

WAITING = 5_000
"""So many entries wait for the screen; older ones are left out."""

SAID = 20


class Feed:
    """Reads in a thread of its own. A context manager: leaving ends the tracer.

    Args:
        file: a capture or JSON lines; ``None``: this node's kernel.
        options: of ``rsttrace trace`` or ``rsttrace read``, passed on.

    Attributes:
        live: whether they come from this node's kernel as they happen.
        left_out: entries that the screen was too slow for.
        not_understood: lines that are none of ours.
        ended: whether nothing more comes.
        failed: the exit code of the tracer, if that is not 0.

    Raises:
        CaptureError: the file cannot be read.
    """

    def __init__(self, file: str | None, options: Sequence[str] = ()) -> None:
        self.left_out = 0
        self.not_understood = 0
        self.ended = False
        self.failed = 0
        self._lock = threading.Lock()
        self._waiting: deque[Entry] = deque()
        self._said: deque[str] = deque(maxlen=SAID)
        self._process: subprocess.Popen[str] | None = None
        self._stream: TextIO | None = None
        self.live = file is None
        if file is not None and is_log(file):
            try:
                self._stream = open(file, encoding="utf-8", errors="replace")  # noqa: SIM115
            except OSError as error:
                raise CaptureError(f"cannot open {file!a}: {error.strerror}") from None
        else:
            what = ["trace"] if file is None else ["read"]
            named = [] if file is None else ["--", file]
            self._process = programs.start(
                home.python("rsttrace", *what, "-o", "json", *options, *named),
                programs.own_environment(),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                start_new_session=True,  # Ctrl-C is for the screen
            )

    def __enter__(self) -> Feed:
        self._threads = [threading.Thread(target=self._read, daemon=True)]
        if self._process is not None:
            assert self._process.stderr is not None
            told = self._process.stderr
            self._threads.append(threading.Thread(target=self._listen, args=(told,), daemon=True))
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        for thread in self._threads:
            thread.join(5)
        for stream in (
            self._stream,
            self._process.stdout if self._process else None,
            self._process.stderr if self._process else None,
        ):
            if stream is not None:
                with contextlib.suppress(OSError, ValueError):
                    stream.close()

    def take(self, most: int = 1_000) -> list[Entry]:
        """The entries that have come since, oldest first, at most so many."""
        with self._lock:
            return [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]

    def said(self) -> str:
        """What the tracer said last of itself, without what explains it; empty: nothing."""
        heads = [line for line in self._said if not line.startswith((" ", "what to do"))]
        return heads[-1] if heads else ""

    def all_said(self) -> list[str]:
        """The last lines that the tracer said of itself."""
        return list(self._said)

    def _listen(self, stream: IO[str]) -> None:
        for line in stream:
            if line.strip():
                self._said.append(safe(line.rstrip(), 300))

    def _read(self) -> None:
        stream: Iterable[str]
        if self._stream is not None:
            stream = jsonl.texts(self._stream)
        else:
            assert self._process is not None
            assert self._process.stdout is not None
            stream = self._process.stdout
        with contextlib.suppress(ValueError):  # the stream was closed
            for line in stream:
                self._take_in(line)
        if self._process is not None:
            self.failed = self._process.wait()
        self.ended = True

    def _take_in(self, line: str) -> None:
        try:
            found = jsonl.decode(line)
            if "id" not in found:  # a summary, or whatever else a run may tell
                return
            entry = jsonl.read_entry(found).entry
        except jsonl.WrongLine:
            self.not_understood += 1
            return
        with self._lock:
            self._waiting.append(entry)
            if self.live and len(self._waiting) > WAITING:
                self._waiting.popleft()
                self.left_out += 1
