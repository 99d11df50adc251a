"""What became of a RST, as far as a capture tells: its kind and its cause.

A capture has no sockets. What a receiver knew is rebuilt from what it sent: its highest
acknowledgment is what it expects next (RCV.NXT, RFC 9293 §3.3.1), its window what it would take.
Causes have the names that live tracing gives them (rsttrace/kernel/causes.py) where they mean the
same.
"""

from __future__ import annotations

from dataclasses import replace

from rsttrace import tcp
from rsttrace.capture.flows import Direction
from rsttrace.capture.layers import Segment
from rsttrace.model import Cause, Kind, Packet, Seen
from rsttrace.tcp import ACK, SYN, advance, answers, before, within

Finding = tuple[Kind, Cause]

UNSCALED_MAX = 65_535
LARGEST_WINDOW = UNSCALED_MAX << 14
"""RFC 7323 §2.3: what a window can be at most, where the scale is unknown."""

NO_FLOW = Cause("no-socket", "the capture shows no packet of its receiver in this connection")
NOT_ALL_READ = Cause(
    "no-socket",
    "no packet of its receiver could be read in this connection; some of the capture was not read",
)
FORGOTTEN = Cause(
    "no-socket",
    "no packet of its receiver is remembered in this connection; some connections were forgotten "
    "(--flows)",
)
OVER = Cause("no-socket", "the connection was over already")
TIME_WAIT_ENDED = Cause(
    "time-wait-ended",
    "ended what was left of a closed connection (TIME_WAIT), unless its receiver follows RFC 1337",
)
"""RFC 9293 §3.10.7.4. Linux does as it says unless net.ipv4.tcp_rfc1337 is set, which no packet
tells."""

TIME_WAIT = Cause(
    "time-wait",
    "ignored: the connection is over (TIME_WAIT), and its number is not the one expected",
)
BAD_TCP_CHECKSUM = Cause("bad-checksum", "ignored: its TCP checksum is wrong")
BAD_IP_CHECKSUM = Cause("bad-ip-checksum", "ignored: its IP header checksum is wrong")
WRONG_ACK = Cause("wrong-ack", "ignored: it does not acknowledge our SYN")
REFUSED = Cause("connection-refused", "the connection was refused")
SYN_RECV = Cause("syn-recv", "ended a handshake that had not finished (SYN_RECV)")
CHALLENGE = Cause(
    "challenge-ack",
    "ignored: not the expected sequence number (answered with a challenge ACK, RFC 5961)",
)
OUT_OF_WINDOW = Cause("out-of-window", "ignored: its sequence number is out of window")
HALF_CLOSED = Cause("reset-after-fin", "ended a connection that the peer had half closed")
CLOSING = Cause("reset-while-closing", "ended a connection that was being closed")
EARLIER = Cause(
    "connection-reset", "ended an earlier connection on these ports (TIME_WAIT, or a live one)"
)
ESTABLISHED = Cause("connection-reset", "ended an established connection")

ACTIVE = Cause("unspecified", "this side reset it; a capture does not tell why")
FASTCLOSE = Cause("mptcp-fastclose", tcp.FASTCLOSE)
NO_LISTENER = Cause("no-listener", "no socket listens there (answer to SYN)")


def received(
    rst: Segment,
    packet: Packet,
    theirs: Direction | None,
    unknown: Cause = NO_FLOW,
    *,
    flags_alone: bool = False,
) -> Finding:
    """What a RST did at its receiver (see `_did`), and what its MPTCP options say of why."""
    kind, cause = _did(rst, packet, theirs, unknown, flags_alone)
    said = tcp.said(packet.options)
    return kind, replace(cause, text=cause.text + said) if said else cause


