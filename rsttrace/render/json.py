"""One JSON object per entry, for programs: schema 1, described by ``rsttrace/schema.json``."""

from __future__ import annotations

import codecs
import dataclasses
import enum
import json
import math
import re
from collections.abc import Mapping
from json.encoder import encode_basestring_ascii
from typing import Any, Optional

from rsttrace import model
from rsttrace.jsonl import SCHEMA
from rsttrace.render import neighbors
from rsttrace.render.authors import listed
from rsttrace.render.payload import describe
from rsttrace.render.times import iso_time
from rsttrace.stacks import stack

try:  # packages that carry no compiled code do without
    import orjson
except ImportError:
    orjson = None  # type: ignore[assignment]

About = Mapping[str, Optional[str]]
"""What a line says of the run that wrote it."""

_MICRO = "µ".encode()
"""Nearly all of our own words that are not ASCII are microseconds."""

_SURROGATE = re.compile("[\ud800-\udfff]")


def entry_object(entry: model.Entry, *, explain: bool = False, utc: bool = False) -> dict[str, Any]:
    """The entry in JSON's own types, with the field names of the schema.

    Unknown is ``None``. `explain` adds ``considered``, everything that was looked at. Strings are
    as they came, except that lone surrogates, which JSON cannot carry, become U+FFFD.
    """
    plain: dict[str, Any] = _plain(_made(entry, explain=explain, utc=utc))
    return plain


def _made(entry: model.Entry, *, explain: bool, utc: bool) -> dict[str, Any]:
    """The entry with the field names of the schema, not all of it in JSON's own types yet.

    What every entry has is, for the encoder asks `_plain` about anything else.
    """
    reset, verdict = entry.reset, entry.verdict
    kind, rst = reset.kind, reset.rst
    ipv6 = rst.ip_id is None
    time = iso_time(reset.time_ns, utc=utc)
    considered: dict[str, Any] = {}
    if explain:
        considered["considered"] = [
            {**evidence_object(item), "factors": _factors(item)} for item in verdict.considered
        ]
    return {
        "schema": SCHEMA,
        "id": entry.id,
        "amends": entry.amends,
        "time": time,
        "kind": kind.word,
        "direction": kind.direction,
        "origin": verdict.origin.word,
        "confidence": verdict.confidence,
        "score": verdict.score,
        "summary": verdict.summary or None,
        "cause": _cause(entry.cause),
        "local": _endpoint(reset.local),
        "remote": _endpoint(reset.remote),
        "family": 6 if ipv6 else 4,
        "rst": None if reset.unread else _rst(rst),
        "trigger": _trigger(reset, ipv6),
        "sent_data": _sent_data(reset),
        "baseline": _baseline(reset.baseline, ipv6),
        "authors": authors_object(verdict),
        "advice": verdict.advice,
        "evidence": [evidence_object(item) for item in verdict.evidence],
        **considered,
        "hops": {"rst": verdict.hops_rst, "peer": verdict.hops_peer},
        "findings": verdict.findings,
        "device": {
            "name": verdict.device_name,
            "fingerprint": verdict.device_fingerprint,
            "reason": verdict.device_reason,
        },
        "neighbor": _neighbor(neighbors.neighbor(reset)),
        "next_hop": _next_hop(reset.next_hop),
        "ingress": _ingress(reset),
        "made_here": _made_here(reset.made_here),
        "netns": reset.netns,
        "netns_name": reset.netns_name,
        "file": reset.file,
        "frame": reset.file_frame,
        "sightings": _sightings(reset, time, utc),
        "socket": _socket(reset.socket),
        "process": _process(reset.process),
        "actor": _process(reset.actor),
        "unit": reset.unit,
        "container": _container(reset.container),
        "pod": _pod(reset.pod),
        "seen": reset.seen,
        "counted": _counted(reset.counted, utc=utc),
    }


def _rst(rst: model.Packet) -> dict[str, Any]:
    made = _packet(rst)
    made["ip_checksum_ok"] = rst.ip_checksum_ok
    made["tcp_checksum_ok"] = rst.tcp_checksum_ok
    return made


def entry_line(
    entry: model.Entry, *, explain: bool = False, utc: bool = False, run: About | None = None
) -> str:
    """`entry_object` on one line of printable ASCII, without the newline."""
    return object_line(_made(entry, explain=explain, utc=utc), run)


def object_line(made: dict[str, Any], run: About | None = None) -> str:
    """Any object of ours (an entry, a summary) on one line of printable ASCII.

    `run` is added, unless the object has one already: another run's line keeps that. Nothing in it
    can act on a terminal: even DEL, which JSON allows as it is, is escaped.
    """
    if run is not None and "run" not in made:
        made = {**made, "run": run}
    return (_fast(made) or _thorough(made)).replace("\x7f", "\\u007f")


