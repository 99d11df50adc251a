"""Why: causes of the running kernel, each with a real reset (test_kinds.py has the common ones)."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import scapy.layers.inet as scapy_inet
import scapy.layers.inet6 as scapy_inet6
from scapy.layers.l2 import Ether

from rsttrace.demo.lab import Lab
from rsttrace.errors import LabError
from tests.lab.harness import (
    DEADLINE_S,
    FAMILIES,
    Fence,
    Tracer,
    counter,
    deliver,
    drop_reasons,
    expect_reset,
    linger_zero,
    mac_of,
    out_rsts,
    pair,
    poll_until,
    send_frame,
    send_ip,
    server_address,
)
from tests.lab.test_kinds import (
    CLIENT,
    FORWARDED,
    FORWARDED_ACTIVE,
    FORWARDED_RAW,
    RAW,
    REJECTED,
    RESET,
    ROUTER,
    SERVER,
    TCP,
    V4,
    V6,
    Row,
    Seen,
    chain,
    check,
    drop_syn,
    drop_syn_ack,
    forged_rst,
    ip,
    play,
    sequence,
    sooner,
    tcp_state,
)

# include/uapi/linux/tcp.h
TCP_LINGER2, TCP_MD5SIG, TCP_USER_TIMEOUT, TCP_REPAIR, TCP_TIMESTAMP = 8, 14, 18, 19, 24
TCP_AO_ADD_KEY = 38
IP_MINTTL, IPV6_MINHOPCOUNT = 21, 73  # include/uapi/linux/in.h, in6.h
ETH_P_ALL = 0x0003  # include/uapi/linux/if_ether.h
# include/uapi/asm-generic/socket.h
SO_ATTACH_FILTER, SO_DETACH_FILTER, SO_SNDBUFFORCE = 26, 27, 32

# ---- what is left of a connection that is over ----


def in_time_wait(lab: Lab, role: str, port: str) -> bool:
    """Whether a namespace has a minisocket of that port (`port` as ss filters it)."""
    return "timer:(timewait" in lab.exec(role, ["ss", "-Htano", *port.split()])


def rst_ends_time_wait(lab: Lab, family: int) -> None:
    """RFC 9293 §3.10.7.4, and what RFC 1337 warns of: the RST has the number that is expected."""
    with pair(lab, CLIENT, SERVER, family=family) as (client, accepted):
        port = client.getsockname()[1]
        _, rcv_nxt = sequence(lab, CLIENT, client)
        client.close()
        assert accepted.recv(1) == b""
        accepted.close()
        poll_until(lambda: in_time_wait(lab, CLIENT, f"sport = :{port}"), "TIME_WAIT")
        rst = TCP(sport=7000, dport=port, flags="R", seq=(rcv_nxt + 1) & 0xFFFFFFFF)
        deliver(lab, SERVER, CLIENT, ip(SERVER, CLIENT, family) / rst)


@contextmanager
def fin_wait2(lab: Lab, family: int) -> Iterator[socket.socket]:
    """The client's socket of a connection that the server keeps as a minisocket in FIN_WAIT2.

    The FIN's ACK must come when close() is over; so its first one is dropped.
    """
    with sooner(lab), pair(lab, CLIENT, SERVER, family=family) as (client, accepted):
        chain(lab, SERVER, "input", "tcp dport 7000 drop")
        accepted.close()
        lab.nft(SERVER, "flush ruleset")
        ports = f"sport = :7000 and dport = :{client.getsockname()[1]}"
        poll_until(lambda: in_time_wait(lab, SERVER, ports), "the minisocket")
        yield client


def rst_ends_fin_wait2(lab: Lab, family: int) -> None:
    """Whatever tcp_rfc1337 says; the client's own FIN finds only the listener then."""
    with fin_wait2(lab, family) as client:
        seq, _ = sequence(lab, CLIENT, client)
        rst = TCP(sport=client.getsockname()[1], dport=7000, flags="R", seq=seq)
        deliver(lab, CLIENT, SERVER, ip(CLIENT, SERVER, family) / rst)
        client.shutdown(socket.SHUT_WR)
        poll_until(lambda: tcp_state(client) == 7, "the reset")


def old_rst_in_time_wait(lab: Lab, family: int) -> None:
    """The number is the one that is expected, the timestamp is of before (PAWS)."""
    with pair(lab, CLIENT, SERVER, family=family) as (client, accepted):
        port = client.getsockname()[1]
        _, rcv_nxt = sequence(lab, CLIENT, client)
        (now,) = struct.unpack("=I", accepted.getsockopt(socket.IPPROTO_TCP, TCP_TIMESTAMP, 4))
        client.close()
        assert accepted.recv(1) == b""
        accepted.close()
        poll_until(lambda: in_time_wait(lab, CLIENT, f"sport = :{port}"), "TIME_WAIT")
        before = [("Timestamp", ((now - 100_000) & 0xFFFFFFFF, 0))]
        seq = (rcv_nxt + 1) & 0xFFFFFFFF
        rst = TCP(sport=7000, dport=port, flags="R", seq=seq, options=before)
        deliver(lab, SERVER, CLIENT, ip(SERVER, CLIENT, family) / rst)
        assert in_time_wait(lab, CLIENT, f"sport = :{port}")


