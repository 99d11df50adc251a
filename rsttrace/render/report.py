"""One page of HTML about a run, to attach to a ticket: nothing in it is fetched from anywhere.

Made with Jinja2, every text escaped by it (autoescape) after `safe` has spelled out what could
deceive a reader. What a run may give without end is bounded here; what is left out is counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rsttrace import model
from rsttrace.render import neighbors
from rsttrace.render.authors import SHOWN, makers_text
from rsttrace.render.escape import safe
from rsttrace.render.page import page
from rsttrace.render.page import prepare as prepare_page
from rsttrace.render.picture import picture_lines
from rsttrace.render.text import entry_lines
from rsttrace.render.timeline import Timeline, draw
from rsttrace.render.times import duration, iso_time
from rsttrace.render.words import (
    endpoint_text,
    made_here_text,
    maker_distance,
    neighbor_text,
    owner_process_text,
    verdict_text,
)
from rsttrace.tcp import distance

MOST_ENTRIES = 200
"""So many resets are told in detail; forged and inconclusive ones have this room to themselves."""

MOST_OTHERS = 100
"""And so many of the honest ones."""

MOST_CONNECTIONS = 1_000
"""The table has so many connections."""

MOST_NOTES = 50

_SENTENCE = 400
_PACKETS = 24
_DOUBTFUL = (model.Origin.FORGED, model.Origin.INCONCLUSIVE)


@dataclass
class Connection:
    """A row of the table: what became of one connection."""

    ends: str
    process: str
    first: str
    resets: int
    verdict: str
    origin: str
    why: str
    anchor: str | None


@dataclass(frozen=True)
class Row:
    """A packet as Wireshark lists it. `marked`: it is the reset."""

    after: str
    source: str
    destination: str
    ttl: int
    ip_id: str
    length: str
    info: str
    marked: bool = False


@dataclass
class Detail:
    """What is told of one reset."""

    number: int
    anchor: str
    title: str
    time: str
    verdict: str
    origin: str
    lines: list[str]
    picture: str
    authors: list[tuple[str, float]]
    evidence: list[tuple[str, str, str, str]]
    packets: list[Row]
    advice: str
    amends: int | None


TEMPLATE = "report.html.j2"


def prepare() -> None:
    """Read now what the page is made of: whoever makes it later may not have the right to."""
    prepare_page(TEMPLATE)


@dataclass
class Report:
    """What a run has shown, as a page.

    `title` names what was looked at, `utc` says which clock the times are in. `notes` are what the
    run said about itself (warnings, losses), `comparison` is the picture of two vantage points.
    `secret`: it holds data of connections.
    """

    title: str
    utc: bool = False
    notes: list[str] = field(default_factory=list)
    comparison: list[str] = field(default_factory=list)
    secret: bool = False

    def __post_init__(self) -> None:
        self._timeline = Timeline()
        self._connections: dict[tuple[str, str], Connection] = {}
        self._details: dict[int, Detail] = {}
        self._room = {True: MOST_ENTRIES, False: MOST_OTHERS}
        self._origins: Counter[str] = Counter()
        self._causes: Counter[tuple[str, str, str]] = Counter()
        self._makers: Counter[str] = Counter()
        self._handed: Counter[str] = Counter()
        self._peers: Counter[str] = Counter()
        self._counted: dict[int, tuple[str, tuple[str, str, str], str | None, str | None]] = {}
        self._shown = 0

    def note(self, text: str) -> None:
        """Keep a line that the run said about itself."""
        if len(self.notes) < MOST_NOTES:
            self.notes += [safe(line, _SENTENCE) for line in text.splitlines()]

    def add(self, entry: model.Entry) -> None:
        """Take in an entry; one that amends an earlier one takes its place."""
        reset, verdict = entry.reset, entry.verdict
        key = entry.id if entry.amends is None else entry.amends
        self.secret = self.secret or reset.sent_data is not None or reset.payload is not None
        before = self._counted.pop(key, None)
        if before is not None:
            self._count(before, -1)
        else:
            self._shown += 1
            self._timeline.add(reset.time_ns, verdict.origin)
        counted = (
            verdict.origin.value,
            (
                safe(entry.cause.name),
                safe(entry.cause.text, _SENTENCE),
                safe(verdict.advice or "", 400),
            ),
            _maker(entry) if verdict.origin is model.Origin.FORGED else None,
            _handed(reset) if verdict.origin is model.Origin.FORGED else None,
        )
        self._count(counted, +1)
        self._counted[key] = counted
        if len(self._counted) > 2 * MOST_CONNECTIONS:
            self._counted.pop(next(iter(self._counted)))
        self._peers[endpoint_text(reset.remote)] += before is None
        if len(self._peers) > 10 * MOST_CONNECTIONS:
            self._peers = Counter(dict(self._peers.most_common(MOST_CONNECTIONS)))
        anchor = self._tell(entry, key)
        self._connect(entry, anchor, new=before is None)

    def _count(
        self, counted: tuple[str, tuple[str, str, str], str | None, str | None], step: int
    ) -> None:
        origin, cause, maker, handed = counted
        self._origins[origin] += step
        self._causes[cause] += step
        for counter, name in ((self._makers, maker), (self._handed, handed)):
            if name is not None:
                counter[name] += step

    def _tell(self, entry: model.Entry, key: int) -> str | None:
        known = self._details.get(key)
        doubtful = entry.verdict.origin in _DOUBTFUL
        if known is None and not self._room[doubtful]:
            return None
        detail = _detail(entry, key, utc=self.utc)
        if known is None:
            self._room[doubtful] -= 1
        self._details[key] = detail
        return detail.anchor

    def _connect(self, entry: model.Entry, anchor: str | None, *, new: bool) -> None:
        reset, verdict = entry.reset, entry.verdict
        ends = (endpoint_text(reset.local), endpoint_text(reset.remote))
        row = self._connections.get(ends)
        if row is None:
            if len(self._connections) >= MOST_CONNECTIONS:
                return
            arrow = "\u2190" if reset.kind.direction == "received" else "\u2192"
            self._connections[ends] = Connection(
                f"{ends[0]} {arrow} {ends[1]}",
                _process(reset),
                _when(reset.time_ns, self.utc),
                1,
                verdict_text(verdict),
                verdict.origin.value,
                _why(entry),
                anchor,
            )
            return
        row.resets += new
        worse = verdict.origin in _DOUBTFUL and row.origin not in ("forged",)
        if worse or not new:
            row.verdict, row.origin = verdict_text(verdict), verdict.origin.value
            row.why, row.anchor = _why(entry), anchor or row.anchor

    # ---- the page ----

    def html(self, about: Sequence[tuple[str, str]], counts: dict[str, int]) -> str:
        """The page. `about` says how it was made, `counts` what was not shown, by reason."""
        told = sum(row.resets for row in self._connections.values())
        return page(
            TEMPLATE,
            title=safe(self.title, _SENTENCE),
            sentences=self._sentences(),
            drawn=draw(self._timeline, utc=self.utc),
            first=_when(self._timeline.first_ns, self.utc),
            last=_when(self._timeline.last_ns, self.utc),
            bin_width=duration(self._timeline.width_ns),
            connections=list(self._connections.values()),
            untold=self._shown - told,
            doubtful=[d for d in self._details.values() if d.origin in ("forged", "inconclusive")],
            honest=[d for d in self._details.values() if d.origin in ("peer", "local")],
            undetailed=self._shown - len(self._details),
            comparison="\n".join(self.comparison),
            causes=[(count, *cause) for cause, count in self._causes.most_common(12) if count],
            about=[(name, safe(text, 1000)) for name, text in about],
            notes=self.notes,
            missing={name: count for name, count in counts.items() if count},
        )

    def _sentences(self) -> list[str]:
        """What happened, who did it, what next."""
        total = self._shown
        if not total:
            return ["No reset was seen."]
        parts = [
            f"{self._origins[origin]} {words}"
            for origin, words in (
                ("forged", "forged"),
                ("inconclusive", "that could not be decided"),
                ("peer", "sent by the peer itself"),
                ("local", "sent by this host"),
            )
            if self._origins[origin]
        ]
        took = ""
        first, last = self._timeline.first_ns, self._timeline.last_ns
        if first is not None and last is not None and last > first:
            took = f" in {duration(last - first)}"
        said = [f"{total} {'reset' if total == 1 else 'resets'}{took}: {_listed(parts)}."]
        forged = self._origins["forged"]
        if forged:
            maker, count = self._makers.most_common(1)[0]
            share = "" if count == forged else f"{count} of {forged} "
            words = f"The forged ones: {share}made {maker}"
            handed = self._handed.most_common(1)
            if handed and handed[0][1]:
                words += f", handed over {handed[0][0]}"
            said.append(words + ".")
        else:
            said.append("None of them was forged.")
        advised = [(count, cause) for cause, count in self._causes.most_common() if count]
        count, (_, text, advice) = advised[0]
        words = f"Most often ({count} of {total}): {text}"
        said.append(f"{words}. What next: {advice}" if advice else f"{words}.")
        return said


def _listed(parts: Sequence[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def _when(time_ns: int | None, utc: bool) -> str:
    """``2019-11-24 17:30:03.412``; empty where it is not known."""
    text = None if time_ns is None else iso_time(time_ns, utc=utc)
    return "" if text is None else text[:23].replace("T", " ")


def _process(reset: model.Reset) -> str:
    return owner_process_text(reset.process)


def _maker(entry: model.Entry) -> str:
    """By whom and where, as a clause: ``by a firewall's REJECT rule, 1 hop away``."""
    reset, verdict = entry.reset, entry.verdict
    if reset.made_here is not None:
        return made_here_text(reset.made_here, verdict.origin).partition(" ")[2]
    maker = f"by {makers_text(verdict) or 'a device'}"
    where = maker_distance(reset, verdict)
    return maker if where is None or verdict.hops_rst == verdict.hops_peer else f"{maker}, {where}"


