"""Sends TTL-limited probes to one peer and takes in the answers.

The SYNs are written through a raw socket: our kernel, which knows nothing of them, resets what the
peer answers (tcp_v4_send_reset; RFC 9293 §3.10.7.1), so that nothing half-open stays there and no
program of the peer sees a connection. A running tracer shows these resets for what they are: sent
by this host, for want of a socket.

Each round of probes is one flow with ports of its own, reserved by a bound socket: what balances by
ports sends all TTLs of a round one way (as Paris traceroute does: Augustin and others, IMC 2006),
and several rounds show that there is more than one way.
"""

from __future__ import annotations

import contextlib
import errno
import random
import socket
import struct
import time
from collections.abc import Callable, Iterable, Sequence

from rsttrace.enrich import probes, reach
from rsttrace.enrich.answers import Answers, Probe
from rsttrace.enrich.rawsocket import (
    IPV6_HOPLIMIT,
    Received,
    attach_filter,
    let_in_answers,
    raw_socket,
    readable,
    receive,
)
from rsttrace.enrich.target import Target, address_family, same_address
from rsttrace.errors import RsttraceError
from rsttrace.model import ProbeAnswer
from rsttrace.tcp import advance

UDP_PORT = 33434
"""Where traceroute(8) begins: ports that nobody is likely to serve."""

SLICE_S = 0.1
"""How often to look whether the user wants to stop."""


class Prober:
    """Sends probes to one peer and collects the answers. Use it as a context manager, and once.

    It works in the network namespace of the thread that enters it.

    Attributes:
        source: our address on the way to the peer.
        ports: our TCP ports, one for each flow.
        packets: how many probes were sent.
        answers: the probes and what came back.
        wait_s: how long to wait for an answer to what is sent next, in seconds.

    Raises (on entering):
        PrivilegeError: no raw sockets without CAP_NET_RAW.
        RsttraceError: there is no route to the peer.
    """

    def __init__(
        self,
        target: Target,
        rounds: int,
        wait_s: float,
        *,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        """`rounds`: how many flows there are, beside one for probes with a whole TTL.

        `stopped` is asked often: when it is true, what is known so far is the result.
        """
        self._target = target
        self._rounds = rounds
        self._stopped = stopped
        self._closing = contextlib.ExitStack()
        self._probes: dict[tuple[str, tuple[int, int]], Probe] = {}
        self._identifier = random.getrandbits(16)
        self.wait_s = wait_s
        self.packets = 0
        self.source = ""

    def __enter__(self) -> Prober:
        try:
            own = self._find_source()
            self._reserve_ports(own)
            self._open(own)
        except BaseException:
            self._closing.close()
            raise
        self.answers = Answers(self._probes.values(), self.source, self._rounds)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._closing.close()

    def _find_source(self) -> tuple[str | int, ...]:
        """The address that we talk to the peer from, with port 0."""
        target = self._target
        with reach.make_socket(address_family(target.family), socket.SOCK_DGRAM) as route:
            try:
                route.connect((target.sockaddr[0], target.port, *target.sockaddr[2:]))
            except OSError as error:
                raise RsttraceError(
                    f"there is no way to {target.ip}: {error.strerror}",
                    hint="look at the routes: ip route get " + target.ip,
                ) from None
            own = route.getsockname()
        self.source = str(own[0]).partition("%")[0]
        self._source_packed = socket.inet_pton(address_family(target.family), self.source)
        return (own[0], 0, *own[2:])

    def _reserve_ports(self, own: tuple[str | int, ...]) -> None:
        """A bound socket keeps its port from others; without listening it answers to nobody."""

        def reserve(kind: socket.SocketKind) -> int:
            family = address_family(self._target.family)
            holder = self._closing.enter_context(reach.make_socket(family, kind))
            holder.bind(own)
            return int(holder.getsockname()[1])

        self.ports = [reserve(socket.SOCK_STREAM) for _ in range(self._rounds + 1)]
        self._udp_port = reserve(socket.SOCK_DGRAM)

    def _open(self, own: tuple[str | int, ...]) -> None:
        family = self._target.family
        icmp = socket.IPPROTO_ICMP if family == 4 else socket.IPPROTO_ICMPV6
        self._sockets = {
            "tcp": raw_socket(self._closing, family, socket.IPPROTO_TCP),
            "udp": raw_socket(self._closing, family, socket.IPPROTO_UDP),
            "icmp": raw_socket(self._closing, family, icmp),
        }
        for sock in self._sockets.values():
            sock.bind(own)
        attach_filter(self._sockets["tcp"], probes.port_filter(family, self.ports))
        attach_filter(self._sockets["udp"], probes.port_filter(family, []))
        let_in_answers(self._sockets["icmp"], family)

    def send(self, wanted: Iterable[tuple[str, int, int]]) -> list[Probe]:
        """Send probes: (method, TTL, flow). Answers that come meanwhile are taken in.

        Raises:
            RsttraceError: this host's firewall does not let probes out, or a socket fails.
        """
        sent = []
        for method, ttl, flow in wanted:
            key, packet = self._build(method, ttl, flow)
            probe = Probe(method, ttl, flow, time.time_ns(), time.monotonic() + self.wait_s)
            self._probes[method, key] = probe
            self._transmit(method, packet, ttl)
            self.packets += 1
            sent.append(probe)
            self._take_in(0)
            if self._stopped():
                break
        return sent

    def wait(self, sent: Sequence[Probe]) -> None:
        """Until each is answered, its time is over, or the user stops it.

        Raises:
            RsttraceError: a socket fails.
        """
        while not self._stopped():
            waiting = [probe.ends for probe in sent if probe.answer is None]
            left = max(waiting, default=0.0) - time.monotonic()
            if not waiting or left <= 0:
                return
            self._take_in(min(left, SLICE_S))

    def _build(self, method: str, ttl: int, flow: int) -> tuple[tuple[int, int], bytes]:
        source, target = self._source_packed, self._target.packed
        if method == "tcp":
            seq = random.getrandbits(32)
            ports = (self.ports[flow], self._target.port)
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
            control = (socket.IPPROTO_IPV6, IPV6_HOPLIMIT, struct.pack("=i", ttl))
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

    def _take_in(self, seconds: float) -> None:
        """Read every answer that is here; wait for the first one at most so long."""
        for sock in readable([self._sockets["tcp"], self._sockets["icmp"]], seconds):
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
