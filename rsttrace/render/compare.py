"""What a comparison of two vantage points says: as text with a picture of the path, and as JSON."""

from __future__ import annotations

from typing import Any

from rsttrace.jsonl import SCHEMA
from rsttrace.model import (
    Clocks,
    ComparedFlow,
    ComparedReset,
    Comparison,
    Endpoint,
    Escape,
    Fate,
    Point,
    PointFile,
    Position,
    Traffic,
)
from rsttrace.render.drawing import Drawing, plain_lines, wrapped
from rsttrace.render.escape import safe
from rsttrace.render.times import duration, iso_time
from rsttrace.render.words import endpoint_text

PICTURES = 4
"""Positions that are drawn; the others are counted."""

FLOWS = 20
"""Connections that are listed in the text; the others are counted."""

_NAME = 253

_HOWS = {
    "addresses": "by addresses and ports",
    "initial-sequence-numbers": "through NAT, by initial sequence numbers",
    "sequence-numbers": "through NAT, by sequence numbers",
    "shifted-numbers": "renumbered in between, by the SYN's timestamps or IP ID",
    "escaped": "part of another: packets that escaped NAT",
    "ambiguous": "ambiguous",
    "renumbered": "with other sequence numbers (a proxy, or a firewall that renumbers)",
    "one-sided": "at one point only",
}

_BOTH = ("addresses", "initial-sequence-numbers", "sequence-numbers", "shifted-numbers")


def comparison_lines(found: Comparison, *, plain: bool = False) -> list[str]:
    """The comparison for people: lines of at most `WIDTH` columns. `plain`: ASCII only."""
    lines: list[str] = []
    for point in (found.a, found.b):
        lines += wrapped(_point_file(point))
    lines += wrapped(_matched(found.matched)) if found.matched else []
    if found.clocks is not None:
        lines += wrapped(_clocks(found.clocks))
    for start, traffic in ((Point.A, found.ab), (Point.B, found.ba)):
        if traffic is not None:
            lines += wrapped(_traffic(traffic, start))
    lines += wrapped(_resets(found))
    for note in found.notes:
        lines += wrapped(f"note: {safe(note, 400)}")
    for flow in found.flows[:FLOWS]:
        lines += ["", *_flow(flow)]
    if len(found.flows) > FLOWS:
        lines += ["", f"and {len(found.flows) - FLOWS} more connections with resets"]
    for position, count in found.positions[:PICTURES]:
        lines += ["", *_picture(found, position, count, plain)]
    if len(found.positions) > PICTURES:
        more = sum(count for _, count in found.positions[PICTURES:])
        lines += ["", f"and {len(found.positions) - PICTURES} more positions ({more} resets)"]
    return plain_lines(lines, plain)


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def _file(file: PointFile) -> str:
    return safe(file.file.rpartition("/")[2], _NAME)


def _where(file: PointFile) -> str:
    return _file(file) + (f", on the side of {safe(file.address)}" if file.address else "")


def _point_file(file: PointFile) -> str:
    if file.logged:
        what = f"{_count(file.resets, 'reset')} that rsttrace has logged"
    else:
        what = _count(file.resets, "RST")
        if file.packets is not None:
            what = f"{_count(file.packets, 'TCP packet')}, {what}"
        if file.flows is not None:
            what += f", {_count(file.flows, 'connection')}"
    if file.first_ns is not None and file.last_ns is not None:
        what += f", {duration(file.last_ns - file.first_ns)} long"
        if file.until_ns is not None and file.until_ns > file.last_ns:
            what += f", and watched for {duration(file.until_ns - file.last_ns)} more"
    if file.dropped:
        what += f"; {_count(file.dropped, 'reset' if file.logged else 'packet')} lost"
    broken = f"; {safe(file.problem, 200)}" if file.problem else ""
    return f"{file.point}: {_file(file)}: {what}{broken}"


def _matched(matched: dict[str, int]) -> str:
    both = sum(matched.get(how, 0) for how in _BOTH)
    parts = [f"{matched[how]} {_HOWS[how]}" for how in _HOWS if matched.get(how)]
    return f"{_count(both, 'connection')} at both points ({'; '.join(parts)})"


def _clocks(clocks: Clocks) -> str:
    based = f"{_count(clocks.from_a, 'packet')} to B, {clocks.from_b} to A"
    if clocks.offset is None:
        bound, word = clocks.upper, "at most"
        if bound is None:
            bound, word = clocks.lower, "at least"
        assert bound is not None
        return f"clocks: B is {word} {_signed(bound)} ahead of A ({based})"
    side = "ahead of" if clocks.offset >= 0 else "behind"
    text = f"clocks: B is {_signed(abs(clocks.offset))} {side} A"
    text += f", give or take {duration(clocks.error or 0)} ({based})"
    if clocks.drift_ppm:
        text += f"; it gains {clocks.drift_ppm:.1f} ppm"
    if clocks.steady and clocks.error is not None:
        text += f"; least round trip between them {duration(2 * clocks.error)}"
    return text


