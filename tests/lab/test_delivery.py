"""Ways a RST is delivered to the socket that it kills: through devices and tunnels, in fragments,
in pages, behind tags and headers. Each connection that dies has its entry, one, held against the
kernel's own counters."""

from __future__ import annotations

import errno
import mmap
import os
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest
import scapy.layers.inet as scapy_inet
import scapy.layers.inet6 as scapy_inet6
import scapy.layers.l2 as scapy_l2

from rsttrace.demo.lab import Lab
from rsttrace.errors import LabError
from rsttrace.kernel import typed
from rsttrace.kernel.facts import Facts
from rsttrace.kernel.hooks import Plan
from tests.lab.harness import (
    DEADLINE_S,
    FAMILIES,
    MISSING,
    V4,
    V6,
    Fence,
    Json,
    Tracer,
    expect_reset,
    knows,
    linger_zero,
    load_module,
    mac_of,
    resolve,
    send_frame,
)

UNDER = {"client": ("10.74.0.1", "fd74::1"), "server": ("10.74.0.2", "fd74::2")}
OVER = {"client": ("10.74.1.1", "fd74:1::1"), "server": ("10.74.1.2", "fd74:1::2")}


def counted(lab: Lab, role: str, *names: str) -> int:
    """The sum of a namespace's counters of /proc/net/snmp's line Tcp (RFC 4022)."""
    with lab.inside(role), open("/proc/thread-self/net/snmp", encoding="ascii") as file:
        rows = [line.split() for line in file if line.startswith("Tcp:")]
    return sum(int(rows[1][rows[0].index(name)]) for name in names)


@contextmanager
def linked(*commands: str, mtu: int = 1500) -> Iterator[Lab]:
    """client and server on one cable; the commands make t0 on it at both ends, if there are any.

    In them {here} and {there} are the ends' addresses, {here6} and {there6} their IPv6 ones.
    """
    ends = {"client": "server", "server": "client"}
    with Lab("rstway") as lab:
        lab.add(*ends)
        lab.link("client", "eth0", "server", "eth0")
        for role, other in ends.items():
            lab.ip(role, f"link set eth0 mtu {mtu}")
            (here, here6), (there, there6) = UNDER[role], UNDER[other]
            lab.addresses(role, "eth0", f"{here}/24", f"{here6}/64")
            for command in commands:
                try:
                    lab.ip(
                        role,
                        command.format(here=here, there=there, here6=here6, there6=there6),
                    )
                except LabError as error:
                    if not any(words in str(error) for words in MISSING):
                        raise
                    pytest.skip(f"this kernel has no such device: {error}")
            if commands:
                lab.ip(role, "link set t0 up")
                lab.addresses(role, "t0", *(f"{a}/{64 if ':' in a else 24}" for a in OVER[role]))
        yield lab


class Way(NamedTuple):
    """A device, or several, that the packets pass on top of a cable."""

    name: str
    commands: tuple[str, ...] = ()
    families: tuple[int, ...] = (V4, V6)
    module: str = ""


WAYS = (
    Way("veth"),
    Way("vlan", ("link add link eth0 name t0 type vlan id 7",)),
    Way(
        "qinq",
        (
            "link add link eth0 name s0 type vlan proto 802.1ad id 8",
            "link set s0 up",
            "link add link s0 name t0 type vlan id 7",
        ),
    ),
    Way("macvlan", ("link add link eth0 name t0 type macvlan mode bridge",)),
    Way("ipvlan", ("link add link eth0 name t0 type ipvlan mode l2",)),
    Way("bridge", ("link add t0 type bridge", "link set eth0 master t0")),
    Way(
        "bond",
        (
            "link add t0 type bond mode active-backup",
            "link set eth0 down",
            "link set eth0 master t0",
        ),
    ),
    Way("vxlan", ("link add t0 type vxlan id 7 dstport 4789 local {here} remote {there}",)),
    Way("vxlan6", ("link add t0 type vxlan id 7 dstport 4789 local {here6} remote {there6}",)),
    Way("geneve", ("link add t0 type geneve id 7 remote {there}",), module="geneve"),
    Way("gre", ("link add t0 type gre local {here} remote {there}",), module="ip_gre"),
    Way("gretap", ("link add t0 type gretap local {here} remote {there}",), module="ip_gre"),
    Way("ip6gre", ("link add t0 type ip6gre local {here6} remote {there6}",), module="ip6_gre"),
    Way("ipip", ("link add t0 type ipip local {here} remote {there}",), (V4,), "ipip"),
    Way("sit", ("link add t0 type sit local {here} remote {there}",), (V6,), "sit"),
    Way(
        "ip6tnl",
        ("link add t0 type ip6tnl mode any local {here6} remote {there6}",),
        module="ip6_tunnel",
    ),
)


