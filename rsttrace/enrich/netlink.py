"""One rtnetlink(7) socket: requests and replies, and what the kernel tells unasked.

pyroute2 provides the messages. Its ``IPRoute(netns=...)`` is not used: it forks a child to open the
socket and keeps an asyncio loop with three more files for each; a thread of a millisecond's life
does the same here.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from contextlib import suppress
from typing import Any, Callable

from rsttrace.enrich import lean, reach
from rsttrace.enrich.setns import call_in

# include/uapi/linux/rtnetlink.h
NEWLINK, DELLINK, GETLINK = 16, 17, 18
NEWROUTE, DELROUTE, GETROUTE = 24, 25, 26
NEWNEIGH, DELNEIGH, GETNEIGH = 28, 29, 30
ROUTING = frozenset({NEWROUTE, DELROUTE, 32, 33, 104, 105})
"""Messages about routes, rules and next hop objects."""

AF_BRIDGE = 7
"""The family of a bridge's own messages: its ports, its forwarding table."""

# include/uapi/linux/netlink.h, if_link.h, neighbour.h
_NLM_F_REQUEST, _NLM_F_DUMP_INTR, _NLM_F_DUMP = 0x1, 0x10, 0x300
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_RTEXT_FILTER_SKIP_STATS = 8
_NDA_DST, _NDA_LLADDR = 1, 2
_NDMSG = 28  # struct nlmsghdr and struct ndmsg, behind which the attributes begin
_SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1
# LINK, NEIGH, IPV4_ROUTE, IPV4_RULE, IPV6_ROUTE, IPV6_RULE as RTMGRP_* bits
_NEIGH_GROUP = 0x4
_GROUPS = 0x1 | _NEIGH_GROUP | 0x40 | 0x80 | 0x400 | 0x40000
_RTNLGRP_NEXTHOP = 32
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_RECEIVE = 1 << 16  # netlink_dump() fills 32 KiB at most
_BUFFER = 1 << 20
_MAX_DRAIN = 4096


class Netlink:
    """Asks one namespace's kernel, and hears of what changes in it.

    `take` gets the kind and the bytes of each message that is not the reply to an `ask`.

    Attributes:
        overrun: messages were lost (ENOBUFS, netlink(7)): set here, cleared by whoever dumps anew.
    """

    def __init__(
        self,
        sock: socket.socket,
        take: Callable[[int, bytes], None],
        *,
        hears_neighbors: bool = True,
    ) -> None:
        """Takes over the socket, of NETLINK_ROUTE. Raises OSError when the kernel refuses it.

        Without `hears_neighbors` nothing is told of neighbours, nor of bridges' forwarding tables.
        """
        lean.prepare()
        from pyroute2.netlink.exceptions import NetlinkDecodeError
        from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
        from pyroute2.netlink.rtnl.ndmsg import ndmsg
        from pyroute2.netlink.rtnl.rtmsg import rtmsg

        self._messages = {
            NEWLINK: ifinfmsg,
            DELLINK: ifinfmsg,
            NEWNEIGH: ndmsg,
            NEWROUTE: rtmsg,
        }
        self._decode_errors: tuple[type[Exception], ...] = (
            NetlinkDecodeError,
            struct.error,
            ValueError,
            LookupError,
        )
        self._ifinfmsg, self._ndmsg, self._rtmsg = ifinfmsg, ndmsg, rtmsg
        self._socket = sock
        self._take = take
        self._sequence = 0
        self.overrun = False
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
            sock.bind((0, _GROUPS if hears_neighbors else _GROUPS & ~_NEIGH_GROUP))
            with suppress(OSError):  # kernels before 5.3 have no next hop objects
                sock.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _RTNLGRP_NEXTHOP)
            self._port = sock.getsockname()[0]
        except BaseException:
            sock.close()
            raise

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def drain(self) -> None:
        """Hand over the messages that wait, without blocking. Raises OSError: it is unusable."""
        for _ in range(_MAX_DRAIN):
            data = self._receive()
            if data is None:
                return
            for kind, _, _, message in self._split(data):
                self._take(kind, message)

    def dump_links(self) -> bool:
        """Have all interfaces told; whether they are whole. Raises OSError."""
        request = self._ifinfmsg()
        request["attrs"] = [("IFLA_EXT_MASK", _RTEXT_FILTER_SKIP_STATS)]
        return self._query(request, GETLINK, _NLM_F_DUMP)[1]

    def dump_neighbors(self) -> bool:
        """Have the neighbour table told; whether it is whole. Raises OSError."""
        return self._query(self._ndmsg(), GETNEIGH, _NLM_F_DUMP)[1]

    def ask_neighbor(self, ifindex: int, ip: str) -> bytes | None:
        """One entry of the neighbour table (a message for `neighbor`), as `ask_route`: no dump.

        neigh_get(), Linux 5.0 (82cbb5c631a0).

        Raises:
            OSError: ENOENT: there is none.
        """
        request = self._ndmsg()
        request["family"] = socket.AF_INET6 if ":" in ip else socket.AF_INET
        request["ifindex"] = ifindex
        request["attrs"] = [("NDA_DST", ip)]
        found = self._query(request, GETNEIGH, 0)[0]
        return None if found is None else bytes(found.data)

    def ask_route(self, peer: str, packed: bytes, oif: int | None, flags: int = 0) -> Any:
        """The route to an address (a decoded message), ``None``: the reply was lost.

        Raises:
            OSError: the kernel's own code: no route, prohibited and so on.
        """
        request = self._rtmsg()
        request["family"] = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
        request["dst_len"] = len(packed) * 8
        request["flags"] = flags
        request["attrs"] = [("RTA_DST", peer)] + ([("RTA_OIF", oif)] if oif else [])
        return self._query(request, GETROUTE, 0)[0]

    def ask_forwarding(self, bridge: int, mac: str, vlan: int) -> Any:
        """One entry of a bridge's forwarding table, as `ask_route`: no dump.

        rtnl_fdb_get, Linux 5.0. `vlan` 0: learnt without one.

        Raises:
            OSError: ENOENT: not learnt.
        """
        request = self._ndmsg()
        request["family"] = AF_BRIDGE
        request["attrs"] = [("NDA_LLADDR", mac), ("NDA_MASTER", bridge)]
        if vlan:
            request["attrs"].append(("NDA_VLAN", vlan))
        return self._query(request, GETNEIGH, 0)[0]

    def _query(self, request: Any, kind: int, flags: int) -> tuple[Any, bool]:
        """Send a request; its reply (of a dump: ``None``, it is taken in), and if it is whole.

        rtnetlink answers within the sending system call (netlink_rcv_skb), or while the answer is
        read (netlink_dump): there is nothing to wait for. Raises OSError with the kernel's code.
        """
        self._sequence = self._sequence % 0x7FFFFFFF + 1
        request["header"]["type"] = kind
        request["header"]["flags"] = _NLM_F_REQUEST | flags
        request["header"]["sequence_number"] = self._sequence
        request.encode()
        self._socket.sendto(bytes(request.data), (0, 0))
        whole = True
        while True:
            data = self._receive()
            if data is None:
                # the reply itself did not fit any more: an overrun
                self.overrun = True
                return None, False
            for kind_, flags_, ours, message in self._split(data):
                if not ours:
                    self._take(kind_, message)
                    continue
                whole = whole and not flags_ & _NLM_F_DUMP_INTR
                if kind_ in (_NLMSG_DONE, _NLMSG_ERROR):
                    code = struct.unpack_from("=i", message, 16)[0] if len(message) >= 20 else 0
                    if code:
                        raise OSError(-code, os.strerror(-code))
                    return None, whole
                if not flags:
                    return self.decode(kind_, message), whole
                self._take(kind_, message)

    def _receive(self) -> bytes | None:
        """The next datagram from the kernel; ``None`` if none waits."""
        while True:
            try:
                data, sender = self._socket.recvfrom(_RECEIVE)
            except BlockingIOError:
                return None
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self.overrun = True
                continue
            # root of a container may send to our port in its namespace: only the kernel counts
            if sender[0] == 0:
                return data

    def _split(self, data: bytes) -> list[tuple[int, int, bool, bytes]]:
        """The messages in a datagram: type, flags, whether it answers our request, and bytes."""
        found = []
        offset = 0
        while offset + _HEADER.size <= len(data):
            length, kind, flags, sequence, port = _HEADER.unpack_from(data, offset)
            if length < _HEADER.size or offset + length > len(data):
                break
            # a notification carries the port and number of the request that caused the change
            ours = port == self._port and sequence == self._sequence
            found.append((kind, flags, ours, data[offset : offset + length]))
            offset += (length + 3) & ~3
        return found

    def decode(self, kind: int, message: bytes) -> Any:
        """A message of the kinds that are understood, taken apart; else ``None``."""
        known = self._messages.get(kind)
        if known is None:
            return None
        decoded = known(message)
        try:
            decoded.decode()
        except self._decode_errors:
            return None
        return decoded


