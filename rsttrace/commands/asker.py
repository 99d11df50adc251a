"""``--probe``: asks the peers of doubtful resets beside a trace, and has them judged again."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from rsttrace.commands.jobs import Worker
from rsttrace.enrich import Neighbors, NetnsDirectory
from rsttrace.enrich.asking import ask_distance
from rsttrace.enrich.holders import find_holders
from rsttrace.enrich.target import Target
from rsttrace.judge.questions import Question, question
from rsttrace.model import Probed, Reset, Verdict

OWN_NS = 10_000_000_000
"""For so long after a question the resets that it causes are known for what they are."""

OWN_KEPT = 1024
"""So many of our ports are remembered; a question takes three."""

_Flow = tuple[int, str, int]  # our port, the peer's address and port


@dataclass(frozen=True)
class AskJob:
    """A question, and the reset that it is about."""

    question: Question
    reset: Reset
    netns: int


class Asker(Worker[AskJob, Probed]):
    """Asks peers how far away they are, each once in `EVERY_S`.

    Attributes:
        unanswered: how many of those asked gave no answer.
        answered: how many gave one.
        refused: whether this process may not ask at all; then nobody is asked any more.
    """

    def __init__(self) -> None:
        super().__init__(self._do, "rsttrace-probe")
        self._own: OrderedDict[_Flow, int] = OrderedDict()
        self._lock = threading.Lock()
        self.unanswered = 0
        self.answered = 0
        self.refused = False

    def ask(self, reset: Reset, verdict: Verdict) -> bool:
        """Ask the peer of a reset, if that may settle who made it and it is its turn.

        True if it will be asked.
        """
        if self.refused:
            return False
        asked = question(reset, verdict)
        if asked is None or reset.netns is None:
            return False
        return self.put((reset.netns, asked.ip), AskJob(asked, reset, reset.netns))

    def count(self, probed: Probed) -> None:
        """Count a peer that was asked."""
        if probed.ttl is None and not probed.macs:
            self.unanswered += 1
        else:
            self.answered += 1

    def is_own(self, reset: Reset) -> bool:
        """Whether a reset is of a question's SYN: our kernel's answer to an answer, or the peer's.

        Our kernel knows nothing of that SYN, and so resets what comes back (tcp_v4_send_reset).
        On its way that may be seen in several of this node's namespaces, the peer's too.
        """
        local, remote = reset.local, reset.remote
        with self._lock:
            asked_ns = self._own.get(
                (local.port, remote.ip, remote.port),
                self._own.get((remote.port, local.ip, local.port)),
            )
        return asked_ns is not None and abs(reset.time_ns - asked_ns) <= OWN_NS

    def note(self, ports: list[int], ip: str, port: int, time_ns: int) -> None:
        """Remember that SYNs go from these ports of ours to a peer's, at a CLOCK_REALTIME."""
        with self._lock:
            for own in ports:
                self._own[own, ip, port] = time_ns
                self._own.move_to_end((own, ip, port))
            while len(self._own) > OWN_KEPT:
                self._own.popitem(last=False)

    def _do(
        self,
        job: AskJob,
        directory: NetnsDirectory,
        neighbors: Neighbors,
        stopped: Callable[[], bool],
    ) -> Probed:
        """Ask.

        Raises:
            RsttraceError: see `rsttrace.enrich.asking.ask_distance` and
                `rsttrace.enrich.holders.find_holders`; the namespace is gone.
        """
        asked, netns_path = job.question, directory.way_into(job.netns)
        if asked.on_link and asked.ifindex is not None:
            macs, sent = find_holders(
                asked.ip, asked.ifindex, netns_path=netns_path, stopped=stopped
            )
            return _held(asked.ip, macs, sent)
        return ask_distance(
            _target(asked),
            asked.ttl,
            netns_path=netns_path,
            stopped=stopped,
            announce=lambda ports: self.note(ports, asked.ip, asked.port or 0, time.time_ns()),
        )


def _target(asked: Question) -> Target:
    """The peer as a socket takes it; a link-local address needs its interface (RFC 4007 §6)."""
    if ":" not in asked.ip:
        return Target(asked.ip, asked.port or 0, 4, (asked.ip, 0))
    scope = asked.ifindex or 0 if asked.ip.startswith("fe80:") else 0
    return Target(asked.ip, asked.port or 0, 6, (asked.ip, 0, 0, scope))


def _held(ip: str, macs: dict[str, int], sent: int) -> Probed:
    """What the link said of who has an address."""
    method = "nd" if ":" in ip else "arp"
    questions = "neighbour solicitations" if ":" in ip else "ARP requests"
    found = tuple(macs)
    shown = ", ".join(found[:4]) or "nobody"
    verb = "says" if len(found) < 2 else "say"
    text = f"to {sent} {questions} {shown} {verb} to have {ip}"
    return Probed(method, None, found[0] if found else None, time.time_ns(), text, macs=found)
