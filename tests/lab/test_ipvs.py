"""An SLB of the kernel's own (IPVS): masquerading, draining, direct routing."""

from __future__ import annotations

import contextlib
import json
import socket
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from rsttrace.demo.lab import Lab
from tests.lab.harness import (
    ADDRESSES,
    DEADLINE_S,
    PASSED,
    REFUSED,
    RESET,
    ROLES,
    SENT_LINGER,
    SENT_REFUSAL,
    Fence,
    Tracer,
    cause,
    expect_reset,
    linger_zero,
    load_module,
    mac_of,
    no_socket,
    refuse,
    resolve,
)

IPVS = """
import json, socket, sys
from pyroute2 import IPVS, IPVSDest, IPVSService
with IPVS() as ipvs:
    for what, command, virtual, real in json.loads(sys.argv[1]):
        service = IPVSService(
            addr=virtual[0], port=virtual[1], protocol=socket.IPPROTO_TCP, sched_name="rr"
        )
        if what == "service":
            ipvs.service(command, service=service)
        else:
            addr, port, method = real
            dest = IPVSDest(addr=addr, port=port, fwd_method=method)
            ipvs.dest(command, service=service, dest=dest)
"""
MASQUERADE, DIRECT_ROUTE = 0, 3  # IP_VS_CONN_F_*, include/uapi/linux/ip_vs.h
VIRTUAL = "10.71.9.9"


def ipvs(lab: Lab, role: str, *commands: tuple[str, str, object, object]) -> None:
    """Configure a director."""
    lab.exec(role, [sys.executable, "-c", IPVS, json.dumps(commands)])


def need_ipvs(lab: Lab, role: str) -> None:
    """Skip where there is no IPVS."""
    load_module("ip_vs_rr")
    with lab.inside(role):
        if not Path("/proc/thread-self/net/ip_vs").exists():
            pytest.skip("this kernel has no IPVS (CONFIG_IP_VS)")


@contextlib.contextmanager
def through(lab: Lab, listening: tuple[str, int]) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection to the virtual server's port 80, accepted at `listening` in the server."""
    with lab.inside("server"):
        listener = socket.socket()
    with lab.inside("client"):
        client = socket.socket()
    with listener, client:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(listening)
        listener.listen()
        for sock in (listener, client):
            sock.settimeout(DEADLINE_S)
        client.connect((VIRTUAL, 80))
        accepted, _ = listener.accept()
        with accepted:
            accepted.settimeout(DEADLINE_S)
            yield client, accepted


@pytest.fixture
def balanced(routed: Lab) -> Lab:
    """The router is an SLB: its port 80 is the server's 7400 (masquerading)."""
    need_ipvs(routed, "router")
    routed.addresses("router", "lo", f"{VIRTUAL}/32")
    real = (ADDRESSES["server"][0], 7400, MASQUERADE)
    ipvs(
        routed,
        "router",
        ("service", "add", (VIRTUAL, 80), None),
        ("dest", "add", (VIRTUAL, 80), real),
    )
    return routed


def test_ipvs_masquerading(balanced: Lab, tracer: Tracer, machines: Tracer, fence: Fence) -> None:
    """The server's own resets in the virtual server's name: the peer's, from its distance."""
    for each in (tracer, machines):
        fence.cross(each)
        each.forget()
    for _ in range(3):
        refuse(balanced, VIRTUAL, 80)
        with through(balanced, (ADDRESSES["server"][0], 7400)) as (client, accepted):
            client.send(b"x" * 10)
            assert len(accepted.recv(10)) == 10
            linger_zero(accepted)
            accepted.close()
            expect_reset(client)
    entries = tracer.collect(balanced.inode("client"), 6)
    fence.cross(tracer)
    assert {role: Counter(map(cause, tracer.of(balanced.inode(role)))) for role in ROLES} == {
        "client": {REFUSED: 3, RESET: 3},
        "router": {PASSED: 6},
        "server": {SENT_REFUSAL: 3, SENT_LINGER: 3},
    }
    for entry in entries:
        assert entry["remote"] == {"ip": VIRTUAL, "port": 80}
        assert entry["rst"]["ttl"] == 63
        assert entry["made_here"]["netns"] == balanced.inode("server")
        assert entry["neighbor"]["mac"] == mac_of(balanced, "router", "cl0")
        assert entry["neighbor"]["is_gateway"] is True
    for entry in tracer.of(balanced.inode("server")):
        assert entry["local"] == {"ip": ADDRESSES["server"][0], "port": 7400}
    alone = machines.collect(balanced.inode("client"), 6)
    assert Counter(entry["origin"] for entry in alone if cause(entry)[1] != REFUSED[1]) == {
        "peer": 3
    }
    assert "forged" not in {entry["origin"] for entry in alone}


