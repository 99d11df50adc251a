"""A middlebox for the lab tests, on a router: resets connections by keyword, IPv4 and IPv6.

Run as a program inside a lab namespace: ``middlebox.py MODE=KEYWORD…``. It sees what the router is
given to forward; a firewall rule beside it drops the packet itself. Modes:

* ``both``: resets both ends in each other's name, with its own TTL and the packet's IP ID;
* ``copy``: the same, with the TTL that the packet came in with;
* ``swap``: sends a RST in the packet's place, with its numbers, its IP ID and its TTL.
"""

from __future__ import annotations

import socket
import sys
from typing import Any

from scapy.layers import inet, inet6

ETH_P_ALL = 3
PACKET_HOST = 0
TTL = 64
SYN_FIN_RST = 0x07

FAMILIES = {4: (inet.IP, socket.AF_INET), 6: (inet6.IPv6, socket.AF_INET6)}


def parsed(data: bytes, keyword: bytes) -> Any:
    """The packet, if it is one to act on; else None."""
    if keyword not in data or data[0] >> 4 not in FAMILIES:
        return None
    packet = FAMILIES[data[0] >> 4][0](data)
    if inet.TCP not in packet or int(packet[inet.TCP].flags) & SYN_FIN_RST:
        return None
    return packet if keyword in bytes(packet[inet.TCP].payload) else None


def answers(packet: Any, mode: str) -> list[Any]:
    """The RSTs to send for a packet."""
    tcp = packet[inet.TCP]
    v6 = packet.version == 6
    ttl = packet.hlim if v6 else packet.ttl
    ttl = {"both": TTL, "copy": ttl, "swap": ttl - 1}[mode]

    def header(src: str, dst: str) -> Any:
        if v6:
            return inet6.IPv6(src=src, dst=dst, hlim=ttl)
        return inet.IP(src=src, dst=dst, ttl=ttl, id=packet.id, flags="DF")

    onward = header(packet.src, packet.dst) / inet.TCP(
        sport=tcp.sport,
        dport=tcp.dport,
        seq=tcp.seq,
        ack=tcp.ack if mode == "swap" else 0,
        flags="RA" if mode == "swap" else "R",
        window=tcp.window,
    )
    if mode == "swap":
        return [onward]
    back = header(packet.dst, packet.src) / inet.TCP(
        sport=tcp.dport, dport=tcp.sport, seq=tcp.ack, flags="R", window=tcp.window
    )
    return [back, onward]


def main() -> None:
    """Watch and forge until killed."""
    rules = [rule.partition("=")[::2] for rule in sys.argv[1:]]
    watch = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
    senders = {
        version: socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
        for version, (_, family) in FAMILIES.items()
    }
    print("forging", flush=True)
    while True:
        data, address = watch.recvfrom(65535)
        if address[2] != PACKET_HOST:
            continue
        for mode, keyword in rules:
            packet = parsed(data, keyword.encode())
            for made in answers(packet, mode) if packet is not None else ():
                senders[made.version].sendto(bytes(made), (made.dst, 0))


if __name__ == "__main__":
    main()
