"""Packets that escaped NAT: a socket waits for an answer, which comes from another address.

A host answers with a RST, for it has no such connection. But it has one with that local port, to
the address that the answer should have been translated to: a service's, mostly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Optional

from rsttrace.enrich import conntrack, sockdiag
from rsttrace.enrich.owner import Owners
from rsttrace.enrich.question import Question, end_text
from rsttrace.enrich.spaces import Spaces
from rsttrace.errors import RsttraceError
from rsttrace.model import Endpoint, Half, Note
from rsttrace.tcp import distance

Learned = Callable[[int, Endpoint, Endpoint], tuple[Optional[Half], Optional[Half]]]
"""What the kernel side has learned of a connection in the namespace with an identity: the packets
of its local end, and those of the other one."""

BEHIND = 1 << 22
"""So far an acknowledgement may lag behind what was sent, and a segment be from what was received:
4 MiB, more than a connection has under way. A stray packet's two numbers are both within it once in
a million times."""


@dataclass(frozen=True)
class Found:
    """The connection that a packet belongs to.

    `local` and `remote` are its ends as its host knows them, `proof` is how that is known:
    ``conntrack``, ``sequence``, or ``None`` (it may be). `tracked` is the entry of connection
    tracking, in the namespace `netns`, which is `strict` about packets out of window.
    """

    local: Endpoint
    remote: Endpoint
    proof: str | None
    tracked: conntrack.Tracked | None = None
    netns: int | None = None
    strict: bool | None = None


class Escapes:
    """Finds the connections of answers that were not translated back."""

    def __init__(self, spaces: Spaces, owners: Owners, learned: Learned | None) -> None:
        self._spaces = spaces
        self._owners = owners
        self._learned = learned

    def notes(self, question: Question) -> tuple[Note, ...]:
        """The note, if there is such a connection.

        Raises:
            RsttraceError: the namespace is gone, or cannot be entered.
            OSError: the kernel refuses.
        """
        sockets = self._spaces.enter(question.netns, question.identity, lambda: _near(question))
        found = self._here(question, sockets) or self._there(question, sockets)
        if found is None:
            return ()
        owner = _owner(found, sockets)
        return (self._note(question, found, owner),)

    def _here(self, question: Question, sockets: list[sockdiag.InetSocket]) -> Found | None:
        """What this namespace translates itself. Its interfaces see the translated addresses."""
        found = self._tracked(question, question.netns, question.identity)
        if found is None or self._fits(question, question.local, question.remote) is False:
            return None
        # An entry outlives its connection: then the socket is gone.
        return found if found.local != question.local or _owner(found, sockets) else None

    def _there(self, question: Question, sockets: list[sockdiag.InetSocket]) -> Found | None:
        """One of the sockets here, whose packets another namespace or machine translates."""
        fits = [self._fits(question, one.local, one.remote) for one in sockets]
        mine = [one for one, fit in zip(sockets, fits) if fit]
        left = mine[:1] or [one for one, fit in zip(sockets, fits) if fit is None]
        if not left:
            return None
        tracked = self._elsewhere(question, left)
        if mine:
            found = Found(mine[0].local, mine[0].remote, "sequence")
            if tracked is None:
                return found
            return replace(
                found, tracked=tracked.tracked, netns=tracked.netns, strict=tracked.strict
            )
        if tracked is not None:
            return tracked
        # Nobody knows its number: the one socket that waits for a SYN-ACK on this port.
        if question.handshake and [one.state for one in sockets] == ["SYN_SENT"]:
            return Found(left[0].local, left[0].remote, None)
        return None

    def _tracked(self, question: Question, netns: int, identity: int | None) -> Found | None:
        """What a namespace's connection tracking knows the answered packet to be an answer to."""

        def ask() -> tuple[conntrack.Tracked | None, bool | None]:
            return conntrack.answering(question.remote, question.local), conntrack.is_strict()

        try:
            entry, strict = self._spaces.enter(netns, identity, ask)
        except (OSError, RsttraceError):
            return None
        if entry is None or (entry.source, entry.target) == (question.local, question.remote):
            return None
        # It is found by the addresses of either direction.
        if (entry.reply_source, entry.reply_target) != (question.remote, question.local):
            return None
        return Found(entry.source, entry.target, "conntrack", entry, netns, strict)

    def _elsewhere(self, question: Question, sockets: list[sockdiag.InetSocket]) -> Found | None:
        """The same of another namespace, for one of the sockets here."""
        for netns in self._spaces.others(question.netns):
            found = self._tracked(question, netns, None)
            if found is not None and _owner(found, sockets) is not None:
                return found
        return None

    def _fits(self, question: Question, local: Endpoint, remote: Endpoint) -> bool | None:
        """Whether a packet's numbers are those of a connection here; None: it is not known."""
        if self._learned is None or question.identity is None or question.ack is None:
            return None
        ours, theirs = self._learned(question.identity, local, remote)
        if ours is None or ours.end is None:
            return None
        lag = distance(question.ack, ours.end)
        if theirs is None or theirs.end is None:
            return lag == 0
        if question.seq is None:
            return None
        return 0 <= lag < BEHIND and abs(distance(question.seq, theirs.end)) < BEHIND

    def _note(self, question: Question, found: Found, owner: sockdiag.InetSocket | None) -> Note:
        process = None
        if owner is not None and owner.inode is not None:
            process = self._owners.process(owner.inode, question.netns)
        came, expected = end_text(question.remote), end_text(found.remote)
        whose = f"{end_text(found.local)} -> {expected}"
        inside = [self._spaces.label(question.netns)]
        if process is not None:
            inside.insert(0, f"{process[1]}[{process[0]}]")
        if owner is not None:
            inside.append(owner.state)
        may = "" if found.proof else "may "
        verb = "belongs" if found.proof else "belong"
        if found.remote != question.remote:
            what = f"its answer came from {came} instead of {expected}: it was not translated back"
        else:
            what = (
                f"the answer, to {end_text(question.local)}, was not translated back to "
                f"{end_text(found.local)}"
            )
        text = f"the packet {may}{verb} to {whose} ({', '.join(inside)}): {what}"
        if found.strict and found.netns is not None:
            place = self._spaces.label(found.netns)
            text += f"; {place} translates, with net.netfilter.nf_conntrack_tcp_be_liberal = 0"
        return Note("escaped-nat", text, self._values(question, found, owner, process))

    def _values(
        self,
        question: Question,
        found: Found,
        owner: sockdiag.InetSocket | None,
        process: tuple[int, str] | None,
    ) -> dict[str, Any]:
        entry = found.tracked
        return {
            "came_from": end_text(question.remote),
            "expected_from": end_text(found.remote),
            "connection": {"local": end_text(found.local), "remote": end_text(found.remote)},
            "state": owner.state if owner is not None else None,
            "pid": process[0] if process is not None else None,
            "comm": process[1] if process is not None else None,
            "netns": question.netns,
            "netns_name": self._spaces.name(question.netns),
            "known_by": found.proof,
            "conntrack": None
            if entry is None or found.netns is None
            else {
                "netns": found.netns,
                "netns_name": self._spaces.name(found.netns),
                "original": [end_text(entry.source), end_text(entry.target)],
                "reply": [end_text(entry.reply_source), end_text(entry.reply_target)],
                "strict": found.strict,
            },
        }


def _near(question: Question) -> list[sockdiag.InetSocket]:
    """Connected sockets with the reset's own address and port, to others."""
    local, remote = question.local, question.remote
    listing = sockdiag.sockets(sockdiag.CONNECTED, sport=local.port)
    if not listing.whole:  # a server's: only those that differ in their address
        listing = sockdiag.sockets(sockdiag.CONNECTED, sport=local.port, dport=remote.port)
    return [one for one in listing.sockets if one.local == local and one.remote != remote]


def _owner(found: Found, sockets: list[sockdiag.InetSocket]) -> sockdiag.InetSocket | None:
    """The socket of a connection, if it is among these."""
    ends = (found.local, found.remote)
    return next((one for one in sockets if (one.local, one.remote) == ends), None)
