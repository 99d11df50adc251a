"""What can be seen of a reset: one observation at most from each group of authors.py. Pure.

An observer takes a Reset and returns an Observation, or None where the group has nothing to do with
this reset. An Observation without a name was looked at and says nothing; its text says why.
docs/evidence.md explains each one, when it misleads, and its source.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import field
from typing import Any, Optional

from rsttrace.judge import facts, reasons, why
from rsttrace.judge.authors import ROWS, TABLE, peer_share
from rsttrace.judge.facts import (
    age_text,
    apart,
    continues,
    flow_half,
    is_bare,
    is_linux,
    is_live,
    is_stamped,
    length_of,
    once,
    plural,
    stack_name,
    starts_at,
    ttl_word,
)
from rsttrace.model import Fate, Half, Packet, Probed, Reset, Scope, Seen, hops, initial_ttl
from rsttrace.model.record import record
from rsttrace.tcp import distance, without_ecn


@record
class Observation:
    """What a group of observations found: the row's name in authors.py, or None for nothing."""

    group: str
    name: str | None
    text: str
    values: dict[str, Any] = field(default_factory=dict)


Observer = Callable[[Reset], Optional[Observation]]

FULL_TTLS = (64, 128, 255)
"""Initial TTLs of stacks in use: a packet that arrives with one has passed no router."""

TOGETHER_NS = 1_000_000_000
"""RSTs no farther apart come from one moment."""

OVERTAKEN_NS = 50_000_000
"""So much earlier an answer without a socket may come than that socket's own RST, which waited in
a queue, or for its neighbour's address, on its way."""

REPEAT_NS = 150_000_000
"""TCP sends nothing again sooner (Linux: TCP_RTO_MIN is 200 ms, include/net/tcp.h)."""

REACH_SLACK = 3
"""By how many hops the way to a peer and the way back often differ."""

SAME_COUNTER = 8
"""IP IDs of two RSTs that differ by no more may come from one counter."""

BUSY_COUNTER = 4096
"""How far a host's one counter for all its peers may have run on since its last packet to us."""

SWEEP = 4
"""So many RSTs with numbers far from this connection's are guesses; one or two are of another."""

KIND_OF_IDS = 3
"""So many packets tell of what kind a stack's IP IDs are."""

TOO_FAR = 8
"""So many hops farther than its own packets no host comes to be."""

PROXY_HOPS = 15
"""So many hops behind a proxy stands no server that it answers for."""

LOW_DELAY = 0x10
"""The TOS that pf gives to its resets (IPTOS_LOWDELAY; pf_send_tcp())."""

ECN = 3
"""Those bits of a TOS that tell of congestion (RFC 3168 §5)."""

SSH = 22
"""Sessions of older OpenSSH have the TOS LOW_DELAY, and Linux answers with the TOS it was sent."""

QUEUED_S = 0.5
"""So many seconds longer than another packet one may have waited in queues on its way."""

STOOD_STILL = (
    "its timestamps go on as well, but the peer's clock had stood still meanwhile, as of a machine "
    "that was suspended or paused"
)

STALLED_S = 10.0
"""The same where the path, or an end, had stalled in between: a radio, a full buffer, a machine
that was paused. A forger who knows the clock so well has it right, or copies what he saw last."""


def _silent(group: str, text: str) -> Observation:
    return Observation(group, None, text)


# ---- distance ----


@once
def distance_(reset: Reset) -> Observation:
    """How far the RST came, against what stands for the peer."""
    ttl, word = reset.rst.ttl, ttl_word(reset)
    counting = _counting(reset)
    if counting is not None:
        return counting
    known = facts.reference(reset)
    undiminished = _undiminished(reset, known)
    if undiminished is not None:
        return undiminished
    hop = reset.next_hop
    if known is None or known.steady == "asked":
        away = hops(ttl)
        if hop is not None and not hop.is_gateway and hop.ip == reset.rst.src.ip and away:
            text = f"the peer is on our own link, but the RST has passed {plural(away, 'router')}"
            return Observation("distance", "ttl-routed", text, {"ttl": ttl, "hops": away})
    if known is None:
        return _silent("distance", f"no earlier packet of the peer to compare {word} {ttl} with")
    if known.steady == "asked":
        return _silent("distance", f"{word} {ttl}: compared with what the peer answered")
    return _compared(reset, known)


def _compared(reset: Reset, known: facts.Reference) -> Observation:
    rst, word = reset.rst, ttl_word(reset)
    mine, theirs = distances(reset)
    farther, alike = apart(rst.ttl, known.ttl)
    values = {
        "ttl": rst.ttl,
        "peer_ttl": known.ttl,
        "hops": mine,
        "peer_hops": theirs,
        "packets": known.packets,
        "scope": "peer" if known.steady == "peer" else "flow",
    }
    often = f", {known.packets} times" if known.packets > 1 else ""
    whose = {
        "peer": "another handshake of this peer",
        "lone": "a SYN that nobody confirmed",
    }.get(known.steady, "the peer's packets" if known.packets > 1 else "the peer's handshake")

    def found(name: str, text: str) -> Observation:
        return Observation("distance", name, text, values)

    if farther == 0:
        if not alike:
            text = (
                f"{word} {rst.ttl} and {known.ttl}: another initial {word}, the same hop distance"
            )
            return found("ttl-other-initial", text)
        return found("ttl-same", f"{word} {rst.ttl}, as {whose}{often}")
    compared = f"{word} {rst.ttl} where {whose} came with {known.ttl}{often}"
    if mine is not None and theirs is not None:
        compared += f" ({plural(mine, 'hop')} against {theirs})"
    half = flow_half(reset)
    own = {count.ttl: count.packets for count in (facts.counts_of(half) if half else ())}
    if rst.ttl in known.others:
        text = (
            f"{word} {rst.ttl}, as {plural(own.get(rst.ttl, 1), 'other packet')} of the peer, "
            f"whose handshake came with {known.ttl}"
        )
        many = own.get(rst.ttl, 0) >= facts.FEW_PACKETS
        return found("ttl-of-several" if many else "ttl-as-data", text)
    if known.steady == "varied":
        ttls = ", ".join(map(str, sorted({known.ttl, *known.others})))
        return found("ttl-varies", f"{compared}; but the peer's own packets came with {ttls}")
    if known.steady == "peer" and rst.ttl in known.handshakes:
        ttls = ", ".join(map(str, sorted(set(known.handshakes))))
        return found("ttl-of-several", f"{word} {rst.ttl}; handshakes of this address had {ttls}")
    new = why.reused(reset)
    if new is not None and new.ttl == rst.ttl and is_bare(rst):
        age = age_text(reset.time_ns - new.time_ns)
        text = f"{compared}; a new SYN on these ports came {age} before, with {rst.ttl}"
        return found("ttl-new-syn", text)
    if any(apart(rst.ttl, ttl) == (0, True) for ttl in known.handshakes):
        text = f"{compared}; other handshakes of this address came with {rst.ttl}"
        return found(f"ttl-other-handshake{'-near' if farther < 0 else ''}", text)
    programs = _programs(reset, known, farther)
    if programs is not None:
        return found(programs, f"{compared}; but that {word} was perhaps set by its program")
    if known.steady == "lone":
        history = history_(reset)
        if history is not None and history.name == "denied":
            # It says that it never sent that SYN, which then tells nothing of where it is.
            return Observation("distance", None, compared, values)
        raw = half is None or facts.is_raw_syn(half) or half.syn_options is None
        return found("ttl-lone" if raw else "ttl-lone-whole", compared)
    if not alike and farther <= TOO_FAR:
        name = "ttl-other-start" if farther < 0 else "ttl-other-start-behind"
        return found(name, f"{compared}; another initial {word}, too")
    steady = _aged(reset, known.steady)
    if farther > TOO_FAR:
        few = known.steady in ("one", "peer")  # no route grows by so much
        if few and farther > PROXY_HOPS:
            return found("ttl-beyond-one", compared)
        return found("ttl-too-far-one" if few else "ttl-too-far", compared)
    if farther == -1 and steady == "peer":
        return found("ttl-next-peer", compared)
    if abs(farther) <= facts.NEAR_HOPS:
        return found(f"ttl-{'near' if farther < 0 else 'behind'}-{steady}", compared)
    if farther < 0:
        suffix = f"-{steady}" if steady in ("one", "peer") else ""
        return found(f"ttl-nearer{suffix}", compared)
    suffix = f"-{steady}" if steady in ("one", "peer", "few") else ""
    return found(f"ttl-farther{suffix}", compared)


def _aged(reset: Reset, steady: str) -> str:
    """What steadiness is left where the peer's last packet is long ago: routes change."""
    half = flow_half(reset)
    if half is None or reset.time_ns - half.last_ns < facts.IDLE_NS:
        return steady
    return {"many": "few", "few": "one"}.get(steady, steady)