def _fast(made: dict[str, Any]) -> str | None:
    """The object by orjson; None where that is missing, or has other words for it than we have.

    Those are lone surrogates, numbers of more than 64 bits, and keys that are no strings.
    """
    if orjson is None:
        return None
    try:
        text = orjson.dumps(made, default=_plain, option=_AS_WE_DO)
    except TypeError:
        return None
    if not text.isascii():
        text = text.replace(_MICRO, b"\\u00b5")
        if not text.isascii():
            text = text.decode().encode("ascii", _ESCAPED)
    return text.decode("ascii")


def _escaped(error: UnicodeError) -> tuple[str, int]:
    """What is not ASCII as the standard library escapes it: an error handler of `str.encode`."""
    assert isinstance(error, UnicodeEncodeError)
    return encode_basestring_ascii(error.object[error.start : error.end])[1:-1], error.end


_ESCAPED = "rsttrace.json"
codecs.register_error(_ESCAPED, _escaped)


def _thorough(made: dict[str, Any]) -> str:
    """The object by the standard library, whatever is in it."""
    try:
        text = _ENCODER.encode(made)
    except (TypeError, ValueError):  # what JSON has no word for
        text = _ENCODER.encode(_plain(made))
    if "\\ud" in text:  # perhaps a surrogate without its other half
        text = _ENCODER.encode(_plain(made))
    return text


