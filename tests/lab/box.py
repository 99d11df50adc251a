"""A box on the path that resets whoever says its word, run in a lab router's namespace.

``box.py NUMBER``: to ``FIXED-NUMBER`` it answers with a RST of TTL 64, to ``COPY-NUMBER`` with one
of the TTL that the packet had when it came by. IPv4 and IPv6; the packet itself goes on its way.
"""

from __future__ import annotations

import socket
import sys

from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6

ETH_P_ALL, ETH_P_IP, ETH_P_IPV6 = 0x0003, 0x0800, 0x86DD


def main() -> None:
    fixed, copied = (f"{word}-{sys.argv[1]}".encode() for word in ("FIXED", "COPY"))
    watch = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
    out4 = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    out6 = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW)
    print("watching", flush=True)
    while True:
        data, (_, protocol, kind, *_) = watch.recvfrom(65535)
        if kind != socket.PACKET_HOST or (fixed not in data and copied not in data):
            continue
        packet = IP(data) if protocol == ETH_P_IP else IPv6(data)
        if protocol not in (ETH_P_IP, ETH_P_IPV6) or TCP not in packet:
            continue
        tcp = packet[TCP]
        rst = TCP(sport=tcp.dport, dport=tcp.sport, seq=tcp.ack, flags="R", window=tcp.window)
        if protocol == ETH_P_IP:
            ttl = packet.ttl if copied in data else 64
            forged = IP(src=packet.dst, dst=packet.src, ttl=ttl, id=packet.id, flags="DF") / rst
            out4.sendto(bytes(forged), (packet.src, 0))
        else:
            ttl = packet.hlim if copied in data else 64
            forged = IPv6(src=packet.dst, dst=packet.src, hlim=ttl) / rst
            out6.sendto(bytes(forged), (packet.src, 0))


if __name__ == "__main__":
    main()