def _programs(reset: Reset, known: facts.Reference, farther: int) -> str | None:
    """Whether the peer's TTL was perhaps set by its program, and the RST has its host's.

    Where that TTL may be an ordinary one as well, not while its socket is alive: that would send
    its own.
    """
    if not is_bare(reset.rst) or farther >= 0 or known.steady == "peer":
        return None
    name, away = stack_name(reset), hops(reset.rst.ttl)
    odd = starts_at(known.ttl, None, name) - known.ttl >= facts.UNLIKELY_HOPS
    if odd or (initial_ttl(known.ttl) == 32 and name is None):
        return "ttl-program"
    history = history_(reset)
    if history is not None and history.name in ("alive", "quiet", "unanswered"):
        return None
    return "ttl-program-perhaps" if known.ttl + away in facts.PROGRAM_TTLS else None


def _undiminished(reset: Reset, known: facts.Reference | None) -> Observation | None:
    """A full TTL from the gateway's MAC, or one over which the peer's came through routers."""
    ttl, hop = reset.rst.ttl, reset.next_hop
    mac = reset.frame.mac if reset.frame else None
    if ttl not in FULL_TTLS or mac is None or reset.gateway_keeps_ttl:
        return None
    half, theirs, peer = flow_half(reset), reset.baseline.theirs, reset.baseline.peer
    peers_mac = half.mac if half is not None else peer.mac if peer else theirs and theirs.mac
    known_hops = None if known is None else hops(known.ttl)
    if known_hops == 0 and peers_mac == mac:
        return None  # what stands between us takes nothing off
    farther = apart(ttl, known.ttl)[0] if known is not None else 0
    if known is not None and _programs(reset, known, farther) == "ttl-program" and peers_mac == mac:
        return None  # its program set that TTL, and the host on our own link has another one
    word, values = ttl_word(reset), {"ttl": ttl, "hops": 0, "peer_hops": known_hops, "mac": mac}
    if hop is not None:
        if not hop.is_gateway or hop.is_local or hop.mac != mac:
            return None
        text = (
            f"{word} {ttl}, undiminished, from our gateway {hop.ip} ({mac}): a packet of the peer "
            f"would have passed that, which takes one"
        )
        return Observation("distance", "ttl-undiminished", text, values)
    if known is None or known.steady in facts.NOT_THE_FLOWS or not known_hops or peers_mac != mac:
        return None
    text = (
        f"{word} {ttl}, undiminished, from {mac}, over which the peer's packets came through "
        f"{plural(known_hops, 'router')} ({word} {known.ttl})"
    )
    return Observation("distance", "ttl-undiminished", text, values)


@once
def _counting(reset: Reset) -> Observation | None:
    """RSTs of one moment, made alike, with different TTLs."""
    if len(reset.siblings) < 2:
        return None
    ttls = list(
        dict.fromkeys(
            other.rst.ttl
            for other in (*reset.siblings, reset)
            if abs(other.time_ns - reset.time_ns) <= TOGETHER_NS and _alike(other, reset)
        )
    )
    known = facts.reference(reset)
    if len(ttls) < 3 or (known is not None and {*ttls} <= {known.ttl, *known.others}):
        return None
    shown = ", ".join(map(str, sorted(ttls)[:8]))
    text = (
        f"one of {len(ttls)} resets of one moment with {ttl_word(reset)}s {shown}: drawn or counted"
    )
    return Observation("distance", "ttl-counting", text, {"ttls": sorted(ttls)[:8]})


@once
def distances(reset: Reset) -> tuple[int | None, int | None]:
    """How many routers the RST passed, and how many the peer's packets: as far as TTLs tell."""
    known = facts.reference(reset)
    name = stack_name(reset)
    theirs = None
    if known is not None:
        theirs = starts_at(known.ttl, None, name if known.is_syn else None) - known.ttl
    if _counting(reset) is not None:
        return None, theirs
    reference = known.ttl if known is not None and known.steady != "lone" else None
    start = starts_at(reset.rst.ttl, reference, None)
    if reference is not None and abs(reset.rst.ttl - reference) <= facts.SAME_START:
        # Two that started alike, though 32 or 64 lies between them.
        start = max(start, reference + (theirs or 0))
        theirs = start - reference
    return start - reset.rst.ttl, theirs


# ---- asked ----


def asked(reset: Reset) -> Observation | None:
    """What the peer answered when it was asked for its distance, or the link for its MAC.

    Where this connection's own packets tell the distance, an answer adds nothing to them, unless it
    came from where the RST came from and they did not: then the way has changed, or another host
    has the address now.
    """
    probed, rst = reset.probed, reset.rst
    if probed is None:
        return None
    if probed.macs:
        return _asked_link(reset, probed)
    text = f"asked: {probed.text}"
    if probed.ttl is None:
        return _silent("asked", text)
    text += f"; the RST with {rst.ttl}"
    values = {
        "method": probed.method,
        "ttl": probed.ttl,
        "ttls": list(probed.ttls),
        "hops": hops(probed.ttl),
        "rst_ttl": rst.ttl,
    }
    return Observation("asked", _asked_distance(reset, probed, probed.ttl), text, values)


def _asked_distance(reset: Reset, probed: Probed, ttl: int) -> str | None:
    """The row for an answer with a TTL, against the RST's; None where the packets say it all."""
    rst, ttls = reset.rst, {ttl, *probed.ttls}
    place = distance_(reset).name
    if rst.ttl in ttls:
        return None if place in _AGREED else "asked-same"
    if place == "ttl-undiminished":
        known = facts.reference(reset)
        behind = known is not None and known.steady == "asked" and bool(hops(ttl))
        return "asked-beyond" if behind else None
    if place is not None:
        return None
    farther, _ = apart(rst.ttl, ttl)
    if farther == 0:
        return "asked-other-initial"
    if farther > 0:
        return "asked-farther"
    if farther < -facts.NEAR_HOPS:
        return "asked-nearer"
    if min(ttls) < rst.ttl < max(ttls):
        return None  # between two of its ways
    alike = len(ttls) == 1 and len(probed.ttls) > 1
    return "asked-near" if alike else "asked-near-once"


_AGREED = (
    "ttl-same",
    "ttl-of-several",
    "ttl-as-data",
    "ttl-other-handshake",
    "ttl-other-handshake-near",
    "ttl-counting",
)
"""Where the RST has a TTL that the peer has shown already, or one that tells no distance."""


def _asked_link(reset: Reset, probed: Probed) -> Observation:
    """The row for who says to have the peer's address on our own link."""
    mac = reset.frame.mac if reset.frame is not None else None
    text = f"asked: {probed.text}"
    values = {"method": probed.method, "macs": list(probed.macs), "mac": mac}
    if mac is None:
        return Observation("asked", None, text, values)
    text += f"; the RST came from {mac}"
    if mac not in probed.macs:
        return Observation("asked", "asked-no-holder", text, values)
    name = "asked-two-holders" if len(probed.macs) > 1 else "asked-holder"
    return Observation("asked", name, text, values)


# ---- make ----


@once
def make(reset: Reset) -> Observation:
    """The RST's shape against the peer's stack, known by its SYN and by its habits."""
    rst, half = reset.rst, flow_half(reset)
    clock = _clock(reset, half)
    if clock is not None and clock.name is not None:
        return clock
    bare = _bare(reset, half)
    if bare is not None:
        return bare
    wrong = _wrong_for_its_stack(reset, half)
    if wrong is not None:
        return wrong
    values = {"flags": rst.flags, "window": rst.window, "ip_id": rst.ip_id, "df": rst.df}
    if half is not None:
        live = _live(reset, half, clock, values)
        if live is not None:
            return live
    habits = _habits(reset, half, values)
    if habits is not None:
        return habits
    return Observation("make", "generic", "a shape that tells nobody apart", values)


def _bare(reset: Reset, half: Half | None) -> Observation | None:
    rst = reset.rst
    values = {"flags": rst.flags, "window": rst.window, "ip_id": rst.ip_id, "tos": rst.tos}
    plain = rst.flags in ("R", "RA") and not (rst.window or rst.options or rst.payload_len)
    if plain and rst.tos == LOW_DELAY and not _asks_low_delay(reset, half):
        text = "TOS 0x10, window 0, no options: as pf's 'block return-rst' sends it"
        return Observation("make", "pf-not-its-stack" if is_linux(reset) else "pf", text, values)
    if not is_bare(rst) and not _is_refusal(reset, half):
        return None
    numbers = "window 0, no options" if rst.ip_id is None else "IP ID 0, DF, window 0"
    shape = f"the shape of a Linux host without such a socket ({numbers})"
    name, linux = stack_name(reset), is_linux(reset)
    ours = reset.baseline.ours
    unasked = facts.is_unasked(reset)
    if ours is not None and ours.strange:
        unasked = False  # what we sent with odd numbers is answered, too
    if half is not None and linux and unasked:
        text = f"{shape}, but no packet of ours asked for its number"
        return Observation("make", "bare-unasked", text, values)
    if name == "Windows" and starts_at(rst.ttl) != 128:
        text = f"{shape}; the peer is a {name} host"
        return Observation("make", "bare-not-its-stack", text, values)
    if half is not None and not linux and (rst.ip_id is None or unasked):
        text = f"R, {numbers}: what a host without such a socket sends, some also give up one so"
        return Observation("make", "bare-any-stack", text, values)
    return Observation("make", "bare", f"{shape}; a firewall's REJECT looks the same", values)


