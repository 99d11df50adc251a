"""What a kernel, and a plan on it, can tell of a reset: the one model of it.

``doctor`` and the start of a run say it in words; the lab tests hold each plan on each kernel to
it, by real packets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from rsttrace.kernel import drops
from rsttrace.kernel.hooks import Plan
from rsttrace.model import Kind


@dataclass(frozen=True)
class Ability:
    """Something that some kernels tell and others do not, beside which hooks they have.

    It is looked for in the arguments of a `function` (or a tracepoint's ``btf_trace_<event>``),
    never by the kernel's version: `found` takes their names (a tracepoint's may be empty).
    """

    text: str
    function: str
    found: Callable[[list[str]], bool]


KNOWLEDGE = {
    "drop_reason": Ability(
        "kfree_skb tells why a packet was dropped (c504e5c2f964, 5.17)",
        "btf_trace_kfree_skb",
        lambda arguments: len(arguments) >= 3,  # skb, location, reason
    ),
    "drop_socket": Ability(
        "kfree_skb tells whose packet was dropped (c53795d48ee8, 6.11)",
        "btf_trace_kfree_skb",
        lambda arguments: len(arguments) >= 4,  # and rx_sk
    ),
    "reset_reason": Ability(
        "tcp_send_reset tells why, and of resets without a socket, too (19822a980e19, "
        "b533fb9cf4f7, 6.10)",
        "btf_trace_tcp_send_reset",
        lambda arguments: len(arguments) >= 3,  # sk, skb, reason
    ),
    "reset_skb": Ability(
        "tcp_reset() is given the RST (049fe386d353, 5.12)",
        "tcp_reset",
        lambda arguments: "skb" in arguments,
    ),
    "reader": Ability(
        "sock_recv_length tells who reads from a socket (6e6eda44b939, 6.3)",
        "btf_trace_sock_recv_length",
        bool,
    ),
}
"""By the names that the reports use."""

Knows = Mapping[str, bool]
"""Which of `KNOWLEDGE` a kernel has."""


def look(arguments: Callable[[str], list[str] | None]) -> dict[str, bool]:
    """What a kernel knows. `arguments` gives those of its function of a name; None: it has none."""
    return {
        name: ability.found(arguments(ability.function) or [])
        for name, ability in KNOWLEDGE.items()
    }


# ---- what is missing without it ----


class Told(NamedTuple):
    """What an entry says of a reset, as far as a kernel may keep it back.

    `minisocket`: its socket is what is left of a closed connection (struct inet_timewait_sock).
    """

    kind: Kind
    cause: str
    state: str | None
    minisocket: bool = False


@dataclass(frozen=True)
class Limit:
    """Something that cannot be found out.

    `text` names it. It is so where the kernel `lacks` that knowledge and has what is `given`;
    `by_tracepoints`: with the tracepoint plan only. `left` is what is left of what a kernel that
    knows everything would tell (None: nothing is seen of it); the second argument says whether the
    RST went through tcp_drop().
    """

    text: str
    lacks: str
    left: Callable[[Told, bool], Told | None]
    given: str | None = None
    by_tracepoints: bool = False

    def applies(self, plan: Plan, knows: Knows) -> bool:
        """Whether it is so with this plan on a kernel that knows so much."""
        if knows.get(self.lacks) or (self.given is not None and not knows.get(self.given)):
            return False
        return plan is Plan.TRACEPOINTS or not self.by_tracepoints


BY_REASON = frozenset(name for name, _ in drops.DROPS.values()) - {"closed"}
"""Causes that only the reason of the drop tells."""

BEFORE_TCP = frozenset(
    {"socket-filter", "min-ttl", "backlog", "ipsec-policy", "bad-signature-option"}
    | {name for name in BY_REASON if name.startswith(("md5-", "ao-"))}
)
"""Drops for a socket that has not judged the segment yet (tcp_v4_rcv())."""


def _by_reason(told: Told) -> bool:
    """Whether the reason of the drop alone tells it; a minisocket has the number it waits for."""
    return told.cause in BY_REASON and not told.minisocket


def _without_drop_socket_before(told: Told, tcp_drop: bool) -> Told:
    del tcp_drop
    return told._replace(state=None) if told.cause in BEFORE_TCP else told


def _without_drop_reason(told: Told, tcp_drop: bool) -> Told:
    del tcp_drop
    if told.kind is Kind.RECEIVED_REJECTED and (told.cause == "challenge-ack" or _by_reason(told)):
        return told._replace(cause="ignored")
    return told  # the socket's state tells the others


def _without_drop_reason_by_tracepoints(told: Told, tcp_drop: bool) -> Told | None:
    if told.kind is Kind.RECEIVED_UNMATCHED or told.cause == "time-wait-ended":
        return Told(Kind.RECEIVED_REJECTED, "ignored", None)
    if told.kind is not Kind.RECEIVED_REJECTED:
        return told
    if tcp_drop:  # it frees without the tracepoint there
        return None
    return told._replace(cause="ignored", state=None)


def _without_drop_socket(told: Told, tcp_drop: bool) -> Told:
    if told.cause == "time-wait-ended":
        return Told(Kind.RECEIVED_REJECTED, "dropped", None)
    if told.kind is not Kind.RECEIVED_REJECTED:
        return told
    if told.cause == "closed" or _by_reason(told):
        return told._replace(state=None)
    # In window, or to a listener: the same reason (TCP_RESET). The rest have none (NOT_SPECIFIED).
    return told._replace(cause="ignored" if tcp_drop else "dropped", state=None)


def _without_reset_reason(told: Told, tcp_drop: bool) -> Told:
    del tcp_drop
    if told.kind is Kind.SENT_ACTIVE and told.cause in ("linger2", "disconnect", "memory"):
        return told._replace(cause="linger")
    if told.kind is Kind.SENT_PASSIVE and told.cause in ("paws", "invalid-ack", "old-ack"):
        return told._replace(cause="answered")
    return told  # its cause is as good; the kernel's own word for it is null


def _without_reset_reason_by_tracepoints(told: Told, tcp_drop: bool) -> Told:
    del tcp_drop
    # The tracepoint is silent without a full socket.
    if told.kind is not Kind.SENT_PASSIVE:
        return told
    if told.cause in ("no-socket", "time-wait"):
        return told._replace(cause="no-connection", state=None)
    # What came after our FIN tells the judge (rsttrace/judge/why.py).
    return told._replace(state=None) if told.minisocket else told


LIMITS = (
    Limit(
        "the socket of a received reset that was dropped before TCP judged it",
        "drop_socket",
        _without_drop_socket_before,
    ),
    Limit("why a received reset was ignored", "drop_reason", _without_drop_reason),
    Limit(
        "whether it had a socket; resets that a connected socket ignored",
        "drop_reason",
        _without_drop_reason_by_tracepoints,
        by_tracepoints=True,
    ),
    Limit(
        "the socket of a received reset that was ignored, or that ended TIME_WAIT",
        "drop_socket",
        _without_drop_socket,
        given="drop_reason",
        by_tracepoints=True,
    ),
    Limit(
        "the kernel's reason for a reset that it sends (why a segment was answered; TCP_LINGER2, "
        "or SO_LINGER)",
        "reset_reason",
        _without_reset_reason,
    ),
    Limit(
        "whether an answer without a socket was for a connection in TIME_WAIT",
        "reset_reason",
        _without_reset_reason_by_tracepoints,
        by_tracepoints=True,
    ),
)
"""In the order in which they are told, and applied."""


def unknown(plan: Plan, knows: Knows) -> list[str]:
    """What a plan cannot find out on a kernel that knows so much, in plain words.

    What is unknown is null in the output, or is told by a less exact cause.
    """
    return [limit.text for limit in LIMITS if limit.applies(plan, knows)]


def left(told: Told, plan: Plan, knows: Knows, *, tcp_drop: bool = False) -> Told | None:
    """What a plan can tell of a reset on a kernel that knows so much; None: it sees nothing of it.

    Args:
        told: what a kernel that knows everything tells.
        plan: the plan.
        knows: what this kernel knows.
        tcp_drop: the RST was received and freed by tcp_drop() (net/ipv4/tcp_input.c), which is the
            way of one that a connected socket ignores, and of one without ACK to a listener.
    """
    found: Told | None = told
    for limit in LIMITS:
        if found is not None and limit.applies(plan, knows):
            found = limit.left(found, tcp_drop)
    return found


BLIND_SPOTS = {
    Plan.KPROBES: "resets inside IPsec, and packets sent past the queueing layer (AF_XDP, "
    "PACKET_QDISC_BYPASS)",
    Plan.TRACEPOINTS: "which firewall chain of this host rejected; resets inside IPsec, and "
    "packets sent past the queueing layer (AF_XDP, PACKET_QDISC_BYPASS)",
}
"""What a plan cannot see on any kernel, with every hook attached."""
