"""A running rsttrace and the traffic that the lab tests send.

Three variables of the environment say how: RSTTRACE_LAB_PLAN (the plan of every tracer that names
none itself), RSTTRACE_LAB_START (seconds that loading may take) and RSTTRACE_LAB_DEADLINE (seconds
to wait for anything else). An emulated guest is slow and has both plans; see tests/kernels.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import itertools
import json
import os
import queue
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from rsttrace.demo.lab import Lab
from rsttrace.errors import LabError
from rsttrace.kernel import knowledge, syscalls
from rsttrace.kernel.facts import Facts
from rsttrace.kernel.hooks import Plan
from rsttrace.model import Kind

PLAN = os.environ.get("RSTTRACE_LAB_PLAN", "auto")
DEADLINE_S = float(os.environ.get("RSTTRACE_LAB_DEADLINE", "20"))
START_S = float(os.environ.get("RSTTRACE_LAB_START", DEADLINE_S))
ETH_P_IP, ETH_P_IPV6 = 0x0800, 0x86DD
V4, V6 = socket.AF_INET, socket.AF_INET6
FAMILIES = pytest.mark.parametrize("family", [V4, V6], ids=["v4", "v6"])

Json = dict[str, Any]

TRACE = [sys.executable, "-m", "rsttrace", "trace", "--plan", PLAN]


@contextmanager
def tracing(
    *options: str, through: Iterable[str] = (), env: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """A tracer's process (stdout and stderr are the caller's to read), once it traces.

    `through` is a command that runs it. It is killed in the end, if it has not ended by itself.
    """
    process = subprocess.Popen(
        [*through, *TRACE, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
    )
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        line = process.stderr.readline()
        assert "tracing resets" in line, line + process.stderr.read()
        yield process
    finally:
        process.kill()
        process.communicate()


class Tracer:
    """``rsttrace trace -o json`` as a user runs it, read in the background.

    `program` is the command to run in its place; `keep` makes of an entry what is kept of it,
    where there will be many.

    Attributes:
        entries: what it printed so far.
        status: what it said on stderr so far.
        start_s: seconds until it was armed, if it was waited for.
    """

    def __init__(
        self,
        *options: str,
        wait: bool = True,
        program: Sequence[str] = TRACE,
        keep: Callable[[Json], Json] | None = None,
    ) -> None:
        self.entries: list[Json] = []
        self._keep = keep
        self._of: dict[int, list[Json]] = {}
        self.status = ""
        self.start_s: float | None = None
        started = time.monotonic()
        self._changed = threading.Condition()
        self._lines: queue.Queue[str] = queue.Queue()
        # What is alike comes fast here: it is told one by one unless a test is about that.
        told = [] if {"--rate", "--no-aggregate"} & {*options} else ["--rate", "1000000"]
        self.process = subprocess.Popen(
            [*program, "-o", "json", *told, *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._readers = [
            threading.Thread(target=self._read_entries, daemon=True),
            threading.Thread(target=self._read_status, daemon=True),
        ]
        for reader in self._readers:
            reader.start()
        if wait:
            try:
                self.wait_until_armed()
            except AssertionError:
                self.stop(signal.SIGKILL)
                raise
            self.start_s = round(time.monotonic() - started, 2)

    def wait_until_armed(self) -> None:
        """Wait until every hook is on; loading may take START_S."""
        self.wait_for(lambda: "tracing resets" in self.status, "the tracer to be armed", START_S)

    def _read_entries(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            entry = json.loads(line)
            if self._keep is not None:
                entry = self._keep(entry)
            with self._changed:
                self.entries.append(entry)
                self._of.setdefault(entry.get("netns"), []).append(entry)
                self._changed.notify_all()

    def _read_status(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._changed:
                self.status += line
                self._changed.notify_all()

    @property
    def plan(self) -> Plan:
        """The plan that runs."""
        found = re.search(r"plan: (\w+); hooks: (\d+) of (\d+)", self.status)
        assert found is not None, self.status
        return Plan(found[1])

    def wait_for(
        self, condition: Callable[[], bool], what: str, deadline_s: float | None = None
    ) -> None:
        """Wait until something became true; fails with what was seen instead."""
        with self._changed:
            if (
                not self._changed.wait_for(
                    lambda: condition() or self.process.poll() is not None, deadline_s or DEADLINE_S
                )
                or not condition()
            ):
                raise AssertionError(
                    f"no sign of {what}; status: {self.status!r}; entries: {self.entries!r:.3000}"
                )

    def forget(self) -> None:
        """Start anew: inode numbers of namespaces are used again."""
        with self._changed:
            self.entries.clear()
            self._of.clear()

    def told(self, netns: int) -> list[Json]:
        """The entries of one namespace so far.

        Not those that amend what was forgotten: a later handshake tells where its peer is.
        """
        told = list(self._of.get(netns, ()))
        known = {entry["id"] for entry in told}
        return [e for e in told if e["amends"] is None or e["amends"] in known]

    def of(self, netns: int) -> list[Json]:
        """The last entry on each reset of a namespace: what is found out late amends the first."""
        last: dict[int, Json] = {}
        for entry in self.told(netns):
            last[entry["amends"] or entry["id"]] = entry
        return list(last.values())

    def collect(self, netns: int, count: int) -> list[Json]:
        """Wait for so many resets of a namespace."""
        self.wait_for(lambda: len(self.of(netns)) >= count, f"{count} entries of netns {netns}")
        return self.of(netns)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(DEADLINE_S)
        for reader in self._readers:
            reader.join(DEADLINE_S)
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()
        return code


@cache
def knows() -> dict[str, bool]:
    """What this kernel tells of a reset (`rsttrace.kernel.knowledge.KNOWLEDGE`)."""
    return Facts().knows()


@cache
def drop_reasons() -> frozenset[str]:
    """The reasons of drops that this kernel gives (enum skb_drop_reason, from 5.17 on)."""
    return frozenset(Facts().enums()["skb_drop_reason"])


def no_socket(tracer: Tracer) -> str:
    """The cause of an answer for which there is no socket: before 6.10 the tracepoint is silent."""
    told = knowledge.Told(Kind.SENT_PASSIVE, "no-socket", None)
    found = knowledge.left(told, tracer.plan, knows())
    assert found is not None
    return found.cause


def cause(entry: Json) -> tuple[str, str, str, str | None]:
    """What an entry says in short: kind, cause, origin, the socket's state."""
    state = entry["socket"]["state"] if entry["socket"] else None
    return entry["kind"], entry["cause"]["name"], entry["origin"], state


