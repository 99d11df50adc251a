"""The devices on the path to a peer, found by TTL-limited probes to the peer's own port.

First a SYN and an echo request with a whole TTL: the answer's TTL says how far the peer likely is,
its time how long to wait. Then SYNs with every TTL up to there, all at once; where nobody
answers, UDP and ICMP echo as well. The SYNs are written through a raw socket: our kernel, which
knows nothing of them, resets what the peer answers (tcp_v4_send_reset; RFC 9293 §3.10.7.1), so that
nothing half-open stays there and no program of the peer sees a connection. A running tracer shows
these resets for what they are: sent by this host, for want of a socket.

Each round of probes is one flow with ports of its own, reserved by a bound socket: what balances by
ports sends all TTLs of a round one way (as Paris traceroute does: Augustin and others, IMC 2006),
and several rounds show that there is more than one way.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import random
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from rsttrace.enrich import probes
from rsttrace.errors import PrivilegeError, RsttraceError, UsageError
from rsttrace.model import Endpoint, Hop, Neighbor, NextHop, Path, ProbeAnswer, hops
from rsttrace.tcp import advance

FULL_TTL = 64
"""What our stack sends with (net.ipv4.ip_default_ttl, IPV6_DEFAULT_HOPLIMIT)."""

WINDOW = 8
"""How many TTLs to try at once where the peer's distance is unknown; so many silent ones end it."""

LEAST_WAIT_S = 0.5
"""Routers answer on their slow path: give them so much longer than the peer takes."""

UDP_PORT = 33434
"""Where traceroute(8) begins: ports that nobody is likely to serve."""

_SLICE_S = 0.1  # how often to look whether the user wants to stop
_SO_ATTACH_FILTER = 26  # include/uapi/asm-generic/socket.h
_SO_TIMESTAMPNS = 35
_ICMP_FILTER = 1  # include/uapi/linux/icmp.h
_SOL_RAW = 255
_ICMP6_FILTER = 1  # include/uapi/linux/icmpv6.h
_IPV6_RECVHOPLIMIT, _IPV6_HOPLIMIT = 51, 52  # include/uapi/linux/in6.h

T = TypeVar("T")


@dataclass(frozen=True)
class Limits:
    """What one run may cost: TTLs up to `max_hops`, `probes` rounds, `timeout_s` for an answer."""

    max_hops: int = 30
    probes: int = 3
    timeout_s: float = 2.0


@dataclass(frozen=True)
class Target:
    """The peer's address, resolved: `sockaddr` as Python's sockets take it, with port 0."""

    ip: str
    port: int
    family: int
    sockaddr: tuple[str | int, ...]

    @property
    def packed(self) -> bytes:
        """The address in network byte order."""
        return socket.inet_pton(_address_family(self.family), self.ip.partition("%")[0])


@dataclass
class _Probe:
    method: str
    ttl: int
    flow: int
    sent_ns: int  # CLOCK_REALTIME, as the kernel stamps answers
    ends: float  # CLOCK_MONOTONIC, seconds
    answer: ProbeAnswer | None = None