def _signed(nanoseconds: int) -> str:
    """Down to the microsecond, which is what the error is about."""
    if abs(nanoseconds) < 1_000_000_000:
        return duration(nanoseconds)
    return f"{nanoseconds / 1e9:.6f} s"


def _traffic(traffic: Traffic, start: Point) -> str:
    left = _count(traffic.left, "packet")
    text = f"{start} to {start.other}: {left} left, {traffic.arrived} arrived"
    if traffic.lost:
        text += f", {traffic.lost} never did"
    if traffic.swapped:
        text += f" ({traffic.swapped} swapped for another on the way)"
    if traffic.injected:
        text += f"; {traffic.injected} arrived that never left"
    if traffic.hops is not None:
        text += f"; {_count(traffic.hops, 'hop')}"
    return text


def _resets(found: Comparison) -> str:
    fates: dict[str, int] = {}
    for flow in found.flows:
        for reset in flow.resets:
            if reset.received or reset.received is None:
                fates[_fate(reset)] = fates.get(_fate(reset), 0) + 1
    if not fates:
        return "resets: none came in"
    return "resets that came in: " + ", ".join(f"{count} {text}" for text, count in fates.items())


def _fate(reset: ComparedReset) -> str:
    other = reset.other
    if other.fate is Fate.NEVER_SENT:
        return "never sent by the other end" + (" (as far as its log tells)" * other.logged)
    if other.fate is Fate.LEFT:
        return "sent by the other end" if other.at_sender else "sent at the other end or beyond"
    return "unknown"


def _flow(flow: ComparedFlow) -> list[str]:
    ends = flow.a or flow.b
    assert ends is not None
    title = f"{endpoint_text(ends[0])} - {endpoint_text(ends[1])}"
    if flow.a and flow.b and flow.a != flow.b:
        title += f" (at B {endpoint_text(flow.b[0])} - {endpoint_text(flow.b[1])})"
    lines = wrapped(f"{title}: {safe(flow.text, 300)}")
    for escape in flow.escapes:
        lines += wrapped(_escape(escape), first="  ")
    for reset in flow.resets:
        lines += wrapped(_reset(reset), first="  ")
    return lines


def _escape(escape: Escape) -> str:
    there = f", frame {escape.other_frame} at {escape.point.other}" if escape.other_frame else ""
    text = f"escaped NAT: {escape.point}, frame {escape.frame}{there}: {safe(escape.text, 300)}"
    if escape.reset_frame is not None:
        text += f"; nobody knew that connection: reset by frame {escape.reset_frame}"
    return text


def _reset(reset: ComparedReset) -> str:
    other = reset.other
    frame = f", frame {reset.frame}" if reset.frame is not None else ""
    there = f"frame {other.frame} at {other.point}" if other.frame is not None else other.point
    who = f"{reset.point}{frame}: RST from {endpoint_text(reset.src)}"
    if reset.received is False:
        words = {
            Fate.ARRIVED: f"left, and arrived ({there})",
            Fate.NEVER_ARRIVED: f"left, and never arrived at {other.point}",
        }.get(other.fate, f"left; whether it arrived is unknown: {safe(other.why, 200)}")
        return f"{who} {words}"
    if other.fate is Fate.LEFT:
        own = "itself" if other.at_sender else "or beyond"
        return f"{who}: sent by the other end {own} ({there})"
    if other.fate is not Fate.NEVER_SENT:
        return f"{who}: unknown who sent it: {safe(other.why, 200)}"
    text = f"{who}: never sent there"
    if other.logged:
        text += ", as far as its log tells"
    if other.swapped_frame is not None:
        sure = "its IP ID" if other.swapped_sure else "its sequence number"
        text += (
            f"; frame {other.swapped_frame} at {other.point} left with {sure} and never arrived: "
            "swapped on the way"
        )
    elif other.trigger_arrived is False:
        elsewhere = reset.position is not None and reset.position.kind == "elsewhere"
        lost = "led elsewhere" if elsewhere else "swallowed"
        text += f"; {reset.point}'s packet before it never arrived at {other.point}: {lost}"
    elif other.trigger_arrived:
        text += f"; {reset.point}'s packet before it arrived at {other.point}"
    if reset.position is not None:
        text += f". Made {safe(reset.position.text, 200)} ({reset.position.sure})"
    return text


def _picture(found: Comparison, position: Position, count: int, plain: bool) -> list[str]:
    """The path from A (above) to B (below), with the device where it is."""
    made = "1 reset was" if count == 1 else f"{count} resets were"
    device = f"the device: {made} made here ({position.sure})"
    notes = [safe(text, 300) for text in (position.text, *position.notes)]
    total = "" if position.total is None else f"; {_count(position.total, 'hop')} to B"
    drawing = Drawing(plain=plain, column=2)
    drawing.stop(f"A: {_where(found.a)}{total}")
    if position.kind == "elsewhere":
        point, near = Point.A, position.from_a
        if near is None:
            point, near = Point.B, position.from_b
        drawing.stretch(position.total)
        drawing.stop(f"B: {_where(found.b)}")
        drawing.blank()
        device += f": {_count(near or 0, 'hop')} from {point}"
        drawing.stop(device, notes, marked=True, last=True, inset=4)
    else:
        drawing.stretch(position.from_a)
        drawing.stop(device, notes, marked=True, inset=4)
        drawing.stretch(position.from_b)
        drawing.stop(f"B: {_where(found.b)}")
    return drawing.lines()


