"""Honest resets, many of which look as if somebody had forged them. None may be called forged.

The owner of the source address makes each of them: the peer's stack, its own firewall, the box that
holds the address, or a proxy that the peer's side put in front.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import select
import signal
import socket
import struct
import sys
import tempfile
import termios
from collections.abc import Callable, Iterator

from scapy.layers.l2 import ARP, Ether

from tests.accuracy.case import Case
from tests.accuracy.stack import STYLES
from tests.accuracy.stage import TRAFFIC, V4, V6, Conn, Stage, abort, vanish
from tests.accuracy.stages import LanStage, RebootStage
from tests.lab.harness import DEADLINE_S, expect_reset, mac_of, poll_until, provoke, send_frame

End = Callable[[Stage, Conn], None]


# ---- how an honest host resets ----


def lingers(stage: Stage, conn: Conn) -> None:
    """The server closes with SO_LINGER 0."""
    abort(conn.server)
    expect_reset(conn.client)


def unread(stage: Stage, conn: Conn) -> None:
    """The server closes with data unread."""
    conn.client.sendall(b"never read")
    poll = select.poll()
    poll.register(conn.server, select.POLLIN)
    poll.poll(DEADLINE_S * 1000)
    conn.server.close()
    expect_reset(conn.client)


def closed(stage: Stage, conn: Conn) -> None:
    """The server has closed; the client goes on writing. TIME_WAIT or no socket answers."""
    conn.server.close()
    assert conn.client.recv(1) == b""
    conn.client.sendall(b"too late")
    stage.arrived("client", 1)


def client_lingers(stage: Stage, conn: Conn) -> None:
    """The client resets the server."""
    abort(conn.client)
    expect_reset(conn.server)
    stage.arrived(stage.play.end, 1)


def crossing(stage: Stage, conn: Conn) -> None:
    """Both ends reset each other at once, with data on the way."""
    conn.client.sendall(b"x" * 3000)
    conn.server.sendall(b"y" * 3000)
    abort(conn.server)
    abort(conn.client)
    stage.arrived("client", 1)


def destroyed(stage: Stage, conn: Conn) -> None:
    """The server's administrator kills the socket (``ss -K``)."""
    stage.lab.exec("server", ["ss", "-K", "sport", "=", f":{stage.play.port}"])
    expect_reset(conn.client)


def own_firewall(stage: Stage, conn: Conn) -> None:
    """The server's own firewall rejects: its TTL, but the shape of a host without that socket."""
    stage.play.tell("client", "undecidable", "copier at r1")
    rule = f"tcp dport {stage.play.port} reject with tcp reset"
    chain = f"chain i {{ type filter hook input priority 0; {rule}; }}"
    with stage.rules("server", chain):
        provoke(conn.client, b"unwelcome")


def own_firewall_goes_on(stage: Stage, conn: Conn) -> None:
    """The same, and the socket, which knows nothing of it, goes on."""
    own_firewall(stage, conn)
    stage.play.tell("client", "undecidable", "copier at r5, the server goes on")
    stage.play.tell("server", "undecidable", "copier at r3")  # its answer is that of a dead socket
    provoke(conn.server, b"the answer")


def lingers_unheard(stage: Stage, conn: Conn) -> None:
    """As `lingers`, where the client may not accept the reset.

    SYNPROXY moves the sequence number of the server's RST by the wrong offset (seen on Linux 6.18:
    it arrives with the numbers of the handshake, behind data that the client has).
    """
    abort(conn.server)
    stage.arrived("client", 1)


ENDS: tuple[End, ...] = (lingers, unread, closed, client_lingers)
MORE_ENDS: tuple[End, ...] = (crossing, destroyed, own_firewall, own_firewall_goes_on)


def plain(stage: Stage, end: End, rounds: int = 3) -> None:
    """A connection and an honest end of it."""
    with stage.connection() as conn:
        conn.talk(rounds)
        end(stage, conn)


