"""JSON lines of rsttrace, read back: entries as another vantage point's word.

Anybody may have written the file: every field that is used is checked.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from rsttrace.errors import CaptureError
from rsttrace.model import (
    NO_TIME,
    Cause,
    Container,
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
    Verdict,
)

LONGEST_LINE = 1 << 20
"""Characters of a line; an entry of ours has some thousands."""

MOST_ENTRIES = 50_000
"""Entries that are kept (some 10 kB each)."""

MISSING = ("aggregated", "lost", "blocked")
"""What a summary counts that its run did not see; what was filtered, nobody wanted."""

_TIME = re.compile(
    r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.(\d{9})([+-])(\d\d):(\d\d)", re.ASCII | re.DOTALL
)
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


@dataclass
class Line:
    """One entry: as it was written, and as far as it is understood."""

    object: dict[str, Any]
    entry: Entry


@dataclass
class Log:
    """A file of JSON lines. `complete` is false where its summary says that resets are missing.

    `problem` says where the file breaks off.
    """

    name: str
    lines: list[Line] = field(default_factory=list)
    complete: bool = True
    dropped: int = 0
    problem: str | None = None


def is_log(name: str) -> bool:
    """Whether a file looks like JSON lines: its first character is a brace.

    Raises:
        CaptureError: it cannot be read.
    """
    try:
        with open(name, "rb") as file:
            return file.read(64).lstrip()[:1] == b"{"
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise CaptureError(f"cannot open {name!a}: {why}") from None


def load(name: str) -> Log:
    """Read a file of JSON lines; a line that amends another replaces it.

    Raises:
        CaptureError: it cannot be read, or its first line is none of ours.
    """
    log = Log(name)
    places: dict[int, int] = {}
    try:
        with open(name, encoding="utf-8", errors="replace") as file:
            for number, text in enumerate(_lines(file), 1):
                if not text.strip():
                    continue
                try:
                    found = _object(text)
                    _take(log, places, found)
                except _Wrong as wrong:
                    log.problem = f"broken at line {number}: {wrong}"
                    if number == 1:
                        raise CaptureError(
                            f"{name!a} is neither a capture nor JSON lines of rsttrace: {wrong}",
                            hint="give a pcap or pcapng file, or what `-o json` has written",
                        ) from None
                    return log
    except OSError as error:
        raise CaptureError(f"cannot read {name!a}: {error.strerror or error}") from None
    return log


def _lines(file: Any) -> Iterator[str]:
    while text := file.readline(LONGEST_LINE + 1):
        yield text


def _object(text: str) -> dict[str, Any]:
    if len(text) > LONGEST_LINE:
        raise _Wrong("a line too long to be ours")
    try:
        found = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise _Wrong("no JSON") from None
    if not isinstance(found, dict) or found.get("schema") != 1:
        raise _Wrong("no object with schema 1")
    return found


def _no_constant(word: str) -> None:
    raise ValueError(word)


def _take(log: Log, places: dict[int, int], found: dict[str, Any]) -> None:
    if "id" not in found:
        missing = found.get("summary")
        if isinstance(missing, dict) and isinstance(missing.get("not_shown"), dict):
            shown = missing["not_shown"]
            log.complete = not any(shown.get(name) for name in MISSING)
        return
    line = Line(found, _entry(_Fields(found)))
    first = line.entry.amends if line.entry.amends is not None else line.entry.id
    if first in places:
        log.lines[places[first]] = line
    elif len(log.lines) >= MOST_ENTRIES:
        log.dropped += 1
    else:
        places[first] = len(log.lines)
        log.lines.append(line)


class _Wrong(Exception):
    """A line that is none of ours; the message says why."""


class _Fields:
    """An object's fields, each checked as it is taken."""

    def __init__(self, found: dict[str, Any], path: str = "") -> None:
        self._found = found
        self._path = path

    def _value(self, name: str) -> Any:
        return self._found.get(name)

    def _wrong(self, name: str) -> _Wrong:
        return _Wrong(f"{self._path}{name} is missing, or not what it should be")

    def text(self, name: str) -> str:
        """A string."""
        value = self._value(name)
        if not isinstance(value, str):
            raise self._wrong(name)
        return value

    def text_or_none(self, name: str) -> str | None:
        """A string or null."""
        return None if self._value(name) is None else self.text(name)

    def number(self, name: str, most: int = 1 << 64) -> int:
        """An integer from 0 to `most`."""
        value = self._value(name)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
            raise self._wrong(name)
        return value

    def number_or_none(self, name: str, most: int = 1 << 64) -> int | None:
        """An integer from 0 to `most`, or null."""
        return None if self._value(name) is None else self.number(name, most)

    def real_or_none(self, name: str) -> float | None:
        """A number or null."""
        value = self._value(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or abs(value) > 1e9:
            raise self._wrong(name)
        return float(value)

    def flag_or_none(self, name: str) -> bool | None:
        """True, false or null."""
        value = self._value(name)
        if value is not None and not isinstance(value, bool):
            raise self._wrong(name)
        return value

    def inner(self, name: str) -> _Fields:
        """An object."""
        value = self._value(name)
        if not isinstance(value, dict):
            raise self._wrong(name)
        return _Fields(value, f"{self._path}{name}.")

    def inner_or_none(self, name: str) -> _Fields | None:
        """An object or null."""
        return None if self._value(name) is None else self.inner(name)

    def items(self, name: str) -> list[Any]:
        """A list."""
        value = self._value(name)
        if not isinstance(value, list):
            raise self._wrong(name)
        return value

    def endpoint(self, name: str) -> Endpoint:
        """An address with a port."""
        inner = self.inner(name)
        try:
            ip = str(ipaddress.ip_address(inner.text("ip")))
        except ValueError:
            raise self._wrong(f"{name}.ip") from None
        return Endpoint(ip, inner.number("port", 0xFFFF))

    def time_ns(self, name: str) -> int:
        """A time as the JSON writes it; `NO_TIME` for null."""
        text = self.text_or_none(name)
        if text is None:
            return NO_TIME
        match = _TIME.fullmatch(text)
        if match is None:
            raise self._wrong(name)
        try:
            moment = datetime.strptime(match[1], "%Y-%m-%dT%H:%M:%S")
        except ValueError:
            raise self._wrong(name) from None
        since = moment.replace(tzinfo=timezone.utc) - _EPOCH
        away = (int(match[4]) * 60 + int(match[5])) * (1 if match[3] == "+" else -1)
        return ((since.days * 86400 + since.seconds) - away * 60) * 10**9 + int(match[2])


def _entry(fields: _Fields) -> Entry:
    try:
        kind, origin = Kind(fields.text("kind")), Origin(fields.text("origin"))
    except ValueError:
        raise _Wrong("a kind or an origin that does not exist") from None
    local, remote = fields.endpoint("local"), fields.endpoint("remote")
    cause = fields.inner("cause")
    received = kind.direction == "received"
    rst = _packet(fields.inner("rst"), remote if received else local, local if received else remote)
    reset = Reset(
        time_ns=fields.time_ns("time"),
        kind=kind,
        cause=Cause(cause.text("name"), cause.text("text"), cause.text_or_none("kernel_reason")),
        local=local,
        remote=remote,
        rst=rst,
        netns=fields.number_or_none("netns"),
        made_here=_made_here(fields.inner_or_none("made_here")),
        process=_process(fields.inner_or_none("process")),
        actor=_process(fields.inner_or_none("actor")),
        file=fields.text_or_none("file"),
        file_frame=fields.number_or_none("frame"),
        seen=fields.number("seen"),
        netns_name=fields.text_or_none("netns_name"),
        neighbor=_neighbor(fields.inner_or_none("neighbor")),
        ingress=_neighbor(fields.inner_or_none("ingress")),
        next_hop=_next_hop(fields.inner_or_none("next_hop")),
        container=_container(fields.inner_or_none("container")),
        pod=_pod(fields.inner_or_none("pod")),
    )
    return Entry(
        id=fields.number("id"),
        reset=reset,
        verdict=_verdict(fields, origin),
        amends=fields.number_or_none("amends"),
    )


def _packet(fields: _Fields, src: Endpoint, dst: Endpoint) -> Packet:
    raw = fields.text_or_none("raw") or ""
    if re.fullmatch(r"(?:[0-9a-f]{2}){0,200}", raw, re.ASCII) is None:
        raise _Wrong("rst.raw is no packet in hex")
    return Packet(
        src=src,
        dst=dst,
        ttl=fields.number("ttl", 255),
        ip_id=fields.number_or_none("ip_id", 0xFFFF),
        df=fields.flag_or_none("df"),
        tos=fields.number("tos", 255),
        flags=fields.text("flags"),
        seq=fields.number("seq", 0xFFFFFFFF),
        ack=fields.number("ack", 0xFFFFFFFF),
        window=fields.number_or_none("window", 0xFFFF),
        length=fields.number("length"),
        payload_len=fields.number("payload_len"),
        reserved=fields.number("reserved", 15),
        options=fields.text("options"),
        raw=raw,
        ip_checksum_ok=fields.flag_or_none("ip_checksum_ok"),
        tcp_checksum_ok=fields.flag_or_none("tcp_checksum_ok"),
    )


def _verdict(fields: _Fields, origin: Origin) -> Verdict:
    hops, device = fields.inner("hops"), fields.inner("device")
    names = fields.items("findings")
    if not all(isinstance(name, str) for name in names):
        raise _Wrong("findings is not a list of names")
    return Verdict(
        origin=origin,
        confidence=fields.real_or_none("confidence"),
        score=fields.real_or_none("score") or 0.0,
        evidence=tuple(_evidence(item) for item in fields.items("evidence")),
        hops_rst=hops.number_or_none("rst", 255),
        hops_peer=hops.number_or_none("peer", 255),
        findings=tuple(names),
        device_name=device.text_or_none("name"),
        device_fingerprint=device.text_or_none("fingerprint"),
        summary=fields.text_or_none("summary") or "",
    )


def _evidence(item: Any) -> Evidence:
    if not isinstance(item, dict):
        raise _Wrong("evidence is not a list of objects")
    fields = _Fields(item, "evidence[].")
    values = item.get("values")
    return Evidence(
        rule=fields.text("rule"),
        weight=fields.real_or_none("weight") or 0.0,
        text=fields.text("text"),
        values=values if isinstance(values, dict) else {},
        proof=bool(fields.flag_or_none("proof")),
    )


def _made_here(fields: _Fields | None) -> MadeHere | None:
    if fields is None:
        return None
    try:
        kind = Kind(fields.text("kind"))
    except ValueError:
        raise _Wrong("made_here.kind does not exist") from None
    return MadeHere(
        netns=fields.number("netns"),
        kind=kind,
        pid=fields.number_or_none("pid"),
        comm=fields.text_or_none("comm"),
        hook=fields.text_or_none("hook"),
        netns_name=fields.text_or_none("netns_name"),
    )


def _process(fields: _Fields | None) -> Process | None:
    if fields is None:
        return None
    return Process(
        pid=fields.number_or_none("pid"),
        comm=fields.text_or_none("comm"),
        uid=fields.number_or_none("uid"),
    )


def _neighbor(fields: _Fields | None) -> Neighbor | None:
    if fields is None:
        return None
    return Neighbor(
        mac=fields.text_or_none("mac"),
        vendor=fields.text_or_none("vendor"),
        ip=fields.text_or_none("ip"),
        is_gateway=fields.flag_or_none("is_gateway"),
        ifindex=fields.number_or_none("ifindex") or 0,
        ifname=fields.text_or_none("ifname"),
        netns=fields.number_or_none("netns") or 0,
    )


def _next_hop(fields: _Fields | None) -> NextHop | None:
    if fields is None:
        return None
    return NextHop(
        ip=fields.text("ip"),
        mac=fields.text_or_none("mac"),
        is_gateway=bool(fields.flag_or_none("is_gateway")),
        ifindex=fields.number_or_none("ifindex") or 0,
    )


def _container(fields: _Fields | None) -> Container | None:
    return None if fields is None else Container(fields.text("id"), fields.text_or_none("name"))


def _pod(fields: _Fields | None) -> Pod | None:
    if fields is None:
        return None
    return Pod(
        fields.text_or_none("namespace"),
        fields.text_or_none("name"),
        fields.text_or_none("uid"),
    )
