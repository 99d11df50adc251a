"""A box on the path that forges resets in the ways that no program at hand does.

Run inside a router's namespace: ``python -m tests.accuracy.forge BOX``. It watches what the router
forwards; a payload ``FORGE BOX SHAPE VICTIMS MODE`` of a client makes it send resets of that shape
to the victims (``client``, ``server`` or ``both``), in the other end's name. MODE is ``drop`` where
a firewall rule beside it drops the request, so that the server never sees it, else ``pass``.

The shapes are those of the table "what forged resets look like" in docs/evidence.md's sources:
each function's docstring names who sends such.
"""

from __future__ import annotations

import random
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.packet import Raw

ETH_P_IP, ETH_P_IPV6 = 0x0800, 0x86DD
PACKET_HOST = 0
WORD = b"FORGE "
Way = tuple[str, bytes]  # interface and MAC by which a host's packets come


@dataclass
class View:
    """What a box knows when it forges: a victim's last packet and its peer's last (or None).

    `seq` is what the victim expects next, `ack` what the peer would acknowledge.
    """

    ours: Any
    peers: Any
    seq: int
    ack: int

    @property
    def window(self) -> int:
        """The victim's last window field."""
        return int(self.ours[TCP].window)

    @property
    def ours_id(self) -> int:
        """The victim's last IP ID; over IPv6, which has none, 0."""
        return int(self.ours.id) if IP in self.ours else 0

    def copied_ttl(self) -> int:
        """A TTL that arrives as the peer's packets do: they have yet to lose one here."""
        if self.peers is None:
            return 64
        return int(self.peers.ttl if IP in self.peers else self.peers.hlim) - 1

    def rst(
        self,
        flags: str = "R",
        *,
        ttl: int = 64,
        ip_id: int = 0,
        df: bool = True,
        window: int = 0,
        seq: int | None = None,
        ack: int | None = None,
        payload: bytes = b"",
        **tcp: Any,
    ) -> Any:
        """A RST to the victim from its peer; ack is 0 where the flags have no A."""
        if IP in self.ours:
            network = IP(
                src=self.ours.dst, dst=self.ours.src, ttl=ttl, id=ip_id, flags="DF" if df else 0
            )
        else:
            network = IPv6(src=self.ours.dst, dst=self.ours.src, hlim=ttl)
        if ack is None:
            ack = self.ack if "A" in flags else 0
        segment = TCP(
            sport=self.ours[TCP].dport,
            dport=self.ours[TCP].sport,
            flags=flags,
            seq=(self.seq if seq is None else seq) & 0xFFFFFFFF,
            ack=ack & 0xFFFFFFFF,
            window=window,
            **tcp,
        )
        return network / segment / payload if payload else network / segment


def some_id() -> int:
    """A random IP ID that means nothing."""
    return random.randrange(0x1000, 0xF000)


def mirror(view: View) -> list[Any]:
    """The firewall of the incident: the victim's own IP ID and window."""
    return [view.rst(ip_id=view.ours_id, window=view.window)]


def mirror_next(view: View) -> list[Any]:
    """Its sister, which counts on from the victim's IP ID."""
    return [view.rst("RA", ip_id=view.ours_id + 1 & 0xFFFF)]


def window_mirror(view: View) -> list[Any]:
    """Only the window is the victim's; ID 0 and DF as a host without a socket."""
    return [view.rst("RA", window=view.window)]


def snort(view: View) -> list[Any]:
    """Snort 3: the peer's TTL, learnt; random ID, no DF, window 0."""
    return [view.rst("RA", ttl=view.copied_ttl(), ip_id=some_id(), df=False)]


def copier(view: View) -> list[Any]:
    """All that a box can copy: the peer's TTL, and the shape of a Linux host without a socket."""
    return [view.rst(ttl=view.copied_ttl())]


def suricata(view: View) -> list[Any]:
    """Suricata's reject: the trigger's window, random ID, no DF."""
    return [view.rst("RA", ip_id=some_id(), df=False, window=view.window)]


def suricata_zero(view: View) -> list[Any]:
    """The same with IP ID 0 and no DF."""
    return [view.rst("RA", df=False, window=view.window)]


def gfw(view: View) -> list[Any]:
    """GFW II: three RST+ACK, each with another TTL, ID and window, no DF."""
    return [
        view.rst(
            "RA",
            ttl=random.randrange(70, 120),
            ip_id=some_id(),
            df=False,
            window=random.randrange(100, 5000),
        )
        for _ in range(3)
    ]


