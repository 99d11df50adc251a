"""What real nodes are built of: VLAN devices, slow and reordering paths, an SLB, bridges with a
firewall, several CPUs, MPTCP, TCP Fast Open, hidden kernel addresses, old cgroups, lockdown.

Each case runs wherever the kernel has what it needs, which is found out by trying; else it is
skipped with a sentence. What only the boot command line decides has its guest in
tests/kernels/variants.py.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import scapy.layers.inet as scapy_inet

from rsttrace.demo import forger
from rsttrace.demo.lab import Lab
from rsttrace.errors import LabError
from rsttrace.judge.verdict import judge
from rsttrace.kernel.protocol import Request
from rsttrace.kernel.source import LiveSource
from rsttrace.model import Kind, Origin, Reset, Seen
from tests.lab.harness import (
    ADDRESSES,
    DEADLINE_S,
    PLAN,
    Fence,
    Json,
    Tracer,
    bpf_programs,
    expect_reset,
    linger_zero,
    mac_of,
    no_socket,
    out_rsts,
    pair,
    poll_until,
    send_ip,
    server_address,
)

V4, V6 = socket.AF_INET, socket.AF_INET6
FAMILIES = pytest.mark.parametrize("family", [V4, V6], ids=["v4", "v6"])
IPPROTO_MPTCP = 262  # include/uapi/linux/in.h; Python names it from 3.10 on
ROLES = ("client", "router", "server")
LOCKDOWN = Path("/sys/kernel/security/lockdown")

MISSING = ("Unknown device type", "qdisc kind is unknown")
"""What the kernel says, through iproute2, where it has no such feature."""


def need(what: str, lab: Lab, command: str) -> None:
    """Try a feature on a device of its own, p0; skip the test where the kernel lacks it."""
    lab.add("probe")
    lab.ip("probe", "link add p0 type veth peer name p1")
    try:
        lab.exec("probe", command.split())
    except LabError as error:
        if not any(words in str(error) for words in MISSING):
            raise
        pytest.skip(f"this kernel has no {what}: {error}")


def load_module(name: str) -> None:
    """Load a module if there is one; whether the feature is there then, the caller tries."""
    with contextlib.suppress(FileNotFoundError):  # a machine without modules has no modprobe
        subprocess.run(["modprobe", name], check=False, capture_output=True)


def cause(entry: Json) -> tuple[str, str, str, str | None]:
    """What an entry says in short: kind, cause, origin, the socket's state."""
    state = entry["socket"]["state"] if entry["socket"] else None
    return entry["kind"], entry["cause"]["name"], entry["origin"], state


def wire(entry: Json) -> str:
    """The TCP header as it was on the wire, without the checksum (offloaded at the sender)."""
    tcp = entry["rst"]["raw"][40:] if entry["family"] == 4 else entry["rst"]["raw"][80:]
    return str(tcp[:32] + tcp[36:])


def refuse(lab: Lab, address: str, port: int = 7999, role: str = "client") -> None:
    """One connection that nobody accepts."""
    with lab.inside(role), socket.socket(V6 if ":" in address else V4) as sock:
        sock.settimeout(DEADLINE_S)
        assert sock.connect_ex((address, port)) == errno.ECONNREFUSED


def resolve(lab: Lab, role: str, *addresses: str) -> None:
    """Have the neighbours resolved: before, a SYN is sent (and answered) several times over."""
    for address in addresses:
        with lab.inside(role), socket.socket(V6 if ":" in address else V4) as sock:
            sock.settimeout(DEADLINE_S)
            sock.connect_ex((address, 1))


SENT_REFUSAL = ("sent-passive", "no-listener", "local", None)
REFUSED = ("received-accepted", "connection-refused", "peer", "SYN_SENT")
SENT_LINGER = ("sent-active", "linger", "local", "ESTABLISHED")
RESET = ("received-accepted", "connection-reset", "peer", "ESTABLISHED")
PASSED = ("forwarded", "forwarded", "peer", None)


@pytest.fixture(scope="module")
def machines() -> Iterator[Tracer]:
    """A tracer for which each namespace is a machine of its own: it has only the evidence."""
    tracer = Tracer("--viewpoint", "netns", "--kind", "all")
    try:
        yield tracer
    finally:
        tracer.stop()


# ---- VLAN devices ----


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
    entries = machines.collect(tagged.inode("client"), 3)
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


# ---- a bridge whose frames pass the IP firewall (br_netfilter) ----


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


