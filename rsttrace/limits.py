"""How much is remembered of connections, and for how long.

The same for the kernel side, which is handed these numbers when it is compiled, and for captures.
"""

FLOWS = 16384
"""Flows that are remembered unless the user says otherwise; the least recently used one goes."""

PEERS = 4096
"""Peers whose newest handshake is remembered."""

RECENT = 4
"""Earlier packets kept per direction of a flow; a power of two (the kernel side masks with it)."""

PEER_TTLS = 8
"""Handshakes of a peer whose TTL is kept."""

IDLE_REUSE_NS = 60 * 1_000_000_000
"""A SYN on an open flow that was quiet for longer begins it anew."""

LATE_FOR_NS = 60 * 1_000_000_000
"""So long after a RST its sender is watched."""

LATE_TOLD = 4
"""So many packets after one RST are told: the first may have been overtaken."""

PAYLOAD_MAX = 256
"""Bytes of a packet's payload that may be kept; a power of two (the verifier is shown a mask)."""
