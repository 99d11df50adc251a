"""Who has an address of our own link: asked by ARP, or by neighbour solicitation (IPv6).

The kernel keeps one MAC for an address, the one it heard last. Here everybody is asked, and all
who answer are listened to. As any such question does, it may make this host's neighbour table
change to the one that answered last.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator

from rsttrace.enrich import probes, reach
from rsttrace.enrich.rawsocket import attach_filter, readable
from rsttrace.enrich.setns import inside
from rsttrace.enrich.target import address_family
from rsttrace.errors import PrivilegeError, RsttraceError

QUESTIONS = 3
"""How often an address is asked for."""

INTERVAL_S = 0.25
"""Between two questions."""

LISTEN_S = 0.75
"""After the last one. Hosts answer solicitations at once, but may be asleep (RFC 4861 §10: 1 s)."""

_SLICE_S = 0.05
_SIOCGIFNAME = 0x8910  # include/uapi/linux/sockios.h


def find_holders(
    ip: str,
    ifindex: int,
    *,
    netns_path: str | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> tuple[dict[str, int], int]:
    """Ask who has an address on the link of an interface.

    Args:
        ip: an IPv4 or IPv6 address.
        ifindex: the interface, in the namespace at `netns_path` (``None``: this one).
        stopped: asked often; when true, what is known so far is the result.

    Returns:
        The MACs that answered, the quickest first, with how often; and how many questions were
        sent.

    Raises:
        PrivilegeError: no packet sockets without CAP_NET_RAW.
        RsttraceError: the interface is gone, is no Ethernet, or has no address to ask from.
    """
    return inside(netns_path, lambda: _ask(ip, ifindex, stopped))


def _ask(ip: str, ifindex: int, stopped: Callable[[], bool]) -> tuple[dict[str, int], int]:
    found: dict[str, int] = {}
    sent = 0
    with _packet_socket() as sock:
        question = _prepare(sock, ip, ifindex)
        while sent < QUESTIONS and not stopped():
            try:
                sock.send(question)
            except OSError as error:
                raise RsttraceError(f"cannot ask who has {ip}: {error.strerror}") from None
            sent += 1
            ends = time.monotonic() + (INTERVAL_S if sent < QUESTIONS else LISTEN_S)
            for holder in _answers(sock, ip, ends, stopped):
                found[holder] = found.get(holder, 0) + 1
    return found, sent


def _prepare(sock: socket.socket, ip: str, ifindex: int) -> bytes:
    """Make a socket listen for answers on an interface; the frame that asks."""
    family = 6 if ":" in ip else 4
    kind = address_family(family)
    attach_filter(sock, probes.answer_filter(family))
    try:
        protocol = probes.ETH_P_IPV6 if family == 6 else probes.ETH_P_ARP
        sock.bind((_name(sock, ifindex), protocol))
        source = socket.inet_pton(kind, _source(kind, ip, ifindex))
    except OSError as error:
        raise RsttraceError(
            f"cannot ask who has {ip} on interface {ifindex}: {error.strerror}"
        ) from None
    mac = sock.getsockname()[4]
    if len(mac) != 6 or not any(mac):
        raise RsttraceError(f"cannot ask who has {ip}: interface {ifindex} is no Ethernet")
    build = probes.neighbor_solicitation if family == 6 else probes.arp_request
    return build(mac, source, socket.inet_pton(kind, ip))


def _answers(
    sock: socket.socket, ip: str, ends: float, stopped: Callable[[], bool]
) -> Iterator[str]:
    """The MACs that say to have the address, as they answer, until a time.monotonic()."""
    read = probes.read_advertisement if ":" in ip else probes.read_arp
    target = socket.inet_pton(address_family(6 if ":" in ip else 4), ip)
    while (rest := ends - time.monotonic()) > 0 and not stopped():
        if not readable([sock], min(rest, _SLICE_S)):
            continue
        with contextlib.suppress(BlockingIOError, InterruptedError):
            frame, address = sock.recvfrom(2048, socket.MSG_DONTWAIT)
            holder = read(frame, target) if address[2] != socket.PACKET_OUTGOING else None
            if holder is not None:
                yield holder


def _packet_socket() -> socket.socket:
    """Not bound yet: with protocol 0 nothing is received until it is (packet(7))."""
    try:
        return reach.make_socket(socket.AF_PACKET, socket.SOCK_RAW)
    except OSError as error:
        if error.errno == errno.EPERM:
            raise PrivilegeError("asking by ARP needs CAP_NET_RAW", hint="run it as root") from None
        raise RsttraceError(f"no packet socket: {error.strerror}") from None


def _name(sock: socket.socket, ifindex: int) -> str:
    """An interface's name in the socket's namespace (netdevice(7))."""
    answer = fcntl.ioctl(sock, _SIOCGIFNAME, struct.pack("16si20x", b"", ifindex))
    return os.fsdecode(answer[:16].partition(b"\0")[0])


def _source(kind: int, ip: str, ifindex: int) -> str:
    """The address that this host would talk to `ip` from; nothing is sent."""
    with reach.make_socket(kind, socket.SOCK_DGRAM) as sock:
        sock.connect((ip, 9, 0, ifindex) if kind == socket.AF_INET6 else (ip, 9))
        return str(sock.getsockname()[0]).partition("%")[0]
