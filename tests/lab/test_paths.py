"""Ways a RST can take through a node: loopback, bridge, VLAN tag, NAT, many namespaces; and what is
said of who handed it over. Real packets; the tracer's own packets compared with tcpdump's."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import scapy.layers.inet as scapy_inet
import scapy.layers.l2 as scapy_l2
import scapy.utils as scapy_utils

from rsttrace.demo.lab import Lab
from rsttrace.kernel.hooks import Plan
from tests.lab.harness import (
    ADDRESSES,
    DEADLINE_S,
    V4,
    V6,
    Fence,
    Json,
    Tracer,
    expect_reset,
    knows,
    linger_zero,
    mac_of,
    out_rsts,
    pair,
    poll_until,
    send_frame,
    server_address,
    wire,
)

HASTY_SERVER = """
import fcntl, socket, struct, sys, termios
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
listener = socket.create_server((sys.argv[1], 7050), family=family)
print("up", flush=True)
while True:
    sock, _ = listener.accept()
    while struct.unpack("i", fcntl.ioctl(sock, termios.FIONREAD, bytes(4)))[0] < 20000: pass
    sock.shutdown(socket.SHUT_WR)
    sock.close()
"""


@contextlib.contextmanager
def busy_cpus() -> Iterator[None]:
    """More work than there are CPUs: softirqs interrupt, and run late."""
    burners = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"])
        for _ in range((os.cpu_count() or 1) + 1)
    ]
    try:
        yield
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()


@pytest.mark.parametrize("load", [contextlib.nullcontext, busy_cpus], ids=["idle", "busy"])
@pytest.mark.parametrize("family", [V4, V6], ids=["v4", "v6"])
def test_every_rst_sent_is_received_once(
    family: int,
    load: Callable[[], contextlib.AbstractContextManager[None]],
    routed: Lab,
    tracer: Tracer,
    fence: Fence,
) -> None:
    """Both ends close at once: RSTs wait in backlogs, cross each other, and none gets mixed up."""
    server = server_address("server", family)
    routed.spawn("server", [sys.executable, "-c", HASTY_SERVER, server], ready="up")
    fence.cross(tracer)
    tracer.forget()
    before = out_rsts(routed, "server") + out_rsts(routed, "client")

    def count() -> int:
        return out_rsts(routed, "server") + out_rsts(routed, "client") - before

    with load():
        for turn in range(5000):  # how many end in a reset depends on the machine
            if turn >= 97 and count() > 7:
                break
            with routed.inside("client"), socket.create_connection((server, 7050), 10) as client:
                client.sendall(b"x" * 20_000)
                with contextlib.suppress(ConnectionError):
                    client.recv(1)

    def ends() -> list[Json]:
        return tracer.of(routed.inode("client")) + tracer.of(routed.inode("server"))

    def all_sent() -> bool:
        return bool(sum(e["direction"] == "sent" for e in ends()) == count())

    tracer.wait_for(all_sent, "every reset that the kernel counts")
    fence.cross(tracer)
    assert all_sent()
    sent = Counter(wire(e) for e in ends() if e["direction"] == "sent")
    received = Counter(wire(e) for e in ends() if e["direction"] == "received")
    forwarded = Counter(wire(e) for e in tracer.of(routed.inode("router")))
    assert sum(sent.values()) > 7
    assert received == sent
    assert forwarded == sent
    for entry in ends():
        if entry["kind"] == "received-accepted":
            assert entry["process"]["pid"] == os.getpid()


def test_loopback(routed: Lab, tracer: Tracer, fence: Fence) -> None:
    fence.cross(tracer)
    tracer.forget()
    for family in (V4, V6):
        with routed.inside("client"), socket.socket(family) as sock:
            assert sock.connect_ex(("127.0.0.1" if family == V4 else "::1", 7999)) != 0
    entries = tracer.collect(routed.inode("client"), 4)
    fence.cross(tracer)
    assert len(tracer.of(routed.inode("client"))) == 4
    assert Counter(e["kind"] for e in entries) == {"sent-passive": 2, "received-accepted": 2}
    for entry in entries:
        if entry["direction"] == "received":
            assert entry["neighbor"]["ifname"] == "lo"
            assert entry["neighbor"]["mac"] is None
            assert entry["ingress"] is None
            assert entry["process"]["pid"] == os.getpid()


@pytest.fixture
def bridged() -> Iterator[Lab]:
    """client and server on one LAN: a bridge in a third namespace that has an address too."""
    with Lab("rstbr") as lab:
        lab.add("client", "switch", "server")
        lab.ip("switch", "link add br0 type bridge", "link set br0 up")
        for role, port in (("client", "p1"), ("server", "p2")):
            lab.link(role, "eth0", "switch", port)
            lab.ip("switch", f"link set {port} master br0")
        lab.addresses("client", "eth0", "10.72.0.1/24", "fd72::1/64")
        lab.addresses("server", "eth0", "10.72.0.2/24", "fd72::2/64")
        lab.addresses("switch", "br0", "10.72.0.3/24", "fd72::3/64")
        yield lab


@pytest.mark.parametrize("server", ["10.72.0.2", "fd72::2"])
def test_across_a_bridge(server: str, bridged: Lab, tracer: Tracer, fence: Fence) -> None:
    family = V6 if ":" in server else V4
    fence.cross(tracer)
    tracer.forget()
    for _ in range(7):
        with bridged.inside("client"), socket.socket(family) as sock:
            assert sock.connect_ex((server, 7999)) != 0
    entries = tracer.collect(bridged.inode("client"), 7)
    fence.cross(tracer)
    assert len(tracer.of(bridged.inode("client"))) == len(tracer.of(bridged.inode("server"))) == 7
    assert [e["kind"] for e in tracer.of(bridged.inode("switch"))] == ["forwarded"] * 7
    for entry in entries:
        neighbor = entry["neighbor"]
        assert neighbor["mac"] == mac_of(bridged, "server", "eth0")
        assert neighbor["ip"] == server
        assert neighbor["is_gateway"] is False
        assert neighbor["ifname"] == "eth0"
        assert neighbor["netns"] == bridged.inode("client")
        assert "locally administered" in neighbor["vendor"]


def test_to_the_bridge_itself(bridged: Lab, tracer: Tracer, fence: Fence) -> None:
    """The packet is seen at the port and again at the bridge: one entry, at the port."""
    fence.cross(tracer)
    tracer.forget()
    for _ in range(5):
        with bridged.inside("switch"), socket.socket() as sock:
            assert sock.connect_ex(("10.72.0.2", 7999)) != 0
    entries = tracer.collect(bridged.inode("switch"), 5)
    fence.cross(tracer)
    assert len(tracer.of(bridged.inode("switch"))) == 5
    assert {e["kind"] for e in entries} == {"received-accepted"}
    assert {e["neighbor"]["ifname"] for e in entries} == {"p2"}
    assert {e["neighbor"]["ip"] for e in entries} == {"10.72.0.2"}


@pytest.mark.parametrize("tags", [1, 2], ids=["802.1Q", "802.1ad"])
def test_vlan_tag_in_the_packet(tags: int, bridged: Lab, tracer: Tracer, fence: Fence) -> None:
    """Priority tags (VLAN 0) are accepted without a VLAN device; the RST is behind them."""
    fence.cross(tracer)
    tracer.forget()
    ether = scapy_l2.Ether(
        src=mac_of(bridged, "server", "eth0"), dst=mac_of(bridged, "client", "eth0")
    )
    tag = scapy_l2.Dot1Q(vlan=0)
    packet = scapy_inet.IP(src="10.72.0.2", dst="10.72.0.1", ttl=61, id=777) / scapy_inet.TCP(
        sport=7010, dport=7011, flags="RA", seq=5, ack=6, window=100
    )
    frame = ether / (scapy_l2.Dot1AD(vlan=0) / tag if tags == 2 else tag) / packet
    for _ in range(3):
        send_frame(bridged, "server", "eth0", frame)
    seen = [e for e in tracer.collect(bridged.inode("client"), 3) if e["direction"] == "received"]
    fence.cross(tracer)
    assert len(seen) == 3
    told = tracer.plan is Plan.KPROBES or knows()["drop_reason"]
    unmatched = "received-unmatched" if told else "received-rejected"
    for entry in seen:
        assert entry["kind"] == unmatched
        assert (entry["rst"]["ttl"], entry["rst"]["ip_id"], entry["rst"]["seq"]) == (61, 777, 5)
        assert entry["neighbor"]["mac"] == mac_of(bridged, "server", "eth0")


def test_behind_nat(routed: Lab, tracer: Tracer, fence: Fence) -> None:
    """The client asks a virtual address (as in Kubernetes): the RST's tuple is not the socket's."""
    routed.nft(
        "client",
        "table ip t {\nchain o {\ntype nat hook output priority -100\n"
        "ip daddr 10.99.0.1 tcp dport 80 dnat to 10.71.2.2:7999\n}\n}\n",
    )
    fence.cross(tracer)
    tracer.forget()
    for _ in range(5):
        with routed.inside("client"), socket.socket() as sock:
            assert sock.connect_ex(("10.99.0.1", 80)) != 0
    entries = tracer.collect(routed.inode("client"), 5)
    fence.cross(tracer)
    assert len(tracer.of(routed.inode("client"))) == 5
    for entry in entries:
        assert entry["kind"] == "received-accepted"
        assert entry["remote"] == {"ip": "10.99.0.1", "port": 80}
        assert entry["rst"]["raw"][24:32] == "0a470202"  # the pod's own address on the wire
        assert entry["process"]["pid"] == os.getpid()


def test_neighbour_and_first_ingress(routed: Lab, tracer: Tracer, fence: Fence) -> None:
    """At the client: the router, our gateway. First ingress: nowhere, this node made it."""
    fence.cross(tracer)
    tracer.forget()
    with pair(routed, "client", "server") as (client, accepted):
        linger_zero(accepted)
        accepted.close()
        expect_reset(client)
    entry = tracer.collect(routed.inode("client"), 1)[0]
    assert entry["neighbor"]["mac"] == mac_of(routed, "router", "cl0")
    assert entry["neighbor"]["ip"] == "10.71.1.254"
    assert entry["neighbor"]["is_gateway"] is True
    assert entry["netns_name"] == routed.name("client")
    assert entry["made_here"]["netns"] == routed.inode("server")
    assert entry["made_here"]["kind"] == "sent-active"
    assert entry["baseline"]["scope"] == "flow"
    assert entry["baseline"]["syn_ttl"] == entry["rst"]["ttl"] == 63
    assert entry["hops"] == {"rst": 1, "peer": 1}


def test_first_ingress_of_a_foreign_packet(bridged: Lab, tracer: Tracer, fence: Fence) -> None:
    """A frame no stack of this node made enters at the first interface that saw it."""
    fence.cross(tracer)
    tracer.forget()
    stranger = "00:d0:f8:22:33:44"
    ether = scapy_l2.Ether(src=stranger, dst=mac_of(bridged, "client", "eth0"))
    packet = scapy_inet.IP(src="10.72.0.9", dst="10.72.0.1", ttl=60, id=9) / scapy_inet.TCP(
        sport=7012, dport=7013, flags="R", seq=1
    )
    raw = bytes(ether / packet)
    with bridged.inside("server"), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.setsockopt(263, 20, 1)  # SOL_PACKET, PACKET_QDISC_BYPASS: not seen leaving
        sock.bind(("eth0", 0))
        sock.send(raw)
    entry = tracer.collect(bridged.inode("client"), 1)[0]
    assert entry["made_here"] is None
    assert entry["ingress"]["netns"] == bridged.inode("switch")
    assert entry["ingress"]["ifname"] == "p2"
    assert entry["ingress"]["mac"] == stranger
    assert entry["ingress"]["vendor"] == "FUJIAN STAR TERMINAL"


def test_the_owner_is_the_socket_s_not_who_ran(routed: Lab, tracer: Tracer, fence: Fence) -> None:
    """The reset comes in while another process runs; the socket belongs to a third one."""
    fence.cross(tracer)
    tracer.forget()
    with routed.inside("server"):
        listener = socket.socket()
        listener.bind((ADDRESSES["server"][0], 7020))
        listener.listen()
    with listener:
        pid = routed.spawn(
            "client",
            [
                sys.executable,
                "-c",
                "import socket;s=socket.create_connection(('10.71.2.2',7020));"
                "print('connected',flush=True)\n"
                "while True:\n try: s.recv(1)\n except OSError: pass",
            ],
            ready="connected",
        )
        accepted, _ = listener.accept()
        linger_zero(accepted)
        accepted.close()  # our own process runs the whole path down to the client's socket
    entry = tracer.collect(routed.inode("client"), 1)[0]
    assert entry["process"]["pid"] == pid
    assert entry["process"]["uid"] == 0
    sender = tracer.collect(routed.inode("server"), 1)[0]
    assert sender["process"]["pid"] == os.getpid()


def test_accepted_socket_has_no_foreign_owner(routed: Lab, tracer: Tracer, fence: Fence) -> None:
    """Sockets' memory is used again: a dead client must not be named as a server's owner."""
    server_pid = routed.spawn(
        "server",
        [
            sys.executable,
            "-c",
            "import socket\nl=socket.create_server(('10.71.2.2',7021))\nprint('up',flush=True)\n"
            "keep=[]\nwhile True: keep.append(l.accept()[0])",
        ],
        ready="up",
    )
    fence.cross(tracer)
    tracer.forget()
    for _ in range(13):
        with routed.inside("client"):
            client = socket.create_connection(("10.71.2.2", 7021), 10)
        linger_zero(client)
        client.close()
    entries = tracer.collect(routed.inode("server"), 13)
    assert {e["process"]["pid"] for e in entries} <= {server_pid, None}
    assert {e["kind"] for e in entries} == {"received-accepted"}


def test_keepalive_reset_and_a_firewall_that_drops_it(
    routed: Lab, tracer: Tracer, fence: Fence
) -> None:
    fence.cross(tracer)
    tracer.forget()
    with pair(routed, "client", "server", port=7030) as (client, accepted):
        for option, value in (
            (socket.SO_KEEPALIVE, None),
            (socket.TCP_KEEPIDLE, 1),
            (socket.TCP_KEEPINTVL, 1),
            (socket.TCP_KEEPCNT, 1),
        ):
            if value is None:
                accepted.setsockopt(socket.SOL_SOCKET, option, 1)
            else:
                accepted.setsockopt(socket.IPPROTO_TCP, option, value)
        routed.nft(
            "client",
            "table ip t {\nchain i {\ntype filter hook input priority 0\n"
            "tcp sport 7030 drop\n}\n}\n",
        )
        sent = tracer.collect(routed.inode("server"), 1)[0]
        got = tracer.collect(routed.inode("client"), 1)[0]
        assert client.fileno() > 0
    told = knows()
    why = ("keepalive", "TCP_KEEPALIVE_TIMEOUT" if told["reset_reason"] else None)
    assert (sent["kind"], sent["cause"]["name"], sent["cause"]["kernel_reason"]) == (
        "sent-active",
        *why,
    )
    assert sent["socket"]["state"] == "ESTABLISHED"
    what = "firewall-drop" if told["drop_reason"] else "ignored"
    assert (got["kind"], got["cause"]["name"]) == ("received-rejected", what)


@pytest.mark.parametrize("how", ["raw", "packet"])
def test_raw_writers_are_named(how: str, bridged: Lab, tracer: Tracer, fence: Fence) -> None:
    with bridged.inside("server"), socket.socket() as sock:  # a packet that waits names nobody
        assert sock.connect_ex(("10.72.0.1", 7999)) != 0
    fence.cross(tracer)
    tracer.forget()
    packet = scapy_inet.IP(src="10.72.0.2", dst="10.72.0.1") / scapy_inet.TCP(
        sport=1, dport=2, flags="R"
    )
    if how == "packet":
        ether = scapy_l2.Ether(
            src=mac_of(bridged, "server", "eth0"), dst=mac_of(bridged, "client", "eth0")
        )
        send_frame(bridged, "server", "eth0", ether / packet)
    else:
        with (
            bridged.inside("server"),
            socket.socket(V4, socket.SOCK_RAW, socket.IPPROTO_TCP) as sock,
        ):  # not IPPROTO_RAW: looks like the kernel's own control socket
            sock.sendto(bytes(packet)[20:], ("10.72.0.1", 0))
    sent = tracer.collect(bridged.inode("server"), 1)[0]
    got = tracer.collect(bridged.inode("client"), 1)[0]
    assert (sent["kind"], sent["origin"]) == ("sent-raw", "local")
    assert sent["process"]["pid"] == os.getpid()
    assert (got["origin"], got["made_here"]["pid"]) == ("forged", os.getpid())
    assert got["evidence"][0]["proof"] is True


def test_as_tcpdump_saw_it(routed: Lab, tracer: Tracer, fence: Fence, tmp_path: Path) -> None:
    """The same packets, field by field, as a capture of the same run."""
    capture = tmp_path / "client.pcap"
    dump = subprocess.Popen(
        ["ip", "netns", "exec", routed.name("client"), "tcpdump", "-Z", "root", "-i", "eth0",
         "--immediate-mode", "-U", "-w", str(capture), "tcp[tcpflags] & tcp-rst != 0"],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert dump.stderr is not None
    for line in dump.stderr:
        if "listening on" in line:
            break
    fence.cross(tracer)
    tracer.forget()
    for turn in range(11):
        with pair(routed, "client", "server", port=7040) as (client, accepted):
            client.send(b"x" * turn)
            linger_zero(accepted)
            accepted.close()
            expect_reset(client)
        with routed.inside("client"), socket.socket() as sock:
            assert sock.connect_ex((ADDRESSES["server"][0], 7999)) != 0
    entries = tracer.collect(routed.inode("client"), 22)
    poll_until(lambda: len(scapy_utils.rdpcap(str(capture))) >= 22, "tcpdump")
    dump.send_signal(signal.SIGINT)
    dump.wait(DEADLINE_S)
    dump.stderr.close()
    captured = [bytes(packet)[14:] for packet in scapy_utils.rdpcap(str(capture))]
    assert len(captured) == len(entries) == 22

    def without_checksum(raw: str) -> str:
        return raw[:72] + raw[76:]

    said = Counter(without_checksum(entry["rst"]["raw"]) for entry in entries)
    assert said == Counter(without_checksum(raw[: len(raw)].hex()) for raw in captured)


UNREADING_SERVER = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
listener = socket.create_server((sys.argv[1], 7051), family=family)
print("up", flush=True)
while True:
    sock, _ = listener.accept()
    sock.recv(4)
    sock.close()
"""


