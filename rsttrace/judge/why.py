"""Why a connection was reset, as its history tells: who had closed it before, and what came then.

A source says what a RST did, or which code path sent it (`Reset.cause`). What the two ends had sent
before says more: a host without a socket answers so because it closed a moment ago, because these
ports were used again, or because it never heard of the connection. Pure.
"""

from __future__ import annotations

from dataclasses import replace

from rsttrace.judge import facts, reasons
from rsttrace.judge.facts import age_text, apart, flow_half, is_bare, plural
from rsttrace.model import Cause, Half, Kind, Packet, Race, Reset, Seen
from rsttrace.model.record import record
from rsttrace.model.word import Word
from rsttrace.tcp import distance, without_ecn

REUSE_NS = 5_000_000_000
"""A SYN on the ports of a live connection provokes what follows within this time: a challenge ACK
(RFC 5961 §4), and the RST that answers that."""

SAID_IDLE_NS = 1_000_000_000
"""A silence before the close that is worth a word: shorter ones are the pace of the work."""

GIVEN_UP = 3
"""A socket is gone that had sent the same data so often: without a RST (tcp_write_err())."""

CLOSED_LOCALLY = frozenset({"no-socket", "no-connection", "data-after-close"})
"""Causes of what this end sent that its own close explains."""


LATE = "came too late"

OWN_FIREWALL = "the peer's own firewall rejected it"


class Deed(Word):
    """What an honest peer did, or had done, to send such a RST."""

    REFUSED = "refused"
    CLOSED = "closed-before"
    RESET = "reset-before"
    WE_RESET = "we-reset-before"
    REUSED = "ports-reused"
    NO_HANDSHAKE = "no-handshake"
    FORGOT = "forgot"
    GAVE_UP = "gave-up"
    STALLED = "we-took-nothing"
    NO_CONNECTION = "no-connection"
    ABORTED = "aborted"
    FIREWALL = "own-firewall"
    SAID = "said-why"
    UNKNOWN = "unknown"


@record
class Closed:
    """The first FIN of a connection: whose it was (``peer``, ``local``), and when.

    `idle_ns` is how long neither end had sent anything before it; ``None`` where the packets before
    it are not known.
    """

    by: str
    time_ns: int
    idle_ns: int | None


def _halves(reset: Reset) -> tuple[Half | None, Half | None]:
    """The peer's direction and this end's own; `Baseline.theirs` is that of the RST's sender."""
    theirs, ours = flow_half(reset), reset.baseline.ours
    return (theirs, ours) if reset.kind.direction == "received" else (ours, theirs)


@facts.once
def closed(reset: Reset) -> Closed | None:
    """Who closed the connection first, by its FIN; None where none was seen before the RST."""
    if reset.kind is Kind.FORWARDED:  # neither end is ours
        return None
    peer, local = _halves(reset)
    fins = [
        (half.fin_ns, by)
        for half, by in ((peer, "peer"), (local, "local"))
        if half is not None and half.fin_ns is not None and half.fin_ns <= reset.time_ns
    ]
    if not fins:
        return None
    time_ns, by = min(fins)
    before = [
        seen.time_ns
        for half in (peer, local)
        for seen in (half.recent if half is not None else ())
        if seen.time_ns < time_ns
    ]
    return Closed(by, time_ns, time_ns - max(before) if before else None)


def opened_here(reset: Reset) -> bool | None:
    """Whether this end opened the connection; ``None``: its handshake was not seen."""
    if reset.cause.name == "connection-refused":
        return True
    peer, local = _halves(reset)
    if peer is None or local is None or peer.syn_ns is None or local.syn_ns is None:
        return None
    return local.syn_ns < peer.syn_ns


def race(reset: Reset) -> Race | None:
    """What a keep-alive race looks like: closed after a silence, and used again after that.

    None where the connection was not idle before its first FIN, or where what came too late is no
    data.
    """
    found, trigger = closed(reset), reset.trigger
    if found is None or found.idle_ns is None or found.idle_ns < SAID_IDLE_NS:
        return None
    sent = reset.kind.direction == "sent"
    if trigger is None or not trigger.payload_len or (found.by == "local") != sent:
        return None
    if not is_bare(reset.rst) and not sent:
        return None
    used = reset.time_ns if isinstance(trigger, Packet) else trigger.time_ns
    return Race(found.by, found.idle_ns, max(0, used - (found.time_ns - found.idle_ns)))


def _closed_words(reset: Reset, found: Closed) -> str:
    """``FIN 10.0 ms before, after 60 s idle``."""
    text = f"FIN {age_text(reset.time_ns - found.time_ns)} before"
    if found.idle_ns is not None and found.idle_ns >= SAID_IDLE_NS:
        text += f", after {idle_text(found.idle_ns)} idle"
    return text


