"""Every kind and cause, on real packets: rows of traffic and what the tracer must say.

Each case is repeated a prime number of times, and each namespace must show exactly the entries
expected: no more (phantoms), no less. The rows are written for a kernel that tells everything;
`rsttrace.kernel.knowledge` says what is left of them where a kernel, or a plan, tells less.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import platform
import select
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import pytest
import scapy.layers.inet as scapy_inet
import scapy.layers.inet6 as scapy_inet6

from rsttrace.demo.lab import Lab
from rsttrace.kernel import drops, knowledge
from rsttrace.kernel.hooks import Plan
from rsttrace.model import Kind
from tests.lab.harness import (
    DEADLINE_S,
    Fence,
    Json,
    Tracer,
    deliver,
    drop_reasons,
    expect_reset,
    knows,
    linger_zero,
    out_rsts,
    pair,
    poll_until,
    send_ip,
    server_address,
)

TCP = scapy_inet.TCP

V4, V6 = socket.AF_INET, socket.AF_INET6
CLIENT, SERVER, ROUTER = "client", "server", "router"


def ip(source: str, target: str, family: int, **fields: Any) -> Any:
    """An IP header from a role to a role."""
    layer = scapy_inet.IP if family == V4 else scapy_inet6.IPv6
    return layer(src=server_address(source, family), dst=server_address(target, family), **fields)


def tcp_state(sock: socket.socket) -> int:
    """TCP_INFO's tcpi_state."""
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]


def sequence(lab: Lab, role: str, sock: socket.socket) -> tuple[int, int]:
    """(snd_nxt, rcv_nxt) of a quiet connection, through TCP_REPAIR (net/ipv4/tcp.c)."""
    with lab.inside(role):
        sock.setsockopt(socket.IPPROTO_TCP, 19, 1)  # TCP_REPAIR
        numbers = []
        for which in (2, 1):  # TCP_SEND_QUEUE, TCP_RECV_QUEUE
            sock.setsockopt(socket.IPPROTO_TCP, 20, which)  # TCP_REPAIR_QUEUE
            numbers.append(sock.getsockopt(socket.IPPROTO_TCP, 21) & 0xFFFFFFFF)  # TCP_QUEUE_SEQ
        sock.setsockopt(socket.IPPROTO_TCP, 19, -1)  # off, without a window probe
    return numbers[0], numbers[1]


# ---- traffic ----


def refused(lab: Lab, family: int) -> None:
    with lab.inside(CLIENT), socket.socket(family) as sock:
        sock.settimeout(10)
        assert sock.connect_ex((server_address(SERVER, family), 7999)) != 0


def refused_mapped(lab: Lab, family: int) -> None:
    del family
    with lab.inside(CLIENT), socket.socket(V6) as sock:
        sock.settimeout(10)
        assert sock.connect_ex((f"::ffff:{server_address(SERVER, V4)}", 7999)) != 0


def stray_ack(lab: Lab, family: int) -> None:
    packet = ip(CLIENT, SERVER, family) / TCP(sport=7001, dport=7999, flags="A", seq=7, ack=99)
    send_ip(lab, CLIENT, packet)


def stray_ack_to_listener(lab: Lab, family: int) -> None:
    with lab.inside(SERVER), socket.socket(family) as listener:
        listener.bind((server_address(SERVER, family), 7002))
        listener.listen()
        packet = ip(CLIENT, SERVER, family) / TCP(sport=7001, dport=7002, flags="A", ack=99)
        before = out_rsts(lab, SERVER)
        send_ip(lab, CLIENT, packet)
        poll_until(lambda: out_rsts(lab, SERVER) > before, "the listener's reset")


def unread_data(lab: Lab, family: int) -> None:
    with pair(lab, CLIENT, SERVER, family=family) as (client, accepted):
        client.send(b"unread")
        accepted.recv(1)
        accepted.close()
        expect_reset(client)