def refused_unknown(stage: Stage) -> None:
    """Nobody listens on a host of which nothing is known, not its distance either."""
    stage.play.tell("client", "undecidable", REFUSED_TWIN)
    refused(stage)


REFUSED_TWIN = "REJECT at w2 of mid refuses, peer met never"


def refused(stage: Stage) -> None:
    """Nobody listens; asked twice."""
    for _ in range(2):
        with stage.caller() as sock:
            assert sock.connect_ex((stage.play.server, stage.play.port)) != 0
    stage.arrived("client", 2)


# ---- programs as servers ----

SERVER = """
import signal, socket, struct, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
listener = socket.socket(family)
listener.setsockopt(*((41, 78, 1) if family == socket.AF_INET6 else (0, 15, 1)))
listener.bind((sys.argv[1], int(sys.argv[2])))
listener.listen()
print("up", flush=True)
sock, _ = listener.accept()
if sys.argv[3] == "hangs":
    sock.recv(5)
    sock.send(b"hello")
    signal.pause()
sock.settimeout(0.5)
try:
    while data := sock.recv(64):
        sock.send(data)
except TimeoutError:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
"""


def server_command(stage: Stage, how: str) -> list[str]:
    """A server program of the case's address and port."""
    return [sys.executable, "-c", SERVER, stage.play.server, str(stage.play.port), how]


def idle(stage: Stage) -> None:
    """The server resets a connection that has been idle too long for it."""
    with (
        stage.program("server", server_command(stage, "times-out"), ready="up"),
        stage.dial() as client,
    ):
        for _ in range(3):
            client.sendall(b"hello")
            assert client.recv(5) == b"hello"
        expect_reset(client)


def killed(stage: Stage) -> None:
    """The server's process is killed while a request waits unread."""
    with (
        stage.program("server", server_command(stage, "hangs"), ready="up") as pid,
        stage.dial() as client,
    ):
        client.sendall(b"hello")
        assert client.recv(5) == b"hello"
        client.sendall(b"a request")
        poll_until(lambda: unacknowledged(client) == 0, "the request to be taken")
        os.kill(pid, signal.SIGKILL)
        expect_reset(client)


def unacknowledged(sock: socket.socket) -> int:
    """Bytes sent and not yet acknowledged (SIOCOUTQ, tcp(7))."""
    return int(struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))[0])


def rebooted(stage: RebootStage, end: str) -> None:
    """The server's machine goes down without a word and comes back with no memory of anything."""
    with stage.connection() as conn:
        conn.talk()
        stage.lab.ip("server", "link delete eth0")
        conn.server.close()  # what it says now reaches nobody
        stage.reboot()
        if end == "client speaks":  # a tenth of a second of silence is not much of a sign
            stage.play.tell("client", "undecidable", "copier at r3")
            provoke(conn.client, b"still there?")
        else:
            with stage.caller() as again:
                assert again.connect_ex((stage.play.server, stage.play.port)) != 0
        stage.arrived("client", 1)


# ---- TTLs that vary ----


def program_ttl(stage: Stage, ttl: int, end: End) -> None:
    """The server's program chose its own TTL (ip(7), IP_TTL), as eBGP's do."""
    with stage.connection(ttl=ttl) as conn:
        conn.talk()
        end(stage, conn)


def program_ttl_later(stage: Stage, ttl: int, end: End) -> None:
    """The program sets it after the handshake."""
    with stage.connection() as conn:
        conn.talk()
        conn.server.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
        conn.talk()
        end(stage, conn)


def packet_ttl(stage: Stage, end: End) -> None:
    """The TTL varies from packet to packet, as some load balancers and obfuscating hosts do it."""
    field = "ip6 hoplimit" if stage.play.family == V6 else "ip ttl"
    port = stage.play.port
    # nft has no map for this field: mark the packets in turns, then set the TTL by the mark.
    ttls = " ".join(
        f"tcp sport {port} meta mark {mark} {field} set {ttl};"
        for mark, ttl in enumerate((64, 61, 55, 50, 58))
    )
    chain = (
        "chain o { type filter hook output priority 0; "
        f"tcp sport {port} meta mark set numgen inc mod 5; {ttls} }}"
    )
    with stage.rules("server", chain):
        for _ in range(4):
            with stage.connection() as conn:
                conn.talk()
                end(stage, conn)


