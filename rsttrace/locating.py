"""``rsttrace locate``, and ``--locate`` on a trace: a path, and a forged reset on it."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import queue
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, TextIO

from rsttrace.enrich import Neighbors, NetnsDirectory
from rsttrace.enrich.path import Limits, Target, find_path, names_of, resolve
from rsttrace.enrich.replay import most_connections, replay
from rsttrace.errors import RsttraceError, UsageError
from rsttrace.judge.place import place, place_replay
from rsttrace.model import Attempt, Entry, Hop, Neighbor, NextHop, Origin, Path, Placement
from rsttrace.presenting import to_stderr
from rsttrace.render.escape import ascii_only, safe
from rsttrace.render.json import object_line
from rsttrace.render.path import path_lines, path_object

MAX_LINE = 1 << 20
"""Characters of one JSON line: an entry has some thousand."""

EVERY_S = 60.0
"""How often ``--locate`` looks at one peer again."""

MAX_PEERS = 1024
MAX_WAITING = 16
"""How many peers wait to be located at once; a storm's others are said to be left out."""


@dataclass(frozen=True)
class Clue:
    """What is known of a forged reset: how far it came, how far the peer was, who handed it over.

    `entry` is the id of the entry it comes from, `certain` whether that one says "forged".
    """

    rst_hops: int
    peer_hops: int | None = None
    mac: str | None = None
    entry: int | None = None
    certain: bool = True


@dataclass(frozen=True)
class Job:
    """What to locate: a peer, and possibly a forged reset in its name."""

    target: Target
    limits: Limits
    clue: Clue | None = None
    netns: int | None = None
    dns: bool = False
    data: bytes | None = None


@dataclass(frozen=True)
class Located:
    """What a job found."""

    path: Path
    placement: Placement | None
    attempts: tuple[Attempt, ...] = ()
    replayed: Placement | None = None


def clue_from(lines: Iterable[str], name: str) -> tuple[str, int, Clue]:
    """The last forged reset in rsttrace's JSON lines: its peer's address and port, and the clue.

    Without a forged one the last inconclusive one is taken. `name` is what the lines are called in
    messages.

    Raises:
        UsageError: there is none, or a line is not what rsttrace writes.
    """
    found: dict[str, Any] | None = None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            if len(line) > MAX_LINE:
                raise ValueError("the line is too long")
            made = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UsageError(
                f"{name}, line {number} is not JSON: {error}",
                hint="give a file that `rsttrace -o json` wrote",
            ) from None
        origin = made.get("origin") if isinstance(made, dict) else None
        if origin == "forged" or (
            origin == "inconclusive" and (found is None or found["origin"] == origin)
        ):
            found = made
    if found is None:
        raise UsageError(
            f"{name} holds no entry of a forged reset",
            hint="write one with `rsttrace --origin forged -o json`",
        )
    try:
        return _clue(found)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"{name}: not an entry of rsttrace's: {error!r}") from None


def _clue(made: dict[str, Any]) -> tuple[str, int, Clue]:
    if made["direction"] != "received":
        raise UsageError(
            "the reset was not received by this host, so its TTL says nothing about this path"
        )
    if made["made_here"] is not None:
        raise UsageError(
            "that reset was made by its own node (made_here): there is nothing to find on the path"
        )
    ip = str(ipaddress.ip_address(made["remote"]["ip"]))
    port = _number(made["remote"]["port"], 65535)
    rst_hops, peer_hops = made["hops"]["rst"], made["hops"]["peer"]
    if rst_hops is None:
        raise UsageError("the entry does not say how far the reset came (hops.rst is null)")
    neighbor = made["neighbor"] or {}
    mac = neighbor.get("mac")
    clue = Clue(
        _number(rst_hops, 255),
        None if peer_hops is None else _number(peer_hops, 255),
        mac if isinstance(mac, str) else None,
        _number(made["id"], 1 << 62),
        made["origin"] == "forged",
    )
    return ip, port or 80, clue


