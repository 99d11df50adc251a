"""A middlebox that forges resets as the one of the incident did. For the lab only.

It watches the packets that its namespace forwards, and when a request carries a keyword it resets
both ends in the other end's name: with its own TTL, but with the IP ID and the window copied from
the request. A firewall rule beside it drops the request itself. Run as a program inside a lab
namespace: ``forger.py KEYWORD``.
"""

from __future__ import annotations

import socket
import struct
import sys

from rsttrace.tcp import checksum

ETH_P_IP = 0x0800
PACKET_HOST = 0
TTL = 64
SYN_FIN_RST = 0x07


def rst(source: bytes, target: bytes, ports: bytes, seq: int, ip_id: int, window: int) -> bytes:
    """A forged RST: an IPv4 packet (the kernel fills in the IP checksum)."""
    tcp = ports + struct.pack(">IIBBHHH", seq, 0, 5 << 4, 0x04, window, 0, 0)
    pseudo = source + target + struct.pack(">BBH", 0, socket.IPPROTO_TCP, len(tcp))
    tcp = tcp[:16] + struct.pack(">H", checksum(pseudo + tcp)) + tcp[18:]
    header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(tcp), ip_id, 0x4000, TTL, 6, 0)
    return header + source + target + tcp


def resets(packet: bytes, keyword: bytes) -> list[tuple[bytes, bytes]]:
    """What to send for a forwarded packet: (target address, RST) to each end, or nothing."""
    if len(packet) < 40 or packet[0] >> 4 != 4 or packet[9] != socket.IPPROTO_TCP:
        return []
    start = (packet[0] & 15) * 4
    length, ip_id = struct.unpack_from(">HH", packet, 2)
    seq, ack, offset, flags, window = struct.unpack_from(">IIBBH", packet, start + 4)
    payload = packet[start + (offset >> 4) * 4 : length]
    if flags & SYN_FIN_RST or keyword not in payload:
        return []
    source, target = packet[12:16], packet[16:20]
    ports = packet[start : start + 4]
    back = ports[2:4] + ports[0:2]
    return [
        (source, rst(target, source, back, ack, ip_id, window)),
        (target, rst(source, target, ports, seq, ip_id, window)),
    ]


def main() -> None:
    """Watch and forge until killed."""
    keyword = sys.argv[1].encode()
    watch = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_IP))
    send = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    print("forging", flush=True)
    while True:
        packet, address = watch.recvfrom(65535)
        if address[2] != PACKET_HOST:
            continue  # what we or our stack send is seen here as well
        for target, forged in resets(packet, keyword):
            send.sendto(forged, (socket.inet_ntoa(target), 0))


if __name__ == "__main__":
    main()
