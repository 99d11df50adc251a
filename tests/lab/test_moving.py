"""A node that changes under the trace: names, namespaces, MACs and rules come and go."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from rsttrace.demo.lab import Lab
from rsttrace.kernel.hooks import Plan
from tests.lab.harness import (
    ADDRESSES,
    REJECTING,
    Fence,
    Tracer,
    expect_reset,
    forward,
    linger_zero,
    mac_of,
    pair,
    poll_until,
    refuse,
    skip_without,
    unload_rejecting,
)
from tests.lab.test_rules import rules

PODS = 23
HIGH = 1000
"""An interface index that is used again: the kernel gives those from 1 on, one after the other."""


@pytest.fixture
def node() -> Iterator[Lab]:
    """A node to which pods come and from which they go."""
    with Lab("rstnode") as lab:
        lab.add("node", "other")
        yield lab


def plug(lab: Lab, pod: str, number: int, index: int | None = None) -> str:
    """A cable from the node to a pod; the pod's address."""
    where = f" index {index}" if index is not None else ""
    lab.ip(
        "node",
        f"link add hp{number}{where} type veth peer name eth0 netns {lab.name(pod)}",
        f"link set hp{number} up",
        f"address add 10.75.{number}.254/24 dev hp{number}",
    )
    lab.ip(pod, f"address add 10.75.{number}.1/24 dev eth0", "link set eth0 up")
    return f"10.75.{number}.1"


def unplug(lab: Lab, pod: str, number: int) -> None:
    """Delete the cable and the pod's namespace, whose devices would go some time later."""
    lab.ip("node", f"link delete hp{number}")
    lab.run(["ip", "netns", "delete", lab.name(pod)])


def test_pods_that_come_and_go_are_never_called_by_anothers_name(
    node: Lab, tracer: Tracer, fence: Fence
) -> None:
    """Each lives for one refused connection, and has the interface index of the one before."""
    fence.cross(tracer)
    tracer.forget()
    host = node.inode("node")
    names: dict[int, set[str]] = {}
    for number in range(1, PODS + 1):
        pod = f"pod{number}"
        node.add(pod)
        address = plug(node, pod, number, HIGH)
        names.setdefault(node.inode(pod), set()).add(node.name(pod))
        refuse(node, address, 7000 + number, role="node")
        unplug(node, pod, number)
    fence.cross(tracer)
    got = tracer.of(host)
    assert [e["remote"]["port"] for e in got] == [7000 + n for n in range(1, PODS + 1)]
    for number, entry in enumerate(got, 1):
        assert entry["remote"]["ip"] == f"10.75.{number}.1"
        assert entry["netns_name"] == node.name("node")
        neighbor = entry["neighbor"]
        assert neighbor["ifindex"] == HIGH
        assert neighbor["ifname"] in (None, f"hp{number}")
        assert neighbor["ip"] in (None, entry["remote"]["ip"])
        made = entry["made_here"]
        assert made["netns_name"] in {None, *names[made["netns"]]}
    for netns, known in names.items():
        for entry in tracer.of(netns):
            number = entry["local"]["port"] - 7000
            assert entry["local"]["ip"] == f"10.75.{number}.1"
            assert entry["netns_name"] in {None, *known}
            if len(known) == 1:
                assert entry["netns_name"] in (None, node.name(f"pod{number}"))