def forward(rule: str) -> str:
    """A ruleset for the IP forward hook, which bridged frames pass as well.

    A bridge table's priority must be above 0, or br_netfilter goes past it on kernels that are as
    old as 6.1 (br_nf_hook_thresh()).
    """
    return f"table inet t {{\nchain f {{\ntype filter hook forward priority 10\n{rule}\n}}\n}}\n"


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


# ---- several CPUs ----


def test_rps(routed: Lab, tracer: Tracer, fence: Fence) -> None:
    """Packets are handed from CPU to CPU (RPS) while resets cross in four threads: each is told
    once at each end, with its own socket and process."""
    cpus = len(os.sched_getaffinity(0))
    if cpus < 2:
        pytest.skip("one CPU: nothing to hand packets to")
    mask = f"{(1 << cpus) - 1:x}"
    for role in ("client", "router", "server"):
        script = f"for f in /sys/class/net/*/queues/rx-*/rps_cpus; do echo {mask} > $f; done"
        routed.exec(role, ["sh", "-c", script])
    handed = handed_over()
    rounds, threads = 29, 4
    fence.cross(tracer)
    tracer.forget()
    ports: dict[int, list[int]] = {}

    def work(number: int) -> None:
        ports[number] = []
        for _ in range(rounds):
            refuse(routed, ADDRESSES["server"][0], 7900 + number)
            with pair(routed, "client", "server", port=7100 + number) as (client, accepted):
                linger_zero(accepted)
                accepted.close()
                expect_reset(client)
                ports[number].append(client.getsockname()[1])

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    total = rounds * threads
    assert sum(map(len, ports.values())) == total
    tracer.collect(routed.inode("client"), 2 * total)
    tracer.collect(routed.inode("server"), 2 * total)
    fence.cross(tracer)
    assert handed_over() > handed, "RPS handed nothing over"
    client, server = (tracer.of(routed.inode(role)) for role in ("client", "server"))
    assert Counter(map(cause, client)) == {REFUSED: total, RESET: total}
    assert Counter(map(cause, server)) == {SENT_REFUSAL: total, SENT_LINGER: total}
    assert Counter(map(wire, client)) == Counter(map(wire, server))
    for number, known in ports.items():
        mine = [entry for entry in client if entry["remote"]["port"] == 7100 + number]
        assert sorted(entry["local"]["port"] for entry in mine) == sorted(known)
    for entry in client:
        assert entry["process"]["pid"] == os.getpid()
        assert entry["made_here"]["netns"] == routed.inode("server")


def handed_over() -> int:
    """How often a CPU was woken for packets of another (received_rps in softnet_seq_show())."""
    rows = Path("/proc/net/softnet_stat").read_text().splitlines()
    return sum(int(row.split()[9], 16) for row in rows)


# ---- MPTCP ----


@contextlib.contextmanager
def mptcp_pair(
    lab: Lab, family: int, protocol: int = IPPROTO_MPTCP
) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection whose listener speaks MPTCP, and whose client speaks `protocol`."""
    try:
        with lab.inside("server"):
            listener = socket.socket(family, socket.SOCK_STREAM, IPPROTO_MPTCP)
    except OSError as error:
        pytest.skip(f"this kernel has no MPTCP: {error.strerror}")
    with lab.inside("client"):
        client = socket.socket(family, socket.SOCK_STREAM, protocol)
    with listener, client:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((server_address("server", family), 7200))
        listener.listen()
        listener.settimeout(DEADLINE_S)
        client.settimeout(DEADLINE_S)
        client.connect((server_address("server", family), 7200))
        accepted, _ = listener.accept()
        accepted.settimeout(DEADLINE_S)
        with accepted:
            yield client, accepted


@FAMILIES
@pytest.mark.parametrize("how", ["linger", "unread"])
@pytest.mark.parametrize("end", ["client", "server"])
def test_mptcp_close(
    end: str,
    how: str,
    family: int,
    routed: Lab,
    tracer: Tracer,
    machines: Tracer,
    fence: Fence,
) -> None:
    """MPTCP resets its subflow with MP_FASTCLOSE from inside close(): by its own process, which is
    nobody who killed somebody else's socket."""
    with mptcp_pair(routed, family) as (client, accepted):
        client.send(b"x" * 10)
        accepted.send(b"y" * 10)
        for sock in (client, accepted):
            assert len(sock.recv(5 if how == "unread" else 10)) >= 5
        for each in (tracer, machines):
            fence.cross(each)
            each.forget()
        closing, other = (client, accepted) if end == "client" else (accepted, client)
        if how == "linger":
            linger_zero(closing)
        closing.close()
        expect_reset(other)
        receiver = routed.inode("server" if end == "client" else "client")
        (received,) = tracer.collect(receiver, 1)
        (alone,) = machines.collect(receiver, 1)
    fence.cross(tracer)
    (sent,) = tracer.of(routed.inode(end))
    if "mptcp 7" not in sent["rst"]["options"]:
        pytest.skip("this kernel's MPTCP does not close with MP_FASTCLOSE (RFC 8684 section 3.5)")
    assert cause(sent) == ("sent-active", "mptcp-fastclose", "local", "ESTABLISHED")
    assert sent["actor"] is None
    assert sent["process"]["pid"] == os.getpid()
    assert cause(received) == cause(alone) == RESET
    assert received["actor"] is None
    assert wire(sent) == wire(received)
    assert [cause(entry) for entry in tracer.of(routed.inode("router"))] == [PASSED]


