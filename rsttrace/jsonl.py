"""rsttrace's own JSON lines, read back into the model's objects: the one reader of them.

Anybody may have written a line: every member that is used is checked.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, NamedTuple, TextIO

from rsttrace.model import (
    NO_TIME,
    Author,
    Cause,
    Container,
    Counted,
    Endpoint,
    Entry,
    Evidence,
    Kind,
    MadeHere,
    Neighbor,
    NextHop,
    Origin,
    Packet,
    Pod,
    Process,
    Reset,
    Share,
    Sighting,
    Verdict,
)

SCHEMA = 1
"""The version of the JSON: raised only when a field is renamed, removed or changes its meaning."""

LONGEST_LINE = 1 << 20
"""Characters of a line; an entry of ours has some thousands."""

MOST_HEADERS = 200
"""Bytes of a packet's IP and TCP headers; there are at most 60 of each (RFC 791, RFC 9293)."""

MISSING = ("aggregated", "lost", "blocked")
"""What a summary counts that its run did not see; what was filtered, nobody wanted."""

_HEX = re.compile(r"(?:[0-9a-f]{2})*", re.ASCII)
_TIME = re.compile(
    r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.(\d{9})([+-])(\d\d):(\d\d)", re.ASCII | re.DOTALL
)
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)

Object = dict[str, Any]
"""A line as JSON has it."""


class WrongLine(Exception):
    """A line that is none of ours; the message says why."""


class NotJson(WrongLine):
    """A line that is no JSON at all. `detail` is what the parser says, for people."""

    def __init__(self, why: str, detail: str) -> None:
        super().__init__(why)
        self.detail = detail


@dataclass(frozen=True)
class Line:
    """One entry: as it was written, and as far as it is understood.

    What the JSON has of the baseline and of the data that was sent is too little for the model's
    objects: `peer_ttl` is the TTL of the peer's newest packet before the RST, `sent` the first
    bytes of what this end's socket had sent last (``--payload``).
    """

    object: Object
    entry: Entry
    peer_ttl: int | None = None
    sent: bytes | None = None


def texts(file: TextIO) -> Iterator[str]:
    """The lines of a file as text, none of them longer than can be refused."""
    while text := file.readline(LONGEST_LINE + 1):
        yield text


def decode(text: str) -> Object:
    """A line as a JSON object, of whatever meaning.

    Raises:
        NotJson: it is no JSON, or too long to be ours.
        WrongLine: it is no object.
    """
    if len(text) > LONGEST_LINE:
        raise NotJson("a line too long to be ours", "the line is too long")
    try:
        found = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise NotJson("no JSON", str(error)) from None
    if not isinstance(found, dict):
        raise WrongLine(f"no object with schema {SCHEMA}")
    return found


def _no_constant(word: str) -> None:
    raise ValueError(f"JSON has no {word}")


class RunSummary(NamedTuple):
    """What the last line of a run says of the run.

    `lost` counts what it did not see (`MISSING`), `filtered` what it did not show, ``None``: the
    line does not tell. It watched from `started_ns` to `ended_ns`; ``None``: a capture was read, or
    an older version wrote it.
    """

    lost: int
    filtered: int | None
    started_ns: int | None
    ended_ns: int | None


def read_summary(found: Object) -> RunSummary | None:
    """A run's summary; ``None``: this is none.

    Raises:
        WrongLine: it is nothing of ours, or a member is not what it should be.
    """
    _check_schema(found)
    summary = found.get("totals", found.get("summary"))  # its name once
    shown = summary.get("not_shown") if isinstance(summary, dict) else None
    if not isinstance(summary, dict) or not isinstance(shown, dict):
        return None
    counts = [shown.get(name) for name in (*MISSING, "filtered")]
    if any(not isinstance(count, (int, type(None))) for count in counts):
        raise WrongLine("a summary whose counts are none")
    started, ended = (
        _Members(summary).time_ns(name) if name in summary else NO_TIME
        for name in ("started", "ended")
    )
    return RunSummary(
        lost=sum(count or 0 for count in counts[:-1]),
        filtered=counts[-1],
        started_ns=None if started == NO_TIME else started,
        ended_ns=None if ended == NO_TIME else ended,
    )


