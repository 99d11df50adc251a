"""How much is remembered of connections, and for how long.

The same for the kernel side, which is handed these numbers when it is compiled, and for captures.
"""

FLOWS = 16384
"""Flows that are remembered unless the user says otherwise; the least recently used one goes."""

PEERS = 4096
"""Peers whose newest handshake is remembered."""

RECENT = 4
"""Earlier packets kept per direction of a flow; a power of two (the kernel side masks with it)."""

TTLS = 4
"""Distinct TTLs kept per direction of a flow; a power of two."""

OTHER_TTL_FITS = 4
"""So many packets with another TTL than the handshake's, right in all else, make it one of this
direction's: the way has changed, or there are several."""

NEAR = 1 << 24
"""How far sequence and ack numbers may be off what is known, in bytes, and still fit. There is room
for what was not seen; of blind guesses one in 128 hits."""

COPY_NS = 10_000_000
"""A SYN that is seen again within this time is the same packet at the next device of this node (a
bridge and its port, a VLAN and its lower device), or at the next interface of a capture: no stack
repeats a SYN so soon (RFC 6298 §2.1: 1 s)."""

PEER_TTLS = 8
"""Handshakes of a peer whose TTL is kept."""

OPTIONS_READ = 16
"""TCP options of a packet that are looked at for its timestamps. There is room for 40 NOPs, but no
stack writes more than a dozen options."""

IDLE_REUSE_NS = 60 * 1_000_000_000
"""A SYN on a connection that was quiet for longer begins another one, where two captures are
compared: there, nobody tells whether it was taken."""

LATE_FOR_NS = 60 * 1_000_000_000
"""So long after a RST its sender is watched."""

LATE_TOLD = 4
"""So many packets after one RST are told: the first may have been overtaken."""

HANDSHAKES_TOLD = 2
"""So many later handshakes of an address are told after a RST in its name."""

PAYLOAD_MAX = 256
"""Bytes of a packet's payload that may be kept; a power of two (the verifier is shown a mask)."""
