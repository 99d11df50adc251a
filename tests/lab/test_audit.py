"""The end of a run holds what was seen to leave against the kernel's own counters."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator

import pytest

from rsttrace.demo.lab import Lab
from tests.lab.harness import ADDRESSES, Tracer, out_rsts, poll_until, refuse

SERVER, SERVER6 = ADDRESSES["server"][:2]

DROPPED = """\
table inet t {
chain o {
type filter hook output priority 0
tcp flags & rst != 0 drop
}
}
"""


@pytest.fixture
def tracer() -> Iterator[Tracer]:
    made = Tracer()
    yield made
    made.stop()


def audited(tracer: Tracer) -> str:
    """The line that a run ends with, without how many namespaces this node has."""
    assert tracer.stop() == 0
    (line,) = [line for line in tracer.status.splitlines() if line.startswith("audit: ")]
    return re.sub(r"of \d+ network namespaces?", "of N", line)


def test_as_many_left_as_the_kernel_sent(routed: Lab, tracer: Tracer) -> None:
    for _ in range(5):
        refuse(routed, SERVER)
        refuse(routed, SERVER6)
    tracer.collect(routed.inode("client"), 10)
    assert audited(tracer) == (
        "audit: TcpOutRsts of N: 10 sent by this host's TCP, and as many were seen to leave"
    )


def test_what_a_rule_dropped_before_it_left_is_told(routed: Lab, tracer: Tracer) -> None:
    refuse(routed, SERVER)
    tracer.collect(routed.inode("client"), 1)
    routed.nft("server", DROPPED)
    before = out_rsts(routed, "server")
    with routed.inside("client"), socket.socket() as sock:
        sock.setblocking(False)
        sock.connect_ex((SERVER, 7999))
        poll_until(lambda: out_rsts(routed, "server") == before + 1, "the answer")
    assert audited(tracer) == (
        "audit: TcpOutRsts of N: 2 sent by this host's TCP, 1 more than were seen to leave: dropped"
        " before that (by a rule, or for want of a route or neighbour), or not seen"
    )


def test_a_counter_that_went_with_its_namespace_is_not_compared() -> None:
    with Lab("rstgone") as lab:
        lab.add("one")
        tracer = Tracer()
    line = audited(tracer)
    assert "TcpOutRsts is not compared: 1 network namespace ended meanwhile" in line