def connection_ttl(stage: Stage) -> None:
    """Each connection has another TTL; then nobody listens any more."""
    for ttl in (50, 64, 255, 128, 57):
        with stage.connection(ttl=ttl) as conn:
            conn.talk(1)
            lingers(stage, conn)
    refused(stage)


# ---- boxes that belong to an end ----


def masquerade(stage: Stage, box: str, speaker: str) -> None:
    """A NAT box in front of the client loses its state (conntrack -F, as a restart does)."""
    port = stage.play.port
    chain = (
        "chain p { type nat hook postrouting priority 100; "
        f'tcp dport {port} oifname "out" masquerade to :40000-60000 fully-random; }}'
    )
    with stage.rules(box, chain), stage.connection() as conn:
        conn.talk()
        stage.lab.exec(box, ["conntrack", "-F"])
        if speaker == "server":  # the box itself has that address, and no such connection
            provoke(conn.server, b"an answer")
            stage.arrived("server", 1)
        else:  # the box gives it another port, of which the server knows nothing
            stage.play.tell("client", "undecidable", "copier at r3")
            provoke(conn.client, b"a request")
            stage.arrived("client", 1)


def published(stage: Stage, box: str) -> None:
    """A NAT box before the server holds its public address, restarts and has lost its rules."""
    play = stage.play
    real = f"fd80:{Stage.hops}::2" if play.family == V6 else f"10.80.{Stage.hops}.2"
    kind, target = ("ip6", f"[{real}]") if play.family == V6 else ("ip", real)
    chain = (
        "chain p { type nat hook prerouting priority -100; "
        f"{kind} daddr {play.server} tcp dport {play.port} dnat {kind} to {target}:{play.port}; }}"
    )
    stage.lab.addresses(box, "lo", f"{play.server}/{128 if play.family == V6 else 32}")
    with contextlib.ExitStack() as stack:
        with stage.rules(box, chain):
            with stage.listen_at("server", real) as listener:
                client = stack.enter_context(stage.dial())
                server = stack.enter_context(listener.accept()[0])
            server.settimeout(DEADLINE_S)
            Conn(client, server).talk()
        stage.lab.exec(box, ["conntrack", "-F"])
        provoke(client, b"a request")
        stage.arrived("client", 1)


SYNPROXY = """
chain raw {{
    type filter hook prerouting priority -300;
    tcp dport {port} tcp flags & (fin|syn|rst|ack) == syn notrack
}}
chain forward {{
    type filter hook forward priority 0;
    tcp dport {port} ct state invalid,untracked synproxy mss 1460 wscale 7 timestamp sack-perm
    tcp dport {port} ct state invalid drop
}}
"""


def synproxy(stage: Stage, box: str, end: End) -> None:
    """nftables' SYNPROXY answers the handshake for the server."""
    stage.lab.sysctl(box, net__netfilter__nf_conntrack_tcp_loose=0)
    with stage.rules(box, SYNPROXY.format(port=stage.play.port)), stage.connection() as conn:
        conn.talk()
        end(stage, conn)


def synproxy_refused(stage: Stage, box: str) -> None:
    """SYNPROXY completes the handshake, and then nobody listens on the server."""
    stage.lab.sysctl(box, net__netfilter__nf_conntrack_tcp_loose=0)
    with stage.rules(box, SYNPROXY.format(port=stage.play.port)), stage.caller() as client:
        with contextlib.suppress(ConnectionError):  # the reset may come before our next call
            client.connect((stage.play.server, stage.play.port))
            client.sendall(b"a request")
        stage.arrived("client", 1)


