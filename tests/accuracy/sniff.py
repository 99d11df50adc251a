"""What really crossed an interface: the truth that the verdicts are held against.

Packet sockets on the ends' interfaces see each RST that leaves an end and each that comes in. A RST
that came in is the peer's if the same one left the peer's own interface; else somebody forged it.
Nothing of rsttrace is used for that.
"""

from __future__ import annotations

import os
import selectors
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from typing import NamedTuple

from rsttrace.demo.lab import Lab
from tests.lab.harness import DEADLINE_S

ETH_P_ALL = 0x0003
PACKET_HOST, PACKET_OUTGOING = 0, 4  # packet(7), linux/if_packet.h
RST = 0x04


class Wire(NamedTuple):
    """A RST's headers on the wire, but for the TTL, which changes on the way, and checksums.

    `ports` is (source, destination); all numbers in host byte order; `ip_id` is 0 for IPv6.
    """

    source: str
    target: str
    ports: tuple[int, int]
    seq: int
    ack: int
    flags: int
    window: int
    ip_id: int


class Sighting(NamedTuple):
    """A RST at an end: `outgoing` if this end sent it; `ttl` as it was there."""

    role: str
    outgoing: bool
    wire: Wire
    ttl: int


def parse(packet: bytes) -> tuple[Wire, int] | None:
    """(headers, TTL) of an IPv4 or IPv6 packet that is a RST, else None. Reads no IPv6 extension.

    RFC 791 §3.1, RFC 8200 §3, RFC 9293 §3.1.
    """
    if len(packet) < 40:
        return None
    ip_id = 0
    if packet[0] >> 4 == 4:
        start, protocol, ttl = (packet[0] & 15) * 4, packet[9], packet[8]
        ip_id = int.from_bytes(packet[4:6], "big")
        source = socket.inet_ntop(socket.AF_INET, packet[12:16])
        target = socket.inet_ntop(socket.AF_INET, packet[16:20])
    elif packet[0] >> 4 == 6:
        start, protocol, ttl = 40, packet[6], packet[7]
        source = socket.inet_ntop(socket.AF_INET6, packet[8:24])
        target = socket.inet_ntop(socket.AF_INET6, packet[24:40])
    else:
        return None
    if protocol != socket.IPPROTO_TCP or len(packet) < start + 20:
        return None
    sport, dport, seq, ack, _, flags, window = struct.unpack_from(">HHIIBBH", packet, start)
    if not flags & RST:
        return None
    return Wire(source, target, (sport, dport), seq, ack, flags, window, ip_id), ttl


class Sniffer:
    """Watches interfaces of a lab's namespaces, from its making until `close`."""

    def __init__(self, lab: Lab, places: Iterable[tuple[str, str]]) -> None:
        self._changed = threading.Condition()
        self._seen: list[Sighting] = []
        self._sockets: dict[socket.socket, str] = {}
        self._stop, self._stopped = os.pipe()
        for role, interface in places:
            with lab.inside(role):
                # SOCK_DGRAM: the packet starts with its IP header, whatever the link is.
                sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
            sock.bind((interface, ETH_P_ALL))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
            self._sockets[sock] = role
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        selector = selectors.DefaultSelector()
        selector.register(self._stop, selectors.EVENT_READ)
        for each in self._sockets:
            selector.register(each, selectors.EVENT_READ, each)
        while True:
            for key, _ in selector.select():
                if key.fd == self._stop:
                    selector.close()
                    return
                sock = key.data
                try:
                    packet, address = sock.recvfrom(65535)
                except OSError:  # the interface went away with its namespace
                    continue
                if address[2] not in (PACKET_HOST, PACKET_OUTGOING):
                    continue  # a hub's copy of what others say
                if address[0] == "lo" and address[2] == PACKET_OUTGOING:
                    continue  # what a machine tells itself has not left it
                found = parse(packet)
                if found is not None:
                    outgoing = address[2] == PACKET_OUTGOING
                    with self._changed:
                        self._seen.append(Sighting(self._sockets[sock], outgoing, *found))
                        self._changed.notify_all()

    def seen(self, port: int, outgoing: bool, role: str | None = None) -> list[Sighting]:
        """The RSTs from or to a port, of one end or all."""
        with self._changed:
            return [
                found
                for found in self._seen
                if port in found.wire.ports
                and found.outgoing is outgoing
                and role in (None, found.role)
            ]

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until a condition on what was seen is true."""
        with self._changed:
            if not self._changed.wait_for(condition, DEADLINE_S):
                raise AssertionError(f"{what}: in vain; seen: {self._seen[-8:]}")

    def close(self) -> None:
        """Stop watching."""
        os.write(self._stopped, b"x")
        self._thread.join()
        for sock in self._sockets:
            sock.close()
        os.close(self._stop)
        os.close(self._stopped)


class Honest:
    """Tells the peers' own RSTs from others by what left the peers' interfaces.

    Addresses and ports are left out: a NAT box may have changed them.
    """

    def __init__(self, sent: Iterable[Sighting], hops: int) -> None:
        self._left = Counter((found.wire[3:], found.ttl - hops) for found in sent)

    def take(self, wire: Wire, ttl: int) -> bool:
        """Whether a RST that arrived so is one that a peer sent; each counts once."""
        key = (wire[3:], ttl)
        if not self._left[key]:
            return False
        self._left[key] -= 1
        return True