def _handed(reset: model.Reset) -> str | None:
    neighbor = neighbors.neighbor(reset)
    if reset.made_here is not None or neighbor is None or neighbor.mac is None:
        return None
    return neighbor_text(neighbor, reset)


def _why(entry: model.Entry) -> str:
    verdict = entry.verdict
    if verdict.origin is model.Origin.FORGED:
        return _maker(entry)
    return safe(verdict.summary or entry.cause.text, _SENTENCE)


def _detail(entry: model.Entry, number: int, *, utc: bool) -> Detail:
    reset, verdict = entry.reset, entry.verdict
    _, *rest = entry_lines(entry, verbose=True, utc=utc, quiet=True)
    # evidence has a table of its own, and so has what is marked with a sign
    lines = [line.strip() for line in rest if not line.strip().startswith(("+ ", "- ", "= ", ". "))]
    return Detail(
        number=number,
        anchor=f"reset-{number}",
        title=f"{endpoint_text(reset.local)} "
        f"{'←' if reset.kind.direction == 'received' else '→'} {endpoint_text(reset.remote)}",
        time=iso_time(reset.time_ns, utc=utc) or "time unknown",
        verdict=verdict_text(verdict),
        origin=verdict.origin.value,
        lines=[_why(entry), *lines],
        picture="\n".join(picture_lines(entry)),
        authors=[
            (safe(share.text, 200), round(share.probability * 100, 1))
            for share in verdict.authors[:SHOWN]
            if share.probability >= 0.005
        ],
        evidence=[
            (
                "proof" if item.proof else f"{item.weight:+.1f}",
                "for"
                if item.proof or item.weight > 0
                else "against"
                if item.weight < 0
                else "none",
                safe(item.rule),
                safe(item.text, _SENTENCE),
            )
            for item in verdict.evidence
        ],
        packets=packets(reset),
        advice=safe(verdict.advice or "", _SENTENCE),
        amends=entry.amends,
    )


