"""The TCP sockets of a network namespace, as its kernel lists them (sock_diag(7), ``ss``).

Works in the namespace of the calling thread; see `rsttrace.enrich.setns`.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from rsttrace.enrich import reach
from rsttrace.limits import SOCKETS_READ
from rsttrace.model import Endpoint
from rsttrace.tcp import address

_NETLINK_SOCK_DIAG = 4  # include/uapi/linux/netlink.h
_SOCK_DIAG_BY_FAMILY = 20  # include/uapi/linux/sock_diag.h
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_REQUEST_DUMP = 0x301
_SKV6ONLY = 11  # INET_DIAG_SKV6ONLY, include/uapi/linux/inet_diag.h
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_REQUEST = struct.Struct("=BBBxI")  # struct inet_diag_req_v2, before its id
_ID = struct.Struct("!HH16s16s")  # struct inet_diag_sockid, before its interface and cookie
_MESSAGE = struct.Struct("=BBBB36sI8sIIIII")  # struct inet_diag_msg
_RECEIVE = 1 << 16

STATES = (
    "",
    "ESTABLISHED",
    "SYN_SENT",
    "SYN_RECV",
    "FIN_WAIT1",
    "FIN_WAIT2",
    "TIME_WAIT",
    "CLOSE",
    "CLOSE_WAIT",
    "LAST_ACK",
    "LISTEN",
    "CLOSING",
    "SYN_RECV",
)
"""By number, include/net/tcp_states.h; the last is TCP_NEW_SYN_RECV."""

LISTENING = 1 << STATES.index("LISTEN")
CONNECTED = sum(
    1 << STATES.index(name)
    for name in ("ESTABLISHED", "SYN_SENT", "FIN_WAIT1", "FIN_WAIT2", "CLOSE_WAIT", "LAST_ACK")
)
"""States in which a socket still has something to say to its peer (masks of `sockets`)."""


@dataclass(frozen=True)
class InetSocket:
    """One socket. `inode` is its number in sockfs, ``None`` once it has left its file.

    A listener's `local.ip` is ``0.0.0.0`` or ``::`` where it takes any address; `v6only` says that
    it takes IPv6 only; `ifindex` is the device that it is bound to. `family` is the socket's: 6
    where it takes IPv4 as well.
    """

    family: int
    state: str
    local: Endpoint
    remote: Endpoint
    inode: int | None
    uid: int
    v6only: bool
    ifindex: int | None


@dataclass(frozen=True)
class Listing:
    """What was read; `whole` says whether it is all there is."""

    sockets: tuple[InetSocket, ...]
    whole: bool


def sockets(states: int, sport: int = 0, dport: int = 0, most: int = SOCKETS_READ) -> Listing:
    """The TCP sockets in some states, IPv4 and IPv6; with a local or remote port (0: any).

    The kernel walks all of its table for it (inet_diag_dump_icsk()), and tells only those asked
    for.

    Raises:
        OSError: the kernel has no sock_diag, or refuses.
    """
    found: list[InetSocket] = []
    for family in (socket.AF_INET, socket.AF_INET6):
        for one in _dump(family, states, sport, dport):
            if len(found) >= most:
                return Listing(tuple(found), False)
            found.append(one)
    return Listing(tuple(found), True)


def _dump(family: int, states: int, sport: int, dport: int) -> Iterator[InetSocket]:
    with reach.make_socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _NETLINK_SOCK_DIAG) as asking:
        identity = _ID.pack(sport, dport, b"", b"") + bytes(12)
        body = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, states) + identity
        size = _HEADER.size + len(body)
        asking.sendto(_HEADER.pack(size, _SOCK_DIAG_BY_FAMILY, _REQUEST_DUMP, 1, 0) + body, (0, 0))
        while True:
            # netlink_dump() fills the answer while it is read: there is nothing to wait for
            data = asking.recv(_RECEIVE, socket.MSG_DONTWAIT)
            offset = 0
            while offset + _HEADER.size <= len(data):
                length, kind, *_ = _HEADER.unpack_from(data, offset)
                if kind == _NLMSG_ERROR:
                    code = struct.unpack_from("=i", data, offset + _HEADER.size)[0]
                    raise OSError(-code, os.strerror(-code))
                if kind == _NLMSG_DONE or length < _HEADER.size:
                    return
                one = parse(data[offset + _HEADER.size : offset + length])
                if one is not None:
                    yield one
                offset += (length + 3) & ~3


def parse(message: bytes) -> InetSocket | None:
    """One ``struct inet_diag_msg`` with its attributes; ``None``: it is cut short."""
    if len(message) < _MESSAGE.size:
        return None
    family, state, _, _, ends, ifindex, _, _, _, _, uid, inode = _MESSAGE.unpack_from(message)
    sport, dport, source, target = _ID.unpack(ends)
    length = 4 if family == socket.AF_INET else 16
    return InetSocket(
        family=4 if family == socket.AF_INET else 6,
        state=STATES[state] if state < len(STATES) else "",
        local=Endpoint(address(source[:length]), sport),
        remote=Endpoint(address(target[:length]), dport),
        inode=inode or None,
        uid=uid,
        v6only=_flag(message, _SKV6ONLY),
        ifindex=ifindex or None,
    )


def _flag(message: bytes, wanted: int) -> bool:
    """The value of an attribute of one byte behind the message; false where there is none."""
    offset = _MESSAGE.size
    while offset + 5 <= len(message):
        length, kind = struct.unpack_from("=HH", message, offset)
        if length < 4:
            break
        if kind == wanted:
            return bool(message[offset + 4])
        offset += (length + 3) & ~3
    return False
