"""A reset, and what is known about it before anybody judges: the packet, the flow, the socket."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rsttrace.model.comparison import OtherEnd
from rsttrace.model.record import SLOTS, record
from rsttrace.model.word import Word

NO_TIME = -(1 << 80)
"""The time of a packet without one (pcapng's Simple Packet Block): no calendar has it."""


class Kind(Word):
    """Where the RST was seen and by which code path; the value is the word used in the JSON."""

    SENT_PASSIVE = "sent-passive"
    SENT_ACTIVE = "sent-active"
    SENT_NETFILTER = "sent-netfilter"
    SENT_RAW = "sent-raw"
    RECEIVED_ACCEPTED = "received-accepted"
    RECEIVED_REJECTED = "received-rejected"
    RECEIVED_UNMATCHED = "received-unmatched"
    FORWARDED = "forwarded"

    direction: str
    """``sent``, ``received`` or ``forwarded``."""

    def __init__(self, word: str) -> None:
        super().__init__(word)
        self.direction = word.partition("-")[0]


class Scope(Word):
    """What a baseline was learned from."""

    FLOW = "flow"
    PEER = "peer"
    NONE = "none"


@record
class Endpoint:
    """One end of a connection. `ip` is the text form; v4-mapped addresses are given as IPv4."""

    ip: str
    port: int

    def __str__(self) -> str:
        """``10.0.0.5:80`` or ``[2001:db8::5]:80``."""
        return f"[{self.ip}]:{self.port}" if ":" in self.ip else f"{self.ip}:{self.port}"


@record
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

    @classmethod
    def unread(cls, src: Endpoint, dst: Endpoint) -> Packet:
        """Stands for a RST whose headers nobody could read (`Reset.unread`): its ends, no more."""
        ip_id = None if ":" in src.ip else 0
        return cls(src, dst, 0, ip_id, None, 0, "R", 0, 0, None, length=0, payload_len=0)

    @property
    def family(self) -> int:
        """4 or 6."""
        return 6 if self.ip_id is None else 4


@record
class Seen:
    """The fields kept of one earlier packet of a flow. `time_ns` is CLOCK_REALTIME.

    `ip_id` and `df` are ``None`` for IPv6, which has neither. `segments` counts the wire packets
    that one offloaded (GSO/GRO) buffer stood for: their IP IDs are ``ip_id`` ..
    ``ip_id + segments - 1``. `window` is ``None`` where a capture cut it off. `tsval` and `tsecr`
    are the TCP timestamps (RFC 7323 §3.2), ``None`` where the packet had none. `tos` is the TOS
    byte or traffic class. Of RSTs and late packets only: `options`, the TCP options in tcpdump's
    words, `mac`, the source MAC, and, from captures, `checksum_ok`, whether the TCP checksum is
    right (``None``: cannot be told).
    """

    time_ns: int
    ttl: int
    ip_id: int | None
    df: bool | None
    flags: str
    seq: int
    ack: int
    window: int | None
    payload_len: int
    segments: int = 1
    tsval: int | None = None
    tsecr: int | None = None
    options: str | None = None
    mac: str | None = None
    checksum_ok: bool | None = None
    tos: int | None = None


@record
class TtlCount:
    """How many packets of one direction came with one TTL (hop limit).

    `packets` are those whose numbers, timestamps and flags fit the connection, also while their
    TTL did not; `strange` are the others. Times are CLOCK_REALTIME.
    """

    ttl: int
    packets: int
    first_ns: int
    last_ns: int
    strange: int = 0


@record
class Half:
    """One direction of a flow: what its packets looked like before the reset.

    Only packets that fit are learned: those that this end's own stack could have sent and the other
    end's would accept (``bpf/flow.h`` says which). `strange` counts the others; they are in `ttls`,
    and nowhere else. `strange_ns` is when the newest of them came.

    `ttl` is the newest packet's TTL (hop limit for IPv6), `ttl_min`/`ttl_max` the range over all
    `packets`, `syn_ttl` that of the SYN or SYN-ACK, `syn_options` its TCP options in tcpdump's
    words; ``None`` where none was seen. `df_always` is true when every packet had DF.
    `timestamps` says that a packet carried the TCP timestamp option. `recent` is the newest
    packets, newest first. `end` is the sequence number that follows everything this end was seen
    to send (SYN and FIN count, RFC 9293 §3.4), `acked` the highest number it acknowledged.

    `ttls` are up to 4 distinct TTLs of this direction's packets, most frequent first. `fin_ns` is
    when its first FIN came. `syns` says how often its SYN or SYN-ACK was sent (the first one and
    its retransmissions). `confirmed`: it acknowledged something that the other end sent, so it
    is no blind sender. `new_syn` is the newest SYN (without ACK) with another sequence number that
    came while the connection lived. `clock` is (TSval, time) of the first and of the newest packet
    with timestamps. `checksums_wrong`, of captures only: every packet that was looked at (the first
    4 whole ones) has a wrong TCP checksum; false where one was right. `confirmed_ns`, of captures
    only too, is when it was `confirmed`. Times are CLOCK_REALTIME.
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
    ttls: tuple[TtlCount, ...] = ()
    fin_ns: int | None = None
    strange: int = 0
    strange_ns: int | None = None
    syns: int = 0
    confirmed: bool = False
    new_syn: Seen | None = None
    clock: tuple[tuple[int, int], ...] = ()
    checksums_wrong: bool | None = None
    acked: int | None = None
    confirmed_ns: int | None = None


@record
class Peer:
    """The newest confirmed handshake of an address in this namespace (or file), any connection.

    A SYN or SYN-ACK is confirmed once its sender has acknowledged something that we sent: a lone
    SYN can be sent by anybody in any name. `ttls` are those of that address's newest confirmed
    handshakes, newest first, without repeating neighbours; the rest is of the newest one: its TTL,
    TCP options in words, window, DF (``None`` for IPv6), source MAC, and its time (CLOCK_REALTIME).
    """

    ttls: tuple[int, ...]
    syn_ttl: int
    syn_options: str | None
    syn_window: int | None
    df: bool | None
    mac: str | None
    time_ns: int


@record
class Baseline:
    """What this flow (else this peer) looked like before the reset.

    `theirs` is the direction the RST came from, `ours` the other one. With scope ``peer`` only
    `theirs` is known, from the newest confirmed handshake of that address in this namespace.
    `peer` is that handshake, whatever the scope; `peer_ttls` are its `ttls`.
    """

    scope: Scope = Scope.NONE
    theirs: Half | None = None
    ours: Half | None = None
    peer_ttls: tuple[int, ...] = ()
    peer: Peer | None = None


@record
class SentData:
    """The last packet with data that a socket sent, and the first bytes of that data.

    `packet` has no TCP options and, where the card computes it, no valid checksum.
    """

    time_ns: int
    packet: Packet
    payload: bytes


@record
class LatePacket:
    """What came from an end after a RST in its name, which should have been its last packet.

    The first such packet, and a few that no honest sender would send: a new SYN-ACK, or data or a
    FIN beyond the RST's sequence number (Weaver, Sommer, Paxson, NDSS 2009). Or (`handshake`) the
    SYN or SYN-ACK of a later connection of the same address, which it has confirmed (see Peer): it
    shows how far away and which stack that address's host is. Such a `packet` has no `raw`.
    `mac` is the source MAC. `time_ns` is CLOCK_REALTIME; `netns_identity` and `file` as in Reset.
    """

    time_ns: int
    packet: Packet
    netns_identity: int | None = None
    file: str | None = None
    mac: str | None = None
    handshake: bool = False


@record
class Race:
    """One end closed after a silence, and the other end's data came after that.

    `by` is the end that closed, ``peer`` or ``local``; `idle_ns` how long nothing had been sent
    before its FIN, `used_ns` how long nothing had been when the other end used the connection
    again, both in nanoseconds.
    """

    by: str
    idle_ns: int
    used_ns: int


@record
class Upstream:
    """A connection that a process had opened and that was reset: to `remote`, at `time_ns`
    (CLOCK_REALTIME); `refused`: before it was established."""

    remote: Endpoint
    time_ns: int
    refused: bool


@record
class Other:
    """A RST that came from another address: `ip_id` may betray that one box made both."""

    ip: str
    time_ns: int
    ip_id: int
    ttl: int


@record
class Cause:
    """Why a RST was sent, or what it did. `kernel_reason` is the kernel's own name, if any.

    Where the connection had been closed before, as far as its packets show: `closed_by` is the end
    whose FIN (or RST) came first, ``peer`` or ``local``; `closed_ms` how long before this RST that
    was, in milliseconds; `idle_s` for how long nothing had been sent either way before it, in
    seconds.
    """

    name: str
    text: str
    kernel_reason: str | None = None
    closed_by: str | None = None
    closed_ms: float | None = None
    idle_s: float | None = None


@record
class Note:
    """What this node itself knows about why: found beside the packets, in its sockets and rules.

    `name` is the word that programs see (among the findings), `text` a sentence, `values` the
    numbers and names in it. Names and texts of others are as they came; output escapes them.
    """

    name: str
    text: str
    values: Mapping[str, Any] = field(default_factory=dict)


@record
class Frame:
    """A packet at one interface: where it was and which MAC handed it over (None: no Ethernet).

    `netns` and `ifindex` are ``None`` where a capture does not tell them.
    """

    netns: int | None
    ifindex: int | None
    mac: str | None
    ttl: int


@record
class Sighting:
    """A packet as a capture shows it at one place. `frame` counts from 1, as Wireshark does.

    `interface` is the interface's index (Linux cooked 2, NFLOG) or its number in the pcapng
    section, `ifname` its name there; ``None`` where the file has none. `mac` is the frame's source.
    """

    frame: int
    time_ns: int
    interface: int | None
    ifname: str | None
    ttl: int
    mac: str | None


@record
class BridgePort:
    """A port of a bridge of this node, behind which a MAC is. Indices and names of interfaces."""

    bridge: str | None
    bridge_ifindex: int
    port: str | None
    ifindex: int


@record
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


@record
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
    ifindex: int | None
    ifname: str | None
    netns: int | None
    bridge: BridgePort | None = None
    switch: SwitchPort | None = None


@record
class NextHop:
    """Our own route to the peer: next hop's address, its MAC (if the neighbour table has it).

    `is_local`: the peer's address is this namespace's own.
    """

    ip: str
    mac: str | None
    is_gateway: bool
    ifindex: int | None
    is_local: bool = False


@record
class Process:
    """The socket owner's process. ``uid`` is the socket's owner even where pid is unknown.

    `listener`: it is the listener's, by which the connection had come; who had that is not known,
    or nobody had accepted it yet. `exit_signal` or `exit_status` (as wait(2) tells them) where the
    kernel closed the connection because the process was ending. Both ``None``: it ran, or it is not
    known. `cgroup` is the cgroup v2 id that it had when the kernel side saw it last.
    """

    pid: int | None
    comm: str | None
    uid: int | None
    exit_signal: int | None = None
    exit_status: int | None = None
    listener: bool = False
    cgroup: int | None = None

    @property
    def end(self) -> str | None:
        """How it ended, whose connections the kernel closed then; ``None``: it had not ended."""
        if self.exit_signal is None:
            status = self.exit_status
            return None if status is None else f"its process exited (status {status})"
        try:
            name = signal.Signals(self.exit_signal).name
        except ValueError:  # a real-time signal
            name = f"signal {self.exit_signal}"
        return f"its process was killed ({name})"


@record
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


@record
class Timers:
    """What a connection's timers had counted when it was reset (tcp_keepalive_timer()).

    `silent_ms`: since the peer was last heard. `unanswered`: keepalive or window probes,
    `retransmits` of the oldest segment in flight. `user_timeout_ms` is TCP_USER_TIMEOUT (``None``:
    not set); the keepalive settings are the socket's own or its namespace's, whether or not it has
    SO_KEEPALIVE: first probe after `keepalive_idle_ms`, then every `keepalive_interval_ms`, up to
    `keepalive_probes`.
    """

    silent_ms: int
    unanswered: int
    retransmits: int
    user_timeout_ms: int | None
    keepalive_idle_ms: int
    keepalive_interval_ms: int
    keepalive_probes: int


@record
class AcceptQueue:
    """A listener's connections that wait for accept().

    It is full with more than `limit` (sk_acceptq_is_full()): the backlog of listen(), at most
    net.core.somaxconn. `aborts`: net.ipv4.tcp_abort_on_overflow of its namespace.
    """

    length: int
    limit: int
    aborts: bool

    @property
    def full(self) -> bool:
        """Whether there is no room for another one."""
        return self.length > self.limit


@record
class Socket:
    """The socket a reset belongs to. `state` is the state *before* the reset.

    `srtt_us`, `min_rtt_us`: microseconds. `inode` is the socket's inode in sockfs, as in
    ``/proc/PID/fd``; ``None`` once the socket has left its file (orphaned). `minisocket`: it is all
    that is left of a closed connection (struct inet_timewait_sock); its state may be FIN_WAIT2.
    `timers` only where the connection was reset from this end, `accept_queue` only of listeners.
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
    minisocket: bool = False
    timers: Timers | None = None
    accept_queue: AcceptQueue | None = None


@record
class Container:
    """A container, from the socket's cgroup path. `name` only where the node's files tell it."""

    id: str
    name: str | None = None


@record
class Pod:
    """A Kubernetes pod, from the cgroup path and the node's log directory."""

    namespace: str | None
    name: str | None
    uid: str | None = None


@record
class Probed:
    """What the peer answered when it was asked (``--probe``).

    `method` is what was sent: ``echo`` (ICMP echo, RFC 792, RFC 4443), ``syn`` (to a port that had
    answered), ``arp`` or ``nd`` (who has its address on our own link). `ttl` is the TTL (hop limit)
    of its answer, ``None`` where none came or none was asked for; `ttls` those of all answers.
    `mac` is who handed the answer over, `macs` are all that say to have the address. `time_ns`
    (CLOCK_REALTIME) is when. `text` says in words what was asked and answered.
    """

    method: str
    ttl: int | None
    mac: str | None
    time_ns: int
    text: str
    ttls: tuple[int, ...] = ()
    macs: tuple[str, ...] = ()


@record
class Counted:
    """Resets of a storm that were counted in the kernel, not told one by one.

    Times are CLOCK_REALTIME, of the first and of the last one. `alike` says what they have in
    common, beside the kind: ``peer`` (cause, namespace, the other end's address, the service's
    port: the smaller one), ``service`` (the same, from any address), ``netns`` (the namespace
    alone), or ``kind`` (nothing else).
    """

    first_ns: int
    last_ns: int
    alike: str


@dataclass(**SLOTS)
class Reset:
    """One RST, seen once, with everything known about it.

    The source fills the first block; `enrich` fills the second.
    `local` is this end whichever way the RST went (for ``forwarded``: the RST's source).
    `frame` is the packet as it entered the receiving namespace, `ingress` as it first entered this
    node, `trigger` the packet that provoked the reset, `actor` the process that had somebody else's
    socket reset (``ss -K``). `netns_identity` never repeats, as
    inode numbers do: it tells a namespace from an earlier one with the same `netns`. `sent_data` is
    this end's socket sent last, where it is kept (``--payload``). `payload` is the first bytes of
    the RST's own payload, as far as they were seen (at most 120); ``None``: it has none, or nothing
    of it was seen. `sightings` are the places where a capture shows it, in the order of the file;
    `file_frame` is the one it is judged from: the nearest to the receiver. `hook` is the netfilter
    hook in which this namespace's own firewall made it.

    The third block puts it among its neighbours in time, and may grow after the first verdict:
    `earlier` are RSTs of the same flow and direction before this one, newest first; `later` what
    came from the same end after it, oldest first, RSTs too; `our_acks` the ack numbers of our
    packets that any of these may have answered; `we_reset_ns` when we had reset the connection
    ourselves, `ended_ns`, of a RST that we sent, when one that came in had ended the connection;
    `others` recent RSTs from other addresses;
    `races` are this connection's and others' of the same service that were closed after the same
    silence, where that recurs;
    `period_s` is set where connections just like this one (same addresses and service) are reset
    again and again: the time between two, in seconds;
    `upstream` is the connection of the same process to another host that failed just before.

    `unread`: its headers could not be read where it came in. Then `rst` has nothing but its ends,
    which are the socket's, and nothing was judged.

    `flags_alone`: of the capture that it is in, every packet has SYN, FIN or RST, as a filter for
    these flags leaves it.

    `seen` is how many resets it stands for; where that is more than one, `counted` tells of all of
    them, and the rest (the packet, the other end's port) is one's.

    `notes` are what the node knows about why. `other_end` is what another vantage point says of it
    (``rsttrace compare``), `probed` what the peer answered when it was asked about it. `memo` is
    the judge's: what it derives from the rest while it looks at one reset.
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
    counted: Counted | None = None
    unread: bool = False
    flags_alone: bool = False
    netns_identity: int | None = None
    sent_data: SentData | None = None
    payload: bytes | None = None
    sightings: tuple[Sighting, ...] = ()
    hook: str | None = None

    netns_name: str | None = None
    neighbor: Neighbor | None = None
    ingress: Neighbor | None = None
    next_hop: NextHop | None = None
    container: Container | None = None
    pod: Pod | None = None
    unit: str | None = None

    earlier: tuple[Seen, ...] = ()
    later: tuple[Seen, ...] = ()
    our_acks: frozenset[int] = frozenset()
    we_reset_ns: int | None = None
    ended_ns: int | None = None
    others: tuple[Other, ...] = ()
    races: tuple[Race, ...] = ()
    period_s: float | None = None
    upstream: Upstream | None = None

    notes: tuple[Note, ...] = ()
    other_end: OtherEnd | None = None
    siblings: tuple[Reset, ...] = ()
    gateway_keeps_ttl: bool = False
    probed: Probed | None = None

    memo: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def family(self) -> int:
        """4 or 6: the RST's own IP version."""
        return self.rst.family
