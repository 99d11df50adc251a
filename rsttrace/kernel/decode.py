"""Turns one raw event into a Reset. Pure: bytes and tables in, objects out."""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass, replace
from typing import Any

from rsttrace.kernel import config, reasons
from rsttrace.kernel.layout import structures
from rsttrace.model import (
    Baseline,
    Cause,
    Endpoint,
    Frame,
    Half,
    Kind,
    MadeHere,
    Packet,
    Process,
    Reset,
    Scope,
    Seen,
    Socket,
)

NO_REASON = 0xFFFFFFFF
NOT_MEASURED = 0xFFFFFFFF

KINDS = tuple(config.KIND_NUMBERS)
SCOPES = (Scope.NONE, Scope.FLOW, Scope.PEER)

HALF_OPEN = (None, "NOT_SPECIFIED")
"""Drop reasons of a RST that ends a half-open connection (tcp_check_req gives none)."""

NETFILTER_HOOKS = ("prerouting", "input", "forward", "output", "postrouting")
"""enum nf_inet_hooks, include/uapi/linux/netfilter.h."""

FLAG_LETTERS = "FSRPAUEW"

OPTION_NAMES = {2: "mss", 3: "wscale", 4: "sackOK", 5: "sack", 8: "TS", 30: "mptcp", 34: "tfo"}
"""TCP option kinds (IANA, TCP parameters)."""


@dataclass(frozen=True)
class Context:
    """What decoding needs beside the bytes.

    `clock_offset_ns` is CLOCK_REALTIME minus CLOCK_MONOTONIC; `enums` as in Report.
    """

    clock_offset_ns: int
    enums: dict[str, dict[int, str]]


def flag_letters(flags: int) -> str:
    """TCP flags as letters, tcpdump's order and letters (``RA`` is RST with ACK)."""
    order = "SFRPAUEW"
    return "".join(letter for letter in order if flags >> FLAG_LETTERS.index(letter) & 1)


def address(raw: bytes) -> str:
    """16 bytes in network order as text; v4-mapped ones as IPv4."""
    if raw[:12] == b"\0" * 10 + b"\xff\xff":
        return "{}.{}.{}.{}".format(*raw[12:])
    return str(ipaddress.IPv6Address(raw))


def options_text(raw: bytes) -> str:
    """TCP options in tcpdump's words: ``nop,nop,TS val 1 ecr 2``."""
    words = []
    position = 0
    while position < len(raw):
        kind = raw[position]
        if kind == 0:
            words.append("eol")
            break
        if kind == 1:
            words.append("nop")
            position += 1
            continue
        length = raw[position + 1] if position + 1 < len(raw) else 0
        if length < 2 or position + length > len(raw):
            words.append("malformed")
            break
        data = raw[position + 2 : position + length]
        name = OPTION_NAMES.get(kind, f"option-{kind}")
        if kind == 8 and length == 10:
            words.append("TS val {} ecr {}".format(*struct.unpack(">II", data)))
        elif kind in (2, 3):
            words.append(f"{name} {int.from_bytes(data, 'big')}")
        else:
            words.append(name if not data else f"{name} {data.hex()}")
        position += length
    return ",".join(words)


def packet(l3: bytes, l4: bytes, payload_len: int) -> Packet:
    """Parse IP and TCP headers (RFC 791, RFC 8200, RFC 9293 §3.1); trailing bytes are cut."""
    sport, dport, seq, ack, offset, flags, window = struct.unpack_from(">HHIIBBH", l4)
    tcp_length = max(20, min((offset >> 4) * 4, 60))
    tcp = l4[:tcp_length]
    common = {
        "flags": flag_letters(flags),
        "seq": seq,
        "ack": ack,
        "window": window,
        "payload_len": payload_len,
        "reserved": offset & 15,
        "options": options_text(tcp[20:]),
    }
    if l3[0] >> 4 == 4:
        length, ip_id, fragment = struct.unpack_from(">HHH", l3, 2)
        return Packet(
            src=Endpoint(address(b"\0" * 10 + b"\xff\xff" + l3[12:16]), sport),
            dst=Endpoint(address(b"\0" * 10 + b"\xff\xff" + l3[16:20]), dport),
            ttl=l3[8],
            ip_id=ip_id,
            df=bool(fragment & 0x4000),
            tos=l3[1],
            length=length,
            raw=(l3[: (l3[0] & 15) * 4] + tcp).hex(),
            **common,
        )
    return Packet(
        src=Endpoint(address(l3[8:24]), sport),
        dst=Endpoint(address(l3[24:40]), dport),
        ttl=l3[7],
        ip_id=None,
        df=None,
        tos=int.from_bytes(l3[:2], "big") >> 4 & 0xFF,
        length=int.from_bytes(l3[4:6], "big") + 40,
        raw=(l3[:40] + tcp).hex(),
        **common,
    )


