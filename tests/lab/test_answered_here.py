"""A namespace that owns a virtual address answers for a connection that another host carried."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

from rsttrace.demo.lab import Lab
from tests.lab.harness import (
    DEADLINE_S,
    FAMILIES,
    V4,
    V6,
    Fence,
    Tracer,
    mac_of,
    provoke,
    resolve,
    server_address,
    skip_without,
)

VIRTUAL: dict[int, str] = {V4: "10.71.9.9", V6: "fd71:9::9"}


@contextlib.contextmanager
def connection(
    lab: Lab, address: tuple[str, int], listening: tuple[str, int]
) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection of the client to an address, accepted at another one in the server."""
    family = V6 if ":" in address[0] else V4
    with lab.inside("server"):
        listener = socket.socket(family)
    with lab.inside("client"):
        client = socket.socket(family)
    with listener, client:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(listening)
        listener.listen()
        for sock in (listener, client):
            sock.settimeout(DEADLINE_S)
        client.connect(address)
        accepted, _ = listener.accept()
        with accepted:
            accepted.settimeout(DEADLINE_S)
            for _ in range(3):
                client.sendall(b"ask")
                accepted.sendall(accepted.recv(10))
                assert client.recv(10) == b"ask"
            yield client, accepted


def passed_on(family: int) -> str:
    """The virtual address's port 80 is the server's 7400, both ways."""
    word = "ip6" if family == V6 else "ip"
    server, virtual = server_address("server", family), VIRTUAL[family]
    return (
        f"table {word} t {{\nchain p {{\ntype filter hook prerouting priority -300\n"
        f"{word} daddr {virtual} tcp dport 80 {word} daddr set {server} tcp dport set 7400\n}}\n"
        # not before routing: a router takes no packet in from an address of its own
        f"chain q {{\ntype filter hook postrouting priority -300\n"
        f"{word} saddr {server} tcp sport 7400 {word} saddr set {virtual} tcp sport set 80\n"
        "}\n}\n"
    )


@FAMILIES
def test_the_balancer_answers_once_its_service_is_gone(
    routed: Lab, tracer: Tracer, fence: Fence, family: int
) -> None:
    skip_without("nft")
    virtual = VIRTUAL[family]
    routed.addresses("router", "lo", f"{virtual}/{128 if family == V6 else 32}")
    routed.nft("router", passed_on(family))
    fence.cross(tracer)
    tracer.forget()
    listening = (server_address("server", family), 7400)
    with connection(routed, (virtual, 80), listening) as (client, _):
        routed.nft("router", "flush ruleset")
        provoke(client, b"too late")
        (entry, *_) = tracer.collect(routed.inode("client"), 1)
    assert (entry["origin"], entry["authors"][0]["author"]) == ("forged", "balancer")
    assert entry["made_here"]["netns"] == routed.inode("router")
    assert "answered-here" in entry["findings"]
    (found,) = (item for item in entry["evidence"] if item["rule"] == "answered-here")
    assert found["values"]["address"] == virtual
    assert found["values"]["netns_name"] == routed.name("router")
    assert (found["values"]["hops"], found["values"]["peer_hops"]) == (0, 1)
    assert routed.name("router") in found["text"]


@FAMILIES
def test_the_host_itself_without_its_socket_is_the_peer(
    routed: Lab, tracer: Tracer, fence: Fence, family: int
) -> None:
    """The honest twin: the answer comes from as far away as the connection."""
    skip_without("nft")
    address = (server_address("server", family), 7400)
    with connection(routed, address, address) as (client, accepted):
        fence.cross(tracer)
        tracer.forget()
        routed.nft(
            "router",
            "table inet t {\nchain f {\ntype filter hook forward priority 10\n"
            'oifname "cl0" tcp flags & (rst | fin) != 0 drop\n}\n}\n',
        )
        accepted.close()
        server = routed.inode("server")
        client.sendall(b"nobody reads this any more")
        tracer.collect(server, 1)
        routed.nft("router", "flush ruleset")
        provoke(client, b"late")
        tracer.wait_for(
            lambda: any(
                entry["kind"] == "received-accepted" for entry in tracer.of(routed.inode("client"))
            ),
            "the answer",
        )
    entry = tracer.of(routed.inode("client"))[-1]
    assert entry["origin"] == "peer"
    assert "answered-here" not in entry["findings"]


def test_a_director_on_our_own_link_is_told_by_its_mac(tracer: Tracer, fence: Fence) -> None:
    """The host behind it answers directly, so that all packets come from the same distance."""
    virtual = VIRTUAL[V4]
    with Lab("rstdirect") as lab:
        lab.add("client", "switch", "director", "server")
        lab.ip("switch", "link add br0 type bridge", "link set br0 up")
        for number, role in enumerate(("client", "director", "server"), 1):
            lab.link(role, "eth0", "switch", f"p{number}")
            lab.ip("switch", f"link set p{number} master br0")
            lab.addresses(role, "eth0", f"10.71.9.{number}/24")
        lab.sysctl(
            "server", net__ipv4__conf__all__arp_ignore=1, net__ipv4__conf__all__arp_announce=2
        )
        lab.addresses("server", "lo", f"{virtual}/32")
        lab.sysctl("director", net__ipv4__ip_forward=1, net__ipv4__conf__all__send_redirects=0)
        lab.route("director", f"{virtual}/32 via 10.71.9.3")
        director = mac_of(lab, "director", "eth0")
        lab.ip("client", f"neigh replace {virtual} lladdr {director} dev eth0 nud permanent")
        resolve(lab, "director", "10.71.9.3")
        fence.cross(tracer)
        tracer.forget()
        with connection(lab, (virtual, 80), (virtual, 80)) as (client, _):
            lab.addresses("director", "eth0", f"{virtual}/32")
            provoke(client, b"too late")
            (entry, *_) = tracer.collect(lab.inode("client"), 1)
        assert (entry["origin"], entry["authors"][0]["author"]) == ("forged", "balancer")
        (found,) = (item for item in entry["evidence"] if item["rule"] == "answered-here")
        assert found["values"]["mac"] == director
        assert found["values"]["peer_mac"] == mac_of(lab, "server", "eth0")