def _number(value: Any, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise ValueError(f"{value!r} is not a number from 0 to {most}")
    return value


def run_job(
    job: Job,
    directory: NetnsDirectory,
    neighbors: Neighbors,
    *,
    stopped: Callable[[], bool] = lambda: False,
    say: Callable[[str], None] = lambda text: None,
) -> Located:
    """Find the path, put the reset on it, and, if asked, replay.

    Raises:
        RsttraceError: see `rsttrace.enrich.path.find_path`.
    """
    own = os.stat("/proc/self/ns/net").st_ino
    netns = own if job.netns is None else job.netns
    netns_path = None
    if netns != own:
        netns_path = directory.path(netns)
        if netns_path is None:
            raise RsttraceError(f"the network namespace {netns} is gone")

    def surroundings(ip: str) -> tuple[NextHop | None, Neighbor | None]:
        hop = neighbors.next_hop(netns, ip)
        if hop is None:
            return None, None
        return hop, neighbors.neighbor(netns, hop.ifindex, hop.mac, ip)

    path = find_path(
        job.target,
        job.limits,
        netns_path=netns_path,
        surroundings=surroundings,
        stopped=stopped,
    )
    if job.dns and not stopped():
        path = _named(path)
    placement = None
    if job.clue is not None:
        clue = job.clue
        placement = place(path, clue.rst_hops, peer_hops=clue.peer_hops, mac=clue.mac)
        if not clue.certain:
            note = "whether it is forged is inconclusive: this is where, if it is"
            placement = replace(placement, notes=(note, *placement.notes))
    attempts: tuple[Attempt, ...] = ()
    replayed = None
    if job.data is not None and not stopped():
        say(announcement(job, path))
        attempts = replay(
            job.target,
            job.data,
            job.limits,
            path.distance,
            netns_path=netns_path,
            stopped=stopped,
        )
        replayed = place_replay(path, attempts)
        if placement and replayed.hop is not None and replayed.hop != placement.hop:
            notes = (*placement.notes, "the replay says otherwise")
            placement = replace(placement, sure="unknown", notes=notes)
    return Located(path, placement, attempts, replayed)


def announcement(job: Job, path: Path) -> str:
    """What a replay is about to send, in words."""
    data = job.data or b""
    shown = safe(data[:48].decode("latin-1"), 120) + ("..." if len(data) > 48 else "")
    distance = path.distance or job.limits.max_hops
    return (
        f'replay: sending {len(data)} bytes, "{shown}", to {job.target.ip} port {job.target.port} '
        f"on at most {most_connections(distance, job.limits)} connections of its own, with TTL 1, "
        "2, 3 and so on until a reset comes back; "
        f"from TTL {distance} on, the peer gets the bytes too"
    )


def _named(path: Path) -> Path:
    """With the reverse DNS names of everything that answered."""
    hops = [*path.hops, *([path.peer_hop] if path.peer_hop else [])]
    names = names_of(ip for hop in hops for ip in hop.ips)

    def named(hop: Hop) -> Hop:
        return replace(hop, names=tuple(names[ip] for ip in hop.ips if ip in names))

    peer_hop = named(path.peer_hop) if path.peer_hop else None
    return replace(path, hops=tuple(named(hop) for hop in path.hops), peer_hop=peer_hop)


def located_lines(
    job: Job, located: Located, output: str, stream: TextIO, indent: str = ""
) -> list[str]:
    """What a job found, as lines of text or as one line of JSON."""
    if output == "json":
        made = path_object(
            located.path,
            located.placement,
            replayed=located.replayed,
            attempts=located.attempts,
            entry=job.clue.entry if job.clue else None,
            netns=job.netns,
        )
        return [object_line(made)]
    return path_lines(
        located.path,
        located.placement,
        replayed=located.replayed,
        plain=ascii_only(stream),
        indent=indent,
    )


def locate(job: Job, output: str, *, stopped: Callable[[], bool] = lambda: False) -> None:
    """The command: run a job and print what it found.

    Raises:
        RsttraceError: the path cannot be probed.
        BrokenPipeError: nobody reads.
    """
    directory = NetnsDirectory()
    with Neighbors(directory) as neighbors:
        located = run_job(job, directory, neighbors, stopped=stopped, say=to_stderr)
    for line in located_lines(job, located, output, sys.stdout):
        print(line)
    sys.stdout.flush()


class Locator:
    """Locates forged resets beside a running trace, one at a time, each peer once in `EVERY_S`.

    Works in a thread of its own. What is too much is left out, and said: a storm of forged resets
    must not make a storm of probes. Use it as a context manager.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Starts its thread with the first job."""
        self._limits = limits or Limits()
        self._clock = clock
        self._seen: OrderedDict[tuple[int | None, str], float] = OrderedDict()
        self._jobs: queue.Queue[Job | None] = queue.Queue(MAX_WAITING)
        self._results: queue.Queue[tuple[Job, Located | RsttraceError]] = queue.Queue()
        self._thread: threading.Thread | None = None
        self._unfinished = 0
        self._stop = False
        self.left_out = 0

    def __enter__(self) -> Locator:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop = True
        with contextlib.suppress(queue.Full):
            self._jobs.put_nowait(None)
        if self._thread is not None:
            self._thread.join(1.0)

    def ask(self, entry: Entry) -> bool:
        """Locate an entry's reset if it is forged, from outside, and it is its peer's turn.

        True if it will be.
        """
        reset, verdict = entry.reset, entry.verdict
        if (
            verdict.origin is not Origin.FORGED
            or verdict.hops_rst is None
            or reset.kind.direction != "received"
            or reset.made_here is not None
        ):
            return False
        key = (reset.netns, reset.remote.ip)
        last = self._seen.get(key)
        if last is not None and self._clock() - last < EVERY_S:
            return False
        mac = reset.neighbor.mac if reset.neighbor else reset.frame.mac if reset.frame else None
        number = entry.id if entry.amends is None else entry.amends
        clue = Clue(verdict.hops_rst, verdict.hops_peer, mac, number)
        job = Job(resolve(reset.remote.ip, reset.remote.port), self._limits, clue, reset.netns)
        try:
            self._jobs.put_nowait(job)
        except queue.Full:
            self.left_out += 1
            return False
        self._unfinished += 1
        self._seen[key] = self._clock()
        self._seen.move_to_end(key)
        while len(self._seen) > MAX_PEERS:
            self._seen.popitem(last=False)
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="rsttrace-locate", daemon=True)
            self._thread.start()
        return True

    @property
    def busy(self) -> bool:
        """Whether something asked for is not yet among the results taken."""
        return self._unfinished > 0

    def results(self, seconds: float = 0.0) -> list[tuple[Job, Located | RsttraceError]]:
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
        with Neighbors(directory) as neighbors:
            while not self._stop:
                job = self._jobs.get()
                if job is None:
                    return
                found: Located | RsttraceError
                try:
                    found = run_job(job, directory, neighbors, stopped=lambda: self._stop)
                except RsttraceError as error:
                    found = error
                except OSError as error:
                    found = RsttraceError(f"probing failed: {error.strerror or error}")
                self._results.put((job, found))