def idle_text(ns: int) -> str:
    """Seconds as a person sets them: ``60 s``, ``2.5 s``."""
    seconds = round(ns / 1e9, 1)
    return f"{seconds:.0f} s" if seconds == int(seconds) or seconds >= 100 else f"{seconds} s"


@facts.once
def reused(reset: Reset) -> Seen | None:
    """The new SYN on the ports of this connection that provoked this RST; None if there is none.

    Only who opens connections takes ports again: a SYN in the name of the server that we had
    connected to provokes nothing of its own.
    """
    half, ours = flow_half(reset), reset.baseline.ours
    if reset.kind.direction == "sent" or half is None:
        return None
    new = half.new_syn
    if new is None:
        return begun_on_an_old_one(reset, half, ours)
    if ours is not None and ours.syn_ns is not None and ours.syn_ns < (half.syn_ns or 0):
        return None
    return new if 0 <= reset.time_ns - new.time_ns <= REUSE_NS else None


def begun_on_an_old_one(reset: Reset, opens: Half | None, answers: Half | None) -> Seen | None:
    """The SYN of who `opens`, where all that the other end `answers` is an ACK of something else.

    That end has what is left of an earlier connection (TIME_WAIT), to which the SYN is too old:
    tcp_timewait_state_process(). The connection that was there is over, so that nothing of it is
    remembered any more.
    """
    if opens is None or answers is None or not facts.is_lone_syn(opens):
        return None
    syn = next((seen for seen in opens.recent if without_ecn(seen.flags) == "S"), None)
    if syn is None or not 0 <= reset.time_ns - syn.time_ns <= REUSE_NS:
        return None
    after = [seen for seen in answers.recent if seen.time_ns >= syn.time_ns]
    end = (syn.seq + 1) & 0xFFFFFFFF
    old = [
        seen
        for seen in after
        if without_ecn(seen.flags) == "A" and not seen.payload_len and seen.ack != end
    ]
    if not after or len(old) != len(answers.recent) or answers.syn_ns is not None:
        return None
    return syn


def reused_where(reset: Reset, new: Seen) -> tuple[int, str]:
    """How many hops farther the new SYN came from than the connection's own, and that in words."""
    half = flow_half(reset)
    if half is None or half.syn_ttl is None:
        return 0, ""
    farther = apart(new.ttl, half.syn_ttl)[0]
    if not farther:
        return 0, ""
    word = "farther" if farther > 0 else "nearer"
    return farther, f", from {plural(abs(farther), 'hop')} {word}"


@facts.once
def deed(reset: Reset) -> tuple[Deed, str]:
    """What an honest peer must have done to send such a RST (net/ipv4/tcp_ipv4.c, tcp.c)."""
    made, rst = reset.made_here, reset.rst
    if made is not None and made.kind is Kind.SENT_ACTIVE:
        return Deed.ABORTED, "the peer closed or aborted its live socket"
    other = reset.other_end
    by_its_firewall = other is not None and other.firewall and other.at_sender
    if by_its_firewall or (made is not None and made.kind is Kind.SENT_NETFILTER):
        return Deed.FIREWALL, OWN_FIREWALL
    said = reasons.written(reset)
    if said is not None:
        return Deed.SAID, f"the peer reset it and says why: {said.reason}"
    if is_bare(rst):
        return _without_socket(reset)
    if reset.cause.name == "connection-refused" and rst.flags == "RA":
        text = "the peer refused: nothing listens there, or (of Windows) its backlog is full"
        return Deed.REFUSED, text
    tries = _tried_in_vain(reset)
    if tries is not None:
        return Deed.GAVE_UP, tries
    found = closed(reset)
    data = reset.trigger is not None and reset.trigger.payload_len > 0
    late = data and facts.answers_ours(rst, reset.baseline.ours)
    # Linux answers without a socket in another shape; others with what looks like a socket's.
    if found is not None and found.by == "peer" and late and not facts.is_linux(reset):
        return (
            Deed.CLOSED,
            f"the peer had closed ({_closed_words(reset, found)}); {_ours(reset)} {LATE}",
        )
    stalled = stalled_ns(reset)
    if stalled is not None and "A" in rst.flags:
        text = (
            "the peer aborted a live connection: this end took nothing more (window 0) for "
            f"{age_text(stalled)} or longer"
        )
        return Deed.STALLED, text
    if "A" in rst.flags:
        text = (
            "the peer aborted a live connection (closed with unread data, SO_LINGER 0, or killed)"
        )
        return Deed.ABORTED, text
    return Deed.UNKNOWN, "the peer reset it"


