"""One question to netfilter, and its answer, in the network namespace of the calling thread."""

from __future__ import annotations

import socket
import struct

_NETLINK_NETFILTER = 12  # include/uapi/linux/netlink.h
_REQUEST = 1  # NLM_F_REQUEST
HEADER = struct.Struct("=IHHII")
"""struct nlmsghdr."""

NFGENMSG = struct.Struct("!BBH")
"""struct nfgenmsg, include/uapi/linux/netfilter/nfnetlink.h."""


def ask(message: int, body: bytes) -> bytes:
    """What netfilter answers to a message (subsystem and type); `body` begins with a nfgenmsg.

    Raises:
        OSError: the kernel has no such subsystem, or refuses.
    """
    with socket.socket(
        socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER
    ) as asking:
        asking.sendto(HEADER.pack(HEADER.size + len(body), message, _REQUEST, 1, 0) + body, (0, 0))
        # it is answered within the sending system call (nfnetlink_rcv())
        return asking.recv(1 << 16, socket.MSG_DONTWAIT)
