"""Turns one raw event into a Reset. Pure: bytes and tables in, objects out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from rsttrace.kernel import causes, config
from rsttrace.kernel.layout import structures
from rsttrace.limits import RECENT
from rsttrace.model import (
    Baseline,
    Cause,
    Endpoint,
    Frame,
    Half,
    Kind,
    LatePacket,
    MadeHere,
    Packet,
    Process,
    Reset,
    Seen,
    SentData,
    Socket,
)
from rsttrace.tcp import address, flag_letters, options_text, packet

NOT_MEASURED = 0xFFFFFFFF

KINDS = tuple(config.KIND_NUMBERS)

HALF_OPEN = (None, "NOT_SPECIFIED")
"""Drop reasons of a RST that ends a half-open connection (tcp_check_req gives none)."""

NETFILTER_HOOKS = ("prerouting", "input", "forward", "output", "postrouting")
"""enum nf_inet_hooks, include/uapi/linux/netfilter.h."""


@dataclass(frozen=True)
class Context:
    """What decoding needs beside the bytes.

    `clock_offset_ns` is CLOCK_REALTIME minus CLOCK_MONOTONIC; `enums` as in Report.
    """

    clock_offset_ns: int
    enums: dict[str, dict[int, str]]


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


def _half(raw: Any, context: Context, until: int) -> Half | None:
    """One direction of a flow; of its last packets, those until the RST's own time."""
    if not raw.packets:
        return None
    newest = raw.packets - 1
    kept = [raw.recent[(newest - back) % RECENT] for back in range(min(RECENT, raw.packets))]
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
        end=raw.end,
        syn_options=(
            options_text(bytes(raw.syn_options)[: raw.syn_options_len]) if raw.has_syn else None
        ),
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


def _sent_data(raw: Any, arrived_ns: int, context: Context) -> SentData | None:
    found = _headers(raw.headers)
    if not raw.kept or found is None:
        return None
    sent_ns = min(raw.ts, arrived_ns)  # a socket still sends while the RST waits in its backlog
    return SentData(sent_ns + context.clock_offset_ns, found, bytes(raw.payload)[: raw.kept])


def _socket(raw: Any) -> Socket | None:
    if not raw.present:
        return None
    if not raw.address:  # a raw or packet socket: no TCP in it
        return Socket(None, None, None, None, raw.inode or None, raw.uid, None)
    full = bool(raw.full)
    connected = bool(raw.rport)
    return Socket(
        cookie=raw.cookie or None,
        state=causes.STATES.get(raw.state),
        srtt_us=(raw.srtt_us or None) if full else None,
        min_rtt_us=raw.min_rtt_us if full and raw.min_rtt_us != NOT_MEASURED else None,
        inode=raw.inode or None,
        uid=raw.uid if full else None,
        cgroup=raw.cgroup or None,
        rcv_nxt=raw.rcv_nxt if full and connected else None,
        local=Endpoint(address(bytes(raw.local)), raw.lport) if connected else None,
        remote=Endpoint(address(bytes(raw.remote)), raw.rport) if connected else None,
    )


def _trigger(kind: Kind, rst: Packet, baseline: Baseline, time_ns: int) -> Seen | None:
    """The packet that provoked a RST whose trigger the kernel did not hand over.

    `time_ns` is when the RST was seen.
    """
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
        # Not what was sent between the RST's arrival and its judgement: the challenge ACK (RFC
        # 5961) that it drew, or what other CPUs sent while it waited in the socket's backlog.
        return next((seen for seen in ours.recent if seen.time_ns <= time_ns), None)
    return None


def decode(raw: bytes, context: Context) -> Reset | LatePacket:
    """One event as a Reset, or as what the end that was reset went on to send."""
    parser = structures()
    event = parser.rst_event(raw)
    rst = _headers(event.rst)
    assert rst is not None  # the kernel side fills it for every kind
    if event.kind == config.LATE:
        return LatePacket(event.ts + context.clock_offset_ns, rst, event.net or None)
    kind = KINDS[event.kind]
    socket = _socket(event.sock)
    scope = config.SCOPES[event.scope]
    baseline = Baseline(
        scope=scope,
        theirs=_half(event.theirs, context, event.ts),
        ours=_half(event.ours, context, event.ts),
        peer_ttls=tuple(filter(None, bytes(event.peer_ttls))),
    )
    sent_reason = context.enums.get("sk_rst_reason", {}).get(event.reason)
    drop_reason = context.enums.get("skb_drop_reason", {}).get(event.drop_reason)
    trigger: Packet | Seen | None = _headers(event.trigger)
    state = socket.state if socket else None
    probed = trigger is not None
    if trigger is None:
        trigger = _trigger(kind, rst, baseline, event.ts + context.clock_offset_ns)
    if kind is Kind.SENT_PASSIVE:
        cause = causes.sent_passive(
            sent_reason,
            state,
            trigger.flags if trigger else None,
            data=bool(trigger and trigger.payload_len),
            probed=probed,
            options=rst.options,
        )
    elif kind is Kind.SENT_ACTIVE:
        fin = state in ("CLOSE_WAIT", "LAST_ACK", "CLOSING")
        cause = causes.sent_active(
            sent_reason,
            causes.STATES.get(event.sock.state_now),
            bool(event.sock.owned),
            0 < event.sock.unread - fin < 1 << 31,
            rst.options,
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
        cause = causes.received(kind, drop_reason, state)
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
    if actor is not None and cause.name == "mptcp-fastclose":
        # close() of the MPTCP socket locks its subflows, which still have their state: this is the
        # owner, or (a timeout after close) a kernel worker
        if process is None or process.pid is None:
            process = Process(actor.pid, actor.comm, uid)
        actor = None
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
        sent_data=_sent_data(event.data, event.ts, context),
    )