def _asks_low_delay(reset: Reset, half: Half | None) -> bool:
    """Whether the connection's own packets have that TOS.

    Without a socket Linux answers with the TOS of the packet that it answers (tcp_v4_send_reset()),
    a socket resets with its own: sessions of ssh, telnet, file servers.
    """
    rst, ours, trigger = reset.rst, reset.baseline.ours, reset.trigger
    if SSH in (rst.src.port, rst.dst.port):
        return True  # its first packets have none yet
    seen = [*(ours.recent if ours else ()), *(half.recent if half else ())]
    known = [one.tos for one in (*seen, *([trigger] if trigger else ())) if one.tos is not None]
    return any(tos & ~ECN == LOW_DELAY for tos in known)


def _is_refusal(reset: Reset, half: Half | None) -> bool:
    """Whether it refuses our SYN that a SYN proxy had accepted: numbers shifted, else bare."""
    rst, ours = reset.rst, reset.baseline.ours
    if half is None or half.packets > 1 or ours is None or rst.flags != "RA":
        return False
    answers = [seen for seen in ours.recent if "S" in seen.flags and facts.answers(rst, seen)]
    plain = not (rst.window or rst.options or rst.payload_len)
    return bool(answers) and plain and (rst.ip_id is None or (rst.ip_id == 0 and bool(rst.df)))


def _clock(reset: Reset, half: Half | None) -> Observation | None:
    """The RST's timestamps against the peer's clock and against what we sent (RFC 7323 §3, §5.4).

    None: nothing to compare. Without a name: they are right.
    """
    if half is None or not half.clock or not is_stamped(reset.rst):
        return None
    stamps = _stamps(reset.rst)
    if stamps is None:
        return None
    tsval, tsecr = stamps
    slow, fast = facts.clock_rates(half, facts.MOST_TICKS)
    last, seconds = _stamp_before(reset, half, tsval, fast)
    step = distance(last, tsval)
    values: dict[str, Any] = {"tsval": tsval, "tsecr": tsecr, "peer_tsval": last, "step": step}
    wrong = []
    # Either it had waited, or the packet before it.
    least = slow * (seconds - (STALLED_S if step else QUEUED_S)) - 2
    ours = reset.baseline.ours
    if 0 < step < least and tsecr and ours is not None and tsecr in _our_stamps(ours):
        return Observation("make", None, STOOD_STILL, values)
    if not max(0, least) <= step <= fast * (seconds + STALLED_S) + 2:
        wrong.append(
            f"its TSval {tsval} is not of the peer's clock, which was at {last} "
            f"{age_text(round(seconds * 1e9))} before"
        )
    if ours is not None and ours.clock and tsecr:
        first, (newest, newest_ns) = ours.clock[0][0], ours.clock[-1]
        values["our_tsval"] = newest
        # A packet of ours may have been missed: up to what our clock can have come to since.
        ahead = max(0, reset.time_ns - newest_ns) / 1e9 * facts.clock_rates(ours)[1]
        if distance(newest, tsecr) > ahead + 2 or (ours.syn_ns and distance(first, tsecr) < 0):
            wrong.append(f"its TSecr {tsecr} is none that we sent ({first} to {newest})")
    if wrong:
        return Observation("make", "timestamps-wrong", "; ".join(wrong), values)
    return Observation("make", None, "its timestamps go on, too", values)


def _stamps(rst: Packet) -> tuple[int, int] | None:
    """TSval and TSecr of a RST; None: it has none."""
    found = re.search(r"TS val (\d+) ecr (\d+)", rst.options)
    return None if found is None else (int(found[1]), int(found[2]))


def _stamp_before(reset: Reset, half: Half, tsval: int, fast: float) -> tuple[int, float]:
    """The peer's timestamp to compare a RST's with, and how many seconds before that was.

    The highest; or, where that was not in its last packet, the last one's, if the RST's goes on
    from there: the highest may be in a packet that somebody sent in its name.
    """
    highest, then_ns = half.clock[-1]
    for seen in half.recent[:1]:
        seconds = max(0.0, (reset.time_ns - seen.time_ns) / 1e9)
        if seen.tsval is None or distance(seen.tsval, highest) <= 0:
            continue
        if 0 <= distance(seen.tsval, tsval) <= fast * (seconds + QUEUED_S) + 2:
            return seen.tsval, seconds
    return highest, max(0.0, (reset.time_ns - then_ns) / 1e9)


def _our_stamps(ours: Half) -> set[int | None]:
    """What our last packets had for timestamps: the peer's socket echoes the newest it has."""
    return {seen.tsval for seen in ours.recent} | {tsval for tsval, _ in ours.clock[-1:]}


def _wrong_for_its_stack(reset: Reset, half: Half | None) -> Observation | None:
    """What the peer's stack never sends: Linux and Windows are known well enough to say."""
    rst, name = reset.rst, stack_name(reset)
    if half is None:
        return None
    if is_linux(reset):
        wrong = _wrong_for_linux(reset, half)
        name = "Linux"
    elif name == "Windows":
        wrong = [
            text
            for text, is_so in (
                (f"a window ({rst.window})", bool(rst.window)),
                ("options", bool(rst.options)),
            )
            if is_so
        ]
    else:
        return None
    unflagged = name == "Linux" and "A" not in rst.flags and bool(rst.ack)
    if unflagged:
        text = f"no ACK flag, but an ack number ({rst.ack})"
        if not wrong:
            return Observation("make", "ack-unflagged", text, {"ack": rst.ack})
        wrong.append(text)
    if not wrong:
        return None
    values = {
        "ip_id": rst.ip_id,
        "df": rst.df,
        "window": rst.window,
        "peer_ip_id": facts.last_id(half),
        "syn_options": half.syn_options,
    }
    text = f"the peer is a {name} host, which never sends such a RST: {'; '.join(wrong)}"
    if wrong == [_NO_STAMP] and continues(rst.ip_id, half):
        text = "IP ID goes on as a live Linux socket's would, but the agreed timestamps are missing"
        return Observation("make", "timestamps-missing", text, values)
    return Observation("make", "alien-many" if len(wrong) > 1 else "alien", text, values)


_NO_STAMP = "the agreed timestamps are missing"


def _wrong_for_linux(reset: Reset, half: Half) -> list[str]:
    """What no Linux path makes: tcp_v4_send_reset(), tcp_send_active_reset(), ip_output.c.

    Without a socket Linux sends IP ID 0 with DF, and zeros where no number is asked for; a live
    socket goes on with its IDs, with DF and with the agreed timestamps.
    """
    rst, wrong = reset.rst, []
    if rst.df is False and half.df_always:
        wrong.append(f"no DF (IP ID {rst.ip_id})")
    if "A" not in rst.flags and rst.window:
        wrong.append(f"no ACK, but a window ({rst.window})")
    modern = half.syn_options is not None or any(
        "S" in seen.flags and seen.ip_id == 0 for seen in half.recent
    )
    modern = modern and stack_name(reset) == "Linux" and facts.counts_ids(half) is not False
    if "A" not in rst.flags and rst.df and rst.ip_id and modern:
        wrong.append(f"no ACK, but IP ID {rst.ip_id}: without a socket it is 0")
    if not is_live(rst.flags, rst.seq):
        return wrong
    if not facts.is_plainly_linux(reset, half):
        # Older BSD's DF, TTL and IP IDs look the same, and its RSTs have no timestamps.
        return wrong
    step, clock = facts.id_step(rst.ip_id, half), _clock(reset, half)
    counts = facts.counts_ids(half) is not False and (clock is None or clock.name is not None)
    if counts and step is not None and not 1 <= step <= facts.missed_ids(reset):
        wrong.append(f"IP ID {rst.ip_id}, where its socket would go on from {facts.last_id(half)}")
    if facts.are_stamps_agreed(reset) and not is_stamped(rst):
        wrong.append(_NO_STAMP)
    return wrong


