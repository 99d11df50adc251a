"""The networks of the runbooks, and what goes wrong in them.

A scene prepares its fault and yields what makes the traffic that shows it.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rsttrace.demo.lab import Lab
from tests.lab.harness import DEADLINE_S, expect_reset, linger_zero, poll_until

CLIENT, FIREWALL, ROUTER, SERVER = "client", "firewall", "router", "server"
NODE, WEB, DB = "node", "web", "db"

DATABASE = ("10.9.8.7", 3306)
POD = ("10.244.1.7", 3306)
SERVICE = ("10.96.0.10", 3306)

CASES = Path(__file__).parents[1] / "cases"

TCP_REPAIR = 19
"""tcp(7), include/uapi/linux/tcp.h: a socket in repair mode is closed without a word."""

Traffic = Callable[[], None]
Scene = Callable[[Lab, Path], AbstractContextManager[Traffic]]


@dataclass(frozen=True)
class Network:
    """A network of namespaces, and what may go wrong there.

    `machines`: each namespace is a machine of its own, on which a tracer sees that one only.
    """

    build: Callable[[], AbstractContextManager[Lab]]
    machines: bool
    roles: Sequence[str]


@contextmanager
def two_sites() -> Iterator[Lab]:
    """client 10.1.0.5 - firewall 10.1.0.1 - router - server 10.9.8.7"""
    with Lab("rstsites") as lab:
        lab.add(CLIENT, FIREWALL, ROUTER, SERVER)
        lab.link(CLIENT, "eth0", FIREWALL, "lan0")
        lab.link(FIREWALL, "wan0", ROUTER, "eth0")
        lab.link(ROUTER, "eth1", SERVER, "eth0")
        lab.addresses(CLIENT, "eth0", "10.1.0.5/24")
        lab.addresses(FIREWALL, "lan0", "10.1.0.1/24")
        lab.addresses(FIREWALL, "wan0", "10.2.0.1/24")
        lab.addresses(ROUTER, "eth0", "10.2.0.2/24")
        lab.addresses(ROUTER, "eth1", "10.9.8.1/24")
        lab.addresses(SERVER, "eth0", "10.9.8.7/24")
        lab.router(FIREWALL)
        lab.router(ROUTER)
        lab.route(CLIENT, "default via 10.1.0.1 rto_min 5s")
        lab.route(FIREWALL, "10.9.8.0/24 via 10.2.0.2")
        lab.route(ROUTER, "10.1.0.0/24 via 10.2.0.1")
        lab.route(SERVER, "default via 10.9.8.1 rto_min 5s")
        connect_refused(lab, CLIENT, (DATABASE[0], 1))  # neighbours are known then
        yield lab


@contextmanager
def cluster() -> Iterator[Lab]:
    """A node with two pods on it, web 10.244.1.5 and db 10.244.1.7."""
    with Lab("rstnode") as lab:
        lab.add(NODE, WEB, DB)
        lab.router(NODE)
        for number, role in ((5, WEB), (7, DB)):
            lab.link(role, "eth0", NODE, f"veth-{role}")
            lab.addresses(role, "eth0", f"10.244.1.{number}/32")
            lab.addresses(NODE, f"veth-{role}", "169.254.1.1/32")
            lab.route(NODE, f"10.244.1.{number} dev veth-{role}")
            lab.route(role, "169.254.1.1 dev eth0", "default via 169.254.1.1 rto_min 5s")
        connect_refused(lab, WEB, (POD[0], 1))
        yield lab


NETWORKS = {
    "sites": Network(two_sites, True, (CLIENT, FIREWALL, ROUTER, SERVER)),
    "cluster": Network(cluster, False, (NODE, WEB, DB)),
}


# ---- traffic ----


def connect_refused(lab: Lab, role: str, address: tuple[str, int]) -> None:
    """One connection that somebody refuses."""
    with lab.inside(role), socket.socket() as sock:
        sock.settimeout(DEADLINE_S)
        assert sock.connect_ex(address) == errno.ECONNREFUSED


@contextmanager
def connected(
    lab: Lab, role: str = CLIENT, peer: str = SERVER, address: tuple[str, int] = DATABASE
) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection over which a word has gone each way: (client, accepted)."""
    with contextlib.ExitStack() as stack:
        with lab.inside(peer):
            listener = stack.enter_context(socket.socket())
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen()
        with lab.inside(role):
            client = stack.enter_context(socket.socket())
        client.settimeout(DEADLINE_S)
        client.connect(address)
        accepted, _ = listener.accept()
        stack.enter_context(accepted)
        accepted.settimeout(DEADLINE_S)
        client.sendall(b"hello")
        assert accepted.recv(99) == b"hello"
        accepted.sendall(b"welcome")
        assert client.recv(99) == b"welcome"
        yield client, accepted


