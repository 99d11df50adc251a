"""Finding a path and a forged reset on it: for ``rsttrace locate``, and beside a trace."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace

from rsttrace.commands.clue import Clue
from rsttrace.commands.jobs import Worker
from rsttrace.commands.run import machine_form
from rsttrace.enrich import Neighbors, NetnsDirectory
from rsttrace.enrich.path import find_path
from rsttrace.enrich.replay import most_connections, replay
from rsttrace.enrich.target import Limits, Target, names_of, resolve
from rsttrace.judge.placement import place, place_replay
from rsttrace.model import Attempt, Entry, Hop, Neighbor, NextHop, Origin, Path, Placement
from rsttrace.render.escape import safe
from rsttrace.render.json import About
from rsttrace.render.path import path_lines, path_object


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
    netns = os.stat("/proc/self/ns/net").st_ino if job.netns is None else job.netns
    netns_path = directory.way_into(netns)

    def surroundings(ip: str) -> tuple[NextHop | None, Neighbor | None]:
        hop = neighbors.next_hop(netns, ip)
        if hop is None or hop.ifindex is None:
            return hop, None
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
    placement = _placement(path, job.clue) if job.clue is not None else None
    if job.data is None or stopped():
        return Located(path, placement)
    say(announcement(job, path))
    attempts = replay(
        job.target, job.data, job.limits, path.distance, netns_path=netns_path, stopped=stopped
    )
    replayed = place_replay(path, attempts)
    if placement and replayed.hop is not None and replayed.hop != placement.hop:
        notes = (*placement.notes, "the replay says otherwise")
        placement = replace(placement, sure="unknown", notes=notes)
    return Located(path, placement, attempts, replayed)


def _placement(path: Path, clue: Clue) -> Placement:
    found = place(path, clue.rst_hops, peer_hops=clue.peer_hops, mac=clue.mac)
    if clue.certain:
        return found
    note = "whether it is forged is inconclusive: this is where, if it is"
    return replace(found, notes=(note, *found.notes))


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
    job: Job,
    located: Located,
    output: str,
    plain: bool,
    indent: str = "",
    about: About | None = None,
) -> list[str]:
    """What a job found, as lines of text or as one line of JSON (with `about`, the run)."""
    if output != "text":
        made = path_object(
            located.path,
            located.placement,
            replayed=located.replayed,
            attempts=located.attempts,
            entry=job.clue.entry if job.clue else None,
            netns=job.netns,
        )
        return [machine_form(output)(made, about)]
    return path_lines(
        located.path,
        located.placement,
        replayed=located.replayed,
        plain=plain,
        indent=indent,
    )


class Locator(Worker[Job, Located]):
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