def keep_time_wait(lab: Lab) -> None:
    for role in (CLIENT, SERVER):
        lab.sysctl(role, net__ipv4__tcp_rfc1337=1)


# ---- handshakes ----


@contextmanager
def listening(lab: Lab, family: int, port: int, backlog: int = 64) -> Iterator[socket.socket]:
    """A listener of the server."""
    with lab.inside(SERVER), socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((server_address(SERVER, family), port))
        listener.listen(backlog)
        yield listener


@contextmanager
def connecting(lab: Lab, family: int) -> Iterator[tuple[socket.socket, int]]:
    """A client in SYN_SENT, whose SYN the server's firewall drops; and that SYN's number."""
    layer = scapy_inet.IP if family == V4 else scapy_inet6.IPv6
    with lab.inside(SERVER):
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
    with lab.inside(CLIENT):
        client = socket.socket(family)
    with tap, client:
        tap.settimeout(DEADLINE_S)
        client.setblocking(False)
        client.connect_ex((server_address(SERVER, family), 7003))
        port = client.getsockname()[1]
        while True:
            packet = layer(tap.recv(2048))  # the other family's make no TCP
            if TCP in packet and packet[TCP].sport == port and packet[TCP].flags == "S":
                break
        yield client, packet[TCP].seq


def to_client(lab: Lab, family: int, client: socket.socket, **tcp: object) -> None:
    """One segment in the server's name, to a client of `connecting`; it draws a RST."""
    before = out_rsts(lab, CLIENT)
    segment = TCP(sport=7003, dport=client.getsockname()[1], **tcp)
    send_ip(lab, SERVER, ip(SERVER, CLIENT, family) / segment)
    poll_until(lambda: out_rsts(lab, CLIENT) > before, "the reset")


def syn_ack_of_another(lab: Lab, family: int) -> None:
    """A SYN-ACK that acknowledges another SYN (an old duplicate)."""
    with connecting(lab, family) as (client, seq):
        to_client(lab, family, client, flags="SA", seq=99, ack=(seq + 77) & 0xFFFFFFFF)


def syn_ack_of_another_time(lab: Lab, family: int) -> None:
    """A SYN-ACK with the right number that echoes a timestamp which was never sent."""
    with connecting(lab, family) as (client, seq):
        ack = (seq + 1) & 0xFFFFFFFF
        options = [("Timestamp", (1, 12345))]
        to_client(lab, family, client, flags="SA", seq=99, ack=ack, options=options)


def simultaneous_open(lab: Lab, family: int, ack_add: int) -> None:
    """Both ends open at once (RFC 9293 §3.5), then an ACK of something else."""
    with connecting(lab, family) as (client, seq):
        syn = TCP(sport=7003, dport=client.getsockname()[1], flags="S", seq=99)
        deliver(lab, SERVER, CLIENT, ip(SERVER, CLIENT, family) / syn)
        assert tcp_state(client) == 3, "SYN_RECV"
        ack = (seq + ack_add) & 0xFFFFFFFF
        to_client(lab, family, client, flags="A", seq=100, ack=ack)
        client.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)  # it closes without a word


def ack_of_unsent_data(lab: Lab, family: int) -> None:
    simultaneous_open(lab, family, 77)


def ack_of_long_ago(lab: Lab, family: int) -> None:
    simultaneous_open(lab, family, -100000)


def second_syn(lab: Lab, family: int) -> None:
    """A half-open connection, and another SYN within its window (tcp_check_req())."""
    with listening(lab, family, 7004):
        before = out_rsts(lab, SERVER)
        for seq in (1000, 1010):
            syn = TCP(sport=7005, dport=7004, flags="S", seq=seq, window=1000)
            deliver(lab, CLIENT, SERVER, ip(CLIENT, SERVER, family) / syn)
        poll_until(lambda: out_rsts(lab, SERVER) > before, "the reset")


def overflow(lab: Lab, family: int) -> None:
    """Two handshakes whose last ACKs come when there is room for one: listen(2) lets three wait.

    The two have SYNs that fit: those of more than the backlog in SYN_RECV get SYN cookies.
    """
    address = server_address(SERVER, family)
    with listening(lab, family, 7004, 2) as listener, contextlib.ExitStack() as held:
        with lab.inside(CLIENT):
            clients = [held.enter_context(socket.socket(family)) for _ in range(4)]
        for number, client in enumerate(clients):
            if number == 2:
                late = "tcp dport 7004 tcp flags & (syn | ack) == ack drop"
                chain(lab, SERVER, "input", late)
            client.settimeout(DEADLINE_S)
            client.connect((address, 7004))
        lab.nft(SERVER, "flush ruleset")
        for client in clients[2:]:
            client.send(b"first")
        poll_until(lambda: tcp_state(clients[3]) == 7, "the reset")
        accepted = [held.enter_context(listener.accept()[0]) for _ in clients[:3]]
        assert accepted[2].recv(9) == b"first"
        for client, other in zip(clients, accepted):
            client.shutdown(socket.SHUT_WR)
            assert other.recv(9) == b""


