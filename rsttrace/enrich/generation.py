"""Whether nftables' rules have changed since they were listed: their generation.

It grows with every transaction, of nft(8) and of iptables-nft alike. Asks in the network namespace
of the calling thread.
"""

from __future__ import annotations

import socket
import struct

from rsttrace.enrich import nfnetlink, reach
from rsttrace.enrich.nfnetlink import HEADER, NFGENMSG

_ATTRIBUTE = struct.Struct("=HH")  # struct nlattr
_NFTABLES = 10 << 8  # NFNL_SUBSYS_NFTABLES
_NEWGEN, _GETGEN = 15, 16  # enum nf_tables_msg_types, include/uapi/linux/netfilter/nf_tables.h
_GEN_ID = 1  # NFTA_GEN_ID, which comes first (nf_tables_fill_gen_info())


def generation() -> int | None:
    """The number of this namespace's rules; ``None``: there is no nftables, or it does not tell."""
    helper = reach.helper()
    try:
        data = ask() if helper is None else helper.generation(reach.where())
    except OSError:
        return None
    at = HEADER.size + NFGENMSG.size
    if len(data) < at + 8 or HEADER.unpack_from(data)[1] != _NFTABLES | _NEWGEN:
        return None
    if _ATTRIBUTE.unpack_from(data, at) != (8, _GEN_ID):
        return None
    (found,) = struct.unpack_from("!I", data, at + _ATTRIBUTE.size)
    return int(found)


def ask() -> bytes:
    """What nftables answers, in the thread's namespace.

    Raises:
        OSError: the kernel has none, or refuses.
    """
    return nfnetlink.ask(_NFTABLES | _GETGEN, NFGENMSG.pack(socket.AF_UNSPEC, 0, 0))