@FAMILIES
def test_mptcp_listener_and_plain_tcp(
    family: int, routed: Lab, tracer: Tracer, fence: Fence
) -> None:
    """A peer without MPTCP: an ordinary connection with ordinary causes."""
    fence.cross(tracer)
    tracer.forget()
    with mptcp_pair(routed, family, socket.IPPROTO_TCP) as (client, accepted):
        linger_zero(client)
        client.close()
        expect_reset(accepted)
        (received,) = tracer.collect(routed.inode("server"), 1)
    fence.cross(tracer)
    assert cause(received) == RESET
    (sent,) = tracer.of(routed.inode("client"))
    assert cause(sent) == SENT_LINGER


def test_mptcp_join_of_an_unknown_connection(routed: Lab, tracer: Tracer, fence: Fence) -> None:
    """A SYN that wants to join a connection nobody has (RFC 8684 section 3.2): not "only a
    listener there"."""
    with mptcp_pair(routed, V4):
        fence.cross(tracer)
        tracer.forget()
        source, target = ADDRESSES["client"][0], ADDRESSES["server"][0]
        join = bytes.fromhex("1001deadbeef01020304")  # subtype 1, address id 1, token, nonce
        syn = scapy_inet.TCP(sport=7201, dport=7200, flags="S", seq=100, options=[(30, join)])
        send_ip(routed, "client", scapy_inet.IP(src=source, dst=target) / syn)
        (received,) = tracer.collect(routed.inode("client"), 1)
        fence.cross(tracer)
    (sent,) = tracer.of(routed.inode("server"))
    assert sent["rst"]["options"].startswith("mptcp 8")
    assert cause(sent) == ("sent-passive", "mptcp-reset", "local", "LISTEN")
    assert sent["cause"]["kernel_reason"] in (None, "MPTCP_RST_EMPTCP")
    assert sent["trigger"]["flags"] == "S"
    assert cause(received) == ("received-unmatched", "no-socket", "peer", None)


# ---- TCP Fast Open ----


@pytest.fixture
def fast_open(routed: Lab) -> Lab:
    """The routed lab, whose client has a cookie of the server (RFC 7413)."""
    for role in ("client", "server"):
        try:
            routed.sysctl(role, net__ipv4__tcp_fastopen=3)
        except OSError as error:
            pytest.skip(f"this kernel has no TCP Fast Open: {error}")
    with fast_pair(routed, b"", keep=True) as (client, accepted):
        assert client.fileno() > 0
        assert accepted.fileno() > 0
    return routed


