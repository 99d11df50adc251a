"""A rule takes a connection for its own host (REDIRECT), and the proxy there does not listen."""

from __future__ import annotations

import pytest

from rsttrace.demo.lab import Lab
from rsttrace.errors import LabError
from tests.lab.harness import (
    FAMILIES,
    V6,
    Fence,
    Json,
    Tracer,
    refuse,
    server_address,
    skip_without,
)
from tests.lab.test_escaped import answered, has_note


def redirecting(lab: Lab, role: str, hook: str, family: int) -> None:
    """Load the rules; skip where the kernel has no NAT."""
    skip_without("nft")
    word = "ip6" if family == V6 else "ip"
    rules = (
        f"table {word} t {{\nchain n {{\ntype nat hook {hook} priority -100\n"
        f"tcp dport 9999 redirect to :15006\ntcp dport 80 redirect to :15001\n}}\n}}\n"
    )
    try:
        lab.nft(role, rules)
    except LabError as error:
        if "Operation not supported" not in str(error) and "No such file" not in str(error):
            raise
        pytest.skip(f"this kernel has no NAT: {error}")


def noted(tracer: Tracer, lab: Lab, role: str, kind: str) -> Json:
    """The entry of a kind in a namespace that has the note."""

    def wanted() -> list[Json]:
        entries = tracer.of(lab.inode(role))
        return [e for e in entries if e["kind"] == kind and "redirected-here" in e["findings"]]

    tracer.wait_for(lambda: bool(wanted()), "the note")
    return wanted()[0]


@FAMILIES
@pytest.mark.parametrize(("role", "hook"), [("router", "prerouting"), ("client", "output")])
def test_the_proxy_is_down(
    role: str, hook: str, family: int, routed: Lab, tracer: Tracer, fence: Fence
) -> None:
    """A transparent proxy's rule on the way, and a sidecar's on the client itself."""
    redirecting(routed, role, hook, family)
    fence.cross(tracer)
    tracer.forget()
    address = server_address("server", family)
    refuse(routed, address, 80)
    sent = noted(tracer, routed, role, "sent-passive")
    got = noted(tracer, routed, "client", "received-accepted")
    for entry in (sent, got):
        (found,) = [item for item in entry["evidence"] if item["rule"] == "redirected-here"]
        values = found["values"]
        assert values["netns"] == routed.inode(role)
        assert values["exact"] is True
        assert values["rules"][0]["rule"] == "tcp dport 80 redirect to :15001"
        assert f"{address} is no address of" in found["text"]
        assert "ss -ltnp" in entry["advice"]
    assert got["origin"] == "forged"


@FAMILIES
def test_a_local_route_makes_an_address_its_own(
    family: int, routed: Lab, tracer: Tracer, fence: Fence
) -> None:
    address = server_address("server", family)
    word = "-6" if family == V6 else "-4"
    routed.exec("router", ["ip", word, "route", "add", "local", address, "dev", "lo"])
    fence.cross(tracer)
    tracer.forget()
    refuse(routed, address, 80)
    tracer.collect(routed.inode("router"), 1)
    answered(routed, tracer)
    assert not has_note(tracer.of(routed.inode("router")), "redirected-here")