def _live(
    reset: Reset, half: Half, clock: Observation | None, values: dict[str, Any]
) -> Observation | None:
    """A live socket's own abort, by IP ID, DF and timestamps (`clock`: what those say)."""
    rst = reset.rst
    if without_ecn(rst.flags) not in ("RA", "RAP") or not is_live(rst.flags, rst.seq):
        return None
    if _strange_id(reset, half) is not None:
        return None
    stamped = is_stamped(rst)
    goes_on, last = continues(rst.ip_id, half), facts.last_id(half)
    stamps_fit = stamped == facts.are_stamps_agreed(reset) or (
        # BSD's tcp_output() had none in a RST for long
        not stamped and stack_name(reset) in ("macOS or iOS", "FreeBSD", "OpenBSD")
    )
    agrees = stamps_fit and (rst.df is None or rst.df == half.df_always)
    clock_is_right = clock is not None and clock.text != STOOD_STILL
    stamp = "" if clock is None else f"; {clock.text}"
    windows = starts_at(rst.ttl) == 128 and rst.df and rst.window == 0
    if goes_on and agrees and not windows:
        text = f"the shape of the peer's own live socket: IP ID {rst.ip_id} goes on from {last}"
        return Observation("make", "live", text + stamp, values)
    if goes_on or windows:
        return None
    if clock_is_right and agrees:
        text = "the shape of the peer's own live socket: RST+ACK, timestamps go on by its clock"
        return Observation("make", "live-by-clock", text, values)
    windows_ = {seen.window for seen in half.recent if "S" not in seen.flags}
    ours = reset.baseline.ours
    our_windows = {seen.window for seen in (ours.recent if ours else ())}
    own = rst.window in windows_ - our_windows and rst.seq == half.end
    if own and not is_linux(reset) and rst.df in (None, half.df_always):
        text = f"RST+ACK with the peer's own next number and window ({rst.window})"
        return Observation("make", "live-window", text, values)
    unknown = facts.id_step(rst.ip_id, half) is None
    if unknown and agrees:
        text = "RST+ACK with a sequence number of its own, as a live socket's"
        return Observation("make", "live-plain", text, values)
    return None


def _habits(reset: Reset, half: Half | None, values: dict[str, Any]) -> Observation | None:
    """What an unknown stack's packets had in common, and the RST has or has not."""
    rst = reset.rst
    goes_on = continues(rst.ip_id, half)
    last = facts.last_id(half)
    if goes_on and starts_at(rst.ttl) == 128 and rst.df and rst.window == 0:
        text = f"the shape of a Windows host: IP ID {rst.ip_id} goes on from {last}, DF, window 0"
        return Observation("make", "windows", text, values)
    step = facts.id_step(rst.ip_id, half)
    if goes_on or (step is not None and 1 <= step <= facts.missed_ids(reset)):
        return Observation("make", "continues", f"IP ID {rst.ip_id} goes on from {last}", values)
    strange = _strange_id(reset, half)
    plain = rst.flags in ("R", "RA") and not (rst.window or rst.options)
    known = half is not None and bool(half.packets) and rst.df in (None, half.df_always)
    fits = strange is None and (rst.ip_id is None or rst.ip_id or not rst.df)
    if plain and known and fits:
        text = "window 0, no options, and nothing in it that the peer's packets have not"
        return Observation("make", "plain-answer", text, values)
    if rst.df is not False or (strange is not None and half is not None and not half.df_always):
        if strange is not None:
            return Observation("make", "id-stranger", strange, values)
        return None
    if rst.ip_id == 0 and not (half is not None and half.packets and not half.df_always):
        text = "IP ID 0 without DF: hand-made packets look like this"
        return Observation("make", "zero-no-df", text, values)
    if half is not None and half.df_always and half.packets == 1:
        text = "no DF, where the peer's handshake had it"
        return Observation("make", "df-lost-one", text, values)
    if half is not None and half.df_always:
        text = f"no DF, where all {plural(half.packets, 'packet')} of the peer had it"
        return Observation("make", "df-lost", text, values)
    return None


def _strange_id(reset: Reset, half: Half | None) -> str | None:
    """Why an IP ID is of another kind than the peer's packets have; None: it is not.

    A host's answer for want of a socket may take its ID from another counter than sockets have.
    """
    ip_id = reset.rst.ip_id
    if ip_id is None or ip_id <= 1:
        return None
    known = [seen for seen in facts.numbered(half) if "S" not in seen.flags]
    if len(known) < KIND_OF_IDS:
        return None
    ids = [seen.ip_id or 0 for seen in known]
    if not any(ids):
        return f"IP ID {ip_id}, where the peer's last {len(ids)} packets have 0"
    seconds = (reset.time_ns - known[0].time_ns) / 1e9
    counting = facts.counts_ids(half)
    far = (ip_id - ids[0]) & 0xFFFF > BUSY_COUNTER * (1 + seconds)
    one_counter = is_live(reset.rst.flags, reset.rst.seq) or stack_name(reset) == "Windows"
    if not counting or not far or not one_counter:
        return None
    return (
        f"IP ID {ip_id}, {age_text(round(seconds * 1e9))} after {ids[0]}, where the peer's last "
        f"{len(ids)} packets count on from {ids[-1]}"
    )


# ---- copied ----


@once
def copied(reset: Reset) -> Observation | None:
    """What the RST has of ours: the IP ID of one of our packets (or the next), our window."""
    found, window = _id_of_ours(reset), _window_of_ours(reset)
    if found is not None and found.name is not None:
        if window is None or window.name != "window-ours":
            return found
        text = f"{found.text}; {window.text}"
        values = {**found.values, **window.values}
        return Observation("copied", "ip-id-and-window-ours", text, values)
    return window if window is not None else found


def _id_of_ours(reset: Reset) -> Observation | None:
    ip_id, ours, half = reset.rst.ip_id, reset.baseline.ours, flow_half(reset)
    if ip_id is None or ours is None or not ours.recent:
        return None
    if ip_id <= 1:
        return _silent("copied", f"IP ID {ip_id} is what stacks without a counter send")
    last = facts.last_id(half)
    if continues(ip_id, half):
        return _silent("copied", f"IP ID {ip_id} goes on from the peer's own ({last})")
    ordinary = [*(half.recent if half else ()), *reset.later]
    if any("R" not in seen.flags and facts.repeats_ours(seen.ip_id, reset) for seen in ordinary):
        return _silent("copied", "the peer's ordinary packets repeat our IP IDs too")
    match = facts.our_packet_with(ip_id, ours)
    if match is None:
        return _silent("copied", f"IP ID {ip_id} is none of our last {len(ours.recent)} packets'")
    age = age_text(max(0, reset.time_ns - match.time_ns))
    repeats = "repeats" if ip_id == match.ip_id else "follows"
    text = f"IP ID {ip_id} {repeats} our own packet sent {age} earlier"
    if last is not None:
        text += f"; the peer's last was {last}"
    values = {"ip_id": ip_id, "our_ip_id": match.ip_id, "peer_ip_id": last}
    return Observation("copied", "ip-id-ours", text, values)