# ---- packets around a reset ----


def packets(reset: model.Reset) -> list[Row]:
    """What was seen of the connection around the RST, in order of time, as Wireshark lists it.

    Numbers are relative to the oldest packet of their direction that is listed.
    """
    rst, baseline = reset.rst, reset.baseline
    halves = (baseline.theirs, baseline.ours) if baseline.scope is model.Scope.FLOW else ()
    seen: list[tuple[bool, model.Seen]] = []
    for theirs, half in zip((True, False), halves):
        seen += [(theirs, item) for item in (half.recent if half else ())]
    seen += [(True, item) for item in (*reset.earlier, *reset.later)]
    if isinstance(reset.trigger, model.Seen):
        seen.append((False, reset.trigger))
    unique = {(theirs, item.time_ns, item.seq, item.flags): (theirs, item) for theirs, item in seen}
    listed = sorted(unique.values(), key=lambda pair: pair[1].time_ns)
    before = [pair for pair in listed if pair[1].time_ns <= reset.time_ns][-_PACKETS:]
    after = [pair for pair in listed if pair[1].time_ns > reset.time_ns][:_PACKETS]
    start = {
        theirs: next((item.seq for way, item in (*before, *after) if way is theirs), None)
        for theirs in (True, False)
    }
    if start[True] is None:
        start[True] = rst.seq
    rows = [_row(reset, start, theirs, item) for theirs, item in before]
    if isinstance(reset.trigger, model.Packet):
        rows.append(_row(reset, start, False, reset.trigger))
    if not reset.unread:
        rows.append(_row(reset, start, True, rst, marked=True))
    return rows + [_row(reset, start, theirs, item) for theirs, item in after]


