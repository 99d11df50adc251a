"""Entries as lines of text, for people: one line per reset, and below it why we think so."""

from __future__ import annotations

import dataclasses
import math

from rsttrace import model
from rsttrace.render import neighbors
from rsttrace.render.authors import makers_text, table_lines
from rsttrace.render.drawing import WIDTH
from rsttrace.render.escape import safe
from rsttrace.render.payload import describe
from rsttrace.render.picture import picture_lines
from rsttrace.render.times import duration, iso_time, log_time
from rsttrace.render.words import (
    claimed_sender,
    device_facts,
    distance_text,
    endpoint_text,
    made_here_summary,
    made_here_text,
    maker_distance,
    neighbor_text,
    netns_text,
    owner_process_text,
    process_text,
    verdict_text,
)
from rsttrace.stacks import stack

_INDENT = "    "
_DIRECTIONS = {"received": "IN ", "sent": "OUT", "forwarded": "FWD"}
_VERDICT_WIDTH = 14  # "INCONCLUSIVE -"
_SENTENCE = 400  # characters of one sentence; those of names are `safe`'s own limit
_NAME = 253  # a DNS name, and so a Kubernetes name, has no more

_END_COLOR = "\x1b[0m"
_COLORS = {
    model.Origin.FORGED: "\x1b[31m",
    model.Origin.PEER: "\x1b[32m",
    model.Origin.LOCAL: "\x1b[36m",
    model.Origin.INCONCLUSIVE: "\x1b[33m",
}

_DOUBTFUL = (model.Origin.FORGED, model.Origin.INCONCLUSIVE)
_NOT_COUNTED = (model.Kind.RECEIVED_REJECTED, model.Kind.RECEIVED_UNMATCHED)

_SAID_ALREADY = ("connection-refused",)  # by the first line


def entry_lines(
    entry: model.Entry,
    *,
    explain: bool = False,
    color: bool = False,
    verbose: bool = False,
    utc: bool = False,
    own_netns: int | None = None,
    plain: bool = False,
    quiet: bool = False,
) -> list[str]:
    """The lines to print for an entry; none holds a newline.

    `explain` draws the way of a forged reset (`plain`: in ASCII) and lists everything that was
    looked at instead of those that spoke; `verbose` adds the packets' headers, the kernel's reason
    and the socket, and shows the evidence of every verdict. `quiet` leaves out what to do next. A
    namespace is named unless it is `own_netns`, the tracer's own. Without `color` there is not one
    escape sequence; with it, nothing else changes.
    """
    reset, verdict = entry.reset, entry.verdict
    shown = verbose or explain or verdict.origin in _DOUBTFUL
    lines = [_first_line(entry, color=color, utc=utc, own_netns=own_netns)]
    body = []
    if entry.amends is not None:
        body.append(f"amends #{entry.amends}: this verdict replaces the one given before")
    if shown:
        if reset.made_here:
            body.append(made_here_text(reset.made_here, verdict.origin))
        if reset.kind.direction != "sent":
            body += _path(reset, verdict) + _ingress(reset)
    body += _written(verdict)
    body += [f"! {_finding(name, verdict)}" for name in verdict.findings if shown or _is_news(name)]
    if explain:
        body += picture_lines(entry, plain=plain, width=WIDTH - len(_INDENT))
        body += _explanation(verdict)
        body += table_lines(verdict)
    elif shown:
        body += [
            f"{_sign(item)} {safe(item.text, _SENTENCE)}"
            for item in verdict.evidence
            if item.rule not in verdict.findings
        ]
    body += _sent_data(reset)
    if verdict.advice and not quiet:
        body.append(f"{'->' if plain else '→'} {safe(verdict.advice, _SENTENCE)}")
    if verbose or explain:
        body += _sightings(reset)
    if verbose:
        body += _details(entry, utc=utc)
    return lines + [_INDENT + line for line in body]


