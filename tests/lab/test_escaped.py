"""Packets that escape NAT on their way back, and honest neighbours that look like that."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
from collections.abc import Iterator

import pytest

from rsttrace.demo.lab import Lab
from rsttrace.errors import LabError
from tests.lab.harness import (
    ADDRESSES,
    DEADLINE_S,
    FAMILIES,
    V6,
    Fence,
    Json,
    Tracer,
    forward,
    linger_zero,
    load_module,
    refuse,
    send_ip,
    server_address,
    skip_without,
)

SERVICE: dict[int, str] = {socket.AF_INET: "10.96.0.10", socket.AF_INET6: "fd96::10"}
PORTS = itertools.count(21001)


def note(entry: Json, name: str = "escaped-nat") -> Json:
    """What an entry's note says."""
    found: Json
    (found,) = [item for item in entry["evidence"] if item["rule"] == name]
    assert name in entry["findings"]
    return found


def ends(family: int, ip: str, port: int) -> str:
    return f"[{ip}]:{port}" if family == V6 else f"{ip}:{port}"


def one_way(family: int) -> str:
    """The service's address becomes the server's; nothing translates the answers back."""
    word = "ip6" if family == V6 else "ip"
    server = server_address("server", family)
    return (
        f"table {word} t {{\nchain p {{\ntype filter hook prerouting priority -300\n"
        f"{word} daddr {SERVICE[family]} tcp dport 80 {word} daddr set {server} "
        "tcp dport set 8080\n}\n}\n"
    )


@contextlib.contextmanager
def listening(lab: Lab, family: int, port: int = 8080) -> Iterator[socket.socket]:
    with lab.inside("server"), socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((server_address("server", family), port))
        listener.listen()
        yield listener


@contextlib.contextmanager
def connecting(
    lab: Lab, address: tuple[str, int], family: int, port: int = 0
) -> Iterator[socket.socket]:
    """A client's socket that sends its SYN, and does not wait."""
    with lab.inside("client"):
        sock = socket.socket(family)
    with sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((server_address("client", family), port))
        sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            sock.connect(address)
        yield sock


@FAMILIES
def test_a_syn_ack_that_was_not_translated_back(
    routed: Lab, tracer: Tracer, fence: Fence, family: int
) -> None:
    skip_without("nft")
    routed.nft("router", one_way(family))
    fence.cross(tracer)
    tracer.forget()
    with (
        listening(routed, family),
        connecting(routed, (SERVICE[family], 80), family) as client,
    ):
        tracer.wait_for(
            lambda: any("escaped-nat" in e["findings"] for e in tracer.of(routed.inode("server"))),
            "the note at the server",
        )
        sent = tracer.collect(routed.inode("client"), 1)[-1]
        (got, *_) = [e for e in tracer.of(routed.inode("server")) if "escaped-nat" in e["findings"]]
        port = client.getsockname()[1]
    for entry in (sent, got):
        found = note(entry)
        values = found["values"]
        assert values["came_from"] == ends(family, server_address("server", family), 8080)
        assert values["expected_from"] == ends(family, SERVICE[family], 80)
        assert values["connection"]["local"] == ends(family, server_address("client", family), port)
        assert (values["state"], values["known_by"]) == ("SYN_SENT", "sequence")
        assert values["netns"] == routed.inode("client")
        assert "was not translated back" in found["text"]
        assert "may" not in found["text"]


BRIDGED: dict[str, dict[int, str]] = {
    "client": {socket.AF_INET: "10.71.3.1", V6: "fd71:3::1"},
    "server": {socket.AF_INET: "10.71.3.2", V6: "fd71:3::2"},
    "node": {socket.AF_INET: "10.71.3.254", V6: "fd71:3::fe"},
}


@pytest.fixture
def bridged() -> Iterator[Lab]:
    """Two pods on one bridge of a node, which is their gateway; its frames pass no IP firewall."""
    with Lab("rstpods") as lab:
        load_module("br_netfilter")
        lab.add("client", "node", "server")
        lab.ip("node", "link add br0 type bridge", "link set br0 up")
        for name in ("iptables", "ip6tables"):
            with contextlib.suppress(FileNotFoundError):  # without the module it is never done
                lab.sysctl("node", **{f"net__bridge__bridge-nf-call-{name}": 0})
        for role, port in (("client", "p1"), ("server", "p2")):
            lab.link(role, "eth0", "node", port)
            lab.ip("node", f"link set {port} master br0")
        for role, interface in (("client", "eth0"), ("server", "eth0"), ("node", "br0")):
            v4, v6 = BRIDGED[role].values()
            lab.addresses(role, interface, f"{v4}/24", f"{v6}/64")
        lab.router("node")
        lab.sysctl("node", net__ipv4__conf__all__send_redirects=0)
        lab.route("client", *(f"default via {gateway}" for gateway in BRIDGED["node"].values()))
        yield lab


