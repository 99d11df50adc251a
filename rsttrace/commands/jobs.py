"""Work beside a running trace: one thing at a time, not too often, bounded."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable, Hashable
from types import TracebackType
from typing import Any, Generic, TypeVar

from rsttrace.enrich import Neighbors, NetnsDirectory
from rsttrace.errors import RsttraceError

EVERY_S = 60.0
"""How often the same thing is done again."""

MAX_KEYS = 1024
MAX_WAITING = 16
"""How many wait at once; a storm's others are said to be left out."""

Job = TypeVar("Job")
Found = TypeVar("Found")
Me = TypeVar("Me", bound="Worker[Any, Any]")
Run = Callable[[Job, NetnsDirectory, Neighbors, Callable[[], bool]], Found]


class Worker(Generic[Job, Found]):
    """Does jobs in a thread of its own. What is too much is left out, and counted.

    A storm of resets must not make a storm of probes. Use it as a context manager.

    Attributes:
        left_out: so many jobs found no room.
        cpu_s: seconds of a CPU that the jobs took in this process, but for the first one, which has
            imports to do.
    """

    def __init__(
        self,
        run: Run[Job, Found],
        name: str,
        *,
        every_s: float = EVERY_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Starts its thread with the first job. `run` does one job; its last argument says stop."""
        self._every_s = every_s
        self._run = run
        self._name = name
        self._clock = clock
        self._seen: OrderedDict[Hashable, float] = OrderedDict()
        self._jobs: queue.Queue[Job | None] = queue.Queue(MAX_WAITING)
        self._results: queue.Queue[tuple[Job, Found | RsttraceError]] = queue.Queue()
        self._thread: threading.Thread | None = None
        self._unfinished = 0
        self._stop = False
        self.left_out = 0
        self.cpu_s = 0.0

    def __enter__(self: Me) -> Me:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop = True
        with contextlib.suppress(queue.Full):
            self._jobs.put_nowait(None)
        if self._thread is not None:
            self._thread.join(1.0)

    def put(self, key: Hashable, job: Job) -> bool:
        """Have a job done, unless one with this key was within `every_s`. True if it will be."""
        last = self._seen.get(key)
        if last is not None and self._clock() - last < self._every_s:
            return False
        try:
            self._jobs.put_nowait(job)
        except queue.Full:
            self.left_out += 1
            return False
        self._unfinished += 1
        self._seen[key] = self._clock()
        self._seen.move_to_end(key)
        while len(self._seen) > MAX_KEYS:
            self._seen.popitem(last=False)
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()
        return True

    @property
    def busy(self) -> bool:
        """Whether something asked for is not yet among the results taken."""
        return self._unfinished > 0

    def results(self, seconds: float = 0.0) -> list[tuple[Job, Found | RsttraceError]]:
        """What has been found since; waits for the first so long, if something is under way."""
        found = []
        with contextlib.suppress(queue.Empty):
            if seconds > 0 and self.busy:
                found.append(self._results.get(timeout=seconds))
            while True:
                found.append(self._results.get_nowait())
        self._unfinished -= len(found)
        return found

    def _work(self) -> None:
        directory = NetnsDirectory()
        began: float | None = None
        with Neighbors(directory) as neighbors:
            while not self._stop:
                job = self._jobs.get()
                if job is None:
                    return
                found: Found | RsttraceError
                try:
                    found = self._run(job, directory, neighbors, lambda: self._stop)
                except RsttraceError as error:
                    found = error
                except OSError as error:
                    found = RsttraceError(f"probing failed: {error.strerror or error}")
                except Exception as error:  # a bug must not keep the jobs behind it from running
                    found = RsttraceError(f"probing failed: {error!r}")
                    found.log = traceback.format_exc()
                if began is None:
                    began = time.thread_time()
                self.cpu_s = time.thread_time() - began
                self._results.put((job, found))
