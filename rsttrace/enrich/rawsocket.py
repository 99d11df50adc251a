"""Raw sockets (raw(7), packet(7)): opening, filtering, waiting, reading with TTL and time."""

from __future__ import annotations

import contextlib
import ctypes
import select
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from time import time_ns

from rsttrace.enrich import probes, reach
from rsttrace.enrich.target import address_family
from rsttrace.errors import PrivilegeError, RsttraceError

IPV6_HOPLIMIT = 52
"""Ancillary data: an IPv6 packet's hop limit, sent or received (include/uapi/linux/in6.h)."""

_MOST_ERRORS = 8  # in a row
_SO_ATTACH_FILTER = 26  # include/uapi/asm-generic/socket.h
_SO_TIMESTAMPNS = 35
_ICMP_FILTER = 1  # include/uapi/linux/icmp.h
_SOL_RAW = 255
_ICMP6_FILTER = 1  # include/uapi/linux/icmpv6.h
_IPV6_RECVHOPLIMIT = 51  # include/uapi/linux/in6.h
# echo reply, destination unreachable, time exceeded (RFC 792; RFC 4443)
_WANTED_ICMP, _WANTED_ICMPV6 = (0, 3, 11), (129, 1, 3)


@dataclass(frozen=True)
class Received:
    """A packet from a raw socket: `data` begins behind the IP header."""

    ip: str
    ttl: int | None
    data: bytes = field(repr=False)
    time_ns: int = 0


def raw_socket(closing: contextlib.ExitStack, family: int, protocol: int) -> socket.socket:
    """A raw socket that does not block and stamps what it receives; closed with `closing`.

    Raises:
        PrivilegeError: CAP_NET_RAW is missing (raw(7)).
    """
    try:
        sock = reach.make_socket(address_family(family), socket.SOCK_RAW, protocol)
    except PermissionError:
        raise PrivilegeError(
            "probing a path needs root (CAP_NET_RAW)", hint="run it with sudo"
        ) from None
    closing.enter_context(sock)
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    if family == 6:
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVHOPLIMIT, 1)
    return sock


def attach_filter(sock: socket.socket, program: bytes) -> None:
    """Attach a classic BPF program (``struct sock_filter`` after another)."""
    buffer = ctypes.create_string_buffer(program, len(program))
    sock.setsockopt(
        socket.SOL_SOCKET,
        _SO_ATTACH_FILTER,
        struct.pack("HP", len(program) // 8, ctypes.addressof(buffer)),
    )


def let_in_answers(sock: socket.socket, family: int) -> None:
    """Let an ICMP socket take in what answers probes, and nothing else."""
    # a set bit keeps a type out
    mask = [0xFFFFFFFF] * 8
    for kind in _WANTED_ICMP if family == 4 else _WANTED_ICMPV6:
        mask[kind >> 5] &= ~(1 << (kind & 31)) & 0xFFFFFFFF
    if family == 4:
        sock.setsockopt(_SOL_RAW, _ICMP_FILTER, struct.pack("=I", mask[0]))
    else:
        sock.setsockopt(socket.IPPROTO_ICMPV6, _ICMP6_FILTER, struct.pack("=8I", *mask))


def readable(sockets: Sequence[socket.socket], seconds: float) -> list[socket.socket]:
    """Those with something to read; waits for the first at most so long.

    Not select(2): it knows no descriptors from 1,024 on (FD_SETSIZE).
    """
    poll = select.poll()
    for sock in sockets:
        poll.register(sock, select.POLLIN)
    ready = {descriptor for descriptor, _ in poll.poll(max(0.0, seconds) * 1000)}
    return [sock for sock in sockets if sock.fileno() in ready]


def receive(sock: socket.socket, family: int) -> Iterator[Received]:
    """Everything that waits in a raw socket.

    Raises:
        RsttraceError: the socket fails, and not once.
    """
    errors = 0
    while True:
        try:
            data, ancillary, _, address = sock.recvmsg(65535, 256)
        except BlockingIOError:
            return
        except OSError as error:
            # What was pending on the socket is gone once it has been told (sock_error(),
            # include/net/sock.h); what stays will not end by itself.
            errors += 1
            if errors > _MOST_ERRORS:
                raise RsttraceError(f"cannot read answers: {error.strerror}") from None
            continue
        errors = 0
        ttl, received_ns = None, time_ns()
        for level, kind, value in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS) and len(value) == 16:
                seconds, nanoseconds = struct.unpack("=qq", value)
                received_ns = seconds * 1_000_000_000 + nanoseconds
            elif (level, kind) == (socket.IPPROTO_IPV6, IPV6_HOPLIMIT):
                ttl = struct.unpack("=i", value[:4])[0]
        if family == 4:
            split = probes.split_ipv4(data)
            if split is None:
                continue
            ttl, data = split
        yield Received(str(address[0]).partition("%")[0], ttl, data, received_ns)
