"""A bridge whose frames pass the IP firewall (br_netfilter): it accepts, rejects or drops."""

from __future__ import annotations

import re
import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from rsttrace.demo.lab import Lab
from tests.lab.harness import (
    FAMILIES,
    REFUSED,
    SENT_REFUSAL,
    V4,
    Fence,
    Tracer,
    cause,
    forward,
    load_module,
    mac_of,
    refuse,
    resolve,
)


@pytest.fixture
def firewalled() -> Iterator[Lab]:
    """client and server on one LAN; the bridge between them hands its frames to iptables."""
    with Lab("rstbrnf") as lab:
        load_module("br_netfilter")
        lab.add("client", "switch", "server")
        with lab.inside("switch"):
            if not Path("/proc/sys/net/bridge/bridge-nf-call-iptables").exists():
                pytest.skip("this kernel has no br_netfilter (CONFIG_BRIDGE_NETFILTER)")
        lab.sysctl(
            "switch",
            **{f"net__bridge__bridge-nf-call-{tables}": 1 for tables in ("iptables", "ip6tables")},
        )
        lab.ip("switch", "link add br0 type bridge", "link set br0 up")
        for role, port in (("client", "p1"), ("server", "p2")):
            lab.link(role, "eth0", "switch", port)
            lab.ip("switch", f"link set {port} master br0")
        lab.addresses("client", "eth0", "10.72.0.1/24", "fd72::1/64")
        lab.addresses("server", "eth0", "10.72.0.2/24", "fd72::2/64")
        lab.addresses("switch", "br0", "10.72.0.3/24", "fd72::3/64")  # a REJECT needs a route
        resolve(lab, "client", "10.72.0.2", "fd72::2")
        yield lab


def said_of(tracer: Tracer, lab: Lab) -> dict[str, Counter[tuple[str, str, str, str | None]]]:
    """What was said of each namespace of a bridge lab."""
    return {
        role: Counter(map(cause, tracer.of(lab.inode(role))))
        for role in ("client", "switch", "server")
    }


@FAMILIES
def test_br_netfilter_passes(
    family: int, firewalled: Lab, tracer: Tracer, machines: Tracer, fence: Fence
) -> None:
    """Connection tracking on the bridge changes nothing: one entry at each place."""
    firewalled.nft("switch", forward("ct state established counter accept"))
    server = "10.72.0.2" if family == V4 else "fd72::2"
    for each in (tracer, machines):
        fence.cross(each)
        each.forget()
    for _ in range(5):
        refuse(firewalled, server)
    for each in (tracer, machines):
        entries = each.collect(firewalled.inode("client"), 5)
        fence.cross(each)
        said = said_of(each, firewalled)
        honest = {entry["origin"] for entry in each.of(firewalled.inode("client"))}
        assert honest == {"peer"}
        assert said["client"] == {REFUSED: 5}
        assert said["server"] == {SENT_REFUSAL: 5}
        assert {kind for kind, *_ in said["switch"].elements()} == {"forwarded"}
        assert sum(said["switch"].values()) == 5
        for entry in entries:
            assert entry["neighbor"]["mac"] == mac_of(firewalled, "server", "eth0")
            assert entry["neighbor"]["ip"] == server
            assert entry["neighbor"]["is_gateway"] is False
    passed = re.search(r"packets (\d+)", firewalled.exec("switch", ["nft", "list", "ruleset"]))
    assert passed is not None
    assert int(passed[1]) >= 5, "the bridge's frames did not pass the IP firewall"


@FAMILIES
def test_br_netfilter_rejects(family: int, firewalled: Lab, tracer: Tracer, fence: Fence) -> None:
    """A bridging firewall's RST wears the server's own MAC: only the hook tells who made it."""
    firewalled.nft("switch", forward("tcp dport 7999 reject with tcp reset"))
    server = "10.72.0.2" if family == V4 else "fd72::2"
    fence.cross(tracer)
    tracer.forget()
    for _ in range(5):
        refuse(firewalled, server)
    entries = tracer.collect(firewalled.inode("client"), 5)
    fence.cross(tracer)
    assert said_of(tracer, firewalled) == {
        "client": {("received-accepted", "connection-refused", "forged", "SYN_SENT"): 5},
        "switch": {("sent-netfilter", "firewall-reject", "local", None): 5},
        "server": {},
    }
    for entry in entries:
        assert entry["neighbor"]["mac"] == mac_of(firewalled, "server", "eth0")
        assert entry["neighbor"]["ip"] == server
        assert entry["made_here"]["netns"] == firewalled.inode("switch")
        assert entry["made_here"]["hook"] in (None, "forward")  # None: the tracepoint plan


@FAMILIES
@pytest.mark.parametrize(
    ("table", "call"), [("inet", 1), ("bridge", 1), ("bridge", 0)], ids=["ip", "both", "bridge"]
)
def test_bridge_drops_a_reset_on_its_way(
    table: str, call: int, family: int, firewalled: Lab, tracer: Tracer, fence: Fence
) -> None:
    """Dropped in passing, whichever firewall did it: `forwarded`, for it was not for this host."""
    firewalled.nft(
        "switch",
        forward("tcp sport 7999 tcp flags & rst == rst drop").replace("inet", table),
    )
    for tables in ("iptables", "ip6tables"):
        firewalled.sysctl("switch", **{f"net__bridge__bridge-nf-call-{tables}": call})
    server = "10.72.0.2" if family == V4 else "fd72::2"
    fence.cross(tracer)
    tracer.forget()
    for _ in range(3):
        with firewalled.inside("client"), socket.socket(family) as sock:
            sock.setblocking(False)
            sock.connect_ex((server, 7999))
    tracer.collect(firewalled.inode("switch"), 3)
    fence.cross(tracer)
    said = said_of(tracer, firewalled)
    assert said["client"] == {}
    assert said["server"] == {SENT_REFUSAL: 3}
    assert {(kind, origin) for kind, _, origin, _ in said["switch"].elements()} == {
        ("forwarded", "peer")
    }
    assert sum(said["switch"].values()) == 3