@contextlib.contextmanager
def fast_pair(
    lab: Lab, data: bytes, keep: bool = False
) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection whose SYN carries `data` (or, without, asks for the cookie)."""
    with lab.inside("server"):
        listener = socket.socket()
    with lab.inside("client"):
        client = socket.socket()
    with listener, client:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 16)
        listener.bind((ADDRESSES["server"][0], 7300))
        listener.listen()
        listener.settimeout(DEADLINE_S)
        assert client.sendto(data or b"?", socket.MSG_FASTOPEN, (ADDRESSES["server"][0], 7300))
        client.settimeout(DEADLINE_S)
        accepted, _ = listener.accept()
        with accepted:
            accepted.settimeout(DEADLINE_S)
            if keep:
                assert accepted.recv(1) == b"?"
            yield client, accepted


def test_fast_open_refused(fast_open: Lab, tracer: Tracer, fence: Fence) -> None:
    """A SYN with data that nobody listens for: the answer acknowledges all of it."""
    fence.cross(tracer)
    tracer.forget()
    for _ in range(5):
        with (
            fast_open.inside("client"),
            socket.socket() as sock,
            pytest.raises(ConnectionRefusedError),
        ):
            sock.sendto(b"x" * 10, socket.MSG_FASTOPEN, (ADDRESSES["server"][0], 7999))
    received = tracer.collect(fast_open.inode("client"), 5)
    fence.cross(tracer)
    sent = tracer.of(fast_open.inode("server"))
    assert list(map(cause, sent)) == [SENT_REFUSAL] * 5
    assert list(map(cause, received)) == [REFUSED] * 5
    for entry in sent:
        trigger = entry["trigger"]
        assert (trigger["flags"], trigger["payload_len"]) == ("S", 10)
        assert entry["rst"]["ack"] == (trigger["seq"] + 11) & 0xFFFFFFFF


@pytest.mark.parametrize("how", ["unread", "linger"])
def test_fast_open_server_resets_unfinished_handshake(
    how: str, fast_open: Lab, tracer: Tracer, machines: Tracer, fence: Fence
) -> None:
    """The server's program has the data and closes before the handshake's last ACK has come."""
    fast_open.nft("server", drop_bare_acks())
    for each in (tracer, machines):
        fence.cross(each)
        each.forget()
    with fast_pair(fast_open, b"x" * 10) as (client, accepted):
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) == b"\x03", "SYN_RECV"
        if how == "linger":
            assert len(accepted.recv(10)) == 10
            linger_zero(accepted)
        accepted.close()
        expect_reset(client)
        (received,) = tracer.collect(fast_open.inode("client"), 1)
        (alone,) = machines.collect(fast_open.inode("client"), 1)
    fence.cross(tracer)
    (sent,) = tracer.of(fast_open.inode("server"))
    name = "linger" if how == "linger" else "unread-data"
    assert cause(sent) == ("sent-active", name, "local", "SYN_RECV")
    assert sent["process"]["pid"] == os.getpid()
    assert cause(received) == cause(alone) == RESET
    assert received["process"]["pid"] == os.getpid()


def test_fast_open_client_resets_unfinished_handshake(
    fast_open: Lab, tracer: Tracer, fence: Fence
) -> None:
    """A full socket in SYN_RECV that a program has accepted already is reset."""
    fast_open.nft("server", drop_bare_acks())
    fence.cross(tracer)
    tracer.forget()
    with fast_pair(fast_open, b"x" * 10) as (client, accepted):
        assert len(accepted.recv(10)) == 10
        linger_zero(client)
        client.close()
        expect_reset(accepted)
        (received,) = tracer.collect(fast_open.inode("server"), 1)
    fence.cross(tracer)
    assert cause(received) == ("received-accepted", "reset-handshake", "peer", "SYN_RECV")
    (sent,) = tracer.of(fast_open.inode("client"))
    assert cause(sent) == SENT_LINGER


def drop_bare_acks() -> str:
    """A ruleset that keeps handshakes from ending."""
    return (
        "table inet t {\nchain i {\ntype filter hook input priority 0\n"
        "tcp flags & (syn | ack | rst) == ack drop\n}\n}\n"
    )


# ---- IPVS ----

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
    resets it. On this node that is seen; from the evidence alone it is no accusation, but it is
    not the peer either: one hop too near."""
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
    assert cause(entry) == RESET
    assert entry["made_here"]["netns"] == balanced.inode("router")
    assert entry["remote"] == {"ip": VIRTUAL, "port": 80}
    assert cause(alone) == (*RESET[:2], "inconclusive", "ESTABLISHED")
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


# ---- slow and reordering paths ----