def abort_on_overflow(lab: Lab) -> None:
    lab.sysctl(SERVER, net__ipv4__tcp_abort_on_overflow=1)


def never_accepted(lab: Lab, family: int) -> None:
    """The listener closes with a connection in its queue."""
    with lab.inside(CLIENT):
        client = socket.socket(family)
    with client:
        client.settimeout(DEADLINE_S)
        with listening(lab, family, 7004):
            client.connect((server_address(SERVER, family), 7004))
            queue = ["ss", "-Htan", "state", "established", "sport", "=", ":7004"]
            poll_until(lambda: bool(lab.exec(SERVER, queue).strip()), "the connection")
        expect_reset(client)


# ---- closing ----


def linger2_in_fin_wait2(lab: Lab, family: int) -> None:
    with pair(lab, CLIENT, SERVER, family=family) as (client, accepted):
        accepted.setsockopt(socket.IPPROTO_TCP, TCP_LINGER2, -1)
        accepted.shutdown(socket.SHUT_WR)
        poll_until(lambda: tcp_state(accepted) == 5, "FIN_WAIT2")
        accepted.close()
        poll_until(lambda: tcp_state(client) == 7, "the reset")


def linger2_at_close(lab: Lab, family: int) -> None:
    """close() sends the FIN; its ACK ends the connection for good."""
    with pair(lab, CLIENT, SERVER, family=family) as (client, accepted):
        accepted.setsockopt(socket.IPPROTO_TCP, TCP_LINGER2, -1)
        accepted.close()
        poll_until(lambda: tcp_state(client) == 7, "the reset")


def disconnect_with_data(lab: Lab, family: int) -> None:
    """tcp_disconnect() in LAST_ACK, with data that the peer's window has no room for."""
    with pair(lab, CLIENT, SERVER, family=family) as (client, accepted):
        accepted.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while accepted.send(bytes(65536)):
                pass
        client.shutdown(socket.SHUT_WR)
        poll_until(lambda: tcp_state(accepted) == 8, "CLOSE_WAIT")
        poll_until(lambda: tcp_state(client) == 5, "FIN_WAIT2")
        accepted.shutdown(socket.SHUT_WR)
        assert tcp_state(accepted) == 9, "LAST_ACK"
        linger_zero(accepted)
        accepted.close()
        poll_until(lambda: tcp_state(client) == 7, "the reset")  # to read would send an ACK


MEMORY = Path("/proc/sys/net/ipv4/tcp_mem")
ORPHANS = Path("/proc/sys/net/ipv4/tcp_max_orphans")


@contextmanager
def orphans_allowed(lab: Lab, number: str) -> Iterator[None]:
    """How many, in the server's namespace if it has a setting of its own, else on the machine."""
    with lab.inside(SERVER):
        own = ORPHANS.exists()
    with lab.inside(SERVER) if own else contextlib.nullcontext():
        before = ORPHANS.read_text()
        ORPHANS.write_text(number)
        try:
            yield
        finally:
            ORPHANS.write_text(before)


def one_orphan_too_many(lab: Lab, family: int) -> None:
    """tcp_check_oom(), when a program closes: not one orphan is allowed."""
    with pair(lab, CLIENT, SERVER, family=family) as (client, accepted):
        accepted.setsockopt(socket.IPPROTO_TCP, TCP_LINGER2, 90)  # no minisocket: data_after_close
        accepted.shutdown(socket.SHUT_WR)
        poll_until(lambda: tcp_state(accepted) == 5, "FIN_WAIT2")
        with orphans_allowed(lab, "-1"):
            accepted.close()
        poll_until(lambda: tcp_state(client) == 7, "the reset")


def out_of_memory(lab: Lab, family: int) -> None:
    """tcp_out_of_memory(), when a program closes with data that the peer does not take.

    Each CPU may have a MiB that is not counted yet (SK_MEMORY_PCPU_RESERVE): much more than that.
    """
    with pair(lab, CLIENT, SERVER, family=family) as (client, accepted):
        accepted.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 16 << 20)
        accepted.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while accepted.send(bytes(65536)):
                pass
        before = MEMORY.read_text()
        MEMORY.write_text("1 1 1")
        try:
            accepted.close()
        finally:
            MEMORY.write_text(before)
        poll_until(lambda: tcp_state(client) == 7, "the reset")  # to read would send an ACK


def memory_is_ours(lab: Lab) -> None:
    """The limit is the whole machine's: not on one that others use."""
    del lab
    if "RSTTRACE_KERNELS_REPORT" not in os.environ:
        pytest.skip("net.ipv4.tcp_mem is the whole machine's: only in a guest")


