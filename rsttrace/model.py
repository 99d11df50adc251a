"""What rsttrace knows about a reset: the vocabulary of the whole program.

Imports nothing of ours: sources (`kernel`, `capture`) make these objects, `enrich` fills in
who and where, `judge` weighs them, `render` writes them. Unknown is ``None``, never a guess and
never 0. All numbers are in host byte order; all times are integers in nanoseconds.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from functools import cache
from typing import Any


class Kind(enum.Enum):
    """Where the RST was seen and by which code path; the value is the word used in the JSON."""

    SENT_PASSIVE = "sent-passive"
    SENT_ACTIVE = "sent-active"
    SENT_NETFILTER = "sent-netfilter"
    SENT_RAW = "sent-raw"
    RECEIVED_ACCEPTED = "received-accepted"
    RECEIVED_REJECTED = "received-rejected"
    RECEIVED_UNMATCHED = "received-unmatched"
    FORWARDED = "forwarded"

    @property
    def direction(self) -> str:
        """``sent``, ``received`` or ``forwarded``."""
        return self.value.partition("-")[0]


class Origin(enum.Enum):
    """Who made the RST. ``forged`` says nothing about intent."""

    LOCAL = "local"
    PEER = "peer"
    FORGED = "forged"
    INCONCLUSIVE = "inconclusive"


class Scope(enum.Enum):
    """What a baseline was learned from."""

    FLOW = "flow"
    PEER = "peer"
    NONE = "none"


@dataclass(frozen=True)
class Endpoint:
    """One end of a connection. `ip` is the text form; v4-mapped addresses are given as IPv4."""

    ip: str
    port: int


@dataclass(frozen=True)
class Packet:
    """The IP and TCP headers of one packet, as they were on the wire.

    `ip_id` and `df` are ``None`` for IPv6, which has neither. `length` is the whole IP packet's
    length in bytes, `payload_len` that of the TCP payload. `flags` uses tcpdump's letters
    (``R``, ``S``, ``F``, ``P``, ``A`` …) with ``A`` for ACK; `reserved` is the four reserved bits
    (RFC 9293 §3.1; the lowest is the AccECN bit). `raw` is the IP and TCP headers in hex.
    `window` is ``None`` where a capture cut the packet before it. `ip_checksum_ok` and
    `tcp_checksum_ok` say whether the checksums are right; ``None`` where that was not looked at or
    cannot be told (a cut packet, a fragment, a checksum left to the sender's network card).
    """

    src: Endpoint
    dst: Endpoint
    ttl: int
    ip_id: int | None
    df: bool | None
    tos: int
    flags: str
    seq: int
    ack: int
    window: int | None
    length: int
    payload_len: int
    reserved: int = 0
    options: str = ""
    raw: str = ""
    ip_checksum_ok: bool | None = None
    tcp_checksum_ok: bool | None = None

    @property
    def family(self) -> int:
        """4 or 6."""
        return 6 if self.ip_id is None else 4


@dataclass(frozen=True)
class Seen:
    """The fields kept of one earlier packet of a flow. `time_ns` is CLOCK_REALTIME.

    `segments` counts the wire packets that one offloaded (GSO/GRO) buffer stood for: their IP IDs
    are ``ip_id`` .. ``ip_id + segments - 1``. `window` is ``None`` where a capture cut it off.
    """

    time_ns: int
    ttl: int
    ip_id: int
    df: bool
    flags: str
    seq: int
    ack: int
    window: int | None
    payload_len: int
    segments: int = 1


@dataclass(frozen=True)
class Half:
    """One direction of a flow: what its packets looked like before the reset.

    `ttl` is the newest packet's TTL (hop limit for IPv6), `ttl_min`/`ttl_max` the range over all
    `packets`, `syn_ttl` that of the SYN or SYN-ACK, `syn_options` its TCP options in tcpdump's
    words; ``None`` where none was seen. `df_always` is true when every packet had DF.
    `timestamps` says that a packet carried the TCP timestamp option. `recent` is the newest
    packets, newest first. `end` is the sequence number that follows everything this end was seen
    to send (SYN and FIN count, RFC 9293 §3.4). Times are CLOCK_REALTIME.
    """

    packets: int
    ttl: int | None
    ttl_min: int | None
    ttl_max: int | None
    syn_ttl: int | None
    syn_window: int | None
    df_always: bool
    timestamps: bool
    mac: str | None
    ifindex: int | None
    first_ns: int
    last_ns: int
    syn_ns: int | None
    recent: tuple[Seen, ...] = ()
    end: int | None = None
    syn_options: str | None = None


@dataclass(frozen=True)
class Baseline:
    """What this flow (else this peer) looked like before the reset.

    `theirs` is the direction the RST came from, `ours` the other one. With scope ``peer`` only
    `theirs` is known, from the newest handshake seen from that address in this namespace.
    `peer_ttls` are the TTLs of that address's newest handshakes (SYN or SYN-ACK, any connection),
    newest first, without repeating neighbours.
    """

    scope: Scope = Scope.NONE
    theirs: Half | None = None
    ours: Half | None = None
    peer_ttls: tuple[int, ...] = ()


@dataclass(frozen=True)
class SentData:
    """The last packet with data that a socket sent, and the first bytes of that data.

    `packet` has no TCP options and, where the card computes it, no valid checksum.
    """

    time_ns: int
    packet: Packet
    payload: bytes


@dataclass(frozen=True)
class LatePacket:
    """What came from an end after a RST in its name, which should have been its last packet.

    The first such packet, and the first that no honest sender would send: a SYN-ACK, or data or a
    FIN beyond the RST's sequence number (Weaver, Sommer, Paxson, NDSS 2009). `time_ns` is
    CLOCK_REALTIME; `netns_identity` and `file` as in Reset.
    """

    time_ns: int
    packet: Packet
    netns_identity: int | None = None
    file: str | None = None


@dataclass(frozen=True)
class Other:
    """A RST that came from another address: `ip_id` may betray that one box made both."""

    ip: str
    time_ns: int
    ip_id: int
    ttl: int


@dataclass(frozen=True)
class Cause:
    """Why a RST was sent, or what it did. `kernel_reason` is the kernel's own name, if any."""

    name: str
    text: str
    kernel_reason: str | None = None


@dataclass(frozen=True)
class Frame:
    """A packet at one interface: where it was and which MAC handed it over (None: no Ethernet)."""

    netns: int
    ifindex: int
    mac: str | None
    ttl: int


@dataclass(frozen=True)
class BridgePort:
    """A port of a bridge of this node, behind which a MAC is. Indices and names of interfaces."""

    bridge: str | None
    bridge_ifindex: int
    port: str | None
    ifindex: int


@dataclass(frozen=True)
class SwitchPort:
    """The device at the other end of an interface's cable, as it says itself (LLDP).

    `ifname` is our interface, `name` and `id` its system name and chassis ID, `port` its port ID
    and `port_text` that port's description (IEEE 802.1AB). All but `ifname` is a stranger's text.
    """

    ifname: str
    name: str | None
    id: str | None
    port: str | None
    port_text: str | None


@dataclass(frozen=True)
class Neighbor:
    """The link-layer neighbour that handed us the packet.

    `vendor` is the organisation that the MAC's prefix is registered to, or a plain sentence for
    locally administered addresses. `is_gateway`: it is the next hop of our route to the peer, and
    not the peer itself. `bridge`: the port of this node's bridge that it is behind. `switch`: what
    the interface (or that port) is plugged into.
    """

    mac: str | None
    vendor: str | None
    ip: str | None
    is_gateway: bool | None
    ifindex: int
    ifname: str | None
    netns: int
    bridge: BridgePort | None = None
    switch: SwitchPort | None = None


@dataclass(frozen=True)
class NextHop:
    """Our own route to the peer: next hop's address, its MAC (if the neighbour table has it).

    `is_local`: the peer's address is this namespace's own.
    """

    ip: str
    mac: str | None
    is_gateway: bool
    ifindex: int
    is_local: bool = False


@dataclass(frozen=True)
class Process:
    """The socket owner's process. ``uid`` is the socket's owner even where pid is unknown."""

    pid: int | None
    comm: str | None
    uid: int | None


@dataclass(frozen=True)
class MadeHere:
    """Proof that this very node made the RST we received: where and by what.

    `source` is its source address as it left the namespace that made it (NAT may change it
    elsewhere), `owns_source` whether that address is that namespace's own.
    """

    netns: int
    kind: Kind
    pid: int | None = None
    comm: str | None = None
    hook: str | None = None
    netns_name: str | None = None
    source: str | None = None
    owns_source: bool | None = None


@dataclass(frozen=True)
class Socket:
    """The socket a reset belongs to. `state` is the state *before* the reset.

    `srtt_us`, `min_rtt_us`: microseconds. `inode` is the socket's inode in sockfs, as in
    ``/proc/PID/fd``; ``None`` once the socket has left its file (orphaned).
    """

    cookie: int | None
    state: str | None
    srtt_us: int | None
    min_rtt_us: int | None
    inode: int | None
    uid: int | None
    cgroup: int | None
    rcv_nxt: int | None = None
    local: Endpoint | None = None
    remote: Endpoint | None = None


@dataclass(frozen=True)
class Container:
    """A container, from the socket's cgroup path. `name` only where the node's files tell it."""

    id: str
    name: str | None = None


@dataclass(frozen=True)
class Pod:
    """A Kubernetes pod, from the cgroup path and the node's log directory."""

    namespace: str | None
    name: str | None
    uid: str | None = None


@dataclass
class Reset:
    """One RST, seen once, with everything known about it.

    The source fills the first block; `enrich` fills the second.
    `local` is this end whichever way the RST went (for ``forwarded``: the RST's source).
    `frame` is the packet as it entered the receiving namespace, `ingress` as it first entered this
    node, `trigger` the packet that provoked the reset, `actor` the process that had somebody else's
    socket reset (``ss -K``). `netns_identity` never repeats, as
    inode numbers do: it tells a namespace from an earlier one with the same `netns`. `sent_data` is
    what this end's socket sent last, where it is kept (``--payload``).

    The third block puts it among its neighbours in time, and may grow after the first verdict:
    `earlier` are RSTs of the same flow and direction before this one, newest first; `later` what
    came from the same end after it, oldest first, RSTs too; `our_acks` the ack numbers of our
    packets that any of these may have answered; `others` recent RSTs from other addresses;
    `period_s` is set where connections just like this one (same addresses and service) are reset
    again and again: the time between two, in seconds.

    `other_end` is what another vantage point says of it (``rsttrace compare``).
    """

    time_ns: int
    kind: Kind
    cause: Cause
    local: Endpoint
    remote: Endpoint
    rst: Packet
    netns: int | None
    trigger: Packet | Seen | None = None
    baseline: Baseline = field(default_factory=Baseline)
    socket: Socket | None = None
    frame: Frame | None = None
    ingress_frame: Frame | None = None
    made_here: MadeHere | None = None
    process: Process | None = None
    actor: Process | None = None
    file: str | None = None
    file_frame: int | None = None
    seen: int = 1
    netns_identity: int | None = None
    sent_data: SentData | None = None

    netns_name: str | None = None
    neighbor: Neighbor | None = None
    ingress: Neighbor | None = None
    next_hop: NextHop | None = None
    container: Container | None = None
    pod: Pod | None = None

    earlier: tuple[Seen, ...] = ()
    later: tuple[Seen, ...] = ()
    our_acks: frozenset[int] = frozenset()
    others: tuple[Other, ...] = ()
    period_s: float | None = None

    other_end: OtherEnd | None = None

    @property
    def family(self) -> int:
        """4 or 6: the RST's own IP version."""
        return self.rst.family


@dataclass(frozen=True)
class Evidence:
    """One rule's finding.

    `weight` is the log-odds it adds for "forged" (natural logarithm; negative speaks for the
    peer; 0: looked at, says nothing). `proof` decides alone. `values` are the numbers compared.
    """

    rule: str
    weight: float
    text: str
    values: dict[str, Any] = field(default_factory=dict)
    proof: bool = False


@dataclass(frozen=True)
class Verdict:
    """Who made a reset, how sure, and why.

    `confidence` is the probability given to `origin` (``None`` when inconclusive); `score` the sum
    of the weights. `considered` holds every rule that was looked at, `evidence` those that spoke.
    `hops_rst` and `hops_peer` are router hops implied by the TTLs.
    """

    origin: Origin
    confidence: float | None
    score: float
    evidence: tuple[Evidence, ...] = ()
    considered: tuple[Evidence, ...] = ()
    hops_rst: int | None = None
    hops_peer: int | None = None
    findings: tuple[str, ...] = ()
    device_name: str | None = None
    device_fingerprint: str | None = None
    summary: str = ""


@dataclass(frozen=True)
class Entry:
    """One line of output: a reset with its verdict. `id` counts a run's entries from 1."""

    id: int
    reset: Reset
    verdict: Verdict
    amends: int | None = None


@dataclass(frozen=True)
class ProbeAnswer:
    """What came back to one TTL-limited probe.

    `kind` is ``exceeded`` (ICMP time exceeded: a router's), ``unreachable`` (ICMP destination
    unreachable from somebody else than the peer; `detail` says what), or the peer's ``syn-ack``,
    ``rst``, ``echo`` or ``unreachable-port``. `method` is what was sent: ``tcp``, ``udp``,
    ``icmp``. `ttl` is the answer's own TTL (hop limit) as it arrived. Probes of one `flow` have
    the same addresses and ports, so that what balances per flow sends them one way.
    """

    kind: str
    ip: str
    ttl: int | None
    rtt_ns: int
    flow: int
    method: str
    detail: str | None = None


@dataclass(frozen=True)
class Hop:
    """One place on the path: what answered probes whose TTL ended at the `number`th router.

    `sent` counts the TCP probes (the other methods are only asked where those get no answer).
    `name` is from reverse DNS: whoever owns the address chose it.
    """

    number: int
    sent: int
    answers: tuple[ProbeAnswer, ...] = ()
    names: tuple[str, ...] = ()

    @property
    def ips(self) -> tuple[str, ...]:
        """The addresses that answered, the most frequent first."""
        seen = [answer.ip for answer in self.answers]
        return tuple(sorted(dict.fromkeys(seen), key=lambda ip: -seen.count(ip)))

    @property
    def back(self) -> tuple[int, ...]:
        """How many routers the answers passed on their way to us, as their TTLs imply."""
        return tuple(sorted({hops(a.ttl) for a in self.answers if a.ttl is not None}))

    @property
    def rtt_ns(self) -> int | None:
        """The least round-trip time."""
        return min((answer.rtt_ns for answer in self.answers), default=None)


@dataclass(frozen=True)
class Path:
    """The devices between this host and a peer, as TTL-limited probes found them.

    `hops` are routers, nearest first, also those that never answered. `distance` is the least TTL
    with which a probe reached the peer (one more than the routers between), ``None`` if none was
    seen to; `peer_hop` holds its answers. `refused`: who sends probes back, in its own name.
    `echo_hops` is how many routers the peer's ICMP echo reply passed, as its TTL implies.
    `neighbor` is who has the address of the `next_hop`. `flows` is how many different source ports
    were used, `packets` how many probes were sent; `stopped`: the user ended it early.
    """

    source: str
    peer: Endpoint
    hops: tuple[Hop, ...]
    distance: int | None
    peer_hop: Hop | None
    refused: ProbeAnswer | None
    next_hop: NextHop | None
    neighbor: Neighbor | None
    flows: int
    packets: int
    duration_ns: int
    stopped: bool = False
    echo_hops: int | None = None

    @property
    def peer_back(self) -> tuple[int, ...]:
        """How many routers the peer's answers passed, as their TTLs imply."""
        return self.peer_hop.back if self.peer_hop else ()

    def hop(self, number: int) -> Hop | None:
        """The router with this number."""
        return self.hops[number - 1] if 1 <= number <= len(self.hops) else None


@dataclass(frozen=True)
class Holder:
    """A MAC that answers for an address: how often, and where it is to be found."""

    mac: str
    vendor: str | None
    answers: int
    bridge: BridgePort | None = None


@dataclass(frozen=True)
class AddressCheck:
    """Who says to have an address of our own link, when asked.

    `method` is ``arp`` (RFC 826) or ``nd`` (neighbour solicitation, RFC 4861 §7.2), `sent` how many
    questions were sent, `holders` who answered, the quickest first. `seen` are the MACs that
    packets with this address as their source had come from before.
    """

    ip: str
    method: str
    netns: int
    ifindex: int
    ifname: str | None
    sent: int
    holders: tuple[Holder, ...]
    duration_ns: int
    seen: tuple[str, ...] = ()

    @property
    def confirmed(self) -> bool:
        """Whether more than one has it."""
        return len(self.holders) > 1


@dataclass(frozen=True)
class Attempt:
    """One connection of a replay: bytes sent with a TTL, and what came back.

    `reset_ttl` is the TTL of the first RST that came (``None``: none did), `delay_ns` how long
    after the bytes. `exceeded` is the router that said that their TTL was exceeded. `reply`: the
    peer acknowledged or answered, so the bytes reached it.
    """

    ttl: int
    reset_ttl: int | None = None
    delay_ns: int | None = None
    exceeded: str | None = None
    reply: bool = False


@dataclass(frozen=True)
class Placement:
    """Where on a path a forged reset was made.

    `hop` is the number of the router that did, or that stands behind the link where it was done;
    ``None`` if that cannot be said. `sure` is ``proved`` (a replay), ``likely``, ``possible`` or
    ``unknown``. `text` says it in a sentence, `notes` what speaks for it or against it.
    """

    hop: int | None
    sure: str
    text: str
    notes: tuple[str, ...] = ()
    rst_hops: int | None = None


class Fate(enum.Enum):
    """What another vantage point of the same connection says of a RST.

    ``left``: it was seen there too, on its way here. ``never-sent``: it should have passed there
    and did not. ``arrived`` and ``never-arrived`` are for RSTs on their way there.
    """

    LEFT = "left"
    NEVER_SENT = "never-sent"
    ARRIVED = "arrived"
    NEVER_ARRIVED = "never-arrived"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class OtherEnd:
    """A RST as seen from the other vantage point (`point`: ``A`` or ``B``), whose data is `file`.

    `frame` is its frame there. `at_sender`: the other point is the sending host itself, as far as
    TTL and MAC tell. `logged`: the other point is a log of rsttrace, not a capture: it cannot prove
    that a RST was not sent. `why` is the reason for ``unknown``, else what the statement rests on.
    `trigger_arrived` says whether the packet that most likely provoked it reached the other point,
    `swapped_frame` is the frame there of the packet that left in its place, `swapped_sure` whether
    the IP ID says so too. `where` is the position between the points, in words.
    """

    fate: Fate
    point: str
    file: str
    frame: int | None = None
    at_sender: bool = False
    logged: bool = False
    why: str = ""
    trigger_arrived: bool | None = None
    swapped_frame: int | None = None
    swapped_sure: bool = False
    where: str = ""


@dataclass(frozen=True)
class Position:
    """Where between the vantage points A and B a device sits that forges.

    `from_a` and `from_b` are routers between it and the points, `total` those between the points,
    each ``None`` where it cannot be told. `sure` is ``likely``, ``possible`` or ``unknown``.
    `within` is the share of the way (0 at A, 1 at B) up to which, or with `within_of` ``B`` from
    which, timing allows it to be. `text` is one sentence, `notes` are what it rests on.
    """

    from_a: int | None
    from_b: int | None
    total: int | None
    sure: str
    text: str
    notes: tuple[str, ...] = ()
    within: float | None = None
    within_of: str | None = None
    kind: str = "router"


@dataclass(frozen=True)
class ComparedReset:
    """What a comparison says of one RST. `point` is where it was seen (``A`` or ``B``)."""

    point: str
    frame: int | None
    received: bool | None
    src: Endpoint
    dst: Endpoint
    other: OtherEnd
    position: Position | None = None


@dataclass(frozen=True)
class ComparedFlow:
    """One connection at both points; `a` and `b` are its ends as each point sees them.

    The first end is the one that opened it, where the handshake was seen. `how` is ``addresses``,
    ``initial-sequence-numbers``, ``sequence-numbers``, or why it was not compared: ``ambiguous``,
    ``renumbered``, ``one-sided``. `sure`: ``sure``, ``likely``, ``possible`` or ``unknown``.
    """

    a: tuple[Endpoint, Endpoint] | None
    b: tuple[Endpoint, Endpoint] | None
    how: str
    sure: str
    text: str
    resets: tuple[ComparedReset, ...] = ()


@dataclass(frozen=True)
class Clocks:
    """How far B's clock is ahead of A's, in nanoseconds.

    `lower` and `upper` bound it: no packet arrives before it left. `offset` is their middle
    (RFC 5905 §8: half the round trip is the largest error) at the middle of the comparison;
    ``None`` where packets were seen one way only. `drift_ppm` is how much B's clock gains.
    `steady` is false where packets contradict each other: a clock was set in between.
    `from_a` and `from_b` count the packets it rests on.
    """

    offset: int | None
    lower: int | None
    upper: int | None
    drift_ppm: float
    steady: bool
    from_a: int
    from_b: int

    @property
    def error(self) -> int | None:
        """How wrong `offset` can be: half of the least round trip between the points."""
        if self.lower is None or self.upper is None:
            return None
        return abs(self.upper - self.lower) // 2


@dataclass(frozen=True)
class Way:
    """Packets of the compared connections from one point to the other, resets apart.

    `left` passed the first point while the second was watching; `lost` of them did not arrive.
    `injected` arrived and had never left. `swapped` of the lost arrived as another packet.
    `hops` is how many routers decremented their TTL in between.
    """

    left: int
    arrived: int
    lost: int
    injected: int
    swapped: int
    hops: int | None


@dataclass(frozen=True)
class Point:
    """One vantage point: a capture, or (`logged`) JSON lines of rsttrace.

    `first_ns` and `last_ns` are the times of its first and last packet (entry), by its own clock;
    `packets` counts TCP packets, ``None`` for a log. `address` is the one address behind it, if it
    is one.
    """

    name: str
    file: str
    logged: bool
    packets: int | None
    flows: int | None
    resets: int
    first_ns: int | None
    last_ns: int | None
    problem: str | None = None
    address: str | None = None


@dataclass(frozen=True)
class Comparison:
    """Two vantage points of the same connections, compared.

    `matched` counts connections seen at both, by how they were matched; `flows` are those with
    resets. `ab` and `ba` are the packets on their way from A to B and back. `positions` puts each
    forging device on the path, with how many resets say so. `notes` say what could not be known.
    """

    a: Point
    b: Point
    matched: dict[str, int]
    clocks: Clocks | None
    ab: Way | None
    ba: Way | None
    flows: tuple[ComparedFlow, ...] = ()
    positions: tuple[tuple[Position, int], ...] = ()
    notes: tuple[str, ...] = ()


INITIAL_TTLS = (32, 64, 128, 255)
"""Initial TTLs that real stacks use: 64 Linux/BSD/macOS, 128 Windows, 255 routers and Solaris."""


@cache
def initial_ttl(ttl: int) -> int:
    """The initial TTL a packet most likely started with, given the TTL it arrived with."""
    return next(initial for initial in INITIAL_TTLS if ttl <= initial)


def hops(ttl: int) -> int:
    """How many routers decremented a packet's TTL (hop limit): initial minus received."""
    return initial_ttl(ttl) - ttl
