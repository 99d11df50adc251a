"""The two files of a comparison: captures, each read twice in bounded memory, and logs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from rsttrace import jsonl
from rsttrace.compare.join import JoinedFlow, join
from rsttrace.compare.match import FlowMatch, match_flows, one_sided
from rsttrace.compare.packets import compare
from rsttrace.compare.result import Result
from rsttrace.compare.survey import (
    MOST,
    FlowPackets,
    FlowSummary,
    Mark,
    Progress,
    gather,
    survey,
)
from rsttrace.errors import CaptureError
from rsttrace.model import Point
from rsttrace.tcp import RST, advance

COMPARED = 2_000
"""Connections with resets that are compared packet by packet."""

CONTEXT, CONTEXT_MOST = 64, 96
"""Others that are looked at for the clocks and the path, and packets kept of each."""

MOST_ENTRIES = 50_000
"""Entries of a log that are kept (some 10 kB each)."""

Until = Callable[[int], int]
"""Until when a point was watched, in nanoseconds: from the time of the last packet there."""


# ---- captures ----


def compare_files(
    files: Mapping[Point, str],
    *,
    flows: int = 65536,
    until: Mapping[Point, Until] = MappingProxyType({}),
    progress: Callable[[str], Progress] = lambda file: None,
    ended: Callable[[], bool] = lambda: False,
) -> Result:
    """Compare the captures of two vantage points.

    Args:
        files: the path of each point's capture.
        flows: how many connections with resets, and how many without, to remember of each.
        until: until when a point was captured, by its clock, from the time of its last packet.
        progress: for a file's path, what is told of bytes read; called for each pass.
        ended: looked at now and then; when it says true, reading stops.

    Raises:
        CaptureError: a file cannot be opened, is no capture, or is a pipe.
    """
    surveys = {point: survey(file, flows, progress(file), ended) for point, file in files.items()}
    matches = match_flows(surveys[Point.A].flows, surveys[Point.B].flows)
    chosen, notes = _choose(matches)
    for point, end in until.items():
        last_ns = surveys[point].last_ns
        surveys[point].until_ns = until_ns = None if last_ns is None else end(last_ns)
        if last_ns is not None and until_ns is not None and until_ns < last_ns:
            option = f"--until-{str(point).lower()}"
            notes.append(f"{option} is before the last packet there: it says nothing")
    packets = {
        point: gather(file, _wanted(chosen, point), progress(file), ended)
        for point, file in files.items()
    }
    joined = [_joined(match, packets) for match in chosen]
    counts = Counter(match.how for match in matches)
    escaped = {id(stray.flow) for made in joined for stray in made.strays.values()}
    strays = {id(stray.flow) for match in matches for stray in match.strays}
    counts.update({"escaped": len(escaped), "one-sided": len(strays - escaped)})
    joined += _alone(joined, packets)
    return compare(surveys, joined, +counts, notes)


_Packets = Mapping[Point, Mapping[int, FlowPackets]]


def _joined(match: FlowMatch, packets: _Packets) -> JoinedFlow:
    """A connection's packets, with what escaped NAT among them."""
    flow_at = {point: match.at(point) for point in Point}
    kept = {
        point: None if flow is None else packets[point].get(flow.first_frame)
        for point, flow in flow_at.items()
    }
    strays = [(stray, packets[stray.point][stray.flow.first_frame]) for stray in match.strays]
    return join(match, kept, strays)


def _alone(joined: Sequence[JoinedFlow], packets: _Packets) -> list[JoinedFlow]:
    """What seemed to have escaped NAT and is no connection's, where there are resets among it."""
    taken = {key for made in joined for key in made.strays}
    found: dict[int, JoinedFlow] = {}
    for point, flow in {
        (stray.point, stray.flow) for made in joined for stray in made.match.strays
    }:
        kept = packets[point][flow.first_frame]
        left = [item for item in kept.sightings if (point, item.frame) not in taken]
        if any(item.flags & RST for item in left):
            here = FlowPackets(flow, left, kept.spans)
            made = join(one_sided(flow, point), {point: here, point.other: None})
            found[id(flow)] = made
    return sorted(found.values(), key=lambda made: min(_frames(made)))


def _frames(made: JoinedFlow) -> list[int]:
    return [flow.first_frame for flow in (made.match.a, made.match.b) if flow is not None]