def _did(
    rst: Segment, packet: Packet, theirs: Direction | None, unknown: Cause, flags_alone: bool
) -> Finding:
    """What a RST did at its receiver.

    `theirs` is the direction that the RST came from, `packet` the RST with its checksums looked
    at, `unknown` why nothing is known of its receiver, if nothing is; `flags_alone` says that the
    capture has no packet without SYN, FIN or RST, so that it is not known where the receiver stands
    now. Where the receiver stood
    between two values (data on its way that it may or may not have had), the RST is given the
    benefit of the doubt.
    """
    rejected = Kind.RECEIVED_REJECTED
    if packet.ip_checksum_ok is False:
        return rejected, BAD_IP_CHECKSUM
    if packet.tcp_checksum_ok is False:
        return rejected, BAD_TCP_CHECKSUM
    ours = theirs.other if theirs is not None else None
    if theirs is None or ours is None or not ours.packets:
        return Kind.RECEIVED_UNMATCHED, unknown
    if theirs.reset or ours.reset:
        return Kind.RECEIVED_UNMATCHED, OVER
    if _acked(theirs, ours.fin) and _acked(ours, theirs.fin):
        # Who closed first waits (RFC 9293 §3.6).
        assert ours.fin_ns is not None
        assert theirs.fin_ns is not None
        if ours.fin_ns > theirs.fin_ns:
            return Kind.RECEIVED_UNMATCHED, OVER
        if rst.seq == ours.acked:
            return Kind.RECEIVED_ACCEPTED, TIME_WAIT_ENDED
        return rejected, TIME_WAIT
    if not theirs.packets and ours.syn_seq is not None and not ours.syn_ack and ours.acked is None:
        # SYN-SENT (RFC 9293 §3.10.7.3): only what acknowledges the SYN counts.
        takes = (
            rst.flags & ACK
            and ours.end is not None
            and within(rst.ack, advance(ours.syn_seq, 1), ours.end)
        )
        return (Kind.RECEIVED_ACCEPTED, REFUSED) if takes else (rejected, WRONG_ACK)
    acked, end = ours.acked, theirs.end
    expected = acked if acked is not None else end
    if expected is None:
        return Kind.RECEIVED_ACCEPTED, ESTABLISHED  # mid-flow, and nothing to compare with
    # What was seen on its way may have arrived, and not been acknowledged yet.
    arrived = end is not None and rst.seq == end and not before(end, expected)
    unknown_since = flags_alone and before(expected, rst.seq)
    if rst.seq != expected and not arrived and not unknown_since:
        last = advance(expected, _window(ours) - 1)
        return rejected, CHALLENGE if within(rst.seq, expected, last) else OUT_OF_WINDOW
    if ours.syn_ack and theirs.acked is None and not unknown_since:
        return rejected, SYN_RECV  # as live: a request socket is no connection yet
    if ours.fin is not None:
        return Kind.RECEIVED_ACCEPTED, CLOSING
    if theirs.fin is not None:
        return Kind.RECEIVED_ACCEPTED, HALF_CLOSED
    return Kind.RECEIVED_ACCEPTED, EARLIER if _met_an_earlier_one(theirs, ours) else ESTABLISHED


def _met_an_earlier_one(theirs: Direction, ours: Direction) -> bool:
    """Whether all that was seen is a SYN, and the receiver's ACK of something else."""
    begun = theirs.syn_seq
    if begun is None or theirs.syn_ack or theirs.end != advance(begun, 1):
        return False
    return ours.syn_seq is None and ours.acked is not None and ours.acked != theirs.end


def sent(packet: Packet, answered: Seen | None) -> Finding:
    """Why our side sent a RST: an answer where it has an answer's shape, else a socket's own.

    A firewall's REJECT has the shape of an answer, and a raw socket's RST any shape: a capture
    cannot tell them apart.
    """
    subflow = tcp.subflow_reset(packet.options)
    if tcp.is_fastclose(packet.options):
        return Kind.SENT_ACTIVE, FASTCLOSE
    shape = not packet.window and not packet.payload_len and (subflow or not packet.options)
    numbers = packet.flags == "R" or (packet.flags == "RA" and packet.seq == 0)
    answer = shape and numbers and answered is not None
    if subflow is not None:
        kind = Kind.SENT_PASSIVE if answer else Kind.SENT_ACTIVE
        return kind, Cause("mptcp-reset", tcp.subflow_words(*subflow))
    if not answer or answered is None:
        return Kind.SENT_ACTIVE, ACTIVE
    if "S" in answered.flags and "A" not in answered.flags:
        return Kind.SENT_PASSIVE, NO_LISTENER
    names = {"SA": "SYN-ACK", "A": "ACK", "FA": "FIN", "PA": "data", "FPA": "data+FIN"}
    flags = tcp.without_ecn(answered.flags)
    what = names.get(flags, flags or "no flags")
    text = f"no such connection here, or one in TIME_WAIT (answer to {what})"
    return Kind.SENT_PASSIVE, Cause("no-connection", text)


def answered(rst: Packet, others: tuple[Seen, ...]) -> Seen | None:
    """The other end's packet that a RST answers, by its numbers."""
    return next((seen for seen in others if answers(rst, seen)), None)


def _acked(direction: Direction, number: int | None) -> bool:
    return (
        number is not None and direction.acked is not None and not before(direction.acked, number)
    )


def _window(ours: Direction) -> int:
    """How much the receiver would have taken, in bytes; at least 1."""
    if ours.window is None:
        return UNSCALED_MAX
    last = ours.recent[-1].flags if ours.recent else 0
    if last & SYN:  # never scaled (RFC 7323 §2.2)
        return max(1, ours.window)
    theirs = ours.other
    if ours.scale is None or theirs is None or theirs.scale is None:
        # No handshake seen: the scale may be anything up to 14. 7 is what most hosts use.
        return max(1, min(ours.window << 7, LARGEST_WINDOW))
    both = ours.scale and theirs.scale is not None
    return max(1, ours.window << ours.scale if both else ours.window)
