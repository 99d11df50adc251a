"""Turns one raw event into a Reset. Pure: bytes and tables in, objects out."""

from __future__ import annotations

from ctypes import sizeof
from dataclasses import dataclass
from functools import lru_cache
from struct import Struct
from typing import Any, NamedTuple

from rsttrace.kernel import causes, config
from rsttrace.kernel.layout import structures, unpacker
from rsttrace.limits import RECENT
from rsttrace.model import (
    AcceptQueue,
    Baseline,
    Cause,
    Endpoint,
    Frame,
    Half,
    Kind,
    LatePacket,
    MadeHere,
    Packet,
    Peer,
    Process,
    Reset,
    Scope,
    Seen,
    SentData,
    Socket,
    Timers,
    TtlCount,
)
from rsttrace.model.record import changed
from rsttrace.tcp import (
    address,
    answers,
    flag_letters,
    handshake_half,
    handshake_packet,
    options_text,
    packet,
)

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


SEEN = (
    *("ts", "seq", "ack", "payload_len", "tsval", "tsecr", "ip_id", "window", "segments"),
    *("flags", "ttl", "df", "tos", "stamped"),
)
TTL = ("first_ts", "last_ts", "packets", "strange", "ttl")
CLOCK = ("ts", "tsval")
HALF = (
    *(
        "last_ts",
        "packets",
        "end",
        "acked",
        "ifindex",
        "mac",
        "has_mac",
        "has_acked",
        "has_syn",
        "has_new_syn",
    ),
    *(
        "ttl",
        "ttl_min",
        "ttl_max",
        "df_always",
        "timestamps",
        "confirmed",
        "syn_options_len",
        "new_options_len",
    ),
    *("first_ts", "fin_ts", "strange_ts", "strange", "syns"),
)


class Forms(NamedTuple):
    """How the structures of which an event has many are read, and where a half has them."""

    seen: Struct
    ttl: Struct
    clock: Struct
    half: Struct
    ttls: range
    clocks: range
    recent: int
    seen_size: int
    syn: int
    new_syn: int


@lru_cache(maxsize=1)
def _forms() -> Forms:
    known = structures()
    of = known.rst_half

    def places(member: Any, each: Any) -> range:
        return range(member.offset, member.offset + member.size, sizeof(each))

    return Forms(
        seen=unpacker("rst_seen", *SEEN),
        ttl=unpacker("rst_ttl", *TTL),
        clock=unpacker("rst_clock", *CLOCK),
        half=unpacker("rst_half", *HALF),
        ttls=places(of.ttls, known.rst_ttl),
        clocks=places(of.clock, known.rst_clock),
        recent=of.recent.offset,
        seen_size=sizeof(known.rst_seen),
        syn=of.syn.offset,
        new_syn=of.new_syn.offset,
    )


def _seen(raw: Any, family: int, wall: int, options: str | None = None, at: int = 0) -> Seen:
    """The packet (``struct rst_seen``) at this place of a structure's bytes."""
    (
        ts,
        seq,
        ack,
        payload_len,
        tsval,
        tsecr,
        ip_id,
        window,
        segments,
        flags,
        ttl,
        df,
        tos,
        stamped,
    ) = _forms().seen.unpack_from(raw, at)
    ipv4 = family == 4
    return Seen(
        ts + wall,
        ttl,
        ip_id if ipv4 else None,
        bool(df) if ipv4 else None,
        flag_letters(flags),
        seq,
        ack,
        window,
        payload_len,
        segments=segments or 1,
        tsval=tsval if stamped else None,
        tsecr=tsecr if stamped else None,
        options=options,
        tos=tos,
    )


def _options(raw: Any, length: int) -> str:
    return options_text(bytes(raw)[:length])


def _ttls(raw: Any, wall: int) -> tuple[TtlCount, ...]:
    forms = _forms()
    found = [forms.ttl.unpack_from(raw, at) for at in forms.ttls]
    used = [row for row in found if row[1]]  # last_ts
    if len(used) > 1:
        used.sort(key=lambda row: (-row[2] - row[3], -row[1], row[4]))
    return tuple(
        [
            TtlCount(ttl, packets, first + wall, last + wall, strange)
            for first, last, packets, strange, ttl in used
        ]
    )