def say_last(lab: Lab, words: bytes) -> None:
    """Send these over the whole way: who has seen them has seen all that was before."""
    with connected(lab) as (client, accepted):
        accepted.sendall(words)
        assert client.recv(99) == words
        leave(client)
        leave(accepted)


def leave(sock: socket.socket) -> None:
    """Close without a word: no FIN, to which a reset would answer."""
    sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    sock.close()


def rules(hook: str, *lines: str) -> str:
    """A ruleset with one chain."""
    text = "\n".join(lines)
    return f"table ip t {{\nchain c {{\ntype filter hook {hook} priority 0\n{text}\n}}\n}}\n"


def stop_words(lab: Lab, role: str) -> None:
    """Take the rules away again."""
    lab.nft(role, "flush ruleset")


# ---- scenes of two sites ----


@contextmanager
def refused(lab: Lab, folder: Path) -> Iterator[Traffic]:
    """Nothing listens at the server, with which other connections work."""
    del folder

    def traffic() -> None:
        with connected(lab, address=(DATABASE[0], 22)):
            pass
        connect_refused(lab, CLIENT, DATABASE)

    yield traffic


@contextmanager
def refused_at_first(lab: Lab, folder: Path) -> Iterator[Traffic]:
    """Nothing listens at a server of which nothing is known."""
    del folder
    yield lambda: connect_refused(lab, CLIENT, DATABASE)


@contextmanager
def aborted(lab: Lab, folder: Path) -> Iterator[Traffic]:
    """The server's program closes without having read all."""
    del folder

    def traffic() -> None:
        with connected(lab) as (client, accepted):
            client.sendall(b"a question that nobody reads")
            poll_until(lambda: bool(accepted.recv(1, socket.MSG_PEEK)), "the question")
            accepted.close()
            expect_reset(client)

    yield traffic


@contextmanager
def ours(lab: Lab, folder: Path) -> Iterator[Traffic]:
    """Our own program does."""
    del folder

    def traffic() -> None:
        with connected(lab) as (client, accepted):
            accepted.sendall(b"an answer that nobody reads")
            poll_until(lambda: bool(client.recv(1, socket.MSG_PEEK)), "the answer")
            client.close()
            expect_reset(accepted)

    yield traffic


@contextmanager
def rejected(lab: Lab, folder: Path) -> Iterator[Traffic]:
    """The firewall on the way resets a live connection."""
    del folder

    def traffic() -> None:
        with connected(lab) as (client, accepted):
            lab.nft(FIREWALL, rules("forward", "tcp dport 3306 reject with tcp reset"))
            try:
                client.sendall(b"a question with a forbidden word")
                expect_reset(client)
                leave(accepted)
            finally:
                stop_words(lab, FIREWALL)

    yield traffic


@contextmanager
def own_firewall(lab: Lab, folder: Path) -> Iterator[Traffic]:
    """The client's own firewall does not let it out."""
    del folder
    lab.nft(CLIENT, rules("output", "tcp dport 3306 reject with tcp reset"))
    try:
        yield lambda: connect_refused(lab, CLIENT, DATABASE)
    finally:
        stop_words(lab, CLIENT)


@contextmanager
def forgetful(lab: Lab, folder: Path) -> Iterator[Traffic]:
    """The firewall forgets connections that are idle, and resets what it does not know."""
    del folder
    known = rules(
        "forward", "ct state established accept", "tcp flags syn / fin,syn,rst,ack accept",
        "tcp dport 3306 reject with tcp reset",
    )  # fmt: skip
    lab.nft(FIREWALL, known)
    lab.sysctl(
        FIREWALL,
        net__netfilter__nf_conntrack_tcp_loose=0,
        net__netfilter__nf_conntrack_tcp_timeout_established=2,
    )

    def tracked() -> bool:
        return "dport=3306" in lab.exec(FIREWALL, ["conntrack", "-L", "-p", "tcp"])

    def traffic() -> None:
        with connected(lab) as (client, accepted):
            assert tracked()
            poll_until(lambda: not tracked(), "the firewall to forget the connection")
            client.sendall(b"a question after a while")
            expect_reset(client)
            leave(accepted)

    try:
        yield traffic
    finally:
        stop_words(lab, FIREWALL)


