"""How much is remembered of connections, and for how long.

The same for the kernel side, which is handed these numbers when it is compiled, and for captures.
"""

FLOWS = 16384
"""Flows that are remembered unless the user says otherwise; one that was not used lately goes."""

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

OVERTAKEN_TICKS, OVERTAKEN_NS = 8192, 1_000_000_000
"""A timestamp that goes back by less, within this time of the highest, was overtaken on its way."""

COPY_NS = 10_000_000
"""A SYN that is seen again within this time is the same packet at the next device of this node (a
bridge and its port, a VLAN and its lower device), or at the next interface of a capture: no stack
repeats a SYN so soon (RFC 6298 §2.1: 1 s)."""

PEER_TTLS = 8
"""Handshakes of a peer whose TTL is kept."""

OPTIONS_READ = 16
"""TCP options of a packet that are looked at for its timestamps. There is room for 40 NOPs, but no
stack writes more than a dozen options."""

EXTENSIONS_READ = 16
"""IPv6 extension headers of a packet that are looked through for its TCP header."""

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

NOTE_QUESTIONS_PER_S, NOTE_QUESTIONS_AT_ONCE = 20.0, 20
"""So many questions a trace asks its own node (sockets, rules, connection tracking) in the long
run, and at once. Each is asked once; like resets get its answer, the rest of a storm none."""

NOTE_CPU_S, NOTE_CPU_SHARE = 0.5, 0.05
"""So many seconds of a CPU the questions about sockets and connection tracking take at once, and so
much of the time in the long run: to list a port's sockets, the kernel walks through all it has."""

NOTE_WAITING = 16
"""Resets that wait for the answer to one question; more of the same kind go without."""

NOTE_ANSWERS, NOTE_ANSWER_S = 1024, 0.5
"""Answers that are remembered, and for how long: like resets get them without another question."""

NOTE_LAST_S = 2.0
"""How long the end of a run waits for answers."""

NODE_NAMESPACES, NODE_LOOK_S = 64, 0.25
"""How many namespaces of the node one question looks into, and for how long: our own first, then
those with a name."""

LISTENERS_S = 0.5
"""How long the list of listening sockets of another namespace than the reset's is believed."""

SERVICES_EVERY_S, SERVICES_DUTY = 1.0, 50
"""How soon a namespace's listeners are listed again to say whose service a connection came to, and
how many times as long as listing took."""

SOCKETS_READ = 4096
"""Sockets that are read of one answer of the kernel's; what is beyond is said to be unknown."""

RULES_TOOL_S, RULES_TOOL_BYTES, RULES_TOOL_MEMORY = 2.0, 32 << 20, 1 << 30
"""What listing a firewall's rules may take: seconds, bytes of output, bytes of the tool's memory.
With 100,000 rules that is not enough, and none are named."""

RULES_EVERY_S, RULES_DUTY = 1.0, 20
"""How soon a namespace's rules are listed again while they are the same, and, also where they are
not, how many times as long as it took: listing takes at most a twentieth of the time."""

RULES_SOON_NS = 1_000_000_000
"""Rules that were listed so long after a reset may be others than it met: no one is named alone."""

RULES_NAMESPACES = 64
"""Namespaces whose rules are remembered, the last used."""

RULES_KEPT, RULES_NAMED = 4096, 4
"""Rules that reject with a reset: kept of one namespace, and named of those that may have made a
reset."""

RATE = 20
"""Resets a second that are alike (of one kind and cause, peer and service) and told one by one; the
others are counted."""

BURST_S = 5
"""So many seconds' worth of them may come at once."""