def read_entry(found: Object) -> Line:
    """An entry.

    Raises:
        WrongLine: it is none, or a member is not what it should be.
    """
    _check_schema(found)
    members = _Members(found)
    baseline = members.inner_or_none("baseline")
    sent = members.inner_or_none("sent_data")
    return Line(
        object=found,
        entry=Entry(
            id=members.number("id"),
            reset=_reset(members),
            verdict=_verdict(members),
            amends=members.number_or_none("amends"),
        ),
        peer_ttl=baseline.number_or_none("ttl", 255) if baseline is not None else None,
        sent=bytes.fromhex(sent.hex("payload", LONGEST_LINE)) if sent is not None else None,
    )


def _check_schema(found: Object) -> None:
    if found.get("schema") != SCHEMA:
        raise WrongLine(f"no object with schema {SCHEMA}")


class _Members:
    """An object's members, each checked as it is taken; a missing one is null."""

    def __init__(self, found: dict[str, Any], path: str = "") -> None:
        self._found = found
        self._path = path

    def wrong(self, name: str) -> WrongLine:
        """The error for a member."""
        return WrongLine(f"{self._path}{name} is missing, or not what it should be")

    def text(self, name: str) -> str:
        """A string."""
        value = self._found.get(name)
        if not isinstance(value, str):
            raise self.wrong(name)
        return value

    def text_or_none(self, name: str) -> str | None:
        """A string or null."""
        return None if self._found.get(name) is None else self.text(name)

    def number(self, name: str, most: int = 1 << 64) -> int:
        """An integer from 0 to `most`."""
        value = self._found.get(name)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
            raise self.wrong(name)
        return value

    def number_or_none(self, name: str, most: int = 1 << 64) -> int | None:
        """An integer from 0 to `most`, or null."""
        return None if self._found.get(name) is None else self.number(name, most)

    def real_or_none(self, name: str) -> float | None:
        """A number or null."""
        value = self._found.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or abs(value) > 1e9:
            raise self.wrong(name)
        return float(value)

    def flag_or_none(self, name: str) -> bool | None:
        """True, false or null."""
        value = self._found.get(name)
        if value is not None and not isinstance(value, bool):
            raise self.wrong(name)
        return value

    def inner(self, name: str) -> _Members:
        """An object."""
        value = self._found.get(name)
        if not isinstance(value, dict):
            raise self.wrong(name)
        return _Members(value, f"{self._path}{name}.")

    def inner_or_none(self, name: str) -> _Members | None:
        """An object or null."""
        return None if self._found.get(name) is None else self.inner(name)

    def items_or_none(self, name: str) -> list[Any] | None:
        """A list; ``None`` for null, and where an older line has no such member."""
        return None if self._found.get(name) is None else self.items(name)

    def items(self, name: str) -> list[Any]:
        """A list."""
        value = self._found.get(name)
        if not isinstance(value, list):
            raise self.wrong(name)
        return value

    def hex(self, name: str, most: int) -> str:
        """At most so many bytes in hex, as we write them."""
        text = self.text(name)
        if len(text) > 2 * most or _HEX.fullmatch(text) is None:
            raise self.wrong(name)
        return text

    def endpoint(self, name: str) -> Endpoint:
        """An address with a port."""
        inner = self.inner(name)
        try:
            ip = str(ipaddress.ip_address(inner.text("ip")))
        except ValueError:
            raise self.wrong(f"{name}.ip") from None
        return Endpoint(ip, inner.number("port", 0xFFFF))

    def time_ns(self, name: str) -> int:
        """A time as the JSON writes it; `NO_TIME` for null."""
        text = self.text_or_none(name)
        if text is None:
            return NO_TIME
        match = _TIME.fullmatch(text)
        if match is None:
            raise self.wrong(name)
        try:
            moment = datetime.strptime(match[1], "%Y-%m-%dT%H:%M:%S")
        except ValueError:
            raise self.wrong(name) from None
        since = moment.replace(tzinfo=timezone.utc) - _EPOCH
        away = (int(match[4]) * 60 + int(match[5])) * (1 if match[3] == "+" else -1)
        return ((since.days * 86400 + since.seconds) - away * 60) * 10**9 + int(match[2])


