"""A fleet of namespaces: real stacks, a real forger on a router, NAT, and clocks that are apart.

    a1 .. a4 - ra - box - core - rb - b1 .. b4
                           |
                           rc (NAT) - c1 .. c4

`box` forges on what passes it. One tracer watches the kernel with ``--viewpoint netns``, so that
each namespace is judged as if it were a machine of its own; its log is then taken apart into each
node's own. All namespaces have the kernel's one clock (time namespaces do not shift the time of
day, time_namespaces(7)), so the nodes' clocks are set apart in the lines: all times that a node's
log tells are shifted by one number, which is what a wrong clock does.
"""

from __future__ import annotations

import errno
import json
import select
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rsttrace.commands.moments import time_ns
from rsttrace.demo.lab import Lab
from rsttrace.fleet.report import MARGIN_S
from rsttrace.render.times import iso_time
from tests.lab.harness import (
    DEADLINE_S,
    Fence,
    Json,
    Tracer,
    expect_reset,
    linger_zero,
    out_rsts,
    poll_until,
)

SITES = {"a": 1, "b": 2, "c": 3}
EACH = 4
HOSTS = [f"{site}{number}" for site in SITES for number in range(1, EACH + 1)]
OUTSIDE = "c4"
"""Has no tracer: only its gateway has."""
GATEWAY = "rc"
GATEWAY_IP = "10.73.103.1"
SERVICE = "10.73.99.9"
"""Translated to b1's address by `core`, which does not translate the answers back."""
NODES = [*(host for host in HOSTS if host != OUTSIDE), GATEWAY]

AHEAD_S = {node: (number * 7 % 23 - 11) + 0.25 for number, node in enumerate(NODES)}
"""How far each node's clock is ahead, in seconds: from -10.75 to +11.25."""

HONEST, FORGED, COPIED, STRANGE, UNTRANSLATED = 7000, 7100, 7200, 7300, 7400
"""Servers' ports; by them the truth is known: on `FORGED` and `COPIED` only the box resets."""
WORDS = {FORGED: b"BOTH", COPIED: b"COPY"}
LENGTH = 700
"""Of data that the box takes out of the path, in bytes."""

MIDDLEBOX = str(Path(__file__).parents[1] / "lab" / "middlebox.py")
PATIENT = "rto_min 5s"
HEADERS = 20 + 32  # IP, and TCP with timestamps


def address(host: str) -> str:
    """A host's address."""
    return f"10.73.{SITES[host[0]]}.{host[1:]}"


def build(lab: Lab) -> None:
    """Namespaces, cables, addresses, routes, NAT, and the box, which is ready."""
    routers = ("ra", "rb", GATEWAY, "box", "core")
    lab.add(*routers, *HOSTS)
    for router in routers:
        lab.router(router)
    for site, number in SITES.items():
        router = f"r{site}"
        lab.ip(router, "link add br0 type bridge", "link set br0 up")
        lab.addresses(router, "br0", f"10.73.{number}.254/24")
        for host in (host for host in HOSTS if host[0] == site):
            lab.link(host, "eth0", router, f"to{host}")
            lab.ip(router, f"link set to{host} master br0")
            lab.addresses(host, "eth0", f"{address(host)}/24")
            lab.route(host, f"default via 10.73.{number}.254 {PATIENT}")
            lab.sysctl(host, net__ipv4__tcp_early_retrans=0)
    # each trunk with its two ends' addresses, .1 and .2
    trunks = {"ra": ("box", 100), "box": ("core", 101), "core": ("rb", 102), "rc": ("core", 103)}
    for left, (right, number) in trunks.items():
        lab.link(left, f"to{right}", right, f"to{left}")
        lab.addresses(left, f"to{right}", f"10.73.{number}.1/30")
        lab.addresses(right, f"to{left}", f"10.73.{number}.2/30")
    lab.route("ra", "default via 10.73.100.2")
    lab.route("box", "10.73.1.0/24 via 10.73.100.1", "default via 10.73.101.2")
    lab.route(
        "core", "10.73.1.0/24 via 10.73.101.1", "10.73.2.0/24 via 10.73.102.2",
        "10.73.100.0/30 via 10.73.101.1",
    )  # fmt: skip
    lab.route("rb", "default via 10.73.102.1")
    lab.route(GATEWAY, "default via 10.73.103.2")
    lab.nft(
        GATEWAY,
        "table ip t {\nchain from {\ntype nat hook postrouting priority 100\n"
        'oifname "tocore" masquerade random\n}\n}',
    )
    lab.nft(
        "core",
        "table ip t {\nchain to {\ntype filter hook prerouting priority -300\n"
        f"ip daddr {SERVICE} ip daddr set {address('b1')}\n}}\n}}",
    )
    lab.nft(
        "box",
        "table ip t {\nchain f {\ntype filter hook forward priority 0\n"
        f"meta length {HEADERS + LENGTH} drop\n}}\n}}",
    )
    lab.spawn(
        "box",
        [sys.executable, MIDDLEBOX, *(f"{mode}={WORDS[port].decode()}" for mode, port in MODES)],
        ready="forging",
    )


MODES = (("both", FORGED), ("copy", COPIED))