# What the numbers are like (two runs on 6.12 under emulation, kprobe plan, each case three times or
# more; netem delays by half the round trip each way). In ms before the RST came: our last packet,
# our last data; then TCP's minimum round trip.
#
#                                      last packet   last data      min_rtt
#   honest answer to data, 15 ms       16.4 .. 17.8  the same       15.8 .. 16.5
#                         100 ms      102.3 .. 103.1 the same      101.4 .. 101.9
#   honest, of its own accord, 15 ms    8.4 .. 30.0  24.7 .. 30.0   15.9 .. 17.0
#                             100 ms    8.6 .. 51.7  153  .. 155   101.2 .. 101.9
#   REJECT one hop away, 15 ms          0.3 .. 3.5   the same       16.1 .. 16.6
#                       100 ms          0.3 .. 0.7   the same      101.3 .. 102.0
#   forging program there, 15 ms        1.3 .. 6.3   the same       16.0 .. 17.0
#                         100 ms        1.3 .. 4.6   the same      101.4 .. 102.4
#   honest answer that overtook, 15 ms  9.7 .. 11.1  the same       16.6 .. 17.0
#                               100 ms 52.8          the same      102.0
#   honest, others overtook, 15 ms      0.0 .. 7.5   16.7 .. 25.9    8.3 .. 9.3
#                           100 ms      0.0 .. 103   102  .. 106    50.9 .. 55.2
#
# So the time since our last data tells them apart at both delays, where the RST acknowledges that
# data (0.4 of min_rtt and less against 0.5 and more); the time since our last packet does not. An
# honest RST that overtakes on a symmetric path comes as early as half of min_rtt, never earlier: on
# an asymmetric one it could.


@pytest.fixture(scope="module")
def source() -> Iterator[LiveSource]:
    """Resets with everything that the kernel side tells, times included."""
    with Lab("rstnetem") as lab:
        need("netem", lab, "tc qdisc add dev p0 root netem delay 1ms")
    with LiveSource(Request(tuple(kind.value for kind in Kind), plan=PLAN)) as live:
        yield live


def collect(source: LiveSource, lab: Lab, count: int, *kinds: Kind) -> list[Reset]:
    """So many resets of these kinds that the client received (without `kinds`: of any), judged as
    if the client were a machine of its own."""
    netns = lab.inode("client")
    found: list[Reset] = []
    ends = time.monotonic() + DEADLINE_S
    while len(found) < count:
        assert time.monotonic() < ends, f"only {len(found)} of {count} resets"
        found += [
            reset
            for reset in source.wait(0.1)
            if isinstance(reset, Reset)
            and reset.netns == netns
            and reset.kind.direction == "received"
            and (not kinds or reset.kind in kinds)
        ]
    for reset in found:
        reset.made_here = reset.ingress_frame = None
    return found


def slow(source: LiveSource, lab: Lab, delay_ms: int, *, reorder: bool = False) -> None:
    """A round trip of at least `delay_ms` between router and server, half of it each way. With
    `reorder` every third packet to the client overtakes those that wait."""
    half = ["delay", f"{delay_ms / 2}ms", "limit", "10000"]
    back = [*half, "reorder", "100%", "gap", "3"] if reorder else half
    while source.wait(0):  # of the tests before
        pass
    for role, interface, how in (("router", "sv0", half), ("server", "eth0", back)):
        lab.exec(role, ["tc", "qdisc", "add", "dev", interface, "root", "netem", *how])


DELAYS = pytest.mark.parametrize("delay_ms", [15, 100])


def our_last_data(reset: Reset) -> Seen | None:
    """Our newest packet with payload, if it is among the last few."""
    ours = reset.baseline.ours
    assert ours is not None
    return next((seen for seen in ours.recent if seen.payload_len), None)


def answers_our_data(reset: Reset) -> bool:
    """Whether the RST acknowledges all data that we sent: its maker has seen it."""
    data = our_last_data(reset)
    return data is not None and reset.rst.ack == (data.seq + data.payload_len) & 0xFFFFFFFF


def figures(reset: Reset, what: str) -> dict[str, float]:
    """The times that a timing rule has to go by, in ms: how long before the RST came we sent our
    last packet and our last data, how long the handshake took, TCP's own measurements."""
    ours, theirs, sock = reset.baseline.ours, reset.baseline.theirs, reset.socket
    data = our_last_data(reset)
    assert ours is not None
    assert theirs is not None
    assert sock is not None
    assert ours.syn_ns is not None
    assert theirs.syn_ns is not None
    assert isinstance(reset.trigger, Seen)
    found = {
        "trigger": (reset.time_ns - reset.trigger.time_ns) / 1e6,
        "handshake": (theirs.syn_ns - ours.syn_ns) / 1e6,
        "min_rtt": (sock.min_rtt_us or 0) / 1e3,
        "srtt": (sock.srtt_us or 0) / 1e3,
    }
    if data is not None:
        found["data"] = (reset.time_ns - data.time_ns) / 1e6
    print(what, {name: round(value, 2) for name, value in found.items()}, judge(reset).origin.value)
    assert found["trigger"] >= 0, "what provoked a RST was sent before it came"
    return found


