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
        state=config.TCP_STATES.get(raw.state),
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
    event = structures().rst_event(raw)
    rst = _headers(event.rst)
    assert rst is not None  # the kernel side fills it for every kind
    time_ns = event.ts + context.clock_offset_ns
    if event.kind == config.LATE:
        return LatePacket(time_ns, rst, event.net or None)
    kind = KINDS[event.kind]
    baseline = Baseline(
        scope=config.SCOPES[event.scope],
        theirs=_half(event.theirs, context, event.ts),
        ours=_half(event.ours, context, event.ts),
        peer_ttls=tuple(filter(None, bytes(event.peer_ttls))),
    )
    socket = _socket(event.sock)
    if socket is not None:
        reason, judged = _drop_reason(event, context), bool(event.judged)
        state = causes.judged_state(kind, reason, socket.state, judged)
        socket = replace(socket, state=state)
    trigger = _headers(event.trigger) or _trigger(kind, rst, baseline, time_ns)
    cause = _cause(event, rst, socket, trigger, context)
    local, remote = (rst.dst, rst.src) if kind.direction == "received" else (rst.src, rst.dst)
    if socket and socket.local and socket.remote:
        local, remote = socket.local, socket.remote
    process, actor = _tasks(event, socket, cause)
    return Reset(
        time_ns=time_ns,
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
        made_here=_made_here(event.made) if kind.direction != "sent" else None,
        process=process,
        actor=actor,
        sent_data=_sent_data(event.data, event.ts, context),
    )


def _cause(
    event: Any,
    rst: Packet,
    socket: Socket | None,
    trigger: Packet | Seen | None,
    context: Context,
) -> Cause:
    kind = KINDS[event.kind]
    state = socket.state if socket else None
    reason = context.enums.get("sk_rst_reason", {}).get(event.reason)
    if kind is Kind.SENT_PASSIVE:
        return causes.sent_passive(
            reason,
            state,
            trigger.flags if trigger else None,
            data=bool(trigger and trigger.payload_len),
            probed=bool(event.trigger.present),
            options=rst.options,
        )
    if kind is Kind.SENT_ACTIVE:
        fin = state in ("CLOSE_WAIT", "LAST_ACK", "CLOSING")  # it has a sequence number, no data
        return causes.sent_active(
            reason,
            config.TCP_STATES.get(event.sock.state_now),
            bool(event.sock.owned),
            0 < event.sock.unread - fin < 1 << 31,
            rst.options,
        )
    if kind is Kind.SENT_NETFILTER:
        return causes.firewall(_chain(event.hook))
    if kind is Kind.SENT_RAW:
        return causes.RAW_SOCKET
    return causes.received(kind, _drop_reason(event, context), state)


def _drop_reason(event: Any, context: Context) -> str | None:
    return context.enums.get("skb_drop_reason", {}).get(event.drop_reason)


def _tasks(
    event: Any, socket: Socket | None, cause: Cause
) -> tuple[Process | None, Process | None]:
    """The socket's process, and the one that had somebody else's socket reset."""
    process = None
    uid = socket.uid if socket else event.sock.uid if event.sock.present else None
    if event.has_owner:
        process = Process(event.owner.pid, _text(event.owner.comm), uid)
    elif uid is not None:
        process = Process(None, None, uid)
    if not event.has_actor:
        return process, None
    actor = Process(event.actor.pid, _text(event.actor.comm), event.actor.uid)
    if cause.name != "mptcp-fastclose":
        return process, actor
    # close() of the MPTCP socket locks its subflows, which still have their state: this is the
    # owner, or (a timeout after close) a kernel worker
    if process is None or process.pid is None:
        process = Process(actor.pid, actor.comm, uid)
    return process, None


def _chain(number: int) -> str | None:
    """The firewall's chain by rst_event.hook (netfilter's number + 1; 0: unknown)."""
    known = 0 < number <= len(config.NETFILTER_HOOKS)
    return config.NETFILTER_HOOKS[number - 1] if known else None


def _made_here(raw: Any) -> MadeHere | None:
    if not raw.present:
        return None
    return MadeHere(
        netns=raw.netns,
        kind=KINDS[raw.kind],
        pid=raw.task.pid if raw.has_task else None,
        comm=_text(raw.task.comm) if raw.has_task else None,
        hook=_chain(raw.hook),
        source=address(bytes(raw.source)),
    )
