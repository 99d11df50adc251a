"""Whose network card: the organisation that a MAC address's prefix is registered to. Offline.

Two copies of the IEEE's registry are consulted: the one inside netaddr (24-bit blocks and the old
36-bit IABs) and, where installed, Debian's ``ieee-data`` (also 28- and 36-bit blocks). Both are
searched in place: their in-memory indexes would double rsttrace's memory.
"""

from __future__ import annotations

import contextlib
import csv
import importlib.util
import mmap
import os
import re
import zipimport
from functools import lru_cache
from typing import BinaryIO

from rsttrace.enrich import reach

IEEE_DATA = "/usr/share/ieee-data"
"""Where Debian and Ubuntu's package ``ieee-data`` keeps the registry as CSV."""

LOCAL = "locally administered (random or virtual)"

_MAC = re.compile(r"[0-9a-f]{2}(?:[:-][0-9a-f]{2}){5}", re.IGNORECASE)
_REDUNDANT = {
    # RFC 9568 §7.3: 00-00-5E-00-01-{VRID} for IPv4, 00-00-5E-00-02-{VRID} for IPv6
    "00005E0001": "IANA (a VRRP virtual router)",
    "00005E0002": "IANA (a VRRP virtual router)",
    # RFC 2281 §6.2: 00-00-0C-07-AC-{group}
    "00000C07AC": "Cisco (an HSRP virtual router)",
}
# The block was split into smaller ones: this names the IEEE, not the card's maker.
_SPLIT = "ieee registration authority"


def vendor(mac: str) -> str | None:
    """The organisation behind a MAC address (six pairs of hex digits), or a plain sentence.

    ``None`` for group (multicast) and zero addresses, for unregistered prefixes and for text that
    is no MAC. A set locally administered bit (IEEE 802-2014 §8.2.2) means that nobody registered
    it: the answer is `LOCAL`. Never raises. A first look-up of a prefix takes milliseconds.
    """
    if not _MAC.fullmatch(mac):
        return None
    digits = mac.replace(":", "").replace("-", "").upper()
    first = int(digits[:2], 16)
    if first & 1 or digits == "000000000000":
        return None
    if first & 2:
        return LOCAL
    return _REDUNDANT.get(digits[:10]) or _registered(digits[:9], IEEE_DATA)


def is_virtual_router(mac: str) -> bool:
    """Whether this MAC is shared by redundant routers (VRRP, HSRP).

    They answer ARP with it, but may forward packets with their interface's own MAC.
    """
    return mac.replace(":", "").replace("-", "").upper()[:10] in _REDUNDANT


@lru_cache(maxsize=4096)
def _registered(prefix: str, ieee_data: str) -> str | None:
    """The holder of a 36-bit prefix (nine upper-case hex digits): the smallest block wins."""
    found = (
        _from_csv(os.path.join(ieee_data, "oui36.csv"), b"MA-S,%s," % prefix.encode())
        or _from_csv(os.path.join(ieee_data, "mam.csv"), b"MA-M,%s," % prefix[:7].encode())
        or _from_iab(prefix)
        or _from_oui(prefix[:6])
        or _from_csv(os.path.join(ieee_data, "oui.csv"), b"MA-L,%s," % prefix[:6].encode())
    )
    return None if found is None or found.lower() == _SPLIT else found


def _from_csv(path: str, row: bytes) -> str | None:
    """The organisation in the row of an IEEE CSV file that starts with `row`."""
    line = _line(path, b"\n" + row)
    if line is None:
        return None
    try:
        return next(csv.reader([line]))[2].strip() or None
    except (csv.Error, IndexError, StopIteration):
        return None


def _from_oui(prefix: str) -> str | None:
    """A 24-bit block in netaddr's copy of the registry: ``00-D0-F8   (hex)    ORGANISATION``."""
    hyphened = "-".join((prefix[:2], prefix[2:4], prefix[4:6]))
    path = _netaddr_file("oui.txt")
    if path is None:
        return _from_netaddr(hyphened)
    line = _line(path, b"\n%s " % hyphened.encode())
    return line.partition("(hex)")[2].strip() or None if line is not None else None


def _from_iab(prefix: str) -> str | None:
    """A 36-bit Individual Address Block (a product withdrawn in 2014) in netaddr's copy."""
    if prefix[:6] not in ("0050C2", "40D855"):
        return None
    path = _netaddr_file("iab.txt")
    hyphened = f"{prefix[:2]}-{prefix[2:4]}-{prefix[4:6]}".encode()
    block = b"%s000-%sFFF" % (prefix[6:].encode(), prefix[6:].encode())
    # the organisation stands in the line above the block, which does not repeat the first half
    record = re.compile(re.escape(hyphened) + rb"[ \t]+\(hex\)([^\n]*)\n" + block)
    try:
        with _open(path or "") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as m:
            match = record.search(m)
            return match[1].decode("utf-8", "replace").strip() or None if match else None
    except (OSError, ValueError):
        return None


def _from_netaddr(hyphened: str) -> str | None:
    """The same through netaddr's interface, for installations whose files cannot be mapped.

    It costs 12 MB for good: netaddr indexes the whole registry in memory.
    """
    try:
        import netaddr
    except ImportError:  # it may be where we may not read any more
        return None
    try:
        return str(netaddr.OUI(hyphened).registration().org) or None
    except (netaddr.NotRegisteredError, OSError, ValueError, LookupError):
        return None


@lru_cache
def _netaddr_file(name: str) -> str | None:
    """The path of a registry file that netaddr brings; ``None`` if there is no such file.

    From a zip file it is copied into memory, once.
    """
    found = importlib.util.find_spec("netaddr")  # it need not be imported for that
    for folder in (found.submodule_search_locations or ()) if found is not None else ():
        path = os.path.join(folder, "eui", name)
        if os.path.isfile(path):
            return path
        if found is not None and isinstance(found.loader, zipimport.zipimporter):
            with contextlib.suppress(OSError):
                data = found.loader.get_data(path)
                copy = os.memfd_create(name)
                with open(copy, "wb", closefd=False) as file:
                    file.write(data)
                return f"/proc/self/fd/{copy}"
    return None


def _open(path: str) -> BinaryIO:
    """Raises OSError: it cannot be opened, here or by the helper."""
    try:
        return open(path, "rb")
    except PermissionError:
        helper = reach.helper()
        if helper is None:
            raise
        return open(helper.data(path), "rb")


def files() -> tuple[str, ...]:
    """The files that are looked into."""
    names = ("oui36.csv", "mam.csv", "oui.csv")
    brought = [_netaddr_file(name) for name in ("oui.txt", "iab.txt")]
    return (*(os.path.join(IEEE_DATA, name) for name in names), *filter(None, brought))


def _line(path: str, start: bytes) -> str | None:
    """The first line of a file that begins with `start` (which begins with the newline before)."""
    try:
        with _open(path) as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as data:
            at = data.find(start)
            if at < 0:
                return None
            end = data.find(b"\n", at + 1)
            return data[at + 1 : end if end >= 0 else len(data)].decode("utf-8", "replace").rstrip()
    except (OSError, ValueError):
        return None
