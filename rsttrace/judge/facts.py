"""What the observations have in common: distances, stacks, round trips, what answers what. Pure."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TypeVar

from rsttrace.model import (
    Half,
    Packet,
    Reset,
    Scope,
    Seen,
    TtlCount,
    hops,
    initial_ttl,
)
from rsttrace.model.record import record
from rsttrace.stacks import STACKS, may_be_linux, order, stack, stack_of
from rsttrace.tcp import distance, without_ecn

NEAR_HOPS = 3
"""Hop distances that differ by no more than this are called near: reroutes do that, too."""

SAME_START = 8
"""TTLs that differ by no more have the same initial TTL, even where 32 or 64 lies between them."""

MANY_PACKETS = 8
"""So many packets with one TTL: a steady distance."""

FEW_PACKETS = 3
"""So many show more than a handshake does."""

UNLIKELY_HOPS = 25
"""A peer that seems this far away more likely started with an unusual TTL (IP_TTL, ip(7))."""

PROGRAM_TTLS = (10, 20, 30, 40, 50, 60, 100, 120, 150, 200, 250)
"""Numbers that people take for a program's own TTL (IP_TTL, ip(7)); resets without a socket have
the host's."""

LEAST_SEGMENT = 536
"""Bytes of the smallest segments that a sender with much to send makes (RFC 9293 §3.7.1)."""

MISSED_IDS = 256
"""How far a counter may have run on packets that we did not see (lost, or sent to others)."""

NEAR_SEQUENCE = 1 << 24
"""Sequence numbers farther apart are not of one connection: a RST of an earlier one on the same
ports, or of a host in SYN-SENT (RFC 9293 §3.5.1). Linux's receive window ends at 6 MB (tcp(7))."""

FEW_IDS = 64
"""So many of all IP IDs are met by chance once in a thousand times."""

IDLE_NS = 60_000_000_000
"""A connection that said nothing for so long is idle. Linux's masquerading and most load balancers
forget one after minutes (350 s AWS, 4 min Azure), some after one."""

AS_LONG = 1.1
"""A silence that is no more than so many times as long as one before is no longer than that."""

ALIVE_NS = 1_000_000_000
"""A peer that sent something so short a time ago is alive."""

LONG_WAY_NS = 1_000_000_000
"""No longer is a packet and its answer under way where nothing is known of that (RFC 6298 §2.1)."""

PROVOKED_NS = 3_000_000_000
"""A RST that comes no later after a packet of ours may answer it (RFC 6298 §2: the largest initial
round-trip guess)."""

SHORTEST_RTT_NS = 2_000_000
"""Round trips below this are too short to be compared: waking up a CPU takes a part of that."""

USUAL_TICKS = 1100.0
"""Timestamp ticks a second of a clock of 1 ms, and a little more: the fastest that is usual."""

MOST_TICKS = 1_100_000.0
"""Those of a clock of 1 µs, and a little more (Linux, TCP_USEC_TS): the fastest that there is."""

DELAYED_ACK_NS = 200_000_000
"""So long stacks wait with an acknowledgment (RFC 9293 §3.8.6.3; Linux: TCP_DELACK_MAX, Windows and
BSD as much or less)."""

SAMPLES = 3
"""So many round trips have a least one that means something; fewer may all have been slow."""

RAW_SYN = ("", "mss")
"""Options of a SYN that a program wrote itself (a scanner, some health checkers): none, or MSS.
Every stack in use since 2000 offers more (stacks.py)."""


SIGNATURE = re.compile(r"(nop,)*(option-19|option-29)(,nop|,eol)*", re.ASCII)
"""The one option that an answer without a socket may have: TCP MD5 (RFC 2385; kind 19) or TCP-AO
(RFC 5925; kind 29), as tcp_v4_send_reset() signs for a connection that is no more."""

Derived = TypeVar("Derived")


def once(look: Callable[[Reset], Derived]) -> Callable[[Reset], Derived]:
    """Derive a fact of a reset once for each judging (which empties `Reset.memo` first)."""
    name = look.__qualname__

    @functools.wraps(look)
    def remembered(reset: Reset) -> Derived:
        memo = reset.memo
        if name in memo:
            found: Derived = memo[name]
        else:
            found = memo[name] = look(reset)
        return found

    return remembered


