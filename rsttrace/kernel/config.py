"""Numbers that Python and the C side share: Python's, handed to C when it is compiled."""

from __future__ import annotations

from collections.abc import Mapping

from rsttrace import limits
from rsttrace.model import Kind, Scope

KIND_NUMBERS = {kind: number for number, kind in enumerate(Kind)}
"""How kinds are numbered in rst_event.kind; handed to C as KIND_<NAME>."""

LATE = len(Kind)
"""rst_event.kind of what is no RST: a packet that came after one (KIND_LATE)."""

SCOPES = (Scope.NONE, Scope.FLOW, Scope.PEER)
"""Scopes by their number in rst_event.scope. An event begins as zeroes, with no baseline."""

COUNT_KINDS = 4
COUNT_SENT, COUNT_FILTERED, COUNT_LOST, COUNT_AGGREGATED = range(COUNT_KINDS)
"""Columns of the `counts` map (counts.Counts); it has a row for each kind, and at last `LATE`'s."""

NO_REASON = 0xFFFFFFFF
"""rst_event.reason and drop_reason where the kernel gave none."""

TCP_STATES = {
    1: "ESTABLISHED",
    2: "SYN_SENT",
    3: "SYN_RECV",
    4: "FIN_WAIT1",
    5: "FIN_WAIT2",
    6: "TIME_WAIT",
    7: "CLOSE",
    8: "CLOSE_WAIT",
    9: "LAST_ACK",
    10: "LISTEN",
    11: "CLOSING",
    12: "NEW_SYN_RECV",
}
"""include/net/tcp_states.h (user space API: these numbers do not change)."""

NETFILTER_HOOKS = ("prerouting", "input", "forward", "output", "postrouting")
"""enum nf_inet_hooks, include/uapi/linux/netfilter.h."""

RING_PAGES = 4096
"""Ring buffer size in 4 KiB pages (16 MiB): 9,000 events while Python handles a chunk of 64."""


ROOMS = LATE + 2
"""Rows of the `rooms` map: one for each kind, one for late packets, the last for all together."""

FIXED_BUCKETS = 16
"""Rows of the `buckets` map before those found by their key: one with the secret, then one for each
kind."""

BUCKETS = 4096
"""Rows found by their key: so many sorts of resets are told apart at once."""

LEVELS = ("kind", "netns", "service", "peer")
"""What the resets of a bucket have in common, by its number in rst_bucket.level: bpf/storm.c."""


def constants() -> dict[str, int]:
    """Numbers that both sides know, by their names in C: they are the same for every request."""
    return {
        **{f"KIND_{kind.name}": number for kind, number in KIND_NUMBERS.items()},
        "KIND_LATE": LATE,
        **{f"SCOPE_{scope.name}": number for number, scope in enumerate(SCOPES)},
        "COUNT_SENT": COUNT_SENT,
        "COUNT_FILTERED": COUNT_FILTERED,
        "COUNT_LOST": COUNT_LOST,
        "COUNT_AGGREGATED": COUNT_AGGREGATED,
        "COUNT_KINDS": COUNT_KINDS,
        "ROOMS": ROOMS,
        "BURST_S": limits.BURST_S,
        "FIXED_BUCKETS": FIXED_BUCKETS,
        "BUCKETS": BUCKETS,
        **{f"LEVEL_{name.upper()}": number for number, name in enumerate(LEVELS)},
        **{f"ST_{name}": number for number, name in TCP_STATES.items()},
        "NO_REASON": NO_REASON,
        "PEERS": limits.PEERS,
        "RECENT": limits.RECENT,
        "TTLS": limits.TTLS,
        "OTHER_TTL_FITS": limits.OTHER_TTL_FITS,
        "NEAR": limits.NEAR,
        "OVERTAKEN_TICKS": limits.OVERTAKEN_TICKS,
        "OVERTAKEN_NS": limits.OVERTAKEN_NS,
        "COPY_NS": limits.COPY_NS,
        "PEER_TTLS": limits.PEER_TTLS,
        "OPTIONS_READ": limits.OPTIONS_READ,
        "EXTENSIONS_READ": limits.EXTENSIONS_READ,
        "LATE_FOR_NS": limits.LATE_FOR_NS,
        "LATE_TOLD": limits.LATE_TOLD,
        "HANDSHAKES_TOLD": limits.HANDSHAKES_TOLD,
        "PAYLOAD_MAX": limits.PAYLOAD_MAX,
    }


def defines(values: Mapping[str, int]) -> str:
    """The text of a C header that defines them; to include it twice does no harm."""
    return "".join(f"#define {name} {n}\n" for name, n in values.items())