def service(family: int) -> str:
    """The node translates the service's address, with connection tracking (as kube-proxy does)."""
    word = "ip6" if family == V6 else "ip"
    to = ends(family, BRIDGED["server"][family], 8080)
    return (
        f"table {word} t {{\nchain n {{\ntype nat hook prerouting priority -100\n"
        f"{word} daddr {SERVICE[family]} tcp dport 80 dnat to {to}\n}}\n}}\n"
    )


@FAMILIES
def test_pods_on_one_bridge_that_passes_no_firewall(
    bridged: Lab, tracer: Tracer, fence: Fence, family: int
) -> None:
    """The answer takes the short way, past the node's translation (bridge-nf-call-iptables = 0)."""
    nat(bridged, "node", service(family))
    fence.cross(tracer)
    tracer.forget()
    client = bridged.inode("client")
    with bridged.inside("server"), socket.socket(family) as listener:
        listener.bind((BRIDGED["server"][family], 8080))
        listener.listen()
        with bridged.inside("client"):
            sock = socket.socket(family)
        with sock:
            sock.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                sock.connect((SERVICE[family], 80))
            tracer.wait_for(lambda: bool(tracked(tracer.of(client))), "the tracked connection")
    entry = tracked(tracer.of(client))[0]
    values = note(entry)["values"]
    assert values["came_from"] == ends(family, BRIDGED["server"][family], 8080)
    assert values["expected_from"] == ends(family, SERVICE[family], 80)
    assert values["conntrack"]["netns"] == bridged.inode("node")
    assert "bridge-nf-call-iptables" in entry["advice"]
    tracer.wait_for(lambda: has_note(tracer.of(bridged.inode("server"))), "the note at the server")
    got = next(entry for entry in tracer.of(bridged.inode("server")) if has_note([entry]))
    assert note(got)["values"]["connection"]["remote"] == ends(family, SERVICE[family], 80)
    assert "bridge-nf-call-iptables" in got["advice"]


def answered(lab: Lab, tracer: Tracer, role: str = "client") -> None:
    """Return once every question before this was answered: one that has an answer comes last."""
    port = next(PORTS)
    with lab.inside(role), socket.socket() as listener:
        listener.bind(("127.0.0.1", port))
        listener.listen()
        refuse(lab, ADDRESSES[role][0], port, role="router")
        tracer.wait_for(
            lambda: any(
                "listens-local-only" in entry["findings"] and entry["local"]["port"] == port
                for entry in tracer.of(lab.inode(role))
            ),
            "the last answer",
        )


def has_note(entries: list[Json], name: str = "escaped-nat") -> bool:
    return any(name in entry["findings"] for entry in entries)


def tracked(entries: list[Json]) -> list[Json]:
    """The entries whose note has an entry of connection tracking."""
    return [entry for entry in entries if has_note([entry]) and note(entry)["values"]["conntrack"]]


def nat(lab: Lab, role: str, rules: str) -> None:
    """Load rules that translate with connection tracking; skip where the kernel has none."""
    skip_without("nft")
    try:
        lab.nft(role, rules)
    except LabError as error:
        if "Operation not supported" not in str(error) and "No such file" not in str(error):
            raise
        pytest.skip(f"this kernel has no NAT: {error}")


def forgetful(family: int, hook: str) -> str:
    """NAT whose answers are not tracked, as those that are INVALID: they go on untranslated."""
    word = "ip6" if family == V6 else "ip"
    server = server_address("server", family)
    to = f"[{server}]:8080" if family == V6 else f"{server}:8080"
    return (
        f"table {word} t {{\n"
        f"chain r {{\ntype filter hook prerouting priority -300\n"
        f"{word} saddr {server} tcp sport 8080 notrack\n}}\n"
        f"chain n {{\ntype nat hook {hook} priority -100\n"
        f"{word} daddr {SERVICE[family]} tcp dport 80 dnat to {to}\n}}\n}}\n"
    )