def _without_socket(reset: Reset) -> tuple[Deed, str]:
    """Why the peer's host had no such socket (tcp_v4_send_reset)."""
    trigger = without_ecn(reset.trigger.flags) if reset.trigger is not None else ""
    if reset.cause.name == "connection-refused" or (trigger == "S" and "A" in reset.rst.flags):
        return Deed.REFUSED, "the peer refused: no socket listens there"
    if reset.kind is Kind.FORWARDED:
        return Deed.NO_CONNECTION, "the peer has no such connection"
    new = reused(reset)
    if new is not None:
        age, where = age_text(reset.time_ns - new.time_ns), reused_where(reset, new)[1]
        text = (
            f"these ports were used again: a new SYN came {age} before{where}, our ACK for the old "
            "connection drew this reset"
        )
        return Deed.REUSED, text
    found = closed(reset)
    late = facts.answers_ours(reset.rst, reset.baseline.ours) is not False
    if found is not None and found.by == "peer":
        text = f"the peer had closed ({_closed_words(reset, found)})"
        more = f"; {_ours(reset)} {LATE}" if late else ": it no longer has such a connection"
        return Deed.CLOSED, text + more
    half = flow_half(reset)
    if found is not None and half is not None and half.fin_ns is not None:
        words = _closed_words(reset, found)
        return Deed.CLOSED, f"both ends had closed (ours: {words}); {_ours(reset)} {LATE}"
    if reset.we_reset_ns is not None:
        age = age_text(reset.time_ns - reset.we_reset_ns)
        return Deed.WE_RESET, f"this end had reset it {age} before: the peer has no such connection"
    before = [seen for seen in reset.earlier if seen.time_ns <= reset.time_ns]
    if before:
        return Deed.RESET, _reset_before(reset, before)
    if trigger == "SA" and reset.trigger is not None and reset.rst.seq == reset.trigger.ack:
        return Deed.NO_HANDSHAKE, "the peer knows no such handshake (it answers our SYN-ACK)"
    if not late:
        text = "the peer has no such connection (it answers none of our last packets)"
        return Deed.NO_CONNECTION, text
    idle = facts.not_outlived_ns(reset)
    if idle is not None:
        text = f"the peer no longer has such a connection, after {idle_text(idle)} without a packet"
        return Deed.FORGOT, text
    return Deed.NO_CONNECTION, "the peer has no such connection"


def _tried_in_vain(reset: Reset) -> str | None:
    """What the peer had sent again and again, and nothing of ours came; None: nothing is known."""
    half, ours = flow_half(reset), reset.baseline.ours
    if half is None or ours is None or is_bare(reset.rst):
        return None
    after = [seen for seen in half.recent if ours.last_ns < seen.time_ns <= reset.time_ns]
    if len(after) < GIVEN_UP or len({(seen.seq, seen.payload_len) for seen in after}) > 1:
        return None
    probes = half.end is not None and after[0].seq == (half.end - 1) & 0xFFFFFFFF
    if not after[0].payload_len and not probes:
        return None
    what = "keepalive probes" if probes and after[0].payload_len <= 1 else "data"
    return (
        f"the peer gave up: its {what}, sent again and again for "
        f"{age_text(reset.time_ns - after[-1].time_ns)} or longer, had no answer from us"
    )


def stalled_ns(reset: Reset) -> int | None:
    """How long, at least, this end's window had been 0 when it was reset (RFC 9293 §3.8.6.1).

    None: it was not, or for less than a second.
    """
    ours = reset.baseline.ours
    if reset.kind.direction != "received" or ours is None:
        return None
    since = None
    for seen in ours.recent:
        if seen.window or "S" in seen.flags or "A" not in seen.flags:
            break
        since = seen.time_ns
    if since is None or reset.time_ns - since < SAID_IDLE_NS:
        return None
    return reset.time_ns - since


def _reset_before(reset: Reset, before: list[Seen]) -> str:
    """What an earlier RST has to do with it: the peer's own, or one made in its name elsewhere."""
    elsewhere = [seen for seen in before if apart(reset.rst.ttl, seen.ttl)[0]]
    own = [seen for seen in before if seen not in elsewhere]
    # its own answers for want of a socket ended nothing
    if elsewhere and all("A" not in seen.flags for seen in own):
        age = age_text(reset.time_ns - elsewhere[-1].time_ns)
        return (
            "the peer has no such connection any more: resets in its name, from elsewhere, had "
            f"come {age} before, perhaps at its end too"
        )
    age = age_text(reset.time_ns - own[-1].time_ns)
    return f"the peer had reset it {age} before; {_ours(reset)} {LATE}"