STACK_TTLS = {known.name: known.ttl for known in STACKS}


@record
class Reference:
    """The TTL that stands for the peer, and how much it is worth.

    `packets` of the peer came with it. `steady` is ``many``, ``few`` or ``one`` by their number;
    ``varied`` where the peer's packets came with several TTLs, ``peer`` where it is of another
    connection of that address, ``lone`` where it is of a SYN that nobody confirmed, ``asked`` where
    the peer answered our question. `others` are TTLs that its other packets, handshakes or answers
    came with.
    """

    ttl: int
    packets: int
    steady: str
    others: tuple[int, ...] = ()
    handshakes: tuple[int, ...] = ()
    is_syn: bool = True


NOT_THE_FLOWS = ("peer", "lone", "asked")
"""Steadiness of a reference that is not of this connection's own, confirmed packets."""


def plural(count: int, word: str) -> str:
    """``1 hop``, ``2 hops``."""
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def age_text(ns: int) -> str:
    """A duration in words a person reads at a glance."""
    if ns < 1_000_000:
        return f"{ns / 1e3:.0f} µs"
    if ns < 1_000_000_000:
        return f"{ns / 1e6:.1f} ms"
    return f"{ns / 1e9:.1f} s"


def ttl_word(reset: Reset) -> str:
    """What this IP version calls it."""
    return "TTL" if reset.family == 4 else "hop limit"


def flow_half(reset: Reset) -> Half | None:
    """The peer's direction of this very connection; None where nothing of it was seen."""
    baseline = reset.baseline
    return baseline.theirs if baseline.scope is Scope.FLOW else None


def length_of(seen: Seen) -> int:
    """How many sequence numbers a packet takes (RFC 9293 §3.4)."""
    return seen.payload_len + ("S" in seen.flags) + ("F" in seen.flags)


# ---- distance ----


def starts_at(ttl: int, reference: int | None = None, name: str | None = None) -> int:
    """The initial TTL of a packet that arrived with `ttl`.

    Rounded up to one that stacks use (model.ttl), except where it is known better: a packet that
    came with nearly the `reference` started as that did, and a stack (`name`, stacks.py) has one
    initial TTL, also where its packets come from more than 32 hops away.
    """
    rounded = initial_ttl(ttl)
    stacks = STACK_TTLS.get(name or "")
    if stacks is not None and ttl <= stacks and rounded in (32, stacks):
        return stacks
    if reference is not None and abs(ttl - reference) <= SAME_START:
        return max(rounded, initial_ttl(reference))
    return rounded


def apart(ttl: int, reference: int) -> tuple[int, bool]:
    """How many hops farther than `reference` a packet came, and whether they started alike."""
    if abs(ttl - reference) <= SAME_START or initial_ttl(ttl) == initial_ttl(reference):
        return reference - ttl, True
    return hops(ttl) - hops(reference), False


def handshake_mac(reset: Reset) -> str | None:
    """Who handed over the newest confirmed handshake of the RST's sender; ``None``: unknown.

    Who can only send packets in its name, data that fits included, cannot change that.
    """
    peer, half = reset.baseline.peer, flow_half(reset)
    if peer is None or (half is not None and (half.syn_ns or 0) > peer.time_ns):
        return None
    return peer.mac


def is_lone_syn(half: Half) -> bool:
    """Whether all that was seen of an end is a SYN, which anybody can send in its name."""
    if half.confirmed or half.syn_ttl is None:
        return False
    return half.packets <= max(1, half.syns) and all(
        "A" not in seen.flags for seen in half.recent if "S" in seen.flags
    )


def is_raw_syn(half: Half) -> bool:
    """Whether an end's SYN was written by a program, not by its stack."""
    options = half.syn_options
    if half.syn_ttl is None or options is None or options.endswith("cut") or half.confirmed:
        return False  # who goes on with a connection has a stack, if a small one (lwIP: MSS alone)
    return order(options) in RAW_SYN and not any(
        "S" in seen.flags and "A" in seen.flags for seen in half.recent
    )