def _wanted(chosen: Sequence[FlowMatch], point: Point) -> list[tuple[FlowSummary, list[Mark], int]]:
    """The connections whose packets are wanted of a point, as `gather` takes them."""
    wanted = []
    for match in chosen:
        flow, other = match.at(point), match.at(point.other)
        marks = [mark for stray in match.strays for mark in _turned(stray.flow, stray.flip)]
        if other is not None:
            # the resets that the other point saw, in this point's directions
            shift = match.shift if point is Point.B else tuple(-by for by in match.shift)
            marks += [
                Mark(mark.way, advance(mark.seq, shift[mark.way]), mark.ack)
                for mark in _turned(other, match.flips(point.other))
            ]
        flip = match.flips(point)
        turned = [Mark(mark.way ^ flip, mark.seq, mark.ack) for mark in marks]
        most = MOST if match.resets else CONTEXT_MOST
        if flow is not None:
            wanted.append((flow, turned, most))
        wanted += [(stray.flow, [], most) for stray in match.strays if stray.point is point]
    return wanted


def _turned(flow: FlowSummary, flip: bool) -> list[Mark]:
    """The resets of a connection, in the ways as A counts them."""
    return [Mark(mark.way ^ flip, mark.seq, mark.ack) for mark in flow.marks]


def _choose(matches: Sequence[FlowMatch]) -> tuple[list[FlowMatch], list[str]]:
    """Connections with resets, and some of the others from all over the time."""
    reset = [match for match in matches if match.resets or match.strays]
    notes = []
    if len(reset) > COMPARED:
        notes.append(f"{len(reset) - COMPARED} of {len(reset)} connections were not compared")
    others = [
        match for match in matches if not match.resets and not match.strays and match.a and match.b
    ]
    step = max(1, len(others) // CONTEXT)
    return [*reset[:COMPARED], *others[::step][:CONTEXT]], notes


# ---- logs ----


@dataclass
class Log:
    """A file of our JSON lines, of one run or of several one after the other.

    `lost` counts resets that its summaries say are missing, ``None``: there is no summary. `runs`
    are the times from when until when each run watched, where a summary tells; `whole`: all runs
    say so, and nothing was filtered. `dropped` counts entries that found no room, or whose
    headers were not read: there is nothing to match. `problem` says
    where the file breaks off.
    """

    file: str
    lines: list[jsonl.Line] = field(default_factory=list)
    lost: int | None = None
    runs: list[tuple[int, int]] = field(default_factory=list)
    whole: bool = False
    dropped: int = 0
    problem: str | None = None


def is_log(file: str) -> bool:
    """Whether a file looks like JSON lines: its first character is a brace.

    Raises:
        CaptureError: it cannot be read.
    """
    try:
        with open(file, "rb") as stream:
            return stream.read(64).lstrip()[:1] == b"{"
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise CaptureError(f"cannot open {file!a}: {why}") from None


def load_log(file: str) -> Log:
    """Read a file of JSON lines; a line that amends another replaces it.

    Raises:
        CaptureError: it cannot be read, or its first line is none of ours.
    """
    log = Log(file)
    index: dict[int, int] = {}
    try:
        with open(file, encoding="utf-8", errors="replace") as stream:
            for number, text in enumerate(jsonl.texts(stream), 1):
                try:
                    if text.strip():
                        _take(log, index, jsonl.decode(text))
                except jsonl.WrongLine as wrong:
                    if number == 1:
                        raise CaptureError(
                            f"{file!a} is neither a capture nor JSON lines of rsttrace: {wrong}",
                            hint="give a pcap or pcapng file, or what `-o json` has written",
                        ) from None
                    log.problem = f"broken at line {number}: {wrong}"
                    break
    except OSError as error:
        raise CaptureError(f"cannot read {file!a}: {error.strerror or error}") from None
    return log


def _take(log: Log, index: dict[int, int], found: jsonl.Object) -> None:
    """Take a line in. `index` says where in the log the entry with an id is."""
    if "id" not in found:
        summary = jsonl.read_summary(found)
        if summary is not None:
            only = log.lost is None
            log.lost = (log.lost or 0) + summary.lost
            started, ended = summary.started_ns, summary.ended_ns
            if started is not None and ended is not None:
                log.runs.append((started, ended))
            whole = ended is not None and summary.filtered == 0
            log.whole = whole if only else whole and log.whole
        return
    if found.get("counted") is not None:
        return  # resets that were only counted: the summary has them among those that are missing
    if "rst" in found and found["rst"] is None:
        log.dropped += 1
        return
    line = jsonl.read_entry(found)
    first = line.entry.amends if line.entry.amends is not None else line.entry.id
    if first in index:
        log.lines[index[first]] = line
    elif len(log.lines) >= MOST_ENTRIES:
        log.dropped += 1
    else:
        index[first] = len(log.lines)
        log.lines.append(line)