def _first_line(
    entry: model.Entry,
    *,
    color: bool,
    utc: bool,
    own_netns: int | None,
    answer: str | None = None,
) -> str:
    """Time, direction, verdict, percent, from, ">", to; then the answer, and whose it is here.

    The first seven are one word each, whatever the verdict: `awk` and `cut` count on it.
    """
    reset, verdict = entry.reset, entry.verdict
    label = verdict_text(verdict)
    padding = "" if "%" in label else " -"
    padding += " " * (_VERDICT_WIDTH - len(label) - len(padding))
    if color:
        label = f"{_COLORS[verdict.origin]}{label}{_END_COLOR}"
    local, remote = _ends(reset)
    from_to = (remote, local) if reset.kind.direction == "received" else (local, remote)
    who = ", ".join(_who(reset, own_netns))
    columns = [
        f"{log_time(reset.time_ns, utc=utc)} {_DIRECTIONS[reset.kind.direction]} {label}{padding}",
        " > ".join(from_to),
    ]
    seen = f"({reset.seen:,} seen)" if reset.seen > 1 and reset.counted is None else ""
    rest = [answer or answer_text(entry), seen, f"[{who}]" if who else ""]
    return "  ".join([" ".join(columns), *filter(None, rest)])


def _ends(reset: model.Reset) -> tuple[str, str]:
    """Both ends; of resets that were counted, what they have in common."""
    local, remote = endpoint_text(reset.local), endpoint_text(reset.remote)
    alike = reset.counted.alike if reset.counted else ""
    if alike in ("netns", "kind"):
        return "*", "*"
    if alike == "service":
        remote = remote.replace(safe(reset.remote.ip), "*")
    if not alike:
        return local, remote
    if reset.local.port > reset.remote.port:
        return f"{local.rpartition(':')[0]}:*", remote
    return local, f"{remote.rpartition(':')[0]}:*"


def repeats_line(
    entry: model.Entry,
    count: int,
    first_ns: int,
    last_ns: int,
    *,
    color: bool = False,
    utc: bool = False,
    own_netns: int | None = None,
) -> str:
    """One line for so many entries like this one; the client's port varies.

    ``… OUT LOCAL - 10.0.0.5:9000 > 10.44.1.2:*  x 3,000 in 4 s: no socket listens there``
    """
    alike = model.Counted(first_ns, last_ns, "peer")
    told = dataclasses.replace(entry.reset, counted=alike, seen=count, file_frame=None)
    answer = f"{times_text(count, last_ns - first_ns)}: {answer_text(entry)}"
    made = dataclasses.replace(entry, reset=told)
    return _first_line(made, color=color, utc=utc, own_netns=own_netns, answer=answer)


def times_text(count: int, took_ns: int) -> str:
    """``x 3,000 in 4 s``."""
    return f"x {count:,}" + (f" in {duration(took_ns)}" if took_ns else "")


def _counted(reset: model.Reset, verdict: model.Verdict) -> str:
    """How many were counted in how long, what they did, and that it is all that is known."""
    assert reset.counted is not None
    took_ns = reset.counted.last_ns - reset.counted.first_ns
    said = (
        [reset.cause.text, verdict.summary] if reset.counted.alike != "kind" else [verdict.summary]
    )
    sentences = "; ".join(safe(sentence, _SENTENCE) for sentence in said if sentence)
    return f"{times_text(reset.seen, took_ns)}: {sentences}"


def _who(reset: model.Reset, own_netns: int | None) -> list[str]:
    words = []
    if reset.file is not None:
        words.append(safe(reset.file.rpartition("/")[2]))
    if reset.file_frame is not None:
        words.append(f"frame {reset.file_frame}{_elsewhere(reset)}")
    process = owner_process_text(reset.process)
    if process:
        words.append(process)
    owner = owner_text(reset)
    if owner:
        words.append(owner)
    if reset.netns is not None and reset.netns != own_netns:
        words.append(netns_text(reset.netns, reset.netns_name))
    return words


def owner_text(reset: model.Reset) -> str | None:
    """The pod, container, unit or user that a reset's socket belongs to, as far as it is known."""
    pod, container = reset.pod, reset.container
    if pod and (pod.name or pod.uid):
        namespace = f"{safe(pod.namespace)}/" if pod.namespace else ""
        return f"pod {namespace}{safe(pod.name or pod.uid or '', _NAME)}"
    if container:
        return f"container {safe(container.name or container.id[:12], _NAME)}"
    if reset.unit:
        return f"unit {safe(reset.unit, _NAME)}"
    for owner in (reset.process, reset.socket):
        if owner and owner.uid is not None:
            return f"uid {owner.uid}"
    return None