def neighbor(message: bytes) -> tuple[int, int, str, str | None] | None:
    """A message about an IPv4 or IPv6 neighbour: interface, flags (NTF_*), address, and MAC.

    By hand, for there may be thousands. ``None``: it has no address.
    """
    if len(message) < _NDMSG:
        return None
    family, ifindex, _, flags = struct.unpack_from("=BxxxiHB", message, 16)
    ip = mac = None
    offset = _NDMSG
    while offset + 4 <= len(message):
        length, kind = struct.unpack_from("=HH", message, offset)
        if length < 4:
            break
        value = message[offset + 4 : offset + length]
        if kind == _NDA_DST and len(value) == (4 if family == socket.AF_INET else 16):
            ip = socket.inet_ntop(family, value)
        elif kind == _NDA_LLADDR and len(value) == 6 and any(value):
            mac = value.hex(":")
        offset += (length + 3) & ~3
    return None if ip is None else (ifindex, flags, ip, mac)


def forwarding_mac(message: bytes) -> str | None:
    """The MAC that a message about a forwarding table is of, without decoding the rest.

    A busy bridge tells of many.
    """
    offset = _NDMSG
    while offset + 4 <= len(message):
        length, kind = struct.unpack_from("=HH", message, offset)
        if length < 4:
            return None
        if kind == _NDA_LLADDR:
            return message[offset + 4 : offset + length].hex(":")
        offset += (length + 3) & ~3
    return None


def open_in(path: str, inode: int) -> socket.socket:
    """A routing netlink socket that lives in the namespace at a path, if it is still that one.

    Raises:
        OSError: it is gone, or may not be entered.
        RuntimeError: no thread can be started.
    """
    helper = reach.helper()
    if helper is not None and os.stat("/proc/thread-self/ns/net").st_ino != inode:
        return helper.socket(path, *_ROUTE, inode)
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if os.fstat(descriptor).st_ino != inode:
            raise FileNotFoundError(errno.ENOENT, "the namespace has vanished", path)
        if os.stat("/proc/thread-self/ns/net").st_ino == inode:
            return _route_socket()
        return call_in(descriptor, _route_socket)
    finally:
        os.close(descriptor)


_ROUTE = (socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)


def _route_socket() -> socket.socket:
    return socket.socket(*_ROUTE)