def orphans_are_counted_here(lab: Lab) -> None:
    """It is a setting of the whole machine: not on one that others use."""
    with lab.inside(SERVER):
        if not ORPHANS.exists() and "RSTTRACE_KERNELS_REPORT" not in os.environ:
            pytest.skip("net.ipv4.tcp_max_orphans is the whole machine's: only in a guest")


@contextmanager
def held_by(
    lab: Lab, family: int, code: str
) -> Iterator[tuple[subprocess.Popen[bytes], socket.socket]]:
    """A program of the client's that has its socket (file descriptor 0), and the other end."""
    with pair(lab, CLIENT, SERVER, family=family) as (client, accepted):
        linger_zero(client)
        program = subprocess.Popen([sys.executable, "-c", code], stdin=client.fileno())
        try:
            client.close()
            yield program, accepted
            expect_reset(accepted)
        finally:
            program.kill()
            program.wait()


def killed_with_unread_data(lab: Lab, family: int) -> None:
    with held_by(lab, family, "import signal; signal.pause()") as (program, accepted):
        accepted.send(b"unread")
        queue = ["ss", "-Htan", "dport", "=", ":7000"]
        poll_until(lambda: " 6 " in lab.exec(CLIENT, queue), "the data")
        program.send_signal(signal.SIGKILL)


def exited_with_linger(lab: Lab, family: int) -> None:
    with held_by(lab, family, "import os; os.read(0, 1); os._exit(3)") as (_, accepted):
        accepted.send(b"x")


# ---- timers ----


def unanswered(lab: Lab, family: int, probes: int, **options: int) -> None:
    """A peer that is not heard any more: its host drops what comes, but for the RST."""
    with pair(lab, CLIENT, SERVER, family=family) as (client, accepted):
        chain(lab, SERVER, "input", "tcp dport 7000 tcp flags & rst == 0 drop")
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, probes)
        for name, value in options.items():
            client.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        poll_until(lambda: tcp_state(client) == 7, "the timer")
        poll_until(lambda: tcp_state(accepted) == 7, "the reset")
        lab.nft(SERVER, "flush ruleset")


def keepalive(lab: Lab, family: int) -> None:
    unanswered(lab, family, 2)


def user_timeout(lab: Lab, family: int) -> None:
    unanswered(lab, family, 9, TCP_USER_TIMEOUT=1500)


def orphan_given_up(lab: Lab, family: int) -> None:
    """An orphan that waits for the peer's FIN longer than it may, as its timer finds.

    More than TCP_TIMEWAIT_LEN (60 s) keeps it a full socket, with a timer for what is above that.
    """
    with pair(lab, CLIENT, SERVER, family=family) as (client, accepted):
        accepted.shutdown(socket.SHUT_WR)
        poll_until(lambda: tcp_state(accepted) == 5, "FIN_WAIT2")
        lab.sysctl(SERVER, net__ipv4__tcp_fin_timeout=61)
        accepted.close()
        lab.sysctl(SERVER, net__ipv4__tcp_fin_timeout=30)
        poll_until(lambda: tcp_state(client) == 7, "the timer")
    lab.sysctl(SERVER, net__ipv4__tcp_fin_timeout=60)


# ---- received, and dropped ----


def forged_to_filtered(lab: Lab, family: int) -> None:
    """The socket's own filter takes nothing."""
    nothing = struct.pack("HBBI", 0x06, 0, 0, 0)  # BPF_RET | BPF_K 0
    (address, program) = _filter(nothing)
    with pair(lab, CLIENT, SERVER, family=family) as (client, _):
        _, rcv_nxt = sequence(lab, CLIENT, client)
        client.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
        rst = TCP(sport=7000, dport=client.getsockname()[1], flags="R", seq=rcv_nxt)
        deliver(lab, SERVER, CLIENT, ip(SERVER, CLIENT, family) / rst)
        client.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
    del address