def of(tracer: Tracer, lab: Lab, role: str, kind: str) -> list[Json]:
    """The entries of a kind at one end."""
    return [e for e in tracer.of(lab.inode(role)) if e["kind"].startswith(kind)]


@FAMILIES
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_through_devices(way: Way, family: int, tracer: Tracer, fence: Fence) -> None:
    if family not in way.families:
        pytest.skip("it carries the other family only")
    if way.module:
        load_module(way.module)
    with linked(*way.commands) as lab:
        addresses = OVER if way.commands else UNDER
        server = addresses["server"][family == V6]
        resolve(lab, "client", server)
        fence.cross(tracer)
        tracer.forget()
        ends = ("client", "server")
        sent = {role: counted(lab, role, "OutRsts") for role in ends}
        died = {role: counted(lab, role, "EstabResets", "AttemptFails") for role in ends}
        with lab.inside("server"):
            listener = socket.create_server((server, 7100), family=family)
        with listener:
            for turn in range(4):
                with lab.inside("client"):
                    client = socket.create_connection((server, 7100), DEADLINE_S)
                accepted, _ = listener.accept()
                closing, other = (client, accepted) if turn % 2 else (accepted, client)
                linger_zero(closing)
                closing.close()
                expect_reset(other)
                other.close()
        with lab.inside("client"), socket.socket(family) as sock:
            assert sock.connect_ex((server, 7101)) == errno.ECONNREFUSED
        fence.cross(tracer)  # both ends of each have seen the reset
        for role in ends:
            told = of(tracer, lab, role, "sent")
            assert len(told) == counted(lab, role, "OutRsts") - sent[role]
            gone = counted(lab, role, "EstabResets", "AttemptFails") - died[role]
            own = len(of(tracer, lab, role, "sent-active"))  # these count as well
            assert len(of(tracer, lab, role, "received-accepted")) + own == gone > 0


# ---- one RST, made by hand ----


def receive_next(sock: socket.socket) -> int:
    """The sequence number that a socket expects (TCP_REPAIR, include/uapi/linux/tcp.h)."""
    repair, queue, sequence, receive_queue, off_without_probe = 19, 20, 21, 1, -1
    sock.setsockopt(socket.IPPROTO_TCP, repair, 1)
    sock.setsockopt(socket.IPPROTO_TCP, queue, receive_queue)
    found = sock.getsockopt(socket.IPPROTO_TCP, sequence)
    sock.setsockopt(socket.IPPROTO_TCP, repair, off_without_probe)
    return found & 0xFFFFFFFF


def send_ring(lab: Lab, role: str, interface: str, frames: list[bytes]) -> None:
    """Send frames from a ring of pages (PACKET_TX_RING): only their link header is copied."""
    level, tx_ring, size, header, wanted = 263, 13, 2048, 32, 1  # TPACKET_V1
    with (
        lab.inside(role),
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as sock,
    ):
        sock.setsockopt(level, tx_ring, struct.pack("=IIII", 4096, 1, size, 2))
        sock.bind((interface, 0))
        with mmap.mmap(sock.fileno(), 4096) as ring:
            for number, frame in enumerate(frames):
                at = number % 2 * size
                ring[at + header : at + header + len(frame)] = frame
                ring[at + 8 : at + 12] = struct.pack("=I", len(frame))
                ring[at : at + 8] = struct.pack("=Q", wanted)
                sock.send(b"")  # returns when it has been sent