@contextmanager
def tables(lab: Lab, folder: Path) -> Iterator[Traffic]:
    """The firewall has a rule, and a connection is there to be looked at."""
    del folder
    with connected(lab):
        lab.nft(FIREWALL, rules("forward", "tcp dport 3306 reject with tcp reset"))
        try:
            yield nothing
        finally:
            stop_words(lab, FIREWALL)


@contextmanager
def kept_alive(lab: Lab, folder: Path) -> Iterator[Traffic]:
    """A capture of a pool of connections that the server closes after some silence."""
    del lab
    (folder / "pool.pcap").write_bytes((CASES / "keepalive-pool.pcap").read_bytes())
    yield nothing


@contextmanager
def as_it_is(lab: Lab, folder: Path) -> Iterator[Traffic]:
    """Nothing is wrong."""
    del lab, folder
    yield nothing


def nothing() -> None:
    """No traffic."""


# ---- scenes of the cluster ----


@contextmanager
def pod_refuses(lab: Lab, folder: Path) -> Iterator[Traffic]:
    """The pod is there, and nothing listens in it."""
    del folder
    yield lambda: connect_refused(lab, WEB, POD)


@contextmanager
def pod_killed(lab: Lab, folder: Path) -> Iterator[Traffic]:
    """The program in the pod ends in the middle."""
    del folder

    def traffic() -> None:
        with connected(lab, WEB, DB, POD) as (client, accepted):
            linger_zero(accepted)
            accepted.close()
            expect_reset(client)

    yield traffic


@contextmanager
def no_endpoints(lab: Lab, folder: Path) -> Iterator[Traffic]:
    """A service without endpoints, for which the node's own rules reject."""
    del folder
    rule = f"ip daddr {SERVICE[0]} tcp dport {SERVICE[1]} reject with tcp reset"
    lab.nft(NODE, rules("forward", rule))
    lab.route(NODE, f"{SERVICE[0]} dev veth-{DB}")
    try:
        yield lambda: connect_refused(lab, WEB, SERVICE)
    finally:
        stop_words(lab, NODE)
        lab.ip(NODE, f"route del {SERVICE[0]} dev veth-{DB}")


@contextmanager
def untranslated(lab: Lab, folder: Path) -> Iterator[Traffic]:
    """The service's address is translated on the way there, and not on the way back."""
    del folder
    lab.nft(
        NODE,
        "table ip t {\nchain c {\ntype filter hook prerouting priority -300\n"
        f"ip daddr {SERVICE[0]} tcp dport {SERVICE[1]} ip daddr set {POD[0]}\n}}\n}}\n",
    )

    stack = contextlib.ExitStack()

    def traffic() -> None:
        with lab.inside(DB):
            listener = stack.enter_context(socket.socket())
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(POD)
            listener.listen()
        with lab.inside(WEB):
            client = stack.enter_context(socket.socket())
        client.setblocking(False)  # it goes on trying until the scene ends
        assert client.connect_ex(SERVICE) == errno.EINPROGRESS

    try:
        with stack:
            yield traffic
    finally:
        stop_words(lab, NODE)


SCENES: dict[str, tuple[str, Scene]] = {
    "refused": ("sites", refused),
    "refused-at-first": ("sites", refused_at_first),
    "aborted": ("sites", aborted),
    "ours": ("sites", ours),
    "rejected": ("sites", rejected),
    "own-firewall": ("sites", own_firewall),
    "forgetful": ("sites", forgetful),
    "tables": ("sites", tables),
    "kept-alive": ("sites", kept_alive),
    "as-it-is": ("sites", as_it_is),
    "pod-refuses": ("cluster", pod_refuses),
    "pod-killed": ("cluster", pod_killed),
    "no-endpoints": ("cluster", no_endpoints),
    "untranslated": ("cluster", untranslated),
}
"""Each scene's name, and in which network it plays."""
