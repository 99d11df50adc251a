"""What was seen being made, or never sent: it decides alone. Pure."""

from __future__ import annotations

from typing import Any

from rsttrace.model import Author, Fate, Kind, Origin, Reset
from rsttrace.model.record import record

SENT_HOW = {
    Kind.SENT_PASSIVE: "the TCP stack answered a segment",
    Kind.SENT_ACTIVE: "the TCP stack reset a socket of this host",
    Kind.SENT_NETFILTER: "a firewall rule of this host rejected a packet",
    Kind.SENT_RAW: "a process wrote it through a raw or packet socket",
}

ANSWERED_HERE = "answered-here"
"""The note that a namespace of this node answered for a connection which another host carried."""


@record
class Proof:
    """What decides alone: who made it (None: all that is known is whether it was the peer)."""

    rule: str
    origin: Origin
    author: Author | None
    text: str
    values: dict[str, Any]


def proof(reset: Reset) -> Proof | None:
    """The proof that there is, if any: this node's own before the other end's."""
    if reset.kind.direction == "sent":
        text = f"seen leaving this namespace: {SENT_HOW[reset.kind]}"
        if reset.file is not None:
            text = (
                "in the name of the end that the capture was made for, from as near as its packets"
            )
        return Proof("sent-hook", Origin.LOCAL, None, text, {})
    return made_here(reset) or other_end(reset)


def made_here(reset: Reset) -> Proof | None:
    """This node itself made the packet: seen leaving, not inferred."""
    made = reset.made_here
    if made is None:
        return None
    where = f"netns {made.netns_name or made.netns}"
    who = f"{made.comm}[{made.pid}]" if made.comm is not None else None
    values = {"netns": made.netns, "kind": made.kind.value, "pid": made.pid}
    if made.kind is Kind.SENT_NETFILTER:
        chain = f", {made.hook} hook" if made.hook else ""
        if made.owns_source:
            text = f"the peer's own firewall, on this node, made it ({where}{chain})"
            return Proof("made-here", Origin.PEER, Author.PEER_FIREWALL, text, values)
        text = f"this node's own firewall made it ({where}{chain})"
        return Proof("made-here", Origin.FORGED, Author.REJECT, text, values)
    if made.kind is Kind.SENT_RAW:
        text = f"a process of this node wrote it through a raw socket ({who or 'unknown'}, {where})"
        author = Author.PEER_RAW if made.owns_source else Author.INJECTOR
        return Proof("made-here", Origin.FORGED, author, text, values)
    if made.owns_source is False:
        text = f"this node's own TCP stack sent it in the peer's name, as a proxy does ({where})"
        return Proof("made-here", Origin.FORGED, Author.BALANCER, text, values)
    if any(note.name == ANSWERED_HERE for note in reset.notes):
        text = f"this node's own TCP stack answered in the peer's place ({where})"
        return Proof("made-here", Origin.FORGED, Author.BALANCER, text, values)
    text = f"this node's own TCP stack sent it ({where}{', ' + who if who else ''})"
    live = made.kind is Kind.SENT_ACTIVE
    author = Author.PEER_SOCKET if live else Author.PEER_HOST
    return Proof("made-here", Origin.PEER, author, text, values)


def other_end(reset: Reset) -> Proof | None:
    """It was seen leaving the peer at another vantage point, or never left there."""
    other = reset.other_end
    if other is None:
        return None
    there, values = _there(reset)
    at = "" if other.frame is None else f", frame {other.frame}"
    if other.fate is Fate.LEFT and other.at_sender and other.firewall:
        text = f"the peer's own firewall made it: so says {there}"
        return Proof("other-end", Origin.PEER, Author.PEER_FIREWALL, text, values)
    if other.fate is Fate.LEFT and other.at_sender:
        text = f"the peer itself sent it: seen leaving there, at {there}{at}"
        return Proof("other-end", Origin.PEER, None, text, values)
    if other.fate is not Fate.NEVER_SENT or other.logged:
        return None  # that a log is whole cannot be seen from it
    text = f"never left {there}: {other.why}"
    if other.swapped_frame is not None:
        sure = "the same IP ID" if other.swapped_sure else "the same sequence number"
        text += f"; frame {other.swapped_frame} left there, with {sure}, and never arrived"
    elif other.trigger_arrived is False:
        text += "; our packet before it never arrived there"
    author = Author.SWAP if other.swapped_frame is not None else None
    return Proof("other-end", Origin.FORGED, author, text, values)


def other_end_words(reset: Reset) -> tuple[str, dict[str, Any]] | None:
    """What the other vantage point says that proves nothing; None where there is none."""
    other = reset.other_end
    if other is None:
        return None
    there, values = _there(reset)
    at = "" if other.frame is None else f", frame {other.frame}"
    text = {
        Fate.UNKNOWN: f"{there} cannot tell: {other.why}",
        Fate.ARRIVED: f"arrived at {there}{at}",
        Fate.NEVER_ARRIVED: f"never arrived at {there}, which was watching",
        Fate.LEFT: f"passed {there}{at}: made there or beyond",
    }.get(other.fate)
    if other.firewall and not other.at_sender:
        text = f"a firewall made it: so says {there}, which is not as far away as the peer"
    return None if text is None else (text, values)


def _there(reset: Reset) -> tuple[str, dict[str, Any]]:
    other = reset.other_end
    assert other is not None
    values = {
        "fate": other.fate.value,
        "point": str(other.point),
        "file": other.file,
        "frame": other.frame,
        "trigger_arrived": other.trigger_arrived,
        "swapped_frame": other.swapped_frame,
        "position": other.where or None,
    }
    return f"{other.point} ({other.file.rpartition('/')[2]})", values
