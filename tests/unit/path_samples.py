"""Paths that the placing and the drawing are tested with."""

from __future__ import annotations

from dataclasses import replace

from rsttrace.model import Attempt, Endpoint, Hop, Neighbor, NextHop, Path, ProbeAnswer

MAC = "00:d0:f8:22:33:44"


def answer(
    ip: str, ttl: int | None, kind: str = "exceeded", flow: int = 0, method: str = "tcp"
) -> ProbeAnswer:
    return ProbeAnswer(kind, ip, ttl, 1_500_000 + flow, flow, method)


def hop(number: int, *ips: str, back: int | None = None) -> Hop:
    """A router that answered three probes, with its TTL starting at 64; no address: silent."""
    away = number - 1 if back is None else back
    given = [ips[flow % len(ips)] for flow in range(3)] if ips else []
    answers = tuple(answer(ip, 64 - away, flow=flow) for flow, ip in enumerate(given))
    return Hop(number, 3, answers)


def path(*routers: Hop, back: int | None = None) -> Path:
    """From 10.0.0.5 over routers to 10.9.8.7, whose packets come `back` over so many routers."""
    count = len(routers)
    away = count if back is None else back
    peer = tuple(answer("10.9.8.7", 64 - away, "syn-ack", flow) for flow in range(3))
    return Path(
        source="10.0.0.5",
        peer=Endpoint("10.9.8.7", 3306),
        hops=routers,
        distance=count + 1,
        peer_hop=Hop(count + 1, 3, peer),
        refused=None,
        next_hop=NextHop("10.0.0.1", MAC, True, 2),
        neighbor=Neighbor(MAC, "Ruijie Networks", "10.0.0.1", True, 2, "eth0", 4026531840),
        flows=3,
        packets=19,
        duration_ns=120_000_000,
    )


STRAIGHT = path(
    hop(1, "10.0.0.1"),
    hop(2, "10.20.0.5"),
    hop(3, "10.20.0.1"),
    hop(4, "10.30.0.1"),
    hop(5, "10.40.0.1"),
)
SILENT = replace(STRAIGHT, hops=(*STRAIGHT.hops[:2], hop(3), *STRAIGHT.hops[3:]))
DIVIDED = replace(
    STRAIGHT, hops=(*STRAIGHT.hops[:2], hop(3, "10.20.0.1", "10.21.0.1"), *STRAIGHT.hops[3:])
)


def attempts(lowest: int, born: int | None, hops: int, *, tries: int = 3) -> list[Attempt]:
    """A replay that a device answered from TTL `lowest` on; `born`: its RST's TTL (None: a copy).

    `hops` is how many routers are between the device and us.
    """

    def attempt(ttl: int) -> Attempt:
        start = born if born is not None else ttl - hops
        came = ttl >= lowest and start - hops > 0
        return Attempt(ttl, start - hops if came else None, 400_000 if came else None)

    first = [attempt(ttl) for ttl in range(1, lowest + 1)]
    again = [attempt(ttl) for ttl in (lowest - 1, lowest, 64) if ttl]
    return first + again * (tries - 1)