@FAMILIES
@pytest.mark.parametrize(("role", "hook"), [("router", "prerouting"), ("client", "output")])
def test_connection_tracking_tells_the_service(
    routed: Lab, tracer: Tracer, fence: Fence, family: int, role: str, hook: str
) -> None:
    """The entry says which connection it was, also where the client's own host translates."""
    nat(routed, role, forgetful(family, hook))
    fence.cross(tracer)
    tracer.forget()
    client = routed.inode("client")
    with (
        listening(routed, family),
        connecting(routed, (SERVICE[family], 80), family) as sock,
    ):
        # A busy node has no time to look into all its namespaces: the next SYN asks again.
        tracer.wait_for(lambda: bool(tracked(tracer.of(client))), "the tracked connection")
        port = sock.getsockname()[1]
    entry = tracked(tracer.of(client))[0]
    values = note(entry)["values"]
    ours = ends(family, server_address("client", family), port)
    service = ends(family, SERVICE[family], 80)
    server = ends(family, server_address("server", family), 8080)
    assert values["known_by"] == ("sequence" if role == "router" else "conntrack")
    assert values["connection"] == {"local": ours, "remote": service}
    assert values["conntrack"]["netns"] == routed.inode(role)
    assert values["conntrack"]["original"] == [ours, service]
    assert values["conntrack"]["reply"] == [server, ours]
    assert values["conntrack"]["strict"] is True
    assert "nf_conntrack_tcp_be_liberal" in entry["advice"]


@FAMILIES
def test_a_live_connection_whose_answers_escape(
    routed: Lab, tracer: Tracer, fence: Fence, family: int
) -> None:
    skip_without("nft")
    word = "ip6" if family == V6 else "ip"
    back = (
        f"table {word} back {{\nchain p {{\ntype filter hook prerouting priority -300\n"
        f"{word} saddr {server_address('server', family)} tcp sport 8080 "
        f"{word} saddr set {SERVICE[family]} tcp sport set 80\n}}\n}}\n"
    )
    routed.nft("router", one_way(family) + back)
    fence.cross(tracer)
    tracer.forget()
    client = routed.inode("client")
    with listening(routed, family) as listener:
        with routed.inside("client"):
            sock = socket.socket(family)
        with sock:
            sock.settimeout(DEADLINE_S)
            sock.connect((SERVICE[family], 80))
            accepted, _ = listener.accept()
            with accepted:
                sock.sendall(b"ask")
                assert accepted.recv(10) == b"ask"
                accepted.sendall(b"answer")
                assert sock.recv(10) == b"answer"
                routed.nft("router", f"delete table {word} back")
                accepted.sendall(b"lost")
                tracer.wait_for(lambda: has_note(tracer.of(client)), "the note")
    entry = next(entry for entry in tracer.of(client) if has_note([entry]))
    values = note(entry)["values"]
    assert (values["state"], values["known_by"]) == ("ESTABLISHED", "sequence")
    assert values["expected_from"] == ends(family, SERVICE[family], 80)
    assert values["pid"] in (None, os.getpid())  # processes are looked through now and then only


@FAMILIES
def test_a_late_packet_of_another_connection_from_the_same_port_did_not_escape(
    routed: Lab, tracer: Tracer, fence: Fence, family: int
) -> None:
    """A port may be used to two remotes at once: what answers the dead one is not the other's."""
    skip_without("nft")
    port = 40123
    with routed.inside("router"):
        other = socket.socket(family)
    gateway = "fd71:1::fe" if family == V6 else "10.71.1.254"
    with listening(routed, family) as listener, other:
        other.bind((gateway, 9000))
        other.listen()
        with connecting(routed, (server_address("server", family), 8080), family, port) as dead:
            accepted, _ = listener.accept()
            routed.nft("router", forward("tcp flags & rst == rst drop"))
            fence.cross(tracer)
            tracer.forget()
            linger_zero(dead)
        with accepted, connecting(routed, (gateway, 9000), family, port):
            second, _ = other.accept()
            with second:
                accepted.sendall(b"late")
                client = routed.inode("client")
                tracer.wait_for(
                    lambda: any(e["kind"] == "sent-passive" for e in tracer.of(client)),
                    "the answer without a socket",
                )
                answered(routed, tracer)
                assert not has_note(tracer.of(client))


@FAMILIES
def test_a_stray_packet_for_a_used_port_did_not_escape(
    routed: Lab, tracer: Tracer, fence: Fence, family: int
) -> None:
    from scapy.layers.inet import IP, TCP
    from scapy.layers.inet6 import IPv6

    ip = IPv6 if family == V6 else IP
    fence.cross(tracer)
    tracer.forget()
    client = routed.inode("client")
    with connecting(routed, (SERVICE[family], 80), family) as sock:
        port = sock.getsockname()[1]
        for flags in ("SA", "A"):
            stray = ip(
                src=server_address("server", family), dst=server_address("client", family)
            ) / TCP(sport=8080, dport=port, flags=flags, seq=12345, ack=0x12345678)
            send_ip(routed, "server", stray)
        tracer.wait_for(
            lambda: sum(e["kind"] == "sent-passive" for e in tracer.of(client)) == 2,
            "two answers without a socket",
        )
        answered(routed, tracer)
        assert not has_note(tracer.of(client))