def test_an_interface_that_is_renamed_and_moved(node: Lab, tracer: Tracer, fence: Fence) -> None:
    """It is called as it is called then, in the namespace in which it is then."""
    node.add("pod")
    address = plug(node, "pod", 1)
    fence.cross(tracer)
    tracer.forget()
    told = []
    for port, role, name, changes in (
        (7001, "node", "hp1", ()),
        (7002, "node", "uplink", ("link set hp1 down", "link set hp1 name uplink")),
        (7003, "node", "hp1", ("link set uplink down", "link set uplink name hp1")),
        (7004, "other", "hp1", (f"link set hp1 netns {node.name('other')}",)),
        (7005, "other", "eth7", ()),
    ):
        node.ip("node", *changes)
        if port == 7005:
            node.ip("other", "link set hp1 down", "link set hp1 name eth7")
        if port in (7002, 7003):
            node.ip("node", f"link set {name} up")
        if port in (7004, 7005):
            node.ip("other", f"address replace 10.75.1.254/24 dev {name}", f"link set {name} up")
        refuse(node, address, port, role=role)
        netns = node.inode(role)
        tracer.wait_for(
            lambda p=port, n=netns: any(e["remote"]["port"] == p for e in tracer.of(n)),  # type: ignore[misc]
            f"port {port}",
        )
        (entry,) = [e for e in tracer.of(netns) if e["remote"]["port"] == port]
        told.append((port, entry["netns_name"], entry["neighbor"]["ifname"]))
        assert told[-1] == (port, node.name(role), name)
    (fourth,) = [e for e in tracer.of(node.inode("other")) if e["remote"]["port"] == 7004]
    assert fourth["neighbor"]["netns"] == node.inode("other")


def test_a_namespace_that_is_renamed(node: Lab, tracer: Tracer) -> None:
    """``ip netns attach`` gives it another name, the first one goes, another takes that."""
    node.add("pod")
    address = plug(node, "pod", 1)
    tracer.forget()
    pod, other = node.name("pod"), node.name("other")
    inode = node.inode("pod")
    refuse(node, address, 7001, role="node")
    tracer.collect(inode, 1)
    new = f"{pod}2"
    try:
        sleeps = ["sh", "-c", "echo up && exec sleep 600"]
        pid = node.spawn("pod", sleeps, ready="up")
        node.run(["ip", "netns", "attach", new, str(pid)])
        node.run(["ip", "netns", "delete", pod])
        refuse(node, address, 7002, role="node")
        tracer.collect(inode, 2)
        node.run(["ip", "netns", "attach", pod, str(node.spawn("other", sleeps, ready="up"))])
        refuse(node, address, 7003, role="node")
        found = {e["local"]["port"]: e["netns_name"] for e in tracer.collect(inode, 3)}
    finally:
        node.run(["ip", "netns", "delete", new])
    assert found == {7001: pod, 7002: new, 7003: new}
    assert other not in found.values()