def counts_of(half: Half) -> tuple[TtlCount, ...]:
    """The TTLs of an end's packets that may be its own, each with their number."""
    ttls = half.ttls
    if ttls:
        whole = len(ttls) == 1 and ttls[0].packets  # nearly always
        return ttls if whole else tuple([count for count in ttls if count.packets])
    if half.ttl is None:
        return ()
    known = dict.fromkeys(
        ttl for ttl in (half.ttl, half.syn_ttl, half.ttl_min, half.ttl_max) if ttl is not None
    )
    share = max(1, half.packets // len(known))
    return tuple(TtlCount(ttl, share, half.first_ns, half.last_ns) for ttl in known)


@once
def reference(reset: Reset) -> Reference | None:
    """The TTL that stands for the peer.

    Its handshake's, else its packets', else its other connections'. What it answered when it was
    asked comes before those, unless they agree with the RST, and makes a handshake steadier: so far
    away was the peer before the RST and, by one answer or several, after it.
    """
    known, probed = _seen_reference(reset), reset.probed
    if probed is None or probed.ttl is None:
        return known
    ttls = (probed.ttl, *probed.ttls)
    if known is None or known.steady == "lone" or _is_elsewhere(known, reset.rst.ttl):
        others = tuple(ttl for ttl in dict.fromkeys(ttls) if ttl != probed.ttl)
        packets = probed.ttls.count(probed.ttl) or 1
        return Reference(probed.ttl, packets, "asked", others, is_syn=False)
    if known.steady in ("one", "few") and known.ttl in ttls:
        return replace(known, steady="many" if probed.ttls.count(known.ttl) > 1 else "few")
    return known


def _is_elsewhere(known: Reference, ttl: int) -> bool:
    """Whether a TTL is none that the peer's other connections had."""
    return known.steady == "peer" and ttl not in (known.ttl, *known.handshakes)


def _seen_reference(reset: Reset) -> Reference | None:
    """As `reference`, of what came by itself."""
    half, baseline = flow_half(reset), reset.baseline
    handshakes = baseline.peer.ttls if baseline.peer is not None else baseline.peer_ttls
    if half is None or half.ttl is None:
        theirs = baseline.theirs
        ttl = baseline.peer.syn_ttl if baseline.peer else theirs.syn_ttl if theirs else None
        if ttl is None:
            ttl = theirs.ttl if theirs else None
        return None if ttl is None else Reference(ttl, 1, "peer", handshakes=handshakes)
    if is_lone_syn(half) and half.syn_ttl is not None:
        if handshakes and half.syn_ttl not in handshakes:
            return Reference(handshakes[0], 1, "peer", handshakes=handshakes)
        return Reference(half.syn_ttl, 1, "lone", handshakes=handshakes)
    counts = counts_of(half)
    ttl, is_syn = half.syn_ttl, True
    if ttl is None or is_raw_syn(half):
        most = max(counts, key=lambda count: count.packets, default=None)
        ttl, is_syn = most.ttl if most else half.ttl, False
    packets, others, often = 1, [], False
    for count in counts:
        if count.ttl == ttl:
            packets = count.packets
        else:
            others.append(count.ttl)
            often = often or count.packets >= FEW_PACKETS
    if often or len(others) > 1:
        steady = "varied"
    elif packets >= MANY_PACKETS:
        steady = "many"
    else:
        steady = "few" if packets >= FEW_PACKETS else "one"
    return Reference(ttl, packets, steady, tuple(others), handshakes, is_syn)


# ---- stack and shape ----


@once
def stack_name(reset: Reset) -> str | None:
    """The peer's stack, by the SYN of this connection, else of another one of that address."""
    half = flow_half(reset)
    if half is not None and half.syn_options is not None:
        return None if is_raw_syn(half) else stack(half)
    peer = reset.baseline.peer
    if peer is None or peer.syn_options is None:
        return None
    return stack_of(order(peer.syn_options), initial_ttl(peer.syn_ttl))


def numbered(half: Half | None) -> list[Seen]:
    """An end's last packets that have an IP ID, newest first."""
    return [seen for seen in (half.recent if half else ()) if seen.ip_id is not None]


def are_stamps_agreed(reset: Reset) -> bool:
    """Whether both ends agreed on timestamps and use them (RFC 7323 §3.2).

    By the peer's packets, else by both SYNs; not where a packet after the handshake has none: then
    something on the way takes them off.
    """
    half, ours = flow_half(reset), reset.baseline.ours
    if half is None:
        return False
    after = [
        seen
        for one in (half, ours)
        for seen in (one.recent if one is not None else ())
        if "S" not in seen.flags and "R" not in seen.flags
    ]
    if after:
        return half.timestamps and any(seen.tsval is not None for seen in after)
    offers = [one.syn_options for one in (half, ours) if one is not None]
    return len(offers) == 2 and all("TS" in (offer or "") for offer in offers)


def last_id(half: Half | None) -> int | None:
    """The IP ID of an end's newest packet."""
    for seen in half.recent if half else ():
        if seen.ip_id is not None:
            return seen.ip_id
    return None


def id_step(ip_id: int | None, half: Half | None) -> int | None:
    """How far an IP ID lies behind an end's last one; None where that has no counter (yet)."""
    known = numbered(half)
    if ip_id is None or not known or not known[0].ip_id or "S" in known[0].flags:
        return None  # Linux sends its SYN-ACK with IP ID 0
    return (ip_id - known[0].ip_id) & 0xFFFF


def missed_ids(reset: Reset) -> int:
    """How far a peer's counter may have run on unseen.

    Of a capture that lacks packets of the peer its numbers tell how many: each had one IP ID.
    """
    half = flow_half(reset)
    if reset.file is None or half is None or half.end is None:
        return MISSED_IDS
    return MISSED_IDS + max(0, distance(half.end, reset.rst.seq)) // LEAST_SEGMENT


def continues(ip_id: int | None, half: Half | None) -> bool:
    """Whether an IP ID goes on where the peer's last packet stopped."""
    step = id_step(ip_id, half)
    return step is not None and 1 <= step <= numbered(half)[0].segments


def is_bare(rst: Packet) -> bool:
    """Linux without a socket: tcp_v4_send_reset, tcp_v6_send_reset (and nf_send_reset).

    ID 0 with DF, window 0, no options but a signature; ``R`` with ack 0, or ``RA`` with seq 0. What
    else it should not have, such as data, is another question.
    """
    if rst.window != 0 or (rst.options and not SIGNATURE.fullmatch(order(rst.options))):
        return False
    if rst.ip_id is not None and (rst.ip_id != 0 or not rst.df):
        return False
    if rst.flags == "R":
        return rst.ack == 0 or initial_ttl(rst.ttl) == 128
    return rst.flags == "RA" and rst.seq == 0


def build(rst: Packet) -> tuple[object, ...]:
    """How a RST is made: what those of one author have in common."""
    number = rst.ip_id if rst.ip_id is None or rst.ip_id <= 1 else 2
    return rst.flags, rst.df, number, bool(rst.window), is_stamped(rst), bool(rst.reserved)


def is_live(flags: str, seq: int) -> bool:
    """Whether a RST is a live socket's, as Linux sends it: with ACK and its own next number."""
    return "A" in flags and bool(seq)


def is_stamped(rst: Packet) -> bool:
    """Whether it carries the TCP timestamp option (RFC 7323 §3)."""
    return "TS val" in rst.options


def looks_like_linux(half: Half, least: int = 2) -> bool:
    """Whether a peer's earlier IPv4 packets are those of a Linux stack, untouched on their way.

    Initial TTL 64, DF in every packet, and an IP ID of 0 in the SYN-ACK or IDs that count up
    packet by packet (ip_select_ident_segs()); the SYN's options, where known, do not speak
    against it. `least`: how many packets must have been seen.
    """
    if half.packets < least or not half.df_always or not may_be_linux(half):
        return False
    if half.ttl is None or starts_at(half.ttl, None, "Linux") != 64:
        return False
    return has_zero_syn_ack(half) or _count_on([seen for seen in half.recent if seen.ip_id]) is True


def has_zero_syn_ack(half: Half) -> bool:
    """Whether an end's SYN-ACK had IP ID 0, as Linux has it (ip_build_and_send_pkt(), DF)."""
    return any(seen.ip_id == 0 and without_ecn(seen.flags) == "SA" for seen in half.recent)


def counts_ids(half: Half | None) -> bool | None:
    """Whether an end's ordinary packets have IP IDs that count up; None: too few to tell."""
    return _count_on([seen for seen in numbered(half) if "S" not in seen.flags])


def _count_on(newest_first: list[Seen]) -> bool | None:
    """Whether each IP ID goes on from another one, but for packets that were not seen."""
    if len(newest_first) < 2:
        return None
    # From the newest on, each packet once: they overtake each other, and come twice.
    ahead: dict[int, int] = {}
    for seen in newest_first:
        step = ((seen.ip_id or 0) - (newest_first[0].ip_id or 0) + 0x8000 & 0xFFFF) - 0x8000
        ahead[step] = max(seen.segments, ahead.get(step, 0))
    steps = sorted(ahead)
    return len(steps) > 1 and all(
        newer - older <= ahead[older] + MISSED_IDS for older, newer in zip(steps, steps[1:])
    )


@once
def is_linux(reset: Reset) -> bool:
    """Whether the peer is plainly a Linux host: by its SYN, or by its packets."""
    half = flow_half(reset)
    if half is None:
        return False
    name = stack_name(reset)
    if name is not None:
        return name == "Linux" and (reset.family == 6 or half.df_always or half.packets < 2)
    return reset.family == 4 and looks_like_linux(half)


@once
def _has_linux_syn(reset: Reset) -> bool:
    """Whether the SYN's options are such as only Linux writes, in this order and with this TTL.

    Without SACK they are what every BSD answers to an offer of timestamps alone.
    """
    half, peer = flow_half(reset), reset.baseline.peer
    options = half.syn_options if half is not None else None
    if options is None and peer is not None:
        options = peer.syn_options
    return stack_name(reset) == "Linux" and "sackOK" in (options or "")


def is_plainly_linux(reset: Reset, half: Half) -> bool:
    """Whether the peer's handshake shows Linux: by options or the IP ID that only Linux has."""
    return _has_linux_syn(reset) or has_zero_syn_ack(half)


# ---- numbers ----


def answers(rst: Packet, seen: Seen) -> bool:
    """Whether a RST's numbers were known only to who has seen this packet of ours (or acts on it):
    it acknowledges its data, or takes its ack number for its own sequence number."""
    length = length_of(seen)
    if "A" in rst.flags:
        return bool(length) and rst.ack == (seen.seq + length) & 0xFFFFFFFF
    return "A" in seen.flags and rst.seq == seen.ack


def answers_ours(rst: Packet, ours: Half | None) -> bool | None:
    """Whether a no-socket RST's numbers answer a packet of ours; None if we know none."""
    if ours is None or not ours.recent:
        return None
    for seen in ours.recent:
        if "A" not in rst.flags and "A" in seen.flags and rst.seq == seen.ack:
            return True
        if "A" in rst.flags and rst.ack == (seen.seq + length_of(seen)) & 0xFFFFFFFF:
            return True
    return False


def answers_nothing(seq: int, our_acks: Iterable[int]) -> bool:
    """Whether a number lies beyond all that we acknowledged, and near it."""
    if not seq:
        return False
    ahead = 0
    for ack in our_acks:
        ahead = distance(ack, seq)
        if not 0 < ahead <= NEAR_SEQUENCE:
            return False
    return ahead > 0


def is_far(seq: int, our_acks: Iterable[int]) -> bool:
    """Whether a number is not of this connection: far from all that we acknowledged."""
    acks = list(our_acks)
    return bool(seq and acks) and all(abs(distance(ack, seq)) > NEAR_SEQUENCE for ack in acks)


@once
def lacks_ours(reset: Reset) -> bool:
    """Whether a capture shows by itself that packets of ours are missing in it.

    The peer acknowledged what it does not have, or our own numbers have a gap: a filter, a snapshot
    of a part, drops. Live all of ours are seen.
    """
    ours, theirs = reset.baseline.ours, flow_half(reset)
    if reset.file is None or ours is None:
        return False
    acked = theirs.acked if theirs is not None else None
    if reset.flags_alone:
        return True
    if ours.end is not None and acked is not None and distance(ours.end, acked) > 0:
        return True
    end = None
    for seen in reversed(ours.recent):
        if end is not None and distance(end, seen.seq) > 0:
            return True
        mine = (seen.seq + length_of(seen)) & 0xFFFFFFFF
        if end is None or distance(end, mine) > 0:
            end = mine
    return False


def may_be_asked(seq: int, reset: Reset) -> bool:
    """Whether a packet of ours that was not captured may have asked for a number.

    What the peer was seen to send we acknowledge, within two segments or 500 ms (RFC 1122
    §4.2.3.2), with a packet that takes no number itself: nothing shows that it is missing.
    """
    half = flow_half(reset)
    if reset.file is None or half is None or half.end is None:
        return False
    return distance(seq, half.end) >= 0


@once
def is_unasked(reset: Reset) -> bool:
    """Whether no packet of ours asked for the number of a RST that answers one; False: unknown."""
    if lacks_ours(reset):
        return False
    if may_be_asked(reset.rst.seq, reset):
        return False
    return answers_nothing(reset.rst.seq, reset.our_acks or our_acks(reset))


@once
def our_acks(reset: Reset) -> frozenset[int]:
    """The numbers that our last packets asked for."""
    ours = reset.baseline.ours
    return frozenset([seen.ack for seen in (ours.recent if ours else ()) if "A" in seen.flags])


def was_sent_before(sent: Seen, half: Half) -> bool:
    """Whether a packet was a retransmission: an older one already had a number beyond its own."""
    if not length_of(sent):
        return False
    older = half.recent[half.recent.index(sent) + 1 :]
    return any(distance(sent.seq, seen.seq + length_of(seen)) > 0 for seen in older)


def our_packet_with(ip_id: int, ours: Half) -> Seen | None:
    """Our packet whose IP ID (or the next number) this is.

    Offloaded buffers cover a range: of long ones the ends count alone, for four of 64 kB have 180
    of 65,536 numbers.
    """
    few = sum([seen.segments for seen in ours.recent]) <= FEW_IDS
    for seen in ours.recent:
        if seen.ip_id is None:
            continue
        ahead = (ip_id - seen.ip_id) & 0xFFFF
        if ahead <= seen.segments and (few or ahead in (0, seen.segments - 1, seen.segments)):
            return seen
    return None


def repeats_ours(ip_id: int | None, reset: Reset) -> bool:
    """Whether an IP ID is one of ours."""
    ours = reset.baseline.ours
    return bool(ip_id and ip_id > 1 and ours and our_packet_with(ip_id, ours))


# ---- time ----


@once
def _silences(reset: Reset) -> tuple[int, int] | None:
    """The longest silence that ended before the RST or the packet it answers, and the last, in ns.

    None where no packet is known to compare with.
    """
    ours, theirs = reset.baseline.ours, flow_half(reset)
    if theirs is None:
        return None
    now, peers = reset.time_ns, [seen.time_ns for seen in theirs.recent]
    times = [*peers, *[seen.time_ns for seen in ours.recent]] if ours is not None else [*peers]
    times.sort()
    while times and times[-1] > now:
        times.pop()
    if not times:
        return None
    # Our packet may have been sent several times before the answer came: the longest silence
    # counts that has nothing but packets of ours after it.
    last = min(max(peers, default=times[0]), times[-1])
    outlived = silent = 0
    for earlier, later in zip(times, [*times[1:], now]):
        if earlier >= last:
            silent = max(silent, later - earlier)
        else:
            outlived = max(outlived, later - earlier)
    return outlived, silent


def idle_ns(reset: Reset) -> int | None:
    """How long nothing was sent either way before the RST or before the packet it answers, in ns.

    None where no packet is known to compare with.
    """
    found = _silences(reset)
    return None if found is None else found[1]


def not_outlived_ns(reset: Reset) -> int | None:
    """`idle_ns`, where it is long, and longer than a silence that the connection had outlived."""
    found = _silences(reset)
    if found is None or found[1] < IDLE_NS or found[1] <= AS_LONG * found[0]:
        return None
    return found[1]


def unanswered_packets(reset: Reset) -> int | None:
    """How many packets of ours the peer had not acknowledged: each may draw an answer.

    None: what it had acknowledged is not known.
    """
    ours, half = reset.baseline.ours, flow_half(reset)
    if ours is None or ours.end is None or half is None or half.acked is None:
        return None
    size = max((one.payload_len // max(1, one.segments) for one in ours.recent), default=0)
    return -(-max(0, distance(half.acked, ours.end)) // max(size, LEAST_SEGMENT))


def is_provoked(reset: Reset) -> bool | None:
    """Whether the RST came soon enough after a packet of ours to answer it; None if unknown."""
    ours = reset.baseline.ours
    if ours is None or not ours.recent:
        return None
    return reset.time_ns - ours.recent[0].time_ns <= PROVOKED_NS


@once
def least_rtt_ns(reset: Reset) -> tuple[int, int] | None:
    """The least round trip known of this connection in ns, and on how many samples it rests.

    The socket's own, that of its handshake, and that of data that was acknowledged; where there is
    nothing but the last, less what the acknowledgment may have been delayed. Never one of a
    packet that was sent twice (Karn and Partridge, SIGCOMM 1987; RFC 6298 §3), never an ACK of our
    FIN, nor one that rides on data: a program closes and answers when it likes.
    """
    socket, ours, theirs = reset.socket, reset.baseline.ours, flow_half(reset)
    known: list[int] = []
    samples = 0
    if socket is not None and socket.min_rtt_us:
        known.append(socket.min_rtt_us * 1000)
        # The kernel's rests on the handshake alone until the peer has answered more. It counts
        # the time, too, that our SYN waited for its neighbour's address; and, once it has forgotten
        # the handshake (tcp_min_rtt_wlen: five minutes), how long the peer's program thinks, where
        # all acknowledgments ride on its answers.
        answered = theirs is not None and (
            theirs.syn_ns is not None or any(map(_is_bare_ack, theirs.recent))
        )
        samples = theirs.packets if theirs is not None and answered else 1
    if ours is None or theirs is None:
        return (known[0], samples) if known else None
    measured = 0
    once_each = ours.syns <= 1 and theirs.syns <= 1
    if once_each and ours.syn_ns is not None and (theirs.syn_ns or 0) > ours.syn_ns:
        known.append((theirs.syn_ns or 0) - ours.syn_ns)  # our SYN, their SYN-ACK
        measured = 1
    opened_there = theirs.syn_ns is not None and (ours.syn_ns or 0) > theirs.syn_ns
    if once_each and opened_there and theirs.confirmed_ns is not None:
        known.append(theirs.confirmed_ns - (ours.syn_ns or 0))  # our SYN-ACK, their ACK
        measured = 1
    waited = 0 if known else DELAYED_ACK_NS
    for sent in ours.recent:
        if not sent.payload_len or "F" in sent.flags or was_sent_before(sent, ours):
            continue
        if any(_overlap(sent, seen) and seen != sent for seen in ours.recent):
            continue
        end = (sent.seq + length_of(sent)) & 0xFFFFFFFF
        acks = [
            seen.time_ns - sent.time_ns
            for seen in theirs.recent
            if _is_bare_ack(seen) and seen.ack == end and seen.time_ns > sent.time_ns
        ]
        if acks and min(acks) > waited:
            known.append(min(acks) - waited)
            measured += 1
    if not known:
        return None
    return min(known), max(samples, measured)


def _is_bare_ack(seen: Seen) -> bool:
    """Whether a packet has nothing but an acknowledgment, which its stack sends by itself."""
    return without_ecn(seen.flags) == "A" and not seen.payload_len


def _overlap(one: Seen, other: Seen) -> bool:
    """Whether two packets of one end have a sequence number in common."""
    ahead = distance(one.seq, other.seq)
    return min(length_of(one), ahead + length_of(other)) > max(0, ahead)


def clock_rates(half: Half, unknown: float = USUAL_TICKS) -> tuple[float, float]:
    """Between how many timestamp ticks a second an end's clock makes, from two of its packets.

    RFC 7323 §5.4: between 1 ms and 1 s a tick; Linux has 1 ms, and 1 µs where a route asks for it
    (tcp_usec_ts, 6.7). Two packets' times bound it the better the farther they lie apart; one says
    nothing of it (`unknown` at most).
    """
    if len(half.clock) < 2:
        return 0.0, unknown
    (first, first_ns), (last, last_ns) = half.clock[0], half.clock[-1]
    seconds, ticks = (last_ns - first_ns) / 1e9, distance(first, last)
    if seconds < 0.001:
        return 0.0, unknown
    if ticks < 0:
        return 0.0, USUAL_TICKS
    return max(0.0, (ticks - 2) / (seconds + 0.1)), max(USUAL_TICKS, (ticks + 2) / seconds * 1.1)
