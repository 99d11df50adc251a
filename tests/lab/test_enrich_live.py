"""Neighbours, next hops and owners on real namespaces."""

from __future__ import annotations

import ctypes
import itertools
import os
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest

from rsttrace.enrich import Enricher, Neighbors, NetnsDirectory, Owners
from rsttrace.enrich.netlink import Netlink
from rsttrace.enrich.tables import MOST_NEIGHBORS, Tables
from rsttrace.errors import UsageError
from rsttrace.model import Cause, Endpoint, Frame, Kind, Packet, Reset
from rsttrace.model import Socket as ResetSocket

pytestmark = pytest.mark.root

GATEWAY = "52:54:00:00:00:01"
OTHER = "52:54:00:00:00:02"
SERIAL = itertools.count()


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=20)


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline, f"still not true: {what}"
        os.sched_yield()


class Space:
    """A network namespace with eth0 (10.77.0.2/24, fd77::2/64); its other end is in `far`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = f"/run/netns/{name}"
        ip("netns", "add", name)
        self.inode = os.stat(self.path).st_ino

    def run(self, *words: str) -> None:
        ip("-n", self.name, *words)

    def ifindex(self, name: str) -> int:
        command = ["ip", "-n", self.name, "-o", "link", "show", "dev", name]
        return int(subprocess.check_output(command, timeout=20).split(b":")[0])

    def delete(self) -> None:
        if os.path.exists(self.path):
            ip("netns", "del", self.name)


@pytest.fixture
def spaces() -> Iterator[Callable[[], Space]]:
    made: list[Space] = []

    def make() -> Space:
        made.append(Space(f"rt{os.getpid()}n{next(SERIAL)}"))
        return made[-1]

    yield make
    for space in made:
        space.delete()


@pytest.fixture
def space(spaces: Callable[[], Space]) -> Space:
    near = spaces()
    near.run("link", "add", "eth0", "type", "veth", "peer", "name", "far0")
    for name in ("lo", "far0", "eth0"):
        near.run("link", "set", name, "up")
    near.run("addr", "add", "10.77.0.2/24", "dev", "eth0")
    near.run("addr", "add", "fd77::2/64", "dev", "eth0", "nodad")
    near.run("route", "add", "default", "via", "10.77.0.1")
    near.run("-6", "route", "add", "default", "via", "fd77::1")
    set_neighbor(near, "10.77.0.1", GATEWAY)
    set_neighbor(near, "fd77::1", GATEWAY)
    return near


def set_neighbor(space: Space, address: str, mac: str, dev: str = "eth0") -> None:
    space.run("neigh", "replace", address, "lladdr", mac, "dev", dev, "nud", "permanent")


@pytest.fixture
def neighbors() -> Iterator[Neighbors]:
    with Neighbors() as opened:
        yield opened


@pytest.mark.parametrize(
    ("peer", "gateway"), [("192.0.2.9", "10.77.0.1"), ("2001:db8::9", "fd77::1")]
)
def test_gateway_is_recognised(space: Space, neighbors: Neighbors, peer: str, gateway: str) -> None:
    index = space.ifindex("eth0")
    seen = neighbors.neighbor(space.inode, index, GATEWAY.upper(), peer)
    assert (seen.ip, seen.is_gateway, seen.ifname) == (gateway, True, "eth0")
    assert (seen.mac, seen.ifindex, seen.netns) == (GATEWAY, index, space.inode)
    assert seen.vendor == "locally administered (random or virtual)"
    hop = neighbors.next_hop(space.inode, peer)
    assert hop is not None
    assert (hop.ip, hop.mac, hop.is_gateway, hop.ifindex) == (gateway, GATEWAY, True, index)


@pytest.mark.parametrize("peer", ["10.77.0.9", "fd77::9"])
def test_peer_on_the_link_is_no_gateway(space: Space, neighbors: Neighbors, peer: str) -> None:
    set_neighbor(space, peer, OTHER)
    # the same card has more addresses: the peer's own is the answer
    set_neighbor(space, "10.77.0.3", OTHER)
    set_neighbor(space, "fd77::3", OTHER)
    index = space.ifindex("eth0")
    seen = neighbors.neighbor(space.inode, index, OTHER, peer)
    assert (seen.ip, seen.is_gateway) == (peer, False)
    hop = neighbors.next_hop(space.inode, peer)
    assert hop is not None
    assert (hop.ip, hop.mac, hop.is_gateway, hop.ifindex) == (peer, OTHER, False, index)


def test_a_third_machine_is_named_and_is_no_gateway(space: Space, neighbors: Neighbors) -> None:
    for address in ("169.254.7.7", "192.168.77.66", "fe80::66", "fd77::66"):
        set_neighbor(space, address, OTHER)
    index = space.ifindex("eth0")
    four = neighbors.neighbor(space.inode, index, OTHER, "192.0.2.9")
    assert (four.ip, four.is_gateway) == ("192.168.77.66", False)
    six = neighbors.neighbor(space.inode, index, OTHER, "2001:db8::9")
    assert (six.ip, six.is_gateway) == ("fd77::66", False)


def test_gateway_without_a_known_mac_is_unknown(space: Space, neighbors: Neighbors) -> None:
    space.run("neigh", "del", "10.77.0.1", "dev", "eth0")
    seen = neighbors.neighbor(space.inode, space.ifindex("eth0"), OTHER, "192.0.2.9")
    assert (seen.ip, seen.is_gateway) == (None, None)
    hop = neighbors.next_hop(space.inode, "192.0.2.9")
    assert hop is not None
    assert (hop.ip, hop.mac, hop.is_gateway) == ("10.77.0.1", None, True)


def test_any_gateway_of_equal_routes_counts(space: Space, neighbors: Neighbors) -> None:
    set_neighbor(space, "10.77.0.7", OTHER)
    legs = ("nexthop", "via", "10.77.0.1", "nexthop", "via", "10.77.0.7")
    space.run("route", "add", "203.0.113.0/24", *legs)
    index = space.ifindex("eth0")
    for mac in (GATEWAY, OTHER):
        assert neighbors.neighbor(space.inode, index, mac, "203.0.113.9").is_gateway is True
    third = neighbors.neighbor(space.inode, index, "52:54:00:00:00:03", "203.0.113.9")
    assert third.is_gateway is False


def test_virtual_router_may_forward_with_another_mac(space: Space, neighbors: Neighbors) -> None:
    set_neighbor(space, "10.77.0.1", "00:00:5e:00:01:0a")
    seen = neighbors.neighbor(space.inode, space.ifindex("eth0"), OTHER, "192.0.2.9")
    assert seen.is_gateway is None


def test_ipv6_gateway_of_an_ipv4_route(space: Space, neighbors: Neighbors) -> None:
    space.run("route", "add", "198.51.100.0/24", "via", "inet6", "fd77::1", "dev", "eth0")
    hop = neighbors.next_hop(space.inode, "198.51.100.5")
    assert hop is not None
    assert (hop.ip, hop.mac, hop.is_gateway) == ("fd77::1", GATEWAY, True)


@pytest.mark.parametrize("kind", ["unreachable", "blackhole", "prohibit"])
@pytest.mark.parametrize("peer", ["198.51.100.5", "2001:db8:5::5"])
def test_no_route_is_none(space: Space, neighbors: Neighbors, kind: str, peer: str) -> None:
    assert neighbors.next_hop(space.inode, peer) is not None
    space.run("route", "add", kind, peer)
    assert neighbors.next_hop(space.inode, peer) is None
    index = space.ifindex("eth0")
    assert neighbors.neighbor(space.inode, index, GATEWAY, peer).is_gateway is None


@pytest.mark.parametrize("peer", ["10.77.0.2", "fd77::2", "127.0.0.1", "::1"])
def test_local_addresses(space: Space, neighbors: Neighbors, peer: str) -> None:
    hop = neighbors.next_hop(space.inode, peer)
    assert hop is not None
    assert (hop.ip, hop.mac, hop.is_gateway) == (peer, None, False)


@pytest.mark.parametrize("peer", ["", "nonsense", "10.0.0.256", "fe80::1%eth0", "10.0.0.1\0", "é"])
def test_text_that_is_no_address(space: Space, neighbors: Neighbors, peer: str) -> None:
    assert neighbors.next_hop(space.inode, peer) is None
    seen = neighbors.neighbor(space.inode, space.ifindex("eth0"), GATEWAY, peer)
    assert seen.is_gateway is None


@pytest.mark.parametrize("mac", [None, "00:00:00:00:00:00"])
def test_loopback_has_no_mac(space: Space, neighbors: Neighbors, mac: str | None) -> None:
    seen = neighbors.neighbor(space.inode, 1, mac, "127.0.0.1")
    assert (seen.mac, seen.vendor, seen.ip, seen.is_gateway) == (None, None, None, None)
    assert seen.ifname == "lo"


def test_changed_mac_is_seen_without_a_dump(
    space: Space, neighbors: Neighbors, dumps: list[Netlink]
) -> None:
    index = space.ifindex("eth0")
    assert neighbors.neighbor(space.inode, index, GATEWAY, "192.0.2.9").is_gateway is True
    assert len(dumps) == 1
    set_neighbor(space, "10.77.0.1", OTHER)
    assert neighbors.neighbor(space.inode, index, OTHER, "192.0.2.9").is_gateway is True
    old = neighbors.neighbor(space.inode, index, GATEWAY, "192.0.2.9")
    assert (old.is_gateway, old.ip) == (False, "fd77::1")
    space.run("neigh", "del", "10.77.0.1", "dev", "eth0")
    assert neighbors.neighbor(space.inode, index, OTHER, "192.0.2.9").ip is None
    assert len(dumps) == 1


def test_changed_route_is_seen(space: Space, neighbors: Neighbors, dumps: list[Netlink]) -> None:
    set_neighbor(space, "10.77.0.7", OTHER)
    index = space.ifindex("eth0")
    assert neighbors.neighbor(space.inode, index, OTHER, "192.0.2.9").is_gateway is False
    space.run("route", "replace", "default", "via", "10.77.0.7")
    hop = neighbors.next_hop(space.inode, "192.0.2.9")
    assert hop is not None
    assert (hop.ip, hop.mac) == ("10.77.0.7", OTHER)
    assert neighbors.neighbor(space.inode, index, OTHER, "192.0.2.9").is_gateway is True
    space.run("link", "set", "eth0", "down")
    assert neighbors.next_hop(space.inode, "192.0.2.9") is None
    assert len(dumps) == 1


def test_renamed_and_deleted_interface(
    space: Space, neighbors: Neighbors, dumps: list[Netlink]
) -> None:
    index = space.ifindex("eth0")
    assert neighbors.ifname(space.inode, index) == "eth0"
    space.run("link", "set", "eth0", "down")
    space.run("link", "set", "eth0", "name", "wan0")
    assert neighbors.ifname(space.inode, index) == "wan0"
    # a terminal's escape sequence and no UTF-8: the kernel takes it, the renderer must escape it
    raw = b"a\xff\x1b[1m"
    subprocess.run(
        ["ip", "-n", space.name, "link", "set", "wan0", "name", raw], check=True, timeout=20
    )
    name = neighbors.ifname(space.inode, index)
    assert name is not None
    assert os.fsencode(name) == raw
    space.run("link", "del", "dev", "far0")
    wait_for(lambda: neighbors.ifname(space.inode, index) is None, "the interface is gone")
    assert len(dumps) == 1


def test_bridge_port_uses_the_bridges_neighbours(space: Space, neighbors: Neighbors) -> None:
    index = space.ifindex("eth0")
    # an address of its own: else it takes the port's, and the kernel forgets br0's neighbours
    space.run("link", "add", "br0", "address", "52:54:00:00:00:0b", "type", "bridge")
    space.run("link", "set", "br0", "up")
    space.run("addr", "add", "10.88.0.1/24", "dev", "br0")
    set_neighbor(space, "10.88.0.5", OTHER, dev="br0")
    assert neighbors.neighbor(space.inode, index, OTHER, "10.88.0.5").ip is None
    space.run("link", "set", "eth0", "master", "br0")
    seen = neighbors.neighbor(space.inode, index, OTHER, "10.88.0.5")
    assert (seen.ip, seen.is_gateway, seen.ifname) == ("10.88.0.5", False, "eth0")
    space.run("link", "set", "eth0", "nomaster")
    assert neighbors.neighbor(space.inode, index, OTHER, "10.88.0.5").ip is None
    # leaving a bridge is announced as a deleted link of family AF_BRIDGE
    assert neighbors.ifname(space.inode, index) == "eth0"


def learn(space: Space, mac: str, port: str, *more: str) -> None:
    """An entry of the forwarding table as a frame would make it."""
    command = ["bridge", "-n", space.name, "fdb", "replace", mac, "dev", port, "master", "dynamic"]
    subprocess.run([*command, *more], check=True, capture_output=True, timeout=20)


@pytest.fixture
def bridged(space: Space) -> Space:
    """br0 over eth0 and eth1."""
    space.run("link", "add", "br0", "type", "bridge")
    space.run("link", "add", "eth1", "type", "veth", "peer", "name", "far1")
    for name in ("eth0", "eth1"):
        space.run("link", "set", name, "master", "br0")
    for name in ("br0", "eth1", "far1"):
        space.run("link", "set", name, "up")
    return space


def port_of(space: Space, neighbors: Neighbors, interface: str, mac: str = OTHER) -> str | None:
    index = space.ifindex(interface)
    found = neighbors.neighbor(space.inode, index, mac, "10.77.0.9").bridge
    if found is None:
        return None
    assert (found.bridge, found.bridge_ifindex) == ("br0", space.ifindex("br0"))
    assert found.port is not None
    assert found.ifindex == space.ifindex(found.port)
    return found.port


def test_the_port_that_a_mac_is_behind(
    bridged: Space, neighbors: Neighbors, dumps: list[Netlink]
) -> None:
    """Also once it is behind another one, and behind none: without one dump of the table."""

    def behind(port: str | None) -> None:
        wait_for(lambda: port_of(bridged, neighbors, "br0") == port, f"it is behind {port}")

    behind(None)
    for port in ("eth0", "eth1", "eth0"):
        learn(bridged, OTHER, port)
        behind(port)
        assert neighbors.bridge_port(bridged.inode, bridged.ifindex("br0"), OTHER.upper()) == (
            neighbors.neighbor(bridged.inode, bridged.ifindex("br0"), OTHER, "10.77.0.9").bridge
        )
    bridged.run("link", "set", "eth0", "nomaster")
    behind(None)
    assert len(dumps) == 1


def test_a_frame_at_a_port_came_by_it(bridged: Space, neighbors: Neighbors) -> None:
    assert port_of(bridged, neighbors, "eth1") == "eth1"
    learn(bridged, OTHER, "eth0")
    assert port_of(bridged, neighbors, "eth1") == "eth1"


def test_the_nodes_own_macs_are_behind_no_port(bridged: Space, neighbors: Neighbors) -> None:
    for name in ("br0", "eth0"):
        command = ["ip", "-n", bridged.name, "-br", "link", "show", "dev", name]
        mac = subprocess.check_output(command, text=True, timeout=20).split()[2]
        assert port_of(bridged, neighbors, "br0", mac) is None


def test_bridge_that_filters_vlans(bridged: Space, neighbors: Neighbors) -> None:
    """Untagged frames are learnt in VLAN 1, others in theirs."""
    try:
        bridged.run("link", "set", "br0", "type", "bridge", "vlan_filtering", "1")
        bridged.run("link", "add", "link", "br0", "name", "br0.7", "type", "vlan", "id", "7")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"this kernel's bridges know no VLANs: {error.stderr!r}")
    learn(bridged, OTHER, "eth1", "vlan", "1")
    wait_for(lambda: port_of(bridged, neighbors, "br0") == "eth1", "it is behind eth1")
    bridge = ["bridge", "-n", bridged.name, "vlan", "add", "vid", "7", "dev", "eth0"]
    subprocess.run(bridge, check=True, capture_output=True, timeout=20)
    learn(bridged, OTHER, "eth0", "vlan", "7")
    wait_for(lambda: port_of(bridged, neighbors, "br0.7") == "eth0", "in VLAN 7 behind eth0")
    assert port_of(bridged, neighbors, "br0") == "eth1"


def test_neighbor_on_a_vlan(space: Space, neighbors: Neighbors) -> None:
    try:
        space.run("link", "add", "link", "eth0", "name", "v7", "type", "vlan", "id", "7")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"this kernel has no VLANs: {error.stderr!r}")
    space.run("link", "set", "v7", "up")
    set_neighbor(space, "10.88.0.5", OTHER, dev="v7")
    seen = neighbors.neighbor(space.inode, space.ifindex("eth0"), OTHER, "10.88.0.5")
    assert seen.ip == "10.88.0.5"


def test_real_traffic_teaches_neighbours(
    spaces: Callable[[], Space], neighbors: Neighbors, dumps: list[Netlink]
) -> None:
    near, far = spaces(), spaces()
    near.run("link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", far.name)
    for end, address in ((near, "10.77.1.1/30"), (far, "10.77.1.2/30")):
        end.run("addr", "add", address, "dev", "eth0")
        end.run("link", "set", "eth0", "up")
    command = ["ip", "-n", far.name, "-br", "link", "show", "dev", "eth0"]
    mac = subprocess.check_output(command, text=True, timeout=20).split()[2]
    index = near.ifindex("eth0")
    assert neighbors.neighbor(near.inode, index, mac, "10.77.1.2").ip is None
    with in_namespace(near.path, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"x", ("10.77.1.2", 9))
    wait_for(
        lambda: neighbors.neighbor(near.inode, index, mac, "10.77.1.2").ip == "10.77.1.2",
        "ARP found the neighbour",
    )
    assert len(dumps) == 1


def test_overrun_dumps_again(space: Space, dumps: list[Netlink]) -> None:
    now = [100.0]
    with Neighbors(clock=lambda: now[0]) as neighbors:
        index = space.ifindex("eth0")
        assert neighbors.ifname(space.inode, index) == "eth0"
        now[0] += 2
        # more notifications than the socket's buffer holds, then one that is surely lost
        lines = "".join(
            f"neigh replace 10.77.0.{10 + i % 200} lladdr 52:54:00:00:01:{i % 251:02x} "
            "dev eth0 nud permanent\n"
            for i in range(6000)
        )
        command = ["ip", "-n", space.name, "-batch", "-"]
        subprocess.run(command, input=lines, text=True, check=True, timeout=60)
        set_neighbor(space, "10.77.0.250", OTHER)
        seen = neighbors.neighbor(space.inode, index, OTHER, "10.77.0.250")
        assert seen.ip == "10.77.0.250"
        assert len(dumps) == 2


def test_vanished_namespace_is_let_go(spaces: Callable[[], Space]) -> None:
    near, far = spaces(), spaces()
    near.run("link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", far.name)
    now = [100.0]
    with Neighbors(NetnsDirectory(clock=lambda: now[0]), clock=lambda: now[0]) as neighbors:
        index = near.ifindex("eth0")
        assert neighbors.ifname(near.inode, index) == "eth0"
        assert neighbors.ifname(far.inode, far.ifindex("eth0")) == "eth0"
        near.delete()
        # our own socket keeps it alive until we look
        now[0] += 2
        neighbors.tidy()
        assert neighbors.ifname(near.inode, index) is None
        assert neighbors.next_hop(near.inode, "192.0.2.1") is None
        gone = neighbors.neighbor(near.inode, index, GATEWAY, "192.0.2.1")
        assert (gone.mac, gone.ip, gone.is_gateway, gone.ifname) == (GATEWAY, None, None, None)

        def far_end_is_gone() -> bool:
            command = ["ip", "-n", far.name, "link", "show", "dev", "eth0"]
            return subprocess.run(command, capture_output=True, timeout=20).returncode != 0  # noqa: PLW1510

        wait_for(far_end_is_gone, "the kernel destroyed the namespace and its veth pair")


def test_limit_closes_sockets_and_nothing_is_left(spaces: Callable[[], Space]) -> None:
    made = [spaces() for _ in range(4)]
    others = children()  # a tracer may be running for other tests
    with Neighbors() as warm:  # imports open and keep files of their own
        warm.ifname(made[0].inode, 1)
    before, threads = open_files(), threading.active_count()
    with Neighbors(limit=2) as neighbors:
        for space in made * 2:
            assert neighbors.ifname(space.inode, 1) == "lo"
            assert threading.active_count() == threads
        assert open_files() == before + 2
        assert children() == others
    assert open_files() == before


def test_own_namespace_needs_no_thread() -> None:
    with Neighbors() as neighbors:
        assert neighbors.ifname(os.stat("/proc/self/ns/net").st_ino, 1) == "lo"


def test_directory_follows_names(spaces: Callable[[], Space]) -> None:
    now = [100.0]
    directory = NetnsDirectory(clock=lambda: now[0])
    space = spaces()
    assert directory.name(space.inode) == space.name
    assert directory.path(space.inode) == space.path
    assert directory.resolve(space.name) == space.inode
    assert directory.resolve(space.path) == space.inode
    assert directory.resolve(str(space.inode)) == space.inode
    with subprocess.Popen(
        ["ip", "netns", "exec", space.name, "sh", "-c", "echo ready; exec cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        assert directory.resolve(f"pid:{process.pid}") == space.inode
        space.delete()
        now[0] += 1
        assert directory.name(space.inode) is None
        assert directory.path(space.inode) == f"/proc/{process.pid}/ns/net"
        process.stdin.close()
        process.wait(timeout=10)
    now[0] += 1
    assert directory.path(space.inode) is None
    with pytest.raises(UsageError, match="no network namespace named"):
        directory.resolve(space.name)
    with pytest.raises(UsageError, match=str(space.inode)):
        directory.resolve(str(space.inode))


def test_a_name_that_is_not_mounted(spaces: Callable[[], Space]) -> None:
    spaces()  # makes /run/netns
    name = Path(f"/run/netns/rt{os.getpid()}file")
    name.touch()
    try:
        with pytest.raises(UsageError, match="is not a network namespace"):
            NetnsDirectory().resolve(name.name)
        assert NetnsDirectory().name(name.stat().st_ino) is None
    finally:
        name.unlink()


def test_socket_inode_maps_to_this_process() -> None:
    owners = Owners()
    with socket.socket() as sock:
        inode = os.fstat(sock.fileno()).st_ino
        comm = Path("/proc/self/comm").read_text(encoding="utf-8").rstrip("\n")
        netns = os.stat("/proc/self/ns/net").st_ino
        assert owners.process(inode, netns) == (os.getpid(), comm)
    # closed, but the scan saw it
    assert owners.process(inode, netns) == (os.getpid(), comm)


def test_enricher_fills_a_received_reset(space: Space) -> None:
    index = space.ifindex("eth0")
    with Enricher() as enricher, in_namespace(space.path, socket.SOCK_STREAM) as sock:
        reset = received_reset(space, index, os.fstat(sock.fileno()).st_ino)
        enricher.enrich(reset)
    assert reset.netns_name == space.name
    assert reset.neighbor is not None
    assert (reset.neighbor.ip, reset.neighbor.is_gateway) == ("10.77.0.1", True)
    assert reset.ingress is not None
    assert (reset.ingress.mac, reset.ingress.ip) == (OTHER, None)
    assert reset.next_hop is not None
    assert reset.next_hop.ip == "10.77.0.1"
    assert reset.process is not None
    assert (reset.process.pid, reset.process.uid) == (os.getpid(), 1234)

    narrow = received_reset(space, index, None)
    with Enricher(viewpoint_netns=True, owners=False) as enricher:
        enricher.enrich(narrow)
    assert (narrow.ingress, narrow.ingress_frame, narrow.process) == (None, None, None)
    assert narrow.neighbor == reset.neighbor


def received_reset(space: Space, index: int, inode: int | None) -> Reset:
    local, remote = Endpoint("10.77.0.2", 40000), Endpoint("192.0.2.9", 80)
    return Reset(
        time_ns=1,
        kind=Kind.RECEIVED_ACCEPTED,
        cause=Cause("reset", "the peer reset the connection"),
        local=local,
        remote=remote,
        rst=Packet(remote, local, 63, 1, True, 0, "R", 1, 0, 0, 40, 0),
        netns=space.inode,
        socket=ResetSocket(None, "ESTABLISHED", None, None, inode, 1234, None),
        frame=Frame(space.inode, index, GATEWAY, 63),
        ingress_frame=Frame(space.inode, index, OTHER, 64),
    )


def in_namespace(path: str, kind: int) -> socket.socket:
    """A socket in another namespace, through a thread that enters it."""
    made: list[socket.socket] = []

    def enter() -> None:
        with open(path, "rb") as file:
            assert ctypes.CDLL(None, use_errno=True).setns(file.fileno(), 0x40000000) == 0
        made.append(socket.socket(socket.AF_INET, kind))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    return made[0]


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def children() -> str:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii")


MANY = 100_000


def test_a_huge_neighbour_table_is_not_copied(
    spaces: Callable[[], Space], space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One tenant's neighbours are asked for one by one; another's reset is told meanwhile."""
    huge = spaces()
    huge.run("link", "add", "eth0", "type", "veth", "peer", "name", "far0")
    huge.run("link", "set", "eth0", "up")
    huge.run("addr", "add", "10.64.0.1/10", "dev", "eth0")
    lines = "".join(
        f"neigh add 10.{64 + (n >> 16)}.{n >> 8 & 255}.{n & 255} lladdr {OTHER} dev eth0 "
        "nud permanent\n"
        for n in range(256, 256 + MANY)
    )
    command = ["ip", "-n", huge.name, "-batch", "-"]
    subprocess.run(command, input=lines, text=True, check=True, timeout=120)
    taken = Counter[str]()
    apply = Tables._apply_neighbor

    def counted(tables: Tables, kind: int, message: bytes) -> None:
        taken["all"] += 1
        apply(tables, kind, message)

    monkeypatch.setattr(Tables, "_apply_neighbor", counted)
    with Neighbors() as neighbors:
        for n in range(3):
            peer = f"10.65.7.{n}"
            seen = neighbors.neighbor(huge.inode, huge.ifindex("eth0"), OTHER, peer)
            assert (seen.ip, seen.ifname, seen.is_gateway) == (peer, "eth0", False)
            hop = neighbors.next_hop(huge.inode, peer)
            assert hop is not None
            assert hop.mac == OTHER
            near = neighbors.neighbor(space.inode, space.ifindex("eth0"), GATEWAY, "192.0.2.1")
            assert near.is_gateway
        # while they change, too
        changed = lines[: 1 << 19].rpartition("\n")[0].replace("neigh add", "neigh replace")
        changed = changed.replace(OTHER, GATEWAY) + "\n"
        subprocess.run(command, input=changed, text=True, check=True, timeout=120)
        hop = neighbors.next_hop(huge.inode, "10.64.1.9")
        assert hop is not None
        assert hop.mac == GATEWAY
    assert taken["all"] <= MOST_NEIGHBORS + 256 + 16  # one datagram more, and the other namespace's