HAPROXY = """
global
    stats socket {directory}/stats
defaults
    mode tcp
    timeout connect 5s
    timeout client 60s
    timeout server 60s
{body}
"""
PROXY_PORT = 9001
TPROXY = """
chain divert {{
    type filter hook prerouting priority -150;
    tcp sport {port} socket transparent 1 meta mark set 1 accept
    tcp dport {port} tproxy {family} to :{proxy} meta mark set 1 accept
}}
"""


@contextlib.contextmanager
def haproxy(stage: Stage, role: str, body: str) -> Iterator[int]:
    """HAProxy in a namespace; gives its pid."""
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "haproxy.cfg")
        with open(path, "w", encoding="ascii") as file:
            file.write(HAPROXY.format(directory=directory, body=body))
        with stage.program(role, ["haproxy", "-db", "-f", path]) as pid:
            poll_until(lambda: os.path.exists(f"{directory}/stats"), "HAProxy to be up")
            yield pid


@contextlib.contextmanager
def transparent(stage: Stage, box: str) -> Iterator[tuple[Conn, int]]:
    """HAProxy on the way, to each end in the other's name (TPROXY, ``usesrc clientip``)."""
    play = stage.play
    v6 = play.family == V6
    ip = "-6 " if v6 else "-4 "
    everything, any_address = ("::/0", "[::]") if v6 else ("0.0.0.0/0", "0.0.0.0")
    server = f"[{play.server}]" if v6 else play.server
    body = f"""
frontend front
    bind {any_address}:{PROXY_PORT} transparent
    option nolinger
    default_backend back
backend back
    option nolinger
    source {any_address} usesrc clientip
    server s {server}:{play.port}
"""
    setup = [
        f"{ip}rule add fwmark 1 lookup 100",
        f"{ip}route add local {everything} dev lo table 100",
    ]
    undo = [f"{ip}rule del fwmark 1 lookup 100", f"{ip}route flush table 100"]
    rules = TPROXY.format(port=play.port, proxy=PROXY_PORT, family="ip6" if v6 else "ip")
    for command in setup:
        stage.lab.exec(box, ["ip", *command.split()])
    try:
        with stage.rules(box, rules), haproxy(stage, box, body) as pid, stage.connection() as conn:
            conn.talk()
            yield conn, pid
    finally:
        for command in undo:
            stage.lab.exec(box, ["ip", *command.split()])


def transparent_server_aborts(stage: Stage) -> None:
    """The server resets HAProxy, which resets the client in the server's name.

    To the client HAProxy is the peer: it made the handshake, too.
    """
    stage.play.tell("client", "undecidable", "lingers")
    with transparent(stage, "r3") as (conn, _):
        abort(conn.server)
        with contextlib.suppress(ConnectionError):
            conn.client.recv(1)


def transparent_client_aborts(stage: Stage) -> None:
    """The client resets HAProxy, which resets the server in the client's name."""
    stage.play.tell("server", "undecidable", "client lingers")
    with transparent(stage, "r3") as (conn, _):
        abort(conn.client)
        with contextlib.suppress(ConnectionError):
            conn.server.recv(1)


def transparent_killed(stage: Stage) -> None:
    """HAProxy is killed; its kernel answers what the client says next."""
    stage.play.tell("client", "undecidable", "closed")
    with transparent(stage, "r3") as (conn, pid):
        os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ConnectionError):
            conn.client.recv(1)
        with contextlib.suppress(ConnectionError):
            conn.client.sendall(b"still there?")
        stage.arrived("client", 1)


def transparent_bypassed(stage: Stage) -> None:
    """Routes change and no longer pass HAProxy: the server itself answers, and knows nothing."""
    stage.play.tell("client", "undecidable", "second host beside w6 of mid, requests")
    v6 = stage.play.family == V6
    there = (
        f"{stage.play.server}/128 via fd80:20::2"
        if v6
        else f"{stage.play.server}/32 via 10.80.20.2"
    )
    with transparent(stage, "r3") as (conn, _):
        stage.lab.route("r2", there)
        stage.lab.route("r4", *longer_way(stage))
        provoke(conn.client, b"still there?")
        stage.arrived("client", 1)