def _mac(raw: bytes) -> str:
    return raw.hex(":")


def _headers(raw: Any) -> Packet | None:
    if not raw.present:
        return None
    return packet(bytes(raw.l3), bytes(raw.l4), raw.payload_len)


def _frame(raw: Any) -> Frame:
    return Frame(raw.netns, raw.ifindex, _mac(bytes(raw.mac)) if raw.has_mac else None, raw.ttl)


def _text(raw: Any) -> str:
    return bytes(raw).split(b"\0", 1)[0].decode(errors="backslashreplace")


def _half(raw: Any, recent: int, context: Context, until: int) -> Half | None:
    """One direction of a flow; of its last packets, those until the RST's own time."""
    if not raw.packets:
        return None
    newest = raw.packets - 1
    kept = [raw.recent[(newest - back) % recent] for back in range(min(recent, raw.packets))]
    # What a RST provokes (a challenge ACK) may leave before the RST is seen to be dropped.
    kept = [seen for seen in kept if seen.ts <= until]
    wall = context.clock_offset_ns
    return Half(
        packets=raw.packets,
        ttl=raw.ttl,
        ttl_min=raw.ttl_min,
        ttl_max=raw.ttl_max,
        syn_ttl=raw.syn_ttl if raw.has_syn else None,
        syn_window=raw.syn_window if raw.has_syn else None,
        df_always=bool(raw.df_always),
        timestamps=bool(raw.timestamps),
        mac=_mac(bytes(raw.mac)) if raw.has_mac else None,
        ifindex=raw.ifindex or None,
        first_ns=raw.first_ts + wall,
        last_ns=raw.last_ts + wall,
        syn_ns=raw.syn_ts + wall if raw.has_syn else None,
        recent=tuple(
            Seen(
                time_ns=seen.ts + wall,
                ttl=seen.ttl,
                ip_id=seen.ip_id,
                df=bool(seen.df),
                flags=flag_letters(seen.flags),
                seq=seen.seq,
                ack=seen.ack,
                window=seen.window,
                payload_len=seen.payload_len,
                segments=max(1, seen.segments),
            )
            for seen in kept
        ),
    )


def _socket(raw: Any) -> Socket | None:
    if not raw.present:
        return None
    if not raw.address:  # a raw or packet socket: no TCP in it
        return Socket(None, None, None, None, raw.inode or None, raw.uid, None)
    full = bool(raw.full)
    connected = bool(raw.rport)
    return Socket(
        cookie=raw.cookie or None,
        state=reasons.STATES.get(raw.state),
        srtt_us=(raw.srtt_us or None) if full else None,
        min_rtt_us=raw.min_rtt_us if full and raw.min_rtt_us != NOT_MEASURED else None,
        inode=raw.inode or None,
        uid=raw.uid if full else None,
        cgroup=raw.cgroup or None,
        rcv_nxt=raw.rcv_nxt if full and connected else None,
        local=Endpoint(address(bytes(raw.local)), raw.lport) if connected else None,
        remote=Endpoint(address(bytes(raw.remote)), raw.rport) if connected else None,
    )


def _trigger(kind: Kind, rst: Packet, baseline: Baseline) -> Seen | None:
    """The packet that provoked a RST whose trigger the kernel did not hand over."""
    ours = baseline.ours
    if ours is None or not ours.recent:
        return None
    if kind in (Kind.SENT_NETFILTER, Kind.SENT_PASSIVE):
        # The answered segment: its ack is the RST's seq, or its end the RST's ack (RFC 9293 3.5.2).
        for seen in ours.recent:
            end = seen.seq + seen.payload_len + ("S" in seen.flags) + ("F" in seen.flags)
            if rst.seq == seen.ack or ("A" in rst.flags and rst.ack == end & 0xFFFFFFFF):
                return seen
        return None
    if kind.direction == "received":
        return ours.recent[0]
    return None