def test_ipvs_forgets_a_connection(
    balanced: Lab, tracer: Tracer, machines: Tracer, fence: Fence
) -> None:
    """The SLB drains its server: what the client then sends ends at the SLB, whose own stack
    resets it. On this node that is seen; from the evidence alone, it came from our gateway with a
    TTL that passed no router, so the gateway made it."""
    balanced.sysctl("router", net__ipv4__vs__expire_nodest_conn=1)
    real = (ADDRESSES["server"][0], 7400, MASQUERADE)
    for each in (tracer, machines):
        fence.cross(each)
        each.forget()
    with through(balanced, (ADDRESSES["server"][0], 7400)) as (client, accepted):
        for _ in range(3):
            client.send(b"x" * 10)
            accepted.sendall(accepted.recv(10))
            assert client.recv(10)
        ipvs(balanced, "router", ("dest", "del", (VIRTUAL, 80), real))
        client.send(b"too late")
        expect_reset(client)
        (entry,) = tracer.collect(balanced.inode("client"), 1)
        (alone,) = machines.collect(balanced.inode("client"), 1)
        fence.cross(tracer)
        (sent,) = tracer.of(balanced.inode("router"))
    assert cause(sent) == ("sent-passive", no_socket(tracer), "local", None)
    assert sent["local"] == {"ip": VIRTUAL, "port": 80}
    assert cause(entry) == (*RESET[:2], "forged", RESET[3])
    assert entry["authors"][0]["author"] == "balancer"
    assert "answered-here" in entry["findings"]
    assert entry["made_here"]["netns"] == balanced.inode("router")
    assert entry["remote"] == {"ip": VIRTUAL, "port": 80}
    assert cause(alone) == (*RESET[:2], "forged", "ESTABLISHED")
    assert "ttl-undiminished" in {item["rule"] for item in alone["evidence"]}
    assert alone["authors"][0]["author"] in ("balancer", "reject")
    assert alone["hops"] == {"rst": 0, "peer": 1}


def test_ipvs_direct_routing(tracer: Tracer, machines: Tracer, fence: Fence) -> None:
    """The server answers past the SLB, from another MAC than the client sends to: honest."""
    with Lab("rstdr") as lab:
        lab.add("client", "switch", "director", "server")
        need_ipvs(lab, "director")
        lab.ip("switch", "link add br0 type bridge", "link set br0 up")
        for number, role in enumerate(("client", "director", "server"), 1):
            lab.link(role, "eth0", "switch", f"p{number}")
            lab.ip("switch", f"link set p{number} master br0")
            lab.addresses(role, "eth0", f"10.71.9.{number}/24")
        lab.sysctl(
            "server", net__ipv4__conf__all__arp_ignore=1, net__ipv4__conf__all__arp_announce=2
        )
        lab.addresses("server", "lo", f"{VIRTUAL}/32")
        lab.addresses("director", "eth0", f"{VIRTUAL}/32")
        lab.sysctl("director", net__ipv4__ip_forward=1, net__ipv4__conf__all__send_redirects=0)
        ipvs(
            lab,
            "director",
            ("service", "add", (VIRTUAL, 80), None),
            ("dest", "add", (VIRTUAL, 80), ("10.71.9.3", 80, DIRECT_ROUTE)),
        )
        resolve(lab, "client", VIRTUAL, "10.71.9.3")
        resolve(lab, "director", "10.71.9.3")
        for each in (tracer, machines):
            fence.cross(each)
            each.forget()
        for _ in range(3):
            refuse(lab, VIRTUAL, 80)
            with through(lab, (VIRTUAL, 80)) as (client, accepted):
                linger_zero(accepted)
                accepted.close()
                expect_reset(client)
        entries = tracer.collect(lab.inode("client"), 6)
        fence.cross(tracer)
        assert Counter(map(cause, entries)) == {REFUSED: 3, RESET: 3}
        assert Counter(map(cause, tracer.of(lab.inode("server")))) == {
            SENT_REFUSAL: 3,
            SENT_LINGER: 3,
        }
        assert tracer.of(lab.inode("director")) == []
        for entry in entries:
            assert entry["neighbor"]["mac"] == mac_of(lab, "server", "eth0")
            assert entry["neighbor"]["ip"] == "10.71.9.3"
            assert entry["next_hop"]["ip"] == VIRTUAL
            assert entry["next_hop"]["mac"] == mac_of(lab, "director", "eth0")
        alone = machines.collect(lab.inode("client"), 6)
        assert "forged" not in {entry["origin"] for entry in alone}
        assert {e["origin"] for e in alone if e["cause"]["name"] == "connection-reset"} == {"peer"}
