"""The devices on the path to a peer, found by TTL-limited probes to the peer's own port.

First a SYN and an echo request with a whole TTL: the answer's TTL says how far the peer likely is,
its time how long to wait. Then SYNs with every TTL up to there, all at once; where nobody
answers, UDP and ICMP echo as well.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from rsttrace.enrich.answers import NOT_THE_PEER
from rsttrace.enrich.prober import Prober
from rsttrace.enrich.setns import inside
from rsttrace.enrich.target import Limits, Target
from rsttrace.model import FULL_TTL, Endpoint, Neighbor, NextHop, Path, ProbeAnswer, hops

WINDOW = 8
"""How many TTLs to try at once where the peer's distance is unknown; so many silent ones end it."""


def find_path(
    target: Target,
    limits: Limits,
    *,
    netns_path: str | None = None,
    surroundings: Callable[[str], tuple[NextHop | None, Neighbor | None]] = lambda ip: (None, None),
    stopped: Callable[[], bool] = lambda: False,
) -> Path:
    """Find the path to a peer from a network namespace (default: our own).

    `surroundings` tells the next hop on the way to an address, and who has it.

    Raises:
        RsttraceError: see `rsttrace.enrich.prober.Prober` and `inside`.
    """
    started = time.monotonic_ns()

    def run() -> Path:
        with Prober(target, limits.probes, limits.timeout_s, stopped=stopped) as prober:
            _probe_all(prober, limits, stopped)
            return _path(prober, target, limits, stopped())

    path = inside(netns_path, run)
    next_hop, neighbor = surroundings(target.ip)
    duration_ns = time.monotonic_ns() - started
    return replace(path, next_hop=next_hop, neighbor=neighbor, duration_ns=duration_ns)


def _path(prober: Prober, target: Target, limits: Limits, stopped: bool) -> Path:
    answers = prober.answers
    refusal = answers.refusal()
    return Path(
        source=prober.source,
        peer=Endpoint(target.ip, target.port),
        hops=answers.routers(),
        distance=answers.distance(),
        peer_hop=answers.peer(),
        refused=refusal[1] if refusal else None,
        next_hop=None,
        neighbor=None,
        flows=limits.probes,
        packets=prober.packets,
        duration_ns=0,
        stopped=stopped,
        echo_hops=answers.echo_hops(),
    )


def _probe_all(prober: Prober, limits: Limits, stopped: Callable[[], bool]) -> None:
    """Send what it takes to know the path."""
    reached = _reach(prober, limits, stopped)
    last = _sweep_tcp(prober, limits, reached, stopped)
    answers = prober.answers
    silent = [ttl for ttl in range(1, answers.end() or last + 1) if not answers.at(ttl)]
    if silent and not stopped():
        prober.wait(prober.send((method, ttl, 0) for ttl in silent for method in ("icmp", "udp")))


def _reach(prober: Prober, limits: Limits, stopped: Callable[[], bool]) -> ProbeAnswer | None:
    """Whether the peer answers at all; learns how long to wait for others."""
    for probe in prober.send((method, FULL_TTL, limits.probes) for method in ("tcp", "icmp")):
        prober.wait([probe])
        answer = probe.answer
        if answer is not None and answer.kind not in NOT_THE_PEER:
            prober.wait_s = limits.wait_s(answer.rtt_ns / 1e9)
            return answer
        if stopped():
            break
    return None


def _sweep_tcp(
    prober: Prober, limits: Limits, reached: ProbeAnswer | None, stopped: Callable[[], bool]
) -> int:
    """SYNs with rising TTLs, until the peer or a refusal; the last TTL that was tried."""
    most, answers = limits.max_hops, prober.answers
    first = 1
    last = min(most, WINDOW)
    if reached is not None and reached.ttl is not None:
        # the way there is about as long as the way back
        last = min(most, hops(reached.ttl) + 2)
    while True:
        sent = prober.send(
            ("tcp", ttl, flow) for flow in range(limits.probes) for ttl in range(first, last + 1)
        )
        prober.wait(sent)
        if last == most or answers.distance() is not None or answers.refusal() or stopped():
            return last
        unheard = all(probe.answer is None for probe in sent)
        if (reached is None and unheard) or (reached is not None and reached.method != "tcp"):
            return last
        first, last = last + 1, min(most, last + WINDOW)