def _row(
    reset: model.Reset,
    start: dict[bool, int | None],
    theirs: bool,
    packet: model.Seen | model.Packet,
    *,
    marked: bool = False,
) -> Row:
    ends = [reset.rst.src, reset.rst.dst] if theirs else [reset.rst.dst, reset.rst.src]
    source, destination = ends
    words = [f"{source.port} \u2192 {destination.port}", f"[{_flags(packet.flags)}]"]
    words.append(f"Seq={_relative(packet.seq, start[theirs])}")
    if "A" in packet.flags or packet.ack:
        words.append(f"Ack={_relative(packet.ack, start[not theirs])}")
    if packet.window is not None:
        words.append(f"Win={packet.window}")
    words.append(f"Len={packet.payload_len}")
    if isinstance(packet, model.Seen):
        after = packet.time_ns - reset.time_ns
        if packet.tsval is not None:
            words.append(f"TSval={packet.tsval} TSecr={packet.tsecr}")
        if packet.segments > 1:
            words.append(f"({packet.segments} segments)")
        length = ""
    else:
        after, length = 0, str(packet.length)
        if packet.options:
            words.append(f"<{safe(packet.options, 200)}>")
    return Row(
        after="0" if marked else duration(after) if after else "just before",
        source=safe(source.ip),
        destination=safe(destination.ip),
        ttl=packet.ttl,
        ip_id=_ip_id(packet),
        length=length,
        info=" ".join(words),
        marked=marked,
    )


def _ip_id(packet: model.Seen | model.Packet) -> str:
    if packet.ip_id is None:
        return ""
    return f"{packet.ip_id:#06x}" + (" DF" if packet.df else "")


_FLAGS = {
    "F": "FIN",
    "S": "SYN",
    "R": "RST",
    "P": "PSH",
    "A": "ACK",
    "U": "URG",
    "E": "ECE",
    "W": "CWR",
}


def _flags(letters: str) -> str:
    return ", ".join(_FLAGS[letter] for letter in "FSRPAUEW" if letter in letters)


def _relative(number: int, start: int | None) -> int:
    return number if start is None else distance(start, number)


def about_lines(pairs: Iterable[tuple[str, Any]]) -> list[tuple[str, str]]:
    """What of a list of facts is known, as text."""
    return [(name, str(value)) for name, value in pairs if value not in (None, "")]