@DELAYS
def test_slow_path_honest_answer(delay_ms: int, routed: Lab, source: LiveSource) -> None:
    """A server that closes with our data unread: its RST acknowledges the data, so it cannot be
    here before the path has been gone both ways; neither can the SYN-ACK."""
    slow(source, routed, delay_ms)
    for _ in range(3):
        with pair(routed, "client", "server") as (client, accepted):
            for _ in range(3):
                client.send(b"x" * 10)
                accepted.sendall(accepted.recv(10))
                assert client.recv(10)
            client.send(b"x" * 10)
            assert accepted.recv(1)
            accepted.close()
            expect_reset(client)
    for reset in collect(source, routed, 3, Kind.RECEIVED_ACCEPTED):
        assert reset.cause.name == "connection-reset"
        assert answers_our_data(reset)
        times = figures(reset, f"honest answer, {delay_ms} ms")
        assert times["data"] >= delay_ms
        assert times["handshake"] >= delay_ms
        assert times["min_rtt"] >= delay_ms
        assert times["srtt"] >= times["min_rtt"]
        assert judge(reset).origin is Origin.PEER


@DELAYS
def test_slow_path_refusal(delay_ms: int, routed: Lab, source: LiveSource) -> None:
    slow(source, routed, delay_ms)
    for _ in range(3):
        refuse(routed, ADDRESSES["server"][0])
    for reset in collect(source, routed, 3):
        assert (reset.kind, reset.cause.name) == (Kind.RECEIVED_ACCEPTED, "connection-refused")
        assert isinstance(reset.trigger, Seen)
        assert reset.trigger.flags.startswith("S")
        assert reset.time_ns - reset.trigger.time_ns >= delay_ms * 1e6
        assert judge(reset).origin is not Origin.FORGED


@DELAYS
def test_slow_path_honest_reset_of_its_own_accord(
    delay_ms: int, routed: Lab, source: LiveSource
) -> None:
    """A trap for any timing rule: the server aborts right after its own data, and the RST comes at
    any time after our last ACK. The age of our last packet says nothing then; only that of what the
    RST acknowledges does."""
    slow(source, routed, delay_ms)
    for _ in range(3):
        with pair(routed, "client", "server") as (client, accepted):
            for _ in range(3):
                client.send(b"x" * 10)
                accepted.sendall(accepted.recv(10))
                assert client.recv(10)
            accepted.send(b"y" * 10)
            linger_zero(accepted)
            accepted.close()
            expect_reset(client)
    for reset in collect(source, routed, 3, Kind.RECEIVED_ACCEPTED):
        assert reset.cause.name == "connection-reset"
        assert answers_our_data(reset)
        times = figures(reset, f"honest of its own accord, {delay_ms} ms")
        assert times["data"] >= delay_ms
        assert judge(reset).origin is Origin.PEER


@DELAYS
@pytest.mark.parametrize("forged_by", ["reject", "copier"])
def test_slow_path_forger_one_hop_away(
    forged_by: str, delay_ms: int, routed: Lab, source: LiveSource
) -> None:
    """The router answers in the server's name, and the data never gets to the server."""
    slow(source, routed, delay_ms)
    keyword = "@th,256,64 0x474554202f757365"  # "GET /use", behind a header with timestamps
    routed.nft(
        "router",
        forward(
            f"tcp dport 7000 {keyword} reject with tcp reset"
            if forged_by == "reject"
            else f"tcp dport 7000 {keyword} drop"
        ),
    )
    if forged_by == "copier":
        routed.spawn("router", [sys.executable, forger.__file__, "GET /use"], ready="forging")
    for _ in range(3):
        with pair(routed, "client", "server") as (client, accepted):
            for _ in range(3):
                client.send(b"x" * 10)
                accepted.sendall(accepted.recv(10))
                assert client.recv(10)
            client.send(b"GET /use")
            expect_reset(client)
    for reset in collect(source, routed, 3, Kind.RECEIVED_ACCEPTED):
        times = figures(reset, f"forged ({forged_by}), {delay_ms} ms")
        assert times["handshake"] >= delay_ms
        assert times["min_rtt"] >= delay_ms
        data = our_last_data(reset)
        assert data is not None
        assert data.payload_len == len(b"GET /use")
        verdict = judge(reset)
        assert verdict.origin is Origin.FORGED
        # One hop nearer than the server is not enough to accuse a REJECT: its time is.
        timing = [found.weight for found in verdict.evidence if found.rule == "timing"]
        if not timing:  # the copier is a program: an emulated one may take half a short round trip
            assert forged_by == "copier"
            assert times["data"] > times["min_rtt"] * 0.4
        else:
            assert min(timing) >= 1.5