SENT_REFUSAL = ("sent-passive", "no-listener", "local", None)
REFUSED = ("received-accepted", "connection-refused", "peer", "SYN_SENT")
SENT_LINGER = ("sent-active", "linger", "local", "ESTABLISHED")
RESET = ("received-accepted", "connection-reset", "peer", "ESTABLISHED")
PASSED = ("forwarded", "forwarded", "peer", None)


def wire(entry: Json) -> str:
    """The TCP header as it was on the wire, without the checksum (offloaded at the sender)."""
    tcp = entry["rst"]["raw"][40:] if entry["family"] == 4 else entry["rst"]["raw"][80:]
    return str(tcp[:32] + tcp[36:])


class Fence:
    """A namespace in which one refused connection marks a place in the tracer's output."""

    _ports = itertools.count(20001)  # of all fences: a later one's netns may have the same inode

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        lab.add("fence")

    def cross(self, tracer: Tracer) -> None:
        """Return once the tracer has shown everything that happened before this call."""
        port = next(self._ports)
        with self._lab.inside("fence"), socket.socket() as client:
            assert client.connect_ex(("127.0.0.1", port)) != 0
        netns = self._lab.inode("fence")
        tracer.wait_for(
            lambda: sum(e["remote"]["port"] == port for e in tracer.of(netns)) == 1,
            "the fence",
        )


