"""Whom to probe, and what that may cost: addresses, names, limits."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass

from rsttrace.errors import UsageError

LEAST_WAIT_S = 0.5
"""Routers answer on their slow path: give them so much longer than the peer takes."""


@dataclass(frozen=True)
class Limits:
    """What one run may cost: TTLs up to `max_hops`, `probes` rounds, `timeout_s` for an answer."""

    max_hops: int = 30
    probes: int = 3
    timeout_s: float = 2.0

    def wait_s(self, rtt_s: float) -> float:
        """How long to wait for an answer where the peer's own takes `rtt_s`, both in seconds."""
        return min(self.timeout_s, max(LEAST_WAIT_S, 4 * rtt_s))


@dataclass(frozen=True)
class Target:
    """The peer's address, resolved: `sockaddr` as Python's sockets take it, with port 0."""

    ip: str
    port: int
    family: int
    sockaddr: tuple[str | int, ...]

    @property
    def packed(self) -> bytes:
        """The address in network byte order."""
        return socket.inet_pton(address_family(self.family), self.ip.partition("%")[0])


def resolve(peer: str, port: int, family: int | None = None) -> Target:
    """An address or a name, to one address (IPv4 or IPv6 if `family` is 4 or 6).

    Raises:
        UsageError: it is neither, or has no address of that family.
    """
    wanted = socket.AF_UNSPEC if family is None else address_family(family)
    port = int(port)  # getaddrinfo refuses subclasses, such as a decoded field
    try:
        found = socket.getaddrinfo(peer, port, wanted, socket.SOCK_STREAM)
    except (OSError, UnicodeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(
            f"{peer!r} is not an address, and as a name it does not resolve: {reason}",
            hint="give an IPv4 or IPv6 address, as 10.0.0.1:443 or [2001:db8::1]:443",
        ) from None
    kind, _, _, _, address = found[0]
    ip = str(address[0])
    if kind == socket.AF_INET:
        return Target(ip, port, 4, (ip, 0))
    # the scope is an interface's number; the protocol goes where the port does, and 0 fits it
    scope = int(address[3]) if len(address) > 3 else 0
    return Target(ip.partition("%")[0], port, 6, (ip.partition("%")[0], 0, 0, scope))


def names_of(ips: Iterable[str], seconds: float = 3.0) -> dict[str, str]:
    """Reverse DNS names (getnameinfo(3)), as many as come in time. They are not to be trusted."""
    found: dict[str, str] = {}

    def look_up(ip: str) -> None:
        with contextlib.suppress(OSError, UnicodeError):
            name = socket.getnameinfo((ip, 0), socket.NI_NAMEREQD)[0]
            found[ip] = name

    threads = [threading.Thread(target=look_up, args=(ip,), daemon=True) for ip in set(ips)]
    ends = time.monotonic() + seconds
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, ends - time.monotonic()))
    return dict(found)


def address_family(family: int) -> int:
    """``AF_INET`` for 4, ``AF_INET6`` for 6."""
    return socket.AF_INET if family == 4 else socket.AF_INET6


def same_address(one: str, other: str) -> bool:
    """Whether two addresses are the same, however IPv6 ones are written."""
    return one == other or (
        ":" in one
        and ":" in other
        and socket.inet_pton(socket.AF_INET6, one) == socket.inet_pton(socket.AF_INET6, other)
    )