def resolve(peer: str, port: int, family: int | None = None) -> Target:
    """An address or a name, to one address (IPv4 or IPv6 if `family` is 4 or 6).

    Raises:
        UsageError: it is neither, or has no address of that family.
    """
    wanted = socket.AF_UNSPEC if family is None else _address_family(family)
    port = int(port)  # getaddrinfo refuses subclasses, such as a decoded field
    try:
        found = socket.getaddrinfo(peer, port, wanted, socket.SOCK_STREAM)
    except (OSError, UnicodeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(
            f"{peer!r} is not an address, and as a name it does not resolve: {reason}",
            hint="give an IPv4 or IPv6 address, as 10.0.0.1:443 or [2001:db8::1]:443",
        ) from None
    kind, _, _, _, address = found[0]
    ip = str(address[0])
    if kind == socket.AF_INET:
        return Target(ip, port, 4, (ip, 0))
    # the scope is an interface's number; the protocol goes where the port does, and 0 fits it
    scope = int(address[3]) if len(address) > 3 else 0
    return Target(ip.partition("%")[0], port, 6, (ip.partition("%")[0], 0, 0, scope))


def inside(netns_path: str | None, function: Callable[[], T]) -> T:
    """Call a function in a network namespace (of a path that opens), or just call it.

    setns(2) moves only the calling thread: a thread of its own enters, calls, and ends.

    Raises:
        PrivilegeError: not allowed to enter.
        RsttraceError: it cannot be entered.
        Exception: whatever the function raises.
    """
    if netns_path is None:
        return function()
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        from pyroute2 import netns

        try:
            with open(netns_path, "rb", buffering=0) as file:
                try:
                    netns.setns(file.fileno(), libc=ctypes.CDLL(None, use_errno=True))
                except OSError as error:
                    raise _cannot_enter(netns_path, error) from None
                results.append(function())
        except FileNotFoundError as error:
            errors.append(_cannot_enter(netns_path, error))
        except BaseException as error:  # handed to the caller
            errors.append(error)

    thread = threading.Thread(target=run, name="rsttrace-netns", daemon=True)
    thread.start()
    while thread.is_alive():  # so that a signal's handler runs in between
        thread.join(_SLICE_S)
    if errors:
        raise errors[0]
    return results[0]


def _cannot_enter(path: str, error: OSError) -> RsttraceError:
    if error.errno == errno.EPERM:
        return PrivilegeError("entering a network namespace needs root", hint="run it with sudo")
    return RsttraceError(f"cannot enter the network namespace {path!r}: {error.strerror}")


class Prober:
    """Sends probes to one peer and collects the answers. Use it as a context manager, and once.

    It works in the network namespace of the thread that enters it.

    Raises (on entering):
        PrivilegeError: no raw sockets without CAP_NET_RAW.
        RsttraceError: there is no route to the peer.
    """

    def __init__(
        self,
        target: Target,
        limits: Limits,
        *,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        """`stopped` is asked often: when it is true, what is known so far is the result."""
        self._target = target
        self._limits = limits
        self._stopped = stopped
        self._closing = contextlib.ExitStack()
        self._wait_s = limits.timeout_s
        self._probes: dict[tuple[str, tuple[int, int]], _Probe] = {}
        self._identifier = random.getrandbits(16)
        self._packets = 0
        self.source = ""

    def __enter__(self) -> Prober:
        try:
            self._open()
        except BaseException:
            self._closing.close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._closing.close()

    def run(self) -> tuple[tuple[Hop, ...], Hop | None, int | None, ProbeAnswer | None, int]:
        """Find the path.

        Returns:
            The routers, the peer, its distance, who refuses (see `rsttrace.model.Path`), and how
            many packets were sent.

        Raises:
            RsttraceError: this host's firewall does not let probes out, or a socket fails.
        """
        reached = self._reach()
        silent_from = self._sweep_tcp(reached)
        self._ask_otherwise(silent_from)
        return self._result()

    # What to send

    def _reach(self) -> ProbeAnswer | None:
        """Whether the peer answers at all; learns how long to wait for others."""
        sent = self._send((method, FULL_TTL, self._limits.probes) for method in ("tcp", "icmp"))
        for probe in sent:
            self._wait([probe])
            answer = probe.answer
            if answer is not None and answer.kind not in ("exceeded", "unreachable"):
                wait_s = max(LEAST_WAIT_S, 4 * answer.rtt_ns / 1e9)
                self._wait_s = min(self._limits.timeout_s, wait_s)
                return answer
            if self._stopped():
                break
        return None

    def _sweep_tcp(self, reached: ProbeAnswer | None) -> int:
        """SYNs with rising TTLs, until the peer or a refusal; the last TTL that was tried."""
        most = self._limits.max_hops
        first = 1
        last = min(most, WINDOW)
        if reached is not None and reached.ttl is not None:
            # the way there is about as long as the way back
            last = min(most, hops(reached.ttl) + 2)
        while True:
            sent = self._send(
                ("tcp", ttl, flow)
                for flow in range(self._limits.probes)
                for ttl in range(first, last + 1)
            )
            self._wait(sent)
            if last == most or self._distance() is not None or self._refusal() or self._stopped():
                return last
            unheard = all(probe.answer is None for probe in sent)
            if (reached is None and unheard) or (reached is not None and reached.method != "tcp"):
                return last
            first, last = last + 1, min(most, last + WINDOW)

    def _ask_otherwise(self, last: int) -> None:
        """UDP and ICMP to the places that answered no SYN."""
        end = self._end()
        quiet = [ttl for ttl in range(1, (end or last + 1)) if not self._answers(ttl)]
        if quiet and not self._stopped():
            self._wait(
                self._send((method, ttl, 0) for ttl in quiet for method in ("icmp", "udp")),
            )

    # What came back

    def _by_another(self, probe: _Probe) -> ProbeAnswer | None:
        """What came back, unless this host said that it could not send: no hop said that."""
        answer = probe.answer
        own = answer is not None and (answer.kind, answer.ip) == ("unreachable", self.source)
        return None if own else answer

    def _answers(self, ttl: int) -> list[ProbeAnswer]:
        answers = (self._by_another(p) for p in self._probes.values() if p.ttl == ttl)
        return [answer for answer in answers if answer is not None]

    def _distance(self) -> int | None:
        """The least TTL that reached the peer, whatever was sent."""
        return min(
            (
                probe.ttl
                for probe in self._probes.values()
                if probe.answer is not None
                and probe.flow < self._limits.probes  # not those with a whole TTL
                and probe.answer.kind not in ("exceeded", "unreachable")
            ),
            default=None,
        )

    def _refusal(self) -> tuple[int, ProbeAnswer] | None:
        """The nearest device that says, in its own name, that the peer cannot be reached.

        This host only if it let nothing out: its firewall may reject one protocol of three.
        """
        heard = any(self._by_another(probe) is not None for probe in self._probes.values())
        found = [
            (probe.ttl, answer)
            for probe in self._probes.values()
            if (answer := self._by_another(probe) if heard else probe.answer) is not None
            and answer.kind == "unreachable"
        ]
        return min(found, key=lambda item: item[0], default=None)

    def _end(self) -> int | None:
        """The TTL behind the last router: where the peer is, or behind the one that refuses.

        A router that has no way on says so before it looks at the TTL (ip_route_input_slow comes
        before ip_forward), others after: then it has a number already.
        """
        distance, refusal = self._distance(), self._refusal()
        if distance is not None:
            return distance
        if refusal is None or refusal[0] == FULL_TTL:  # nearer ones may be rate-limited
            return None
        ttl, answer = refusal
        if answer.ip == self.source:  # nothing left: the next hop's MAC is not to be had
            return 1
        known = any(item.ip == answer.ip for item in self._answers(ttl - 1))
        return ttl if known else ttl + 1

    def _result(self) -> tuple[tuple[Hop, ...], Hop | None, int | None, ProbeAnswer | None, int]:
        distance, refusal = self._distance(), self._refusal()
        routers: dict[int, list[_Probe]] = {}
        peer: list[_Probe] = []
        for probe in self._probes.values():
            whole_ttl = probe.flow == self._limits.probes
            if (whole_ttl and distance is None) or probe.ttl == distance:
                peer.append(probe)
            elif not whole_ttl and (distance is None or probe.ttl < distance):
                routers.setdefault(probe.ttl, []).append(probe)
        found = [self._hop(number, routers.get(number, [])) for number in self._numbers(routers)]
        answers = tuple(
            probe.answer
            for probe in peer
            if probe.answer is not None and probe.answer.kind not in ("exceeded", "unreachable")
        )
        sent = sum(probe.method == "tcp" for probe in peer)
        peer_hop = Hop(distance or 0, sent, answers) if answers else None
        return tuple(found), peer_hop, distance, refusal[1] if refusal else None, self._packets

    def echo_hops(self) -> int | None:
        """How many routers the peer's echo reply to a whole TTL passed; ``None``: none came."""
        for probe in self._probes.values():
            answer = probe.answer
            if answer is not None and (answer.kind, probe.ttl) == ("echo", FULL_TTL):
                return None if answer.ttl is None else hops(answer.ttl)
        return None

    def _numbers(self, routers: dict[int, list[_Probe]]) -> range:
        """The hops to show: up to the peer, else one behind the last that answered."""
        end = self._end()
        if end is not None:
            return range(1, end)
        heard = [ttl for ttl, sent in routers.items() if any(map(self._by_another, sent))]
        return range(1, max(heard, default=0) + 1)

    def _hop(self, number: int, sent: list[_Probe]) -> Hop:
        answers = map(self._by_another, sent)
        return Hop(
            number,
            sum(probe.method == "tcp" for probe in sent),
            tuple(answer for answer in answers if answer is not None),
        )

    # Sockets

    def _open(self) -> None:
        family, target = _address_family(self._target.family), self._target
        closing = self._closing
        route = closing.enter_context(socket.socket(family, socket.SOCK_DGRAM))
        try:
            route.connect((target.sockaddr[0], target.port, *target.sockaddr[2:]))
        except OSError as error:
            raise RsttraceError(
                f"there is no way to {target.ip}: {error.strerror}",
                hint="look at the routes: ip route get " + target.ip,
            ) from None
        own = route.getsockname()
        self.source = str(own[0]).partition("%")[0]
        self._source_packed = socket.inet_pton(family, self.source)
        address = (own[0], 0, *own[2:])
        # a bound socket keeps its port from others; without listening it answers to nobody
        self._ports = []
        for _ in range(self._limits.probes + 1):
            holder = closing.enter_context(socket.socket(family, socket.SOCK_STREAM))
            holder.bind(address)
            self._ports.append(int(holder.getsockname()[1]))
        udp_holder = closing.enter_context(socket.socket(family, socket.SOCK_DGRAM))
        udp_holder.bind(address)
        self._udp_port = int(udp_holder.getsockname()[1])
        v4 = target.family == 4
        self._sockets = {
            "tcp": raw_socket(closing, target.family, socket.IPPROTO_TCP),
            "udp": raw_socket(closing, target.family, socket.IPPROTO_UDP),
            "icmp": raw_socket(
                closing, target.family, socket.IPPROTO_ICMP if v4 else socket.IPPROTO_ICMPV6
            ),
        }
        for sock in self._sockets.values():
            sock.bind(address)
        attach_filter(self._sockets["tcp"], probes.port_filter(target.family, self._ports))
        attach_filter(self._sockets["udp"], probes.port_filter(target.family, []))
        if v4:  # a set bit keeps a type out: let in echo reply, unreachable, time exceeded
            self._sockets["icmp"].setsockopt(
                _SOL_RAW, _ICMP_FILTER, struct.pack("=I", ~(1 << 0 | 1 << 3 | 1 << 11) & 0xFFFFFFFF)
            )
        else:
            mask = [0xFFFFFFFF] * 8
            for kind in (1, 3, 129):
                mask[kind >> 5] &= ~(1 << (kind & 31)) & 0xFFFFFFFF
            self._sockets["icmp"].setsockopt(
                socket.IPPROTO_ICMPV6, _ICMP6_FILTER, struct.pack("=8I", *mask)
            )

    def _send(self, wanted: Iterable[tuple[str, int, int]]) -> list[_Probe]:
        """Send probes: (method, TTL, flow). Answers that came meanwhile are taken in."""
        sent = []
        for method, ttl, flow in wanted:
            key, packet = self._build(method, ttl, flow)
            probe = _Probe(method, ttl, flow, time.time_ns(), time.monotonic() + self._wait_s)
            self._probes[method, key] = probe
            self._transmit(method, packet, ttl)
            self._packets += 1
            sent.append(probe)
            self._take_in(0)
            if self._stopped():
                break
        return sent

    def _build(self, method: str, ttl: int, flow: int) -> tuple[tuple[int, int], bytes]:
        source, target = self._source_packed, self._target.packed
        if method == "tcp":
            seq = random.getrandbits(32)
            ports = (self._ports[flow], self._target.port)
            return (ports[0], seq), probes.tcp_syn(source, target, ports, seq)
        if method == "udp":
            ports = (self._udp_port, UDP_PORT + ttl)
            return ports, probes.udp_datagram(source, target, ports)
        number = flow << 8 | ttl
        packet = probes.echo_request(self._target.family, self._identifier, number)
        return (self._identifier, number), packet

    def _transmit(self, method: str, packet: bytes, ttl: int) -> None:
        if self._target.family == 4:
            control = (socket.IPPROTO_IP, socket.IP_TTL, struct.pack("=i", ttl))
        else:
            control = (socket.IPPROTO_IPV6, _IPV6_HOPLIMIT, struct.pack("=i", ttl))
        try:
            self._sockets[method].sendmsg([packet], [control], 0, self._target.sockaddr)
        except OSError as error:
            if error.errno == errno.EPERM:
                raise RsttraceError(
                    f"this host's firewall does not let {method.upper()} probes out "
                    f"to {self._target.ip}",
                    hint="look at its output chain: nft list ruleset",
                ) from None
            if error.errno != errno.ENOBUFS:  # a full queue loses the probe, as any other would
                raise RsttraceError(f"cannot send to {self._target.ip}: {error.strerror}") from None

    def _wait(self, sent: Sequence[_Probe]) -> None:
        """Until each is answered, its time is over, or the user stops it."""
        while not self._stopped():
            waiting = [probe.ends for probe in sent if probe.answer is None]
            left = max(waiting, default=0.0) - time.monotonic()
            if not waiting or left <= 0:
                return
            self._take_in(min(left, _SLICE_S))

    def _take_in(self, seconds: float) -> None:
        """Read every answer that is here; wait for the first one at most so long."""
        listening = [self._sockets["tcp"], self._sockets["icmp"]]
        readable, _, _ = select.select(listening, [], [], seconds)
        for sock in readable:
            for received in receive(sock, self._target.family):
                if sock is self._sockets["tcp"]:
                    self._tcp_answer(received)
                else:
                    self._icmp_answer(received)

    def _tcp_answer(self, received: Received) -> None:
        segment = probes.read_tcp(received.data)
        if segment is None or segment.source_port != self._target.port:
            return
        if not same_address(received.ip, self._target.ip) or not segment.flags & probes.ACK:
            return
        key = (segment.target_port, advance(segment.ack, -1))
        if segment.flags & probes.RST:
            self._answered("tcp", key, "rst", received)
        elif segment.flags & probes.SYN:
            self._answered("tcp", key, "syn-ack", received)

    def _icmp_answer(self, received: Received) -> None:
        quote = probes.read_icmp(self._target.family, received.data)
        if quote is None:
            return
        kind = quote.kind
        from_peer = same_address(received.ip, self._target.ip)
        if kind == "echo" and not from_peer:
            return
        if kind == "unreachable" and from_peer:
            kind = "unreachable-port"
        self._answered(quote.method, quote.key, kind, received, quote.detail)

    def _answered(
        self,
        method: str,
        key: tuple[int, int],
        kind: str,
        received: Received,
        detail: str | None = None,
    ) -> None:
        probe = self._probes.get((method, key))
        if probe is None or probe.answer is not None:
            return
        rtt_ns = max(0, received.time_ns - probe.sent_ns)
        probe.answer = ProbeAnswer(
            kind, received.ip, received.ttl, rtt_ns, probe.flow, method, detail
        )


@dataclass(frozen=True)
class Received:
    """A packet from a raw socket: `data` begins behind the IP header."""

    ip: str
    ttl: int | None
    data: bytes = field(repr=False)
    time_ns: int = 0


def raw_socket(closing: contextlib.ExitStack, family: int, protocol: int) -> socket.socket:
    """A raw socket that does not block and stamps what it receives; closed with `closing`.

    Raises:
        PrivilegeError: CAP_NET_RAW is missing (raw(7)).
    """
    try:
        sock = socket.socket(_address_family(family), socket.SOCK_RAW, protocol)
    except PermissionError:
        raise PrivilegeError(
            "probing a path needs root (CAP_NET_RAW)", hint="run it with sudo"
        ) from None
    closing.enter_context(sock)
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    if family == 6:
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVHOPLIMIT, 1)
    return sock


def attach_filter(sock: socket.socket, program: bytes) -> None:
    """Attach a classic BPF program (``struct sock_filter`` after another)."""
    buffer = ctypes.create_string_buffer(program, len(program))
    sock.setsockopt(
        socket.SOL_SOCKET,
        _SO_ATTACH_FILTER,
        struct.pack("HP", len(program) // 8, ctypes.addressof(buffer)),
    )


def receive(sock: socket.socket, family: int) -> Iterator[Received]:
    """Everything that waits in a raw socket."""
    while True:
        try:
            data, ancillary, _, address = sock.recvmsg(65535, 256)
        except BlockingIOError:
            return
        except OSError:  # an ICMP error that the kernel reports here (raw_err): read elsewhere
            continue
        ttl, time_ns = None, time.time_ns()
        for level, kind, value in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS) and len(value) == 16:
                seconds, nanoseconds = struct.unpack("=qq", value)
                time_ns = seconds * 1_000_000_000 + nanoseconds
            elif (level, kind) == (socket.IPPROTO_IPV6, _IPV6_HOPLIMIT):
                ttl = struct.unpack("=i", value[:4])[0]
        if family == 4:
            split = probes.split_ipv4(data)
            if split is None:
                continue
            ttl, data = split
        yield Received(str(address[0]).partition("%")[0], ttl, data, time_ns)


def find_path(
    target: Target,
    limits: Limits,
    *,
    netns_path: str | None = None,
    surroundings: Callable[[str], tuple[NextHop | None, Neighbor | None]] = lambda ip: (None, None),
    stopped: Callable[[], bool] = lambda: False,
) -> Path:
    """Find the path to a peer from a network namespace (default: our own).

    `surroundings` tells the next hop on the way to an address, and who has it.

    Raises:
        RsttraceError: see `Prober` and `inside`.
    """
    started = time.monotonic_ns()

    def run() -> Path:
        with Prober(target, limits, stopped=stopped) as prober:
            routers, peer_hop, distance, refused, packets = prober.run()
            return Path(
                source=prober.source,
                peer=Endpoint(target.ip, target.port),
                hops=routers,
                distance=distance,
                peer_hop=peer_hop,
                refused=refused,
                next_hop=None,
                neighbor=None,
                flows=limits.probes,
                packets=packets,
                duration_ns=0,
                stopped=stopped(),
                echo_hops=prober.echo_hops(),
            )

    path = inside(netns_path, run)
    next_hop, neighbor = surroundings(target.ip)
    return _with(path, next_hop, neighbor, time.monotonic_ns() - started)


def _with(
    path: Path, next_hop: NextHop | None, neighbor: Neighbor | None, duration_ns: int
) -> Path:
    return replace(path, next_hop=next_hop, neighbor=neighbor, duration_ns=duration_ns)


def names_of(ips: Iterable[str], seconds: float = 3.0) -> dict[str, str]:
    """Reverse DNS names (getnameinfo(3)), as many as come in time. They are not to be trusted."""
    found: dict[str, str] = {}

    def look_up(ip: str) -> None:
        with contextlib.suppress(OSError, UnicodeError):
            name = socket.getnameinfo((ip, 0), socket.NI_NAMEREQD)[0]
            found[ip] = name

    threads = [threading.Thread(target=look_up, args=(ip,), daemon=True) for ip in set(ips)]
    ends = time.monotonic() + seconds
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, ends - time.monotonic()))
    return dict(found)


def _address_family(family: int) -> int:
    return socket.AF_INET if family == 4 else socket.AF_INET6


def same_address(one: str, other: str) -> bool:
    """Whether two addresses are the same, however IPv6 ones are written."""
    return one == other or (
        ":" in one
        and ":" in other
        and socket.inet_pton(socket.AF_INET6, one) == socket.inet_pton(socket.AF_INET6, other)
    )