def pieces(packet: Any, size: int) -> list[Any]:
    """An IP packet in fragments, whose first has so many bytes of TCP."""
    if packet.version == 4:
        return list(scapy_inet.fragment(packet, size))
    inside = bytes(packet.payload)
    found = []
    for at in range(0, len(inside), size):
        part = inside[at : at + size]
        piece = packet.copy()
        piece.remove_payload()
        del piece.plen
        more = at + size < len(inside)
        header = scapy_inet6.IPv6ExtHdrFragment(nh=6, offset=at // 8, m=int(more), id=7)
        piece.nh = 44
        found.append(piece / header / part)
    return found


def behind(packet: Any, count: int) -> Any:
    """An IPv6 packet behind so many destination options headers."""
    made, segment = packet.copy(), packet.payload
    made.remove_payload()
    del made.plen
    made.nh = 60
    for _ in range(count):
        made = made / scapy_inet6.IPv6ExtHdrDestOpt()
    return made / segment


class Deliver(NamedTuple):
    """How a RST comes to the client. `send` is given the lab, an Ethernet header and the packet."""

    name: str
    send: Callable[[Lab, Any, Any], None]
    families: tuple[int, ...] = (V4, V6)
    payload: bytes = b""


def _send(lab: Lab, *frames: Any) -> None:
    for frame in frames:
        send_frame(lab, "server", "eth0", frame)


def _tags(count: int) -> Callable[[Lab, Any, Any], None]:
    def send(lab: Lab, ether: Any, packet: Any) -> None:
        for _ in range(count):
            ether = ether / scapy_l2.Dot1Q(vlan=0)
        _send(lab, ether / packet)

    return send


def _headers(count: int) -> Callable[[Lab, Any, Any], None]:
    return lambda lab, ether, packet: _send(lab, ether / behind(packet, count))


def _fragments(size: int, order: int = 1) -> Callable[[Lab, Any, Any], None]:
    def send(lab: Lab, ether: Any, packet: Any) -> None:
        _send(lab, *(ether / piece for piece in pieces(packet, size)[::order]))

    return send


DELIVERIES = (
    Deliver("plain", lambda lab, ether, packet: _send(lab, ether / packet)),
    Deliver(
        "ring", lambda lab, ether, packet: send_ring(lab, "server", "eth0", [bytes(ether / packet)])
    ),
    Deliver("large", lambda lab, ether, packet: _send(lab, ether / packet), payload=b"x" * 6000),
    # IPv6 wants all headers in the first fragment (RFC 7112; Linux since 2efdaaaf883a, 5.11).
    Deliver("fragments-8", _fragments(8), (V4,)),
    Deliver("fragments-16", _fragments(16), (V4,)),
    Deliver("fragments-backwards", _fragments(8, -1), (V4,)),
    Deliver("fragments-24", _fragments(24), payload=b"because of that"),
    Deliver("fragments-24-backwards", _fragments(24, -1), payload=b"because of that"),
    Deliver("tags-1", _tags(1)),
    Deliver("tags-4", _tags(4)),
    Deliver("tags-9", _tags(9)),
    Deliver("headers-4", _headers(4), (V6,)),
    Deliver("headers-5", _headers(5), (V6,)),
    Deliver("headers-7", _headers(7), (V6,)),  # some kernels drop packets that have many more
)


@pytest.fixture(scope="module")
def cable() -> Iterator[Lab]:
    """client and server on one cable, with room for large frames."""
    with linked(mtu=9000) as lab:
        resolve(lab, "client", *UNDER["server"])
        yield lab


def made(lab: Lab, family: int, **fields: Any) -> tuple[Any, Any]:
    """(Ethernet header, packet) of a segment from the server to the client."""
    ether = scapy_l2.Ether(src=mac_of(lab, "server", "eth0"), dst=mac_of(lab, "client", "eth0"))
    source, target = UNDER["server"][family == V6], UNDER["client"][family == V6]
    ip = (
        scapy_inet.IP(src=source, dst=target, ttl=61, id=777)
        if family == V4
        else scapy_inet6.IPv6(src=source, dst=target, hlim=61)
    )
    payload = fields.pop("payload", b"")
    packet = ip / scapy_inet.TCP(**fields)
    packet = type(packet)(bytes(packet / payload if payload else packet))  # whole, with checksums
    return ether, packet


def is_read(tracer: Tracer, delivery: Deliver) -> bool:
    """Whether the headers are read where the RST comes in, or where a kprobe has it later.

    Else tracepoints show it only where it is dropped. Of an accepted one, which is not, there is no
    more than what its socket knows.
    """
    deep = delivery.name == "tags-9"
    paged = delivery.name in ("ring", "large") and not typed.numbers(Facts().btf)["DYNPTR_FROM_SKB"]
    return tracer.plan is Plan.KPROBES or not (deep or paged)


@FAMILIES
@pytest.mark.parametrize("delivery", DELIVERIES, ids=lambda delivery: delivery.name)
@pytest.mark.parametrize("how", ["accepted", "rejected", "unmatched"])
def test_one_rst(
    how: str, delivery: Deliver, family: int, cable: Lab, tracer: Tracer, fence: Fence
) -> None:
    if family not in delivery.families:
        pytest.skip("the other family only")
    read = is_read(tracer, delivery)
    if not (read or how == "accepted" or knows()["drop_reason"]):
        pytest.skip("this kernel's tracepoints do not show it")
    server = UNDER["server"][family == V6]
    with cable.inside("server"):
        listener = socket.create_server((server, 7102), family=family)
    with cable.inside("client"):
        client = socket.create_connection((server, 7102), DEADLINE_S)
    with listener, client:
        expected = receive_next(client)
        fence.cross(tracer)
        tracer.forget()
        before = counted(cable, "client", "EstabResets")
        ports = {"sport": 7102, "dport": client.getsockname()[1]}
        if how == "unmatched":
            ports["dport"] = 7103
        seq = (expected + (1 << 29)) & 0xFFFFFFFF if how == "rejected" else expected
        packet = made(cable, family, flags="R", seq=seq, payload=delivery.payload, **ports)
        delivery.send(cable, *packet)
        tracer.wait_for(lambda: bool(of(tracer, cable, "client", "received")), "the reset")
        if how == "accepted":
            expect_reset(client)
        fence.cross(tracer)
        entries = of(tracer, cable, "client", "received")
        assert len(entries) == 1
        entry = entries[0]
        if read or how != "accepted":
            assert (entry["rst"]["seq"], entry["rst"]["ttl"]) == (seq, 61)
        else:
            assert (entry["rst"], entry["origin"]) == (None, "inconclusive")
        assert entry["local"]["port"] == ports["dport"]
        assert counted(cable, "client", "EstabResets") - before == (how == "accepted")
        if how == "accepted" or tracer.plan is Plan.KPROBES or knows()["drop_reason"]:
            assert entry["kind"] == f"received-{how}"
        if how == "accepted":
            assert entry["socket"]["state"] == "ESTABLISHED"
            assert entry["process"]["pid"] == os.getpid()
        if delivery.name not in ("ring", "large") and entry["rst"] is not None:
            assert entry["neighbor"]["mac"] == mac_of(cable, "server", "eth0")


def test_what_the_buffer_held_before_is_no_packet(cable: Lab, tracer: Tracer, fence: Fence) -> None:
    """Frames from a ring come in buffers that other packets had: here, RSTs."""
    server = UNDER["server"][0]
    fence.cross(tracer)
    tracer.forget()
    ether, _ = made(cable, V4, sport=1, dport=2)
    quiet = (
        scapy_inet.IP(src=server, dst=UNDER["client"][0]) / scapy_inet.UDP(dport=9) / (b"x" * 20)
    )
    frames = [bytes(ether / quiet)] * 200
    for _ in range(5):
        for _ in range(40):
            with cable.inside("client"), socket.socket() as sock:
                assert sock.connect_ex((server, 7104)) == errno.ECONNREFUSED
        send_ring(cable, "server", "eth0", frames)
    ends = (("server", "sent"), ("client", "received"))

    def seen() -> list[int]:  # so many alike are counted, after the first ones
        return [sum(e["seen"] for e in of(tracer, cable, *end)) for end in ends]

    tracer.wait_for(lambda: min(seen()) >= 200, "all resets")
    fence.cross(tracer)
    assert seen() == [200, 200]
    assert {e["kind"] for e in of(tracer, cable, "server", "sent")} == {"sent-passive"}


def test_data_after_shutdown_is_no_reset(cable: Lab, tracer: Tracer, fence: Fence) -> None:
    """tcp_reset() is called for it, and no RST has come."""
    server = UNDER["server"][0]
    fence.cross(tracer)
    tracer.forget()
    with cable.inside("server"):
        listener = socket.create_server((server, 7105))
    with listener, cable.inside("client"), socket.create_connection((server, 7105)) as client:
        accepted, _ = listener.accept()
        with accepted:
            client.shutdown(socket.SHUT_RDWR)
            accepted.sendall(b"late")
            tracer.wait_for(lambda: bool(of(tracer, cable, "server", "received")), "the answer")
    fence.cross(tracer)
    assert of(tracer, cable, "client", "received") == []
    assert len(of(tracer, cable, "client", "sent")) == 1
    assert len(of(tracer, cable, "server", "received-accepted")) == 1