@contextmanager
def connection(
    lab: Lab, client: str, server: str, port: int, ttl: int | None = None
) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection with some data both ways: (the client's socket, the server's).

    `ttl` is what the server's program sets for its own packets.
    """
    with lab.inside(server):
        listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if ttl is not None:
        listener.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
    listener.bind((address(server), port))
    listener.listen(8)
    with lab.inside(client):
        near = socket.socket()
    near.settimeout(DEADLINE_S)
    with listener, near:
        near.connect((address(server), port))
        far, _ = listener.accept()
        far.settimeout(DEADLINE_S)
        with far:
            for sender, receiver in ((near, far), (far, near), (near, far)):
                sender.sendall(b"x" * 100)
                receiver.recv(100, socket.MSG_WAITALL)
            yield near, far


def plays(lab: Lab) -> int:
    """Everything that happens in this fleet; returns how many connections the box reset."""
    forged = 0
    for host in ("a1", "b1"):  # so that its gateway's address is known for one of its own
        _refused(lab, host, GATEWAY_IP)
    for client in ("a1", "a2", "b2"):
        _untranslated(lab, client)
    for client in HOSTS:
        for server in HOSTS:
            if client == server or (server[0] == "c" and client[0] != "c"):
                continue
            _honest(lab, client, server)
            _refused(lab, client, address(server))
            across = (client[0] == "a") != (server[0] == "a")
            if across:
                for _, port in MODES:
                    with connection(lab, client, server, port) as (near, far):
                        near.sendall(WORDS[port].ljust(LENGTH, b"."))
                        expect_reset(near)
                        expect_reset(far)
                    forged += 1
    return forged


def _refused(lab: Lab, client: str, ip: str) -> None:
    with lab.inside(client), socket.socket() as sock:
        sock.settimeout(DEADLINE_S)
        assert sock.connect_ex((ip, HONEST + 1)) == errno.ECONNREFUSED


def _untranslated(lab: Lab, client: str) -> None:
    """The service answers from its own address, which the client has not asked."""
    before = out_rsts(lab, client)
    with lab.inside("b1"):
        listener = socket.create_server((address("b1"), UNTRANSLATED))
    with listener, lab.inside(client), socket.socket() as sock:
        sock.setblocking(False)
        sock.connect_ex((SERVICE, UNTRANSLATED))
        poll_until(lambda: out_rsts(lab, client) > before, "the reset of its answer")


def _honest(lab: Lab, client: str, server: str) -> None:
    with connection(lab, client, server, HONEST) as (near, far):
        linger_zero(far)
        far.close()
        expect_reset(near)
    with connection(lab, client, server, HONEST) as (near, far):
        linger_zero(near)
        near.close()
        expect_reset(far)
    # A program that sets its packets' TTL: its kernel's own answer has another one.
    with connection(lab, client, server, STRANGE, ttl=200) as (near, far):
        far.close()
        near.recv(1)  # its FIN
        near.sendall(b"are you there?")
        wait = select.poll()
        wait.register(near, 0)  # POLLERR and POLLHUP are always told
        assert wait.poll(DEADLINE_S * 1000)


def logs(tracer: Tracer, lab: Lab, folder: Path) -> list[Path]:
    """Each node's own log, by its own clock, from the log of the one tracer, which has ended."""
    names = {lab.inode(node): node for node in NODES}
    (end,) = (line for line in tracer.entries if "id" not in line)
    lines: dict[str, list[Json]] = {
        node: [line for line in tracer.entries if names.get(line.get("netns", 0)) == node]
        for node in NODES
    }
    made = []
    for node, own in lines.items():
        path = folder / f"{node}.jsonl"
        path.write_text("".join(f"{json.dumps(_as(node, line))}\n" for line in (*own, end)))
        made.append(path)
    return made


def _as(node: str, line: Json) -> Json:
    """A line as a tracer on that node would have written it, by that node's clock."""
    shifted: Json = _shifted(line, int(AHEAD_S[node] * 1e9))
    shifted["run"] = {**line["run"], "host": node}
    return shifted


_TIMES = ("time", "started", "ended", "first", "last")


def _shifted(value: Any, by_ns: int) -> Any:
    if isinstance(value, dict):
        return {
            name: iso_time(time_ns(inner) + by_ns, utc=True)
            if name in _TIMES and isinstance(inner, str)
            else _shifted(inner, by_ns)
            for name, inner in value.items()
        }
    return [_shifted(inner, by_ns) for inner in value] if isinstance(value, list) else value


MARGIN_NS = int((MARGIN_S + 0.5) * 1e9)


def wait_until(moment_ns: int) -> None:
    """Here time itself is what is needed: a tracer must have watched before a RST, and after it."""
    poll_until(lambda: time.time_ns() >= moment_ns, "time to go by")


@contextmanager
def recorded(folder: Path) -> Iterator[tuple[Lab, list[Path], int]]:
    """The fleet, each node's log, and how many connections the box has reset."""
    with Lab("rstfleet") as lab:
        build(lab)
        tracer = Tracer("--viewpoint", "netns", "--summary")
        try:
            for host in HOSTS:  # the first packet to a neighbour waits for ARP
                for other in HOSTS:
                    if host != other and not (other[0] == "c" != host[0]):
                        with lab.inside(host), socket.socket() as sock:
                            sock.settimeout(DEADLINE_S)
                            sock.connect_ex((address(other), 9))
            armed_ns = time.time_ns()
            wait_until(armed_ns + MARGIN_NS)
            forged = plays(lab)
            wait_until(time.time_ns() + MARGIN_NS)
            Fence(lab).cross(tracer)
        finally:
            code = tracer.stop()
        assert code == 0, tracer.status
        yield lab, logs(tracer, lab, folder), forged
