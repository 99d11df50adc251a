"""The rules: each looks at one thing and says what it finds. All are pure.

A rule takes a Reset and returns Evidence, or None where it does not apply to this kind of reset. A
weight of 0 means: looked at, and it says nothing. Weights are log-odds for "forged", from the
counts named in `WEIGHTS`; docs/evidence.md explains each rule, when it is wrong, and its source.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Optional

from rsttrace.model import (
    Evidence,
    Fate,
    Half,
    Kind,
    Packet,
    Reset,
    Scope,
    Seen,
    hops,
    initial_ttl,
)
from rsttrace.stacks import may_be_linux, stack
from rsttrace.tcp import seen_packet

Rule = Callable[[Reset], Optional[Evidence]]

WEIGHTS = {
    # 95 of 102 forged resets, 1 of 321 genuine ones differed by more than 2 hops from the SYN
    # (labelled captures): ln((95.5/103)/(1.5/322)) = 5.3, less for boxes that answer for a server.
    "hops-differ": 4.0,
    # Only the handshake was seen.
    "hops-differ-syn": 3.5,
    # The same, and the RST comes from not far behind: a SYN proxy or load balancer may have
    # answered the handshake for it.
    "hops-differ-syn-only": 2.5,
    # No SYN seen: injected data may have poisoned the baseline.
    "hops-differ-data": 2.5,
    "hops-differ-peer": 2.0,
    # So many hops are rarer than programs that set IP_TTL (eBGP does); the host's own resets have
    # the host's TTL.
    "hops-differ-odd": 2.0,
    # One or two hops: a reroute does that too; less likely when the TTL never varied.
    "hops-near-steady": 1.2,
    "hops-near": 0.5,
    "hops-split": 0.8,
    # The peer's own packets come from several distances: some stacks vary their TTL.
    "hops-differ-varied": 1.5,
    "hops-initial": 0.3,
    "hops-agree": -2.5,
    "hops-agree-peer": -1.8,
    # 69 forged, 0 genuine: ln((69.5/103)/(0.5/322)) = 6.1, less for peers that mirror everything.
    "ip-id-ours": 4.2,
    # 186 forged, 0 genuine; but two Linux ends often have near windows: never enough alone.
    "window-ours": 2.3,
    "window-ours-weak": 1.0,
    "payload": 2.5,  # RFC 9293 §3.10.7.4 allows it; honest stacks do not do it
    "reserved": 2.5,
    "mac-stranger": 2.5,
    "mac-next-hop": 0.5,  # an honest gateway failover looks like this
    "mac-unexpected": 1.0,  # no flow to compare with: asymmetric routing looks like this
    "shape-no-socket": -0.5,  # a firewall's REJECT has the same shape
    "shape-live": -3.0,
    "shape-windows": -2.0,
    "shape-continues": -1.5,
    # Linux puts them in; other stacks with continuing IDs may not.
    "timestamps-missing": 1.5,
    # No Linux path makes it (net/ipv4/ip_output.c); a box that answers for a Linux host may. No DF:
    # 105 of 126 forged, 0 of 106 genuine ones (labelled captures, IPv4).
    "alien-shape": 2.5,
    "alien-df": 3.5,
    "alien-many": 5.5,
    "id-zero-no-df": 1.5,
    "df-lost": 0.8,
    "df-lost-syn": 0.4,  # one packet shows no habit
    # Other handshakes of this address came from there too: several hosts, or paths, behind it.
    "hops-several": 0.5,
    # An ordinary answer without a socket from little nearer than the peer, or from behind it: a NAT
    # box that lost its state; a proxy that answered before, a second host, another path.
    "hops-differ-nat": 1.5,
    "hops-differ-behind": 2.0,
    # A NAT box that forgot an idle connection answers for its client, from nearer by.
    "hops-differ-idle": 2.0,
    # Nothing travels faster than the connection's own least round trip.
    "too-soon": 2.9,
    "too-soon-handshake": 1.5,  # one sample, perhaps slowed by ARP or a busy listener
    # The races that who injects from beside the path cannot win always, and several RSTs "to be
    # sure" (Weaver, Sommer, Paxson, NDSS 2009).
    "goes-on": 6.0,
    # It answers a packet whose TTL was too small for the peer, if the way there is as long as back.
    "out-of-reach": 2.9,
    "out-of-reach-near": 1.5,
    # The RST may answer one stray packet of ours, or have overtaken what the peer sent before.
    "goes-on-perhaps": 2.3,
    # Its SYN-ACK once more, though we had sent the right ACK: the host that repeats has not seen
    # it, nor what followed; but another one behind the same address may have.
    "goes-on-repeated": 2.8,
    "behind-data": 2.0,
    "moves-on": 2.8,
    "moves-alike": 2.8,  # made like those that move on
    "live-twice": 2.0,
    "id-shared": 2.0,
    "bad-checksum": 1.5,  # damage on the way does this as well, but rarely to a RST alone
    # A log has no packets: that it was complete cannot be seen from it.
    "other-end-log": 2.5,
    "on-link-self": -2.0,
    "on-link-routed": 1.5,
}

NEAR_HOPS = 2
"""Hop distances that differ by no more than this are explained by an ordinary reroute."""

UNLIKELY_HOPS = 25
"""A peer that seems this far away more likely started with an unusual TTL (IP_TTL, ip(7))."""

PATH_RULES = ("hop-distance", "mac", "on-link")
"""Rules that one change of path makes fire together: only the strongest of them accuses."""

MISSED_IDS = 256
"""How far a counter may have run on packets that we did not see (lost, or sent to others)."""

NAT_HOPS = 3
"""A NAT box stands no farther from its hosts. It answers as a host without a socket does."""

BEHIND_HOPS = 15
"""How much farther away than the peer another host with its address may well be."""

PROGRAM_TTLS = (10, 20, 30, 40, 50, 60, 100, 120, 150, 200, 250)
"""Numbers that people take for a program's own TTL (IP_TTL, ip(7)); resets without a socket have
the host's."""

STEADY_PACKETS = 3
"""So many packets with one TTL make a flow's TTL steady."""

IDLE_NS = 60_000_000_000
"""A connection that said nothing for so long is idle. Linux's masquerading and most load balancers
forget one after minutes (350 s AWS, 4 min Azure), some after one."""

PROVOKED_NS = 3_000_000_000
"""A RST that comes no later after a packet of ours may answer it (RFC 6298 §2: the largest initial
round-trip guess)."""

SHORTEST_RTT_NS = 2_000_000
"""Round trips below this are too short to be compared: waking up a CPU takes a part of that."""

PROXY_HOPS = 6
"""How far behind a SYN proxy or load balancer the server may stand that it answers for."""

