"""The kernel's own count of the RSTs that its TCP sent, of every network namespace of this node.

TcpOutRsts (RFC 4022 tcpOutRsts), IPv4 and IPv6 together: what tcp_v4_send_reset(),
tcp_v6_send_reset() and tcp_send_active_reset() have made, whatever became of the packets. RSTs by
firewall rules and by programs are not in it.
"""

from __future__ import annotations

from rsttrace.enrich import reach
from rsttrace.enrich.netns import NetnsDirectory
from rsttrace.enrich.setns import inside
from rsttrace.errors import RsttraceError

MOST = 256
"""Namespaces that are read; a node with more is not counted."""


def out_rsts(directory: NetnsDirectory) -> dict[int, int] | None:
    """The counters by the namespaces' inode numbers; ``None``: not all of them can be read."""
    namespaces = directory.all()
    if len(namespaces) > MOST:
        return None
    found = {}
    for inode in namespaces:
        try:
            found[inode] = inside(directory.way_into(inode), _read)
        except (RsttraceError, OSError, ValueError, LookupError):
            if inode in directory.all():  # else it has ended
                return None
    return found


def _read() -> int:
    names, values = (
        line.split() for line in reach.read_file("snmp").splitlines() if line.startswith("Tcp:")
    )
    return int(values[names.index("OutRsts")])