def _filter(code: bytes) -> tuple[object, bytes]:
    """struct sock_fprog, and the instructions that it points to."""
    kept = ctypes.create_string_buffer(code, len(code))
    return kept, struct.pack("HL", len(code) // 8, ctypes.addressof(kept))


def forged_from_afar(lab: Lab, family: int) -> None:
    """The generalised TTL security mechanism (RFC 5082): the peer is one router away at most."""
    level, name = (
        (socket.IPPROTO_IP, IP_MINTTL) if family == V4 else (socket.IPPROTO_IPV6, IPV6_MINHOPCOUNT)
    )
    with pair(lab, CLIENT, SERVER, family=family) as (client, _):
        _, rcv_nxt = sequence(lab, CLIENT, client)
        client.setsockopt(level, name, 254)
        rst = TCP(sport=7000, dport=client.getsockname()[1], flags="R", seq=rcv_nxt)
        deliver(lab, SERVER, CLIENT, ip(SERVER, CLIENT, family) / rst)
        client.setsockopt(level, name, 0)
        assert tcp_state(client) == 1, "still ESTABLISHED"


def md5_key(sock: socket.socket, peer: str, port: int = 0) -> None:
    """TCP_MD5SIG (RFC 2385): a key for one peer; struct tcp_md5sig, include/uapi/linux/tcp.h."""
    if ":" in peer:
        address = struct.pack("=HHI16sI", V6, port, 0, socket.inet_pton(V6, peer), 0)
    else:
        address = struct.pack("=HH4s", V4, port, socket.inet_aton(peer))
    try:
        sock.setsockopt(
            socket.IPPROTO_TCP,
            TCP_MD5SIG,
            struct.pack("=128sBBHi80s", address, 0, 0, 4, 0, b"1337"),
        )
    except OSError as error:
        if error.errno != errno.ENOPROTOOPT:
            raise
        pytest.skip("this kernel has no TCP MD5 signatures (CONFIG_TCP_MD5SIG)")


def ao_key(sock: socket.socket, peer: str, port: int = 0) -> None:
    """TCP-AO (RFC 5925): a key for one peer; struct tcp_ao_add, include/uapi/linux/tcp.h."""
    if ":" in peer:
        address = struct.pack("=HHI16sI", V6, port, 0, socket.inet_pton(V6, peer), 0)
    else:
        address = struct.pack("=HH4s", V4, port, socket.inet_aton(peer))
    bits = 128 if ":" in peer else 32
    key = struct.pack(
        "=128s64siIHBBBBBB80s",
        *(address, b"hmac(sha1)", 0, 0, 0),
        *(bits, 100, 100, 0, 0, 4, b"1337"),
    )
    try:
        sock.setsockopt(socket.IPPROTO_TCP, TCP_AO_ADD_KEY, key)
    except OSError as error:
        if error.errno != errno.ENOPROTOOPT:
            raise
        pytest.skip("this kernel has no TCP-AO (CONFIG_TCP_AO, from 6.7)")


Key = Callable[[socket.socket, str], None]
"""Gives a socket a key for an address."""


def forged_to_signed(key: Key, lab: Lab, family: int, *options: tuple[int, bytes]) -> None:
    """A RST without a good signature, for a connection that has them."""
    with listening(lab, family, 7004) as listener:
        key(listener, server_address(CLIENT, family))
        with lab.inside(CLIENT):
            client = socket.socket(family)
        with client:
            key(client, server_address(SERVER, family))
            client.settimeout(DEADLINE_S)
            client.connect((server_address(SERVER, family), 7004))
            accepted, _ = listener.accept()
            with accepted:
                _, rcv_nxt = sequence(lab, CLIENT, client)
                port = client.getsockname()[1]
                rst = TCP(sport=7004, dport=port, flags="R", seq=rcv_nxt, options=[*options])
                deliver(lab, SERVER, CLIENT, ip(SERVER, CLIENT, family) / rst)
                assert tcp_state(client) == 1, "still ESTABLISHED"


MD5_OPTION = (19, bytes(16))  # RFC 2385 §3.0
AO_OPTION = (29, bytes((100, 100)) + bytes(12))  # RFC 5925 §2.2: KeyID, RNextKeyID, MAC


def forged_unsigned(lab: Lab, family: int) -> None:
    forged_to_signed(md5_key, lab, family)


def forged_with_wrong_digest(lab: Lab, family: int) -> None:
    forged_to_signed(md5_key, lab, family, MD5_OPTION)


def forged_without_ao(lab: Lab, family: int) -> None:
    forged_to_signed(ao_key, lab, family)


def forged_with_wrong_ao(lab: Lab, family: int) -> None:
    forged_to_signed(ao_key, lab, family, AO_OPTION)


def forged_with_both(lab: Lab, family: int) -> None:
    """A segment has one signature at most (tcp_parse_auth_options())."""
    reason_is_there("TCP_AUTH_HDR")
    forged_rst(lab, family, 0, options=[MD5_OPTION, AO_OPTION])


def forged_with_another_ao_key(lab: Lab, family: int) -> None:
    forged_to_signed(ao_key, lab, family, (29, bytes((7, 7)) + bytes(12)))


def forged_with_ao(lab: Lab, family: int) -> None:
    """One that this kernel understands, for a connection without."""
    with socket.socket(family) as sock:
        ao_key(sock, server_address(SERVER, family))
    forged_rst(lab, family, 0, options=[AO_OPTION])


def reason_is_there(name: str) -> None:
    """Skip where the kernel gives reasons of drops, but not this one."""
    if drop_reasons() and name not in drop_reasons():
        pytest.skip(f"this kernel does not tell {name} (enum skb_drop_reason)")


def forged_against_a_policy(lab: Lab, family: int) -> None:
    """An IPsec policy takes nothing from the server without IPsec (RFC 4301 §5.2)."""
    with pair(lab, CLIENT, SERVER, family=family) as (client, _):
        _, rcv_nxt = sequence(lab, CLIENT, client)
        source, target = (server_address(role, family) for role in (SERVER, CLIENT))
        policy = f"src {source} dst {target} proto tcp dir in"
        try:
            lab.ip(CLIENT, f"xfrm policy add {policy} action block")
        except LabError as error:
            pytest.skip(f"this kernel has no IPsec policies (CONFIG_XFRM_USER): {error}")
        try:
            rst = TCP(sport=7000, dport=client.getsockname()[1], flags="R", seq=rcv_nxt)
            deliver(lab, SERVER, CLIENT, ip(SERVER, CLIENT, family) / rst)
            assert tcp_state(client) == 1, "still ESTABLISHED"
        finally:
            lab.ip(CLIENT, f"xfrm policy del {policy}")


def forged_into_traffic_control(lab: Lab, family: int) -> None:
    """A filter on the client's interface drops what comes."""
    for command in (
        "qdisc add dev eth0 ingress",
        "filter add dev eth0 ingress protocol all prio 1 u32 match u8 0 0 action drop",
    ):
        try:
            lab.exec(CLIENT, ["tc", *command.split()])
        except LabError as error:
            lab.exec(CLIENT, ["sh", "-c", "tc qdisc del dev eth0 ingress || :"])
            pytest.skip(f"this kernel has no such filter (CONFIG_NET_ACT_GACT): {error}")
    shown = ["tc", "-s", "filter", "show", "dev", "eth0", "ingress"]
    try:
        send_ip(lab, SERVER, ip(SERVER, CLIENT, family) / TCP(sport=7000, dport=7009, flags="R"))
        poll_until(lambda: "(dropped 0," not in lab.exec(CLIENT, shown), "the filter's drop")
    finally:
        lab.exec(CLIENT, ["tc", "qdisc", "del", "dev", "eth0", "ingress"])


def forged_from_elsewhere(lab: Lab, family: int) -> None:
    """From an address to which the client would answer another way (RFC 3704 §2.2)."""
    del family
    before = counter(lab, CLIENT, "TcpExt", "IPReversePathFilter")
    lab.sysctl(CLIENT, net__ipv4__conf__all__rp_filter=1)
    lab.ip(CLIENT, "route add 10.71.9.0/24 dev lo")
    try:
        packet = scapy_inet.IP(src="10.71.9.9", dst=server_address(CLIENT, V4))
        send_ip(lab, ROUTER, packet / TCP(sport=7000, dport=7009, flags="R"))
        poll_until(
            lambda: counter(lab, CLIENT, "TcpExt", "IPReversePathFilter") > before, "its drop"
        )
    finally:
        lab.ip(CLIENT, "route del 10.71.9.0/24 dev lo")
        lab.sysctl(CLIENT, net__ipv4__conf__all__rp_filter=0)


def damaged_header(lab: Lab, family: int) -> None:
    """The IP header's checksum is wrong, as it comes off the last link."""
    before = counter(lab, CLIENT, "Ip", "InHdrErrors")
    ends = {"src": mac_of(lab, ROUTER, "cl0"), "dst": mac_of(lab, CLIENT, "eth0")}
    rst = TCP(sport=7000, dport=7009, flags="R")
    send_frame(lab, ROUTER, "cl0", Ether(**ends) / ip(SERVER, CLIENT, family, chksum=0x1234) / rst)
    poll_until(lambda: counter(lab, CLIENT, "Ip", "InHdrErrors") > before, "its drop")


def forged_with_signature(lab: Lab, family: int) -> None:
    """One that this kernel understands, for a connection without."""
    with socket.socket(family) as sock:
        md5_key(sock, server_address(SERVER, family))
    forged_rst(lab, family, 0, options=[MD5_OPTION])


def subflow_reset(lab: Lab, family: int) -> None:
    """The RST says why, by MPTCP's option (RFC 8684 §3.6)."""
    forged_rst(lab, family, 0, options=[(30, bytes.fromhex("8102"))])


# ---- what must be seen ----

HALF_CLOSED = Seen("received-accepted", "reset-after-fin", "peer", "CLOSE_WAIT", "sent-passive")
HALF_CLOSED_ACTIVE = HALF_CLOSED._replace(made_here="sent-active")
WALLED = Seen("received-rejected", "firewall-drop", "peer", None, "sent-passive")
NOT_ACCEPTED = Seen("sent-active", "not-accepted", "local", "ESTABLISHED")
ENDED = Seen("received-accepted", "time-wait-ended", "forged", "TIME_WAIT", "sent-raw")

ROWS = [
    Row(
        "time-wait-ended",
        rst_ends_time_wait,
        server=(RAW,),
        client=(ENDED,),
        router=(FORWARDED_RAW,),
    ),
    Row(
        "time-wait-kept",
        rst_ends_time_wait,
        setup=keep_time_wait,
        server=(RAW,),
        client=(REJECTED._replace(cause="time-wait", state="TIME_WAIT"),),
        router=(FORWARDED_RAW,),
        words={"time-wait": "net.ipv4.tcp_rfc1337 keeps TIME_WAIT"},
    ),
    Row(
        "time-wait-old-timestamp",
        old_rst_in_time_wait,
        minisocket=True,
        server=(RAW,),
        client=(REJECTED._replace(cause="paws", state="TIME_WAIT"),),
        router=(FORWARDED_RAW,),
        words={"paws": "its timestamp is too old (PAWS)"},
    ),
    Row(
        "fin-wait2-minisocket-ended",
        rst_ends_fin_wait2,
        setup=keep_time_wait,
        client=(
            RAW,
            Seen("received-accepted", "reset-while-closing", "peer", "LAST_ACK", "sent-passive"),
        ),
        server=(
            ENDED._replace(state="FIN_WAIT2"),
            Seen("sent-passive", "listen", "local", "LISTEN"),
        ),
        router=(FORWARDED_RAW, FORWARDED),
    ),
    Row(
        "syn-ack-of-another",
        syn_ack_of_another,
        setup=drop_syn,
        client=(Seen("sent-passive", "invalid-ack", "local", "SYN_SENT"),),
        server=(WALLED,),
        router=(FORWARDED,),
    ),
    Row(
        "syn-ack-of-another-time",
        syn_ack_of_another_time,
        setup=drop_syn,
        client=(Seen("sent-passive", "paws", "local", "SYN_SENT"),),
        server=(WALLED,),
        router=(FORWARDED,),
    ),
    Row(
        "ack-of-unsent-data",
        ack_of_unsent_data,
        setup=drop_syn,
        client=(Seen("sent-passive", "invalid-ack", "local", "SYN_RECV"),),
        server=(WALLED,),
        router=(FORWARDED,),
    ),
    Row(
        "ack-of-long-ago",
        ack_of_long_ago,
        setup=drop_syn,
        client=(Seen("sent-passive", "old-ack", "local", "SYN_RECV"),),
        server=(WALLED,),
        router=(FORWARDED,),
    ),
    Row(
        "second-syn",
        second_syn,
        setup=drop_syn_ack,
        server=(Seen("sent-passive", "invalid-syn", "local", "LISTEN"),),
        client=(WALLED,),
        router=(FORWARDED,),
    ),
    Row(
        "listen-overflow",
        overflow,
        setup=abort_on_overflow,
        server=(Seen("sent-passive", "listen-overflow", "local", "LISTEN"),),
        client=(RESET._replace(made_here="sent-passive"),),
        router=(FORWARDED,),
        words={"listen-overflow": "(3 wait, its limit is 2)"},
    ),
    Row(
        "not-accepted",
        never_accepted,
        server=(NOT_ACCEPTED,),
        client=(RESET,),
        router=(FORWARDED_ACTIVE,),
    ),
    Row(
        "linger2",
        linger2_in_fin_wait2,
        server=(Seen("sent-active", "linger2", "local", "FIN_WAIT2"),),
        client=(HALF_CLOSED_ACTIVE,),
        router=(FORWARDED_ACTIVE,),
    ),
    Row(
        "linger2-at-close",
        linger2_at_close,
        server=(Seen("sent-passive", "linger2", "local", "FIN_WAIT2"),),
        client=(HALF_CLOSED,),
        router=(FORWARDED,),
    ),
    Row(
        "disconnect-with-data",
        disconnect_with_data,
        server=(Seen("sent-active", "disconnect", "local", "LAST_ACK"),),
        client=(RESET._replace(cause="reset-while-closing", state="FIN_WAIT2"),),
        router=(FORWARDED_ACTIVE,),
    ),
    Row(
        "too-many-orphans",
        one_orphan_too_many,
        setup=orphans_are_counted_here,
        server=(Seen("sent-active", "memory", "local", "FIN_WAIT2"),),
        client=(HALF_CLOSED_ACTIVE,),
        router=(FORWARDED_ACTIVE,),
    ),
    Row(
        "out-of-memory",
        out_of_memory,
        setup=memory_is_ours,
        server=(Seen("sent-active", "memory", "local", "FIN_WAIT1"),),
        client=(RESET,),
        router=(FORWARDED_ACTIVE,),
    ),
    Row(
        "killed-with-unread-data",
        killed_with_unread_data,
        client=(Seen("sent-active", "unread-data", "local", "ESTABLISHED"),),
        server=(RESET,),
        router=(FORWARDED_ACTIVE,),
        words={"unread-data": "its process was killed (SIGKILL) with data unread"},
    ),
    Row(
        "exited-with-linger",
        exited_with_linger,
        client=(Seen("sent-active", "linger", "local", "ESTABLISHED"),),
        server=(RESET,),
        router=(FORWARDED_ACTIVE,),
        words={"linger": "its process exited (status 3)"},
    ),
    Row(
        "keepalive",
        keepalive,
        client=(Seen("sent-active", "keepalive", "local", "ESTABLISHED"),),
        server=(RESET,),
        router=(FORWARDED_ACTIVE,),
        rounds=1,
        words={"keepalive": "2 keepalive probes: it was last heard"},
    ),
    Row(
        "user-timeout",
        user_timeout,
        client=(Seen("sent-active", "user-timeout", "local", "ESTABLISHED"),),
        server=(RESET,),
        router=(FORWARDED_ACTIVE,),
        rounds=1,
        words={"user-timeout": "(TCP_USER_TIMEOUT is 1.5 s"},
    ),
    Row(
        "orphan-timeout",
        orphan_given_up,
        server=(Seen("sent-active", "orphan-timeout", "local", "FIN_WAIT2"),),
        client=(HALF_CLOSED_ACTIVE,),
        router=(FORWARDED_ACTIVE,),
        rounds=1,
    ),
    Row(
        "socket-filter",
        forged_to_filtered,
        server=(RAW,),
        client=(REJECTED._replace(cause="socket-filter", state="ESTABLISHED"),),
        router=(FORWARDED_RAW,),
    ),
    Row(
        "too-far-away",
        forged_from_afar,
        server=(RAW,),
        client=(REJECTED._replace(cause="min-ttl", state="ESTABLISHED"),),
        router=(FORWARDED_RAW,),
    ),
    Row(
        "md5-missing",
        forged_unsigned,
        server=(RAW,),
        client=(REJECTED._replace(cause="md5-missing", state="ESTABLISHED"),),
        router=(FORWARDED_RAW,),
    ),
    Row(
        "md5-wrong",
        forged_with_wrong_digest,
        server=(RAW,),
        client=(REJECTED._replace(cause="md5-wrong", state="ESTABLISHED"),),
        router=(FORWARDED_RAW,),
    ),
    Row(
        "md5-unexpected",
        forged_with_signature,
        server=(RAW,),
        client=(REJECTED._replace(cause="md5-unexpected", state="ESTABLISHED"),),
        router=(FORWARDED_RAW,),
    ),
    Row(
        "ao-missing",
        forged_without_ao,
        server=(RAW,),
        client=(REJECTED._replace(cause="ao-missing", state="ESTABLISHED"),),
        router=(FORWARDED_RAW,),
    ),
    Row(
        "ao-wrong",
        forged_with_wrong_ao,
        server=(RAW,),
        client=(REJECTED._replace(cause="ao-wrong", state="ESTABLISHED"),),
        router=(FORWARDED_RAW,),
    ),
    Row(
        "two-signatures",
        forged_with_both,
        server=(RAW,),
        client=(REJECTED._replace(cause="bad-signature-option", state="ESTABLISHED"),),
        router=(FORWARDED_RAW,),
    ),
    Row(
        "ao-key-missing",
        forged_with_another_ao_key,
        server=(RAW,),
        client=(REJECTED._replace(cause="ao-key-missing", state="ESTABLISHED"),),
        router=(FORWARDED_RAW,),
    ),
    Row(
        "ao-unexpected",
        forged_with_ao,
        server=(RAW,),
        client=(REJECTED._replace(cause="ao-unexpected", state="ESTABLISHED"),),
        router=(FORWARDED_RAW,),
    ),
    Row(
        "ipsec-policy",
        forged_against_a_policy,
        server=(RAW,),
        client=(REJECTED._replace(cause="ipsec-policy", state="ESTABLISHED"),),
        router=(FORWARDED_RAW,),
    ),
    Row(
        "traffic-control",
        forged_into_traffic_control,
        server=(RAW,),
        client=(REJECTED._replace(cause="traffic-control"),),
        router=(FORWARDED_RAW,),
    ),
    Row(
        "rp-filter",
        forged_from_elsewhere,
        families=(V4,),
        router=(RAW,),
        client=(REJECTED._replace(cause="rp-filter"),),
    ),
    Row(
        "bad-ip-checksum",
        damaged_header,
        families=(V4,),
        router=(RAW,),
        client=(REJECTED._replace(cause="bad-ip-checksum"),),
    ),
    Row(
        "subflow-reset",
        subflow_reset,
        server=(
            RAW,
            Seen("received-accepted", "reset-while-closing", "peer", "FIN_WAIT1", "sent-passive"),
        ),
        client=(
            Seen("received-accepted", "connection-reset", "forged", "ESTABLISHED", "sent-raw"),
            Seen("sent-passive", "ended-by-reset", "local"),
        ),
        router=(FORWARDED_RAW, FORWARDED),
        words={
            "connection-reset": "it says: MPTCP lacked resources for it; the cause is transient"
        },
    ),
]


@FAMILIES
@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_cause(
    row: Row,
    family: int,
    routed: Lab,
    tracer: Tracer,
    fence: Fence,
    record_property: Callable[[str, object], None],
) -> None:
    if family not in row.families:
        pytest.skip("this case is one of IPv4 alone")
    sent = play(row, family, routed, (tracer, fence))
    proven = check(row, family, routed, tracer, sent)
    record_property(tracer.plan.value, sorted({(one.kind, one.cause) for one in proven}))
