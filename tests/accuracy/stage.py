"""The stage on which the cases are played: a chain of routers, connections, programs, sniffers."""

from __future__ import annotations

import contextlib
import itertools
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rsttrace.demo.lab import Lab
from tests.accuracy.dump import Dump
from tests.accuracy.sniff import Sniffer
from tests.lab.harness import DEADLINE_S, expect_reset, linger_zero

ROOT = Path(__file__).parents[2]
V4, V6 = socket.AF_INET, socket.AF_INET6
IPV6_FREEBIND = 78  # include/uapi/linux/in6.h
IP_FREEBIND = 15
IP_TTL_MAX = 64
TCP_REPAIR, TCP_REPAIR_QUEUE, TCP_QUEUE_SEQ = 19, 20, 21  # include/uapi/linux/tcp.h
TCP_RECV_QUEUE, TCP_SEND_QUEUE = 1, 2
ROUTERS = 5
CLIENTS, SERVERS = ("10.79.0.0/16", "fd79::/64"), ("10.81.0.0/16", "fd81::/64")


@dataclass
class Play:
    """One case's own things: its addresses and port, which no other case uses.

    `hops`: routers between the ends that talk. `end` is the server's role, `net` the second number
    of its network. The rest is about the resets at each victim (role): see `tell` and `word`.
    """

    number: int
    port: int
    family: int
    hops: int
    end: str = "server"
    net: int = 81
    trust: dict[str, str] = field(default_factory=dict)
    twins: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)

    def tell(self, role: str, trust: str, twin: str | None = None) -> None:
        """How sure it is who made the resets that reach a victim: see `tests.accuracy.case.TRUST`.

        `twin`: for undecidable ones, the name (without version) of the case that looks the same.
        """
        self.trust[role] = trust
        if twin is not None:
            self.twins[role] = twin

    def word(self, role: str, label: str) -> None:
        """Label all resets at a victim, whoever made them: see `tests.accuracy.case.LABELS`."""
        self.labels[role] = label

    @property
    def client(self) -> str:
        """The client's address in this case."""
        if self.family == V6:
            return f"fd79::{self.number:x}"
        return f"10.79.{self.number >> 8}.{self.number & 255}"

    @property
    def server(self) -> str:
        """The server's address in this case."""
        if self.family == V6:
            return f"fd{self.net}::{self.number:x}"
        return f"10.{self.net}.{self.number >> 8}.{self.number & 255}"


