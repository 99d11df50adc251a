"""Repeats the bytes that provoke a reset, with rising TTL, until the reset comes back.

CenTrace's method (Sundara Raman and others, CoNEXT 2022): the least TTL with which the bytes
provoke the reset is the place of the device, whatever TTL it gives its own packets. Ordinary
connections of this host are used: their handshake runs with a whole TTL, then IP_TTL (ip(7)) or
IPV6_UNICAST_HOPS (ipv6(7)) is lowered, the bytes are sent, and a raw socket sees what comes back.
Each is then ended with a RST of our own, written with the sequence number that the peer expects:
the device's reset ended only our side, and the peer would keep its own for hours.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
import time
from collections.abc import Callable, Iterator

from rsttrace.enrich import probes, reach
from rsttrace.enrich.prober import SLICE_S
from rsttrace.enrich.rawsocket import Received, attach_filter, raw_socket, readable, receive
from rsttrace.enrich.setns import inside
from rsttrace.enrich.target import Limits, Target, address_family, same_address
from rsttrace.errors import RsttraceError
from rsttrace.model import FULL_TTL, Attempt

MAX_DATA = 1400
"""More would not fit one packet: the bytes are a trigger, not a transfer."""

OTHER_TTL = FULL_TTL - 10
"""Enough for most ways there and back, and told from a whole TTL."""

_IPV6_UNICAST_HOPS = 16  # include/uapi/linux/in6.h


def most_connections(distance: int, limits: Limits) -> int:
    """How many connections a replay opens at most."""
    return min(distance, limits.max_hops) + 1 + 3 * (limits.probes - 1)


class Replayer:
    """Opens connections to one peer, one after the other, each sending the same bytes once.

    Use it as a context manager, in the network namespace to work in.

    Raises (on entering):
        PrivilegeError: no raw socket without CAP_NET_RAW.
    """

    def __init__(
        self,
        target: Target,
        data: bytes,
        limits: Limits,
        *,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        """`data` is at most `MAX_DATA` bytes; `stopped` is asked often."""
        self._target = target
        self._data = data
        self._limits = limits
        self._stopped = stopped
        self._closing = contextlib.ExitStack()
        self._expected: int | None = None
        self._family = address_family(target.family)

    def __enter__(self) -> Replayer:
        try:
            icmp = socket.IPPROTO_ICMP if self._target.family == 4 else socket.IPPROTO_ICMPV6
            self._tcp = raw_socket(self._closing, self._target.family, socket.IPPROTO_TCP)
            self._icmp = raw_socket(self._closing, self._target.family, icmp)
            attach_filter(self._tcp, probes.port_filter(self._target.family, []))
        except BaseException:
            self._closing.close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._closing.close()

    def run(self, distance: int | None) -> Iterator[Attempt]:
        """The attempts, as they are made.

        TTLs rise from 1 to the peer's `distance` (its place on the path; ``None``: unknown), so
        that the peer gets the bytes last; then once with a whole TTL. What was found is repeated:
        just below, at it, and with a whole TTL, which tells whether the device copies TTLs.

        Raises:
            RsttraceError: the peer does not take the connection.
        """
        last = min(distance or self._limits.max_hops, self._limits.max_hops)
        lowest = None
        for ttl in [*range(1, last + 1), FULL_TTL]:
            attempt = self.attempt(ttl)
            yield attempt
            if self._stopped():
                return
            if attempt.reset_ttl is not None:
                lowest = ttl
                break
        if lowest is None:
            return
        # Only a whole TTL brought it: a device whose resets die on their way because it copies
        # TTLs? Then another TTL tells.
        again = [last, OTHER_TTL] if lowest == FULL_TTL else [lowest - 1, lowest]
        for _ in range(self._limits.probes - 1):
            for ttl in [*filter(None, again), FULL_TTL]:
                try:
                    yield self.attempt(ttl)
                except RsttraceError:
                    return  # the device blocks the pair by now: what is known stands
                if self._stopped():
                    return

    def attempt(self, ttl: int) -> Attempt:
        """One connection: handshake, the bytes with this TTL, and what comes back.

        Raises:
            RsttraceError: the peer does not take the connection.
        """
        with reach.make_socket(self._family, socket.SOCK_STREAM) as sock:
            sock.bind(("", 0))
            port = sock.getsockname()[1]
            attach_filter(self._tcp, probes.port_filter(self._target.family, [port]))
            rtt_s = self._connect(sock)
            own = sock.getsockname()
            wait_s = self._limits.wait_s(rtt_s)
            self._expected = None
            for received in receive(self._tcp, self._target.family):
                self._segment(received, port)  # the SYN-ACK, and leftovers
            for _ in receive(self._icmp, self._target.family):
                pass
            self._set_ttl(sock, ttl)
            sent_ns = time.time_ns()
            with contextlib.suppress(ConnectionError):
                sock.send(self._data)
            attempt = self._listen(port, ttl, sent_ns, wait_s)
            self._set_ttl(sock, FULL_TTL)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._end(str(own[0]).partition("%")[0], port)
        return attempt

    def _end(self, source: str, port: int) -> None:
        """Tell the peer that the connection is over, whoever ended our side of it."""
        if self._expected is None:
            return
        rst = probes.tcp_rst(
            socket.inet_pton(self._family, source),
            self._target.packed,
            (port, self._target.port),
            self._expected,
        )
        with contextlib.suppress(OSError):  # then the peer finds out by itself
            self._tcp.sendto(rst, self._target.sockaddr)

    def _segment(self, received: Received, port: int) -> probes.Segment | None:
        """A segment of this connection; takes note of what the peer expects next."""
        segment = probes.read_tcp(received.data)
        if (
            segment is None
            or (segment.source_port, segment.target_port) != (self._target.port, port)
            or not same_address(received.ip, self._target.ip)
        ):
            return None
        if segment.flags & probes.ACK and not segment.flags & probes.RST:
            self._expected = segment.ack
        return segment

    def _connect(self, sock: socket.socket) -> float:
        """Connect; how long it took, in seconds."""
        target = self._target
        sock.settimeout(max(1.0, self._limits.timeout_s))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        started = time.monotonic()
        try:
            sock.connect((target.sockaddr[0], target.port, *target.sockaddr[2:]))
        except OSError as error:
            timed_out = isinstance(error, socket.timeout) or error.errno == errno.ETIMEDOUT
            reason = "it does not answer" if timed_out else error.strerror
            raise RsttraceError(
                f"cannot replay: no connection to {target.ip} port {target.port}: {reason}",
                hint="give a port that takes connections; after a trigger, some devices block a "
                "pair of addresses for minutes: try again later",
            ) from None
        return time.monotonic() - started

    def _set_ttl(self, sock: socket.socket, ttl: int) -> None:
        if self._target.family == 4:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
        else:
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_UNICAST_HOPS, ttl)

    def _listen(self, port: int, ttl: int, sent_ns: int, wait_s: float) -> Attempt:
        """Until a reset comes, or the time is over."""
        ends = time.monotonic() + wait_s
        exceeded: str | None = None
        reply = False
        while (left := ends - time.monotonic()) > 0 and not self._stopped():
            ready = readable([self._tcp, self._icmp], min(left, SLICE_S))
            if self._icmp in ready:
                for received in receive(self._icmp, self._target.family):
                    exceeded = exceeded or self._exceeded(received, port)
            if self._tcp in ready:
                for received in receive(self._tcp, self._target.family):
                    segment = self._segment(received, port)
                    if segment is None:
                        continue
                    if segment.flags & probes.RST:
                        delay_ns = max(0, received.time_ns - sent_ns)
                        return Attempt(ttl, received.ttl, delay_ns, exceeded, reply)
                    reply = True
        return Attempt(ttl, None, None, exceeded, reply)

    def _exceeded(self, received: Received, port: int) -> str | None:
        quote = probes.read_icmp(self._target.family, received.data)
        if quote is None or (quote.kind, quote.method) != ("exceeded", "tcp"):
            return None
        return received.ip if quote.key[0] == port else None


def replay(
    target: Target,
    data: bytes,
    limits: Limits,
    distance: int | None,
    *,
    netns_path: str | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> tuple[Attempt, ...]:
    """All attempts of a replay, made in a network namespace (default: our own).

    Raises:
        RsttraceError: see `Replayer`.
    """

    def run() -> tuple[Attempt, ...]:
        with Replayer(target, data, limits, stopped=stopped) as replayer:
            return tuple(replayer.run(distance))

    return inside(netns_path, run)