def _window_of_ours(reset: Reset) -> Observation | None:
    window, ours, theirs = reset.rst.window, reset.baseline.ours, reset.baseline.theirs
    if not window or ours is None or not ours.recent:
        return None
    # The window of a SYN is not scaled, every other one is (RFC 7323 §2.2): not to be compared.
    if window not in {seen.window for seen in ours.recent if "S" not in seen.flags}:
        text = f"window {window} is none of ours (last: {ours.recent[0].window})"
        return _silent("copied", text)
    scaled = [
        seen.window
        for seen in (theirs.recent if theirs else ())
        if "S" not in seen.flags and seen.window is not None
    ]
    if theirs is None or not scaled:
        text = f"window {window} is our own window; the peer's is unknown"
        return Observation("copied", "window-ours-near", text, {"window": window})
    if window in {*scaled, theirs.syn_window}:
        return _silent("copied", f"window {window} is our own, but the peer's as well")
    text = f"window {window} is our own window; the peer's was {scaled[0]}"
    values = {"window": window, "peer_window": scaled[0]}
    if any(abs(window - other) <= max(8, other // 8) for other in scaled):
        return Observation("copied", "window-ours-near", f"{text}, which is near", values)
    return Observation("copied", "window-ours", text, values)


# ---- history ----


@once
def history_(reset: Reset) -> Observation | None:
    """What the connection was doing when the RST came."""
    half, ours, rst = flow_half(reset), reset.baseline.ours, reset.rst
    if half is None or not half.packets:
        trigger = reset.trigger.flags if reset.trigger is not None else ""
        asked = ours is not None and ours.syn_ns is not None
        if reset.cause.name == "connection-refused" or (
            asked and "S" in trigger and "A" in rst.flags
        ):
            return Observation("history", "refused", "the answer to our SYN, and the first packet")
        return _silent("history", "nothing of this connection was seen before")
    fin = _fin_ns(half)
    if fin is not None:
        text = f"the peer had closed: its FIN came {age_text(max(0, reset.time_ns - fin))} before"
        return Observation(
            "history", "peer-closed", text, {"closed_ms": (reset.time_ns - fin) / 1e6}
        )
    if reset.we_reset_ns is not None:
        age = age_text(max(0, reset.time_ns - reset.we_reset_ns))
        text = f"we had reset the connection ourselves {age} before"
        return Observation("history", "we-reset", text)
    new = why.reused(reset)
    if new is not None and apart(rst.ttl, new.ttl)[0]:
        new = None  # its sender is elsewhere
    if new is not None and is_bare(rst) and facts.answers_ours(rst, ours) is not False:
        text = f"a new SYN on these ports came {age_text(reset.time_ns - new.time_ns)} before"
        return Observation("history", "ports-reused", text)
    earlier = _reset_before(reset)
    if earlier is not None:
        age = age_text(abs(reset.time_ns - earlier.time_ns))
        text = f"the peer had reset it {age} before"
        if earlier.time_ns > reset.time_ns:
            text = f"the peer's own reset came {age} later: this answer may have overtaken it"
            return Observation("history", "peer-reset-later", text)
        return Observation("history", "peer-reset", text)
    return _open(reset, half, ours)


def _open(reset: Reset, half: Half, ours: Half | None) -> Observation:
    """The connection was not closed by the peer."""
    if facts.is_lone_syn(half):
        if ours is not None and reset.rst.flags == "R" and facts.answers_ours(reset.rst, ours):
            kind = "a SYN that a program wrote itself" if facts.is_raw_syn(half) else "a lone SYN"
            text = f"answers our SYN-ACK to {kind}: its sender does not know of it"
            return Observation("history", "denied", text)
        return Observation("history", "handshake", "after a SYN, before the handshake was over")
    since_last = max(0, reset.time_ns - half.last_ns)
    our_fin = None if ours is None else _fin_ns(ours)
    if our_fin is not None:
        age = age_text(max(0, reset.time_ns - our_fin))
        return Observation("history", "we-closed", f"we had closed: our FIN left {age} before")
    if half.packets <= 2 and half.syn_ns is not None and not _has_data(half):
        if half.syns < half.packets and half.confirmed:
            text = "right after the peer had ended the handshake, before any data of it"
            return Observation("history", "shaken", text)
        if ours is None or (ours.packets <= 2 and not _has_data(ours)):
            return Observation("history", "handshake", "right after the handshake, before any data")
    values = {"silent_ms": since_last / 1e6, "idle_s": None}
    if (idle := facts.idle_ns(reset)) is not None:
        values["idle_s"] = idle / 1e9
    idle = facts.not_outlived_ns(reset)
    if idle is not None:
        text = f"the connection had been idle for {age_text(idle)}"
        return Observation("history", "idle", text, values)
    if _unanswered(ours, half, since_last):
        text = (
            f"the peer had been silent for {age_text(since_last)}, and answered none of our packets"
        )
        return Observation("history", "unanswered", text, values)
    if since_last <= facts.ALIVE_NS:
        text = f"the peer was alive {age_text(since_last)} before, and had not closed"
        return Observation("history", "alive", text, values)
    text = f"the peer had been silent for {age_text(since_last)}, and had not closed"
    return Observation("history", "quiet", text, values)


def _fin_ns(half: Half) -> int | None:
    """When an end's FIN passed."""
    if half.fin_ns is not None:
        return half.fin_ns
    return min([seen.time_ns for seen in half.recent if "F" in seen.flags], default=None)


def _has_data(half: Half) -> bool:
    """Whether there is data in an end's last packets."""
    return any(seen.payload_len for seen in half.recent)


def _unanswered(ours: Half | None, half: Half, since_last: int) -> bool:
    """Whether we had sent a packet again and heard nothing."""
    if ours is None or since_last < facts.ALIVE_NS // 5:
        return False
    after = [seen for seen in ours.recent if seen.time_ns > half.last_ns and length_of(seen)]
    return len(after) > 1 and any(facts.was_sent_before(seen, ours) for seen in after)


def _reset_before(reset: Reset) -> Reset | None:
    """An earlier RST of this connection that is more likely the peer's own than not."""
    overtaken = reset.time_ns + (OVERTAKEN_NS if is_bare(reset.rst) else 0)
    for other in reset.siblings:
        if other.time_ns >= overtaken or _alike(other, reset):
            continue
        names = tuple(
            found.name
            for found in (distance_(other), make(other), copied(other), aftermath(other))
            if found is not None and found.name is not None
        )
        if peer_share(TABLE.weigh(names)) > 0.5:
            return other
    return None


# ---- timing ----


@once
def timing(reset: Reset) -> Observation | None:
    """The RST answers a packet of ours sooner than the peer could have."""
    rst, ours, known = reset.rst, reset.baseline.ours, facts.least_rtt_ns(reset)
    if ours is None or not ours.recent or known is None:
        return _silent("timing", "no round trip or no packet of ours to compare with")
    rtt, samples = known
    if rtt < facts.SHORTEST_RTT_NS:
        return _silent("timing", f"the round trip ({age_text(rtt)}) is too short to tell")
    answered = [seen for seen in ours.recent if facts.answers(rst, seen)]
    if not answered:
        return _silent("timing", "it answers none of our last packets")
    # An older packet that we no longer know may have been the one: then this proves nothing.
    oldest = answered[-1]
    forgotten = ours.packets > len(ours.recent)
    if forgotten and (oldest is ours.recent[-1] or facts.was_sent_before(oldest, ours)):
        return _silent("timing", "it may answer an older packet of ours")
    delay = reset.time_ns - oldest.time_ns
    if not 0 <= delay < rtt // 2:
        text = f"{age_text(max(0, delay))} after what it answers, in time for the peer"
        return _silent("timing", text)
    # There and back again: what answers after a share of the round trip is no farther than that
    # share of the way.
    way = delay / rtt
    values = {"delay_ms": delay / 1e6, "rtt_ms": rtt / 1e6, "way": way, "samples": samples}
    text = (
        f"arrived {age_text(delay)} after the packet it answers; the connection's least round trip "
        f"is {age_text(rtt)}: made within the first {max(1, round(way * 100))} % of the way"
    )
    if samples >= facts.SAMPLES:
        return Observation("timing", "too-soon", text, values)
    text += f" (of {plural(samples, 'round trip')} alone)"
    return Observation("timing", "too-soon-perhaps", text, values)


# ---- numbers ----


@once
def numbers(reset: Reset) -> Observation | None:
    """The RST's sequence and ack numbers against what both ends sent."""
    for look in (
        _moves_on,
        _sweep,
        _tripled,
        _beyond_reach,
        _behind_data,
        _strange_ack,
        _next_number,
    ):
        found = look(reset)
        if found is not None:
            return found
    return None


def _beyond_reach(reset: Reset) -> Observation | None:
    """The RST acknowledges a packet of ours that died before it could reach the peer."""
    rst, ours, known = reset.rst, reset.baseline.ours, facts.reference(reset)
    if ours is None or known is None or known.steady in facts.NOT_THE_FLOWS or "A" not in rst.flags:
        return None
    answered = [seen for seen in ours.recent if facts.answers(rst, seen)]
    routers = distances(reset)[1]
    if not answered or routers is None:
        return None
    ttl = max(seen.ttl for seen in answered)
    short = routers + 1 - ttl  # the last router must still have one to take away
    if short <= REACH_SLACK or _has_reached(reset, ttl):
        return None
    text = (
        f"acknowledges our packet sent with {ttl_word(reset)} {ttl}, which cannot pass the "
        f"{plural(routers, 'router')} to the peer"
    )
    return Observation("numbers", "beyond-reach", text, {"ttl": ttl, "peer_hops": routers})


def _has_reached(reset: Reset, ttl: int) -> bool:
    """Whether the peer has acknowledged data of ours that was sent with no higher TTL."""
    ours, half = reset.baseline.ours, flow_half(reset)
    if ours is None or half is None or half.acked is None:
        return False
    return any(
        seen.ttl <= ttl
        and seen.payload_len
        and distance(seen.seq + seen.payload_len, half.acked) >= 0
        for seen in ours.recent
    )


def _behind_data(reset: Reset) -> Observation | None:
    """A live peer resets with its next sequence number: not with one it has used already."""
    rst, ours, half = reset.rst, reset.baseline.ours, flow_half(reset)
    if half is None or half.end is None or is_bare(rst) or not rst.seq:
        return None
    behind = distance(rst.seq, half.end)
    if not 0 < behind <= facts.NEAR_SEQUENCE:
        return None
    if ours is None or not ours.recent or rst.seq in {seen.ack for seen in ours.recent}:
        return None  # the number that a packet of ours asked for
    if ours.packets > len(ours.recent) and distance(rst.seq, ours.recent[-1].ack) > 0:
        return None  # it may answer an older packet of ours
    text = (
        f"its sequence number lies {plural(behind, 'byte')} behind what the peer had sent already"
    )
    return Observation("numbers", "behind-data", text, {"behind": behind, "seq": rst.seq})


def _strange_ack(reset: Reset) -> Observation | None:
    """A live peer acknowledges neither less than it has already, nor what we never sent.

    RFC 9293 §3.4: RCV.NXT only grows, up to our SND.NXT. Without a socket some stacks acknowledge
    the packet that they answer, which may be an older one.
    """
    rst, ours, half = reset.rst, reset.baseline.ours, flow_half(reset)
    if half is None or ours is None or half.acked is None or ours.end is None:
        return None
    if not is_live(rst.flags, rst.seq) or is_bare(rst) or facts.lacks_ours(reset):
        return None
    behind, beyond = distance(rst.ack, half.acked), distance(ours.end, rst.ack)
    ends = {(seen.seq + length_of(seen)) & 0xFFFFFFFF for seen in ours.recent}
    if 0 < behind <= facts.NEAR_SEQUENCE and rst.ack not in ends:
        if ours.packets > len(ours.recent) and distance(rst.ack, ours.recent[-1].seq) > 0:
            return None  # it may answer an older packet of ours
        what = f"{plural(behind, 'byte')} less than the peer had acknowledged already"
    elif 0 < beyond <= facts.NEAR_SEQUENCE:
        what = f"{plural(beyond, 'byte')} that we never sent"
        if reset.file is not None:
            text = f"it acknowledges {plural(beyond, 'byte')} that the capture does not have"
            return Observation("numbers", "strange-ack-perhaps", text, {"ack": rst.ack})
    else:
        return None
    return Observation("numbers", "strange-ack", f"it acknowledges {what}", {"ack": rst.ack})


def _next_number(reset: Reset) -> Observation | None:
    """RST+ACK with the very numbers that the peer's socket has, though from elsewhere.

    Without a socket a host has no number of its own: it takes that of the packet it answers, and
    needs no ACK for it (RFC 9293 §3.10.7.1). From where the peer is, this adds nothing to its
    shape; nor does it where it refuses our SYN behind a SYN proxy.
    """
    rst, half, ours = reset.rst, flow_half(reset), reset.baseline.ours
    if half is None or half.end is None or ours is None or not is_live(rst.flags, rst.seq):
        return None
    if _is_refusal(reset, half):
        return None
    known = facts.reference(reset)
    if known is None or rst.ttl in (known.ttl, *known.others) or rst.seq != half.end:
        return None
    acked = [distance(seen.ack, rst.ack) for seen in half.recent if "A" in seen.flags]
    sent = {(seen.seq + length_of(seen)) & 0xFFFFFFFF for seen in ours.recent}
    if rst.ack not in sent or not acked or min(acked) < 0:
        return None
    text = "RST+ACK with the peer's own next sequence number, and with what it has of ours"
    return Observation("numbers", "next-number", text, {"seq": rst.seq, "ack": rst.ack})


def _moves_on(reset: Reset) -> Observation | None:
    """Several RSTs beyond all that we acknowledged: guesses at our window, no next number."""
    if not reset.siblings or facts.lacks_ours(reset):
        return None
    together = sorted((*reset.siblings, reset), key=lambda other: other.time_ns)
    acks = reset.our_acks or facts.our_acks(reset)
    own = [
        other
        for other in together
        if facts.answers_nothing(other.rst.seq, acks)
        and not facts.may_be_asked(other.rst.seq, reset)
        and not _is_copy(other, reset)
    ]
    if reset not in own:
        own = sorted([*own, reset], key=lambda other: other.time_ns) if _pair(reset, own) else own
    numbers_ = list(dict.fromkeys(other.rst.seq for other in own))
    if len(numbers_) < 2 or reset not in own or _sent_since(reset, own[0].time_ns):
        return None
    took = age_text(own[-1].time_ns - own[0].time_ns)
    steps = [distance(older, newer) for older, newer in zip(numbers_, numbers_[1:])]
    moves = ", ".join(f"{step:+}" for step in steps[:4])
    text = (
        f"{len(own)} RSTs within {took} whose sequence numbers answer nothing and move ({moves}), "
        "though the peer sent nothing in between"
    )
    return Observation("numbers", "moves-on", text, {"resets": len(own), "steps": steps[:8]})


def _sweep(reset: Reset) -> Observation | None:
    """One of several RSTs whose numbers are far from all of this connection's: blind guesses."""
    half = flow_half(reset)
    acks = reset.our_acks or facts.our_acks(reset)
    if half is not None and half.end is not None:
        acks = acks | {half.end}  # of a capture that lacks our acknowledgments
    if not reset.siblings or not facts.is_far(reset.rst.seq, acks) or facts.lacks_ours(reset):
        return None
    far = [other for other in (*reset.siblings, reset) if facts.is_far(other.rst.seq, acks)]
    numbers_ = {other.rst.seq for other in far}
    if len(numbers_) < SWEEP:
        return None
    text = f"one of {len(far)} RSTs whose sequence numbers are far from all of this connection's"
    return Observation("numbers", "sweep", text, {"resets": len(far)})


def _tripled(reset: Reset) -> Observation | None:
    """The same RST several times, where the peer's other packets came once."""
    if not reset.siblings:
        return None
    copies = [
        other
        for other in reset.siblings
        if _is_copy(other, reset) and abs(other.time_ns - reset.time_ns) <= TOGETHER_NS
    ]
    half = flow_half(reset)
    if len(copies) < 2 or half is None or not reset.rst.ip_id:
        return None
    known = [(seen.ip_id, seen.seq, seen.flags) for seen in half.recent]
    if len(known) != len(set(known)):
        return None  # packets are doubled on their way, or where they were captured
    text = f"the very same RST came {len(copies) + 1} times: hosts send one"
    return Observation("numbers", "tripled", text, {"copies": len(copies) + 1})


def _pair(reset: Reset, beyond: list[Reset]) -> bool:
    """Whether this RST's twin is one of those beyond: one maker sends a pair (seq N and N + k)."""
    return any(_is_like(other, reset) and not is_bare(reset.rst) for other in beyond)


def _is_copy(one: Reset, other: Reset) -> bool:
    """Whether two may be one packet captured or delivered twice."""
    a, b = one.rst, other.rst
    return one is not other and (a.ip_id, a.seq, a.ack, a.flags, a.window) == (
        b.ip_id,
        b.seq,
        b.ack,
        b.flags,
        b.window,
    )


def _sent_since(reset: Reset, time_ns: int) -> bool:
    """Whether the peer sent something else than RSTs after a time."""
    half = flow_half(reset)
    if half is not None and half.last_ns > time_ns:
        return True
    return any("R" not in seen.flags and _is_peers(reset, seen) for seen in reset.later)


# ---- link ----


def link(reset: Reset) -> Observation | None:
    """The frame's source MAC against the flow's, and against the next hop's."""
    mac = reset.frame.mac if reset.frame else None
    if mac is None or mac == "00:00:00:00:00:00":
        return _silent("link", "no link-layer address to compare")
    hop, half = reset.next_hop, flow_half(reset)
    known = half.mac if half is not None and not facts.is_lone_syn(half) else None
    expected = hop.mac if hop else None
    values = {"mac": mac, "flow_mac": known, "next_hop_mac": expected}
    direct = hop is not None and not hop.is_gateway and hop.ip == reset.rst.src.ip
    own = direct and expected == mac and not hops(reset.rst.ttl) and known in (None, mac)
    reference = facts.reference(reset)
    if own and (reference is None or not hops(reference.ttl)):
        text = f"the peer is on our own link, and {mac} is its own MAC"
        return Observation("link", "mac-own", text, values)
    moved = reference is not None and apart(reset.rst.ttl, reference.ttl)[0] != 0
    if known is not None and half is not None and reset.frame is not None:
        if half.ifindex and reset.frame.ifindex and half.ifindex != reset.frame.ifindex:
            text = f"came in by another interface than the peer's packets, from {mac}"
            return _silent("link", text)
        if mac == known:
            text = f"same source MAC as the peer's packets ({mac}): all that it hands on has it"
            return _silent("link", text)
        text = f"came from MAC {mac}; the peer's packets come from {known}"
        if not moved and mac == facts.handshake_mac(reset):
            return _silent("link", f"same source MAC as the peer's handshake ({mac})")
        if moved:
            return _silent(
                "link", f"{text}: said by its distance already, one change of path does both"
            )
        on_link = reference is not None and not hops(reference.ttl) and not hops(reset.rst.ttl)
        if on_link and not (hop is not None and hop.is_gateway):
            text = (
                f"came from MAC {mac} on our own link, where the peer's packets come from {known}"
            )
            return Observation("link", "mac-another", text, values)
        if mac == expected:
            text = f"came from our next hop's MAC {mac}; the peer's packets came from {known}"
            return Observation("link", "mac-other-gateway", text, values)
        return Observation("link", "mac-stranger", text, values)
    if direct and expected not in (None, mac) and not hops(reset.rst.ttl):
        text = f"came from MAC {mac} on our own link, where the peer's MAC is {expected}"
        return Observation("link", "mac-another", text, values)
    if expected is None:
        return _silent("link", "neither the flow's nor the next hop's MAC is known")
    if mac == expected:
        return _silent("link", f"came from our next hop's MAC {mac} (a bridge could use it too)")
    if moved:
        return _silent("link", f"came from {mac}, not our next hop: said by its distance already")
    text = f"came from {mac}; our next hop to the peer is {expected}"
    return Observation("link", "mac-unexpected", text, values)


# ---- aftermath ----


@once
def aftermath(reset: Reset) -> Observation | None:
    """What came in the peer's name afterwards (known only later)."""
    again = _reset_again(reset)
    if again is not None:
        return again
    perhaps = None
    for seen in reset.later:
        found = _went_on(reset, seen)
        if found is None:
            continue
        if found.name in ("went-on", "accepted"):
            return found
        perhaps = perhaps or found
    if perhaps is not None:
        return perhaps
    more = [seen for seen in reset.later if "R" not in seen.flags]
    text = "what came from the peer after it" if more else "nothing came from the peer after it"
    return _socket_after(reset) or _silent("aftermath", f"{text} tells nothing" if more else text)


def _is_peers(reset: Reset, seen: Seen) -> bool:
    """Whether a later packet may be the peer's: its checksum, TTL, MAC and timestamps fit.

    Anybody who knows the addresses can send a packet in its name after a genuine RST.
    """
    if seen.checksum_ok is False:
        return False
    known, half = facts.reference(reset), flow_half(reset)
    if known is not None and known.steady not in facts.NOT_THE_FLOWS:
        ttls = {known.ttl, *known.others}
        if all(apart(seen.ttl, ttl) != (0, True) for ttl in ttls):
            return False
    if half is None:
        return True
    usual = facts.handshake_mac(reset) or half.mac
    if seen.mac is not None and usual is not None and seen.mac != usual:
        return False
    if (
        half.timestamps
        and seen.tsval is None
        and seen.options is not None
        and "R" not in seen.flags
    ):
        return "TS" in seen.options
    return True


def _went_on(reset: Reset, seen: Seen) -> Observation | None:
    rst = reset.rst
    age = age_text(max(0, seen.time_ns - reset.time_ns))
    values = {"after_ms": (seen.time_ns - reset.time_ns) / 1e6, "ttl": seen.ttl, "seq": seen.seq}
    if not _is_peers(reset, seen) or "R" in seen.flags:
        return None
    if (seen.ip_id, seen.ttl) == (rst.ip_id, rst.ttl) and facts.repeats_ours(seen.ip_id, reset):
        return None  # both repeat our IP ID, from as far away: one maker for both
    if "S" in seen.flags:
        if _accepts_what_was_refused(reset, seen):
            text = f"{age} later the peer answered the same SYN with a SYN-ACK"
            once_sent = reset.baseline.ours is None or reset.baseline.ours.syns <= 1
            return Observation("aftermath", "accepted" if once_sent else "went-on", text, values)
        if "A" in seen.flags and (seen.seq + 1) & 0xFFFFFFFF in reset.our_acks:
            text = f"{age} later the peer repeated its SYN-ACK: it has not seen our ACK"
            return Observation("aftermath", "asked-again", text, values)
        return None
    length = length_of(seen)
    beyond = distance(rst.seq, (seen.seq + length) & 0xFFFFFFFF)
    if not length or not rst.seq or not 0 < beyond <= facts.NEAR_SEQUENCE:
        return _lives_on(reset, seen, values)
    what = plural(seen.payload_len, "byte") if seen.payload_len else "a FIN"
    text = f"{age} later the peer went on, with {what} beyond the RST's sequence number"
    if not _may_answer_a_stray(reset, seen):
        return Observation("aftermath", "went-on", text, values)
    text += " (sent before it, or the RST answers one stray packet, unless it is forged)"
    return Observation("aftermath", "went-on-perhaps", text, values)


def _lives_on(reset: Reset, seen: Seen, values: dict[str, Any]) -> Observation | None:
    """After a RST, above all one with a live socket's numbers: what only a socket sends that is
    still there.

    It acknowledges more of ours than the RST did, or repeats data when a retransmission is due. A
    late copy of an older packet is neither: that has its IP ID, or its timestamp.
    """
    rst, half, ours = reset.rst, flow_half(reset), reset.baseline.ours
    if half is None or ours is None or not rst.seq:
        return None
    live = is_live(rst.flags, rst.seq) and not is_bare(rst)
    if "A" not in seen.flags or not -facts.NEAR_SEQUENCE < distance(rst.seq, seen.seq) <= 0:
        return None
    age = age_text(max(0, seen.time_ns - reset.time_ns))
    sent = ours.end is not None and distance(seen.ack, ours.end) >= 0
    if live and sent and 0 < distance(rst.ack, seen.ack) <= facts.NEAR_SEQUENCE:
        what = plural(distance(rst.ack, seen.ack), "byte")
        text = f"{age} later the peer acknowledged {what} of ours more than the RST does"
        stray = not (is_linux(reset) or is_stamped(rst)) and any(
            one.ack == rst.seq and rst.ack in (one.seq, (one.seq + length_of(one)) & 0xFFFFFFFF)
            for one in ours.recent
        )
        # Other stacks than Linux answer so what they have no socket for: see _may_answer_a_stray().
        return Observation("aftermath", "went-on-perhaps" if stray else "went-on", text, values)
    repeats = [one for one in half.recent if one.seq == seen.seq and length_of(one)]
    probe = half.end is not None and seen.seq == (half.end - 1) & 0xFFFFFFFF
    if seen.time_ns - reset.time_ns < REPEAT_NS or not (probe or (length_of(seen) and repeats)):
        return None
    text = f"{age} later the peer repeated data that it had sent before the RST"
    if probe:
        text = f"{age} later the peer asked whether we are still there (keepalive)"
    stamps = _stamps(rst)
    newest = stamps[0] if stamps is not None else half.clock[-1][0] if half.clock else None
    if seen.tsval is not None and newest is not None:
        is_new = distance(newest, seen.tsval) > 0
    else:
        ids = {one.ip_id for one in half.recent}
        behind = (rst.ip_id or 0) - (seen.ip_id or 0) & 0xFFFF
        overtaken = bool(rst.ip_id) and behind <= facts.MISSED_IDS  # by the RST
        is_new = bool(seen.ip_id) and seen.ip_id not in ids and not overtaken
        if not seen.ip_id:
            return Observation("aftermath", "went-on-perhaps", text, values)
    name = "went-on" if live else "went-on-perhaps"  # what has no socket may be one stray packet
    return Observation("aftermath", name, text, values) if is_new else None


def _accepts_what_was_refused(reset: Reset, seen: Seen) -> bool:
    """Whether a SYN-ACK answers the very SYN that the RST refused.

    A RST with another ack number is of another connection: a host in SYN-RECEIVED resets a wrong
    ACK and stays as it is (RFC 9293 §3.10.7.4).
    """
    half = flow_half(reset)
    before = half is not None and half.syn_ns is not None
    rst = reset.rst
    return "A" in seen.flags and not before and "A" in rst.flags and rst.ack == seen.ack


def _may_answer_a_stray(reset: Reset, later: Seen) -> bool:
    """Whether a RST may be honest though this packet of the peer came after it.

    A host that has no socket for one of our packets answers with that packet's ack number. Its
    socket may have gone just before (and the RST overtaken what it had sent), or may be there, but
    under another address (a packet that connection tracking took for invalid escapes NAT). Neither
    can be where the peer's socket has acknowledged the very packet that the RST would answer, or
    where no packet of ours asked for that number.
    """
    rst, ours = reset.rst, reset.baseline.ours
    if is_stamped(rst):
        return False  # answers carry none (tcp_v4_send_reset)
    if facts.lacks_ours(reset):
        return True
    recent = ours.recent if ours is not None and reset.baseline.scope is Scope.FLOW else ()
    acking = [seen for seen in recent if "A" in seen.flags]
    asked = [seen for seen in acking if seen.ack == rst.seq]
    if ours is None or not asked:
        return facts.may_be_asked(rst.seq, reset) or not facts.answers_nothing(
            rst.seq, {seen.ack for seen in acking}
        )
    newest = asked[0]
    repeated = any(seen.seq == newest.seq and length_of(seen) for seen in recent if seen != newest)
    if not length_of(newest) or repeated or facts.was_sent_before(newest, ours):
        return True
    return distance(newest.seq + length_of(newest), later.ack) < 0


def _reset_again(reset: Reset) -> Observation | None:
    """A live socket's RST that came again at a retransmission's time, with its counters gone on."""
    rst = reset.rst
    if not reset.siblings:
        return None
    if is_bare(rst):
        return _unprovoked(reset)
    if not is_live(rst.flags, rst.seq):
        return None
    others = [
        other
        for other in reset.siblings
        if is_live(other.rst.flags, other.rst.seq) and not is_bare(other.rst)
    ]
    for other in others:
        gap = abs(other.time_ns - reset.time_ns)
        moved = other.rst.ip_id is None or other.rst.ip_id != rst.ip_id
        stamped = is_stamped(rst) and other.rst.options != rst.options
        answered = not is_linux(reset) and _answer_ours(reset, other)
        if other.rst.seq == rst.seq and gap >= REPEAT_NS and (moved or stamped) and not answered:
            text = f"the same live RST came again, {age_text(gap)} apart: only data is sent again"
            return Observation("aftermath", "reset-again", text, {"apart_ms": gap / 1e6})
    half = flow_half(reset)
    if rst.ip_id is None or half is None or not others or not facts.looks_like_linux(half, 1):
        return None
    together = sorted((*others, reset), key=lambda other: other.time_ns)
    ids = [other.rst.ip_id or 0 for other in together]
    counts_on = [
        1 <= (newer - older) & 0xFFFF <= facts.MISSED_IDS for older, newer in zip(ids, ids[1:])
    ]
    if all(counts_on) or continues(rst.ip_id, half) or any(_is_copy(o, reset) for o in others):
        return None
    text = f"{len(ids)} RST+ACK with IP IDs of no one counter: a Linux host's socket resets once"
    return Observation("aftermath", "live-twice", text, {"ip_ids": ids[:8]})


def _answer_ours(one: Reset, other: Reset) -> bool:
    """Whether of two RSTs each may answer a packet of ours: many stacks do, without a socket.

    Of one that we sent in between, or of those that were on their way when the first RST came: the
    answers are as far apart as they were. What was not captured is not known.
    """
    first, second = sorted((one, other), key=lambda reset: reset.time_ns)
    ours = second.baseline.ours
    if ours is None or not ours.packets or facts.lacks_ours(second):
        return True
    known = facts.least_rtt_ns(second)
    way = facts.LONG_WAY_NS if known is None else 2 * known[0] + REPEAT_NS
    if ours.last_ns > first.time_ns or second.time_ns - ours.last_ns <= way:
        return True
    alike = [
        reset
        for reset in (*one.siblings, one)
        if (reset.rst.flags, reset.rst.seq) == (other.rst.flags, other.rst.seq)
    ]
    waiting = facts.unanswered_packets(second)  # perhaps in a queue
    return waiting is None or len(alike) <= waiting


def _unprovoked(reset: Reset) -> Observation | None:
    """The answer of a host without a socket, again and again, with nothing of ours in between."""
    ours = reset.baseline.ours
    if ours is None or not ours.recent:
        return None
    for other in reset.siblings:
        first, second = sorted((other, reset), key=lambda one: one.time_ns)
        gap = second.time_ns - first.time_ns
        same = is_bare(other.rst) and other.rst.seq == reset.rst.seq
        if same and gap >= REPEAT_NS and not _answer_ours(first, second):
            text = (
                f"the same answer came again, {age_text(gap)} apart, with no packet of ours in "
                "between: only data is sent again"
            )
            return Observation("aftermath", "reset-again", text, {"apart_ms": gap / 1e6})
    return None


def _socket_after(reset: Reset) -> Observation | None:
    """The answer of a host without that socket, and then that very socket's own RST."""
    if not is_bare(reset.rst) or reset.rst.flags != "R":
        return None
    for other in reset.siblings:
        if other.time_ns <= reset.time_ns + OVERTAKEN_NS:
            continue
        if is_bare(other.rst) or _alike(other, reset):
            continue
        if make(other).name in ("live", "live-by-clock") and distance_(other).name == "ttl-same":
            age = age_text(other.time_ns - reset.time_ns)
            text = (
                f"{age} later the peer's socket, which this RST says is not there, reset it itself"
            )
            return Observation("aftermath", "went-on", text)
    return None


# ---- content ----


@once
def content(reset: Reset) -> Observation | None:
    """What a RST should not have: data, reserved bits, a wrong checksum."""
    rst = reset.rst
    if rst.payload_len:
        values = {"payload_len": rst.payload_len}
        what = f"carries {plural(rst.payload_len, 'byte')} of payload"
        words = _reason(reset)
        if words is not None:
            text = f'{what}, a reason in words: "{words}"'
            return Observation("content", "reason-text", text, values)
        if reset.payload is None:
            text = f"{what}, of which nothing was seen: a reason in words, or application data"
            return Observation("content", "payload-unseen", text, values)
        text = f"{what}, which no common stack sends in a RST"
        return Observation("content", "payload", text, values)
    if rst.reserved & 0b1110:  # the lowest one is AccECN's (RFC 9768)
        text = f"reserved TCP header bits are set ({rst.reserved:04b})"
        return Observation("content", "reserved-bits", text, {"reserved": rst.reserved})
    wrong = reset.cause.name == "bad-checksum" or rst.tcp_checksum_ok is False
    if not wrong:
        known = "right" if rst.tcp_checksum_ok else "not known to be wrong"
        return _silent("content", f"no payload, reserved bits 0, its checksum is {known}")
    half = flow_half(reset)
    if half is not None and half.checksums_wrong:
        return _silent("content", "its checksum is wrong, as those of the peer's other packets")
    text = "its TCP checksum is wrong: hand-made, or damaged on its way"
    return Observation("content", "bad-checksum", text, {"cause": reset.cause.name})


def _reason(reset: Reset) -> str | None:
    """The payload, where it is a reason in words."""
    if is_linux(reset) and make(reset).name in ("live", "live-by-clock"):
        return None  # a data packet that was turned into a RST
    return reasons.sentence(reset)


# ---- shared, other end ----


@once
def shared(reset: Reset) -> Observation | None:
    """One counter in the RSTs of different peers: one box makes them all."""
    ip_id, half = reset.rst.ip_id, reset.baseline.theirs
    if ip_id is None or not reset.others:
        return None
    if ip_id <= 1:
        return _silent("shared", f"IP ID {ip_id} is what stacks without a counter send")
    last = facts.last_id(half)
    if last and 1 <= (ip_id - last) & 0xFFFF <= BUSY_COUNTER:
        return _silent("shared", f"IP ID {ip_id} may go on from the peer's own ({last})")
    for other in reset.others:
        gap = abs(((ip_id - other.ip_id + 0x8000) & 0xFFFF) - 0x8000)
        if gap <= SAME_COUNTER and hops(other.ttl) == hops(reset.rst.ttl):
            age = age_text(abs(reset.time_ns - other.time_ns))
            text = (
                f"IP ID {ip_id} is from one counter with a RST of {other.ip} ({other.ip_id}, {age} "
                "apart, from the same distance): one box makes both"
            )
            values = {"ip_id": ip_id, "other": other.ip, "other_id": other.ip_id}
            return Observation("shared", "ip-id-shared", text, values)
    return _silent("shared", "no RST of another address has an IP ID near")


def other_end_log(reset: Reset) -> Observation | None:
    """The other end's own log, which has no such RST."""
    other = reset.other_end
    if other is None or other.fate is not Fate.NEVER_SENT or not other.logged:
        return None
    there = f"{other.point} ({other.file.rpartition('/')[2]})"
    return Observation("other-end", "other-end-log", f"never left {there}: {other.why}")


# ---- all together ----

OBSERVERS: tuple[Observer, ...] = (
    distance_,
    asked,
    make,
    copied,
    history_,
    timing,
    numbers,
    link,
    aftermath,
    content,
    shared,
    other_end_log,
)
"""Every observer, in the order in which a person would look."""


def _alike(one: Reset, other: Reset) -> bool:
    """Whether two RSTs of a connection are made alike: by one author, as far as can be told."""
    return facts.build(one.rst) == facts.build(other.rst)


def _is_like(one: Reset, other: Reset) -> bool:
    """The same, and from as far away."""
    return _alike(one, other) and abs(one.rst.ttl - other.rst.ttl) <= 1


def _strength(name: str) -> float:
    """How much an observation tells the peer from the others, by its row."""
    likelihoods = ROWS[name].likelihoods
    peer, rest = max(likelihoods[:4]), max(likelihoods[4:])
    return max(peer / rest, rest / peer)


def observe(reset: Reset) -> list[Observation]:
    """All that is seen of a RST, and of those of its connection that were made like it."""
    found = [seen for look in OBSERVERS if (seen := look(reset)) is not None]
    alike = [other for other in reset.siblings if _is_like(other, reset)]
    if not alike:
        return found
    first = min((*alike, reset), key=lambda other: other.time_ns)
    by_group = {seen.group: seen for seen in found}
    for other in alike:
        for look in (copied, history_, timing, numbers, aftermath, content, shared):
            theirs = look(other)
            if theirs is None or theirs.name is None or theirs.name == "sweep":
                continue  # a sweep is around the one whose number was asked for, too
            if theirs.group == "history":
                better = other is first
            else:
                mine = by_group.get(theirs.group)
                better = (
                    mine is None
                    or mine.name is None
                    or _strength(theirs.name) > _strength(mine.name)
                )
            if better:
                text = f"{theirs.text} (seen of a RST made like it)"
                by_group[theirs.group] = Observation(theirs.group, theirs.name, text, theirs.values)
    return list(by_group.values())