class Conn:
    """A connection whose both ends the case holds."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client, self.server = client, server

    def talk(self, rounds: int = 3) -> None:
        """Requests and answers."""
        for number in range(rounds):
            self.ask(f"request {number} ".encode() * (number + 2))
            self.answer(f"answer {number} ".encode() * (number + 5))

    def ask(self, data: bytes) -> None:
        """The client sends, the server reads."""
        _pass(self.client, self.server, data)

    def answer(self, data: bytes) -> None:
        """The server sends, the client reads."""
        _pass(self.server, self.client, data)

    def leave(self) -> None:
        """Both are gone without a word: what a case leaves behind must not speak of it."""
        for sock in (self.client, self.server):
            if sock.fileno() != -1:
                vanish(sock)


def bulk(conn: Conn) -> None:
    """A transfer: some hundred packets."""
    conn.ask(b"a request")
    for _ in range(16):
        conn.answer(b"page " * 12_000)
    conn.ask(b"thanks " * 9_000)


def requests(conn: Conn) -> None:
    """Thirty requests and answers."""
    for _ in range(10):
        conn.talk()


def idle(conn: Conn) -> None:
    """A few requests, then nothing for longer than any timer of TCP that is at work."""
    conn.talk()
    with selectors.DefaultSelector() as selector:
        for sock in (conn.client, conn.server):
            selector.register(sock, selectors.EVENT_READ)
        assert not selector.select(1.5)


TRAFFIC: dict[str, Callable[[Conn], None]] = {"bulk": bulk, "requests": requests, "idle": idle}
"""What a connection did before."""


def _pass(sender: socket.socket, receiver: socket.socket, data: bytes) -> None:
    sender.sendall(data)
    left = len(data)
    while left:
        got = receiver.recv(left)
        if not got:
            raise AssertionError("the connection ended too early")
        left -= len(got)


def numbers(sock: socket.socket) -> tuple[int, int]:
    """(snd_nxt, rcv_nxt) of a connected socket, as TCP_REPAIR shows them (tcp(7))."""
    sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    found = []
    for queue in (TCP_SEND_QUEUE, TCP_RECV_QUEUE):
        sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR_QUEUE, queue)
        found.append(sock.getsockopt(socket.IPPROTO_TCP, TCP_QUEUE_SEQ) & 0xFFFFFFFF)
    sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, -1)  # off, without a window probe
    return found[0], found[1]


class Stage:
    """A chain client - r1 - … - r5 - server, with a longer way round r3 (r2 - d1 - d2 - r4).

    Both ends own whole networks of addresses; each case takes one of each, so that no case learns
    from another. `hops` routers lie between the ends.
    """

    prefix = "rstacc"
    hops = ROUTERS
    watched: Sequence[tuple[str, str]] = (("client", "eth0"), ("server", "eth0"))
    dumped: Sequence[str] = ()
    """Where tcpdump runs as well, if asked for."""

    def __init__(self, first: int = 1, *, dump: bool = False) -> None:
        self.lab = Lab(self.prefix)
        self._numbers = itertools.count(first)
        self._stack = contextlib.ExitStack()
        self._dump = dump
        self._local = threading.local()  # cases that wait are played at the same time

    @property
    def play(self) -> Play:
        """The case that this thread plays."""
        found: Play = self._local.play
        return found

    def __enter__(self) -> Stage:
        self._stack.enter_context(self.lab)
        try:
            self.build()
            self.sniffer = Sniffer(self.lab, self.watched)
            self._stack.callback(self.sniffer.close)
            folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
            self.dumps: dict[str, Dump] = {}
            for role in self.dumped if self._dump else ():
                self.dumps[role] = Dump(self.lab, role, folder / f"{role}.pcap")
                self._stack.callback(self.dumps[role].stop)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    # ---- building ----

    def build(self) -> None:
        """Make the network."""
        routers = [f"r{number}" for number in range(1, ROUTERS + 1)]
        self.lab.add("client", *routers, "d1", "d2", "server")
        path = ["client", *routers, "server"]
        self.chain(path)
        self.cable("r2", "round", "d1", "in", 20)
        self.cable("d1", "out", "d2", "in", 21)
        self.cable("d2", "out", "r4", "round", 22)
        self.toward("d1", SERVERS, 21, far=True)
        self.toward("d2", SERVERS, 22, far=True)
        self.toward("d2", CLIENTS, 21, far=False)
        self.toward("d1", CLIENTS, 20, far=False)
        for role in ("d1", "d2"):
            self.lab.router(role)
        self.own("client", CLIENTS)
        self.own("server", SERVERS)

    def chain(self, path: Sequence[str]) -> None:
        """Cables, addresses and routes of client, routers, server in this order."""
        for number, (near, far) in enumerate(zip(path, path[1:])):
            near_if = "eth0" if number == 0 else "out"
            far_if = "eth0" if number == len(path) - 2 else "in"
            self.cable(near, near_if, far, far_if, number)
        for number, role in enumerate(path):
            if number < len(path) - 1:
                self.toward(role, SERVERS, number, far=True)
            if number:
                self.toward(role, CLIENTS, number - 1, far=False)
            if 0 < number < len(path) - 1:
                self.lab.router(role)
            # The cables' own networks, for boxes that speak in their own name (NAT).
            for cable in range(len(path) - 1):
                if cable not in (number - 1, number):
                    via, end = (number, 2) if cable > number else (number - 1, 1)
                    self.lab.route(
                        role,
                        f"10.80.{cable}.0/30 via 10.80.{via}.{end}",
                        f"fd80:{cable}::/64 via fd80:{via}::{end}",
                    )

    def cable(self, near: str, near_if: str, far: str, far_if: str, number: int) -> None:
        """A cable with addresses 10.80.N.1 and .2, fd80:N::1 and ::2."""
        self.lab.link(near, near_if, far, far_if)
        self.lab.addresses(near, near_if, f"10.80.{number}.1/30", f"fd80:{number}::1/64")
        self.lab.addresses(far, far_if, f"10.80.{number}.2/30", f"fd80:{number}::2/64")

    def toward(self, role: str, nets: Sequence[str], cable: int, far: bool) -> None:
        """A namespace's route to both families' networks over a cable's other end."""
        end = 2 if far else 1
        self.lab.route(role, f"{nets[0]} via 10.80.{cable}.{end}")
        self.lab.ip(role, f"route add {nets[1]} via fd80:{cable}::{end}")

    def own(self, role: str, nets: Sequence[str]) -> None:
        """Make whole networks local to a namespace."""
        self.lab.ip(role, f"route add local {nets[0]} dev lo", f"route add local {nets[1]} dev lo")

    # ---- playing ----

    def begin(self, family: int) -> Play:
        """A new case: addresses and a port of its own."""
        number = next(self._numbers)
        self._local.play = Play(number, 20000 + number, family, self.hops)
        return self.play

    def listen(self, role: str | None = None, ttl: int | None = None) -> socket.socket:
        """A listener on the case's server address."""
        return self.listen_at(role or self.play.end, self.play.server, ttl)

    def listen_at(self, role: str, address: str, ttl: int | None = None) -> socket.socket:
        """A listener on the case's port."""
        family = V6 if ":" in address else V4
        with self.lab.inside(role):
            listener = socket.socket(family)
        _free(listener)
        if ttl is not None:
            set_ttl(listener, ttl)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, self.play.port))
        listener.listen(64)
        listener.settimeout(DEADLINE_S)
        return listener

    def caller(self, role: str = "client") -> socket.socket:
        """A socket bound to the case's client address."""
        with self.lab.inside(role):
            sock = socket.socket(self.play.family)
        _free(sock)
        sock.bind((self.play.client, 0))
        sock.settimeout(DEADLINE_S)
        return sock

    def dial(self, role: str = "client") -> socket.socket:
        """Connect to the case's server."""
        sock = self.caller(role)
        sock.connect((self.play.server, self.play.port))
        return sock

    def dial_deferred(self) -> socket.socket:
        """Connect to a listener that makes sockets only for data, and is gone before it comes."""
        with self.listen() as listener:
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 5)
            return self.dial()

    @contextlib.contextmanager
    def connection(self, ttl: int | None = None) -> Iterator[Conn]:
        """A connection from client to server; the listener is gone at once."""
        with self.listen(ttl=ttl) as listener:
            client = self.dial()
            server, _ = listener.accept()
        for sock in (client, server):
            sock.settimeout(DEADLINE_S)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        conn = Conn(client, server)
        try:
            yield conn
        finally:
            conn.leave()

    @contextlib.contextmanager
    def busy(self, traffic: str | None, ttl: int | None = None) -> Iterator[Conn]:
        """A connection after some `TRAFFIC`; None: after its handshake."""
        with self.connection(ttl) as conn:
            if traffic is not None:
                TRAFFIC[traffic](conn)
            yield conn

    def arrived(self, role: str, count: int) -> None:
        """Wait until so many RSTs of this case have reached an end's interface."""
        port = self.play.port
        self.sniffer.wait(
            lambda: len(self.sniffer.seen(port, False, role)) >= count,
            f"{count} RSTs at {role}, port {port}",
        )

    def left(self, role: str, count: int) -> None:
        """Wait until so many RSTs of this case have left an end's interface."""
        port = self.play.port
        self.sniffer.wait(
            lambda: len(self.sniffer.seen(port, True, role)) >= count,
            f"{count} RSTs from {role}, port {port}",
        )

    @contextlib.contextmanager
    def rules(self, role: str, body: str, family: str = "inet") -> Iterator[None]:
        """nftables chains in a namespace for as long as the case lasts."""
        table = f"{family} case{self.play.port}"
        self.lab.nft(role, f"table {table} {{\n{body}\n}}\n")
        try:
            yield
        finally:
            self.lab.nft(role, f"delete table {table}\n")

    @contextlib.contextmanager
    def program(self, role: str, command: Sequence[str], ready: str = "") -> Iterator[int]:
        """A program in a namespace for as long as the case lasts; gives its pid.

        With `ready`, waits until it prints a line that contains this text.
        """
        with subprocess.Popen(
            ["ip", "netns", "exec", self.lab.name(role), *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            cwd=ROOT,
        ) as child:
            heard: list[str] = []
            try:
                assert child.stdout is not None
                if ready:
                    for line in child.stdout:
                        heard.append(line)
                        if ready in line:
                            break
                    else:
                        raise AssertionError(f"{command} did not start: {''.join(heard)}")
                # A full pipe must not stop it.
                threading.Thread(target=child.stdout.read, daemon=True).start()
                yield child.pid
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)

    def python(self, *words: str) -> list[str]:
        """A program of this folder."""
        return [sys.executable, "-m", *words]


def _free(sock: socket.socket) -> None:
    """Let it bind to any address: the networks of the ends are not configured one by one."""
    if sock.family == V6:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)


def set_ttl(sock: socket.socket, ttl: int) -> None:
    """A program chooses the TTL (hop limit) of its socket (ip(7), ipv6(7))."""
    if sock.family == V6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, ttl)
    else:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)


def vanish(sock: socket.socket) -> None:
    """A socket is gone without a word, as where a container is checkpointed or moved."""
    sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    sock.close()


def abort(sock: socket.socket) -> None:
    """Close with SO_LINGER 0: an honest RST."""
    linger_zero(sock)
    sock.close()


def both_reset(conn: Conn) -> None:
    """Read both ends until they are reset."""
    expect_reset(conn.client)
    expect_reset(conn.server)


Action = Callable[["Stage"], None]