def unread_data_after_fin(lab: Lab, family: int) -> None:
    with pair(lab, CLIENT, SERVER, family=family) as (client, accepted):
        client.send(b"unread")
        client.shutdown(socket.SHUT_WR)
        poll_until(lambda: tcp_state(accepted) == 8, "CLOSE_WAIT")
        poll_until(lambda: tcp_state(client) == 5, "FIN_WAIT2")
        accepted.close()
        expect_reset(client)


def linger(lab: Lab, family: int) -> None:
    with pair(lab, CLIENT, SERVER, family=family) as (client, accepted):
        linger_zero(client)
        client.close()
        expect_reset(accepted)


def linger_after_fin(lab: Lab, family: int) -> None:
    """The server half closes, then resets: the client is in CLOSE_WAIT."""
    with pair(lab, CLIENT, SERVER, family=family) as (client, accepted):
        accepted.shutdown(socket.SHUT_WR)
        poll_until(lambda: tcp_state(client) == 8, "CLOSE_WAIT")
        poll_until(lambda: tcp_state(accepted) == 5, "FIN_WAIT2")
        linger_zero(accepted)
        accepted.close()
        poll_until(lambda: tcp_state(client) == 7, "the reset")


def killed_by_ss(lab: Lab, family: int) -> None:
    with pair(lab, CLIENT, SERVER, family=family) as (client, _):
        port = client.getsockname()[1]
        lab.exec(CLIENT, ["ss", "-K", "state", "established", "sport", "=", f":{port}"])
        poll_until(lambda: tcp_state(client) == 7, "ss -K")


@contextmanager
def sooner(lab: Lab) -> Iterator[None]:
    """A connection made inside retransmits from the server as early as Linux's usually do."""
    gateways = ("10.71.2.254", "fd71:2::fe")
    lab.ip(SERVER, *(f"route change default via {gateway} rto_min 200ms" for gateway in gateways))
    try:
        yield
    finally:
        lab.ip(SERVER, *(f"route change default via {gateway} rto_min 5s" for gateway in gateways))


def data_to_time_wait(lab: Lab, family: int) -> None:
    """FIN_WAIT2 as a TIME_WAIT minisocket: data draws a RST (tcp_timewait_state_process).

    The FIN's ACK must come when close() is over; so its first one is dropped.
    """
    with sooner(lab), pair(lab, CLIENT, SERVER, family=family) as (client, accepted):
        chain(lab, SERVER, "input", "tcp dport 7000 drop")
        accepted.close()
        lab.nft(SERVER, "flush ruleset")
        state = ["ss", "-Htano", "sport", "=", ":7000"]
        poll_until(lambda: "timer:(timewait" in lab.exec(SERVER, state), "TIME_WAIT")
        client.send(b"too late")
        poll_until(lambda: tcp_state(client) == 7, "the reset")


def data_after_close(lab: Lab, family: int) -> None:
    """Data for an orphan in FIN_WAIT2: more than TCP_TIMEWAIT_LEN keeps it a full socket."""
    with pair(lab, CLIENT, SERVER, family=family) as (client, accepted):
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_LINGER2, 90)
        accepted.close()
        poll_until(lambda: tcp_state(client) == 8, "CLOSE_WAIT")
        client.send(b"too late")
        poll_until(lambda: tcp_state(client) == 7, "the reset")


def data_after_shutdown(lab: Lab, family: int) -> None:
    """A full socket after SHUT_RDWR: data makes the kernel call tcp_reset() itself (a phantom)."""
    with pair(lab, CLIENT, SERVER, family=family) as (client, accepted):
        accepted.shutdown(socket.SHUT_RDWR)
        poll_until(lambda: tcp_state(accepted) == 5, "FIN_WAIT2")
        client.send(b"too late")
        poll_until(lambda: tcp_state(client) == 7, "the reset")


def rejected_in_input(lab: Lab, family: int) -> None:
    refused(lab, family)


