"""Which resets are wanted: from the command line's words to what kernel and captures filter by."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rsttrace.errors import UsageError
from rsttrace.model import Endpoint, Kind, Reset

if TYPE_CHECKING:
    from rsttrace.capture.sides import Network

KIND_GROUPS = {
    "sent": tuple(kind for kind in Kind if kind.direction == "sent"),
    "received": tuple(kind for kind in Kind if kind.direction == "received"),
    "all": tuple(Kind),
}
"""What ``--kind`` takes beside the kinds themselves."""

DEFAULT_KINDS = tuple(kind for kind in Kind if kind is not Kind.FORWARDED)

KERNEL_PORTS = 1000
"""The kernel's map holds 1,024; where more are asked for, resets are filtered here."""

MAX_FILTERS = 500
"""How often a filter may be repeated: the maps hold 1,024, a host name has several addresses."""


@dataclass(frozen=True)
class Filter:
    """Which resets to show. `nets` is addresses of 16 bytes in hex with prefix lengths of 128."""

    kinds: tuple[Kind, ...] = tuple(Kind)
    nets: tuple[tuple[str, int], ...] = ()
    ports: tuple[int, ...] = ()

    def __call__(self, reset: Reset) -> bool:
        """Whether a reset is wanted."""
        ends = (reset.local, reset.remote)
        if reset.kind not in self.kinds:
            return False
        if self.ports and not any(end.port in self.ports for end in ends):
            return False
        return not self.nets or any(self._inside(end) for end in ends)

    def _inside(self, end: Endpoint) -> bool:
        found = ipaddress.ip_address(end.ip)
        mapped = int(found) | (0xFFFF << 32 if found.version == 4 else 0)
        return any(
            mapped >> (128 - prefix) == int(network, 16) >> (128 - prefix)
            for network, prefix in self.nets
        )


def filter_of(options: Mapping[str, Any]) -> Filter:
    """The filter that the options ``--kind``, ``--host``, ``--net`` and ``--port`` ask for.

    Raises:
        UsageError: one of them is not what it should be.
    """
    check_repeats(options, "host", "net", "port")
    return Filter(
        kinds=_kinds(options["kind"]),
        nets=_nets(options["host"], options["net"]),
        ports=_ports(options["port"]),
    )


def check_repeats(options: Mapping[str, Any], *names: str) -> None:
    """Raises UsageError where a filter is repeated too often."""
    for name in names:
        if len(options[name]) > MAX_FILTERS:
            raise UsageError(f"--{name} was given more than {MAX_FILTERS} times")


def networks(option: str, texts: Sequence[str], example: str) -> list[Network]:
    """Networks as the user wrote them; bits behind the prefix are cut off.

    `option` is what it is called in the message, `example` what it asks for.

    Raises:
        UsageError: one is no network.
    """
    try:
        return [ipaddress.ip_network(text, strict=False) for text in texts]
    except ValueError as error:
        raise UsageError(f"{option}: {error}", hint=f"write it as {example}") from None


def _ports(texts: Sequence[str]) -> tuple[int, ...]:
    """--port as the ports themselves: ``80``, ``80,443``, ``8000-8099``.

    Raises:
        UsageError: one is no port.
    """
    found: dict[int, None] = {}
    for word in (word for text in texts for word in text.split(",")):
        first, dash, last = word.strip().partition("-")
        ends = [first, last] if dash else [first]
        if not all(end.isascii() and end.isdigit() and 0 < int(end) < 65536 for end in ends):
            raise UsageError(
                f"--port {word!a}: not a port from 1 to 65535, nor a range of them",
                hint="write it as 443, 80,443 or 8000-8099",
            )
        if int(ends[-1]) < int(first):
            raise UsageError(f"--port {word!a}: the range ends before it begins")
        found.update(dict.fromkeys(range(int(first), int(ends[-1]) + 1)))
    return tuple(found)


def _addresses(host: str) -> list[Network]:
    """An address, or all addresses of a name, as networks of one address each."""
    try:
        return [ipaddress.ip_network(ipaddress.ip_address(host))]
    except ValueError:
        pass
    try:
        resolved = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise UsageError(
            f"--host {host!r} is not an address, and as a name it does not resolve: "
            f"{getattr(error, 'strerror', None) or error}",
            hint="give an IPv4 or IPv6 address",
        ) from None
    return [ipaddress.ip_network(ipaddress.ip_address(item[4][0])) for item in resolved]


def _nets(hosts: Sequence[str], nets: Sequence[str]) -> tuple[tuple[str, int], ...]:
    """--host and --net as (address of 16 bytes in hex, prefix length of 128)."""
    found = [network for host in hosts for network in _addresses(host)]
    found += networks("--net", nets, "10.0.0.0/8 or fd00::/8")
    rows = []
    for network in found:
        packed, prefix = network.network_address.packed, network.prefixlen
        if network.version == 4:
            packed, prefix = b"\0" * 10 + b"\xff\xff" + packed, prefix + 96
        rows.append((packed.hex(), prefix))
    return tuple(dict.fromkeys(rows))


def _kinds(names: Sequence[str]) -> tuple[Kind, ...]:
    if not names:
        return DEFAULT_KINDS
    chosen: list[Kind] = []
    for name in names:
        chosen += KIND_GROUPS.get(name) or (Kind(name),)
    return tuple(dict.fromkeys(chosen))