def front(stage: Stage) -> None:
    """HAProxy with an address of its own, killed under an open connection."""
    play = stage.play
    real = f"fd80:{Stage.hops}::2" if play.family == V6 else f"10.80.{Stage.hops}.2"
    v6 = play.family == V6
    stage.lab.addresses("r3", "lo", f"{play.server}/{128 if v6 else 32}")
    here, there = (f"[{play.server}]", f"[{real}]") if v6 else (play.server, real)
    body = f"""
listen front
    bind {here}:{play.port}
    server s {there}:{play.port}
"""
    with (
        haproxy(stage, "r3", body) as pid,
        stage.listen_at("server", real) as listener,
        stage.dial() as client,
        listener.accept()[0] as server,
    ):
        server.settimeout(DEADLINE_S)
        Conn(client, server).talk()
        os.kill(pid, signal.SIGKILL)
        assert client.recv(1) == b""
        client.sendall(b"still there?")
        stage.arrived("client", 1)


def health_checks(stage: Stage, listening: bool) -> None:
    """A load balancer (HAProxy, at the client) checks the server: SYN, SYN-ACK, RST, repeated."""
    play = stage.play
    v6 = play.family == V6
    server, source = (f"[{play.server}]", f"[{play.client}]") if v6 else (play.server, play.client)
    body = f"""
backend back
    source {source}
    server s {server}:{play.port} check inter 50ms fall 1 rise 1
"""
    with contextlib.ExitStack() as stack:
        if listening:
            stack.enter_context(stage.listen())
        else:
            play.tell("client", "undecidable", REFUSED_TWIN)
        # AnyIP addresses are not configured: IPv6 would not let HAProxy bind to one.
        stage.lab.sysctl("client", net__ipv4__ip_nonlocal_bind=1, net__ipv6__ip_nonlocal_bind=1)
        stack.enter_context(haproxy(stage, "client", body))
        stage.arrived("server" if listening else "client", 5)


# ---- paths that change ----


def longer_way(stage: Stage) -> list[str]:
    """The route from the server's side to the case's client by d2 and d1: one hop more."""
    if stage.play.family == V6:
        return [f"{stage.play.client}/128 via fd80:22::1"]
    return [f"{stage.play.client}/32 via 10.80.22.1"]


def rerouted(stage: Stage, end: End) -> None:
    """The way back gets one hop longer in the middle of the connection."""
    with stage.connection() as conn:
        conn.talk()
        stage.lab.route("r4", *longer_way(stage))
        conn.talk(1)
        end(stage, conn)


def rerouted_at_last(stage: Stage, end: End) -> None:
    """The reset is the first packet to take the longer way."""
    with stage.connection() as conn:
        conn.talk()
        stage.lab.route("r4", *longer_way(stage))
        end(stage, conn)


def shorter_at_last(stage: Stage, end: End, traffic: str | None) -> None:
    """All packets came by the longer way; the reset is the first to take the shorter one."""
    stage.lab.route("r4", *longer_way(stage))
    with stage.busy(traffic) as conn:
        stage.lab.ip("r4", *(f"route del {route}" for route in longer_way(stage)))
        end(stage, conn)


def shorter_then_refused(stage: Stage) -> None:
    """A connection by the longer way; the next one is refused by the shorter one."""
    play = stage.play
    play.tell("client", "undecidable", "REJECT at w4 of mid refuses, peer met before")
    stage.lab.route("r4", *longer_way(stage))
    port, play.port = play.port, play.port - 10_000
    with stage.connection() as conn:
        conn.talk(1)
        conn.server.close()
        assert conn.client.recv(1) == b""
    play.port = port
    stage.lab.ip("r4", *(f"route del {route}" for route in longer_way(stage)))
    refused(stage)