@DELAYS
def test_reordering_path(delay_ms: int, routed: Lab, source: LiveSource) -> None:
    """Every third packet overtakes. A RST that does comes half a round trip early, out of order,
    and is at first only challenged: never an accusation."""
    slow(source, routed, delay_ms, reorder=True)
    sent = out_rsts(routed, "server")
    for segments in range(7):
        with pair(routed, "client", "server") as (client, accepted):
            client.send(b"x" * 10)
            assert accepted.recv(10)
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for _ in range(segments):
                accepted.send(b"y" * 10)
            linger_zero(accepted)
            accepted.close()
            expect_reset(client)
    found = collect(source, routed, out_rsts(routed, "server") - sent)
    assert sum(reset.kind is Kind.RECEIVED_ACCEPTED for reset in found) == 7
    for reset in found:
        if reset.socket is not None and reset.socket.min_rtt_us and reset.baseline.ours:
            what = f"reordered {reset.kind.value} {reset.rst.flags}, {delay_ms} ms"
            times = figures(reset, what)
            assert times.get("data", delay_ms) >= delay_ms / 2
            assert times["handshake"] >= delay_ms / 2
            assert times["min_rtt"] >= delay_ms / 2 - 1  # 1 ms: TCP's timestamps count so
        assert judge(reset).origin is not Origin.FORGED


# ---- hidden kernel addresses, old cgroups, lockdown ----


@pytest.fixture
def hidden_addresses() -> Iterator[None]:
    """kernel.kptr_restrict=2: nobody, not even root, sees a kernel address in /proc/kallsyms."""
    path = Path("/proc/sys/kernel/kptr_restrict")
    before = path.read_text()
    path.write_text("2")
    try:
        yield
    finally:
        path.write_text(before)


def test_kptr_restrict(hidden_addresses: None, routed: Lab, tracer: Tracer) -> None:
    """Everything is hooked that is hooked without it."""
    del hidden_addresses
    with open("/proc/kallsyms", encoding="ascii", errors="replace") as symbols:
        assert symbols.readline().startswith("0000000000000000 ")
    mine = Tracer("--netns", routed.name("client"), "--netns", routed.name("server"))
    try:
        hooks = re.compile(r"plan: \w+; hooks: (\d+) of (\d+)")
        found, usual = hooks.search(mine.status), hooks.search(tracer.status)
        assert found is not None
        assert usual is not None
        assert found[0] == usual[0]
        for family in (V4, V6):
            refuse(routed, server_address("server", family))
            with pair(routed, "client", "server", family=family) as (client, accepted):
                linger_zero(accepted)
                accepted.close()
                expect_reset(client)
        entries = mine.collect(routed.inode("client"), 4)
        assert Counter(map(cause, entries)) == {REFUSED: 2, RESET: 2}
        entries = mine.collect(routed.inode("server"), 4)
        assert Counter(map(cause, entries)) == {SENT_REFUSAL: 2, SENT_LINGER: 2}
    finally:
        mine.stop()


CLIENT_IN_CGROUP = """
import os, socket, sys
with open(sys.argv[1] + "/cgroup.procs", "w") as file:
    file.write(str(os.getpid()))
sock = socket.create_connection((sys.argv[2], 7500))
print("connected", flush=True)
while True:
    try:
        sock.recv(1)
    except OSError:
        pass
"""


def cgroup2_is_mounted() -> bool:
    """Whether this machine has a version 2 hierarchy."""
    return " - cgroup2 " in Path("/proc/self/mountinfo").read_text()


