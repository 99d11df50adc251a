"""Resets by the thousand: each is told. The usual tracer, which shows every kind, is not here: it
would have thrice as much to tell."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import scapy.layers.inet as scapy_inet
import scapy.layers.inet6 as scapy_inet6

from rsttrace.demo.lab import Lab
from tests.lab.harness import (
    ADDRESSES,
    DEADLINE_S,
    Tracer,
    linger_zero,
    mac_of,
    no_socket,
    out_rsts,
    poll_until,
    server_address,
)

V4, V6 = socket.AF_INET, socket.AF_INET6
STORM = 10_007


SENDER = """
import os, socket, sys
cpu, address, packet, count = sys.argv[1:]
os.sched_setaffinity(0, {int(cpu)})
sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_RAW,
                     socket.IPPROTO_RAW)
print("up", flush=True)
sys.stdin.readline()
for _ in range(int(count)):
    sock.sendto(bytes.fromhex(packet), (address, 0))
"""


@pytest.mark.parametrize("family", [V4, V6], ids=["v4", "v6"])
def test_answers_alike_from_two_cpus(family: int, routed: Lab) -> None:
    """The same stray segment again and again, on two CPUs at once: each answer is told, why too."""
    cpus = sorted(os.sched_getaffinity(0))[:2]
    if len(cpus) < 2:
        pytest.skip("a machine with one CPU answers one segment after the other")
    tracer = Tracer("--kind", "sent", "--netns", str(routed.inode("server")))
    if family == V6 and no_socket(tracer) != "no-socket":
        tracer.stop()
        pytest.skip("here nothing tells an IPv6 answer without a socket from a copy of the last")
    layer = scapy_inet.IP if family == V4 else scapy_inet6.IPv6
    source, target = (server_address(role, family) for role in ("client", "server"))
    stray = scapy_inet.TCP(sport=7001, dport=7999, flags="A", seq=7, ack=99)
    packet = bytes(layer(src=source, dst=target) / stray).hex()
    before = out_rsts(routed, "server")
    senders = []
    try:
        for cpu in cpus:
            command = [sys.executable, "-c", SENDER, str(cpu), target, packet, "1009"]
            sender = subprocess.Popen(
                ["ip", "netns", "exec", routed.name("client"), *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            senders.append(sender)
            assert sender.stdout is not None
            assert sender.stdout.readline() == b"up\n"
        for sender in senders:
            assert sender.stdin is not None
            sender.stdin.write(b"\n")
            sender.stdin.flush()
        assert [sender.wait(DEADLINE_S) for sender in senders] == [0] * len(senders)
        sent = 1009 * len(senders)
        poll_until(lambda: out_rsts(routed, "server") - before == sent, "all answers")
        netns = routed.inode("server")
        tracer.wait_for(lambda: len(tracer.of(netns)) >= sent, f"{sent} entries", 10 * DEADLINE_S)
        entries = tracer.of(netns)
    finally:
        tracer.stop()
        for sender in senders:
            sender.kill()
            sender.communicate()
    assert Counter(entry["kind"] for entry in entries) == {"sent-passive": sent}
    cause = no_socket(tracer)
    # Without a probe's word the trigger is the last packet that came: here, of either CPU.
    unsure = {"unknown"} if cause == "no-connection" else set()
    assert {entry["cause"]["name"] for entry in entries} - unsure == {cause}


def test_storm_loses_nothing(routed: Lab) -> None:
    """10,007 resets in one burst: each is shown, and the kernel's own counter agrees."""
    storm = Tracer("--netns", routed.name("server"), "--summary")
    before = out_rsts(routed, "server")
    packets = [
        bytes(
            scapy_inet.IP(src=ADDRESSES["client"][0], dst=ADDRESSES["server"][0])
            / scapy_inet.TCP(sport=10_000 + n % 50_000, dport=7999, flags="S", seq=n)
        )
        for n in range(101)
    ]
    with routed.inside("client"), socket.socket(V4, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
        for n in range(STORM):
            sock.sendto(packets[n % len(packets)], (ADDRESSES["server"][0], 0))
    poll_until(lambda: out_rsts(routed, "server") - before == STORM, "all resets")
    # An emulated machine judges some hundred a second.
    storm.wait_for(lambda: len(storm.entries) >= STORM, f"{STORM} entries", 10 * DEADLINE_S)
    assert storm.stop() == 0
    *entries, last = storm.entries
    assert len(entries) == STORM
    assert {e["kind"] for e in entries} == {"sent-passive"}
    assert [e["id"] for e in entries] == list(range(1, STORM + 1))
    assert last["summary"]["shown"] == STORM
    assert last["summary"]["not_shown"]["lost"] == 0


@contextmanager
def many_files(count: int) -> Iterator[None]:
    """Let this process open so many files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(soft, count)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(hard, wanted)))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


WAITING = 1201
"""More than the kernel side keeps the reasons of (`reasons` in bpf/maps.c: 1024)."""


def test_resets_that_waited_longer_than_their_reasons_are_kept(routed: Lab) -> None:
    """tcp_send_reset came long before they leave, and does not come again: each is told."""
    with ExitStack() as stack:
        stack.enter_context(many_files(3 * WAITING))
        with routed.inside("server"):
            listener = stack.enter_context(socket.create_server((ADDRESSES["server"][0], 7000)))
        clients = []
        for _ in range(WAITING):
            with routed.inside("client"):
                client = socket.create_connection(listener.getsockname()[:2], DEADLINE_S)
            clients.append(stack.enter_context(client))
            stack.enter_context(listener.accept()[0])
        ports = {client.getsockname()[1] for client in clients}
        tracer = Tracer("--netns", routed.name("client"), "--kind", "sent", "--summary")
        stack.callback(tracer.stop)
        before = out_rsts(routed, "client")

        # The next hop is asked for once, and does not answer.
        gateway, mac = "10.71.1.254", mac_of(routed, "router", "cl0")
        routed.ip("router", "link set cl0 arp off")
        with routed.inside("client"):
            settings = Path("/proc/sys/net/ipv4/neigh/eth0")
            (settings / "unres_qlen_bytes").write_text(str(WAITING * 4096))
            (settings / "retrans_time_ms").write_text("600000")
        routed.ip("client", f"neigh del {gateway} dev eth0")
        for client in clients:
            linger_zero(client)
            client.close()
        assert out_rsts(routed, "client") - before == WAITING
        assert not tracer.entries
        routed.ip("client", f"neigh replace {gateway} lladdr {mac} dev eth0 nud permanent")
        tracer.wait_for(lambda: len(tracer.entries) >= WAITING, "all resets", 10 * DEADLINE_S)
        assert tracer.stop() == 0
    *entries, last = tracer.entries
    assert {entry["kind"] for entry in entries} == {"sent-active"}
    assert Counter(entry["local"]["port"] for entry in entries) == Counter(ports)
    assert last["summary"]["not_shown"]["lost"] == 0