def two_paths(stage: Stage, end: End) -> None:
    """ECMP by flow over ways of 5 and 6 hops; several connections."""
    play = stage.play
    if play.family == V6:
        hop, net = ("fd80:3::1", "fd80:22::1"), f"{play.client}/128"
    else:
        hop, net = ("10.80.3.1", "10.80.22.1"), f"{play.client}/32"
    stage.lab.sysctl(
        "r4", net__ipv4__fib_multipath_hash_policy=1, net__ipv6__fib_multipath_hash_policy=1
    )
    stage.lab.route("r4", f"{net} nexthop via {hop[0]} nexthop via {hop[1]}")
    for _ in range(4):
        with stage.connection() as conn:
            conn.talk()
            end(stage, conn)


def sprayed(stage: Stage, end: End) -> None:
    """Packets take ways of 5 and 6 hops in turns."""
    play = stage.play
    v6 = play.family == V6
    chain = (
        "chain p { type filter hook prerouting priority -150; "
        f"tcp sport {play.port} meta mark set numgen inc mod 2; }}"
    )
    ip = "-6" if v6 else "-4"
    via = longer_way(stage)[0].split()[-1]
    table = str(1000 + play.number)
    rule = ["to", play.client, "fwmark", "1", "lookup", table]
    stage.lab.exec("r4", ["ip", ip, "rule", "add", *rule])
    stage.lab.exec("r4", ["ip", ip, "route", "add", "default", "via", via, "table", table])
    with stage.rules("r4", chain):
        for _ in range(4):
            with stage.connection() as conn:
                conn.talk()
                end(stage, conn)


def duplicated(stage: Stage, end: End) -> None:
    """A router sends each of the server's packets twice."""
    chain = (
        "chain f { type filter hook forward priority 0; "
        f'tcp sport {stage.play.port} dup to 10.80.1.1 device "in"; }}'
    )
    with stage.rules("r2", chain, family="ip"), stage.connection() as conn:
        conn.talk()
        end(stage, conn)
        stage.arrived("client", 2)


def duplicated_refusal(stage: Stage) -> None:
    """The same with nobody listening."""
    chain = (
        "chain f { type filter hook forward priority 0; "
        f'tcp sport {stage.play.port} dup to 10.80.1.1 device "in"; }}'
    )
    with stage.rules("r2", chain, family="ip"):
        refused_unknown(stage)
        stage.arrived("client", 4)


def lossy(stage: Stage) -> None:
    """One in ten packets is lost, either way; the server resets, and resets again when asked."""
    chain = (
        "chain f { type filter hook forward priority 0; "
        f"tcp sport {stage.play.port} numgen random mod 10 == 0 drop; "
        f"tcp dport {stage.play.port} numgen random mod 10 == 0 drop; }}"
    )
    with stage.rules("r3", chain):
        for number in range(1, 6):
            with stage.connection() as conn:
                conn.talk(2)
                abort(conn.server)
                conn.client.settimeout(0.2)

                def asked(client: socket.socket = conn.client) -> bool:
                    try:
                        client.send(b"?")
                        client.recv(1)
                    except TimeoutError:
                        return False
                    except ConnectionError:
                        return True
                    return True

                poll_until(asked, "the reset to come through")
            stage.arrived("client", number)


def failover(stage: LanStage, end: End) -> None:
    """The other gateway takes the gateway's address over: another MAC for the same next hop."""
    with stage.connection() as conn:
        conn.talk()
        stage.lab.ip("gwa", f"address del {stage.GATEWAY}/24 dev eth0")
        stage.lab.ip("gwb", f"address add {stage.GATEWAY}/24 dev eth0")
        stage.lab.ip("r3", "route replace 10.79.0.0/16 via 10.80.31.1")
        mac = mac_of(stage.lab, "gwb", "eth0")
        # A VRRP master announces its address so (RFC 9568 §6.4.1).
        send_frame(
            stage.lab,
            "gwb",
            "eth0",
            Ether(src=mac, dst="ff:ff:ff:ff:ff:ff")
            / ARP(op=1, hwsrc=mac, psrc=stage.GATEWAY, pdst=stage.GATEWAY),
        )

        def known() -> bool:
            return mac in stage.lab.exec("client", ["ip", "neigh", "show", stage.GATEWAY])

        try:
            poll_until(known, "the announcement of the new gateway")
            end(stage, conn)
        finally:
            stage.lab.ip("gwb", f"address del {stage.GATEWAY}/24 dev eth0")
            stage.lab.ip("gwa", f"address add {stage.GATEWAY}/24 dev eth0")
            stage.lab.ip("r3", "route replace 10.79.0.0/16 via 10.80.30.1")
            stage.lab.ip("client", "neigh flush dev eth0")


