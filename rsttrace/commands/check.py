"""``rsttrace check``: one question, one line, and the exit code that monitors expect."""

from __future__ import annotations

import enum
import io
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rsttrace.commands.about import about_run
from rsttrace.commands.books import Books
from rsttrace.commands.spans import PER, duration_s
from rsttrace.commands.starting import request_of
from rsttrace.commands.trace import Told, shown_of, trace
from rsttrace.errors import RsttraceError, UsageError
from rsttrace.judge.advice import CAUSES
from rsttrace.judge.findings import FINDERS
from rsttrace.kernel import causes
from rsttrace.model import Author, Entry, Kind, Origin
from rsttrace.render.escape import safe
from rsttrace.render.json import object_line
from rsttrace.render.text import answer_text

MOST = 80
"""Characters of the line: what a node-problem-detector keeps of it by default."""


class Status(enum.Enum):
    """What a check came to."""

    OK = "ok"
    WARNING = "warning"
    CRITICAL = "critical"
    UNKNOWN = "unknown"


PLAIN = {Status.OK: 0, Status.WARNING: 0, Status.CRITICAL: 1, Status.UNKNOWN: 2}
NAGIOS = {Status.OK: 0, Status.WARNING: 1, Status.CRITICAL: 2, Status.UNKNOWN: 3}
EXIT_CODES = {"plain": PLAIN, "npd": PLAIN, "json": PLAIN, "nagios": NAGIOS}
"""Of each style. node-problem-detector: 0 ok, 1 problem, others unknown (custom_plugin_monitor.md);
Nagios: the Plugin Development Guidelines' return codes."""

_THRESHOLD = re.compile(r"(\d{1,12})(?:/(s|min|m|h))?", re.ASCII)


@dataclass(frozen=True)
class Threshold:
    """So many resets (`per_s` None), or so many in so many seconds, and more."""

    number: int
    per_s: int | None = None

    def reached(self, count: int, seconds: float) -> bool:
        """Whether so many in so long are as many."""
        if self.per_s is None:
            return count >= self.number
        return count * self.per_s >= self.number * seconds

    def count(self, seconds: float) -> float:
        """How many that are in so long."""
        return self.number if self.per_s is None else self.number * seconds / self.per_s


def threshold(option: str, text: str) -> Threshold:
    """``10``, or ``5/s``, ``100/min``, ``1000/h``.

    Raises:
        UsageError: it is neither a count nor a rate, or 0.
    """
    match = _THRESHOLD.fullmatch(text.strip())
    if match is None or not int(match[1]):
        raise UsageError(
            f"{option} {text!a} is neither a count nor a rate",
            hint="write it as 10, 5/s or 100/min",
        )
    return Threshold(int(match[1]), PER[match[2]] if match[2] else None)


def words() -> dict[str, Callable[[Entry], bool]]:
    """What ``--fail-on`` takes, with what each asks of an entry."""
    found: dict[str, Callable[[Entry], bool]] = {"any": lambda entry: True}
    for finder in FINDERS:
        name = finder.__name__.replace("_", "-")
        found[name] = _asks(lambda entry: entry.verdict.findings, name)
    for cause in _causes():
        found[cause] = _asks(lambda entry: (entry.cause.name,), cause)
    for author in Author:
        found[author.value] = _asks(lambda entry: (_author(entry),), author)
    for kind in Kind:
        found[kind.value] = _asks(lambda entry: (entry.reset.kind,), kind)
        found[kind.direction] = _asks(lambda entry: (entry.reset.kind.direction,), kind.direction)
    for origin in Origin:
        found[origin.value] = _asks(lambda entry: (entry.verdict.origin,), origin)
    return found


def _asks(told: Callable[[Entry], tuple[Any, ...]], value: Any) -> Callable[[Entry], bool]:
    return lambda entry: value in told(entry)


def _causes() -> set[str]:
    """The names of causes (docs/causes.md)."""
    told = (*causes.PASSIVE.values(), *causes.ACTIVE.values(), *causes.ACCEPTED.values())
    return {*CAUSES, *(name for name, _ in told)}


def _author(entry: Entry) -> Author | None:
    authors = entry.verdict.authors
    return authors[0].author if authors else None


@dataclass
class Seen:
    """The resets of a check, each with its last verdict; `counted` were only counted."""

    entries: dict[int, Entry] = field(default_factory=dict)
    counted: list[Entry] = field(default_factory=list)
    books: Books | None = None
    seconds: float = 0.0

    def add(self, entry: Entry) -> None:
        """An entry was shown."""
        if entry.reset.counted is not None:
            self.counted.append(entry)
        else:
            self.entries[entry.id if entry.amends is None else entry.amends] = entry


@dataclass(frozen=True)
class Outcome:
    """The answer. `worst` is the commonest (who and why, cause, count) among those that matched."""

    status: Status
    matched: int
    resets: int
    seconds: float
    text: str
    worst: tuple[str, str, int] | None = None
    author: str | None = None
    critical: Threshold = Threshold(1)
    warning: Threshold | None = None