def half(raw: Any, family: int, context: Context, until: int) -> Half | None:
    """One direction of a flow (``struct rst_half``); of its last packets, those until a time.

    `until` is the RST's own time, of CLOCK_MONOTONIC.
    """
    forms = _forms()
    (
        last_ts,
        packets,
        end,
        acked,
        ifindex,
        mac,
        has_mac,
        has_acked,
        has_syn,
        has_new_syn,
        ttl,
        ttl_min,
        ttl_max,
        df_always,
        timestamps,
        confirmed,
        syn_options_len,
        new_options_len,
        first_ts,
        fin_ts,
        strange_ts,
        strange,
        syns,
    ) = forms.half.unpack_from(raw)
    if not packets:
        return None
    wall = context.clock_offset_ns
    last = until + wall
    recent = []
    for back in range(1, min(RECENT, packets) + 1):
        at = forms.recent + (packets - back) % RECENT * forms.seen_size
        seen = _seen(raw, family, wall, at=at)
        # What a RST provokes (a challenge ACK) may leave before the RST is seen to be dropped.
        if seen.time_ns <= last:
            recent.append(seen)
    syn = _seen(raw, family, wall, at=forms.syn) if has_syn else None
    new_syn = None
    if has_new_syn:
        new_options = _options(raw.new_options, new_options_len)
        new_syn = _seen(raw, family, wall, new_options, forms.new_syn)
    return Half(
        packets=packets,
        ttl=ttl,
        ttl_min=ttl_min,
        ttl_max=ttl_max,
        syn_ttl=syn.ttl if syn else None,
        syn_window=syn.window if syn else None,
        df_always=bool(df_always),
        timestamps=bool(timestamps),
        mac=_mac(mac) if has_mac else None,
        ifindex=ifindex or None,
        first_ns=first_ts + wall,
        last_ns=last_ts + wall,
        syn_ns=syn.time_ns if syn else None,
        end=end,
        syn_options=_options(raw.syn_options, syn_options_len) if syn else None,
        recent=tuple(recent),
        ttls=_ttls(raw, wall),
        fin_ns=fin_ts + wall if fin_ts else None,
        strange=strange,
        strange_ns=strange_ts + wall if strange else None,
        syns=syns,
        confirmed=bool(confirmed),
        new_syn=new_syn,
        clock=tuple(
            [
                (tsval, ts + wall)
                for ts, tsval in [forms.clock.unpack_from(raw, at) for at in forms.clocks]
                if ts
            ]
        ),
        acked=acked if has_acked else None,
    )


def peer_half(raw: Any, family: int, context: Context) -> Half:
    """The newest confirmed handshake of an address (``struct rst_peer``) as a direction."""
    return handshake_half(
        _seen(raw.syn, family, context.clock_offset_ns),
        _options(raw.options, raw.options_len),
        _mac(bytes(raw.mac)) if raw.has_mac else None,
        raw.ifindex or None,
    )


def peer(raw: Any, family: int, context: Context) -> Peer | None:
    """What is known of an address (``struct rst_peer``)."""
    if not raw.known:
        return None
    syn = _seen(raw.syn, family, context.clock_offset_ns)
    return Peer(
        ttls=tuple(filter(None, bytes(raw.ttls))),
        syn_ttl=syn.ttl,
        syn_options=_options(raw.options, raw.options_len),
        syn_window=syn.window,
        df=syn.df,
        mac=_mac(bytes(raw.mac)) if raw.has_mac else None,
        time_ns=syn.time_ns,
    )


