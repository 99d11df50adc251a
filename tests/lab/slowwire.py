"""A slow cable for the lab: ``slowwire.py LEFT RIGHT SECONDS`` carries each frame for that long.

Kernels without netem have no other. The interfaces at both ends must compute whole checksums.
"""

from __future__ import annotations

import selectors
import socket
import struct
import sys
import time
from collections import deque

ETH_P_ALL, PACKET_OUTGOING = 0x0003, 4
SOL_PACKET, PACKET_ADD_MEMBERSHIP, PACKET_MR_PROMISC = 263, 1, 1  # packet(7)


def main() -> None:
    """Carry frames until killed."""
    left, right, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
    ends = []
    for name in (left, right):
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        sock.bind((name, ETH_P_ALL))
        member = struct.pack("iHH8s", socket.if_nametoindex(name), PACKET_MR_PROMISC, 0, b"")
        sock.setsockopt(SOL_PACKET, PACKET_ADD_MEMBERSHIP, member)
        ends.append(sock)
    other = {ends[0]: ends[1], ends[1]: ends[0]}
    selector = selectors.DefaultSelector()
    for sock in ends:
        selector.register(sock, selectors.EVENT_READ, sock)
    under_way: deque[tuple[float, socket.socket, bytes]] = deque()
    print("carrying", flush=True)
    while True:
        wait = max(0.0, under_way[0][0] - time.monotonic()) if under_way else None
        for key, _ in selector.select(wait):
            sock = key.data
            frame, address = sock.recvfrom(65535)
            if address[2] != PACKET_OUTGOING:
                under_way.append((time.monotonic() + seconds, other[sock], frame))
        while under_way and under_way[0][0] <= time.monotonic():
            _, sock, frame = under_way.popleft()
            sock.send(frame)


if __name__ == "__main__":
    main()