def _reset(members: _Members) -> Reset:
    kind = _kind(members)
    local, remote = members.endpoint("local"), members.endpoint("remote")
    ends = (remote, local) if kind.direction == "received" else (local, remote)
    rst = members.inner_or_none("rst")
    return Reset(
        time_ns=members.time_ns("time"),
        kind=kind,
        cause=_cause(members.inner("cause")),
        local=local,
        remote=remote,
        rst=Packet.unread(*ends) if rst is None else _packet(rst, *ends),
        unread=rst is None,
        netns=members.number_or_none("netns"),
        made_here=_made_here(members.inner_or_none("made_here")),
        process=_process(members.inner_or_none("process")),
        actor=_process(members.inner_or_none("actor")),
        file=members.text_or_none("file"),
        file_frame=members.number_or_none("frame"),
        seen=members.number("seen"),
        netns_name=members.text_or_none("netns_name"),
        neighbor=_neighbor(members.inner_or_none("neighbor")),
        ingress=_neighbor(members.inner_or_none("ingress")),
        next_hop=_next_hop(members.inner_or_none("next_hop")),
        unit=members.text_or_none("unit"),
        container=_container(members.inner_or_none("container")),
        pod=_pod(members.inner_or_none("pod")),
        counted=_counted(members.inner_or_none("counted")),
        sightings=_sightings(members),
    )


def _sightings(members: _Members) -> tuple[Sighting, ...]:
    found = members.items_or_none("sightings") or ()  # none of what was seen live
    return tuple(_sighting(item) for item in found)


def _sighting(item: Any) -> Sighting:
    if not isinstance(item, dict):
        raise WrongLine("sightings is not a list of objects")
    members = _Members(item, "sightings[].")
    return Sighting(
        frame=members.number("frame"),
        time_ns=members.time_ns("time"),
        interface=members.number_or_none("interface"),
        ifname=members.text_or_none("ifname"),
        ttl=members.number("ttl", 255),
        mac=members.text_or_none("mac"),
    )


def _counted(members: _Members | None) -> Counted | None:
    if members is None:
        return None
    first_ns, last_ns = members.time_ns("first"), members.time_ns("last")
    return Counted(first_ns, last_ns, members.text("alike"))


def _cause(members: _Members) -> Cause:
    return Cause(
        members.text("name"),
        members.text("text"),
        members.text_or_none("kernel_reason"),
        members.text_or_none("closed_by"),
        members.real_or_none("closed_ms"),
        members.real_or_none("idle_s"),
    )


def _kind(members: _Members) -> Kind:
    try:
        return Kind(members.text("kind"))
    except ValueError:
        raise members.wrong("kind") from None


def _origin(members: _Members) -> Origin:
    try:
        return Origin(members.text("origin"))
    except ValueError:
        raise members.wrong("origin") from None


def _packet(members: _Members, src: Endpoint, dst: Endpoint) -> Packet:
    raw = None if members.text_or_none("raw") is None else members.hex("raw", MOST_HEADERS)
    return Packet(
        src=src,
        dst=dst,
        ttl=members.number("ttl", 255),
        ip_id=members.number_or_none("ip_id", 0xFFFF),
        df=members.flag_or_none("df"),
        tos=members.number("tos", 255),
        flags=members.text("flags"),
        seq=members.number("seq", 0xFFFFFFFF),
        ack=members.number("ack", 0xFFFFFFFF),
        window=members.number_or_none("window", 0xFFFF),
        length=members.number("length"),
        payload_len=members.number("payload_len"),
        reserved=members.number("reserved", 15),
        options=members.text("options"),
        raw=raw or "",
        ip_checksum_ok=members.flag_or_none("ip_checksum_ok"),
        tcp_checksum_ok=members.flag_or_none("tcp_checksum_ok"),
    )


