"""The netlink tables against a kernel made of bytes: what a lab cannot provoke at will."""

from __future__ import annotations

import errno
import socket
import struct
from collections import deque
from typing import Any, Callable

import pytest

from rsttrace.enrich import netlink
from rsttrace.enrich.neighbors import Neighbors
from rsttrace.enrich.netlink import Netlink
from rsttrace.enrich.netns import NetnsDirectory

pytest.importorskip("pyroute2")

NETNS = 4026531840
PORT = 77
MAC = "52:54:00:00:00:05"
NEWLINK, DELLINK, GETLINK, NEWROUTE, GETROUTE = 16, 17, 18, 24, 26
NEWNEIGH, DELNEIGH, GETNEIGH = 28, 29, 30


def message(kind: int, body: bytes, *, flags: int = 0, seq: int = 0, port: int = 0) -> bytes:
    data = struct.pack("=IHHII", 16 + len(body), kind, flags, seq, port) + body
    return data + bytes(-len(data) % 4)


def attribute(kind: int, value: bytes) -> bytes:
    data = struct.pack("=HH", 4 + len(value), kind) + value
    return data + bytes(-len(data) % 4)


def number(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=I", value))


def link(index: int, name: str, *more: bytes, family: int = 0) -> bytes:
    head = struct.pack("=BxHiII", family, 1, index, 1, 0)
    return head + attribute(3, name.encode() + b"\0") + b"".join(more)


def kind_of_link(name: str) -> bytes:
    return attribute(18, attribute(1, name.encode() + b"\0"))


def neighbour(index: int, ip: str, mac: str | None, *, family: int = 2, flags: int = 0) -> bytes:
    body = struct.pack("=BxxxiHBB", family, index, 2, flags, 1)
    body += attribute(1, socket.inet_pton(socket.AF_INET, ip))
    return body + (attribute(2, bytes.fromhex(mac.replace(":", ""))) if mac else b"")


class Kernel:
    """A socket that answers dumps from `links` and `neighbours`, and hands out `events`."""

    def __init__(self) -> None:
        self.links: list[bytes] = []
        self.neighbours: list[bytes] = []
        self.queue: deque[tuple[bytes, int] | OSError] = deque()
        self.interrupted = 0
        self.during_dump: Callable[[], None] | None = None
        self.closed = False

    def event(self, kind: int, body: bytes, sender: int = 0) -> None:
        self.queue.append((message(kind, body), sender))

    def sendto(self, data: bytes, _: tuple[int, int]) -> int:
        _, kind, _, seq, _ = struct.unpack_from("=IHHII", data)
        if kind == GETROUTE:
            self.queue.append((message(2, struct.pack("=i", -errno.ENETUNREACH), seq=seq,
                                       port=PORT), 0))  # fmt: skip
            return len(data)
        flags = 0
        if self.interrupted:
            self.interrupted -= 1
            flags = 0x10
        table = self.links if kind == GETLINK else self.neighbours
        for body in table:
            reply = message(kind - 2, body, flags=flags, seq=seq, port=PORT)
            self.queue.append((reply, 0))
        if self.during_dump:
            self.during_dump()
        self.queue.append((message(3, struct.pack("=i", 0), flags=flags, seq=seq, port=PORT), 0))
        return len(data)

    def recvfrom(self, _: int) -> tuple[bytes, tuple[int, int]]:
        if not self.queue:
            raise BlockingIOError
        item = self.queue.popleft()
        if isinstance(item, OSError):
            raise item
        return item[0], (item[1], 0)

    def getsockname(self) -> tuple[int, int]:
        return PORT, 0

    def close(self) -> None:
        self.closed = True

    def setblocking(self, _: bool) -> None: ...

    def setsockopt(self, *_: Any) -> None: ...

    def bind(self, _: tuple[int, int]) -> None: ...


class Everywhere(NetnsDirectory):
    def path(self, inode: int) -> str | None:
        return f"/nowhere/{inode}"


@pytest.fixture
def clock() -> list[float]:
    return [100.0]


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel()
    made.links = [link(1, "lo"), link(2, "eth0")]
    made.neighbours = [neighbour(2, "10.0.0.5", MAC)]
    monkeypatch.setattr(netlink, "open_in", lambda path, inode: made)
    return made


@pytest.fixture
def neighbors(kernel: Kernel, clock: list[float]) -> Neighbors:
    return Neighbors(Everywhere(), clock=lambda: clock[0])


def ip_of(neighbors: Neighbors, index: int = 2, mac: str = MAC) -> str | None:
    return neighbors.neighbor(NETNS, index, mac, "10.0.0.5").ip


def test_vlan_above_an_interface(neighbors: Neighbors, kernel: Kernel) -> None:
    kernel.neighbours = [neighbour(3, "10.0.0.5", MAC)]
    kernel.links.append(link(3, "eth0.7", number(5, 2), kind_of_link("vlan")))
    assert ip_of(neighbors) == "10.0.0.5"


def test_bond_below_a_vlan_below_a_bridge(neighbors: Neighbors, kernel: Kernel) -> None:
    kernel.neighbours = [neighbour(9, "10.0.0.5", MAC)]
    kernel.links += [
        link(4, "eth1", number(10, 5)),
        link(5, "bond0"),
        link(6, "bond0.7", number(5, 5), number(10, 9), kind_of_link("vlan")),
        link(9, "br0"),
    ]
    assert ip_of(neighbors, 4) == "10.0.0.5"
    assert ip_of(neighbors, 2) is None


@pytest.mark.parametrize(
    "more",
    [
        pytest.param((number(5, 2), kind_of_link("veth")), id="the other end of a veth pair"),
        pytest.param((number(5, 2), number(37, 0), kind_of_link("macvlan")), id="other namespace"),
    ],
)
def test_not_above(neighbors: Neighbors, kernel: Kernel, more: tuple[bytes, ...]) -> None:
    kernel.neighbours = [neighbour(3, "10.0.0.5", MAC)]
    kernel.links.append(link(3, "up0", *more))
    assert ip_of(neighbors) is None


def test_loop_of_masters_ends(neighbors: Neighbors, kernel: Kernel) -> None:
    kernel.links = [link(2, "a", number(10, 3)), link(3, "b", number(10, 2))]
    assert ip_of(neighbors, 3) == "10.0.0.5"


def test_events_that_must_not_count(
    neighbors: Neighbors, kernel: Kernel, dumps: list[Netlink]
) -> None:
    assert ip_of(neighbors) == "10.0.0.5"
    kernel.event(DELLINK, link(2, "eth0", family=7))  # leaves a bridge
    kernel.event(NEWLINK, link(2, "eth0", attribute(11, b"\0" * 8)))  # wireless event
    kernel.event(NEWNEIGH, neighbour(2, "10.0.0.5", None, flags=0x08))  # proxy ARP
    kernel.event(NEWNEIGH, neighbour(2, "10.0.0.5", None, family=7))  # forwarding table
    kernel.event(DELNEIGH, neighbour(2, "10.0.0.5", MAC), sender=4711)  # not the kernel
    kernel.event(NEWNEIGH, b"\2")  # cut short
    kernel.queue.append((b"\xff" * 20, 0))
    assert ip_of(neighbors) == "10.0.0.5"
    assert neighbors.ifname(NETNS, 2) == "eth0"
    kernel.event(DELNEIGH, neighbour(2, "10.0.0.5", MAC))
    assert ip_of(neighbors) is None
    assert len(dumps) == 1


def fdb(mac: str, port: int = 2) -> bytes:
    """As br_fdb.c's fdb_fill_info() writes it: NDA_LLADDR, NDA_MASTER, NDA_CACHEINFO."""
    body = struct.pack("=BxxxiHBB", 7, port, 2, 0, 0)
    body += attribute(2, bytes.fromhex(mac.replace(":", "")))
    return body + number(9, 3) + attribute(3, bytes(16))


@pytest.mark.parametrize("bridge", ["bridge", "dummy"])
def test_only_what_was_asked_of_a_bridge_is_asked_again(
    bridge: str, neighbors: Neighbors, kernel: Kernel, dumps: list[Netlink]
) -> None:
    kernel.links += [link(3, "br0", kind_of_link(bridge)), link(4, "p1", number(10, 3))]
    kernel.neighbours.append(fdb(MAC, 4))

    def port() -> str | None:
        found = neighbors.neighbor(NETNS, 3, MAC, "10.0.0.5").bridge
        return found.port if found else None

    if bridge != "bridge":
        assert port() is None
        return
    # the fake kernel answers with its whole table, of which the first entry counts
    kernel.neighbours = [fdb(MAC, 4)]
    assert port() == "p1"
    kernel.links.append(link(5, "p2", number(10, 3)))
    kernel.event(NEWLINK, kernel.links[-1])
    assert port() == "p1"
    kernel.neighbours = [fdb(MAC, 5)]
    kernel.event(NEWNEIGH, fdb("52:54:00:00:00:06", 5))
    for broken in (b"", b"\0\0\0\0", b"\3\0\2\0", b"\xff\xff\2\0" + bytes(6)):
        kernel.event(NEWNEIGH, struct.pack("=BxxxiHBB", 7, 5, 2, 0, 0) + broken)
    assert port() == "p1"
    kernel.event(NEWNEIGH, fdb(MAC, 5))
    assert port() == "p2"
    assert len(dumps) == 1


def test_failed_neighbour_is_forgotten(neighbors: Neighbors, kernel: Kernel) -> None:
    assert ip_of(neighbors) == "10.0.0.5"
    kernel.event(NEWNEIGH, neighbour(2, "10.0.0.5", None))
    assert ip_of(neighbors) is None


def test_within_a_turn_changes_wait(neighbors: Neighbors, kernel: Kernel) -> None:
    neighbors.turn()
    assert ip_of(neighbors) == "10.0.0.5"
    kernel.event(NEWNEIGH, neighbour(2, "10.0.0.5", None))
    assert ip_of(neighbors) == "10.0.0.5"
    neighbors.turn()
    assert ip_of(neighbors) is None


def test_within_a_turn_a_closed_socket_is_not_asked(neighbors: Neighbors, kernel: Kernel) -> None:
    neighbors.turn()
    assert ip_of(neighbors) == "10.0.0.5"
    neighbors.forget(NETNS)
    assert kernel.closed
    kernel.closed = False
    assert ip_of(neighbors) == "10.0.0.5"
    assert not kernel.closed


def test_a_namespace_that_is_gone_is_let_go_of_between_turns(
    neighbors: Neighbors, kernel: Kernel, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    neighbors.turn()
    assert ip_of(neighbors) == "10.0.0.5"
    monkeypatch.setattr(Everywhere, "path", lambda self, inode: None)
    clock[0] += 2
    neighbors.tidy()
    assert kernel.closed


def test_event_within_a_dump_is_not_lost(neighbors: Neighbors, kernel: Kernel) -> None:
    kernel.during_dump = lambda: kernel.event(NEWNEIGH, neighbour(2, "10.0.0.9", MAC))
    assert neighbors.neighbor(NETNS, 2, MAC, "10.0.0.9").ip == "10.0.0.9"


def test_interrupted_dump_is_repeated(
    neighbors: Neighbors, kernel: Kernel, dumps: list[Netlink]
) -> None:
    kernel.interrupted = 1
    assert ip_of(neighbors) == "10.0.0.5"
    assert len(dumps) == 2


def test_dump_that_never_succeeds_is_given_up_for_a_second(
    neighbors: Neighbors, kernel: Kernel, clock: list[float], dumps: list[Netlink]
) -> None:
    kernel.interrupted = 1000
    neighbors.ifname(NETNS, 2)
    assert len(dumps) == 3
    neighbors.ifname(NETNS, 2)
    assert len(dumps) == 3
    kernel.interrupted = 0
    clock[0] += 1
    assert ip_of(neighbors) == "10.0.0.5"
    assert len(dumps) == 4


def test_overruns_dump_once_a_second_at_most(
    neighbors: Neighbors, kernel: Kernel, clock: list[float], dumps: list[Netlink]
) -> None:
    assert ip_of(neighbors) == "10.0.0.5"
    kernel.neighbours = []
    clock[0] += 10
    for _ in range(5):
        kernel.queue.append(OSError(errno.ENOBUFS, "No buffer space available"))
        assert ip_of(neighbors) is None
    assert len(dumps) == 2
    clock[0] += 1
    assert ip_of(neighbors) is None
    assert len(dumps) == 3


def test_unusable_socket_is_closed_and_opened_again(neighbors: Neighbors, kernel: Kernel) -> None:
    assert ip_of(neighbors) == "10.0.0.5"
    kernel.queue.append(OSError(errno.EBADF, "Bad file descriptor"))
    assert ip_of(neighbors) is None
    assert kernel.closed
    assert ip_of(neighbors) == "10.0.0.5"


def test_refused_namespace_is_not_tried_for_every_reset(
    monkeypatch: pytest.MonkeyPatch, clock: list[float]
) -> None:
    tried = []

    def refuse(path: str, inode: int) -> socket.socket:
        tried.append(inode)
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(netlink, "open_in", refuse)
    neighbors = Neighbors(Everywhere(), clock=lambda: clock[0])
    for _ in range(100):
        assert neighbors.neighbor(NETNS, 2, MAC, "10.0.0.5").ip is None
    assert len(tried) == 1
    clock[0] += 1
    assert neighbors.ifname(NETNS, 2) is None
    assert len(tried) == 2


def test_answers_of_a_route_expire(
    neighbors: Neighbors, kernel: Kernel, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    send = kernel.sendto

    def sendto(data: bytes, address: tuple[int, int]) -> int:
        asked.append(struct.unpack_from("=IH", data)[1])
        return send(data, address)

    monkeypatch.setattr(kernel, "sendto", sendto)
    for _ in range(10):
        assert neighbors.next_hop(NETNS, "192.0.2.1") is None
    assert asked.count(GETROUTE) == 1
    clock[0] += 6
    neighbors.next_hop(NETNS, "192.0.2.1")
    assert asked.count(GETROUTE) == 2
    kernel.event(NEWROUTE, bytes(12))
    neighbors.next_hop(NETNS, "192.0.2.1")
    assert asked.count(GETROUTE) == 3