def forged_rst(lab: Lab, family: int, seq_add: int, role: str = SERVER, **tcp: Any) -> None:
    """A RST for a live connection, with a sequence number that is off by `seq_add`."""
    with pair(lab, CLIENT, SERVER, family=family) as (client, _):
        _, rcv_nxt = sequence(lab, CLIENT, client)
        packet = ip(SERVER, CLIENT, family, **({"id": 4711} if family == V4 else {})) / TCP(
            sport=7000,
            dport=client.getsockname()[1],
            flags="R",
            seq=(rcv_nxt + seq_add) & 0xFFFFFFFF,
            window=0,
            **tcp,
        )
        deliver(lab, role, CLIENT, packet)
        if not seq_add and not tcp:
            expect_reset(client)


class Fault:
    """A page whose first touch waits: whoever reads into it stays in the kernel, for so long.

    userfaultfd(2): with recv(), the socket's lock is held meanwhile, and what arrives goes to its
    backlog.
    """

    def __init__(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        number = {"x86_64": 323, "aarch64": 282}[platform.machine()]
        self._fd = libc.syscall(number, os.O_CLOEXEC | os.O_NONBLOCK)
        if self._fd < 0:
            if (error := ctypes.get_errno()) != errno.ENOSYS:
                raise OSError(error, f"userfaultfd: {os.strerror(error)}")
            pytest.skip("this kernel has no userfaultfd (CONFIG_USERFAULTFD)")
        self.page = mmap.mmap(-1, mmap.PAGESIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        start = ctypes.addressof(ctypes.c_char.from_buffer(self.page))
        self._range = struct.pack("=QQ", start, mmap.PAGESIZE)
        # include/uapi/linux/userfaultfd.h: UFFDIO_API, UFFDIO_REGISTER for missing pages
        fcntl.ioctl(self._fd, 0xC018AA3F, struct.pack("=QQQ", 0xAA, 0, 0))
        fcntl.ioctl(self._fd, 0xC020AA00, self._range + struct.pack("=QQ", 1, 0))

    def wait(self) -> None:
        """Until somebody touches it."""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        assert poll.poll(DEADLINE_S * 1000), "nobody reads into the page"
        os.read(self._fd, 32)

    def end(self) -> None:
        """Let them go on: UFFDIO_ZEROPAGE."""
        fcntl.ioctl(self._fd, 0xC020AA04, self._range + struct.pack("=QQ", 0, 0))
        os.close(self._fd)


def backlog(sock: socket.socket) -> int:
    """Bytes that wait until nobody holds the socket's lock (SO_MEMINFO, SK_MEMINFO_BACKLOG)."""
    (size,) = struct.unpack_from("=I", sock.getsockopt(socket.SOL_SOCKET, 55, 36), 7 * 4)
    return int(size)


def holds_more(sock: socket.socket, than: int) -> bool:
    """Whether its backlog has grown."""
    return backlog(sock) > than


def two_at_once(lab: Lab, family: int) -> None:
    """Two RSTs reach a socket before it is looked at: the first resets it, the second is late."""
    with pair(lab, CLIENT, SERVER, family=family) as (client, accepted):
        accepted.send(b"data")
        assert client.recv(4, socket.MSG_PEEK) == b"data"
        _, rcv_nxt = sequence(lab, CLIENT, client)
        rst = TCP(sport=7000, dport=client.getsockname()[1], flags="R", seq=rcv_nxt)
        fault = Fault()
        reader = threading.Thread(target=client.recv_into, args=(fault.page,))
        reader.start()
        fault.wait()
        try:
            before = 0
            for number in (1, 2):
                send_ip(lab, SERVER, ip(SERVER, CLIENT, family) / rst)
                poll_until(partial(holds_more, client, before), f"RST {number} in the backlog")
                before = backlog(client)
        finally:
            fault.end()
            reader.join()


def challenge_ack(lab: Lab, family: int) -> None:
    forged_rst(lab, family, 1)


def out_of_window(lab: Lab, family: int) -> None:
    forged_rst(lab, family, 0x40000000)


def bad_checksum(lab: Lab, family: int) -> None:
    forged_rst(lab, family, 0, chksum=0x1234)


def forged_at_router(lab: Lab, family: int) -> None:
    forged_rst(lab, family, 0, role=ROUTER)


def wrong_ack(lab: Lab, family: int) -> None:
    """A RST for a SYN_SENT socket that acknowledges something else."""
    with lab.inside(CLIENT), socket.socket(family) as sock:
        sock.setblocking(False)
        sock.connect_ex((server_address(SERVER, family), 7003))  # dropped by the server's firewall
        packet = ip(SERVER, CLIENT, family) / TCP(
            sport=7003, dport=sock.getsockname()[1], flags="RA", seq=0, ack=12345
        )
        deliver(lab, ROUTER, CLIENT, packet)
        assert tcp_state(sock) == 2, "still SYN_SENT"


def rst_in_syn_recv(lab: Lab, family: int) -> None:
    """A half-open connection that its client resets."""
    with lab.inside(SERVER), socket.socket(family) as listener:
        listener.bind((server_address(SERVER, family), 7004))
        listener.listen()
        syn = TCP(sport=7005, dport=7004, flags="S", seq=1000)
        deliver(lab, CLIENT, SERVER, ip(CLIENT, SERVER, family) / syn)
        rst = TCP(sport=7005, dport=7004, flags="R", seq=1001)
        deliver(lab, CLIENT, SERVER, ip(CLIENT, SERVER, family) / rst)


def rst_in_time_wait(lab: Lab, family: int) -> None:
    with pair(lab, CLIENT, SERVER, family=family) as (client, accepted):
        port = client.getsockname()[1]
        numbers = sequence(lab, CLIENT, client)
        client.close()
        accepted.recv(1)
        accepted.close()
        rst = TCP(sport=7000, dport=port, flags="R", seq=(numbers[1] + 5000) & 0xFFFFFFFF)
        deliver(lab, SERVER, CLIENT, ip(SERVER, CLIENT, family) / rst)


def rst_to_listener(lab: Lab, family: int) -> None:
    with lab.inside(SERVER), socket.socket(family) as listener:
        listener.bind((server_address(SERVER, family), 7006))
        listener.listen()
        rst = TCP(sport=7007, dport=7006, flags="R", seq=1)
        deliver(lab, CLIENT, SERVER, ip(CLIENT, SERVER, family) / rst)


def rst_ack_to_listener(lab: Lab, family: int) -> None:
    """With ACK the kernel gives another reason; there is no half-open connection either."""
    with lab.inside(SERVER), socket.socket(family) as listener:
        listener.bind((server_address(SERVER, family), 7006))
        listener.listen()
        rst = TCP(sport=7007, dport=7006, flags="RA", seq=1, ack=1)
        deliver(lab, CLIENT, SERVER, ip(CLIENT, SERVER, family) / rst)


def rst_to_nobody(lab: Lab, family: int) -> None:
    rst = TCP(sport=7008, dport=7009, flags="R", seq=1)
    deliver(lab, CLIENT, SERVER, ip(CLIENT, SERVER, family) / rst)


# ---- set-up ----


def nothing(lab: Lab) -> None:
    del lab


def chain(lab: Lab, role: str, hook: str, rule: str) -> None:
    lab.nft(
        role,
        f"table inet t {{\nchain {hook} {{\ntype filter hook {hook} priority 0\n{rule}\n}}\n}}\n",
    )


def reject_input(lab: Lab) -> None:
    chain(lab, SERVER, "input", "tcp dport 7999 reject with tcp reset")


def reject_forward(lab: Lab) -> None:
    chain(lab, ROUTER, "forward", "tcp dport 7999 reject with tcp reset")


def reject_output(lab: Lab) -> None:
    chain(lab, CLIENT, "output", "tcp dport 7999 reject with tcp reset")


def drop_syn(lab: Lab) -> None:
    chain(lab, SERVER, "input", "tcp dport 7003 drop")


def drop_syn_ack(lab: Lab) -> None:
    chain(lab, CLIENT, "input", "tcp sport 7004 drop")


def drop_own_rst(lab: Lab) -> None:
    chain(lab, SERVER, "output", "tcp flags rst drop")


def no_way_back(lab: Lab) -> None:
    lab.ip(
        SERVER,
        "route add blackhole 10.71.1.0/24",
        "route add blackhole fd71:1::/64",
    )
    lab.sysctl(SERVER, net__ipv4__conf__all__rp_filter=0, net__ipv4__conf__eth0__rp_filter=0)


# ---- what must be seen ----


class Seen(NamedTuple):
    """What one entry says: None means null in the JSON."""

    kind: str
    cause: str
    origin: str
    state: str | None = None
    made_here: str | None = None


class Row(NamedTuple):
    """One case; `server`, `client`, `router`: what each shows for one round of traffic."""

    name: str
    traffic: Callable[[Lab, int], None]
    server: tuple[Seen, ...] = ()
    client: tuple[Seen, ...] = ()
    router: tuple[Seen, ...] = ()
    setup: Callable[[Lab], None] = nothing
    families: tuple[int, ...] = (V4, V6)
    rounds: int = 3
    tcp_drop: bool = False
    """The stack frees the rejected RST by tcp_drop(): kernels differ in what that tells."""
    minisocket: bool = False
    """What is answered is for what is left of a closed connection: kernels differ in that, too."""
    words: Mapping[str, str] = {}
    """What an entry of a cause says in words."""


FORWARDED = Seen("forwarded", "forwarded", "peer", None, "sent-passive")
FORWARDED_ACTIVE = FORWARDED._replace(made_here="sent-active")
FORWARDED_RAW = Seen("forwarded", "forwarded", "forged", None, "sent-raw")
RAW = Seen("sent-raw", "raw-socket", "local")
REFUSED = Seen("received-accepted", "connection-refused", "peer", "SYN_SENT", "sent-passive")
RESET = Seen("received-accepted", "connection-reset", "peer", "ESTABLISHED", "sent-active")
UNMATCHED = Seen("received-unmatched", "no-socket", "peer", None, "sent-passive")
REJECTED = Seen("received-rejected", "", "forged", None, "sent-raw")

ROWS = [
    Row(
        "refused",
        refused,
        server=(Seen("sent-passive", "no-listener", "local"),),
        client=(REFUSED,),
        router=(FORWARDED,),
        rounds=7,
    ),
    Row(
        "refused-v4-mapped",
        refused_mapped,
        server=(Seen("sent-passive", "no-listener", "local"),),
        client=(REFUSED,),
        router=(FORWARDED,),
        families=(V4,),
    ),
    Row(
        "no-socket",
        stray_ack,
        server=(Seen("sent-passive", "no-socket", "local"),),
        client=(UNMATCHED,),
        router=(FORWARDED,),
        rounds=5,
    ),
    Row(
        "listen",
        stray_ack_to_listener,
        server=(Seen("sent-passive", "listen", "local", "LISTEN"),),
        client=(UNMATCHED,),
        router=(FORWARDED,),
    ),
    Row(
        "unread-data",
        unread_data,
        server=(Seen("sent-active", "unread-data", "local", "ESTABLISHED"),),
        client=(RESET,),
        router=(FORWARDED_ACTIVE,),
        rounds=7,
    ),
    Row(
        "unread-data-in-close-wait",
        unread_data_after_fin,
        server=(Seen("sent-active", "unread-data", "local", "CLOSE_WAIT"),),
        client=(RESET._replace(cause="reset-while-closing", state="FIN_WAIT2"),),
        router=(FORWARDED_ACTIVE,),
    ),
    Row(
        "linger",
        linger,
        client=(Seen("sent-active", "linger", "local", "ESTABLISHED"),),
        server=(RESET,),
        router=(FORWARDED_ACTIVE,),
        rounds=7,
    ),
    Row(
        "linger-after-fin",
        linger_after_fin,
        server=(Seen("sent-active", "linger", "local", "FIN_WAIT2"),),
        client=(RESET._replace(cause="reset-after-fin", state="CLOSE_WAIT"),),
        router=(FORWARDED_ACTIVE,),
    ),
    Row(
        "ss-kill",
        killed_by_ss,
        client=(Seen("sent-active", "aborted", "local", "ESTABLISHED"),),
        server=(RESET,),
        router=(FORWARDED_ACTIVE,),
    ),
    Row(
        "data-to-minisocket",
        data_to_time_wait,
        minisocket=True,
        server=(Seen("sent-passive", "data-after-close", "local", "FIN_WAIT2"),),
        client=(
            Seen("received-accepted", "reset-after-fin", "peer", "CLOSE_WAIT", "sent-passive"),
        ),
        router=(FORWARDED,),
    ),
    Row(
        "phantom-received-data-after-close",
        data_after_close,
        server=(Seen("sent-passive", "data-after-close", "local", "FIN_WAIT2"),),
        client=(
            Seen("received-accepted", "reset-after-fin", "peer", "CLOSE_WAIT", "sent-passive"),
        ),
        router=(FORWARDED,),
    ),
    Row(
        "phantom-received-data-after-shutdown",
        data_after_shutdown,
        server=(Seen("sent-passive", "data-after-close", "local", "FIN_WAIT2"),),
        client=(
            Seen("received-accepted", "reset-after-fin", "peer", "CLOSE_WAIT", "sent-passive"),
        ),
        router=(FORWARDED,),
    ),
    Row(
        "netfilter-input",
        refused,
        setup=reject_input,
        server=(Seen("sent-netfilter", "firewall-reject", "local"),),
        # It is the peer's own host that rejects: the peer.
        client=(REFUSED._replace(made_here="sent-netfilter"),),
        router=(FORWARDED._replace(made_here="sent-netfilter"),),
    ),
    Row(
        "netfilter-forward",
        refused,
        setup=reject_forward,
        router=(Seen("sent-netfilter", "firewall-reject", "local"),),
        client=(REFUSED._replace(origin="forged", made_here="sent-netfilter"),),
        rounds=5,
    ),
    Row(
        "netfilter-output",
        refused,
        setup=reject_output,
        client=(
            Seen("sent-netfilter", "firewall-reject", "local"),
            REFUSED._replace(origin="forged", made_here="sent-netfilter"),
        ),
    ),
    Row(
        "challenge-ack",
        challenge_ack,
        server=(RAW,),
        client=(REJECTED._replace(cause="challenge-ack", state="ESTABLISHED"),),
        router=(FORWARDED_RAW,),
        tcp_drop=True,
    ),
    Row(
        "out-of-window",
        out_of_window,
        server=(RAW,),
        client=(REJECTED._replace(cause="out-of-window", state="ESTABLISHED"),),
        router=(FORWARDED_RAW,),
        tcp_drop=True,
    ),
    Row(
        "two-at-once",
        two_at_once,
        server=(
            RAW,
            RAW,
            Seen("received-accepted", "reset-while-closing", "peer", "FIN_WAIT1", "sent-passive"),
        ),
        client=(
            Seen("received-accepted", "connection-reset", "forged", "ESTABLISHED", "sent-raw"),
            REJECTED._replace(cause="closed", state="CLOSE"),
            Seen("sent-passive", "ended-by-reset", "local"),
        ),
        router=(FORWARDED_RAW, FORWARDED_RAW, FORWARDED),
        tcp_drop=True,
    ),
    Row(
        "bad-checksum",
        bad_checksum,
        server=(RAW,),
        client=(REJECTED._replace(cause="bad-checksum"),),
        router=(FORWARDED_RAW,),
    ),
    Row(
        "forged-at-router",
        forged_at_router,
        router=(RAW, FORWARDED),
        # A forged reset draws an honest one: the server's FIN finds no socket any more.
        client=(
            Seen("received-accepted", "connection-reset", "forged", "ESTABLISHED", "sent-raw"),
            Seen("sent-passive", "ended-by-reset", "local"),
        ),
        server=(
            Seen("received-accepted", "reset-while-closing", "peer", "FIN_WAIT1", "sent-passive"),
        ),
    ),
    Row(
        "wrong-ack-in-syn-sent",
        wrong_ack,
        setup=drop_syn,
        router=(RAW,),
        client=(REJECTED._replace(cause="wrong-ack", state="SYN_SENT"),),
    ),
    Row(
        "syn-recv",
        rst_in_syn_recv,
        setup=drop_syn_ack,
        client=(RAW,),
        server=(REJECTED._replace(cause="syn-recv", state="SYN_RECV"),),
        router=(FORWARDED_RAW,),
    ),
    Row(
        "time-wait-receives",
        rst_in_time_wait,
        server=(RAW,),
        client=(REJECTED._replace(cause="time-wait", state="TIME_WAIT"),),
        router=(FORWARDED_RAW,),
    ),
    Row(
        "listener-receives",
        rst_to_listener,
        client=(RAW,),
        server=(REJECTED._replace(cause="listen", state="LISTEN"),),
        router=(FORWARDED_RAW,),
        tcp_drop=True,
    ),
    Row(
        "listener-receives-with-ack",
        rst_ack_to_listener,
        client=(RAW,),
        server=(REJECTED._replace(cause="listen", state="LISTEN"),),
        router=(FORWARDED_RAW,),
    ),
    Row(
        "phantom-sent-answer-to-rst",
        rst_to_nobody,
        client=(RAW,),
        server=(Seen("received-unmatched", "no-socket", "forged", None, "sent-raw"),),
        router=(FORWARDED_RAW,),
        rounds=11,
    ),
    Row("phantom-sent-dropped-by-own-firewall", stray_ack, setup=drop_own_rst, rounds=5),
    Row("phantom-sent-no-way-back", stray_ack, setup=no_way_back, rounds=5),
]


def seen(entry: Json) -> Seen:
    """What an entry says, in the words of the table."""
    return Seen(
        entry["kind"],
        entry["cause"]["name"],
        entry["origin"],
        entry["socket"]["state"] if entry["socket"] else None,
        entry["made_here"]["kind"] if entry["made_here"] else None,
    )


def can_know(row: Row, one: Seen, plan: Plan, knows: dict[str, bool]) -> Seen | None:
    """What a plan can find out of an entry on a kernel that knows so much; None: nothing."""
    told = knowledge.Told(Kind(one.kind), one.cause, one.state, row.minisocket)
    found = knowledge.left(told, plan, knows, tcp_drop=row.tcp_drop)
    if found is None:
        return None
    reasons = {name for name, (cause, _) in drops.DROPS.items() if cause == found.cause}
    if found.cause in knowledge.BEFORE_TCP and reasons.isdisjoint(drop_reasons()):
        found = found._replace(cause="dropped")  # it is younger than the others (TCP_MINTTL)
    return one._replace(kind=found.kind.value, cause=found.cause, state=found.state)


def expectations(row: Row, tracer: Tracer) -> dict[str, list[Seen]]:
    """What each namespace must show for one round of a row's traffic."""
    found = {}
    for role, row_says in ((SERVER, row.server), (CLIENT, row.client), (ROUTER, row.router)):
        known = [can_know(row, one, tracer.plan, knows()) for one in row_says]
        found[role] = [one for one in known if one is not None]
    return found


def play(row: Row, family: int, lab: Lab, *watching: tuple[Tracer, Fence]) -> dict[str, int]:
    """Send a row's traffic until every tracer has shown it; the RSTs that each namespace sent."""
    row.setup(lab)
    for tracer, fence in watching:
        fence.cross(tracer)
    for tracer, _ in watching:
        tracer.forget()
    before = {role: out_rsts(lab, role) for role in (CLIENT, SERVER, ROUTER)}
    for _ in range(row.rounds):
        row.traffic(lab, family)
    for tracer, fence in watching:
        for role, expected in expectations(row, tracer).items():
            if expected:
                tracer.collect(lab.inode(role), len(expected) * row.rounds)
        fence.cross(tracer)
    return {role: out_rsts(lab, role) - before[role] for role in before}


def check(row: Row, family: int, lab: Lab, tracer: Tracer, sent: dict[str, int]) -> set[Seen]:
    """A tracer's entries are exactly what it can know of a row; returns what that proves."""
    proven = set()
    for role, expected in expectations(row, tracer).items():
        entries = tracer.of(lab.inode(role))
        got = Counter(seen(entry) for entry in entries)
        assert got == Counter(expected * row.rounds), role
        sent_by_tcp = sum(entry["kind"] in ("sent-passive", "sent-active") for entry in entries)
        if not row.name.startswith("phantom-sent-"):
            assert sent[role] == sent_by_tcp, role
        for entry in entries:
            assert (entry["actor"] is not None) == (entry["cause"]["name"] == "aborted")
            assert entry["family"] == (4 if family == V4 else 6)
            assert row.words.get(entry["cause"]["name"], "") in entry["cause"]["text"]
        proven |= set(expected)
    return proven


@pytest.mark.parametrize("family", [V4, V6], ids=["v4", "v6"])
@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_kind(
    row: Row,
    family: int,
    routed: Lab,
    tracer: Tracer,
    fence: Fence,
    record_property: Callable[[str, object], None],
) -> None:
    if family not in row.families:
        pytest.skip("this case is about IPv4 addresses in IPv6 sockets")
    sent = play(row, family, routed, (tracer, fence))
    proven = check(row, family, routed, tracer, sent)
    record_property(tracer.plan.value, sorted({(one.kind, one.cause) for one in proven}))


@pytest.mark.parametrize("family", [V4, V6], ids=["v4", "v6"])
def test_identical_resets_are_each_told(
    family: int, routed: Lab, tracer: Tracer, fence: Fence
) -> None:
    """RSTs that are the same to the last bit, each in the memory of the one before it.

    The device (we are its hardware) consumes them: no drop is seen.
    """
    request = struct.pack("16sH22x", b"tun0", 0x1001)  # IFF_TUN | IFF_NO_PI, linux/if_tun.h
    with routed.inside(CLIENT):
        opened = open("/dev/net/tun", "r+b", buffering=0)  # noqa: SIM115
    with opened as device:
        fcntl.ioctl(device, 0x400454CA, request)  # TUNSETIFF
        routed.ip(CLIENT, "link set tun0 up")
        routed.route(CLIENT, "10.99.0.0/16 dev tun0", "fd99::/16 dev tun0")
        target = "10.99.0.1" if family == V4 else "fd99::1"
        layer = scapy_inet.IP if family == V4 else scapy_inet6.IPv6
        packet = layer(src=server_address(CLIENT, family), dst=target) / TCP(
            sport=7010, dport=7011, flags="R", seq=1
        )
        fence.cross(tracer)
        for _ in range(11):
            send_ip(routed, CLIENT, packet)
            while device.read(2048)[-len(packet[TCP]) :] != bytes(packet[TCP]):
                pass  # the kernel's own: router solicitations
        fence.cross(tracer)
    told = [e for e in tracer.of(routed.inode(CLIENT)) if e["remote"]["ip"] == target]
    assert [e["kind"] for e in told] == ["sent-raw"] * 11