def answer_text(entry: model.Entry) -> str:
    """Who did it and why, in short."""
    reset, verdict = entry.reset, entry.verdict
    if reset.counted is not None:
        return _counted(reset, verdict)
    sentences = []
    if verdict.origin in (model.Origin.LOCAL, model.Origin.PEER) or reset.kind.direction == "sent":
        sentences.append(verdict.summary or reset.cause.text)
    elif verdict.origin is model.Origin.INCONCLUSIVE:
        sentences += [verdict.summary, *_left(verdict)]
    elif reset.made_here is not None:
        sentences.append(made_here_summary(reset.made_here))
    else:
        sentences.append(_maker(reset, verdict))
    if reset.kind in _NOT_COUNTED and not any(reset.cause.text in each for each in sentences):
        sentences.append(reset.cause.text)
    text = "; ".join(safe(sentence, _SENTENCE) for sentence in sentences if sentence)
    actor = reset.actor
    return text if actor is None else f"{text} by {process_text(actor.comm, actor.pid)}"


def _maker(reset: model.Reset, verdict: model.Verdict) -> str:
    """``by 10.44.1.1, on our own link: a firewall's REJECT rule``: the likeliest, and where."""
    maker = makers_text(verdict, most=1) or "a device"
    neighbor = neighbors.neighbor(reset)
    if verdict.hops_rst == 0 and neighbor is not None and (name := neighbor.ip or neighbor.mac):
        place = "our own gateway" if neighbor.is_gateway else "on our own link"
        return f"by {safe(name)}, {place}: {maker}"
    if reset.other_end is not None and reset.other_end.where:
        return f"by {maker}, {safe(reset.other_end.where, _SENTENCE)}"
    return f"by {maker}, {maker_distance(reset, verdict) or 'somewhere on the path'}"


def _path(reset: model.Reset, verdict: model.Verdict) -> list[str]:
    """How far away it was made, and who handed it to us."""
    rst, peer = maker_distance(reset, verdict), distance_text(verdict.hops_peer)
    clauses = []
    if verdict.origin is model.Origin.FORGED and not reset.made_here:
        maker = makers_text(verdict) or "a device"
        if reset.other_end and reset.other_end.where:
            clauses.append(f"by {maker}, {safe(reset.other_end.where, _SENTENCE)}")
            peer = None
        elif rst and rst == peer:
            own = f"its TTL is like {claimed_sender(reset)}'s, {peer}"
            clauses.append(f"by {maker}, somewhere on the path: {own}")
            peer = None
        else:
            neighbor = neighbors.neighbor(reset)
            if verdict.hops_rst == 0 and neighbor is not None and neighbor.is_gateway:
                rst = "our own gateway itself"
            clauses.append(f"by {maker}, {rst or 'somewhere on the path'}")
    elif rst:
        clauses.append(f"by its TTL {rst}")
    if clauses and peer:
        clauses[0] += f" ({claimed_sender(reset)} is {peer})"
    if verdict.device_name:
        named = verdict.origin is model.Origin.FORGED and not reset.made_here
        likeness = "probably" if named else "it looks like"
        clauses.append(f"{likeness} {safe(verdict.device_name, 100)}")
    neighbor = neighbors.neighbor(reset)
    handed = neighbor_text(neighbor, reset) if neighbor else ""
    if handed:
        clauses.append(f"handed to us {handed}")
    return [", ".join(clauses)] if clauses else []


def _left(verdict: model.Verdict) -> list[str]:
    """The authors that an open verdict leaves."""
    if verdict.origin is not model.Origin.INCONCLUSIVE:
        return []
    makers = makers_text(verdict)
    return [f"left: {makers}"] if makers else []


def _ingress(reset: model.Reset) -> list[str]:
    """Where it first entered this node, if that is another place than our own interface."""
    ingress, neighbor = neighbors.ingress(reset), neighbors.neighbor(reset)
    if ingress is None:
        return []
    if neighbor and (ingress.netns, ingress.ifindex) == (neighbor.netns, neighbor.ifindex):
        return []
    ttl = f", with TTL {reset.ingress_frame.ttl}" if reset.ingress_frame else ""
    return [f"handed to this node {neighbor_text(ingress, reset)}{ttl}"]


def _written(verdict: model.Verdict) -> list[str]:
    """What the RST says of its own reason, where the first line does not."""
    reason = verdict.device_reason
    if reason is None or reason in verdict.summary:
        return []
    return [f"it says why: {safe(reason, _SENTENCE)}"]