def decode(raw: bytes, context: Context) -> Reset:
    """One event as a Reset."""
    parser = structures()
    event = parser.rst_event(raw)
    recent = parser.consts["RECENT"]
    kind = KINDS[event.kind]
    rst = _headers(event.rst)
    assert rst is not None  # the kernel side fills it for every kind
    socket = _socket(event.sock)
    scope = SCOPES[event.scope]
    baseline = Baseline(
        scope=scope,
        theirs=_half(event.theirs, recent, context, event.ts),
        ours=_half(event.ours, recent, context, event.ts),
    )
    sent_reason = context.enums.get("sk_rst_reason", {}).get(event.reason)
    drop_reason = context.enums.get("skb_drop_reason", {}).get(event.drop_reason)
    trigger: Packet | Seen | None = _headers(event.trigger)
    state = socket.state if socket else None
    probed = trigger is not None
    if trigger is None:
        trigger = _trigger(kind, rst, baseline)
    if kind is Kind.SENT_PASSIVE:
        cause = reasons.sent_passive(
            sent_reason,
            state,
            trigger.flags if trigger else None,
            data=bool(trigger and trigger.payload_len),
            probed=probed,
        )
    elif kind is Kind.SENT_ACTIVE:
        fin = state in ("CLOSE_WAIT", "LAST_ACK", "CLOSING")
        cause = reasons.sent_active(
            sent_reason,
            reasons.STATES.get(event.sock.state_now),
            bool(event.sock.owned),
            0 < event.sock.unread - fin < 1 << 31,
        )
    elif kind is Kind.SENT_NETFILTER:
        chain = f" ({NETFILTER_HOOKS[event.hook - 1]})" if 0 < event.hook <= 5 else ""
        cause = Cause("firewall-reject", f"this host's firewall rejected it{chain}")
    elif kind is Kind.SENT_RAW:
        cause = Cause("raw-socket", "a process wrote it through a raw socket")
    else:
        half_open = drop_reason in HALF_OPEN and not event.judged
        if kind is Kind.RECEIVED_REJECTED and state == "LISTEN" and half_open:
            # tcp_check_req(): the request socket is judged, its listener is what we are given.
            state = "SYN_RECV"
            socket = replace(socket, state=state) if socket else None
        cause = reasons.received(kind, drop_reason, state)
    sent = kind.direction in ("sent", "forwarded")
    local, remote = (rst.src, rst.dst) if sent else (rst.dst, rst.src)
    if socket and socket.local and socket.remote:
        local, remote = socket.local, socket.remote
    process = None
    uid = socket.uid if socket else event.sock.uid if event.sock.present else None
    if event.has_owner:
        process = Process(event.owner.pid, _text(event.owner.comm), uid)
    elif uid is not None:
        process = Process(None, None, uid)
    actor = None
    if event.has_actor:
        actor = Process(event.actor.pid, _text(event.actor.comm), event.actor.uid)
    made = None
    if event.made.present and kind.direction != "sent":
        made_kind = KINDS[event.made.kind]
        made = MadeHere(
            netns=event.made.netns,
            kind=made_kind,
            pid=event.made.task.pid if event.made.has_task else None,
            comm=_text(event.made.task.comm) if event.made.has_task else None,
            hook=NETFILTER_HOOKS[event.made.hook - 1] if 0 < event.made.hook <= 5 else None,
            source=address(bytes(event.made.source)),
        )
    return Reset(
        time_ns=event.ts + context.clock_offset_ns,
        kind=kind,
        cause=cause,
        local=local,
        remote=remote,
        rst=rst,
        netns=event.netns,
        netns_identity=event.net or None,
        trigger=trigger,
        baseline=baseline,
        socket=socket,
        frame=_frame(event.here),
        ingress_frame=_frame(event.ingress) if event.has_ingress else None,
        made_here=made,
        process=process,
        actor=actor,
    )
