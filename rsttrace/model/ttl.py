"""How far a packet has come, as its TTL (IPv6: hop limit) tells."""

from __future__ import annotations

from functools import cache

INITIAL_TTLS = (32, 64, 128, 255)
"""Initial TTLs that real stacks use: 64 Linux/BSD/macOS, 128 Windows, 255 routers and Solaris."""

FULL_TTL = 64
"""What our own stack sends with (net.ipv4.ip_default_ttl, IPV6_DEFAULT_HOPLIMIT)."""


@cache
def initial_ttl(ttl: int) -> int:
    """The initial TTL a packet most likely started with, given the TTL it arrived with."""
    return next(initial for initial in INITIAL_TTLS if ttl <= initial)


def hops(ttl: int) -> int:
    """How many routers decremented a packet's TTL (hop limit): initial minus received."""
    return initial_ttl(ttl) - ttl
