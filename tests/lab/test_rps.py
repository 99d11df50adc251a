"""Several CPUs: packets that one hands to another (RPS).

A machine with four of them is the variant smp4 of tests/kernels/variants.py.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from pathlib import Path

import pytest

from rsttrace.demo.lab import Lab
from tests.lab.harness import (
    ADDRESSES,
    REFUSED,
    RESET,
    SENT_LINGER,
    SENT_REFUSAL,
    Fence,
    Tracer,
    cause,
    expect_reset,
    linger_zero,
    occupied,
    pair,
    refuse,
    wire,
)


def test_rps(routed: Lab, tracer: Tracer, fence: Fence) -> None:
    """Packets are handed from CPU to CPU (RPS) while resets cross in four threads: each is told
    once at each end, with its own socket and process."""
    cpus = len(os.sched_getaffinity(0))
    if cpus < 2:
        pytest.skip("one CPU: nothing to hand packets to")
    mask = f"{(1 << cpus) - 1:x}"
    for role in ("client", "router", "server"):
        script = f"for f in /sys/class/net/*/queues/rx-*/rps_cpus; do echo {mask} > $f; done"
        routed.exec(role, ["sh", "-c", script])
    handed = handed_over()
    rounds, threads = 29, 4
    fence.cross(tracer)
    tracer.forget()
    ports: dict[int, list[int]] = {}

    def work(number: int) -> None:
        ports[number] = []
        for _ in range(rounds):
            refuse(routed, ADDRESSES["server"][0], 7900 + number)
            with pair(routed, "client", "server", port=7100 + number) as (client, accepted):
                linger_zero(accepted)
                accepted.close()
                expect_reset(client)
                ports[number].append(client.getsockname()[1])

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    with occupied():
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    total = rounds * threads
    assert sum(map(len, ports.values())) == total
    tracer.collect(routed.inode("client"), 2 * total)
    tracer.collect(routed.inode("server"), 2 * total)
    fence.cross(tracer)
    assert handed_over() > handed, "RPS handed nothing over"
    client, server = (tracer.of(routed.inode(role)) for role in ("client", "server"))
    assert Counter(map(cause, client)) == {REFUSED: total, RESET: total}
    assert Counter(map(cause, server)) == {SENT_REFUSAL: total, SENT_LINGER: total}
    assert Counter(map(wire, client)) == Counter(map(wire, server))
    for number, known in ports.items():
        mine = [entry for entry in client if entry["remote"]["port"] == 7100 + number]
        assert sorted(entry["local"]["port"] for entry in mine) == sorted(known)
    for entry in client:
        assert entry["process"]["pid"] == os.getpid()
        assert entry["made_here"]["netns"] == routed.inode("server")


def handed_over() -> int:
    """How often a CPU was woken for packets of another (received_rps in softnet_seq_show())."""
    rows = Path("/proc/net/softnet_stat").read_text().splitlines()
    return sum(int(row.split()[9], 16) for row in rows)