def sandvine(view: View) -> list[Any]:
    """Sandvine: ID 0x3412, window 32120, no DF."""
    return [view.rst(ip_id=0x3412, df=False, window=32120)]


def dpvs(view: View) -> list[Any]:
    """DPVS, when a connection expires: ID 0, DF, window 0, ack 0, to both ends."""
    return [view.rst()]


def slb(view: View) -> list[Any]:
    """The SLB of the incident report: it arrives with TTL 102 or near, ID 31415."""
    return [view.rst(ttl=104, ip_id=31415)]


def random_id(view: View) -> list[Any]:
    """tcpkill's way with one RST: random ID, no DF, window 0."""
    return [view.rst(ip_id=some_id(), df=False)]


def moving(view: View) -> list[Any]:
    """Several RSTs up the window, as injectors do that race with the data."""
    step = max(view.window, 1000)
    return [
        view.rst(seq=view.seq + number * step, ip_id=some_id(), df=False) for number in (0, 1, 2)
    ]


def bad_checksum(view: View) -> list[Any]:
    """Evasion tools and broken boxes: the TCP checksum is wrong, so that only others believe it."""
    return [view.rst(ip_id=some_id(), df=False, chksum=0x0BAD), view.rst(ip_id=some_id(), df=False)]


def payload(view: View) -> list[Any]:
    """A reset that explains itself (RFC 9293 §3.10.7.4 allows it; no common stack does it)."""
    return [view.rst("RA", payload=b"blocked by policy")]


def behind(view: View) -> list[Any]:
    """A slow box: its RST is behind data that the victim has received already."""
    return [view.rst(seq=view.seq - 20, ip_id=some_id(), df=False), view.rst()]


def reserved(view: View) -> list[Any]:
    """Reserved header bits are set (RFC 9293 §3.1: they must not be)."""
    return [view.rst(reserved=0b100)]


SHAPES: dict[str, Callable[[View], list[Any]]] = {
    shape.__name__: shape
    for shape in (
        mirror,
        mirror_next,
        window_mirror,
        snort,
        copier,
        suricata,
        suricata_zero,
        gfw,
        sandvine,
        dpvs,
        slb,
        random_id,
        moving,
        bad_checksum,
        payload,
        behind,
        reserved,
    )
}


def data(packet: Any) -> bytes:
    """A packet's TCP payload (link-layer padding is not part of it)."""
    return bytes(packet[Raw].load) if Raw in packet else b""


def forge(trigger: Any, back: Any, words: list[str]) -> list[tuple[Any, Any]]:
    """What to send for a trigger: (packet to be answered, RST) pairs. `back`: the server's last."""
    shape, victims, mode = words
    length = len(data(trigger))
    tcp = trigger[TCP]
    made = []
    if victims in ("client", "both"):
        view = View(trigger, back, tcp.ack, tcp.seq + length)
        made += [(trigger, rst) for rst in SHAPES[shape](view)]
    if victims in ("server", "both"):
        view = View(back, trigger, tcp.seq + (0 if mode == "drop" else length), tcp.ack)
        made += [(back, rst) for rst in SHAPES[shape](view)]
    return made


def flow(packet: Any) -> tuple[str, str, int, int]:
    """A packet's addresses and ports."""
    return packet.src, packet.dst, packet[TCP].sport, packet[TCP].dport


def main() -> None:
    """Watch and forge until killed."""
    box = sys.argv[1].encode()
    watch = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0003))
    ways: dict[tuple[str, str, int, int], tuple[Any, Way]] = {}
    print("forging", flush=True)
    while True:
        raw, (interface, protocol, kind, _, mac) = watch.recvfrom(65535)
        if kind != PACKET_HOST or protocol not in (ETH_P_IP, ETH_P_IPV6):
            continue
        packet = IP(raw) if protocol == ETH_P_IP else IPv6(raw)
        if TCP not in packet or packet[TCP].flags.R:
            continue
        key = flow(packet)
        ways[key] = (packet, (interface, mac))
        payload_bytes = data(packet)
        if not payload_bytes.startswith(WORD + box + b" "):
            continue
        reverse = (key[1], key[0], key[3], key[2])
        if reverse not in ways:
            print(f"no way back for {key}", flush=True)
            continue
        for answered, rst in forge(packet, ways[reverse][0], payload_bytes.decode().split()[2:]):
            way, hardware = ways[flow(answered)][1]
            # A packet socket: the kernel must not fill in an IP ID (raw(7): it does where it is 0).
            watch.sendto(bytes(rst), (way, protocol, 0, 0, hardware))


if __name__ == "__main__":
    main()
