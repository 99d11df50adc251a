"""Boxes on the path that forge resets in the ways that no program at hand does.

``python -m tests.accuracy.forge BOX=NETNS …``: a box in each namespace (a path under /run/netns) of
a router. It watches what the router forwards; a payload ``FORGE BOX SHAPE VICTIMS MODE`` of a
client makes it send resets of that shape to the victims (``client``, ``server`` or ``both``), in
the other end's name. MODE is ``drop`` where a firewall rule beside it drops the request, so that
the server never sees it, else ``pass``.

The shapes are those of the table "what forged resets look like" in docs/evidence.md's sources:
each function's docstring names who sends such.
"""

from __future__ import annotations

import os
import random
import selectors
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pyroute2.netns import setns
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.packet import Raw

ETH_P_IP, ETH_P_IPV6 = 0x0800, 0x86DD
PACKET_HOST = 0
RST = 0x04
WORD = b"FORGE "
Way = tuple[str, bytes]  # interface and MAC by which a host's packets come


@dataclass
class View:
    """What a box knows when it forges: a victim's last packet and its peer's last (or None).

    `seq` is what the victim expects next, `ack` what the peer would acknowledge. `age_ms`: how long
    ago the peer's last packet was.
    """

    ours: Any
    peers: Any
    seq: int
    ack: int
    age_ms: int = 0

    @property
    def window(self) -> int:
        """The victim's last window field."""
        return int(self.ours[TCP].window)

    @property
    def ours_id(self) -> int:
        """The victim's last IP ID; over IPv6, which has none, 0."""
        return int(self.ours.id) if IP in self.ours else 0

    @property
    def peers_id(self) -> int:
        """The peer's last IP ID; over IPv6, or if nothing was seen, 0."""
        return int(self.peers.id) if self.peers is not None and IP in self.peers else 0

    def stamps(self) -> tuple[int, int]:
        """What the peer would put into a timestamp option next: TSval, TSecr (RFC 7323 §3.2)."""
        theirs, ours = (
            dict(o for o in p[TCP].options if o[0] == "Timestamp").get("Timestamp", (0, 0))
            for p in (self.peers, self.ours)
        )
        return theirs[0] + self.age_ms, ours[0]

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
        tos: int = 0,
        payload: bytes = b"",
        **tcp: Any,
    ) -> Any:
        """A RST to the victim from its peer; ack is 0 where the flags have no A."""
        if IP in self.ours:
            network = IP(
                src=self.ours.dst,
                dst=self.ours.src,
                ttl=ttl,
                id=ip_id,
                flags="DF" if df else 0,
                tos=tos,
            )
        else:
            network = IPv6(src=self.ours.dst, dst=self.ours.src, hlim=ttl, tc=tos)
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


def pf(view: View) -> list[Any]:
    """OpenBSD's and FreeBSD's pf: TOS 0x10 (pf_send_tcp: IPTOS_LOWDELAY), else as no socket."""
    return [view.rst("RA", tos=0x10)]


def counting(view: View) -> list[Any]:
    """Boxes whose TTL counts from reset to reset."""
    return [view.rst(ttl=64 - number, ip_id=some_id(), df=False) for number in range(3)]


def turned(view: View) -> list[Any]:
    """Turns the victim's packet around: its ID, window, options and TTL, two bits changed."""
    ours = view.ours
    return [
        view.rst(
            "RA",
            ttl=int(ours.ttl if IP in ours else ours.hlim),
            ip_id=view.ours_id,
            window=view.window,
            options=ours[TCP].options,
        )
    ]


def gateway_128(view: View) -> list[Any]:
    """A gateway whose stack begins at 128."""
    return [view.rst(ttl=128)]


def gateway_255(view: View) -> list[Any]:
    """A gateway whose stack begins at 255."""
    return [view.rst(ttl=255)]


def _live(view: View, tsval: int, tsecr: int) -> list[Any]:
    """As the peer's live socket aborts; only the timestamps are to be named."""
    return [
        view.rst(
            "RA",
            ttl=view.copied_ttl(),
            ip_id=view.peers_id + 1 & 0xFFFF,
            window=0 if view.peers is None else int(view.peers[TCP].window),
            options=[
                ("NOP", None),
                ("NOP", None),
                ("Timestamp", (tsval & 0xFFFFFFFF, tsecr & 0xFFFFFFFF)),
            ],
        )
    ]


def live(view: View) -> list[Any]:
    """All that a box can copy of a live socket: TTL, ID, window, timestamps that go on."""
    return _live(view, *view.stamps())


def stamps_foreign(view: View) -> list[Any]:
    """The timestamps of some other host."""
    return _live(view, 1234, 99)


def stamps_val(view: View) -> list[Any]:
    """A TSval that is not of the peer's clock; the TSecr is ours."""
    return _live(view, random.randrange(1, 1 << 31), view.stamps()[1])


def stamps_past(view: View) -> list[Any]:
    """A TSval of the peer's clock ten seconds ago."""
    return _live(view, view.stamps()[0] - 10_000, view.stamps()[1])


def stamps_secr(view: View) -> list[Any]:
    """A TSecr that we never sent, ten minutes ahead of our clock; the TSval is the peer's."""
    return _live(view, view.stamps()[0], view.stamps()[1] + 600_000)


def unstamped(view: View) -> list[Any]:
    """A live socket's reset but for the agreed timestamps."""
    packet = live(view)[0]
    packet[TCP].options = []
    return [packet]


