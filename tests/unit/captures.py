"""Builds captures for the tests: the file formats by hand, byte for byte; packets with scapy."""

from __future__ import annotations

import gzip
import os
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import scapy.layers.inet as scapy_inet
import scapy.layers.inet6 as scapy_inet6
import scapy.layers.l2 as scapy_l2

TCP = scapy_inet.TCP

ETHERNET, RAW, SLL, SLL2 = 1, 101, 113, 276
US, PEER = "10.0.0.5", "198.51.100.7"
US6, PEER6 = "2001:db8::5", "2001:db8:1::7"
OUR_MAC, GATEWAY = "02:00:00:00:00:05", "00:d0:f8:22:33:44"
START_NS = 1_574_587_803_000_000_000
SECOND = 1_000_000_000


def pcap(
    packets: Iterable[bytes],
    *,
    link: int = ETHERNET,
    endian: str = "<",
    nano: bool = False,
    snaplen: int = 262144,
    start_ns: int = START_NS,
    step_ns: int = 1_000_000,
) -> bytes:
    """A pcap file (draft-ietf-opsawg-pcap), one packet each `step_ns`, cut at `snaplen`."""
    magic, unit = (0xA1B23C4D, 1) if nano else (0xA1B2C3D4, 1000)
    made = struct.pack(endian + "IHHiIII", magic, 2, 4, 0, 0, snaplen, link)
    for number, data in enumerate(packets):
        seconds, rest = divmod(start_ns + number * step_ns, SECOND)
        kept = data[:snaplen]
        made += struct.pack(endian + "IIII", seconds, rest // unit, len(kept), len(data)) + kept
    return made


def block(endian: str, kind: int, body: bytes) -> bytes:
    """A pcapng block (draft-ietf-opsawg-pcapng §3.1)."""
    body += b"\0" * (-len(body) % 4)
    length = struct.pack(endian + "I", len(body) + 12)
    return struct.pack(endian + "I", kind) + length + body + length


def option(endian: str, code: int, value: bytes) -> bytes:
    """A pcapng option (§3.5)."""
    return struct.pack(endian + "HH", code, len(value)) + value + b"\0" * (-len(value) % 4)


def section(endian: str = "<") -> bytes:
    """A Section Header Block."""
    return block(endian, 0x0A0D0D0A, struct.pack(endian + "IHHq", 0x1A2B3C4D, 1, 0, -1))


def interface(
    endian: str = "<",
    link: int = ETHERNET,
    *,
    resolution: int | None = None,
    offset: int | None = None,
    snaplen: int = 0,
) -> bytes:
    """An Interface Description Block; `resolution` is if_tsresol, `offset` if_tsoffset."""
    options = b""
    if resolution is not None:
        options += option(endian, 9, bytes([resolution]))
    if offset is not None:
        options += option(endian, 14, struct.pack(endian + "q", offset))
    if options:
        options += option(endian, 0, b"")
    return block(endian, 1, struct.pack(endian + "HHI", link, 0, snaplen) + options)


def enhanced(
    data: bytes,
    *,
    ticks: int = START_NS // 1000,
    number: int = 0,
    endian: str = "<",
    direction: int | None = None,
    lost: int | None = None,
) -> bytes:
    """An Enhanced Packet Block; `number` is the interface's, `lost` epb_dropcount."""
    head = struct.pack(endian + "5I", number, ticks >> 32, ticks & 0xFFFFFFFF, len(data), len(data))
    options = b""
    if direction is not None:
        options += option(endian, 2, struct.pack(endian + "I", direction))
    if lost is not None:
        options += option(endian, 4, struct.pack(endian + "Q", lost))
    if options:
        options += option(endian, 0, b"")
    return block(endian, 6, head + data + b"\0" * (-len(data) % 4) + options)


def simple(data: bytes, endian: str = "<") -> bytes:
    """A Simple Packet Block: no time, the first interface."""
    return block(endian, 3, struct.pack(endian + "I", len(data)) + data)


def statistics(
    *,
    taken: int = 0,
    start: int | None = None,
    end: int | None = None,
    counts: Mapping[int, int] = MappingProxyType({}),
    number: int = 0,
    endian: str = "<",
) -> bytes:
    """An Interface Statistics Block: times in ticks of that interface, counts by option code
    (4 isb_ifrecv, 5 isb_ifdrop, 7 isb_osdrop, 8 isb_usrdeliv)."""

    def words(ticks: int) -> bytes:
        return struct.pack(endian + "II", ticks >> 32, ticks & 0xFFFFFFFF)

    options = b""
    for code, ticks in ((2, start), (3, end)):
        if ticks is not None:
            options += option(endian, code, words(ticks))
    for code, count in counts.items():
        options += option(endian, code, struct.pack(endian + "Q", count))
    return block(endian, 5, struct.pack(endian + "I", number) + words(taken) + options)


def pcapng(packets: Iterable[bytes], link: int = ETHERNET, endian: str = "<") -> bytes:
    """A pcapng file with one interface."""
    ticks = START_NS // 1000
    made = section(endian) + interface(endian, link)
    for number, data in enumerate(packets):
        made += enhanced(data, ticks=ticks + number * 1000, endian=endian)
    return made


def known() -> list[Path]:
    """The captures that there are: those of tests/cases, and the labelled ones, where they are."""
    folders = [Path(__file__).parents[1] / "cases", os.environ.get("RSTTRACE_PCAPS")]
    return [path for folder in folders if folder for path in sorted(Path(folder).glob("*.pcap*"))]


def compressed(data: bytes) -> bytes:
    """gzip."""
    return gzip.compress(data, 6)


class Talk:
    """A connection between us and a peer; each method gives a packet as bytes.

    `hops` is how many routers are between the capture and the peer. Sequence numbers are kept.
    """

    def __init__(
        self, *, port: int = 51234, hops: int = 17, family: int = 4, server: int = 443
    ) -> None:
        self.family = family
        self.ports = (port, server)
        self.ttls = (64, 64 - hops)
        self.numbers = [1_000_000, 4_294_967_000]
        self.ids = [100, 9000]

    def ip(self, side: int, **fields: Any) -> Any:
        """An IP header: side 0 is ours, 1 the peer's."""
        addresses = (US, PEER) if self.family == 4 else (US6, PEER6)
        ends = {"src": addresses[side], "dst": addresses[1 - side]}
        if self.family == 6:
            return scapy_inet6.IPv6(**{"hlim": self.ttls[side], **ends, **fields})
        return scapy_inet.IP(
            **{"ttl": self.ttls[side], "id": self.ids[side], "flags": "DF", **ends, **fields}
        )

    def segment(
        self, side: int, flags: str, data: bytes = b"", options: Any = (), **fields: Any
    ) -> Any:
        """The next packet of a side, without a link layer."""
        header: dict[str, Any] = {
            name: fields.pop(name) for name in ("ttl", "hlim", "id", "tos") if name in fields
        }
        if "flags_ip" in fields:
            header["flags"] = fields.pop("flags_ip")
        numbers = {
            "sport": self.ports[side],
            "dport": self.ports[1 - side],
            "seq": self.numbers[side],
            "ack": self.numbers[1 - side] if "A" in flags else 0,
            "window": 500,
            **fields,
        }
        numbers["seq"] &= 0xFFFFFFFF
        made = self.ip(side, **header) / TCP(flags=flags, options=list(options), **numbers) / data
        if "R" not in flags:
            taken = len(data) + ("S" in flags) + ("F" in flags)
            self.numbers[side] = (self.numbers[side] + taken) & 0xFFFFFFFF
            self.ids[side] = (self.ids[side] + 1) & 0xFFFF
        return made

    def frame(self, side: int, flags: str, data: bytes = b"", **fields: Any) -> bytes:
        """The next packet of a side, in Ethernet."""
        return ethernet(self.segment(side, flags, data, **fields), side)

    def handshake(self) -> list[bytes]:
        """SYN, SYN-ACK, ACK."""
        nop = ("NOP", None)  # a Linux host's, without timestamps
        syn = [("MSS", 1460), nop, nop, ("SAckOK", b""), nop, ("WScale", 7)]
        return [
            self.frame(0, "S", options=syn, window=64240),
            self.frame(1, "SA", options=syn, window=65160),
            self.frame(0, "A"),
        ]

    def reset(self, flags: str = "R", side: int = 1, **fields: Any) -> bytes:
        """A RST as a Linux host without a socket sends it, unless the fields say otherwise."""
        if self.family == 4:
            fields.setdefault("id", 0)
        return self.frame(side, flags, **{"window": 0, **fields})


def ethernet(packet: Any, side: int = 0) -> bytes:
    """A packet in an Ethernet frame of a side."""
    macs = (OUR_MAC, GATEWAY)
    return bytes(scapy_l2.Ether(src=macs[side], dst=macs[1 - side]) / packet)


def incident(**options: Any) -> list[bytes]:
    """A connection that a device on the path resets with a copy of our IP ID; frame 5."""
    talk = Talk(**options)
    packets = [*talk.handshake(), talk.frame(0, "PA", b"GET /use?db=shop")]
    own_id = {"id": talk.ids[0] - 1, "ttl": 63} if talk.family == 4 else {"hlim": 63}
    return [*packets, talk.reset("R", window=500, **own_id)]


def write(path: Path, data: bytes) -> str:
    """Write a file; returns its name."""
    path.write_bytes(data)
    return str(path)
