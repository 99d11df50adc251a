"""VLAN devices, and a bridge that filters by VLAN: a RST is told once at each end."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator

import pytest

from rsttrace.demo.lab import Lab
from tests.lab.harness import (
    ADDRESSES,
    FAMILIES,
    PASSED,
    REFUSED,
    RESET,
    ROLES,
    SENT_LINGER,
    SENT_REFUSAL,
    V4,
    Fence,
    Tracer,
    cause,
    expect_reset,
    linger_zero,
    mac_of,
    need,
    pair,
    refuse,
    resolve,
    server_address,
)


@pytest.fixture
def tagged() -> Iterator[Lab]:
    """client - router - server, the first link in VLAN 10, the second in 20 inside 802.1ad 100."""
    with Lab("rstvlan") as lab:
        need("VLAN devices", lab, "ip link add link p0 name v type vlan id 2")
        lab.add("client", "router", "server")
        lab.link("client", "eth0", "router", "cl0")
        lab.link("router", "sv0", "server", "eth0")
        lab.router("router")
        for role, interface in (("client", "eth0"), ("router", "cl0")):
            lab.ip(
                role,
                f"link add link {interface} name vlan10 type vlan id 10",
                "link set vlan10 up",
            )
        for role, interface in (("router", "sv0"), ("server", "eth0")):
            lab.ip(
                role,
                f"link add link {interface} name outer type vlan proto 802.1ad id 100",
                "link set outer up",
                "link add link outer name vlan20 type vlan id 20",
                "link set vlan20 up",
            )
        lab.addresses("router", "vlan10", "10.71.1.254/24", "fd71:1::fe/64")
        lab.addresses("router", "vlan20", "10.71.2.254/24", "fd71:2::fe/64")
        for role, vlan, net in (("client", "vlan10", 1), ("server", "vlan20", 2)):
            v4, v6 = ADDRESSES[role]
            lab.addresses(role, vlan, f"{v4}/24", f"{v6}/64")
            lab.route(role, f"default via 10.71.{net}.254", f"default via fd71:{net}::fe")
        resolve(lab, "client", *ADDRESSES["server"])
        yield lab


@FAMILIES
def test_vlan_devices(family: int, tagged: Lab, tracer: Tracer, fence: Fence) -> None:
    """The RST is told once, where it leaves (the upper device) and where it comes in (the lower),
    and its neighbour is found in the table of the device above."""
    fence.cross(tracer)
    tracer.forget()
    for _ in range(3):
        refuse(tagged, server_address("server", family))
        with pair(tagged, "client", "server", family=family) as (client, accepted):
            linger_zero(accepted)
            accepted.close()
            expect_reset(client)
    entries = tracer.collect(tagged.inode("client"), 6)
    fence.cross(tracer)
    said = {role: Counter(map(cause, tracer.of(tagged.inode(role)))) for role in ROLES}
    assert said == {
        "client": {REFUSED: 3, RESET: 3},
        "router": {PASSED: 6},
        "server": {SENT_REFUSAL: 3, SENT_LINGER: 3},
    }
    for entry in entries:
        assert entry["local"]["ip"] == server_address("client", family)
        assert entry["remote"]["ip"] == server_address("server", family)
        assert entry["rst"]["ttl"] == 63
        neighbor = entry["neighbor"]
        assert neighbor["mac"] == mac_of(tagged, "router", "vlan10")
        assert neighbor["ip"] == ("10.71.1.254" if family == V4 else "fd71:1::fe")
        assert neighbor["is_gateway"] is True
        assert neighbor["ifname"] == "eth0"
        assert entry["made_here"]["netns"] == tagged.inode("server")
    reset = next(entry for entry in entries if cause(entry) == RESET)
    assert reset["baseline"]["scope"] == "flow"
    assert reset["baseline"]["syn_ttl"] == 63
    assert reset["baseline"]["mac"] == mac_of(tagged, "router", "vlan10")


@FAMILIES
def test_vlan_resets_are_the_peers(
    family: int, tagged: Lab, machines: Tracer, fence: Fence
) -> None:
    """From the evidence alone."""
    fence.cross(machines)
    machines.forget()
    for _ in range(3):
        with pair(tagged, "client", "server", family=family) as (client, accepted):
            linger_zero(accepted)
            accepted.close()
            expect_reset(client)
    client_netns = tagged.inode("client")
    entries = machines.collect(client_netns, 3)
    assert [cause(entry) for entry in entries] == [RESET] * 3
    assert {entry["made_here"] for entry in entries} == {None}


def test_vlan_device_in_another_namespace(tagged: Lab, tracer: Tracer, fence: Fence) -> None:
    """As containers get them: the tag is taken off in the pod's namespace, the frame came in at
    the host's. The entry is the pod's."""
    tagged.add("pod")
    tagged.ip(
        "client",
        "link add link eth0 name vlan30 type vlan id 30",
        f"link set vlan30 netns {tagged.name('pod')}",
    )
    tagged.ip("pod", "link set vlan30 up")
    tagged.ip("router", "link add link cl0 name vlan30 type vlan id 30", "link set vlan30 up")
    tagged.addresses("pod", "vlan30", "10.71.3.1/24")
    tagged.addresses("router", "vlan30", "10.71.3.254/24")
    tagged.route("pod", "default via 10.71.3.254")
    resolve(tagged, "pod", ADDRESSES["server"][0])
    fence.cross(tracer)
    tracer.forget()
    for _ in range(3):
        refuse(tagged, ADDRESSES["server"][0], role="pod")
        with pair(tagged, "pod", "server") as (client, accepted):
            linger_zero(accepted)
            accepted.close()
            expect_reset(client)
    entries = tracer.collect(tagged.inode("pod"), 6)
    fence.cross(tracer)
    assert Counter(map(cause, entries)) == {REFUSED: 3, RESET: 3}
    assert len(tracer.of(tagged.inode("pod"))) == 6
    assert tracer.of(tagged.inode("client")) == []
    for entry in entries:
        assert entry["process"]["pid"] == os.getpid()
        assert entry["neighbor"]["ifname"] == "vlan30"
        assert entry["neighbor"]["netns"] == tagged.inode("pod")
        assert entry["neighbor"]["mac"] == mac_of(tagged, "router", "vlan30")


@FAMILIES
def test_vlan_filtering_bridge(family: int, tracer: Tracer, fence: Fence) -> None:
    """An access port on one side, a trunk on the other."""
    with Lab("rstvbr") as lab:
        need("VLAN devices", lab, "ip link add link p0 name v type vlan id 2")
        lab.add("client", "switch", "server")
        lab.ip("switch", "link add br0 type bridge vlan_filtering 1", "link set br0 up")
        for role, port in (("client", "access"), ("server", "trunk")):
            lab.link(role, "eth0", "switch", port)
            lab.ip("switch", f"link set {port} master br0")
        for port, *options in (("access", "pvid", "untagged"), ("trunk",)):
            lab.exec("switch", ["bridge", "vlan", "add", "dev", port, "vid", "10", *options])
        lab.ip("server", "link add link eth0 name vlan10 type vlan id 10", "link set vlan10 up")
        lab.addresses("client", "eth0", "10.72.0.1/24", "fd72::1/64")
        lab.addresses("server", "vlan10", "10.72.0.2/24", "fd72::2/64")
        server = "10.72.0.2" if family == V4 else "fd72::2"
        resolve(lab, "client", server)
        fence.cross(tracer)
        tracer.forget()
        for _ in range(5):
            refuse(lab, server)
        entries = tracer.collect(lab.inode("client"), 5)
        fence.cross(tracer)
        said = {
            role: Counter(map(cause, tracer.of(lab.inode(role))))
            for role in ("client", "switch", "server")
        }
        assert said == {
            "client": {REFUSED: 5},
            "switch": {PASSED: 5},
            "server": {SENT_REFUSAL: 5},
        }
        for entry in entries:
            assert entry["neighbor"]["mac"] == mac_of(lab, "server", "vlan10")
            assert entry["neighbor"]["ip"] == server
            assert entry["neighbor"]["is_gateway"] is False
            assert entry["neighbor"]["ifname"] == "eth0"