def _ours(reset: Reset) -> str:
    """What of ours a RST answers."""
    trigger = reset.trigger
    if trigger is None:
        return "our packet"
    if trigger.payload_len:
        return "our data"
    return "our FIN" if "F" in trigger.flags else "our ACK"


def better_cause(reset: Reset) -> Cause | None:
    """The cause with what the connection's history adds; None: nothing.

    What this end sent is told better by its own close or reset before; whoever closed first is
    told of every reset.
    """
    found = closed(reset)
    cause = reset.cause
    if reset.kind.direction == "sent":
        cause = _our_reason(reset, found)
    if found is not None:
        cause = replace(
            cause,
            closed_by=found.by,
            closed_ms=round((reset.time_ns - found.time_ns) / 1e6, 3),
            idle_s=None if found.idle_ns is None else round(found.idle_ns / 1e9, 3),
        )
    return None if cause is reset.cause else cause


def _our_reason(reset: Reset, found: Closed | None) -> Cause:
    """Why this end's stack answered, where it no longer had the connection."""
    cause, trigger = reset.cause, reset.trigger
    if reset.kind is not Kind.SENT_PASSIVE or trigger is None:
        return cause
    if met_an_earlier_connection(reset):
        text = (
            "its ACK is of another connection: the other end still has an earlier one on these "
            "ports (TIME_WAIT, or a live one)"
        )
        return replace(cause, name="ports-reused", text=text)
    if cause.name not in CLOSED_LOCALLY or "S" in trigger.flags:
        return cause
    what = "data" if trigger.payload_len else "a FIN" if "F" in trigger.flags else "an ACK"
    if reset.we_reset_ns is not None:
        age = age_text(reset.time_ns - reset.we_reset_ns)
        text = f"{what} for a connection that this end had reset {age} before"
        return replace(cause, name="after-reset", text=text)
    local = _halves(reset)[1]
    if reset.ended_ns is not None and (local is None or local.last_ns <= reset.ended_ns):
        said = ended_by_reset(what, reset.time_ns - reset.ended_ns)
        return replace(cause, name=said.name, text=said.text)
    if found is None and (times := unanswered(reset)) >= GIVEN_UP:
        text = (
            f"{what} for a connection that this end has given up (a timeout): its own data, sent "
            f"{times} times, was never acknowledged"
        )
        return replace(cause, name="gave-up", text=text)
    if cause.name == "data-after-close":
        return _after_close(cause, reset, found)
    if found is None or found.by != "local":
        return cause
    if not trigger.payload_len:
        text = f"{cause.text}: this end had closed it ({_closed_words(reset, found)})"
        return replace(cause, text=text)
    return _after_close(replace(cause, name="data-after-close"), reset, found)


def ended_by_reset(what: str, ns: int) -> Cause:
    """Why this end answers what came so long after a RST had ended the connection."""
    text = (
        f"{what} for a connection that a RST from that address had ended here {age_text(ns)} before"
    )
    return Cause("ended-by-reset", text)


def _after_close(cause: Cause, reset: Reset, found: Closed | None) -> Cause:
    """Data for a socket that was closed: by the program, or by the kernel for one that ended."""
    process = reset.process
    end = process.end if process is not None else None
    if found is None or found.by != "local":
        return cause if end is None else replace(cause, text=f"data arrived after {end}")
    words = _closed_words(reset, found)
    text = f"the program had closed ({words})" if end is None else f"{end}: {words}"
    return replace(cause, text=f"data arrived after {text}")


def unanswered(reset: Reset) -> int:
    """How often this end was seen to send the first of its data that is not acknowledged."""
    peer, local = _halves(reset)
    if peer is None or local is None or peer.acked is None or local.end is None:
        return 0
    if distance(peer.acked, local.end) <= 0:
        return 0
    return sum(seen.payload_len > 0 and seen.seq == peer.acked for seen in local.recent)


def met_an_earlier_connection(reset: Reset) -> bool:
    """Whether our SYN was answered by an ACK that is not for it.

    tcp_rcv_synsent_state_process() resets that one and goes on connecting (RFC 9293 §3.10.7.3).
    A capture, which has no sockets, shows our SYN with a new number instead, on ports in use.
    """
    socket, trigger, half = reset.socket, reset.trigger, flow_half(reset)
    if reset.kind is not Kind.SENT_PASSIVE or trigger is None or "S" in trigger.flags:
        return False
    if "A" not in trigger.flags or trigger.payload_len:
        return False
    if socket is not None or reset.file is None:
        return socket is not None and socket.state == "SYN_SENT"
    new = half.new_syn if half is not None else None
    new = new or begun_on_an_old_one(reset, half, reset.baseline.ours)
    return new is not None and 0 <= reset.time_ns - new.time_ns <= REUSE_NS