def _is_news(finding: str) -> bool:
    return finding not in _SAID_ALREADY


def _finding(name: str, verdict: model.Verdict) -> str:
    sentences = [item.text for item in verdict.evidence if item.rule == name]
    return ": ".join([safe(name), *(safe(text, _SENTENCE) for text in sentences)])


def _sign(evidence: model.Evidence) -> str:
    if evidence.proof:
        return "="
    return "+" if evidence.weight > 0 else "-" if evidence.weight < 0 else "."


def _explanation(verdict: model.Verdict) -> list[str]:
    """Every observation with its weight, then what they say together."""
    rules = [*verdict.considered]
    rules += [
        item for item in verdict.evidence if item not in rules and item.rule not in verdict.findings
    ]
    if not rules:
        return []
    width = max(len("together"), *(len(safe(item.rule)) for item in rules))
    table = [
        (
            "proof" if item.proof else _weight(item.weight),
            safe(item.rule),
            safe(item.text, _SENTENCE),
        )
        for item in rules
    ]
    if any(item.proof for item in rules):
        meaning = "not used: a proof decides alone"
    else:
        meaning = f"probability that it is not the peer's: {_percent(verdict.score)}"
        if verdict.origin is model.Origin.PEER and _is_capped(verdict):
            meaning += ", but a perfect copy is never excluded"
    table.append(
        (_weight(verdict.score), "together", f"{meaning}; the verdict is {verdict_text(verdict)}")
    )
    return [f"{weight:>5}  {rule:<{width}}  {text}".rstrip() for weight, rule, text in table]


def _is_capped(verdict: model.Verdict) -> bool:
    """Whether the confidence is less than the score says, by half a percent or more."""
    peer = 1 / (1 + math.exp(verdict.score))
    return verdict.confidence is not None and peer - verdict.confidence >= 0.005


def _weight(weight: float) -> str:
    return "0.0" if abs(weight) < 0.05 else f"{weight:+.1f}"


def _percent(log_odds: float) -> str:
    """The probability that log-odds stand for, never rounded to certainty."""
    if log_odds > math.log(0.9995 / 0.0005):
        return "over 99.9%"
    if log_odds < math.log(0.0005 / 0.9995):
        return "under 0.1%"
    return f"{1 / (1 + math.exp(-log_odds)):.1%}"


def _details(entry: model.Entry, *, utc: bool) -> list[str]:
    reset = entry.reset
    what = [
        iso_time(reset.time_ns, utc=utc) or "time unknown",
        reset.kind.value,
        f"entry #{entry.id}",
        f"netns:{reset.netns}" if reset.netns is not None else "",
        f"file {safe(reset.file, _NAME)}" if reset.file is not None else "",
    ]
    reason = entry.cause.kernel_reason
    details = [
        ", ".join(filter(None, what)),
        f"rst: {'not read' if reset.unread else _packet(reset.rst)}",
        *_trigger(reset),
        f"cause: {safe(entry.cause.name)}"
        + (f", the kernel's reason {safe(reason)}" if reason else "")
        + f": {safe(entry.cause.text, _SENTENCE)}",
        *_device(reset),
        *_socket(reset.socket),
        *_baseline(reset),
    ]
    if entry.verdict.device_fingerprint:
        details.append(f"fingerprint: {safe(entry.verdict.device_fingerprint)}")
    return details


def _device(reset: model.Reset) -> list[str]:
    """Where whoever handed a RST over can be found; of a node's own interfaces only once."""
    found = [
        f"{safe(seen.mac or 'it')}: {fact}"
        for seen in (neighbors.neighbor(reset), neighbors.ingress(reset))
        if seen is not None
        for fact in device_facts(seen)
    ]
    return list(dict.fromkeys(found))


def _packet(packet: model.Packet) -> str:
    words = [
        *_tcp(packet),
        f"length {packet.length}",
        f"payload {packet.payload_len}",
        f"tos {packet.tos:#04x}",
        *_ip_id(packet.ip_id, packet.df),
        f"reserved bits {packet.reserved:#x}" if packet.reserved else "",
        f"options {safe(packet.options, _SENTENCE)}" if packet.options else "no options",
        "wrong IP checksum" if packet.ip_checksum_ok is False else "",
        "wrong TCP checksum" if packet.tcp_checksum_ok is False else "",
    ]
    return ", ".join(filter(None, words))


