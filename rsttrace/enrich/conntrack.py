"""What connection tracking knows of one connection: its addresses before and after NAT.

Asks for that entry alone (ctnetlink), in the network namespace of the calling thread.
"""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import dataclass

from rsttrace.enrich import nfnetlink, reach
from rsttrace.enrich.nfnetlink import HEADER, NFGENMSG
from rsttrace.model import Endpoint
from rsttrace.tcp import address

_CT_GET = 1 << 8 | 1  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET
_NLMSG_ERROR = 2
_NESTED, _TYPE = 0x8000, 0x3FFF
# include/uapi/linux/netfilter/nfnetlink_conntrack.h
_TUPLE_ORIG, _TUPLE_REPLY = 1, 2
_TUPLE_IP, _TUPLE_PROTO = 1, 2
_IP = {4: (1, 2), 6: (3, 4)}
_PROTO_NUM, _SRC_PORT, _DST_PORT = 1, 2, 3

_COUNT, _LIBERAL = "nf_conntrack_count", "nf_conntrack_tcp_be_liberal"


@dataclass(frozen=True)
class Tracked:
    """An entry: the first packet's addresses, and those of the answers that it expects."""

    source: Endpoint
    target: Endpoint
    reply_source: Endpoint
    reply_target: Endpoint


def answering(source: Endpoint, target: Endpoint) -> Tracked | None:
    """The entry of the TCP connection whose answers come from `source` and go to `target`.

    They have these addresses before they are translated back. ``None``: there is none, or nothing
    is tracked in this namespace. Where nothing is, the module that answers is not asked for, so
    that it is not loaded.

    Raises:
        OSError: the kernel has no ctnetlink, or refuses.
    """
    if _number(_COUNT) in (None, 0):
        return None
    family = 6 if ":" in source.ip else 4
    kind = socket.AF_INET6 if family == 6 else socket.AF_INET
    body = NFGENMSG.pack(kind, 0, 0) + _tuple(family, source, target)
    helper = reach.helper()
    data = ask(body) if helper is None else helper.tracked(reach.where(), body)
    if len(data) < HEADER.size + 4:
        return None
    if HEADER.unpack_from(data)[1] == _NLMSG_ERROR:
        code = -struct.unpack_from("=i", data, HEADER.size)[0]
        if code == 2:  # ENOENT
            return None
        raise OSError(code, os.strerror(code))
    return parse(data[HEADER.size + NFGENMSG.size :])


def ask(body: bytes) -> bytes:
    """What connection tracking answers, in the thread's namespace, to a request for one entry.

    Raises:
        OSError: the kernel has no ctnetlink, or refuses.
    """
    return nfnetlink.ask(_CT_GET, body)


def is_strict() -> bool | None:
    """Whether packets out of window are INVALID here, and so not translated.

    net.netfilter.nf_conntrack_tcp_be_liberal is 0. ``None``: nothing is tracked.
    """
    liberal = _number(_LIBERAL)
    return None if liberal is None else not liberal


def parse(attributes: bytes) -> Tracked | None:
    """The entry in an answer's attributes; ``None``: it is not whole."""
    found = _attributes(attributes)
    ends = [_ends(found.get(kind, b"")) for kind in (_TUPLE_ORIG, _TUPLE_REPLY)]
    first, reply = ends
    return None if first is None or reply is None else Tracked(*first, *reply)


def _number(name: str) -> int | None:
    try:
        return int(reach.read_file(name))
    except (OSError, ValueError):
        return None


def _attribute(kind: int, value: bytes) -> bytes:
    length = 4 + len(value)
    return struct.pack("=HH", length, kind) + value + bytes(-length % 4)


def _tuple(family: int, source: Endpoint, target: Endpoint) -> bytes:
    kind = socket.AF_INET6 if family == 6 else socket.AF_INET
    ip = b"".join(
        _attribute(number, socket.inet_pton(kind, end.ip))
        for number, end in zip(_IP[family], (source, target))
    )
    proto = _attribute(_PROTO_NUM, bytes([socket.IPPROTO_TCP]))
    for number, end in ((_SRC_PORT, source), (_DST_PORT, target)):
        proto += _attribute(number, struct.pack("!H", end.port))
    both = _attribute(_TUPLE_IP | _NESTED, ip) + _attribute(_TUPLE_PROTO | _NESTED, proto)
    return _attribute(_TUPLE_REPLY | _NESTED, both)


def _attributes(data: bytes) -> dict[int, bytes]:
    found = {}
    offset = 0
    while offset + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        if length < 4:
            break
        found[kind & _TYPE] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


def _ends(data: bytes) -> tuple[Endpoint, Endpoint] | None:
    parts = _attributes(data)
    ip, proto = _attributes(parts.get(_TUPLE_IP, b"")), _attributes(parts.get(_TUPLE_PROTO, b""))
    for source, target in _IP.values():
        if source in ip and target in ip and _SRC_PORT in proto and _DST_PORT in proto:
            ports = (int.from_bytes(proto[kind], "big") for kind in (_SRC_PORT, _DST_PORT))
            ips = (address(ip[kind]) for kind in (source, target))
            first, second = (Endpoint(*end) for end in zip(ips, ports))
            return first, second
    return None