def asymmetric(stage: LanStage, end: End) -> None:
    """Only the way back changes over to the other gateway."""
    with stage.connection() as conn:
        conn.talk()
        stage.lab.ip("r3", "route replace 10.79.0.0/16 via 10.80.31.1")
        try:
            end(stage, conn)
        finally:
            stage.lab.ip("r3", "route replace 10.79.0.0/16 via 10.80.30.1")


def neighbours(stage: LanStage, end: End) -> None:
    """Client and server on one link."""
    address = f"10.82.0.{stage.NEIGHBOUR}"
    with stage.listen_at("neighbour", address) as listener, stage.caller() as client:
        client.connect((address, stage.play.port))
        server, _ = listener.accept()
        server.settimeout(DEADLINE_S)
        conn = Conn(client, server)
        conn.talk()
        end(stage, conn)
        server.close()


def neighbour_vanished(stage: LanStage) -> None:
    """A neighbour's host loses a socket."""
    stage.play.tell("client", "undecidable", "neighbour's MAC spoofed")

    def vanishes(stage: Stage, conn: Conn) -> None:
        vanish(conn.server)
        provoke(conn.client, b"still there?")

    neighbours(stage, vanishes)


# ---- other stacks ----


def other_stack(stage: Stage, style: str, rounds: int) -> None:
    """The server is no Linux host."""
    port = stage.play.port
    chain = f"chain r {{ type filter hook prerouting priority -300; tcp dport {port} drop; }}"
    command = stage.python("tests.accuracy.stack", style, str(port))
    with (
        stage.rules("server", chain),
        stage.program("server", command, ready="up"),
        stage.dial() as client,
    ):
        for number in range(rounds):
            text = f"round {number} ".encode() * (number + 1)
            client.sendall(text)
            got = b""
            while len(got) < len(text):
                got += client.recv(4096)
        provoke(client, b"RESET")