def _tcp(packet: model.Packet | model.Seen) -> list[str]:
    return [
        f"flags {safe(packet.flags)}",
        f"seq {packet.seq}",
        f"ack {packet.ack}",
        f"win {'unknown' if packet.window is None else packet.window}",
        f"ttl {packet.ttl}",
    ]


def _ip_id(ip_id: int | None, df: bool | None) -> list[str]:
    return [f"id {ip_id}" if ip_id is not None else "", "DF" if df else ""]


def _trigger(reset: model.Reset) -> list[str]:
    trigger = reset.trigger
    if trigger is None:
        return []
    whose = {"sent": "their packet", "received": "our packet"}.get(
        reset.kind.direction, "the other end's packet"
    )
    if isinstance(trigger, model.Packet):
        return [f"trigger: {whose}, {_packet(trigger)}"]
    words = [
        *_tcp(trigger),
        f"payload {trigger.payload_len}",
        *_ip_id(trigger.ip_id, trigger.df),
        f"{trigger.segments} segments" if trigger.segments > 1 else "",
    ]
    age = duration(reset.time_ns - trigger.time_ns)
    return [f"trigger: {whose} {age} earlier, {', '.join(filter(None, words))}"]


_ALSO = 3
"""Frames that a line names beside the one it was judged from; the rest is counted."""


def _elsewhere(reset: model.Reset) -> str:
    """The other frames that show the same RST: ``, also 39``."""
    others = [seen.frame for seen in reset.sightings if seen.frame != reset.file_frame]
    if not others:
        return ""
    more = f" and {len(others) - _ALSO} more" if len(others) > _ALSO else ""
    return f", also {', '.join(map(str, others[:_ALSO]))}{more}"


def _sightings(reset: model.Reset) -> list[str]:
    """Where a capture shows a RST, if at more than one place."""
    if len(reset.sightings) < 2:
        return []
    first = reset.sightings[0]
    lines = [f"seen {len(reset.sightings)} times:"]
    for seen in reset.sightings:
        name = safe(seen.ifname) if seen.ifname else f"interface {seen.interface}"
        after = duration(seen.time_ns - first.time_ns)
        words = [
            f"frame {seen.frame}",
            f"on {name}" if seen.ifname or seen.interface is not None else "",
            f"TTL {seen.ttl}",
            f"from {safe(seen.mac)}" if seen.mac else "",
            f"{after} later" if seen.time_ns > first.time_ns else "",
            "judged here" if seen.frame == reset.file_frame else "",
        ]
        lines.append(f"  {', '.join(filter(None, words))}")
    return lines


def _sent_data(reset: model.Reset) -> list[str]:
    data = reset.sent_data
    if data is None:
        return []
    length, age = data.packet.payload_len, duration(reset.time_ns - data.time_ns)
    what = describe(data.payload, length)
    return [f"our last data, {length} bytes {age} earlier: {safe(what, _SENTENCE)}"]


def _socket(socket: model.Socket | None) -> list[str]:
    if socket is None:
        return []
    srtt, min_rtt = (
        duration(value * 1000) if value is not None else "unknown"
        for value in (socket.srtt_us, socket.min_rtt_us)
    )
    words = [safe(socket.state or "state unknown"), f"srtt {srtt}", f"least rtt {min_rtt}"]
    words += [
        f"{name} {value}"
        for name, value in (("cookie", socket.cookie), ("inode", socket.inode))
        if value is not None
    ]
    return [f"socket: {', '.join(words)}"]


def _baseline(reset: model.Reset) -> list[str]:
    theirs = reset.baseline.theirs
    if theirs is None:
        return ["baseline: none"]
    words = [
        f"{theirs.packets} packets of theirs",
        f"ttl {theirs.ttl}" if theirs.ttl is not None else "",
        f"SYN's ttl {theirs.syn_ttl}" if theirs.syn_ttl is not None else "",
        f"SYN's options {safe(theirs.syn_options)}" if theirs.syn_options else "",
        f"as {known} writes them" if (known := stack(theirs)) else "",
        f"last id {theirs.recent[0].ip_id}" if theirs.recent and reset.family == 4 else "",
        f"from {safe(theirs.mac)}" if theirs.mac else "",
    ]
    return [f"baseline ({reset.baseline.scope.value}): {', '.join(filter(None, words))}"]
