"""A bridge in user space that turns an answer into a reset in place.

Run as ``python -m tests.accuracy.tap LEFT RIGHT``. It hands every frame from one interface to the
other; of TCP data that starts with ``SWAP HOW`` and comes from the right, it makes a reset that
keeps the packet's IP ID, TTL, sequence number and window:

bare: ``R``, window 0, no options. window: ``R`` with the window left in. payload: ``RA`` with the
data left in. checksum: as window, with a wrong checksum. perfect: ``RA`` with all options, no data.
"""

from __future__ import annotations

import selectors
import socket
import struct
import sys
from typing import Any

from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

PACKET_OUTGOING = 4
WORD = b"SWAP "


def swap(frame: Any) -> Any:
    """The frame with its TCP segment turned into a reset."""
    tcp = frame[TCP]
    payload = bytes(tcp.payload)
    how = payload.split()[1].decode()
    tcp.remove_payload()
    tcp.flags = "R" if how in ("bare", "window", "checksum") else "RA"
    if tcp.flags == "R":
        tcp.ack = 0
    if how == "bare":
        tcp.window = 0
    if how in ("bare", "window", "checksum"):
        tcp.options = []
        del tcp.dataofs
    if how == "payload":
        tcp.add_payload(Raw(payload))
    if how != "checksum":
        del tcp.chksum
    network = frame[IP] if IP in frame else frame[IPv6]
    if IP in frame:
        del network.len, network.chksum
    else:
        del network.plen
    if how == "checksum":
        tcp.chksum = tcp.chksum ^ 0x5555
    return frame


def handled(raw: bytes) -> bytes:
    """A frame from the right, as it goes on to the left."""
    frame = Ether(raw)
    if TCP in frame and Raw in frame and bytes(frame[Raw].load).startswith(WORD):
        return bytes(swap(frame))
    return raw


def main() -> None:
    """Bridge until killed."""
    left, right = (
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003)) for _ in range(2)
    )
    left.bind((sys.argv[1], 0x0003))
    right.bind((sys.argv[2], 0x0003))
    for sock, name in ((left, sys.argv[1]), (right, sys.argv[2])):
        index = socket.if_nametoindex(name)
        # PACKET_ADD_MEMBERSHIP, PACKET_MR_PROMISC (packet(7)): frames are for others.
        sock.setsockopt(263, 1, struct.pack("iHH8s", index, 1, 0, b""))
    selector = selectors.DefaultSelector()
    for sock in (left, right):
        selector.register(sock, selectors.EVENT_READ, sock)
    print("bridging", flush=True)
    while True:
        for key, _ in selector.select():
            sock = key.data
            raw, address = sock.recvfrom(65535)
            if address[2] == PACKET_OUTGOING:
                continue
            if sock is left:
                right.send(raw)
            else:
                left.send(handled(raw))


if __name__ == "__main__":
    main()