@pytest.mark.parametrize("machine", ["hybrid", "cgroup-v1-only"])
def test_cgroup_v1(machine: str, routed: Lab, tracer: Tracer, fence: Fence, tmp_path: Path) -> None:
    """The container and pod are found by the process where version 1 hierarchies hold them."""
    if machine == "hybrid" and not cgroup2_is_mounted():
        pytest.skip("this machine mounts no cgroup version 2 hierarchy")
    if machine != "hybrid" and cgroup2_is_mounted():
        pytest.skip("this machine mounts cgroup version 2: see the variant cgroup-v1")
    container, pod = os.urandom(32).hex(), str(uuid.uuid4())
    hierarchy = tmp_path / "v1"
    hierarchy.mkdir()
    name = f"none,name=rsttrace{os.getpid()}"
    command = ["mount", "-t", "cgroup", "-o", name, "none", str(hierarchy)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode and "unknown filesystem type" in done.stderr:
        pytest.skip(f"this kernel has no cgroup version 1: {done.stderr.strip()}")
    assert not done.returncode, done.stderr
    group = hierarchy / "kubepods" / "burstable" / f"pod{pod}" / container
    try:
        group.mkdir(parents=True)
        with routed.inside("server"):
            listener = socket.create_server((ADDRESSES["server"][0], 7500))
        fence.cross(tracer)
        tracer.forget()
        with listener:
            listener.settimeout(DEADLINE_S)
            arguments = [str(group), ADDRESSES["server"][0]]
            pid = routed.spawn(
                "client", [sys.executable, "-c", CLIENT_IN_CGROUP, *arguments], ready="connected"
            )
            accepted, _ = listener.accept()
            linger_zero(accepted)
            accepted.close()
            (entry,) = tracer.collect(routed.inode("client"), 1)
        assert cause(entry) == RESET
        assert entry["process"]["pid"] == pid
        assert entry["container"] is not None
        assert entry["container"]["id"] == container
        assert entry["pod"]["uid"] == pod
    finally:
        routed.close()  # the process in the group
        for directory in (group, *list(group.parents)[:3]):
            with contextlib.suppress(OSError):
                directory.rmdir()
        subprocess.run(["umount", str(hierarchy)], check=True)


def locked_down(mode: str) -> None:
    """Skip unless the kernel was booted so."""
    state = LOCKDOWN.read_text() if LOCKDOWN.exists() else "(no lockdown)"
    if f"[{mode}]" not in state:
        pytest.skip(f"not booted with lockdown={mode}: see the variant lockdown-{mode}")


def leftovers() -> set[str]:
    """rsttrace's private directories."""
    return {path.name for path in Path(tempfile.gettempdir()).glob("rsttrace-*")}


def test_lockdown_confidentiality() -> None:
    """BPF may not read kernel memory: one clear error, exit code 1, nothing left."""
    locked_down("confidentiality")
    programs, directories = bpf_programs(), leftovers()
    tracer = Tracer(wait=False)
    assert tracer.process.wait(120) == 1
    tracer.stop()
    assert tracer.entries == []
    what, todo = tracer.status.splitlines()
    assert what.startswith("rsttrace: ")
    assert "lockdown" in what
    assert "confidentiality" in what
    assert todo.startswith("  what to do: ")
    assert "lockdown=integrity" in todo
    poll_until(lambda: not bpf_programs() - programs, "the programs to be gone")
    assert leftovers() == directories
    command = [sys.executable, "-m", "rsttrace", "doctor"]
    doctor = subprocess.run(command, check=False, capture_output=True, text=True)
    assert doctor.returncode == 1
    assert re.search(r"^ +failed +lockdown .*\[confidentiality\]", doctor.stdout, re.MULTILINE)
    assert "Traceback" not in doctor.stdout + doctor.stderr
    assert not bpf_programs() - programs


def test_lockdown_integrity(routed: Lab, tracer: Tracer, fence: Fence) -> None:
    """Reading is allowed, by kprobes as well: nothing is missing."""
    locked_down("integrity")
    hooks = re.search(r"hooks: (\d+) of (\d+)", tracer.status)
    assert hooks is not None
    assert hooks[1] == hooks[2]
    fence.cross(tracer)
    tracer.forget()
    for family in (V4, V6):
        refuse(routed, server_address("server", family))
        with pair(routed, "client", "server", family=family) as (client, accepted):
            linger_zero(accepted)
            accepted.close()
            expect_reset(client)
    tracer.collect(routed.inode("client"), 4)
    fence.cross(tracer)
    assert {role: Counter(map(cause, tracer.of(routed.inode(role)))) for role in ROLES} == {
        "client": {REFUSED: 2, RESET: 2},
        "router": {PASSED: 4},
        "server": {SENT_REFUSAL: 2, SENT_LINGER: 2},
    }
