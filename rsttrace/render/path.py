"""The path to a peer: as a picture for people, and as JSON for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rsttrace.jsonl import SCHEMA
from rsttrace.model import Attempt, Hop, Path, Placement, ProbeAnswer
from rsttrace.render.drawing import WIDTH, Drawing, plain_lines, wrapped
from rsttrace.render.escape import safe
from rsttrace.render.json import bridge_object, switch_object
from rsttrace.render.words import device_facts, endpoint_text

_NAME = 253

_SAYS = {
    "syn-ack": "takes connections (SYN-ACK)",
    "rst": "refuses connections (RST)",
    "echo": "answers ICMP echo only",
    "unreachable-port": "answers UDP only",
}


def path_lines(
    path: Path,
    placement: Placement | None = None,
    *,
    replayed: Placement | None = None,
    plain: bool = False,
    indent: str = "",
) -> list[str]:
    """The picture, and below it where the device is: lines of at most `WIDTH` columns.

    `placement` comes from a reset's hop distance, `replayed` from a replay; `plain`: ASCII only.
    """
    width = WIDTH - len(indent)
    lines = [*wrapped(_title(path), width), *_picture(path, placement, replayed, plain, width)]
    for what, found in (("the forged reset", placement), ("by the replay", replayed)):
        if found is not None:
            sure = "" if found.sure == "unknown" else f" ({found.sure})"
            lines += wrapped(f"{what}: {safe(found.text, 400)}{sure}", width)
            for note in found.notes:
                lines += wrapped(f"  - {safe(note, 400)}", width, more="    ")
    return [indent + line for line in plain_lines(lines, plain)]


def path_object(
    path: Path,
    placement: Placement | None = None,
    *,
    replayed: Placement | None = None,
    attempts: Sequence[Attempt] = (),
    entry: int | None = None,
    netns: int | None = None,
) -> dict[str, Any]:
    """The path as ``{"schema": 1, "path": {…}}``; unknown is ``None``.

    `entry` is the id of the entry that it belongs to, `netns` where the probes were sent.
    """
    hop, neighbor = path.next_hop, path.neighbor
    return {
        "schema": SCHEMA,
        "path": {
            "entry": entry,
            "source": path.source,
            "peer": {"ip": path.peer.ip, "port": path.peer.port},
            "netns": netns,
            "next_hop": None
            if hop is None
            else {
                "ip": hop.ip,
                "mac": hop.mac,
                "vendor": neighbor.vendor if neighbor else None,
                "is_gateway": hop.is_gateway,
                "ifindex": hop.ifindex,
                "ifname": neighbor.ifname if neighbor else None,
                "bridge": bridge_object(neighbor.bridge) if neighbor else None,
                "switch": switch_object(neighbor.switch) if neighbor else None,
            },
            "distance": path.distance,
            "hops": [_hop_object(item) for item in path.hops],
            "peer_hop": _hop_object(path.peer_hop) if path.peer_hop else None,
            "echo_hops": path.echo_hops,
            "refused": _answer_object(path.refused) if path.refused else None,
            "placement": _placement_object(placement) if placement else None,
            "replay": {
                "attempts": [
                    {
                        "ttl": attempt.ttl,
                        "reset_ttl": attempt.reset_ttl,
                        "delay_ms": _ms(attempt.delay_ns),
                        "exceeded": attempt.exceeded,
                        "reply": attempt.reply,
                    }
                    for attempt in attempts
                ],
                "placement": _placement_object(replayed),
            }
            if replayed is not None
            else None,
            "flows": path.flows,
            "packets": path.packets,
            "duration_ms": _ms(path.duration_ns),
            "stopped": path.stopped,
        },
    }


def _hop_object(hop: Hop) -> dict[str, Any]:
    return {
        "number": hop.number or None,
        "sent": hop.sent,
        "ips": list(hop.ips),
        "names": list(hop.names),
        "rtt_ms": _ms(hop.rtt_ns),
        "back": list(hop.back),
        "answers": [_answer_object(answer) for answer in hop.answers],
    }


def _answer_object(answer: ProbeAnswer) -> dict[str, Any]:
    return {
        "kind": answer.kind,
        "ip": answer.ip,
        "method": answer.method,
        "flow": answer.flow,
        "ttl": answer.ttl,
        "rtt_ms": _ms(answer.rtt_ns),
        "detail": answer.detail,
    }


def _placement_object(placement: Placement) -> dict[str, Any]:
    return {
        "hop": placement.hop,
        "sure": placement.sure,
        "text": placement.text,
        "notes": list(placement.notes),
        "rst_hops": placement.rst_hops,
    }


def _ms(nanoseconds: int | None) -> float | None:
    return None if nanoseconds is None else nanoseconds / 1e6


def _title(path: Path) -> str:
    text = f"path to {endpoint_text(path.peer)}: "
    back = path.peer_back
    hop = path.next_hop
    unlinked = hop is not None and hop.mac is None and path.neighbor and not path.hops
    if hop is not None and hop.is_local:
        text += "this host itself"
    elif path.distance is not None:
        text += _away(path.distance - 1)
        if path.distance - 1 not in back and back:
            text += f", but {' or '.join(map(str, back))} by its TTL"
    elif back:
        text += f"{_away(back[0])} by its TTL"
    elif path.refused is not None and not (unlinked and path.refused.ip == path.source):
        detail = safe(path.refused.detail or "unreachable")
        whose = "this host" if path.refused.ip == path.source else safe(path.refused.ip)
        text += f"{detail}, says {whose}"
    else:
        text += "it does not answer"
        if hop is not None and unlinked:
            if hop.is_gateway:
                text += f", nor does our gateway {safe(hop.ip)}"
            else:
                text += ", not even on our link"
    seconds = path.duration_ns / 1e9
    text += f" ({path.packets} probes in {seconds:.1f} s"
    return text + (", stopped early)" if path.stopped else ")")


def _away(count: int) -> str:
    return "on our own link" if count == 0 else f"{count} hop{'s' if count > 1 else ''} away"


def _picture(
    path: Path,
    placement: Placement | None,
    replayed: Placement | None,
    plain: bool,
    width: int,
) -> list[str]:
    link = path.neighbor
    interface = f" on {safe(link.ifname)}" if link and link.ifname else ""
    drawing = Drawing(plain=plain, width=width)
    drawing.stop(f"{safe(path.source)}{interface} (this host)")
    hops = [*path.hops, *([path.peer_hop] if path.peer_hop else [])]
    column = max([15, *(len(safe(ip)) for hop in hops for ip in hop.ips)])
    marked = {found.hop for found in (placement, replayed) if found is not None}
    best = replayed if replayed is not None and replayed.hop is not None else placement
    if best is not None and best.hop is not None:
        marked = {best.hop}
    for hop in hops:
        is_peer = hop is path.peer_hop
        marks = hop.number in marked and not is_peer
        ips = [safe(ip) for ip in hop.ips] or ["*"]
        values = _time(hop)
        if hop.answers and (lost := hop.sent - _answered(hop)):
            values += f"  {lost} of {hop.sent} lost" if _answered(hop) else ""
        more = [*ips[1:], *(safe(name, _NAME) for name in hop.names)]
        more += _hop_notes(path, hop, is_peer)
        if marks and best is not None:
            more.append(f"the forged reset comes from here ({best.sure})")
        number = str(hop.number) if hop.number else "?"
        text = f"{ips[0]:<{column}}  {values}"
        drawing.stop(text, more, number=number, marked=marks, last=is_peer)
    return drawing.lines()


def _hop_notes(path: Path, hop: Hop, is_peer: bool) -> list[str]:
    notes = []
    if hop.number == 1 and path.next_hop and path.next_hop.mac:
        vendor = path.neighbor.vendor if path.neighbor else None
        role = "our gateway" if path.next_hop.is_gateway else "on our link"
        name = f"{safe(path.next_hop.mac)}{f' ({safe(vendor, 100)})' if vendor else ''}, {role}"
        if path.next_hop.ip not in hop.ips:
            name += f" {safe(path.next_hop.ip)}"
        notes += [name, *device_facts(path.neighbor)]
    methods = {answer.method for answer in hop.answers}
    if is_peer:
        kinds = dict.fromkeys(answer.kind for answer in hop.answers)
        if path.echo_hops is not None and path.echo_hops not in path.peer_back:
            notes.append(f"but its ICMP echo replies come over {path.echo_hops} routers")
        notes.insert(0, "the peer; " + ", ".join(_SAYS.get(kind, safe(kind)) for kind in kinds))
    elif methods and "tcp" not in methods:
        notes.append(f"answers {' and '.join(sorted(item.upper() for item in methods))} only")
    if hop.answers and not is_peer and hop.number - 1 not in hop.back and hop.back:
        notes.append(f"its answers come over {' or '.join(map(str, hop.back))} routers")
    return notes


def _answered(hop: Hop) -> int:
    return sum(answer.method == "tcp" for answer in hop.answers)


def _time(hop: Hop) -> str:
    if hop.rtt_ns is None:
        return "no answer"
    milliseconds = hop.rtt_ns / 1e6
    return f"{milliseconds:.2f} ms" if milliseconds < 10 else f"{milliseconds:.0f} ms"