def nearer(view: View) -> list[Any]:
    """The shape of a host without a socket, one hop nearer than the peer."""
    return [view.rst(ttl=view.copied_ttl() + 1)]


def farther(view: View) -> list[Any]:
    """The same, one hop farther than the peer."""
    return [view.rst(ttl=view.copied_ttl() - 1)]


def at_the_peers_distance(shape: Callable[[View], list[Any]]) -> Callable[[View], list[Any]]:
    """A shape whose maker copies the peer's TTL."""

    def copied(view: View) -> list[Any]:
        packets = shape(view)
        for packet in packets:
            if IP in packet:
                packet.ttl = view.copied_ttl()
            else:
                packet.hlim = view.copied_ttl()
        return packets

    return copied


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
"""Those that are played at many places of the path."""

MORE_SHAPES: dict[str, Callable[[View], list[Any]]] = {
    shape.__name__: shape
    for shape in (
        pf,
        counting,
        turned,
        gateway_128,
        gateway_255,
        live,
        stamps_foreign,
        stamps_val,
        stamps_past,
        stamps_secr,
        unstamped,
        nearer,
        farther,
    )
}
COPIES = ("mirror", "window_mirror", "suricata", "sandvine", "random_id", "payload", "pf")
ALL_SHAPES = {
    **SHAPES,
    **MORE_SHAPES,
    **{f"{name}_ttl": at_the_peers_distance({**SHAPES, **MORE_SHAPES}[name]) for name in COPIES},
}


def data(packet: Any) -> bytes:
    """A packet's TCP payload (link-layer padding is not part of it)."""
    return bytes(packet[Raw].load) if Raw in packet else b""


def forge(trigger: Any, back: Any, age_ms: int, words: list[str]) -> list[tuple[Any, Any]]:
    """What to send for a trigger: (packet to be answered, RST) pairs.

    `back`: the server's last packet, and how old it is.
    """
    shape, victims, mode = words
    length = len(data(trigger))
    tcp = trigger[TCP]
    made = []
    if victims in ("client", "both"):
        view = View(trigger, back, tcp.ack, tcp.seq + length, age_ms)
        made += [(trigger, rst) for rst in ALL_SHAPES[shape](view)]
    if victims in ("server", "both"):
        view = View(back, trigger, tcp.seq + (0 if mode == "drop" else length), tcp.ack)
        made += [(back, rst) for rst in ALL_SHAPES[shape](view)]
    return made


Key = tuple[bytes, bytes, bytes, bytes]  # addresses and ports, as on the wire


def parse(raw: bytes) -> tuple[Key, int, bytes] | None:
    """(flow, flags, payload) of a TCP packet, without scapy: there are many of them."""
    if raw[0] >> 4 == 4:
        start, length, protocol = (raw[0] & 15) * 4, int.from_bytes(raw[2:4], "big"), raw[9]
        source, target = raw[12:16], raw[16:20]
    else:
        start, length, protocol = 40, 40 + int.from_bytes(raw[4:6], "big"), raw[6]
        source, target = raw[8:24], raw[24:40]
    if protocol != socket.IPPROTO_TCP or len(raw) < start + 20:
        return None
    key = (source, target, raw[start : start + 2], raw[start + 2 : start + 4])
    return key, raw[start + 13], raw[start + (raw[start + 12] >> 4) * 4 : length]


def packet_of(raw: bytes) -> Any:
    """A packet for scapy."""
    return IP(raw) if raw[0] >> 4 == 4 else IPv6(raw)


class Box:
    """What forges in one namespace."""

    def __init__(self, name: str, netns: str) -> None:
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        setns(netns, flags=0)
        try:
            protocol = socket.htons(0x0003)
            self.wire = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, protocol)
        finally:
            setns(home)
            os.close(home)
        self.wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self._word = WORD + name.encode() + b" "
        self._ways: dict[Key, tuple[bytes, Way, float]] = {}

    def read(self) -> None:
        """Take in a packet, and forge if it says so."""
        raw, (interface, protocol, kind, _, mac) = self.wire.recvfrom(65535)
        if kind != PACKET_HOST or protocol not in (ETH_P_IP, ETH_P_IPV6):
            return
        found = parse(raw)
        if found is None or found[1] & RST:
            return
        key, _, payload_bytes = found
        self._ways[key] = (raw, (interface, mac), time.monotonic())
        if not payload_bytes.startswith(self._word):
            return
        reverse = (key[1], key[0], key[3], key[2])
        if reverse not in self._ways:
            print(f"no way back for {key}", flush=True)
            return
        words = payload_bytes.decode().split()[2:]
        answer, _, then = self._ways[reverse]
        trigger, back = packet_of(raw), packet_of(answer)
        age_ms = round((time.monotonic() - then) * 1000)
        for answered, rst in forge(trigger, back, age_ms, words):
            way, hardware = self._ways[key if answered is trigger else reverse][1]
            # A packet socket: the kernel must not fill in an IP ID (raw(7): it does where it is 0).
            self.wire.sendto(bytes(rst), (way, protocol, 0, 0, hardware))


def main() -> None:
    """Watch and forge until killed."""
    boxes = {}
    for word in sys.argv[1:]:
        box = Box(*word.split("="))
        boxes[box.wire.fileno()] = box
    selector = selectors.DefaultSelector()
    for wire in boxes:
        selector.register(wire, selectors.EVENT_READ)
    print("forging", flush=True)
    while True:
        for key, _ in selector.select():
            boxes[key.fd].read()


if __name__ == "__main__":
    main()
