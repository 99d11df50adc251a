"""Next hops: where a namespace sends packets for an address, asked of its kernel."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Any

from rsttrace.enrich.tables import Tables
from rsttrace.model import NextHop

# include/uapi/linux/rtnetlink.h
_RTN_UNICAST, _RTN_LOCAL = 1, 2
_RTM_F_FIB_MATCH = 0x2000


@dataclass
class Route:
    """A next hop and until when (monotonic seconds) to believe it; all gateways, once asked for."""

    hop: NextHop | None
    until: float
    oif: int | None
    gateways: tuple[tuple[int, str], ...] | None = None


def next_hop(tables: Tables, peer: str, oif: int | None) -> NextHop | None:
    """The next hop to a peer, out of the interface `oif` if it is given.

    ``None``: `peer` is no address, or no packet would go there.
    """
    address = packed(peer)
    try:
        reply = tables.netlink.ask_route(peer, address, oif) if address else None
    except OSError:
        return None
    if reply is None or reply["type"] not in (_RTN_UNICAST, _RTN_LOCAL):
        return None
    index = reply.get_attr("RTA_OIF")
    if index is None:
        return None
    if reply["type"] == _RTN_LOCAL:
        return NextHop(peer, None, False, index, is_local=True)
    # a route "via" the peer itself, as IPv6 reports for cached clones, is on the link
    ip = _gateway(reply) or peer
    return NextHop(ip, tables.mac(index, ip), ip != peer, index)


def gateways(tables: Tables, peer: str, oif: int | None) -> tuple[tuple[int, str], ...]:
    """All next hops of the matching route: RTM_F_FIB_MATCH, Linux 4.13; empty before that."""
    address = packed(peer)
    try:
        reply = tables.netlink.ask_route(peer, address, oif, _RTM_F_FIB_MATCH) if address else None
    except OSError:
        return ()
    if reply is None:
        return ()
    gateway = _gateway(reply)
    found = [(reply.get_attr("RTA_OIF"), gateway)] if gateway else []
    for part in reply.get_attr("RTA_MULTIPATH") or ():
        gateway = _gateway(part)
        if gateway:
            found.append((part["oif"], gateway))
    return tuple((index, ip) for index, ip in found if index is not None)


def packed(ip: str) -> bytes | None:
    """An address in network byte order; ``None``: it is no address."""
    try:
        return socket.inet_pton(socket.AF_INET6 if ":" in ip else socket.AF_INET, ip)
    except (OSError, ValueError):
        return None


def is_link_local(ip: str) -> bool:
    """fe80::/10 (RFC 4291 §2.5.6) or 169.254.0.0/16 (RFC 3927)."""
    if ":" not in ip:
        return ip.startswith("169.254.")
    address = packed(ip)
    return address is not None and address[0] == 0xFE and address[1] >> 6 == 2


def _gateway(route: Any) -> str | None:
    """The gateway of a route or of one leg of it: RTA_GATEWAY, or RTA_VIA (IPv4 over IPv6)."""
    gateway = route.get_attr("RTA_GATEWAY")
    if gateway is None:
        via = route.get_attr("RTA_VIA")
        gateway = via.get("addr") if isinstance(via, dict) else None
    return gateway if isinstance(gateway, str) else None
