"""What is worth asking the node about a reset. Pure, and quick: it is done for every reset."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass

from rsttrace.model import Endpoint, Kind, Note, Reset

SENT = frozenset(kind for kind in Kind if kind.direction == "sent")

NO_SOCKET = frozenset({"no-socket", "no-connection", "listen"})
"""Causes of an answer to a packet for which there was no connection."""

REFUSED = frozenset({"no-listener", "connection-refused", "forwarded"})
"""Causes of the answer to a SYN, at each end and between."""


@dataclass(frozen=True)
class Question:
    """What is asked about one reset, of the namespace `netns` that made it.

    `what` is ``escaped``, ``rules`` or ``listeners``. `local` and `remote` are the reset's source
    and target there. `ack` is what the packet that drew it acknowledged, `seq` its own number;
    `handshake`: it was a SYN-ACK. `hook` is the netfilter hook, `loopback` whether the reset went
    out by lo. `time_ns` is the reset's (CLOCK_REALTIME). The same `key`, the same answer.
    """

    what: str
    netns: int
    identity: int | None
    local: Endpoint
    remote: Endpoint
    time_ns: int
    key: Hashable = None
    ack: int | None = None
    seq: int | None = None
    handshake: bool = False
    hook: str | None = None
    loopback: bool | None = None


@dataclass(frozen=True)
class Answer:
    """What the node knows. `complaints`: what could not be looked at so far, and why."""

    notes: tuple[Note, ...]
    complaints: tuple[str, ...] = ()


def question_key(
    reset: Reset, identity: Callable[[int], int | None] = lambda netns: None
) -> Hashable:
    """What is to be asked about a reset; ``None``: nothing is.

    The same of two resets: one answer serves both. A later namespace with the same inode number is
    another one: `identity` gives that of one that is not the reset's own (see
    `Reset.netns_identity`), if it is known.
    """
    made, rst = reset.made_here, reset.rst
    if reset.kind in SENT:
        kind, netns, hook = reset.kind, reset.netns, reset.hook
    elif made is not None and made.source == rst.src.ip:  # as it left: nothing translated it
        kind, netns, hook = made.kind, made.netns, made.hook
    else:
        return None
    if netns is None:
        return None
    which = reset.netns_identity if netns == reset.netns else identity(netns)
    source, target = rst.src, rst.dst
    if kind is Kind.SENT_NETFILTER:
        return "rules", netns, which, source.ip, source.port, target.ip, hook
    if kind is not Kind.SENT_PASSIVE:
        return None
    cause = reset.cause.name
    if "A" in rst.flags:  # the answer to a SYN (RFC 9293 §3.10.7.1)
        return ("listeners", netns, which, source.ip, source.port) if cause in REFUSED else None
    if reset.kind is kind and cause not in NO_SOCKET:
        return None
    return "escaped", netns, which, source.ip, source.port, target.ip, target.port, rst.seq


def is_of_a_moment(key: Hashable) -> bool:
    """Whether an answer is for those who ask together alone: rules may be others a moment later."""
    return isinstance(key, tuple) and key[0] == "rules"


def question_about(reset: Reset, key: Hashable) -> Question:
    """The question that has a key, about a reset."""
    assert isinstance(key, tuple)
    what, netns, identity, *_ = key
    made, rst, trigger = reset.made_here, reset.rst, reset.trigger
    sent = reset.kind in SENT
    hook = reset.hook if sent or made is None else made.hook
    # What comes in by lo is answered by lo; what goes out may be answered there, too.
    tells = sent and reset.frame is not None and hook in ("input", "forward", "prerouting")
    # Its number is what the answered packet acknowledged.
    answered = trigger if trigger is not None and trigger.ack == rst.seq else None
    return Question(
        what,
        netns,
        identity,
        rst.src,
        rst.dst,
        reset.time_ns,
        key=key,
        ack=rst.seq,
        seq=None if answered is None else answered.seq,
        handshake=answered is not None and "S" in answered.flags,
        hook=hook,
        loopback=reset.frame.ifindex == 1 if tells and reset.frame is not None else None,
    )


def end_text(end: Endpoint) -> str:
    """``10.0.0.5:80`` or ``[2001:db8::5]:80``."""
    return f"[{end.ip}]:{end.port}" if ":" in end.ip else f"{end.ip}:{end.port}"
