"""A bridge in user space that turns packets into resets in place, or delays them.

Run as ``python -m tests.accuracy.tap LEFT RIGHT [DELAY JITTER]``. It hands every frame from one
interface to the other; of TCP data that starts with ``SWAP HOW`` it makes a reset that keeps the
packet's IP ID, TTL, sequence number and window:

bare: ``R``, window 0, no options. window: ``R`` with the window left in. payload: ``RA`` with the
data left in. checksum: as window, with a wrong checksum. perfect: ``RA`` with all options, no data.
unstamped: ``RA`` without options, no data. stamped-r: ``R`` with all options, no data.
payload-bare: ``R`` without options, with the data.

``SWAPNEXT HOW`` lets its own packet pass and swaps the next one of the other direction. With DELAY
and JITTER, in milliseconds, each frame waits for so long, and up to so much longer, in turns.
"""

from __future__ import annotations

import itertools
import selectors
import socket
import struct
import sys
import time
from collections import deque
from typing import Any

from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

PACKET_OUTGOING = 4
WORD, NEXT = b"SWAP ", b"SWAPNEXT "
BARE = ("bare", "window", "checksum", "payload-bare")
NO_ACK = (*BARE, "stamped-r")
Flow = tuple[str, str, int, int]


def swap(frame: Any, how: str) -> Any:
    """The frame with its TCP segment turned into a reset."""
    tcp = frame[TCP]
    payload = bytes(tcp.payload)
    tcp.remove_payload()
    tcp.flags = "R" if how in NO_ACK else "RA"
    if how in NO_ACK:
        tcp.ack = 0
    if how == "bare":
        tcp.window = 0
    if how in BARE or how == "unstamped":
        tcp.options = []
        del tcp.dataofs
    if how.startswith("payload"):
        tcp.add_payload(Raw(payload))
    if how != "checksum":
        del tcp.chksum
    network = frame[IP] if IP in frame else frame[IPv6]
    if IP in frame:
        del network.len, network.chksum
    else:
        del network.plen
    if how == "checksum":
        tcp.chksum = tcp.chksum ^ 0x5555
    return frame


class Tap:
    """The bridge: two sides, frames that wait, and flows whose next packet is to be swapped."""

    def __init__(self, sides: tuple[socket.socket, socket.socket], delays: list[float]) -> None:
        self._sides = sides
        self._delays = itertools.cycle(delays)
        self._waiting: dict[socket.socket, deque[tuple[float, bytes]]] = {s: deque() for s in sides}
        self._next: dict[Flow, str] = {}

    def handled(self, raw: bytes) -> bytes:
        """A frame as it goes on."""
        if WORD[:4] not in raw and not self._next:
            return raw
        frame = Ether(raw)
        if TCP not in frame:
            return raw
        network, tcp = frame[IP] if IP in frame else frame[IPv6], frame[TCP]
        flow = (network.src, network.dst, tcp.sport, tcp.dport)
        data = bytes(tcp[Raw].load) if Raw in tcp else b""
        if flow in self._next:
            return bytes(swap(frame, self._next.pop(flow)))
        if data.startswith(NEXT):
            self._next[flow[1], flow[0], flow[3], flow[2]] = data.split()[1].decode()
        elif data.startswith(WORD):
            return bytes(swap(frame, data.split()[1].decode()))
        return raw

    def run(self) -> None:
        """Hand over until killed."""
        left, right = self._sides
        other = {left: right, right: left}
        selector = selectors.DefaultSelector()
        for sock in self._sides:
            selector.register(sock, selectors.EVENT_READ, sock)
        while True:
            due = min((queue[0][0] for queue in self._waiting.values() if queue), default=None)
            wait = None if due is None else max(0.0, due - time.monotonic())
            for key, _ in selector.select(wait):
                sock = key.data
                raw, address = sock.recvfrom(65535)
                if address[2] != PACKET_OUTGOING:
                    when = time.monotonic() + next(self._delays)
                    self._waiting[other[sock]].append((when, self.handled(raw)))
            for sock, queue in self._waiting.items():
                while queue and queue[0][0] <= time.monotonic():
                    sock.send(queue.popleft()[1])


def side(name: str) -> socket.socket:
    """A socket that takes every frame of an interface."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))
    sock.bind((name, 0x0003))
    # PACKET_ADD_MEMBERSHIP, PACKET_MR_PROMISC (packet(7)): frames are for others.
    sock.setsockopt(263, 1, struct.pack("IHH8s", socket.if_nametoindex(name), 1, 0, b""))
    return sock


def main() -> None:
    """Bridge until killed."""
    delay, jitter = (float(word) / 1000 for word in sys.argv[3:5] or ("0", "0"))
    shares = (0.0, 0.9, 0.2, 0.5, 1.0, 0.1, 0.7)  # in turns, so that every run sees them all
    tap = Tap((side(sys.argv[1]), side(sys.argv[2])), [delay + jitter * share for share in shares])
    print("bridging", flush=True)
    tap.run()


if __name__ == "__main__":
    main()