def _plain(value: Any) -> Any:
    """The value in JSON's own types; what JSON has no word for (NaN, infinity) is unknown."""
    kind = type(value)
    if value is None or kind is int or kind is bool or (kind is str and value.isascii()):
        return value  # nearly all there is: a storm's entries have hundreds of these each
    if isinstance(value, enum.Enum):
        return _plain(value.value)
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, dict):
        return {str(_plain(str(key))): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return [_plain(item) for item in sorted(value, key=repr)]
    if isinstance(value, (bytes, bytearray)):
        return value.hex()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: _plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    return _plain(str(value))


_ENCODER = json.JSONEncoder(
    ensure_ascii=True, allow_nan=False, separators=(",", ":"), default=_plain, check_circular=False
)

_AS_WE_DO = (
    orjson.OPT_PASSTHROUGH_SUBCLASS | orjson.OPT_PASSTHROUGH_DATACLASS if orjson is not None else 0
)
"""Nothing but JSON's own types is encoded by orjson's rules; `_plain` says how the rest is."""


def _cause(cause: model.Cause) -> dict[str, Any]:
    return {
        "name": cause.name,
        "text": cause.text,
        "kernel_reason": cause.kernel_reason,
        "closed_by": cause.closed_by,
        "closed_ms": cause.closed_ms,
        "idle_s": cause.idle_s,
    }


def _endpoint(endpoint: model.Endpoint) -> dict[str, Any]:
    return {"ip": endpoint.ip, "port": endpoint.port}


def _packet(packet: model.Packet) -> dict[str, Any]:
    return {
        "ttl": packet.ttl,
        "ip_id": packet.ip_id,
        "df": packet.df,
        "tos": packet.tos,
        "flags": packet.flags,
        "seq": packet.seq,
        "ack": packet.ack,
        "window": packet.window,
        "length": packet.length,
        "payload_len": packet.payload_len,
        "reserved": packet.reserved,
        "options": packet.options,
        "raw": packet.raw or None,
    }


def _trigger(reset: model.Reset, ipv6: bool) -> dict[str, Any] | None:
    trigger = reset.trigger
    if trigger is None:
        return None
    if isinstance(trigger, model.Packet):
        return {**_packet(trigger), "age_ms": None}
    return {
        "ttl": trigger.ttl,
        "ip_id": None if ipv6 else trigger.ip_id,
        "df": None if ipv6 else trigger.df,
        "tos": None,
        "flags": trigger.flags,
        "seq": trigger.seq,
        "ack": trigger.ack,
        "window": trigger.window,
        "length": None,
        "payload_len": trigger.payload_len,
        "reserved": None,
        "options": None,
        "raw": None,
        "age_ms": (reset.time_ns - trigger.time_ns) / 1e6,
    }


def _sent_data(reset: model.Reset) -> dict[str, Any] | None:
    data = reset.sent_data
    if data is None:
        return None
    length = data.packet.payload_len
    return {
        "age_ms": (reset.time_ns - data.time_ns) / 1e6,
        "seq": data.packet.seq,
        "ack": data.packet.ack,
        "payload_len": length,
        "payload": data.payload,
        "text": describe(data.payload, length),
    }


def _baseline(baseline: model.Baseline, ipv6: bool) -> dict[str, Any]:
    theirs, ours = baseline.theirs, baseline.ours
    last = theirs.recent[0] if theirs and theirs.recent else None
    return {
        "scope": baseline.scope.word,
        "packets": theirs.packets if theirs else None,
        "ttl": theirs.ttl if theirs else None,
        "syn_ttl": theirs.syn_ttl if theirs else None,
        "syn_options": theirs.syn_options if theirs else None,
        "stack": stack(theirs) if theirs else None,
        "ip_id_last": last.ip_id if last and not ipv6 else None,
        "ours_ip_id": [item.ip_id for item in ours.recent] if ours and not ipv6 else [],
        "mac": theirs.mac if theirs else None,
    }


def authors_object(verdict: model.Verdict) -> list[dict[str, Any]]:
    """Who may have made it, as an entry lists them."""
    return [
        {"author": share.author.word, "probability": share.probability, "text": share.text}
        for share in listed(verdict)
    ]


def evidence_object(evidence: model.Evidence) -> dict[str, Any]:
    """An item of an entry's evidence."""
    return {
        "rule": evidence.rule,
        "weight": evidence.weight,
        "text": evidence.text,
        "values": evidence.values,
        "proof": evidence.proof,
        "group": evidence.group or None,
    }


def _factors(evidence: model.Evidence) -> dict[str, float] | None:
    """How probable each author makes an observation."""
    if evidence.factors is None:
        return None
    return {author.word: round(value, 6) for author, value in evidence.factors.items()}


def _sightings(reset: model.Reset, time: str | None, utc: bool) -> list[dict[str, Any]] | None:
    """`time` is the reset's own in words: of nearly all the only one."""
    if reset.file is None:
        return None
    return [
        {
            "frame": seen.frame,
            "time": time if seen.time_ns == reset.time_ns else iso_time(seen.time_ns, utc=utc),
            "interface": seen.interface,
            "ifname": seen.ifname,
            "ttl": seen.ttl,
            "mac": seen.mac,
        }
        for seen in reset.sightings
    ]


def _neighbor(neighbor: model.Neighbor | None) -> dict[str, Any] | None:
    if neighbor is None:
        return None
    return {
        "mac": neighbor.mac,
        "vendor": neighbor.vendor,
        "ip": neighbor.ip,
        "is_gateway": neighbor.is_gateway,
        "ifindex": neighbor.ifindex,
        "ifname": neighbor.ifname,
        "netns": neighbor.netns,
        "bridge": bridge_object(neighbor.bridge),
        "switch": switch_object(neighbor.switch),
    }


def bridge_object(port: model.BridgePort | None) -> dict[str, Any] | None:
    """A port of a bridge of this node."""
    if port is None:
        return None
    return {
        "name": port.bridge,
        "ifindex": port.bridge_ifindex,
        "port": port.port,
        "port_ifindex": port.ifindex,
    }


def switch_object(switch: model.SwitchPort | None) -> dict[str, Any] | None:
    """What an interface is plugged into, as that says itself."""
    if switch is None:
        return None
    return {
        "ifname": switch.ifname,
        "name": switch.name,
        "id": switch.id,
        "port": switch.port,
        "port_text": switch.port_text,
    }


def _ingress(reset: model.Reset) -> dict[str, Any] | None:
    made = _neighbor(neighbors.ingress(reset))
    if made is not None:
        made["ttl"] = reset.ingress_frame.ttl if reset.ingress_frame else None
    return made


def _next_hop(hop: model.NextHop | None) -> dict[str, Any] | None:
    if hop is None:
        return None
    return {"ip": hop.ip, "mac": hop.mac, "is_gateway": hop.is_gateway, "ifindex": hop.ifindex}


def _made_here(made: model.MadeHere | None) -> dict[str, Any] | None:
    if made is None:
        return None
    return {
        "netns": made.netns,
        "netns_name": made.netns_name,
        "kind": made.kind,
        "pid": made.pid,
        "comm": made.comm,
        "hook": made.hook,
    }


def _socket(socket: model.Socket | None) -> dict[str, Any] | None:
    if socket is None:
        return None
    return {
        "cookie": socket.cookie,
        "state": socket.state,
        "srtt_us": socket.srtt_us,
        "min_rtt_us": socket.min_rtt_us,
        "inode": socket.inode,
        "uid": socket.uid,
        "cgroup": socket.cgroup,
        "rcv_nxt": socket.rcv_nxt,
        "local": _endpoint(socket.local) if socket.local else None,
        "remote": _endpoint(socket.remote) if socket.remote else None,
        "timers": dataclasses.asdict(socket.timers) if socket.timers else None,
        "accept_queue": _accept_queue(socket.accept_queue),
    }


def _accept_queue(queue: model.AcceptQueue | None) -> dict[str, Any] | None:
    if queue is None:
        return None
    return {"length": queue.length, "limit": queue.limit, "aborts_on_overflow": queue.aborts}


def _process(process: model.Process | None) -> dict[str, Any] | None:
    if process is None:
        return None
    return {
        "pid": process.pid,
        "comm": process.comm,
        "uid": process.uid,
        "exit_signal": process.exit_signal,
        "exit_status": process.exit_status,
        "listener": process.listener,
    }


def _container(container: model.Container | None) -> dict[str, Any] | None:
    if container is None:
        return None
    return {"id": container.id, "name": container.name}


def _counted(counted: model.Counted | None, *, utc: bool) -> dict[str, Any] | None:
    if counted is None:
        return None
    return {
        "first": iso_time(counted.first_ns, utc=utc),
        "last": iso_time(counted.last_ns, utc=utc),
        "alike": counted.alike,
    }


def _pod(pod: model.Pod | None) -> dict[str, Any] | None:
    if pod is None:
        return None
    return {"namespace": pod.namespace, "name": pod.name, "uid": pod.uid}
