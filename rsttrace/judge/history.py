"""Keeps resets for a while, so that what comes later can change their verdict.

The one thing in `judge` with a memory. It puts each reset among its neighbours (earlier and later
RSTs of the same flow, what the peer went on to send, RSTs of other addresses, health checks that
come again and again) and asks for a verdict when it is due, and again when something new came in.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from rsttrace.judge import facts
from rsttrace.judge.findings import looks_like_check
from rsttrace.judge.observe import SAME_COUNTER
from rsttrace.judge.verdict import judge
from rsttrace.judge.why import opened_here, race
from rsttrace.model import (
    Endpoint,
    Kind,
    LatePacket,
    Origin,
    Other,
    Packet,
    Peer,
    Probed,
    Race,
    Reset,
    Seen,
    Upstream,
    Verdict,
    hops,
)
from rsttrace.model.record import SLOTS
from rsttrace.model.shift import shift, shifted
from rsttrace.tcp import seen_packet

Row = TypeVar("Row")

SIBLINGS = 8
"""How many RSTs of one flow are kept, and how many later packets of each."""

SIBLING_NS = 60_000_000_000
"""RSTs of one tuple that are farther apart in time belong to different connections."""

STRANGERS = 64
"""How many RSTs of other addresses are kept per namespace."""

NEIGHBOURHOODS = 64
"""How many namespaces (or files) have such a list, the last used: 4,096 resets at most."""

GATEWAYS = 1024
"""How many MACs are remembered that pass packets on without taking off their TTL."""

CHECKS, CHECKS_KEPT = 3, 4
"""How many health checks in a row show a period, and how many are looked at."""

PERIOD_SLACK = 0.1
"""By how much intervals may differ from their mean and still be periodic. Of three checks at random
times one time in ten would be."""

RACES = 2
"""So many connections that one end closed after the same silence show an idle timeout."""

RACE_SLACK = 0.1
"""By how much two silences may differ and be one timeout: timers that look only now and then."""

PASSED_ON_NS = 100_000_000
"""So soon a proxy passes the end of one connection on to the other."""

CLOCK_SLACK_NS = 1_000_000
"""What one moment's wall-clock time may differ by when it is told twice (the offset is measured
anew each time)."""

PROBED_NS = 60_000_000_000
"""What a peer answered holds for the resets of a minute before and after: so often it is asked."""

MATERIAL = 0.02
"""A change of confidence that is worth another line."""

Key = tuple[object, str, int, str, int]


def _key(identity: object, packet: Packet) -> Key:
    return identity, packet.src.ip, packet.src.port, packet.dst.ip, packet.dst.port


def _identity(item: Reset | LatePacket) -> object:
    return item.netns_identity if item.netns_identity is not None else item.file


@dataclass(**SLOTS)
class Case:
    """One reset under judgement.

    `entry` is the id of the entry that first showed it, if any; `unwanted`: it was filtered then.
    `forgotten`: its verdict does not change any more. Of a verdict given earlier only what a change
    is told by is kept.
    """

    reset: Reset
    due_ns: int
    verdict: Verdict | None = None
    entry: int | None = None
    touched: bool = False
    unwanted: bool = False
    forgotten: bool = False

    def judged(self, verdict: Verdict) -> None:
        """This is its verdict now."""
        self.verdict, self.touched = verdict, False

    def decided(self, decide: Callable[[Reset], Verdict]) -> Verdict:
        """A verdict on it; what was worked out for that is not kept: it waits for long, perhaps."""
        verdict = decide(self.reset)
        for reset in (self.reset, *self.reset.siblings):
            reset.memo.clear()
        return verdict

    def let_go(self) -> None:
        """It is forgotten: resets of one connection hold each other, and are let go of at once."""
        self.forgotten = True
        if self.verdict is not None:
            self.reset.siblings = ()


class History:
    """Resets that wait for their verdict, and those whose verdict may still change.

    `hold_ns`: how long a verdict waits for late evidence. `size`: how many resets may wait, and how
    many are remembered; beyond it the oldest are judged at once, and forgotten. `decide` gives the
    verdict.
    """

    def __init__(
        self,
        hold_ns: int = 0,
        size: int = 4096,
        decide: Callable[[Reset], Verdict] = judge,
    ) -> None:
        self._hold_ns = hold_ns
        self._size = size
        self._decide = decide
        self._waiting: deque[Case] = deque()
        self._flows: OrderedDict[Key, list[Case]] = OrderedDict()
        self._remembered = 0  # cases in _flows
        self._strangers: OrderedDict[object, deque[Case]] = OrderedDict()
        self._peers: OrderedDict[tuple[object, str], list[Case]] = OrderedDict()
        self._sent: OrderedDict[Key, int] = OrderedDict()
        self._ended: OrderedDict[Key, int] = OrderedDict()
        self._lost: OrderedDict[Key, int] = OrderedDict()
        self._gateways: OrderedDict[tuple[object, str], None] = OrderedDict()
        self._checks: OrderedDict[tuple[object, str, str, int], deque[int]] = OrderedDict()
        self._races: OrderedDict[tuple[object, str, str, int], list[Case]] = OrderedDict()
        self._probed: OrderedDict[tuple[object, str], Probed] = OrderedDict()
        self._failed: OrderedDict[int, Upstream] = OrderedDict()
        self._anew: list[Case] = []
        self._told: list[Case] = []

    def add(self, item: Reset | LatePacket, now_ns: int) -> Case | None:
        """Take in what a source gave, in order of time. `now_ns`: of the clock that `due` reads.

        Of a reset, returns its case.
        """
        if isinstance(item, LatePacket):
            self._add_late(item)
            return None
        case = Case(item, now_ns + self._hold_ns)
        self._waiting.append(case)
        self._note_check(item)
        if item.kind.direction == "sent":
            item.we_reset_ns = self._when_reset(self._ended, item, item.rst.src, item.rst.dst)
            item.ended_ns = self._when_reset(self._lost, item, item.rst.dst, item.rst.src)
            self._note_sent(item)
            self._note_race(case)
            item.upstream = self._upstream(item)
        else:
            self._note_gateway(item)
            item.we_reset_ns = self._when_reset(self._sent, item, item.rst.dst, item.rst.src)
            self._note_race(case)
            self._note_probed(item)
            self._note_failed(item)
            if item.kind is Kind.RECEIVED_ACCEPTED:
                self._note_time(self._lost, item)
            self._join_flow(case)
            self._join_peer(case)
            self._join_strangers(case)
        return case

    def date_was_set(self, by_ns: int) -> None:
        """Move all that is remembered to a date that was set meanwhile (back: negative)."""
        known = (*self._flows.values(), *self._peers.values(), *self._races.values())
        cases = [*self._waiting, *self._anew, *(case for found in known for case in found)]
        cases += [case for found in self._strangers.values() for case in found]
        shift((case.reset for case in cases), by_ns)
        for table in (self._sent, self._ended, self._lost):
            table.update((key, time_ns + by_ns) for key, time_ns in table.items())
        for times in self._checks.values():
            for _ in range(len(times)):  # once around
                times.append(times.popleft() + by_ns)
        self._probed.update((key, shifted(was, by_ns)) for key, was in self._probed.items())
        self._failed.update((pid, shifted(was, by_ns)) for pid, was in self._failed.items())

    def noted(self, case: Case) -> None:
        """More is known about why (`Reset.notes`): judge it anew if it has been judged."""
        self._touch(case)

    def answered(self, reset: Reset, probed: Probed) -> None:
        """Take in what the peer of a reset answered when it was asked (``--probe``).

        It counts for all resets of that peer in that namespace (or file) of the last minute, and
        for those of the next.
        """
        peer = (_identity(reset), reset.rst.src.ip)
        self._probed[peer] = probed
        self._probed.move_to_end(peer)
        if len(self._probed) > self._size:
            self._probed.popitem(last=False)
        for key, cases in self._flows.items():
            if key[:2] != peer:
                continue
            for case in cases:
                if abs(probed.time_ns - case.reset.time_ns) <= PROBED_NS:
                    case.reset.probed = probed
                    self._touch(case)

    def due(self, now_ns: int | None = None) -> Iterator[Case]:
        """Cases to be shown: those whose time has come (all if None), then changed verdicts.

        A case comes again only when its verdict has materially changed; its `entry` tells whether
        it has been shown.
        """
        told, self._told = self._told, []
        for case in told:
            if case.verdict is not None:
                case.verdict = _outline(case.verdict)
        while self._waiting and (
            now_ns is None or self._waiting[0].due_ns <= now_ns or len(self._waiting) > self._size
        ):
            case = self._waiting.popleft()
            case.judged(case.decided(self._decide))
            if case.forgotten:
                case.let_go()
            self._told.append(case)
            yield case
        anew, self._anew = self._anew, []
        for case in anew:
            if not case.touched or case.verdict is None:
                continue  # decided just now, or still waiting
            verdict = case.decided(self._decide)
            case.touched = False
            if _changed(case.verdict, verdict):  # against the one given last: small steps add up
                case.judged(verdict)
                self._told.append(case)
                yield case

    def next_due_ns(self) -> int | None:
        """When the next case is due; None if none waits."""
        return self._waiting[0].due_ns if self._waiting else None

    def _touch(self, case: Case) -> None:
        if not case.touched and not case.forgotten:
            case.touched = True
            self._anew.append(case)

    def _touch_flow(self, case: Case) -> None:
        """What is new of one RST counts for those of its connection that were made like it."""
        reset = case.reset
        for other in self._flows.get(_key(_identity(reset), reset.rst), (case,)):
            self._touch(other)

    def _add_late(self, late: LatePacket) -> None:
        identity = _identity(late)
        if late.handshake:
            self._meet_again(identity, late)
            return
        seen = seen_packet(late.packet, late.time_ns, late.mac)
        for case in self._flows.get(_key(identity, late.packet), ()):
            self._follow(case, seen)

    def _meet_again(self, identity: object, late: LatePacket) -> None:
        """The peer of a reset shook hands on another connection: that tells where it is."""
        packet = late.packet
        for case in self._peers.get((identity, packet.src.ip), ()):
            baseline = case.reset.baseline
            known = baseline.peer.ttls if baseline.peer is not None else ()
            if packet.ttl in known or len(known) >= SIBLINGS:
                continue
            peer = Peer(
                ttls=(*known, packet.ttl),
                syn_ttl=baseline.peer.syn_ttl if baseline.peer is not None else packet.ttl,
                syn_options=packet.options,
                syn_window=packet.window or 0,
                df=packet.df,
                mac=late.mac,
                time_ns=late.time_ns,
            )
            case.reset.baseline = replace(baseline, peer=peer)
            self._touch(case)

    def _follow(self, case: Case, seen: Seen) -> None:
        reset = case.reset
        after_ns = seen.time_ns - reset.time_ns
        if -CLOCK_SLACK_NS <= after_ns <= SIBLING_NS and len(reset.later) < SIBLINGS:
            reset.later = (*reset.later, seen)
            self._touch(case)

    def _join_flow(self, case: Case) -> None:
        reset = case.reset
        key = _key(_identity(reset), reset.rst)
        cases = self._flows.pop(key, [])
        self._remembered -= len(cases)
        reset.our_acks = facts.our_acks(reset)
        if cases:
            cases = [one for one in cases if _same_connection(one.reset, reset)]
            cases = _kept(cases, SIBLINGS - 1, lambda one: one.reset)
            self._join_earlier(case, cases)
        self._flows[key] = [*cases, case]
        self._remembered += len(cases) + 1
        while self._remembered > self._size and len(self._flows) > 1:
            forgotten = self._flows.popitem(last=False)[1]
            self._remembered -= len(forgotten)
            for other in forgotten:
                other.let_go()

    def _join_earlier(self, case: Case, cases: list[Case]) -> None:
        """Put a RST among the earlier ones of its connection."""
        reset = case.reset
        this = seen_packet(reset.rst, reset.time_ns, _mac(reset))
        acks = reset.our_acks.union(*(facts.our_acks(other.reset) for other in cases))
        reset.our_acks = acks
        for other in cases:
            other.reset.our_acks = acks
            other.reset.siblings = tuple(
                _kept([*other.reset.siblings, reset], SIBLINGS, lambda one: one)
            )
            self._follow(other, this)
            self._touch(other)
        reset.siblings = tuple(other.reset for other in cases)
        reset.earlier = tuple(
            seen_packet(other.reset.rst, other.reset.time_ns, _mac(other.reset))
            for other in reversed(cases)
        )

    def _join_peer(self, case: Case) -> None:
        key = (_identity(case.reset), case.reset.rst.src.ip)
        cases = self._peers.pop(key, [])
        cases.append(case)
        if len(cases) > SIBLINGS:
            del cases[0]
        self._peers[key] = cases
        if len(self._peers) > self._size:
            self._peers.popitem(last=False)

    def _note_sent(self, reset: Reset) -> None:
        """Remember that we reset a connection: its other end may answer for want of a socket.

        And, of a socket's own reset, that it is gone: an answer for want of one ended nothing.
        """
        tables = [self._sent, self._ended] if reset.kind is Kind.SENT_ACTIVE else [self._sent]
        for table in tables:
            self._note_time(table, reset)

    def _note_time(self, table: OrderedDict[Key, int], reset: Reset) -> None:
        """Remember when the first of a connection's RSTs came, of those that such a table has."""
        key = _key(_identity(reset), reset.rst)
        known = table.pop(key, None)
        newer = known is None or reset.time_ns - known > SIBLING_NS
        table[key] = reset.time_ns if newer or known is None else known
        if len(table) > self._size:
            table.popitem(last=False)

    @staticmethod
    def _when_reset(
        resets: Mapping[Key, int], reset: Reset, us: Endpoint, peer: Endpoint
    ) -> int | None:
        """When we had reset this connection ourselves; None: not that we know."""
        half = reset.baseline.theirs
        when = resets.get((_identity(reset), us.ip, us.port, peer.ip, peer.port))
        if when is None or not 0 <= reset.time_ns - when <= SIBLING_NS:
            return None
        begun = half.syn_ns if half is not None else None
        return None if begun is not None and begun > when else when  # an earlier connection's

    def _note_race(self, case: Case) -> None:
        """Remember after how long a service closes idle connections, and when they are used again.

        Once that recurs, every reset of that service that it explains says so.
        """
        found = race(case.reset)
        if found is None:
            return
        reset = case.reset
        service = reset.local if found.by == "local" else reset.remote
        key = (_identity(reset), found.by, service.ip, service.port)
        cases = [*self._races.pop(key, ()), case][-SIBLINGS:]
        self._races[key] = cases
        if len(self._races) > self._size:
            self._races.popitem(last=False)
        alike = [other for other in cases if _recurs(found, race(other.reset))]
        clients = {_client(other.reset, found.by): race(other.reset) for other in alike}
        if len(clients) < RACES:
            return
        races = tuple(one for one in clients.values() if one is not None)
        for other in alike:
            if not other.reset.races:
                self._touch(other)
            other.reset.races = races

    def _note_failed(self, reset: Reset) -> None:
        """Remember that a connection which a process had opened was reset."""
        pid = reset.process.pid if reset.process is not None else None
        if pid is None or reset.kind is not Kind.RECEIVED_ACCEPTED or not opened_here(reset):
            return
        refused = reset.cause.name == "connection-refused"
        self._failed.pop(pid, None)
        self._failed[pid] = Upstream(reset.remote, reset.time_ns, refused)
        if len(self._failed) > self._size:
            self._failed.popitem(last=False)

    def _upstream(self, reset: Reset) -> Upstream | None:
        """What had failed just before a process reset a connection that it had accepted."""
        process = reset.process
        pid = process.pid if process is not None and not process.listener else None
        if pid is None or reset.kind is not Kind.SENT_ACTIVE or opened_here(reset) is not False:
            return None
        found = self._failed.get(pid)
        if found is None or not 0 <= reset.time_ns - found.time_ns <= PASSED_ON_NS:
            return None
        return found if found.remote != reset.local else None  # its own service

    def _note_gateway(self, reset: Reset) -> None:
        """Remember routers that take nothing off the TTL (some clouds' do), and say so."""
        hop, half = reset.next_hop, facts.flow_half(reset)
        if hop is None or not hop.is_gateway or hop.mac is None:
            return
        key = (_identity(reset), hop.mac)
        full = half is not None and half.confirmed and half.syn_ttl is not None
        if full and half is not None and half.mac == hop.mac and not hops(half.syn_ttl or 1):
            self._gateways[key] = None
            if len(self._gateways) > GATEWAYS:
                self._gateways.popitem(last=False)
        reset.gateway_keeps_ttl = key in self._gateways

    def _note_probed(self, reset: Reset) -> None:
        """Give a reset what its peer has answered lately."""
        probed = self._probed.get((_identity(reset), reset.rst.src.ip))
        if probed is not None and abs(reset.time_ns - probed.time_ns) <= PROBED_NS:
            reset.probed = probed

    def _join_strangers(self, case: Case) -> None:
        reset = case.reset
        ip_id = reset.rst.ip_id
        if ip_id is None or ip_id <= 1:
            return
        strangers = self._strangers.pop(_identity(reset), None) or deque(maxlen=STRANGERS)
        self._strangers[_identity(reset)] = strangers
        if len(self._strangers) > NEIGHBOURHOODS:
            self._strangers.popitem(last=False)
        for stranger in strangers:
            other = stranger.reset
            assert other.rst.ip_id is not None
            near = (ip_id - other.rst.ip_id + SAME_COUNTER) & 0xFFFF <= 2 * SAME_COUNTER
            recent = reset.time_ns - other.time_ns <= SIBLING_NS
            if near and recent and other.rst.src.ip != reset.rst.src.ip:
                reset.others = (*reset.others, _other(other))[-SIBLINGS:]
                other.others = (*other.others, _other(reset))[-SIBLINGS:]
                self._touch_flow(stranger)
        strangers.append(case)

    def _note_check(self, reset: Reset) -> None:
        if not looks_like_check(reset):
            return
        rst = reset.rst
        key = (_identity(reset), rst.src.ip, rst.dst.ip, rst.dst.port)
        times = self._checks.pop(key, None) or deque(maxlen=CHECKS_KEPT)
        self._checks[key] = times
        if len(self._checks) > self._size:
            self._checks.popitem(last=False)
        times.append(reset.time_ns)
        if len(times) < CHECKS:
            return
        steps = [later - earlier for earlier, later in zip(times, list(times)[1:])]
        mean = sum(steps) / len(steps)
        if mean > 0 and all(abs(step - mean) <= PERIOD_SLACK * mean for step in steps):
            reset.period_s = mean / 1e9


