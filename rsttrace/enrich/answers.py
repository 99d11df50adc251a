"""What a set of TTL-limited probes and the answers to them say about a path. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from rsttrace.model import FULL_TTL, Hop, ProbeAnswer, hops

NOT_THE_PEER = ("exceeded", "unreachable")
"""Kinds of answers that somebody else than the peer gave."""


@dataclass
class Probe:
    """A probe, and the answer if one came.

    `method` is what was sent: ``tcp``, ``udp``, ``icmp``; `flow` the round, which is `Answers`'s
    `rounds` for those with a whole TTL. `sent_ns` is of CLOCK_REALTIME, as the kernel stamps
    answers; `ends` of CLOCK_MONOTONIC in seconds: how long to wait.
    """

    method: str
    ttl: int
    flow: int
    sent_ns: int
    ends: float
    answer: ProbeAnswer | None = None


@dataclass(frozen=True)
class Answers:
    """The probes sent so far, from the address `source`, in `rounds` rounds and one beside them.

    That one is of probes with a whole TTL, which reach the peer however far it is. `probes` may
    grow meanwhile.
    """

    probes: Collection[Probe]
    source: str
    rounds: int

    def by_another(self, probe: Probe) -> ProbeAnswer | None:
        """What came back, unless this host said that it could not send: no hop said that."""
        answer = probe.answer
        own = answer is not None and (answer.kind, answer.ip) == ("unreachable", self.source)
        return None if own else answer

    def at(self, ttl: int) -> list[ProbeAnswer]:
        """The answers to probes with this TTL."""
        answers = (self.by_another(probe) for probe in self.probes if probe.ttl == ttl)
        return [answer for answer in answers if answer is not None]

    def distance(self) -> int | None:
        """The least TTL that reached the peer, whatever was sent."""
        return min(
            (
                probe.ttl
                for probe in self.probes
                if probe.flow < self.rounds and _from_peer(probe.answer)
            ),
            default=None,
        )

    def refusal(self) -> tuple[int, ProbeAnswer] | None:
        """The nearest device that says, in its own name, that the peer cannot be reached.

        This host only if it let nothing out: its firewall may reject one protocol of three. With
        the TTL of the probe.
        """
        heard = any(self.by_another(probe) is not None for probe in self.probes)
        found = [
            (probe.ttl, answer)
            for probe in self.probes
            if (answer := self.by_another(probe) if heard else probe.answer) is not None
            and answer.kind == "unreachable"
        ]
        return min(found, key=lambda item: item[0], default=None)

    def end(self) -> int | None:
        """The TTL behind the last router: where the peer is, or behind the one that refuses.

        A router that has no way on says so before it looks at the TTL (ip_route_input_slow comes
        before ip_forward), others after: then it has a number already.
        """
        distance, refusal = self.distance(), self.refusal()
        if distance is not None:
            return distance
        if refusal is None or refusal[0] == FULL_TTL:  # nearer ones may be rate-limited
            return None
        ttl, answer = refusal
        if answer.ip == self.source:  # nothing left: the next hop's MAC is not to be had
            return 1
        known = any(item.ip == answer.ip for item in self.at(ttl - 1))
        return ttl if known else ttl + 1

    def routers(self) -> tuple[Hop, ...]:
        """The hops before the peer, else up to one behind the last that answered."""
        distance = self.distance()
        found: dict[int, list[Probe]] = {}
        for probe in self.probes:
            if probe.flow < self.rounds and (distance is None or probe.ttl < distance):
                found.setdefault(probe.ttl, []).append(probe)
        end = self.end()
        if end is None:
            heard = [ttl for ttl, sent in found.items() if any(map(self.by_another, sent))]
            end = max(heard, default=0) + 1
        return tuple(self._router(number, found.get(number, [])) for number in range(1, end))

    def _router(self, number: int, sent: list[Probe]) -> Hop:
        answers = map(self.by_another, sent)
        return Hop(number, _syns(sent), tuple(answer for answer in answers if answer is not None))

    def peer(self) -> Hop | None:
        """The peer's own answers; ``None``: it gave none."""
        distance = self.distance()
        sent = [
            probe
            for probe in self.probes
            if probe.ttl == distance or (distance is None and probe.flow == self.rounds)
        ]
        answers = [probe.answer for probe in sent if _from_peer(probe.answer)]
        found = tuple(answer for answer in answers if answer is not None)
        return Hop(distance or 0, _syns(sent), found) if found else None

    def echo_hops(self) -> int | None:
        """How many routers the peer's echo reply to a whole TTL passed; ``None``: none came."""
        for probe in self.probes:
            answer = probe.answer
            if answer is not None and (answer.kind, probe.ttl) == ("echo", FULL_TTL):
                return None if answer.ttl is None else hops(answer.ttl)
        return None


def _from_peer(answer: ProbeAnswer | None) -> bool:
    return answer is not None and answer.kind not in NOT_THE_PEER


def _syns(sent: list[Probe]) -> int:
    return sum(probe.method == "tcp" for probe in sent)