@contextmanager
def pair(
    lab: Lab, role: str, peer: str, port: int = 7000, family: int = socket.AF_INET
) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection from `role` to `peer`: (client, accepted). Closing is the caller's business."""
    address = server_address(peer, family)
    with lab.inside(peer):
        listener = socket.socket(family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(64)
    with lab.inside(role):
        client = socket.socket(family)
    client.settimeout(DEADLINE_S)
    try:
        client.connect((address, port))
        accepted, _ = listener.accept()
        accepted.settimeout(DEADLINE_S)
        try:
            yield client, accepted
        finally:
            accepted.close()
    finally:
        client.close()
        listener.close()


ROLES = ("client", "router", "server")
ADDRESSES = {
    "client": ("10.71.1.1", "fd71:1::1"),
    "server": ("10.71.2.2", "fd71:2::2"),
}


def server_address(role: str, family: int) -> str:
    """A role's address of a family."""
    return ADDRESSES[role][family == socket.AF_INET6]


def refuse(lab: Lab, address: str, port: int = 7999, role: str = "client") -> None:
    """One connection that nobody accepts."""
    with lab.inside(role), socket.socket(V6 if ":" in address else V4) as sock:
        sock.settimeout(DEADLINE_S)
        assert sock.connect_ex((address, port)) == errno.ECONNREFUSED


def resolve(lab: Lab, role: str, *addresses: str) -> None:
    """Have the neighbours resolved: before, a SYN is sent (and answered) several times over."""
    for address in addresses:
        with lab.inside(role), socket.socket(V6 if ":" in address else V4) as sock:
            sock.settimeout(DEADLINE_S)
            sock.connect_ex((address, 1))


def forward(rule: str) -> str:
    """A ruleset for the IP forward hook, which bridged frames pass as well.

    A bridge table's priority must be above 0, or br_netfilter goes past it on kernels that are as
    old as 6.1 (br_nf_hook_thresh()).
    """
    return f"table inet t {{\nchain f {{\ntype filter hook forward priority 10\n{rule}\n}}\n}}\n"


def linger_zero(sock: socket.socket) -> None:
    """Make close() reset the connection."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def expect_reset(sock: socket.socket) -> None:
    """Read until the connection is reset."""
    try:
        while sock.recv(4096):
            pass
    except ConnectionError:
        return
    raise AssertionError("the connection ended without a reset")


SBIN = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
"""Where programs are that only root runs, also where root's own PATH leaves them out."""


def missing(programs: Iterable[str]) -> list[str]:
    """The programs that are not installed."""
    return [name for name in programs if shutil.which(name, path=SBIN) is None]


def skip_without(*programs: str) -> None:
    """Skip the test where a program is missing. CI installs them all: there, that is a failure.

    The guests of `make kernels` (RSTTRACE_KERNELS_REPORT) have what vagrant/provision.sh names.
    """
    if lacking := missing(programs):
        text = f"not installed: {', '.join(lacking)} (docs/dependencies.md)"
        if os.environ.get("CI") and "RSTTRACE_KERNELS_REPORT" not in os.environ:
            pytest.fail(text)
        pytest.skip(text)


MISSING = ("Unknown device type", "qdisc kind is unknown")
"""What the kernel says, through iproute2, where it has no such feature."""


def need(what: str, lab: Lab, command: str) -> None:
    """Try a feature on a device of its own, p0; skip the test where the kernel lacks it."""
    lab.add("probe")
    lab.ip("probe", "link add p0 type veth peer name p1")
    try:
        lab.exec("probe", command.split())
    except LabError as error:
        if not any(words in str(error) for words in MISSING):
            raise
        pytest.skip(f"this kernel has no {what}: {error}")


def load_module(name: str) -> None:
    """Load a module if there is one; whether the feature is there then, the caller tries."""
    with contextlib.suppress(FileNotFoundError):  # a machine without modules has no modprobe
        subprocess.run(["modprobe", name], check=False, capture_output=True)


SIOCETHTOOL = 0x8946  # include/uapi/linux/sockios.h
ETHTOOL_STXCSUM, ETHTOOL_STSO, ETHTOOL_SGSO, ETHTOOL_SGRO = 0x17, 0x1F, 0x24, 0x2C  # ethtool.h


REJECTING = ("nft_reject_inet", "nf_reject_ipv4")
"""The modules of a rule that rejects: its own, and what that needs."""


def unload_rejecting(lab: Lab) -> None:
    """Have them go from the kernel, which is a guest's, with the router's rules."""

    def gone() -> bool:
        for name in REJECTING:
            subprocess.run(["modprobe", "-r", name], check=False, capture_output=True)
        return not Path("/sys/module", REJECTING[-1]).exists()

    lab.nft("router", "flush ruleset")
    poll_until(gone, "the module to go")


def offload(lab: Lab, role: str, interface: str, *features: int, on: bool = False) -> None:
    """Turn what a device does for the stack off or on (``ethtool -K``)."""
    with lab.inside(role), socket.socket() as sock:
        for feature in features:
            value = ctypes.create_string_buffer(struct.pack("II", feature, int(on)), 8)
            request = struct.pack("16sQ8x", interface.encode(), ctypes.addressof(value))
            fcntl.ioctl(sock, SIOCETHTOOL, request)


def no_offload(lab: Lab, role: str, interface: str) -> None:
    """Let packets leave with whole checksums, as on a real cable (``ethtool -K tx off``)."""
    offload(lab, role, interface, ETHTOOL_STXCSUM)


def provoke(sock: socket.socket, data: bytes) -> None:
    """Send what will be answered with a reset, and read until it is there.

    A delayed ACK of before may have provoked it already: then sending fails.
    """
    try:
        sock.sendall(data)
    except ConnectionError:
        return
    expect_reset(sock)


def send_ip(lab: Lab, role: str, packet: Any) -> None:
    """Send a scapy IP packet from a namespace's raw socket, as its stack routes it."""
    raw = bytes(packet)
    with lab.inside(role):
        if raw[0] >> 4 == 4:
            with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
                sock.sendto(raw, (packet.dst, 0))
        else:
            with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
                sock.sendto(raw, (packet.dst, 0))


def deliver(lab: Lab, role: str, to: str, packet: Any) -> None:
    """Send it like `send_ip`, and wait until the other namespace's TCP has it (tcp_v4_rcv()).

    On a busy machine a softirq may run later, in ksoftirqd: what the test does next would be first.
    """
    before = counter(lab, to, "Tcp", "InSegs")
    send_ip(lab, role, packet)
    poll_until(lambda: counter(lab, to, "Tcp", "InSegs") > before, "the packet's arrival")


def send_frame(lab: Lab, role: str, interface: str, frame: Any) -> None:
    """Send a scapy Ethernet frame from one of a namespace's interfaces."""
    with lab.inside(role), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind((interface, 0))
        sock.send(bytes(frame))


def mac_of(lab: Lab, role: str, interface: str) -> str:
    """An interface's MAC."""
    return lab.exec(role, ["cat", f"/sys/class/net/{interface}/address"]).strip()


def out_rsts(lab: Lab, role: str) -> int:
    """The namespace's TcpOutRsts (RFC 4022 tcpOutRsts), v4 and v6 together."""
    return counter(lab, role, "Tcp", "OutRsts")


def counter(lab: Lab, role: str, group: str, name: str) -> int:
    """One of a namespace's counters, as nstat(8) names them; those of TCP count v4, v6."""
    rows: list[list[str]] = []
    for table in ("snmp", "netstat"):
        with lab.inside(role), open(f"/proc/thread-self/net/{table}", encoding="ascii") as file:
            rows += [line.split() for line in file if line.startswith(f"{group}:")]
    return int(rows[1][rows[0].index(name)])


def poll_until(condition: Callable[[], bool], what: str, deadline_s: float | None = None) -> None:
    """Wait for a condition of the system that nothing tells us about."""
    ends = time.monotonic() + (deadline_s or DEADLINE_S)
    waiter = threading.Event()
    while not condition():
        assert time.monotonic() < ends, f"waited in vain for {what}"
        waiter.wait(0.01)


@contextmanager
def occupied() -> Iterator[None]:
    """Every CPU has a task of ours to run, and what we do goes before that.

    A packet that is handed over (RPS), or that a timer sends (a delayed ACK), is dealt with in
    whatever runs on that CPU. There are machines with a task in which no BPF program runs (a
    sandbox's supervisor; sched_switch never tells of it either): what is dealt with there is not
    seen. Ours leave it no time meanwhile.
    """
    spinning = []
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        for cpu in os.sched_getaffinity(0):
            child = os.fork()
            if not child:
                signal.alarm(10)  # also if we are killed
                os.sched_setaffinity(0, [cpu])
                os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
                while True:
                    pass
            spinning.append(child)
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(2))  # new threads inherit it
        yield
    finally:
        os.sched_setscheduler(0, *before)
        for child in spinning:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def bpf_programs() -> set[int]:
    """The ids of every BPF program in the kernel (bpf(BPF_PROG_GET_NEXT_ID))."""
    found: set[int] = set()
    current = 0
    while True:
        attributes = bytearray(struct.pack("=III", current, 0, 0))  # start_id, next_id, flags
        try:
            syscalls.bpf(11, attributes)
        except FileNotFoundError:  # that was the last one
            return found
        _, current, _ = struct.unpack("=III", attributes)
        found.add(current)
