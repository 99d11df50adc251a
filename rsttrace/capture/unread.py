"""Counts what a capture holds and nobody could read, and says so in sentences.

Only what may hide a TCP segment counts: ARP, spanning tree, plain UDP are no loss.
"""

from __future__ import annotations

from collections import Counter

TOLD = 6
"""So many kinds are named; the rest is summed up."""

ETHERTYPES = {
    0x22F3: "TRILL",
    0x4305: "batman-adv",
    0x88E5: "MACsec",
    0x890D: "802.11 between access points",
    0x894F: "NSH",
    0x9999: "Realtek's switch tag",
    0xDADA: "Marvell's switch tag",
}
"""Names of EtherTypes (IANA's registry) that may be met and are not read."""

IP_PROTOCOLS = {50: "ESP, encrypted", 55: "MOBILE", 94: "IPIP", 108: "IPComp", 115: "L2TPv3"}
"""IP protocols (IANA) that may hold a TCP segment, and are not read."""

NO_TCP = frozenset(
    {
        # what carries no IP: ARP, wake-on-LAN, RARP, AppleTalk, IPX, IS-IS, MAC control, LACP
        *(0x0806, 0x0842, 0x8035, 0x809B, 0x80F3, 0x8137, 0x8138, 0x22F4, 0x8808, 0x8809),
        # PPPoE's discovery, HomePlug, EAPOL, PROFINET, AoE, EtherCAT, WLAN's handover, LLDP
        *(0x8863, 0x887B, 0x88E1, 0x888E, 0x8892, 0x88A2, 0x88A4, 0x88C7, 0x88CC),
        # GOOSE, SV, MRP, MVRP, MMRP, PTP, PRP's supervision, CFM, FCoE, FIP, RoCE, loop tests
        *(0x88B8, 0x88B9, 0x88BA, 0x88E3, 0x88F5, 0x88F6, 0x88F7, 0x88FB, 0x8902, 0x8906),
        *(0x8914, 0x8915, 0x9000),
    }
)


class Unread:
    """What could not be read, by kind, in packets. A kind is a phrase that follows the count."""

    def __init__(self) -> None:
        self._kinds: Counter[str] = Counter()

    def __bool__(self) -> bool:
        return bool(self._kinds)

    def add(self, kind: str) -> None:
        """One more packet of a kind."""
        self._kinds[kind] += 1

    def ethertype(self, number: int) -> None:
        """One more packet of an EtherType, if that may hold IP.

        Numbers below 0x0600 are lengths (IEEE 802.3 §3.2.6): LLC, of which IP is read.
        """
        if number >= 0x0600 and number not in NO_TCP:
            self.add(f"of EtherType 0x{number:04x}{_named(ETHERTYPES.get(number))}")

    def ip_protocol(self, number: int) -> None:
        """One more packet of an IP protocol, if that may hold a TCP segment."""
        if number in IP_PROTOCOLS:
            self.add(f"of IP protocol {number}{_named(IP_PROTOCOLS[number])}")

    def count(self, kind: str) -> int:
        """Packets of a kind."""
        return self._kinds[kind]

    def told(self) -> list[str]:
        """In sentences, the most frequent kind first."""
        kinds = sorted(self._kinds.items(), key=lambda item: (-item[1], item[0]))
        lines = [_sentence(count, kind) for kind, count in kinds[:TOLD]]
        rest = kinds[TOLD:]
        if rest:
            others = "1 other kind" if len(rest) == 1 else f"{len(rest)} other kinds"
            lines.append(_sentence(sum(count for _, count in rest), f"of {others}"))
        return lines


def _named(name: str | None) -> str:
    return "" if name is None else f" ({name})"


def _sentence(count: int, kind: str) -> str:
    return (
        f"1 packet {kind} was not read" if count == 1 else f"{count:,} packets {kind} were not read"
    )