REACH_SLACK = 3
"""By how many hops the way to a peer and the way back often differ."""

SAME_COUNTER = 8
"""IP IDs of two RSTs that differ by no more may come from one counter."""

BUSY_COUNTER = 4096
"""How far a host's one counter for all its peers may have run on since its last packet to us."""

NEAR_SEQUENCE = 1 << 24
"""Sequence numbers farther apart are not of one connection: a RST of an earlier one on the same
ports, or of a host in SYN-SENT (RFC 9293 §3.5.1). Linux's receive window ends at 6 MB (tcp(7))."""


def _silent(rule: str, text: str) -> Evidence:
    return Evidence(rule, 0.0, text)


def _found(rule: str, weight: str, text: str, **values: object) -> Evidence:
    return Evidence(rule, WEIGHTS[weight], text, values)


def _judged(reset: Reset) -> bool:
    """Whether somebody else than this host may have made it."""
    return reset.kind.direction != "sent"


def _plural(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def age_text(ns: int) -> str:
    """A duration in words a person reads at a glance."""
    if ns < 1_000_000:
        return f"{ns / 1e3:.0f} µs"
    if ns < 1_000_000_000:
        return f"{ns / 1e6:.1f} ms"
    return f"{ns / 1e9:.1f} s"


def _ttl_word(reset: Reset) -> str:
    return "TTL" if reset.family == 4 else "hop limit"


def reference_ttl(reset: Reset) -> int | None:
    """The TTL that stands for the peer: its SYN's or SYN-ACK's, else its newest packet's."""
    theirs = reset.baseline.theirs
    if theirs is None:
        return None
    return theirs.syn_ttl if theirs.syn_ttl is not None else theirs.ttl


def made_here(reset: Reset) -> Evidence | None:
    """This node itself made the packet: seen leaving, not inferred."""
    made = reset.made_here
    if made is None or not _judged(reset):
        return None
    where = f"netns {made.netns_name or made.netns}"
    who = f"{made.comm}[{made.pid}]" if made.comm is not None else None
    values = {"netns": made.netns, "kind": made.kind.value, "pid": made.pid}
    if made.kind is Kind.SENT_NETFILTER:
        chain = f", {made.hook} hook" if made.hook else ""
        if made.owns_source:
            text = f"the peer's own firewall, on this node, made it ({where}{chain})"
            return Evidence("made-here", -20.0, text, values, proof=True)
        text = f"this node's own firewall made it ({where}{chain})"
        return Evidence("made-here", 20.0, text, values, proof=True)
    if made.kind is Kind.SENT_RAW:
        text = f"a process of this node wrote it through a raw socket ({who or 'unknown'}, {where})"
        return Evidence("made-here", 20.0, text, values, proof=True)
    if made.owns_source is False:
        text = f"this node's own TCP stack sent it in the peer's name, as a proxy does ({where})"
        return Evidence("made-here", 20.0, text, values, proof=True)
    text = f"this node's own TCP stack sent it ({where}{', ' + who if who else ''})"
    return Evidence("made-here", -20.0, text, values, proof=True)


def other_end(reset: Reset) -> Evidence | None:
    """Whether it was seen leaving at another vantage point of the same connection."""
    other = reset.other_end
    if other is None:
        return None
    rule = "other-end"
    there = f"{other.point} ({other.file.rpartition('/')[2]})"
    at = "" if other.frame is None else f", frame {other.frame}"
    values = {
        "fate": other.fate.value,
        "point": other.point,
        "file": other.file,
        "frame": other.frame,
        "trigger_arrived": other.trigger_arrived,
        "swapped_frame": other.swapped_frame,
        "position": other.where or None,
    }
    if other.fate is Fate.UNKNOWN:
        return Evidence(rule, 0.0, f"{there} cannot tell: {other.why}", values)
    if other.fate is Fate.ARRIVED:
        return Evidence(rule, 0.0, f"arrived at {there}{at}", values)
    if other.fate is Fate.NEVER_ARRIVED:
        return Evidence(rule, 0.0, f"never arrived at {there}, which was watching", values)
    if not _judged(reset):
        return None
    if other.fate is Fate.LEFT:
        if not other.at_sender:
            text = f"passed {there}{at}: made there or beyond"
            return Evidence(rule, 0.0, text, values)
        text = f"the peer itself sent it: seen leaving there, at {there}{at}"
        return Evidence(rule, -20.0, text, values, proof=True)
    text = f"never left {there}: {other.why}"
    if other.swapped_frame is not None:
        sure = "the same IP ID" if other.swapped_sure else "the same sequence number"
        text += f"; frame {other.swapped_frame} left there, with {sure}, and never arrived"
    elif other.trigger_arrived is False:
        text += "; our packet before it never arrived there"
    if other.logged:
        return _found(rule, "other-end-log", text, **values)
    return Evidence(rule, 20.0, text, values, proof=True)


def sent_hook(reset: Reset) -> Evidence | None:
    """This host sent it: the packet was seen leaving, with the code path that made it."""
    if reset.kind.direction != "sent":
        return None
    how = {
        Kind.SENT_PASSIVE: "the TCP stack answered a segment",
        Kind.SENT_ACTIVE: "the TCP stack reset a socket of this host",
        Kind.SENT_NETFILTER: "a firewall rule of this host rejected a packet",
        Kind.SENT_RAW: "a process wrote it through a raw or packet socket",
    }[reset.kind]
    return Evidence("sent-hook", 0.0, f"seen leaving this namespace: {how}", proof=True)


def hop_distance(reset: Reset) -> Evidence | None:
    """Hop distance of the RST against the flow's SYN or SYN-ACK (else its data, else the peer)."""
    if not _judged(reset):
        return None
    rule = "hop-distance"
    theirs = reset.baseline.theirs
    reference = reference_ttl(reset)
    if theirs is None or reference is None or theirs.ttl is None:
        return _silent(rule, "no earlier packet of the peer to compare the TTL with")
    ttl, word = reset.rst.ttl, _ttl_word(reset)
    mine, known = hops(ttl), hops(reference)
    values = {
        "ttl": ttl,
        "peer_ttl": reference,
        "hops": mine,
        "peer_hops": known,
        "packets": theirs.packets,
        "scope": reset.baseline.scope.value,
    }
    difference = abs(mine - known)
    from_peer = reset.baseline.scope is Scope.PEER
    if difference == 0:
        if initial_ttl(ttl) != initial_ttl(reference):
            text = f"{word} {ttl} and {reference}: another initial {word}, the same hop distance"
            return _found(rule, "hops-initial", text, **values)
        weight = "hops-agree-peer" if from_peer else "hops-agree"
        whose = "this peer's last handshake" if from_peer else "the peer's packets"
        return _found(rule, weight, f"{word} {ttl}, as {whose}", **values)
    compared = f"{word} {ttl} where the peer's packets arrive with {reference}"
    if from_peer:
        compared = f"{word} {ttl} where this peer's last handshake came with {reference}"
    distance = f" ({_plural(mine, 'hop')} against {known})"
    steady = theirs.ttl_min == theirs.ttl_max
    if not from_peer and not steady and theirs.ttl_min is not None and theirs.ttl_max is not None:
        between = theirs.ttl_min <= ttl <= theirs.ttl_max
    else:
        between = False
    if between:
        text = (
            f"{word} {ttl}, as others of the peer's packets, but its handshake came with "
            f"{reference}: injected data, two paths, or something else answered the handshake"
        )
        return _found(rule, "hops-split", text, **values)
    if difference <= NEAR_HOPS:
        often = steady and theirs.packets >= STEADY_PACKETS and not from_peer
        text = compared + distance
        if often:
            text += f", {theirs.packets} times out of {theirs.packets}"
        return _found(rule, "hops-near-steady" if often else "hops-near", text, **values)
    if not from_peer and _varies(theirs, reference):
        text = (
            f"{compared}{distance}; but the peer's own packets came with {theirs.ttl_min} to "
            f"{theirs.ttl_max}"
        )
        return _found(rule, "hops-differ-varied", text, **values)
    several = [known_ttl for known_ttl in reset.baseline.peer_ttls if hops(known_ttl) == mine]
    if several:
        text = (
            f"{compared}{distance}; but other handshakes of this address came with {several[0]}: "
            "several hosts or paths behind it"
        )
        return _found(rule, "hops-several", text, **values)
    if from_peer:
        return _found(rule, "hops-differ-peer", compared + distance, **values)
    idle = idle_ns(reset)
    if idle is not None and idle >= IDLE_NS and mine < known and is_no_socket_shape(reset.rst):
        text = (
            f"{compared}{distance}; the connection had been idle for {age_text(idle)}: a NAT box "
            "or load balancer in front of the peer that forgot it answers like this"
        )
        return _found(rule, "hops-differ-idle", text, idle_s=idle / 1e9, **values)
    if theirs.syn_ttl is None:
        text = compared + distance + "; the handshake was not seen"
        return _found(rule, "hops-differ-data", text, **values)
    odd = known >= UNLIKELY_HOPS or initial_ttl(reference) == 32
    odd = odd or (reference + mine in PROGRAM_TTLS)
    if odd and is_no_socket_shape(reset.rst):
        text = compared + distance + "; but that TTL was perhaps set by its program"
        return _found(rule, "hops-differ-odd", text, **values)
    if is_no_socket_shape(reset.rst) and -NAT_HOPS <= mine - known < 0:
        text = f"{compared}{distance}; a NAT box that lost its state is as near to its hosts"
        return _found(rule, "hops-differ-nat", text, **values)
    if is_no_socket_shape(reset.rst) and 0 < mine - known <= BEHIND_HOPS:
        text = f"{compared}{distance}; but what is on the way to the peer is not farther away"
        return _found(rule, "hops-differ-behind", text, **values)
    confirmed = [seen for seen in reset.later if hops(seen.ttl) == known]
    if theirs.packets < 2 and not confirmed:
        text = compared + distance + "; only its handshake was seen"
        # A proxy that answers for a server stands on the way to it.
        behind = 0 < mine - known <= PROXY_HOPS
        weight = "hops-differ-syn-only" if behind else "hops-differ-syn"
        return _found(rule, weight, text, **values)
    if confirmed:
        distance += ", as its later packets do"
    return _found(rule, "hops-differ", compared + distance, **values)


def _varies(theirs: Half, reference: int) -> bool:
    """Whether the peer's packets of this flow differ from its handshake by more than a reroute."""
    known = (theirs.ttl_min, theirs.ttl_max)
    return any(ttl is not None and abs(hops(ttl) - hops(reference)) > NEAR_HOPS for ttl in known)


def _our_packet_with(ip_id: int, ours: Half) -> Seen | None:
    """Our packet whose IP ID (or the next number) this is; offloaded buffers cover a range."""
    for seen in ours.recent:
        if seen.ip_id is not None and (ip_id - seen.ip_id) & 0xFFFF <= seen.segments:
            return seen
    return None


def ip_id_ours(reset: Reset) -> Evidence | None:
    """The RST's IP ID repeats one of our own packets' (or it + 1): its maker copied our header."""
    if not _judged(reset) or reset.rst.ip_id is None:
        return None
    rule = "ip-id-ours"
    ip_id, ours, theirs = reset.rst.ip_id, reset.baseline.ours, reset.baseline.theirs
    if ip_id <= 1:
        return _silent(rule, f"IP ID {ip_id} is what stacks without a counter send")
    if ours is None or not ours.recent:
        return _silent(rule, "no packet of ours to compare the IP ID with")
    last = theirs.recent[0].ip_id if theirs and theirs.recent else None
    if last is not None and _continues(ip_id, theirs):
        return _silent(rule, f"IP ID {ip_id} continues the peer's own ({last})")
    ordinary = [*(theirs.recent if theirs else ()), *reset.later]
    mirrored = any(
        seen.ip_id is not None
        and seen.ip_id > 1
        and "R" not in seen.flags
        and _our_packet_with(seen.ip_id, ours)
        for seen in ordinary
    )
    if mirrored:
        return _silent(rule, "the peer's ordinary packets repeat our IP IDs too")
    match = _our_packet_with(ip_id, ours)
    if match is None:
        return _silent(rule, f"IP ID {ip_id} is none of our last {len(ours.recent)} packets'")
    age = age_text(max(0, reset.time_ns - match.time_ns))
    repeats = "repeats" if ip_id == match.ip_id else "follows"
    text = f"IP ID {ip_id} {repeats} our own packet sent {age} earlier"
    if last is not None:
        text += f"; the peer's last was {last}"
    values = {"ip_id": ip_id, "our_ip_id": match.ip_id, "peer_ip_id": last}
    return _found(rule, "ip-id-ours", text, **values)


def window_ours(reset: Reset) -> Evidence | None:
    """The RST carries our own last window, not one of the peer's."""
    if not _judged(reset):
        return None
    rule = "window-ours"
    window, ours, theirs = reset.rst.window, reset.baseline.ours, reset.baseline.theirs
    if window is None:
        return _silent(rule, "the capture cut the packet before its window")
    if window == 0:
        return _silent(rule, "window 0, as most honest resets")
    if ours is None or not ours.recent:
        return _silent(rule, "no packet of ours to compare the window with")
    # The window of a SYN is not scaled, every other one is (RFC 7323 §2.2): not to be compared.
    if window not in {seen.window for seen in ours.recent if "S" not in seen.flags}:
        return _silent(rule, f"window {window} is none of ours (last: {ours.recent[0].window})")
    scaled = [
        seen.window
        for seen in (theirs.recent if theirs else ())
        if "S" not in seen.flags and seen.window is not None
    ]
    if theirs is None or not scaled:
        text = f"window {window} is our own window; the peer's is unknown"
        return _found(rule, "window-ours-weak", text, window=window)
    known = set(scaled) | {theirs.syn_window}
    if window in known:
        return _silent(rule, f"window {window} is our own, but the peer's as well")
    text = f"window {window} is our own window; the peer's was {scaled[0]}"
    if any(abs(window - other) <= max(8, other // 8) for other in scaled):
        text += ", which is near"
        return _found(rule, "window-ours-weak", text, window=window)
    values = {"window": window, "peer_window": scaled[0]}
    return _found(rule, "window-ours", text, **values)


def payload(reset: Reset) -> Evidence | None:
    """A RST with data behind it."""
    if not _judged(reset):
        return None
    length = reset.rst.payload_len
    if not length:
        return _silent("payload", "no payload")
    text = f"carries {_plural(length, 'byte')} of payload, which no common stack sends in a RST"
    return _found("payload", "payload", text, payload_len=length)


def reserved_bits(reset: Reset) -> Evidence | None:
    """Reserved TCP header bits set (RFC 9293 §3.1). The lowest one is AccECN's (RFC 9768)."""
    if not _judged(reset):
        return None
    bits = reset.rst.reserved & 0b1110
    if not bits:
        return _silent("reserved-bits", "reserved bits are 0")
    text = f"reserved TCP header bits are set ({reset.rst.reserved:04b})"
    return _found("reserved-bits", "reserved", text, reserved=reset.rst.reserved)


def source_mac(reset: Reset) -> Evidence | None:
    """The frame's source MAC against the flow's and against the next hop's."""
    if not _judged(reset):
        return None
    rule = "mac"
    mac = reset.frame.mac if reset.frame else None
    if mac is None or mac == "00:00:00:00:00:00":
        return _silent(rule, "no link-layer address to compare")
    theirs, next_hop = reset.baseline.theirs, reset.next_hop
    known = theirs.mac if theirs else None
    expected = next_hop.mac if next_hop else None
    values = {"mac": mac, "flow_mac": known, "next_hop_mac": expected}
    if known is None:
        if expected is None:
            return _silent(rule, "neither the flow's nor the next hop's MAC is known")
        if mac == expected:
            return _silent(rule, f"came from our next hop's MAC {mac} (a bridge could use it too)")
        text = f"came from {mac}; our next hop to the peer is {expected}"
        return _found(rule, "mac-unexpected", text, **values)
    if mac == known:
        return _silent(rule, f"same source MAC as the peer's packets ({mac}); bridges use it too")
    if mac == expected:
        text = f"came from our next hop's MAC {mac}; the peer's packets came from {known}"
        return _found(rule, "mac-next-hop", text, **values)
    text = f"came from MAC {mac}; the peer's packets come from {known}"
    return _found(rule, "mac-stranger", text, **values)


def _continues(ip_id: int | None, theirs: Half | None) -> bool:
    """Whether an IP ID goes on where the peer's last packet stopped."""
    if theirs is None or not theirs.recent:
        return False
    last = theirs.recent[0]
    if ip_id is None or not last.ip_id or "S" in last.flags:
        return False  # no counter yet: Linux sends its SYN-ACK with IP ID 0
    return 1 <= (ip_id - last.ip_id) & 0xFFFF <= last.segments


def is_no_socket_shape(rst: Packet) -> bool:
    """Linux without a socket: tcp_v4_send_reset, tcp_v6_send_reset (and nf_send_reset)."""
    if rst.window != 0 or rst.payload_len or rst.options or rst.reserved:
        return False
    if rst.ip_id is not None and (rst.ip_id != 0 or not rst.df):
        return False
    return rst.flags == "R" or (rst.flags == "RA" and rst.seq == 0)


def answers_ours(rst: Packet, ours: Half | None) -> bool | None:
    """Whether a no-socket RST's numbers answer a packet of ours; None if we know none."""
    if ours is None or not ours.recent:
        return None
    for seen in ours.recent:
        if "A" not in rst.flags and "A" in seen.flags and rst.seq == seen.ack:
            return True
        end = seen.seq + seen.payload_len + ("S" in seen.flags) + ("F" in seen.flags)
        if "A" in rst.flags and rst.ack == end & 0xFFFFFFFF:
            return True
    return False


def shape(reset: Reset) -> Evidence | None:
    """Whether the RST has the shape that a genuine stack of the peer's kind would send."""
    if not _judged(reset):
        return None
    rule = "shape"
    rst, theirs = reset.rst, reset.baseline.theirs
    flow = reset.baseline.scope is Scope.FLOW and theirs is not None
    values: dict[str, object] = {"flags": rst.flags, "window": rst.window, "ip_id": rst.ip_id}
    if is_no_socket_shape(rst) and flow and _answers_nothing(rst.seq, _our_acks(reset)):
        text = "the shape of a Linux host without such a socket, but no packet of ours asked for it"
        return _silent(rule, text)
    if is_no_socket_shape(rst):
        several = several_resets(reset)
        if several is not None and several.weight > 0:
            text = "the shape of a Linux host without such a socket, but made with others that are"
            return _silent(rule, f"{text} not")
        numbers = "window 0, no options" if rst.ip_id is None else "IP ID 0, DF, window 0"
        text = (
            f"the shape of a Linux host without such a socket ({numbers}); "
            "a firewall's REJECT looks the same"
        )
        return _found(rule, "shape-no-socket", text, **values)
    if not flow or theirs is None:
        return _silent(rule, "no flow to compare the shape with")
    continues = rst.ip_id is not None and _continues(rst.ip_id, theirs)
    last = theirs.recent[0].ip_id if theirs.recent else None
    if continues and initial_ttl(rst.ttl) == 128 and rst.df and rst.window == 0:
        text = f"the shape of a Windows host: IP ID {rst.ip_id} continues its {last}, DF, window 0"
        return _found(rule, "shape-windows", text, **values)
    stamped = "TS val" in rst.options
    went_on = goes_on(reset)
    if went_on is not None and went_on.weight >= WEIGHTS["goes-on"]:
        return _silent(rule, "a live socket that has sent a RST is gone; here the peer went on")
    if rst.ip_id is not None and continues and rst.flags == "RA":
        if rst.df == theirs.df_always and stamped == theirs.timestamps:
            stamp = ", timestamps" if stamped else ""
            text = f"the shape of the peer's own live socket: IP ID {rst.ip_id} continues {last}"
            return _found(rule, "shape-live", text + stamp, **values)
        text = f"IP ID {rst.ip_id} continues the peer's {last}, but the rest is not its socket's"
        return _silent(rule, text)
    if rst.ip_id is None and rst.flags == "RA" and theirs.timestamps and stamped:
        text = "the shape of the peer's own live socket (RST+ACK with its timestamps)"
        return _found(rule, "shape-continues", text, **values)
    if continues and theirs.timestamps and not stamped:
        text = f"IP ID {rst.ip_id} continues the peer's {last}, but its timestamps are missing"
        return _silent(rule, text)
    if continues:
        text = f"IP ID {rst.ip_id} continues the peer's {last}"
        return _found(rule, "shape-continues", text, **values)
    return _silent(rule, "no genuine shape that we know of, and none that accuses")


def timestamps_missing(reset: Reset) -> Evidence | None:
    """A RST shaped like a live socket's, without the timestamps that both ends agreed on."""
    if not _judged(reset):
        return None
    rule = "timestamps-missing"
    rst, theirs = reset.rst, reset.baseline.theirs
    if theirs is None or reset.baseline.scope is not Scope.FLOW or not theirs.timestamps:
        return _silent(rule, "the peer's packets carry no timestamps")
    if is_no_socket_shape(rst) or "TS val" in rst.options:
        return _silent(rule, "timestamps are there, or not expected in this shape")
    # RFC 7323 §3.2: TSopt MUST be in every segment but a RST, and SHOULD be there too; Linux does.
    if initial_ttl(rst.ttl) == 128:
        return _silent(rule, "Windows sends its resets without timestamps")
    if not may_be_linux(theirs):
        known = stack(theirs)
        text = f"the peer's SYN is no Linux host's{f', but as {known} writes it' if known else ''}"
        return _silent(rule, f"{text}: timestamps are not expected")
    if rst.ip_id is None:
        if stack(theirs) != "Linux" or not _is_live(rst.flags, rst.seq):
            return _silent(rule, "not plainly a Linux host's live socket")
        text = "a Linux host's live socket puts the agreed timestamps in; they are missing"
        return _found(rule, "timestamps-missing", text, syn_options=theirs.syn_options)
    if not _continues(rst.ip_id, theirs):
        return _silent(rule, "not the shape of a live socket: timestamps are not expected")
    text = "IP ID goes on as a live socket's would, but the agreed timestamps are missing"
    return _found(rule, "timestamps-missing", text, ip_id=rst.ip_id)


def looks_like_linux(theirs: Half, least: int = 2) -> bool:
    """Whether a peer's earlier IPv4 packets are those of a Linux stack, untouched on their way.

    Initial TTL 64, DF in every packet, and an IP ID of 0 in the SYN-ACK or IDs that count up
    packet by packet (ip_select_ident_segs()); the SYN's options, where known, do not speak
    against it. `least`: how many packets must have been seen.
    """
    if theirs.packets < least or not theirs.df_always or not may_be_linux(theirs):
        return False
    if theirs.ttl is None or initial_ttl(theirs.ttl) != 64:
        return False
    if any(seen.flags == "SA" and seen.ip_id == 0 for seen in theirs.recent):
        return True
    counting = [seen for seen in theirs.recent if seen.ip_id]
    steps = [
        1 <= ((newer.ip_id or 0) - (older.ip_id or 0)) & 0xFFFF <= older.segments + MISSED_IDS
        for newer, older in zip(counting, counting[1:])
    ]
    return bool(steps) and all(steps)


def alien_shape(reset: Reset) -> Evidence | None:
    """A peer that is a Linux host, and a RST that no Linux host sends.

    Without a socket Linux sends IP ID 0 (old kernels: a counter) with DF; a live socket goes on
    with its IDs, with DF.
    """
    rst, theirs, ip_id = reset.rst, reset.baseline.theirs, reset.rst.ip_id
    if not _judged(reset):
        return None
    rule = "alien-shape"
    if theirs is None or reset.baseline.scope is not Scope.FLOW:
        return _silent(rule, "no flow that could tell which stack the peer has")
    if not (looks_like_linux(theirs) if ip_id is not None else stack(theirs) == "Linux"):
        return _silent(rule, "the peer's packets are not plainly those of a Linux host")
    last = theirs.recent[0].ip_id if theirs.recent else 0
    values = {"ip_id": ip_id, "df": rst.df, "peer_ip_id": last, "syn_options": theirs.syn_options}
    wrong = []
    if ip_id is not None and not rst.df:
        wrong.append(f"no DF (IP ID {ip_id})")
    if "A" not in rst.flags and rst.window:
        values["window"] = rst.window
        wrong.append(f"no ACK, but a window ({rst.window})")
    live = _is_live(rst.flags, rst.seq) and not is_no_socket_shape(rst)
    if live and ip_id is not None and last and not 1 <= (ip_id - last) & 0xFFFF <= MISSED_IDS:
        wrong.append(f"IP ID {ip_id}, where its socket would go on from {last}")
        if theirs.timestamps and "TS val" not in rst.options:
            wrong.append("the agreed timestamps are missing")
    if not wrong:
        return _silent(rule, "a Linux host could have sent it")
    text = f"the peer is a Linux host, which never sends such a RST: {'; '.join(wrong)}"
    weight = "alien-many" if len(wrong) > 1 else "alien-df" if rst.df is False else "alien-shape"
    return _found(rule, weight, text, **values)


def id_zero_no_df(reset: Reset) -> Evidence | None:
    """IP ID 0 without DF: a packet that could be fragmented needs an ID (RFC 6864 §4.1)."""
    if not _judged(reset) or reset.rst.ip_id is None:
        return None
    rule = "id-zero-no-df"
    if reset.rst.ip_id == 0 and not reset.rst.df:
        text = "IP ID 0 without DF: hand-made packets look like this"
        return _found(rule, "id-zero-no-df", text, ip_id=0, df=False)
    return _silent(rule, f"IP ID {reset.rst.ip_id}, DF {'set' if reset.rst.df else 'clear'}")


def df_lost(reset: Reset) -> Evidence | None:
    """All of the peer's packets had DF; the RST has not."""
    if not _judged(reset) or reset.rst.df is None:
        return None
    rule = "df-lost"
    theirs = reset.baseline.theirs
    if theirs is None or not theirs.df_always:
        return _silent(rule, "the peer's packets did not all have DF")
    if reset.rst.df:
        return _silent(rule, "DF, as the peer's packets")
    if reset.baseline.scope is Scope.FLOW and looks_like_linux(theirs):
        return _silent(rule, "no DF: said by alien-shape already")
    if theirs.packets < 2:
        text = "no DF, where the peer's handshake had it"
        return _found(rule, "df-lost-syn", text, packets=theirs.packets)
    text = f"no DF, where all {_plural(theirs.packets, 'packet')} of the peer had it"
    return _found(rule, "df-lost", text, packets=theirs.packets)


def on_link(reset: Reset) -> Evidence | None:
    """A peer on our own link: its packets pass no router, and come from its own MAC."""
    if not _judged(reset):
        return None
    rule = "on-link"
    next_hop = reset.next_hop
    mac = reset.frame.mac if reset.frame else None
    if next_hop is None or mac is None:
        return _silent(rule, "the route to the peer is unknown")
    if next_hop.is_gateway or next_hop.ip != reset.rst.src.ip:
        return _silent(rule, "the peer is behind a router")
    distance = hops(reset.rst.ttl)
    values = {"hops": distance, "mac": mac, "peer_mac": next_hop.mac}
    if distance:
        text = f"the peer is on our own link, but the RST has passed {_plural(distance, 'router')}"
        return _found(rule, "on-link-routed", text, **values)
    if next_hop.mac == mac:
        text = f"the peer is on our own link, and {mac} is its own MAC"
        return _found(rule, "on-link-self", text, **values)
    return _silent(rule, "the peer is on our own link; its MAC is another or unknown")


def idle_ns(reset: Reset) -> int | None:
    """How long nothing was sent either way before the RST or before the packet it answers, in ns.

    None where no packet is known to compare with.
    """
    ours, theirs = reset.baseline.ours, reset.baseline.theirs
    if reset.baseline.scope is not Scope.FLOW:
        return None
    times = sorted(
        seen.time_ns
        for half in (ours, theirs)
        if half is not None
        for seen in half.recent
        if seen.time_ns <= reset.time_ns
    )
    if not times:
        return None
    silences = [later - earlier for earlier, later in zip(times, [*times[1:], reset.time_ns])]
    # Our packet may have been sent several times before the answer came: the longest silence
    # counts that has nothing but packets of ours after it.
    last_of_theirs = max(
        (seen.time_ns for seen in (theirs.recent if theirs else ())), default=times[0]
    )
    return max(
        gap for start, gap in zip(times, silences) if start >= min(last_of_theirs, times[-1])
    )


def is_provoked(reset: Reset) -> bool | None:
    """Whether the RST came soon enough after a packet of ours to answer it; None if unknown."""
    ours = reset.baseline.ours
    if ours is None or not ours.recent:
        return None
    return reset.time_ns - ours.recent[0].time_ns <= PROVOKED_NS


def least_rtt_ns(reset: Reset) -> tuple[int, bool] | None:
    """The least round trip known of this connection in ns, and whether it rests on several samples.

    The socket's own, and from its handshake; data that was acknowledged can only lower it, for an
    acknowledgment may wait (RFC 1122 §4.2.3.2: up to 0.5 s) where a RST does not.
    """
    socket, ours, theirs = reset.socket, reset.baseline.ours, reset.baseline.theirs
    flow = reset.baseline.scope is Scope.FLOW
    known = []
    if socket is not None and socket.min_rtt_us:
        known.append(socket.min_rtt_us * 1000)
    # The socket's rests on the handshake alone until the peer has answered more. It counts
    # the time, too, that our SYN waited for its neighbour's address.
    sampled = bool(known and flow and theirs and (theirs.syn_ns is None or theirs.packets > 2))
    if not flow or ours is None or theirs is None:
        return (known[0], sampled) if known else None
    if ours.syn_ns is not None and theirs.syn_ns is not None and theirs.syn_ns > ours.syn_ns:
        known.append(theirs.syn_ns - ours.syn_ns)  # our SYN, their SYN-ACK
    if not known:
        return None
    for sent in ours.recent:
        end = (sent.seq + _length(sent)) & 0xFFFFFFFF
        acks = [
            seen.time_ns - sent.time_ns
            for seen in theirs.recent
            if sent.payload_len and seen.ack == end and seen.time_ns > sent.time_ns
        ]
        if acks:
            known.append(min(acks))
            sampled = True
    return min(known), sampled


def timing(reset: Reset) -> Evidence | None:
    """The RST answers a packet of ours sooner than the peer could have."""
    if not _judged(reset):
        return None
    rule = "timing"
    rst, ours, known = reset.rst, reset.baseline.ours, least_rtt_ns(reset)
    if ours is None or not ours.recent or known is None:
        return _silent(rule, "no round trip or no packet of ours to compare with")
    rtt, sampled = known
    if rtt < SHORTEST_RTT_NS:
        return _silent(rule, f"the round trip ({age_text(rtt)}) is too short to tell")
    answered = [seen for seen in ours.recent if _answers(rst, seen)]
    if not answered:
        return _silent(rule, "it answers none of our last packets")
    # An older packet that we no longer know may have been the one: then this proves nothing.
    oldest = answered[-1]
    forgotten = ours.packets > len(ours.recent)
    if forgotten and (oldest is ours.recent[-1] or _was_sent_before(oldest, ours)):
        return _silent(rule, "it may answer an older packet of ours")
    delay = reset.time_ns - oldest.time_ns
    values = {"delay_ms": delay / 1e6, "rtt_ms": rtt / 1e6}
    # A handshake alone may have been slow: half of what it leaves is asked for.
    if not 0 <= delay < rtt // (2 if sampled else 4):
        return _silent(
            rule, f"{age_text(max(0, delay))} after what it answers, in time for the peer"
        )
    # There and back again: what answers after a share of the round trip is no farther than that
    # share of the way.
    way = delay / rtt
    values["way"] = way
    text = (
        f"arrived {age_text(delay)} after the packet it answers; the connection's least round trip "
        f"is {age_text(rtt)}: made within the first {max(1, round(way * 100))} % of the way"
    )
    return _found(rule, "too-soon" if sampled else "too-soon-handshake", text, **values)


def reach(reset: Reset) -> Evidence | None:
    """The RST acknowledges a packet of ours that died before it could reach the peer."""
    if not _judged(reset):
        return None
    rule = "reach"
    rst, ours, reference = reset.rst, reset.baseline.ours, reference_ttl(reset)
    if ours is None or reference is None or reset.baseline.scope is not Scope.FLOW:
        return _silent(rule, "the peer's distance or our packets are unknown")
    routers = hops(reference)
    answered = [seen for seen in ours.recent if "A" in rst.flags and _answers(rst, seen)]
    if not answered:
        return _silent(rule, "it acknowledges none of our last packets")
    ttl = max(seen.ttl for seen in answered)
    short = routers + 1 - ttl  # the last router must still have one to take away
    if short <= 0:
        return _silent(
            rule, f"what it answers left with {_ttl_word(reset)} {ttl}, enough for the way"
        )
    text = (
        f"acknowledges our packet sent with {_ttl_word(reset)} {ttl}, which cannot pass the "
        f"{_plural(routers, 'router')} to the peer"
    )
    weight = "out-of-reach" if short > REACH_SLACK else "out-of-reach-near"
    return _found(rule, weight, text, ttl=ttl, peer_hops=routers)


def _answers(rst: Packet, seen: Seen) -> bool:
    """Whether a RST's numbers were known only to who has seen this packet of ours (or acts on it):
    it acknowledges its data, or takes its ack number for its own sequence number."""
    length = _length(seen)
    if "A" in rst.flags:
        return bool(length) and rst.ack == (seen.seq + length) & 0xFFFFFFFF
    return "A" in seen.flags and rst.seq == seen.ack


def _before(first: int, second: int) -> int:
    """How far one sequence number lies before another; negative: behind (RFC 9293 §3.4)."""
    return ((second - first + 0x80000000) & 0xFFFFFFFF) - 0x80000000


def _length(seen: Seen) -> int:
    """How many sequence numbers a packet takes (RFC 9293 §3.4)."""
    return seen.payload_len + ("S" in seen.flags) + ("F" in seen.flags)


def _was_sent_before(sent: Seen, half: Half) -> bool:
    """Whether a packet was a retransmission: an older one already had a number beyond its own."""
    if not _length(sent):
        return False
    older = half.recent[half.recent.index(sent) + 1 :]
    return any(_before(sent.seq, seen.seq + _length(seen)) > 0 for seen in older)


def sequence(reset: Reset) -> Evidence | None:
    """A live peer resets with its next sequence number: not with one it has used already."""
    if not _judged(reset):
        return None
    rule = "sequence"
    rst, ours, theirs = reset.rst, reset.baseline.ours, reset.baseline.theirs
    if reset.baseline.scope is not Scope.FLOW or theirs is None or theirs.end is None:
        return _silent(rule, "no earlier packet of the peer to compare the sequence number with")
    behind = _before(rst.seq, theirs.end)
    if behind <= 0:
        return _silent(rule, "not behind what the peer has sent")
    if behind > NEAR_SEQUENCE:
        return _silent(rule, "a number of another connection, or of none")
    if is_no_socket_shape(rst) or not rst.seq:
        return _silent(rule, "the answer to a packet of ours, not a live socket's number")
    if ours is None or not ours.recent or rst.seq in {seen.ack for seen in ours.recent}:
        return _silent(rule, "the number that a packet of ours asked for")
    if ours.packets > len(ours.recent) and _before(rst.seq, ours.recent[-1].ack) > 0:
        return _silent(rule, "it may answer an older packet of ours")
    text = (
        f"its sequence number lies {_plural(behind, 'byte')} behind what the peer had sent already"
    )
    return _found(rule, "behind-data", text, behind=behind, seq=rst.seq)


def same_packet(one: Seen, other: Seen) -> bool:
    """Whether two may be one packet captured or delivered twice."""
    return (one.ip_id, one.seq, one.ack, one.flags, one.window) == (
        other.ip_id,
        other.seq,
        other.ack,
        other.flags,
        other.window,
    )


def several_resets(reset: Reset) -> Evidence | None:
    """Several RSTs of one connection: honest ones answer packets of ours, or come once."""
    if not _judged(reset):
        return None
    rule = "several-resets"
    this = seen_packet(reset.rst, reset.time_ns)
    after = [seen for seen in reset.later if "R" in seen.flags]
    others = [seen for seen in (*reversed(reset.earlier), *after) if not same_packet(seen, this)]
    if not others:
        return _silent(rule, "the only RST of this connection")
    resets = sorted([*others, this], key=lambda seen: seen.time_ns)
    count, took = len(resets), age_text(resets[-1].time_ns - resets[0].time_ns)
    # A number beyond all that we acknowledged answers no packet of ours. A stack gives one such:
    # its next. Two, though it sent nothing in between, are guesses at the receiver's window.
    own = [seen for seen in resets if _answers_nothing(seen.seq, reset.our_acks)]
    numbers = list(dict.fromkeys(seen.seq for seen in own))
    if len(numbers) > 1 and this in own and not _sent_since(reset, own[0].time_ns):
        steps = [_before(older, newer) for older, newer in zip(numbers, numbers[1:])]
        moves = ", ".join(f"{step:+}" for step in steps[:4])
        text = (
            f"{count} RSTs within {took} whose sequence numbers answer nothing and move ({moves}), "
            "though the peer sent nothing in between"
        )
        return _found(rule, "moves-on", text, resets=count, steps=steps[:8])
    alike = [seen for seen in own if _make(seen) == _make(this)]
    if len(numbers) > 1 and alike and not _sent_since(reset, min(own[0].time_ns, this.time_ns)):
        text = f"made like {len(alike)} more within {took}, whose sequence numbers answer nothing"
        return _found(rule, "moves-alike", text, resets=count)
    theirs = reset.baseline.theirs
    live = [seen for seen in resets if _is_live(seen.flags, seen.seq)]
    if this in live and len(live) > 1 and theirs is not None and reset.family == 4:
        counts_on = [
            1 <= ((newer.ip_id or 0) - (older.ip_id or 0)) & 0xFFFF <= MISSED_IDS
            for older, newer in zip(live, live[1:])
        ]
        alien = not all(counts_on) and not _continues(this.ip_id, theirs)
        if alien and reset.baseline.scope is Scope.FLOW and looks_like_linux(theirs, 1):
            ids = [seen.ip_id for seen in live]
            text = (
                f"{len(live)} RST+ACK within {took}, with IP IDs of no one counter: a Linux host's "
                "socket resets once"
            )
            return _found(rule, "live-twice", text, resets=len(live), ip_ids=ids[:8])
    return _silent(rule, f"{count} RSTs, as one for each packet of ours would be")


def _make(seen: Seen) -> tuple[object, ...]:
    """What the RSTs of one maker have in common."""
    return seen.ttl, seen.df, seen.flags, seen.window, seen.ip_id == 0


def _is_live(flags: str, seq: int) -> bool:
    """Whether a RST is a live socket's, as Linux sends it: with ACK and its own next number."""
    return "A" in flags and bool(seq)


def _answers_nothing(seq: int, our_acks: Iterable[int]) -> bool:
    """Whether a number lies beyond all that we acknowledged, and near it."""
    ahead = [_before(ack, seq) for ack in our_acks]
    return bool(seq and ahead) and all(0 < step <= NEAR_SEQUENCE for step in ahead)


def _our_acks(reset: Reset) -> set[int]:
    """The numbers that our last packets asked for."""
    ours = reset.baseline.ours
    return {seen.ack for seen in (ours.recent if ours else ()) if "A" in seen.flags}


def _sent_since(reset: Reset, time_ns: int) -> bool:
    """Whether the peer sent something else than RSTs after a time."""
    theirs = reset.baseline.theirs
    if reset.baseline.scope is Scope.FLOW and theirs is not None and theirs.last_ns > time_ns:
        return True
    return any("R" not in seen.flags for seen in reset.later)


def goes_on(reset: Reset) -> Evidence | None:
    """What the peer sent after "its" RST (known only later)."""
    if not _judged(reset):
        return None
    rule = "goes-on"
    rst, perhaps = reset.rst, None
    for seen in reset.later:
        age = age_text(max(0, seen.time_ns - reset.time_ns))
        values = {
            "after_ms": (seen.time_ns - reset.time_ns) / 1e6,
            "ttl": seen.ttl,
            "seq": seen.seq,
        }
        if (seen.ip_id, seen.ttl) == (rst.ip_id, rst.ttl) and _is_ours(seen.ip_id, reset):
            continue  # both repeat our IP ID, from as far away: one maker for both
        if "S" in seen.flags:
            if _accepts_what_was_refused(reset, seen):
                text = f"{age} later the peer answered the same SYN with a SYN-ACK"
                return _found(rule, "goes-on", text, **values)
            if "A" in seen.flags and (seen.seq + 1) & 0xFFFFFFFF in reset.our_acks:
                text = f"{age} later the peer repeated its SYN-ACK: it has not seen our ACK"
                return _found(rule, "goes-on-repeated", text, **values)
            continue
        length = _length(seen)
        beyond = _before(rst.seq, (seen.seq + length) & 0xFFFFFFFF)
        if "R" in seen.flags or not length or not rst.seq or not 0 < beyond <= NEAR_SEQUENCE:
            continue
        what = _plural(seen.payload_len, "byte") if seen.payload_len else "a FIN"
        text = f"{age} later the peer went on, with {what} beyond the RST's sequence number"
        if not _may_answer_a_stray(reset, seen):
            return _found(rule, "goes-on", text, **values)
        if _another_may_have_answered(reset):
            continue
        if perhaps is None:
            text += " (sent before it, or the RST answers one stray packet, unless it is forged)"
            perhaps = _found(rule, "goes-on-perhaps", text, **values)
    return perhaps or _silent(rule, "nothing came from the peer after it")


def _another_may_have_answered(reset: Reset) -> bool:
    """Whether a NAT box just before the peer, or a second host behind it, may have made the RST.

    Then it is no news that the peer goes on.
    """
    reference = reference_ttl(reset)
    if reference is None or not is_no_socket_shape(reset.rst):
        return False
    mine, known = hops(reset.rst.ttl), hops(reference)
    return -NAT_HOPS <= mine - known <= BEHIND_HOPS and mine != known


def _is_ours(ip_id: int | None, reset: Reset) -> bool:
    ours = reset.baseline.ours
    return (
        ip_id is not None
        and ip_id > 1
        and ours is not None
        and _our_packet_with(ip_id, ours) is not None
    )


def _accepts_what_was_refused(reset: Reset, seen: Seen) -> bool:
    """Whether a SYN-ACK answers the very SYN that the RST refused.

    A RST with another ack number is of another connection: a host in SYN-RECEIVED resets a wrong
    ACK and stays as it is (RFC 9293 §3.10.7.4).
    """
    rst, theirs = reset.rst, reset.baseline.theirs
    before = reset.baseline.scope is Scope.FLOW and theirs is not None and theirs.syn_ns is not None
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
    if "TS val" in rst.options:
        return False  # answers carry none (tcp_v4_send_reset)
    recent = ours.recent if ours is not None and reset.baseline.scope is Scope.FLOW else ()
    acking = [seen for seen in recent if "A" in seen.flags]
    asked = [seen for seen in acking if seen.ack == rst.seq]
    if ours is None or not asked:
        return not _answers_nothing(rst.seq, {seen.ack for seen in acking})
    newest = asked[0]
    repeated = any(seen.seq == newest.seq and _length(seen) for seen in recent if seen != newest)
    if not _length(newest) or repeated or _was_sent_before(newest, ours):
        return True
    return _before(newest.seq + _length(newest), later.ack) < 0


def id_shared(reset: Reset) -> Evidence | None:
    """One counter in the RSTs of different peers: one box makes them all."""
    if not _judged(reset) or reset.rst.ip_id is None:
        return None
    rule = "id-shared"
    ip_id = reset.rst.ip_id
    if ip_id <= 1:
        return _silent(rule, f"IP ID {ip_id} is what stacks without a counter send")
    theirs = reset.baseline.theirs
    last = theirs.recent[0].ip_id if theirs is not None and theirs.recent else 0
    if last and 1 <= (ip_id - last) & 0xFFFF <= BUSY_COUNTER:
        return _silent(rule, f"IP ID {ip_id} may go on from the peer's own ({last})")
    for other in reset.others:
        apart = abs(((ip_id - other.ip_id + 0x8000) & 0xFFFF) - 0x8000)
        if apart <= SAME_COUNTER and hops(other.ttl) == hops(reset.rst.ttl):
            age = age_text(abs(reset.time_ns - other.time_ns))
            text = (
                f"IP ID {ip_id} is from one counter with a RST of {other.ip} ({other.ip_id}, {age} "
                "apart, from the same distance): one box makes both"
            )
            return _found(
                rule, "id-shared", text, ip_id=ip_id, other=other.ip, other_id=other.ip_id
            )
    return _silent(rule, "no RST of another address has an IP ID near")


def checksum(reset: Reset) -> Evidence | None:
    """A RST whose TCP checksum is wrong: stacks and network cards compute it, some boxes don't."""
    if not _judged(reset):
        return None
    if reset.cause.name == "bad-checksum" or reset.rst.tcp_checksum_ok is False:
        text = "its TCP checksum is wrong: hand-made, or damaged on its way"
        return _found("checksum", "bad-checksum", text, cause=reset.cause.name)
    known = "right" if reset.rst.tcp_checksum_ok else "not known to be wrong"
    return _silent("checksum", f"its checksum is {known}")


RULES: tuple[Rule, ...] = (
    made_here,
    other_end,
    sent_hook,
    hop_distance,
    ip_id_ours,
    window_ours,
    source_mac,
    on_link,
    shape,
    timestamps_missing,
    payload,
    reserved_bits,
    alien_shape,
    id_zero_no_df,
    df_lost,
    checksum,
    timing,
    reach,
    sequence,
    several_resets,
    id_shared,
    goes_on,
)
"""Every rule, in the order in which a person would look."""