@pytest.mark.parametrize("family", [V4, V6], ids=["v4", "v6"])
def test_what_was_sent_before_a_reset(family: int, routed: Lab) -> None:
    """The data lies in the packet's fragments or its linear part, large or small."""
    server = server_address("server", family)
    routed.spawn("server", [sys.executable, "-c", UNREADING_SERVER, server], ready="up")
    request = b"GET /use?db=shop HTTP/1.1\r\nHost: shop\r\n\r\n"
    tracer = Tracer("--kind", "received", "--payload", "64", "--netns", str(routed.inode("client")))
    try:
        for data in (request, request + b"x" * 20_000):
            with routed.inside("client"), socket.create_connection((server, 7051), 10) as client:
                client.sendall(data)
                expect_reset(client)
        entries = tracer.collect(routed.inode("client"), 2)
    finally:
        tracer.stop()
    for entry in entries:
        sent = entry["sent_data"]
        assert sent is not None, tracer.status
        assert sent["age_ms"] >= 0
    assert entries[0]["sent_data"]["text"] == "GET /use?db=shop (Host shop)"
    assert bytes.fromhex(entries[0]["sent_data"]["payload"]) == request
    assert entries[0]["sent_data"]["payload_len"] == len(request)
    assert len(bytes.fromhex(entries[1]["sent_data"]["payload"])) == 64
