"""Several CPUs: packets that one hands to another (RPS).

A machine with four of them is the variant smp4 of tests/kernels/variants.py.
"""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
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
    pair,
    refuse,
    wire,
)


@contextmanager
def occupied() -> Iterator[None]:
    """Every CPU has a task of ours to run, and what we do goes before that.

    A packet that is handed over is dealt with in whatever runs on that CPU. There are machines with
    a task in which no BPF program runs (a sandbox's supervisor; sched_switch never tells of it
    either): what is dealt with there is not seen. Ours leave it no time meanwhile.
    """
    spinning = []
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        for cpu in os.sched_getaffinity(0):
            child = os.fork()
            if not child:
                signal.alarm(10)  # also if we are killed
                os.sched_setaffinity(0, [cpu])
                os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
                while True:
                    pass
            spinning.append(child)
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(2))  # new threads inherit it
        yield
    finally:
        os.sched_setscheduler(0, *before)
        for child in spinning:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


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
