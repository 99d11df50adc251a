"""Asking a peer how far away it is, by one echo request or by a SYN to a port that has answered.

The answer's TTL tells the distance now. An answer with another TTL than the RST's may have taken
another way, for routers that balance choose it by flow: then two more are asked for, each a flow of
its own (its ICMP sequence number and checksum, its source port).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

from rsttrace.enrich.prober import Prober
from rsttrace.enrich.setns import inside
from rsttrace.enrich.target import Target
from rsttrace.model import FULL_TTL, ProbeAnswer, Probed, hops

WAIT_S = 1.0
"""How long to wait for an answer."""

MORE = 2
"""So many more questions where the first answer came from elsewhere than the RST."""

_ANSWERS = {"icmp": "echo", "tcp": "syn-ack"}
"""What only the peer's own stack sends; a RST may be by whoever made the one in question."""


def ask_distance(
    target: Target,
    rst_ttl: int,
    *,
    netns_path: str | None = None,
    stopped: Callable[[], bool] = lambda: False,
    announce: Callable[[list[int]], None] = lambda ports: None,
) -> Probed:
    """Ask a peer for its distance from a network namespace (default: our own).

    A `target` with port 0 has none that a SYN could be sent to. `rst_ttl` is that of the RST in
    question. `announce` is told our TCP ports of the question before anything is sent.

    Raises:
        RsttraceError: see `rsttrace.enrich.prober.Prober` and `inside`.
    """

    def run() -> Probed:
        with Prober(target, MORE, WAIT_S, stopped=stopped) as prober:
            announce(prober.ports)
            for method in ("icmp", "tcp") if target.port else ("icmp",):
                answers = _ask(prober, method, rst_ttl)
                if answers:
                    return answered(method, target, answers)
        return unanswered(target)

    return inside(netns_path, run)


def _ask(prober: Prober, method: str, rst_ttl: int) -> list[ProbeAnswer]:
    """One question, and two more if the answer has not the RST's TTL; the peer's answers."""
    sent = prober.send([(method, FULL_TTL, 0)])
    prober.wait(sent)
    if not any(_is_answer(probe.answer) for probe in sent):
        return []
    if sent[0].answer is not None and sent[0].answer.ttl != rst_ttl:
        sent += prober.send((method, FULL_TTL, flow) for flow in range(1, MORE + 1))
        prober.wait(sent)
    return [probe.answer for probe in sent if probe.answer and _is_answer(probe.answer)]


def _is_answer(answer: ProbeAnswer | None) -> bool:
    if answer is None or answer.ttl is None:
        return False
    return answer.kind == _ANSWERS[answer.method]


def answered(method: str, target: Target, answers: list[ProbeAnswer]) -> Probed:
    """What answers with a TTL say. Pure, but for the time."""
    ttls = tuple(answer.ttl for answer in answers if answer.ttl is not None)
    ttl = Counter(ttls).most_common(1)[0][0]
    word = "TTL" if target.family == 4 else "hop limit"
    if method == "icmp":
        what = "an echo's reply" if len(ttls) == 1 else f"the replies to {len(ttls)} echoes"
    else:
        asked = "a SYN" if len(ttls) == 1 else f"{len(ttls)} SYNs"
        what = f"the SYN-ACK to {asked} to port {target.port}"
    shown = ", ".join(map(str, dict.fromkeys(ttls)))
    away = hops(ttl)
    text = f"{what} came with {word} {shown}"
    if len(set(ttls)) == 1:
        text += f", {away} hop" if away == 1 else f", {away} hops"
    name = "echo" if method == "icmp" else "syn"
    return Probed(name, ttl, None, time.time_ns(), text, ttls)


def unanswered(target: Target) -> Probed:
    """What silence says: nothing but that it was asked. Pure, but for the time."""
    text = "no answer to an echo"
    if not target.port:
        return Probed("echo", None, None, time.time_ns(), text)
    return Probed("syn", None, None, time.time_ns(), f"{text}, nor to a SYN to port {target.port}")
