"""Fixtures of the lab tests: real namespaces, a real tracer. Root on a real kernel is a must."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rsttrace.demo.lab import Lab
from tests.lab.harness import ADDRESSES, Fence, Tracer, resolve

TWINS = (
    "test_causes.py",
    "test_compare.py",
    "test_compare_nat.py",
    "test_escaped.py",
    "test_late.py",
    "test_listeners.py",
    "test_locate.py",
    "test_read.py",
    "test_redirected.py",
)
"""Long files in which each case is played twice: the IPv6 twins are left to `make test FULL=1`."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave the twins to those who ask for them."""
    for item in items:
        if "tests/lab" in str(item.path) and item.path.name in TWINS and "v6" in item.name:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="module")
def tracer_and_fence() -> Iterator[tuple[Tracer, Fence]]:
    """One tracer for a file's tests that take the default view of the node, every kind shown."""
    with Lab("rstfence") as lab:
        tracer = Tracer("--kind", "all")
        try:
            yield tracer, Fence(lab)
        finally:
            tracer.stop()


@pytest.fixture(scope="module")
def tracer(tracer_and_fence: tuple[Tracer, Fence]) -> Tracer:
    """The running tracer."""
    return tracer_and_fence[0]


@pytest.fixture(scope="module")
def fence(tracer_and_fence: tuple[Tracer, Fence]) -> Fence:
    """Marks a place in the tracer's output."""
    return tracer_and_fence[1]


@pytest.fixture(scope="module")
def machines() -> Iterator[Tracer]:
    """A tracer for which each namespace is a machine of its own: it has only the evidence."""
    tracer = Tracer("--viewpoint", "netns", "--kind", "all")
    try:
        yield tracer
    finally:
        tracer.stop()


@contextmanager
def routed_lab(prefix: str) -> Iterator[Lab]:
    """client (10.71.1.1) - router - server (10.71.2.2), IPv4 and IPv6."""
    with Lab(prefix) as lab:
        lab.add("client", "router", "server")
        lab.link("client", "eth0", "router", "cl0")
        lab.link("router", "sv0", "server", "eth0")
        lab.router("router")
        lab.addresses("router", "cl0", "10.71.1.254/24", "fd71:1::fe/64")
        lab.addresses("router", "sv0", "10.71.2.254/24", "fd71:2::fe/64")
        for role, net in (("client", 1), ("server", 2)):
            v4, v6 = ADDRESSES[role]
            lab.addresses(role, "eth0", f"{v4}/24", f"{v6}/64")
            # On a slow machine a RST may take longer than a retransmission, which draws one more.
            patient = "rto_min 5s"
            v4_route, v6_route = f"10.71.{net}.254 {patient}", f"fd71:{net}::fe {patient}"
            lab.route(role, f"default via {v4_route}", f"default via {v6_route}")
            with lab.inside(role):
                Path("/proc/sys/net/ipv4/tcp_early_retrans").write_text("0")  # no loss probes
        resolve(lab, "client", *ADDRESSES["server"])
        yield lab


@pytest.fixture
def routed() -> Iterator[Lab]:
    """A routed lab of the test's own."""
    with routed_lab("rstlab") as lab:
        yield lab
