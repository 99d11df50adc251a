"""Whose a server's connection was, also where nobody can look any more.

Real servers, in processes of their own, of each make: one that does it all, one that forks, one
with threads, one whose worker ends.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from rsttrace.demo.lab import Lab
from tests.lab.harness import (
    DEADLINE_S,
    FAMILIES,
    Fence,
    Json,
    Tracer,
    expect_reset,
    linger_zero,
    send_ip,
    server_address,
)

pytestmark = pytest.mark.root

PORT = 7600

SERVER = """
import os, socket, struct, sys, threading

def say(*words):
    print(*words, flush=True)

def linger(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

def unread(sock):  # what came is there: it is looked at, and not taken
    sock.recv(1, socket.MSG_PEEK)
    sock.close()

def aborts(sock):
    sock.recv(100)
    linger(sock)
    sock.close()

def answers(sock):
    sock.sendall(sock.recv(100))
    sock.close()
    say("closed")

def reads(sock):  # and closes as soon as the other end resets
    try:
        while sock.recv(100):
            say("read")
    except ConnectionError:
        pass
    sock.close()

def waits(sock):  # without having read anything, until it is reset
    import select
    poll = select.poll()
    poll.register(sock, 0)
    say("accepted")
    poll.poll()
    sock.close()

def forks(sock):
    pid = os.fork()
    if not pid:
        say("child", os.getpid())
        reads(sock)
        os._exit(0)
    sock.close()
    os.waitpid(pid, 0)

def thread(sock):
    def work():
        libc = __import__("ctypes").CDLL(None)
        libc.prctl(15, b"worker-7", 0, 0, 0)
        reads(sock)
    one = threading.Thread(target=work)
    one.start()
    one.join()

def worker_ends(sock, how):
    pid = os.fork()
    if not pid:
        sock.recv(100)
        how()
    sock.close()
    say("child", pid)  # the last one to have it open
    os.waitpid(pid, 0)
    say("ended")

def leaves(sock):  # the child has what its parent has read from
    import signal
    sock.recv(100)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    ended, held = os.pipe()
    if os.fork():
        os._exit(0)
    os.close(held)
    os.read(ended, 1)
    say("child", os.getpid())
    signal.sigwait({signal.SIGUSR1})
    sock.sendall(b"answer")
    signal.sigwait({signal.SIGUSR1})

def exits(sock):
    worker_ends(sock, lambda: os._exit(3))

def is_killed(sock):
    worker_ends(sock, lambda: os.kill(os.getpid(), 9))

family, address, port, what = sys.argv[1:]
listener = socket.create_server((address, int(port)), family=int(family))
__import__("ctypes").CDLL(None).prctl(15, b"nginx-like", 0, 0, 0)
say("ready")
if what == "never":
    sys.stdin.read()
while True:
    sock, _ = listener.accept()
    globals()[what](sock)
"""


class Server:
    """The program, in the lab's server; what it says is read line by line."""

    def __init__(self, lab: Lab, family: int, what: str) -> None:
        command = [sys.executable, "-c", SERVER, str(int(family))]
        with lab.inside("server"):
            self.process = subprocess.Popen(
                [*command, server_address("server", family), str(PORT), what],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        self.expect("ready")

    def expect(self, word: str) -> str:
        """Read up to a line that begins with this word; the rest of that line."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            first, _, rest = line.strip().partition(" ")
            if first == word:
                return rest
        raise AssertionError(f"the server ended before it said {word!r}")

    def stop(self) -> None:
        """End it."""
        self.process.kill()
        self.process.communicate()


@contextmanager
def serving(lab: Lab, family: int, what: str) -> Iterator[tuple[Server, socket.socket]]:
    """The server, and a client that is connected to it."""
    server = Server(lab, family, what)
    try:
        with lab.inside("client"):
            client = socket.socket(family)
        with client:
            client.settimeout(DEADLINE_S)
            client.connect((server_address("server", family), PORT))
            yield server, client
    finally:
        server.stop()


@pytest.fixture
def told(routed: Lab, tracer: Tracer, fence: Fence) -> Callable[[], Json]:
    """The one reset that the server's end has seen or made since."""
    fence.cross(tracer)
    tracer.forget()

    def only() -> Json:
        (entry,) = tracer.collect(routed.inode("server"), 1)
        return entry

    return only


def has_process(entry: Json, pid: int, *, listener: bool = False) -> None:
    process = entry["process"]
    assert (process["pid"], process["comm"]) == (pid, "nginx-like"), entry
    assert process["listener"] is listener


@FAMILIES
@pytest.mark.parametrize("what", ["unread", "aborts"])
def test_closed_at_once(routed: Lab, told: Callable[[], Json], family: int, what: str) -> None:
    with serving(routed, family, what) as (server, client):
        client.sendall(b"request")
        expect_reset(client)
        entry = told()
        assert entry["kind"] == "sent-active"
        has_process(entry, server.process.pid)


@FAMILIES
def test_data_after_close(routed: Lab, told: Callable[[], Json], family: int) -> None:
    """The socket is gone when the answer is made in softirq."""
    with serving(routed, family, "answers") as (server, client):
        client.sendall(b"request")
        server.expect("closed")
        client.sendall(b"one more")
        entry = told()
        assert entry["kind"] == "sent-passive"
        has_process(entry, server.process.pid)


@FAMILIES
def test_no_socket_any_more(routed: Lab, told: Callable[[], Json], family: int) -> None:
    """The client closed first: nothing is left when something comes late."""
    scapy = pytest.importorskip("scapy.all")
    with serving(routed, family, "reads") as (server, client):
        client.sendall(b"request")
        server.expect("read")
        here, there = client.getsockname(), client.getpeername()
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""
        ip = scapy.IP if family == socket.AF_INET else scapy.IPv6
        late = scapy.TCP(sport=here[1], dport=there[1], flags="A", seq=7, ack=9)
        send_ip(routed, "client", ip(src=here[0], dst=there[0]) / late)
        entry = told()
        assert entry["kind"] == "sent-passive"
        has_process(entry, server.process.pid)


@FAMILIES
def test_reset_by_the_client(routed: Lab, told: Callable[[], Json], family: int) -> None:
    with serving(routed, family, "reads") as (server, client):
        client.sendall(b"request")
        server.expect("read")
        linger_zero(client)
        client.close()
        entry = told()
        assert entry["kind"] == "received-accepted"
        has_process(entry, server.process.pid)


@FAMILIES
def test_never_read(routed: Lab, told: Callable[[], Json], family: int) -> None:
    """Accepted only: seen then with kprobes, else among the open sockets, or its listener's."""
    with serving(routed, family, "waits") as (server, client):
        server.expect("accepted")
        linger_zero(client)
        client.close()
        entry = told()
        assert entry["kind"] == "received-accepted"
        has_process(entry, server.process.pid, listener=entry["process"]["listener"])


@FAMILIES
def test_never_accepted(routed: Lab, told: Callable[[], Json], family: int) -> None:
    with serving(routed, family, "never") as (server, client):
        linger_zero(client)
        client.close()
        entry = told()
        assert entry["kind"] == "received-accepted"
        has_process(entry, server.process.pid, listener=True)


def test_forked_worker(routed: Lab, told: Callable[[], Json]) -> None:
    """Who reads is the one, not who accepted."""
    with serving(routed, socket.AF_INET, "forks") as (server, client):
        client.sendall(b"request")
        child = int(server.expect("child"))
        server.expect("read")
        linger_zero(client)
        client.close()
        has_process(told(), child)


def test_thread(routed: Lab, told: Callable[[], Json]) -> None:
    """A thread's name is not its process's."""
    with serving(routed, socket.AF_INET, "thread") as (server, client):
        client.sendall(b"request")
        server.expect("read")
        linger_zero(client)
        client.close()
        has_process(told(), server.process.pid)


@FAMILIES
@pytest.mark.parametrize(
    ("what", "by_signal", "status"), [("exits", None, 3), ("is_killed", 9, None)]
)
def test_worker_that_ended(
    routed: Lab,
    told: Callable[[], Json],
    family: int,
    what: str,
    by_signal: int | None,
    status: int | None,
) -> None:
    """The kernel closed for it; what comes then is answered in softirq."""
    with serving(routed, family, what) as (server, client):
        child = int(server.expect("child"))
        client.sendall(b"request")
        server.expect("ended")
        client.sendall(b"one more")
        entry = told()
        assert entry["kind"] == "sent-passive"
        has_process(entry, child)
        process = entry["process"]
        assert (process["exit_signal"], process["exit_status"]) == (by_signal, status)


def test_an_ended_process_is_not_named(routed: Lab, told: Callable[[], Json]) -> None:
    """Another one has the socket open, which has not used it yet."""
    with serving(routed, socket.AF_INET, "leaves") as (server, client):
        client.sendall(b"request")
        child = int(server.expect("child"))
        client.close()  # what the server sends next is answered with a reset
        os.kill(child, signal.SIGUSR1)
        entry = told()
        assert entry["kind"] == "received-accepted"
        has_process(entry, child)
        os.kill(child, signal.SIGKILL)
