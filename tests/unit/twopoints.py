"""A connection as two captures see it, packet by packet, with clocks, hops and accidents to choose.

Packets are scapy's, without a link layer (LINKTYPE_RAW).
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6

from tests.unit import captures

MS = 1_000_000
SECOND = 1_000_000_000
START_NS = 1_574_587_803 * SECOND

CLIENT, SERVER = 0, 1
STAMPS = [("NOP", None), ("NOP", None)]


def address(name: str, family: int) -> str:
    """The client's, the server's, the NAT box's outer address, or the service's that it keeps."""
    number = {"client": 5, "server": 7, "nat": 9, "service": 80}[name]
    return f"10.0.0.{number}" if family == 4 else f"2001:db8::{number}"


class World:
    """Both captures: the client's (A) and the server's (B).

    `hops` routers and `delay_ns` lie between them; B's clock is `offset_ns` ahead and gains `ppm`.
    With `nat` the server sees another client address and port; with `service` the client sees the
    server as another address and port. `now` is the true time.
    """

    def __init__(
        self,
        *,
        family: int = 4,
        hops: int = 6,
        delay_ns: int = 5 * MS,
        offset_ns: int = 3 * SECOND,
        ppm: float = 0.0,
        nat: bool = False,
        service: bool = False,
    ) -> None:
        self.family = family
        self.hops = hops
        self.delay_ns = delay_ns
        self.offset_ns = offset_ns
        self.ppm = ppm
        self.nat = nat
        self.service = service
        self.now = START_NS
        self.seen: tuple[list[tuple[int, bytes]], list[tuple[int, bytes]]] = ([], [])
        self.stamp = 1000

    def clock(self, point: int, true_ns: int) -> int:
        """What a point's clock shows."""
        if point == 0:
            return true_ns
        return true_ns + self.offset_ns + round((true_ns - START_NS) * self.ppm * 1e-6)

    def see(self, point: int, true_ns: int, packet: Any) -> None:
        """A packet passes a point."""
        self.seen[point].append((self.clock(point, true_ns), bytes(packet)))

    def write(self, folder: Path) -> tuple[str, str]:
        """Both captures as files (nanoseconds): their names."""
        names = []
        for name, rows in zip(("a.pcap", "b.pcap"), self.seen):
            data = struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 101)
            for time_ns, packet in sorted(rows, key=lambda row: row[0]):
                seconds, rest = divmod(time_ns, SECOND)
                data += struct.pack("<IIII", seconds, rest, len(packet), len(packet)) + packet
            (folder / name).write_bytes(data)
            names.append(str(folder / name))
        return names[0], names[1]

    def write_ng(self, folder: Path, *ends: bytes) -> tuple[str, str]:
        """Both captures as pcapng files (nanoseconds) that end in these blocks: their names."""
        names = []
        for name, rows, end in zip(("a.pcapng", "b.pcapng"), self.seen, (*ends, b"", b"")):
            data = captures.section() + captures.interface(link=captures.RAW, resolution=9)
            for time_ns, packet in sorted(rows, key=lambda row: row[0]):
                data += captures.enhanced(packet, ticks=time_ns)
            (folder / name).write_bytes(data + end)
            names.append(str(folder / name))
        return names[0], names[1]


class Talk:
    """One connection in a world."""

    def __init__(
        self,
        world: World,
        port: int = 51234,
        *,
        isn: tuple[int, int] = (1_000_000, 4_294_967_000),
        ids: tuple[int, int] = (100, 9000),
    ) -> None:
        self.world = world
        self.port = port
        self.numbers = list(isn)
        self.ids = list(ids)

    def packet(self, side: int, point: int, flags: str, data: bytes = b"", **fields: Any) -> Any:
        """A packet from a side as it looks at a point (0: A, 1: B); `view`: with the addresses that
        the connection has at that point."""
        world = self.world
        family = world.family
        view = fields.pop("view", point)
        outer, front = world.nat and view == 1, world.service and view == 0
        client = (address("nat" if outer else "client", family), self.port + 7 * outer)
        server = (address("service" if front else "server", family), 80 if front else 443)
        ends = [client, server]
        (src, sport), (dst, dport) = ends[side], ends[1 - side]
        ttl = fields.pop("ttl", 64 if side == point else 64 - world.hops)
        ip_id = fields.pop("ip_id", self.ids[side])
        header = (
            IP(src=src, dst=dst, ttl=ttl, id=ip_id, flags="DF")
            if family == 4
            else IPv6(src=src, dst=dst, hlim=ttl)
        )
        tcp = {
            "seq": self.numbers[side] & 0xFFFFFFFF,
            "ack": self.numbers[1 - side] & 0xFFFFFFFF if "A" in flags else 0,
            "window": 500,
            "options": [("Timestamp", (world.stamp, 1))] if "R" not in flags else [],
            **fields,
        }
        return header / TCP(sport=sport, dport=dport, flags=flags, **tcp) / data

    def send(
        self,
        side: int,
        flags: str,
        data: bytes = b"",
        *,
        lost: bool = False,
        late_ns: int = 0,
        unseen: int | None = None,
        escaped: bool = False,
        view: int | None = None,
        **fields: Any,
    ) -> None:
        """A packet leaves a side and arrives at the other, unless it is lost on the way.

        `unseen`: this point's capture misses it. `late_ns`: how much longer than usual it takes.
        `escaped`: it arrives with the addresses that it left with; `view`: it has this point's
        addresses all the way.
        """
        world = self.world
        views = [side if view is None else view, 1 - side if view is None else view]
        if escaped:
            views[1] = side
        if unseen != side:
            made = self.packet(side, side, flags, data, view=views[0], **dict(fields))
            world.see(side, world.now, made)
        if not lost and unseen != 1 - side:
            arrival = world.now + world.delay_ns + late_ns
            made = self.packet(side, 1 - side, flags, data, view=views[1], **dict(fields))
            world.see(1 - side, arrival, made)
        if "R" not in flags:
            self.numbers[side] += len(data) + ("S" in flags) + ("F" in flags)
            self.ids[side] += 1
        world.stamp += 1
        world.now += MS

    def wait(self, ns: int = 20 * MS) -> None:
        """Time passes."""
        self.world.now += ns

    def open(self) -> Talk:
        """Handshake and a little data both ways."""
        for side, flags in ((CLIENT, "S"), (SERVER, "SA"), (CLIENT, "A")):
            self.send(side, flags)
            self.wait()
        for _ in range(2):
            for side in (CLIENT, SERVER):
                self.send(side, "PA", b"hello")
                self.wait()
        return self

    def forge(
        self, target: int, flags: str = "R", *, hops: int, after_ns: int = MS, **fields: Any
    ) -> None:
        """A RST made on the way comes in at a side, in the other side's name."""
        world = self.world
        made = self.packet(
            1 - target, target, flags, **{"ttl": 64 - hops, "ip_id": 31337, "window": 0, **fields}
        )
        world.see(target, world.now + after_ns, made)

    def honest(self, side: int, flags: str = "RA", **fields: Any) -> None:
        """A side's own RST, seen at both points."""
        self.send(side, flags, **{"ip_id": self.ids[side], **fields})
        self.wait()