def cases() -> Iterator[Case]:
    """All of them."""
    made = functools.partial
    for family, version in ((V4, "v4"), (V6, "v6")):

        def case(
            name: str,
            source: str,
            play: Callable[..., None],
            stage: type[Stage] = Stage,
            fast: bool = False,
            programs: tuple[str, ...] = (),
            waits: bool = False,
            honest: bool = True,
            label: str = "forged",
            family: int = family,
            version: str = version,
        ) -> Case:
            name = f"{name} {version}"
            return Case(name, source, honest, play, stage, family, fast, programs, label, waits)

        for end in (*ENDS, *MORE_ENDS):
            name = end.__name__.replace("_", " ")
            yield case(name, "linux", made(plain, end=end), fast=True)
            yield case(f"{name}, no data before", "linux", made(plain, end=end, rounds=0))
        yield case("refused", "linux", refused_unknown, fast=True)
        yield case("idle timeout", "linux", idle)
        yield case("killed process", "linux", killed)
        for what in ("client speaks", "client connects"):
            yield case(f"rebooted, {what}", "linux", made(rebooted, end=what), RebootStage, True)
        for end in (lingers, closed, unread):
            name = end.__name__
            yield case(
                f"TTL of each packet, {name}", "varied TTL", made(packet_ttl, end=end), fast=True
            )
            yield case(f"rerouted, {name}", "path change", made(rerouted, end=end), fast=True)
            yield case(
                f"reroute at the reset, {name}", "path change", made(rerouted_at_last, end=end)
            )
            for traffic in (*TRAFFIC, None):
                yield case(
                    f"shorter way at the reset, {name}, {traffic or 'at once'}",
                    "path change",
                    made(shorter_at_last, end=end, traffic=traffic),
                    waits=True,
                    fast=traffic == "bulk",
                )
            yield case(f"ECMP by flow, {name}", "path change", made(two_paths, end=end))
            yield case(f"ECMP by packet, {name}", "path change", made(sprayed, end=end))
        yield case(
            "shorter way, then refused", "path change", shorter_then_refused, waits=True, fast=True
        )
        for box in ("r1", "r3"):
            for speaker in ("server", "client"):
                yield case(
                    f"masquerade at {box} lost its state, {speaker} speaks",
                    "NAT state lost",
                    made(masquerade, box=box, speaker=speaker),
                    programs=("conntrack",),
                    fast=True,
                    honest=speaker == "client",
                    label="box",
                )
        for box in ("r5", "r3"):
            yield case(
                f"port forwarding at {box} lost its state",
                "NAT state lost",
                made(published, box=box),
                programs=("conntrack",),
                fast=True,
                honest=False,
                label="box",
            )
        for box in ("r2", "r4"):
            for end in (lingers_unheard, closed, client_lingers):
                name = end.__name__.replace("_", " ")
                yield case(
                    f"SYNPROXY at {box}, {name}",
                    "SYNPROXY",
                    made(synproxy, box=box, end=end),
                    fast=True,
                )
            yield case(
                f"SYNPROXY at {box}, refused",
                "SYNPROXY",
                made(synproxy_refused, box=box),
                fast=True,
            )
        for play in (
            transparent_server_aborts,
            transparent_client_aborts,
            transparent_killed,
            transparent_bypassed,
            front,
        ):
            name = play.__name__.replace("_", " ")
            own = play in (transparent_bypassed, front)  # the owner of the address answers
            yield case(
                f"HAProxy {name}",
                "HAProxy",
                play,
                programs=("haproxy",),
                honest=own,
                label="box",
            )
        for listening in (True, False):
            what = "answered" if listening else "refused"
            yield case(
                f"health checks {what}",
                "HAProxy health check",
                made(health_checks, listening=listening),
                programs=("haproxy",),
            )
        yield case("packets lost", "path change", lossy)
        for style in STYLES:
            yield case(
                f"other stack: {style}",
                f"stack: {style}",
                made(other_stack, style=style, rounds=3),
                fast=True,
            )
        for style in ("windows", "appliance", "random-ids"):
            yield case(
                f"other stack: {style}, no data before",
                f"stack: {style}",
                made(other_stack, style=style, rounds=0),
            )
    for end in (lingers, closed, unread):
        name = end.__name__
        for ttl in (30, 50, 128, 255):
            yield Case(
                f"program's TTL {ttl}, {name}",
                "varied TTL",
                True,
                made(program_ttl, ttl=ttl, end=end),
                fast=True,
            )
            yield Case(
                f"program's TTL {ttl} set later, {name}",
                "varied TTL",
                True,
                made(program_ttl_later, ttl=ttl, end=end),
            )
        yield Case(f"duplicated, {name}", "path change", True, made(duplicated, end=end), fast=True)
        yield Case(
            f"gateway failover, {name}",
            "path change",
            True,
            made(failover, end=end),
            LanStage,
            fast=True,
        )
        yield Case(
            f"asymmetric way back, {name}", "path change", True, made(asymmetric, end=end), LanStage
        )
        yield Case(f"neighbours, {name}", "linux", True, made(neighbours, end=end), LanStage)
    yield Case("socket of a neighbour vanished", "linux", True, neighbour_vanished, LanStage)
    yield Case("duplicated, refused", "path change", True, duplicated_refusal)
    yield Case("TTL of each connection", "varied TTL", True, connection_ttl)