def _verdict(members: _Members) -> Verdict:
    hops, device = members.inner("hops"), members.inner("device")
    names = members.items("findings")
    if not all(isinstance(name, str) for name in names):
        raise WrongLine("findings is not a list of names")
    return Verdict(
        origin=_origin(members),
        confidence=members.real_or_none("confidence"),
        score=members.real_or_none("score") or 0.0,
        evidence=tuple(_evidence(item) for item in members.items("evidence")),
        hops_rst=hops.number_or_none("rst", 255),
        hops_peer=hops.number_or_none("peer", 255),
        findings=tuple(names),
        device_name=device.text_or_none("name"),
        device_fingerprint=device.text_or_none("fingerprint"),
        device_reason=device.text_or_none("reason"),
        summary=members.text_or_none("summary") or "",
        authors=tuple(_share(item) for item in members.items_or_none("authors") or ()),
        advice=members.text_or_none("advice"),
    )


def _share(item: Any) -> Share:
    if not isinstance(item, dict):
        raise WrongLine("authors is not a list of objects")
    members = _Members(item, "authors[].")
    name = members.text("author")
    try:
        author = Author(name)
    except ValueError:
        raise WrongLine(f"authors[].author is no author: {name!r}") from None
    return Share(author, members.real_or_none("probability") or 0.0, members.text("text"))


def _evidence(item: Any) -> Evidence:
    if not isinstance(item, dict):
        raise WrongLine("evidence is not a list of objects")
    members = _Members(item, "evidence[].")
    values = item.get("values")
    return Evidence(
        rule=members.text("rule"),
        weight=members.real_or_none("weight") or 0.0,
        text=members.text("text"),
        values=values if isinstance(values, dict) else {},
        proof=bool(members.flag_or_none("proof")),
        group=members.text_or_none("group") or "",
    )


def _made_here(members: _Members | None) -> MadeHere | None:
    if members is None:
        return None
    return MadeHere(
        netns=members.number("netns"),
        kind=_kind(members),
        pid=members.number_or_none("pid"),
        comm=members.text_or_none("comm"),
        hook=members.text_or_none("hook"),
        netns_name=members.text_or_none("netns_name"),
    )


def _process(members: _Members | None) -> Process | None:
    if members is None:
        return None
    return Process(
        pid=members.number_or_none("pid"),
        comm=members.text_or_none("comm"),
        uid=members.number_or_none("uid"),
        exit_signal=members.number_or_none("exit_signal"),
        exit_status=members.number_or_none("exit_status"),
        listener=bool(members.flag_or_none("listener")),
    )


def _neighbor(members: _Members | None) -> Neighbor | None:
    if members is None:
        return None
    return Neighbor(
        mac=members.text_or_none("mac"),
        vendor=members.text_or_none("vendor"),
        ip=members.text_or_none("ip"),
        is_gateway=members.flag_or_none("is_gateway"),
        ifindex=members.number_or_none("ifindex"),
        ifname=members.text_or_none("ifname"),
        netns=members.number_or_none("netns"),
    )


def _next_hop(members: _Members | None) -> NextHop | None:
    if members is None:
        return None
    return NextHop(
        ip=members.text("ip"),
        mac=members.text_or_none("mac"),
        is_gateway=bool(members.flag_or_none("is_gateway")),
        ifindex=members.number_or_none("ifindex"),
    )


def _container(members: _Members | None) -> Container | None:
    return None if members is None else Container(members.text("id"), members.text_or_none("name"))


def _pod(members: _Members | None) -> Pod | None:
    if members is None:
        return None
    return Pod(
        members.text_or_none("namespace"),
        members.text_or_none("name"),
        members.text_or_none("uid"),
    )
