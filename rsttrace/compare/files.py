"""Two capture files compared: reads each twice, in bounded memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from rsttrace.compare.match import Match, join, match_flows
from rsttrace.compare.packets import Result, compare
from rsttrace.compare.survey import MOST, Brief, Mark, Progress, Record, gather, survey

COMPARED = 2_000
"""Connections with resets that are compared packet by packet."""

CONTEXT, CONTEXT_MOST = 64, 96
"""Others that are looked at for the clocks and the path, and packets kept of each."""

Chosen = list[tuple[Brief, list[Mark], int]]


def compare_files(
    names: Sequence[str],
    *,
    flows: int = 65536,
    progress: Callable[[str], Progress] = lambda name: None,
    ended: Callable[[], bool] = lambda: False,
) -> Result:
    """Compare the captures of two vantage points, A and B.

    Args:
        names: the paths of A's and B's capture.
        flows: how many connections with resets, and how many without, to remember of each.
        progress: for a file's name, what is told of bytes read; called for each pass.
        ended: looked at now and then; when it says true, reading stops.

    Raises:
        CaptureError: a file cannot be opened, is no capture, or is a pipe.
    """
    surveys = [survey(name, flows, progress(name), ended) for name in names]
    matches = match_flows(surveys[0].briefs, surveys[1].briefs)
    chosen, notes = _choose(matches)
    wanted: tuple[Chosen, Chosen] = ([], [])
    for match in chosen:
        a, b = match.a, match.b
        most = MOST if _resets(match) else CONTEXT_MOST
        if a is not None:
            wanted[0].append((a, _marks(b, match.flip), most))
        if b is not None:
            wanted[1].append((b, _marks(a, match.flip), most))
    records = [gather(name, chosen, progress(name), ended) for name, chosen in zip(names, wanted)]
    joined = [
        join(match, _record(records[0], match.a), _record(records[1], match.b)) for match in chosen
    ]
    counts = Counter(match.how for match in matches)
    return compare(surveys, joined, counts, notes)


def _resets(match: Match) -> int:
    return sum(brief.resets for brief in (match.a, match.b) if brief is not None)


def _record(records: dict[int, Record], brief: Brief | None) -> Record | None:
    return None if brief is None else records.get(brief.first_frame)


def _marks(brief: Brief | None, flip: bool) -> list[Mark]:
    """The resets that the other point saw, in this point's directions."""
    if brief is None:
        return []
    return [Mark(mark.way ^ flip, mark.seq, mark.ack) for mark in brief.marks]


def _choose(matches: Sequence[Match]) -> tuple[list[Match], list[str]]:
    """Connections with resets, and some of the others from all over the time."""
    reset = [match for match in matches if _resets(match)]
    notes = []
    if len(reset) > COMPARED:
        notes.append(f"{len(reset) - COMPARED} of {len(reset)} connections were not compared")
    others = [match for match in matches if not _resets(match) and match.a and match.b]
    step = max(1, len(others) // CONTEXT)
    return [*reset[:COMPARED], *others[::step][:CONTEXT]], notes