@contextmanager
def answered(lab: Lab) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection that has carried data both ways."""
    with pair(lab, "client", "server") as (client, accepted):
        for one, two in ((client, accepted), (accepted, client)):
            one.sendall(b"x")
            assert two.recv(1) == b"x"
        yield client, accepted


DEAF = "table arp t {\nchain i {\ntype filter hook input priority 0\ndrop\n}\n}\n"
"""A host that learns nothing of its neighbours."""

OLD, NEW = "02:00:5e:00:00:01", "02:00:5e:00:00:02"


@pytest.mark.parametrize("known", ["old", "failed", "none", "new"])
def test_a_gateway_that_gets_another_mac(
    routed: Lab, machines: Tracer, fence: Fence, known: str
) -> None:
    """As in a failover, before and after its neighbours have heard of it: the frame's MAC is told,
    an address only if it is that MAC's, and a genuine reset stays the peer's."""
    skip_without("nft")
    gateway = "neigh replace 10.71.1.254 dev eth0"
    routed.ip("router", f"link set cl0 address {OLD}")
    routed.ip("client", f"{gateway} lladdr {OLD}")
    netns = routed.inode("client")
    fence.cross(machines)
    machines.forget()
    with answered(routed) as (client, accepted):
        routed.nft("client", DEAF)
        client_mac = mac_of(routed, "client", "eth0")
        routed.ip(
            "router",
            f"link set cl0 address {NEW}",
            f"neigh replace 10.71.1.1 lladdr {client_mac} dev cl0",
        )
        if known == "none":
            routed.ip("client", "neigh del 10.71.1.254 dev eth0")
        else:
            state = {"old": f"lladdr {OLD}", "new": f"lladdr {NEW}", "failed": "nud failed"}
            routed.ip("client", f"{gateway} {state[known]}")
        linger_zero(accepted)
        accepted.close()
        expect_reset(client)
    (entry,) = machines.collect(netns, 1)
    neighbor = entry["neighbor"]
    assert neighbor["mac"] == NEW == mac_of(routed, "router", "cl0")
    assert neighbor["ip"] == ("10.71.1.254" if known == "new" else None)
    gateways = {"new": True, "old": False}  # by what this host knows
    assert neighbor["is_gateway"] is gateways.get(known)
    assert entry["origin"] == "peer", entry["evidence"]


def test_a_rule_with_the_handle_of_an_earlier_one(
    routed: Lab, tracer: Tracer, fence: Fence
) -> None:
    """The whole table is made anew, as service meshes and kube-proxy do: the rule of now is named.

    Handles begin anew with the table. What was listed a moment ago may be of the rules before.
    """
    skip_without("nft")
    router, server = routed.inode("router"), ADDRESSES["server"][0]
    fence.cross(tracer)
    for number in range(1, 6):
        routed.nft(
            "router",
            "flush ruleset\n"
            + forward(f'tcp dport 7999 counter reject with tcp reset comment "rule{number}"'),
        )
        tracer.forget()

        def said() -> list[str]:
            entries = [e for e in tracer.of(router) if "rejecting-rule" in e["findings"]]
            return [rule["rule"] for entry in entries for rule in rules(entry)["rules"]]

        def is_named() -> bool:
            """It may be too soon to list the rules again: then none is named."""
            refuse(routed, server, 7999)
            fence.cross(tracer)
            return bool(said())

        poll_until(is_named, "the rule")
        assert all(f"rule{number}" in rule for rule in said()), (number, said())


def test_a_rule_that_is_gone_is_not_named(routed: Lab, tracer: Tracer, fence: Fence) -> None:
    """Rules come and go as fast as resets: whatever is said to be the only one was there."""
    skip_without("nft")
    router = routed.inode("router")
    fence.cross(tracer)
    tracer.forget()
    for number in range(1, 31):
        port = 7900 + number
        routed.nft(
            "router",
            "flush ruleset\n" + forward(f"tcp dport {port} counter reject with tcp reset"),
        )
        refuse(routed, ADDRESSES["server"][0], port)
        routed.nft(
            "router",
            "flush ruleset\n" + forward("tcp dport 7000-8000 counter reject with tcp reset"),
        )
    fence.cross(tracer)
    fence.cross(tracer)
    made = [e for e in tracer.of(router) if e["kind"] == "sent-netfilter"]
    assert len(made) == 30
    for entry in made:
        for item in entry["evidence"]:
            if item["rule"] == "rejecting-rule" and item["values"]["exact"]:
                (rule,) = item["values"]["rules"]
                assert f"dport {entry['local']['port']} " in rule["rule"], entry


def test_netfilter_s_module_comes_goes_and_comes_again(routed: Lab, fence: Fence) -> None:
    """Its function is hooked into once it is there; a reset of its is told as such at any time."""
    if "RSTTRACE_KERNELS_REPORT" not in os.environ:
        pytest.skip("unloads modules of the machine: in a guest (make kernels T=…) alone")
    skip_without("nft")
    unload_rejecting(routed)
    router = routed.inode("router")
    tracer = Tracer("--kind", "all")
    try:
        if tracer.plan is Plan.TRACEPOINTS:
            pytest.skip("hooks into no function")
        assert f"will be when the module {REJECTING[-1]} is loaded" in tracer.status
        for number in range(1, 4):
            routed.nft("router", forward("tcp dport 7999 reject with tcp reset"))
            if number == 1:
                tracer.wait_for(lambda: "now attached: nf_send_reset" in tracer.status, "the hook")
            refuse(routed, ADDRESSES["server"][0])
            fence.cross(tracer)
            made = [e for e in tracer.of(router) if e["direction"] == "sent"]
            assert [e["kind"] for e in made] == ["sent-netfilter"] * number
            unload_rejecting(routed)
        assert tracer.stop() == 0
    finally:
        tracer.stop(signal.SIGKILL)
