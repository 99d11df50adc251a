"""``rsttrace locate``, and ``--locate`` on a trace: a path, and a forged reset on it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TextIO

from rsttrace import jsonl
from rsttrace.commands.holders import HolderJob, holder_job_lines, run_holder_job
from rsttrace.commands.jobs import Background
from rsttrace.commands.run import to_stderr
from rsttrace.enrich import Neighbors, NetnsDirectory
from rsttrace.enrich.path import find_path
from rsttrace.enrich.replay import most_connections, replay
from rsttrace.enrich.target import Limits, Target, names_of, resolve
from rsttrace.errors import RsttraceError, UsageError
from rsttrace.judge.placement import place, place_replay
from rsttrace.model import Attempt, Entry, Hop, Neighbor, NextHop, Origin, Path, Placement
from rsttrace.render.escape import ascii_only, safe
from rsttrace.render.json import object_line
from rsttrace.render.path import path_lines, path_object


@dataclass(frozen=True)
class Clue:
    """What is known of a forged reset: how far it came, how far the peer was, who handed it over.

    `entry` is the id of the entry it comes from, `certain` whether that one says "forged", `sent`
    the first bytes of what we had sent before (``trace --payload``).
    """

    rst_hops: int
    peer_hops: int | None = None
    mac: str | None = None
    entry: int | None = None
    certain: bool = True
    sent: bytes | None = None


@dataclass(frozen=True)
class Job:
    """What to locate: a peer, and possibly a forged reset in its name."""

    target: Target
    limits: Limits
    clue: Clue | None = None
    netns: int | None = None
    dns: bool = False
    data: bytes | None = None
    probe_arp: bool = False


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
    found: tuple[int, jsonl.Object] | None = None
    certain = False
    for number, text in enumerate(lines, 1):
        if not text.strip():
            continue
        try:
            made = jsonl.decode(text)
        except jsonl.NotJson as error:
            raise UsageError(
                f"{name}, line {number} is not JSON: {error.detail}",
                hint="give a file that `rsttrace -o json` wrote",
            ) from None
        except jsonl.WrongLine:
            continue  # of another program
        forged = made.get("origin") == Origin.FORGED.value
        if forged or (made.get("origin") == Origin.INCONCLUSIVE.value and not certain):
            found, certain = (number, made), forged
    if found is None:
        raise UsageError(
            f"{name} holds no entry of a forged reset",
            hint="write one with `rsttrace --origin forged -o json`",
        )
    number, made = found
    try:
        line = jsonl.read_entry(made)
    except jsonl.WrongLine as error:
        raise UsageError(
            f"{name}, line {number} is not an entry of rsttrace's: {error}",
            hint="give a file that `rsttrace -o json` wrote",
        ) from None
    return _clue_of_line(line)


def _clue_of_line(line: jsonl.Line) -> tuple[str, int, Clue]:
    reset, verdict = line.entry.reset, line.entry.verdict
    if reset.kind.direction != "received":
        raise UsageError(
            "the reset was not received by this host, so its TTL says nothing about this path"
        )
    if reset.made_here is not None:
        raise UsageError(
            "that reset was made by its own node (made_here): there is nothing to find on the path"
        )
    if verdict.hops_rst is None:
        raise UsageError("the entry does not say how far the reset came (hops.rst is null)")
    clue = Clue(
        rst_hops=verdict.hops_rst,
        peer_hops=verdict.hops_peer,
        mac=reset.neighbor.mac if reset.neighbor else None,
        entry=line.entry.id,
        certain=verdict.origin is Origin.FORGED,
        sent=line.sent,
    )
    return reset.remote.ip, reset.remote.port or 80, clue


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
        if not job.probe_arp or stopped():
            return
        asked = _holder_job(job, located.path)
        if asked is None:
            to_stderr("no address to ask for: the peer is this host itself, or there is no way")
            return
        found = run_holder_job(asked, directory, neighbors, stopped)
        for line in holder_job_lines(asked, found, output, sys.stdout):
            print(line)
        sys.stdout.flush()


def _holder_job(job: Job, path: Path) -> HolderJob | None:
    """The next hop's address: the peer's own if it is on our link."""
    hop = path.next_hop
    if hop is None or hop.is_local:
        return None
    netns = os.stat("/proc/self/ns/net").st_ino if job.netns is None else job.netns
    mac = job.clue.mac if job.clue is not None and not hop.is_gateway else None
    return HolderJob(hop.ip, netns, hop.ifindex, (mac,) if mac else ())


class Locator(Background[Job, Located]):
    """Locates forged resets beside a running trace, each peer once in `EVERY_S`."""

    def __init__(self, limits: Limits | None = None) -> None:
        super().__init__(
            lambda job, directory, neighbors, stopped: run_job(
                job, directory, neighbors, stopped=stopped
            ),
            "rsttrace-locate",
        )
        self._limits = limits or Limits()

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
        mac = reset.neighbor.mac if reset.neighbor else reset.frame.mac if reset.frame else None
        number = entry.id if entry.amends is None else entry.amends
        clue = Clue(verdict.hops_rst, verdict.hops_peer, mac, number)
        job = Job(resolve(reset.remote.ip, reset.remote.port), self._limits, clue, reset.netns)
        return self.put((reset.netns, reset.remote.ip), job)
