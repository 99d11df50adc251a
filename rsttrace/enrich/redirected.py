"""A connection to an address that its namespace does not have: a rule there took it (REDIRECT)."""

from __future__ import annotations

import array
import fcntl
import ipaddress
import socket
import struct
from collections.abc import Callable
from typing import Any

from rsttrace.enrich import reach
from rsttrace.enrich.firewall import Firewall, place, rule_values
from rsttrace.enrich.question import Question, end_text
from rsttrace.enrich.spaces import Spaces
from rsttrace.limits import RULES_NAMED
from rsttrace.model import Note

_SIOCGIFCONF = 0x8912  # include/uapi/linux/sockios.h
_IFREQ = 40  # struct ifreq: a name of 16 bytes, and a sockaddr_in
_ADDRESSES = 4096
"""IPv4 addresses of a namespace that are looked through."""


Owns = Callable[[int, str], "bool | None"]
"""Whether a namespace routes an address to itself; ``None``: it cannot be told."""


def has_address(ip: str) -> bool:
    """Whether an interface of the thread's namespace has an address.

    One in a VRF has, though the namespace's own routes do not lead to it.
    """
    if ":" in ip:
        return ipaddress.ip_address(ip) in _ipv6_addresses()
    return ipaddress.ip_address(ip) in _ipv4_addresses()


def _ipv4_addresses() -> set[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    room = array.array("B", bytes(_ADDRESSES * _IFREQ))
    where, size = room.buffer_info()
    with reach.make_socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        answer = fcntl.ioctl(sock, _SIOCGIFCONF, struct.pack("iL", size, where))
    (used,) = struct.unpack_from("i", answer)
    data = room.tobytes()[:used]
    return {ipaddress.IPv4Address(data[at + 20 : at + 24]) for at in range(0, used, _IFREQ)}


def _ipv6_addresses() -> set[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    lines = reach.read_file("if_inet6").splitlines()
    return {ipaddress.IPv6Address(bytes.fromhex(line.split()[0])) for line in lines}


class Redirects:
    """Answers whether a rule of a namespace took a connection that was meant for another host."""

    def __init__(self, spaces: Spaces, firewall: Firewall, owns: Owns) -> None:
        self._spaces = spaces
        self._owns = owns
        self._firewall = firewall

    def notes(self, question: Question, stopped: Callable[[], bool]) -> tuple[Note, ...]:
        """The note, if the namespace refused for an address that it does not have.

        Raises:
            RsttraceError: the namespace is gone, or cannot be entered.
            OSError: the kernel refuses.
        """
        asked = question.local
        if self._owns(question.netns, asked.ip) is not False:
            return ()

        def look() -> bool:
            return has_address(asked.ip)

        if self._spaces.enter(question.netns, question.identity, look):
            return ()
        rules, whole = self._firewall.redirecting(question, stopped)
        where = self._spaces.label(question.netns)
        text = f"{asked.ip} is no address of {where}: "
        if len(rules) == 1 and whole:
            text += "a rule there took the connection, and nothing listens where it leads: "
            text += f"{place(rules[0])}: {rules[0].text}"
        elif 0 < len(rules) <= RULES_NAMED:
            named = "; ".join(f"{place(rule)}: {rule.text}" for rule in rules)
            text += f"one of {len(rules)} rules there took the connection, and nothing listens "
            text += f"where it leads: {named}"
        else:
            text += "a rule or a route there took the connection (REDIRECT, DNAT, TPROXY), and "
            text += "nothing listens where it leads"
        values: dict[str, Any] = {
            "asked": end_text(asked),
            "netns": question.netns,
            "netns_name": self._spaces.name(question.netns),
            "exact": len(rules) == 1 and whole,
            "rules": [rule_values(rule) for rule in rules[:RULES_NAMED]],
            "candidates": len(rules),
        }
        return (Note("redirected-here", text, values),)