def outcome(
    seen: Seen, fail_on: tuple[str, ...], critical: Threshold, warning: Threshold | None
) -> Outcome:
    """What the resets come to.

    What was only counted has no verdict: it matches by kind, cause and ``any``. Nothing is said to
    be in order where resets were lost.
    """
    asked = words()
    wanted = [asked[word] for word in fail_on]
    found = [(entry, 1) for entry in seen.entries.values()]
    found += [(entry, entry.reset.seen) for entry in seen.counted]
    matched = [
        (entry, count) for entry, count in found if any(matches(entry) for matches in wanted)
    ]
    number, whole = sum(count for _, count in matched), sum(count for _, count in found)
    lost = seen.books.lost if seen.books is not None else 0
    status = Status.OK
    if number and critical.reached(number, seen.seconds):
        status = Status.CRITICAL
    elif number and warning is not None and warning.reached(number, seen.seconds):
        status = Status.WARNING
    elif lost:
        status = Status.UNKNOWN
    what = "/".join(fail_on)
    if status is Status.UNKNOWN:
        text = f"{lost:,} resets were lost, {number:,} of {whole:,} others {what}"
        return Outcome(status, number, whole, seen.seconds, text, None, None, critical, warning)
    worst: Counter[tuple[str, str]] = Counter()
    for entry, count in matched:
        worst[_who(entry), entry.cause.name] += count
    span = f"{seen.seconds:.0f} s" if seen.seconds >= 1 else f"{seen.seconds:.1f} s"
    text = f"{number:,} of {whole:,} resets {what} in {span}"
    if not worst:
        return Outcome(status, number, whole, seen.seconds, text, None, None, critical, warning)
    (who, cause), most = min(worst.items(), key=lambda item: (-item[1], item[0]))
    first = next(e for e, _ in matched if (_who(e), e.cause.name) == (who, cause))
    author = _author(first)
    named = None if author is None else author.value
    text = f"{number:,} {what} in {span}: {most:,} {who} ({cause})"
    return Outcome(
        status, number, whole, seen.seconds, text, (who, cause, most), named, critical, warning
    )


def _who(entry: Entry) -> str:
    """The answer without what differs from one to the next of alike ones."""
    return re.sub(r"\s*\([^()]*\)", "", answer_text(entry).partition(";")[0])


def line(made: Outcome, style: str, fail_on: tuple[str, ...]) -> str:
    """The one line; of ``nagios`` with perfdata behind it."""
    if style == "json":
        return object_line(_object(made, fail_on), about_run())
    text = _cut(f"{made.status.name}: {made.text}", MOST)
    if style != "nagios":
        return text
    label = "_".join(fail_on)
    warning = "" if made.warning is None else f"{made.warning.count(made.seconds):g}"
    critical = f"{made.critical.count(made.seconds):g}"
    text = _cut(f"RESETS {made.status.name} - {made.text}", MOST)
    rate = made.matched / made.seconds if made.seconds else 0.0
    perfdata = f"'{label}'={made.matched};{warning};{critical};0 resets={made.resets};;;0"
    return f"{text.replace('|', '/')} | {perfdata} rate={rate:.3f};;;0"


def _cut(text: str, most: int) -> str:
    """At most so many characters, all printable ASCII."""
    text = safe(text, 1000).encode("ascii", "replace").decode()
    return text if len(text) <= most else text[: most - 3].rstrip() + "..."


def _object(made: Outcome, fail_on: tuple[str, ...]) -> dict[str, Any]:
    worst = made.worst
    return {
        "schema": 1,
        "check": {
            "status": made.status.value,
            "text": made.text,
            "fail_on": list(fail_on),
            "matched": made.matched,
            "resets": made.resets,
            "duration_s": round(made.seconds, 3),
            "worst": None
            if worst is None
            else {"who": worst[0], "author": made.author, "cause": worst[1], "count": worst[2]},
        },
    }


def run_command(options: Mapping[str, Any]) -> int:
    """The command, from its options; the exit code of its style.

    An error is ``UNKNOWN``: the line has its first words, standard error all of it.
    """
    style = options["style"]
    codes = EXIT_CODES[style]
    fail_on: tuple[str, ...] = ()
    try:
        fail_on = _fail_on(options["fail_on"])
        critical = threshold("--critical", options["critical"])
        given = options["warning"]
        warning = None if given is None else threshold("--warning", given)
        seen = Seen()
        _watch({**options, "duration": duration_s(options["duration"])}, seen)
        made = outcome(seen, fail_on, critical, warning)
    except RsttraceError as error:
        print(f"rsttrace: {error}", file=sys.stderr)
        made = Outcome(Status.UNKNOWN, 0, 0, 0.0, error.what)
    print(line(made, style, fail_on or ("forged",)), flush=True)
    return codes[made.status]


def _fail_on(text: str) -> tuple[str, ...]:
    asked = tuple(dict.fromkeys(filter(None, (word.strip() for word in text.split(",")))))
    unknown = [word for word in asked if word not in words()]
    if unknown or not asked:
        raise UsageError(
            f"--fail-on {', '.join(unknown) or text!a}: no origin, author, cause, finding or kind",
            hint="forged, inconclusive, reject, duplicate-address, received-accepted, any, ...",
        )
    return asked


def _watch(options: Mapping[str, Any], seen: Seen) -> None:
    """Trace for as long as was asked, or until a signal."""
    began = time.monotonic()

    def told(books: Books) -> None:
        seen.books = books

    def armed() -> None:
        nonlocal began
        began = time.monotonic()

    quietly = Told(io.StringIO(), lambda text: None, armed, seen.add, told)
    trace(request_of(options), shown_of(options), quietly)
    seen.seconds = time.monotonic() - began
    wanted = options["duration"]
    if abs(seen.seconds - wanted) < 1 + wanted / 20:  # the end took a moment
        seen.seconds = wanted