# ---- JSON ----


def comparison_object(found: Comparison, *, utc: bool = False) -> dict[str, Any]:
    """The comparison as ``{"schema": 1, "comparison": {…}}``; unknown is ``None``."""
    clocks = found.clocks
    return {
        "schema": SCHEMA,
        "comparison": {
            "a": _file_object(found.a, utc),
            "b": _file_object(found.b, utc),
            "matched": {how: found.matched.get(how, 0) for how in _HOWS},
            "clocks": None
            if clocks is None
            else {
                "offset_ns": clocks.offset,
                "error_ns": clocks.error,
                "lower_ns": clocks.lower,
                "upper_ns": clocks.upper,
                "drift_ppm": clocks.drift_ppm,
                "steady": clocks.steady,
                "packets_ab": clocks.from_a,
                "packets_ba": clocks.from_b,
            },
            "ab": _traffic_object(found.ab),
            "ba": _traffic_object(found.ba),
            "flows": [_flow_object(flow) for flow in found.flows],
            "positions": [
                {**_position_object(position), "resets": count}
                for position, count in found.positions
            ],
            "notes": list(found.notes),
        },
    }


def _file_object(file: PointFile, utc: bool) -> dict[str, Any]:
    first, last, since, until = (
        None if time_ns is None else iso_time(time_ns, utc=utc)
        for time_ns in (file.first_ns, file.last_ns, file.from_ns, file.until_ns)
    )
    return {
        "file": file.file,
        "log": file.logged,
        "address": file.address,
        "packets": file.packets,
        "flows": file.flows,
        "resets": file.resets,
        "first": first,
        "last": last,
        "watched_from": since,
        "watched_until": until,
        "dropped": file.dropped,
        "problem": file.problem,
    }


def _traffic_object(traffic: Traffic | None) -> dict[str, Any] | None:
    if traffic is None:
        return None
    return {
        "left": traffic.left,
        "arrived": traffic.arrived,
        "lost": traffic.lost,
        "injected": traffic.injected,
        "swapped": traffic.swapped,
        "hops": traffic.hops,
    }


def _ends_object(ends: tuple[Endpoint, Endpoint] | None) -> list[dict[str, Any]] | None:
    return None if ends is None else [_endpoint_object(end) for end in ends]


def _endpoint_object(end: Endpoint) -> dict[str, Any]:
    return {"ip": end.ip, "port": end.port}


def _flow_object(flow: ComparedFlow) -> dict[str, Any]:
    return {
        "a": _ends_object(flow.a),
        "b": _ends_object(flow.b),
        "how": flow.how,
        "sure": flow.sure,
        "text": flow.text,
        "resets": [_reset_object(reset) for reset in flow.resets],
        "findings": [_escape_object(escape) for escape in flow.escapes],
    }


def _escape_object(escape: Escape) -> dict[str, Any]:
    return {
        "name": "escaped-nat",
        "text": escape.text,
        "point": escape.point.value,
        "packets": escape.packets,
        "frame": escape.frame,
        "other_frame": escape.other_frame,
        "src": _endpoint_object(escape.src),
        "dst": _endpoint_object(escape.dst),
        "wanted_src": _endpoint_object(escape.wanted_src),
        "wanted_dst": _endpoint_object(escape.wanted_dst),
        "reset_frame": escape.reset_frame,
    }


def _reset_object(reset: ComparedReset) -> dict[str, Any]:
    other = reset.other
    direction = {True: "received", False: "sent", None: None}[reset.received]
    return {
        "point": reset.point.value,
        "frame": reset.frame,
        "direction": direction,
        "src": _endpoint_object(reset.src),
        "dst": _endpoint_object(reset.dst),
        "fate": other.fate.value,
        "why": other.why or None,
        "other_frame": other.frame,
        "at_sender": other.at_sender if other.fate is Fate.LEFT else None,
        "trigger_arrived": other.trigger_arrived,
        "swapped_frame": other.swapped_frame,
        "swapped_sure": other.swapped_sure if other.swapped_frame is not None else None,
        "position": None if reset.position is None else _position_object(reset.position),
    }


def _position_object(position: Position) -> dict[str, Any]:
    return {
        "hops_a": position.from_a,
        "hops_b": position.from_b,
        "hops_between": position.total,
        "kind": position.kind,
        "sure": position.sure,
        "text": position.text,
        "notes": list(position.notes),
        "within": position.within,
        "within_of": None if position.within_of is None else position.within_of.value,
    }