def _recurs(one: Race, other: Race | None) -> bool:
    """Whether two connections were closed after the same silence."""
    longest = max(one.idle_ns, other.idle_ns) if other is not None else 0
    return other is not None and abs(one.idle_ns - other.idle_ns) <= RACE_SLACK * longest


def _client(reset: Reset, closed_by: str) -> Endpoint:
    """The end that used a connection which the other end had closed."""
    return reset.remote if closed_by == "local" else reset.local


def _mac(reset: Reset) -> str | None:
    return reset.frame.mac if reset.frame is not None else None


def _kept(rows: list[Row], most: int, reset_of: Callable[[Row], Reset]) -> list[Row]:
    """The last ones, and of each make the first one that counted: a socket's own reset comes before
    the answers to all that was on its way."""
    if len(rows) <= most:
        return rows
    firsts: dict[object, int] = {}
    for at, row in enumerate(rows):
        if reset_of(row).kind is Kind.RECEIVED_ACCEPTED:
            firsts.setdefault(facts.build(reset_of(row).rst), at)
    kept = set(list(firsts.values())[: most // 2])
    for at in range(len(rows) - 1, -1, -1):
        if len(kept) == most:
            break
        kept.add(at)
    return [rows[at] for at in sorted(kept)]


def _same_connection(earlier: Reset, later: Reset) -> bool:
    """Whether two RSTs of one tuple are of one connection: close in time, the same handshake."""
    if later.time_ns - earlier.time_ns > SIBLING_NS:
        return False
    for one, other in (
        (earlier.baseline.ours, later.baseline.ours),
        (earlier.baseline.theirs, later.baseline.theirs),
    ):
        begun = [
            half.syn_ns for half in (one, other) if half is not None and half.syn_ns is not None
        ]
        if len(begun) == 2 and abs(begun[0] - begun[1]) > CLOCK_SLACK_NS:
            return False
    return True


def _other(reset: Reset) -> Other:
    assert reset.rst.ip_id is not None
    return Other(reset.rst.src.ip, reset.time_ns, reset.rst.ip_id, reset.rst.ttl)


def _outline(verdict: Verdict) -> Verdict:
    """What `_changed` looks at of an earlier verdict."""
    asked = tuple([found for found in verdict.evidence if found.group == "asked"])
    return Verdict(
        verdict.origin,
        verdict.confidence,
        verdict.score,
        evidence=asked,
        findings=verdict.findings,
        authors=verdict.authors,
    )


def _changed(before: Verdict, after: Verdict) -> bool:
    if before.origin is not after.origin or before.findings != after.findings:
        return True
    if _has_answer(after) and not _has_answer(before) and _names_others(before, after):
        return True
    return abs((before.confidence or 0.0) - (after.confidence or 0.0)) >= MATERIAL


def _names_others(before: Verdict, after: Verdict) -> bool:
    """Whether it tells who it was otherwise, though no surer of whether that was the peer."""
    if after.origin is Origin.INCONCLUSIVE:
        return True
    was = {share.author: share.probability for share in before.authors}
    return any(
        abs(share.probability - was.get(share.author, 0.0)) >= MATERIAL
        for share in after.authors[:1]
    )


def _has_answer(verdict: Verdict) -> bool:
    """Whether the peer's answer to a question has told something."""
    return any(found.group == "asked" and found.weight for found in verdict.evidence)