def _payload(raw: Any) -> bytes | None:
    """The first bytes of a packet's payload, as far as they lie behind its TCP header."""
    start = (raw.l4[12] >> 4) * 4
    return bytes(raw.l4)[start : min(raw.kept, start + raw.payload_len)] or None


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
    return Socket(  # what `_detailed` adds is of struct rst_detail
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


def _timers(raw: Any) -> Timers:
    return Timers(
        silent_ms=raw.silent_ms,
        unanswered=raw.unanswered,
        retransmits=raw.retransmits,
        user_timeout_ms=raw.user_timeout_ms or None,
        keepalive_idle_ms=raw.keepalive_idle_ms,
        keepalive_interval_ms=raw.keepalive_interval_ms,
        keepalive_probes=raw.keepalive_probes,
    )


def _accept_queue(raw: Any) -> AcceptQueue:
    return AcceptQueue(raw.queued, raw.queue_max, bool(raw.aborts_on_overflow))


def _detailed(event: Any, context: Context) -> Socket | None:
    """The socket with what ``struct rst_detail`` adds."""
    socket, detail = _socket(event.sock), event.detail
    if socket is None:
        return None
    reason, judged = _drop_reason(event, context), bool(event.judged)
    state = causes.judged_state(KINDS[event.kind], reason, socket.state, judged)
    told = bool(detail.substate)
    if not told and state == socket.state and not detail.has_timers and not detail.has_queue:
        return socket if state != "TIME_WAIT" else changed(socket, minisocket=True)
    return changed(
        socket,
        state=config.TCP_STATES.get(detail.substate) if told else state,
        minisocket=socket.state == "TIME_WAIT",
        rcv_nxt=detail.rcv_nxt if told else socket.rcv_nxt,
        timers=_timers(detail) if detail.has_timers else None,
        accept_queue=_accept_queue(detail) if detail.has_queue else None,
    )


def _trigger(kind: Kind, rst: Packet, baseline: Baseline, time_ns: int) -> Seen | None:
    """The packet that provoked a RST whose trigger the kernel did not hand over.

    `time_ns` is when the RST was seen.
    """
    ours = baseline.ours
    if ours is None or not ours.recent:
        return None
    if kind in (Kind.SENT_NETFILTER, Kind.SENT_PASSIVE):
        return next((seen for seen in ours.recent if answers(rst, seen)), None)
    if kind.direction == "received":
        # Not what was sent between the RST's arrival and its judgement: the challenge ACK (RFC
        # 5961) that it drew, or what other CPUs sent while it waited in the socket's backlog.
        return next((seen for seen in ours.recent if seen.time_ns <= time_ns), None)
    return None


def _baseline(event: Any, family: int, context: Context) -> Baseline:
    scope = config.SCOPES[event.scope]
    known = peer(event.peer, family, context)
    theirs = half(event.theirs, family, context, event.ts)
    if scope is Scope.PEER:
        theirs = peer_half(event.peer, family, context)
    return Baseline(
        scope=scope,
        theirs=theirs,
        ours=half(event.ours, family, context, event.ts),
        peer_ttls=known.ttls if known else (),
        peer=known,
    )


def _late(event: Any, packet: Packet, context: Context) -> LatePacket:
    """A packet after a RST; with a peer, the handshake that the packet has confirmed."""
    mac, time_ns = _frame(event.here).mac, event.ts + context.clock_offset_ns
    if event.scope != config.SCOPES.index(Scope.PEER):
        return LatePacket(time_ns, packet, event.net or None, mac=mac)
    shake = peer_half(event.peer, packet.family, context)
    syn = shake.recent[0]
    return LatePacket(
        syn.time_ns,
        handshake_packet(
            syn, shake.syn_options or "", event.peer.options_len, packet.src, packet.dst
        ),
        event.net or None,
        mac=shake.mac,
        handshake=True,
    )


def _only_ends(socket: Socket | None) -> Packet:
    """Stands for the headers of a received RST that nobody could read (`Reset.unread`)."""
    assert socket is not None  # accepted_unread() in bpf/causes.c has no other ends
    assert socket.local is not None
    assert socket.remote is not None
    return Packet.unread(socket.remote, socket.local)


def decode(raw: bytes, context: Context) -> Reset | LatePacket:
    """One event as a Reset, or as what the end that was reset went on to send."""
    event = structures().rst_event.from_buffer_copy(raw)
    rst = _headers(event.rst)
    time_ns = event.ts + context.clock_offset_ns
    if event.kind == config.LATE:
        assert rst is not None  # the kernel side fills it
        return _late(event, rst, context)
    kind = KINDS[event.kind]
    socket = _detailed(event, context)
    unread = rst is None
    rst = rst or _only_ends(socket)
    baseline = _baseline(event, rst.family, context)
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
        frame=None if unread else _frame(event.here),
        unread=unread,
        ingress_frame=_frame(event.ingress) if event.has_ingress else None,
        made_here=_made_here(event.made) if kind.direction != "sent" else None,
        process=process,
        actor=actor,
        sent_data=_sent_data(event.data, event.ts, context),
        payload=_payload(event.rst),
        hook=_chain(event.hook) if kind is Kind.SENT_NETFILTER else None,
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
            socket=socket,
        )
    if kind is Kind.SENT_ACTIVE:
        fin = state in ("CLOSE_WAIT", "LAST_ACK", "CLOSING")  # it has a sequence number, no data
        return causes.sent_active(
            reason,
            config.TCP_STATES.get(event.sock.state_now),
            bool(event.sock.owned),
            0 < event.sock.unread - fin < 1 << 31,
            rst.options,
            socket=socket,
            process=_task(event.owner if event.has_owner else event.actor),
        )
    if kind is Kind.SENT_NETFILTER:
        return causes.firewall(_chain(event.hook))
    if kind is Kind.SENT_RAW:
        return causes.RAW_SOCKET
    mini = socket is not None and socket.minisocket
    return causes.received(
        kind,
        _drop_reason(event, context),
        state,
        minisocket=mini,
        expected=mini and rst.seq == event.detail.rcv_nxt,
        rfc1337=mini and bool(event.detail.rfc1337),
        options=rst.options,
    )


def _drop_reason(event: Any, context: Context) -> str | None:
    return context.enums.get("skb_drop_reason", {}).get(event.drop_reason)


def _task(raw: Any) -> Process:
    signal, status = raw.exit_code & 0x7F, raw.exit_code >> 8 & 0xFF  # wait(2)
    ended = bool(raw.exiting)
    return Process(
        raw.pid,
        _text(raw.comm),
        raw.uid,
        exit_signal=signal if ended and signal else None,
        exit_status=status if ended and not signal else None,
        cgroup=raw.cgroup or None,
    )


def _tasks(
    event: Any, socket: Socket | None, cause: Cause
) -> tuple[Process | None, Process | None]:
    """The socket's process, and the one that had somebody else's socket reset."""
    process = None
    uid = socket.uid if socket else event.sock.uid if event.sock.present else None
    if event.has_owner:
        process = changed(_task(event.owner), uid=uid)
    elif uid is not None:
        process = Process(None, None, uid)
    if not event.has_actor:
        return process, None
    actor = _task(event.actor)
    if cause.name != "mptcp-fastclose":
        return process, actor
    # close() of the MPTCP socket locks its subflows, which still have their state: this is the
    # owner, or (a timeout after close) a kernel worker
    if process is None or process.pid is None:
        process = changed(actor, uid=uid)
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
