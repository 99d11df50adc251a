"""A host whose TCP stack is not Linux: it answers from user space, with its own habits.

Run as ``python -m tests.accuracy.stack STYLE PORT`` in the server's namespace, where a firewall
rule keeps the kernel from answering on that port. Accepts connections, echoes data, and resets a
connection when data starts with ``RESET``. It is the peer: its resets are honest.
"""

from __future__ import annotations

import random
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.packet import Raw

PACKET_HOST = 0
NOP = ("NOP", None)


@dataclass
class Style:
    """A stack's habits: initial TTL, step of the IP ID counter, DF, and the look of its resets.

    `stamped`: its SYN-ACK has FreeBSD's order of options, and all but its resets timestamps.
    `mirrors`: each packet has the IP ID and the window of the one that it answers. `reason`: text
    that its resets carry (RFC 9293 §3.5.2).
    """

    ttl: Callable[[], int]
    step: Callable[[], int]
    df: bool
    flags: str
    ack_filled: bool
    window: int = 0
    stamped: bool = False
    mirrors: bool = False
    reason: bytes = b""


def varied_ttls() -> Iterator[int]:
    """TTLs at random, but never near the last one: chance makes no steady stack of this one."""
    last = 64
    while True:
        last = random.choice([ttl for ttl in range(50, 65) if abs(ttl - last) >= 5])
        yield last


STYLES = {
    # Windows, as captures show it: consecutive IDs, DF, ack filled in without the flag.
    "windows": Style(lambda: 128, lambda: 1, True, "R", True),
    "windows-ra": Style(lambda: 128, lambda: 1, True, "RA", True),
    # Linux before 4.x and others: one counter for the whole host, which others' packets move too.
    "old-counter": Style(lambda: 64, lambda: random.randrange(1, 200), True, "R", False),
    # OpenBSD, macOS: random IDs.
    "random-ids": Style(lambda: 64, lambda: random.randrange(1, 65536), True, "R", False),
    # Network gear and printers: TTL 255, one counter, no DF.
    "appliance": Style(lambda: 255, lambda: 1, False, "RA", True, 4096),
    "no-df": Style(lambda: 64, lambda: 1, False, "R", False),
    # FreeBSD, where its IDs count: tcp_output() puts no timestamps into a RST.
    "bsd": Style(lambda: 64, lambda: 1, True, "RA", True, stamped=True),
    # Small devices that answer in the buffer of the packet that they got.
    "mirrors": Style(lambda: 64, lambda: 0, True, "RA", True, mirrors=True),
    # BIG-IP, if told to (tm.rstcause.pkt).
    "states-reason": Style(lambda: 255, lambda: 1, True, "RA", True, reason=b"BIG-IP: [0x2] rst"),
    # A stack that varies its TTL from packet to packet.
    "varied-ttl": Style(varied_ttls().__next__, lambda: 1, True, "RA", True),
}


class Stack:
    """One host's stack."""

    def __init__(self, style: Style, port: int) -> None:
        self._style, self._port = style, port
        self._id = random.randrange(1, 60000)
        self._next: dict[tuple[str, int], int] = {}  # our next sequence number, by client

    def answer(self, packet: Any) -> Any | None:
        """What the stack sends for a packet, or None."""
        tcp = packet[TCP]
        who = (packet.src, tcp.sport)
        data = bytes(tcp[Raw].load) if Raw in tcp else b""
        if tcp.flags.R or tcp.dport != self._port:
            return None
        if tcp.flags.S:
            seq = random.randrange(1 << 32)
            self._next[who] = seq + 1 & 0xFFFFFFFF
            options: list[Any] = [("MSS", 1460)]
            if self._style.stamped:
                options += [NOP, ("WScale", 6), ("SAckOK", b""), *self._stamp(packet)]
            return self._send(packet, "SA", seq, tcp.seq + 1, 8192, options=options)
        ours = self._next.get(who)
        if ours is None:
            return self._send(packet, "R", tcp.ack, 0, 0)
        end = tcp.seq + len(data)
        if data.startswith(b"RESET"):
            del self._next[who]
            ack = end if self._style.ack_filled else 0
            style = self._style
            return self._send(packet, style.flags, ours, ack, style.window, style.reason)
        if data:
            self._next[who] = ours + len(data) & 0xFFFFFFFF
            options = [NOP, NOP, *self._stamp(packet)] if self._style.stamped else []
            return self._send(packet, "PA", ours, end, 8192 - len(data), data, options)
        return None

    @staticmethod
    def _stamp(packet: Any) -> list[Any]:
        """The timestamp option (RFC 7323 §3.2); nothing if the packet has none."""
        theirs = dict(o for o in packet[TCP].options if o[0] == "Timestamp").get("Timestamp")
        now = time.monotonic_ns() // 1_000_000 & 0xFFFFFFFF
        return [("Timestamp", (now, theirs[0]))] if theirs else []

    def _send(
        self,
        packet: Any,
        flags: str,
        seq: int,
        ack: int,
        window: int,
        data: bytes = b"",
        options: Any = (),
    ) -> Any:
        style = self._style
        self._id = (self._id + style.step()) & 0xFFFF
        network: Any
        if IP in packet:
            network = IP(
                src=packet.dst,
                dst=packet.src,
                ttl=style.ttl(),
                id=packet.id if style.mirrors else self._id,
                flags="DF" if style.df else 0,
            )
        else:
            network = IPv6(src=packet.dst, dst=packet.src, hlim=style.ttl())
        segment = TCP(
            sport=packet[TCP].dport,
            dport=packet[TCP].sport,
            flags=flags,
            seq=seq & 0xFFFFFFFF,
            ack=ack & 0xFFFFFFFF,
            window=packet[TCP].window if style.mirrors else window,
            options=list(options),
        )
        return network / segment / data if data else network / segment


def main() -> None:
    """Answer until killed."""
    stack = Stack(STYLES[sys.argv[1]], int(sys.argv[2]))
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0003))
    print("up", flush=True)
    while True:
        raw, (interface, protocol, kind, _, mac) = wire.recvfrom(65535)
        if kind != PACKET_HOST or protocol not in (0x0800, 0x86DD):
            continue
        packet = IP(raw) if protocol == 0x0800 else IPv6(raw)
        answer = stack.answer(packet) if TCP in packet else None
        if answer is not None:
            wire.sendto(bytes(answer), (interface, protocol, 0, 0, mac))


if __name__ == "__main__":
    main()
