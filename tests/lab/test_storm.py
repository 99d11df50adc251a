"""Resets by the thousand: each is told, or counted.

The usual tracer, which shows every kind, is not here: it would have thrice as much to tell.
"""

from __future__ import annotations

import os
import re
import resource
import select
import socket
import subprocess
import sys
import time
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
    Json,
    Tracer,
    linger_zero,
    mac_of,
    no_socket,
    out_rsts,
    poll_until,
    server_address,
    tracing,
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
    tracer = Tracer("--kind", "sent", "--netns", str(routed.inode("server")), "--no-aggregate")
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


def syns(count: int, port: int = 7999, sources: int = 1) -> list[bytes]:
    """SYNs to the server, from so many addresses behind the router's other interface."""
    return [
        bytes(
            scapy_inet.IP(src=f"10.71.1.{1 + n % sources}", dst=ADDRESSES["server"][0])
            / scapy_inet.TCP(sport=10_000 + n, dport=port, flags="S", seq=n)
        )
        for n in range(count)
    ]


def flood(lab: Lab, packets: list[bytes], count: int) -> None:
    """Send so many packets from the client's namespace, as fast as this process can."""
    with lab.inside("client"), socket.socket(V4, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
        for n in range(count):
            sock.sendto(packets[n % len(packets)], (ADDRESSES["server"][0], 0))


def books(status: str) -> list[int]:
    """The last line of a run: all resets, shown, counted, filtered, lost."""
    found = re.search(
        r"^resets: (\S+) = (\S+) shown \+ (\S+) only counted \+ (\S+) filtered \+ (\S+) lost$",
        status,
        re.MULTILINE,
    )
    assert found is not None, status
    return [int(number.replace(",", "")) for number in found.groups()]


def test_a_storm_is_told_or_counted_to_the_last_one(routed: Lab) -> None:
    """What is shown, and what the lines of counts say, is what the kernel itself counts."""
    tracer = Tracer("--netns", routed.name("server"), "--summary", "--rate", "10")
    before = out_rsts(routed, "server")
    flood(routed, syns(101), STORM)
    poll_until(lambda: out_rsts(routed, "server") - before == STORM, "all resets")
    tracer.wait_for(lambda: sum(e["seen"] for e in tracer.entries) >= STORM, "all of them", 60)
    assert tracer.stop() == 0
    *entries, last = tracer.entries
    told = [entry for entry in entries if entry["counted"] is None]
    counted = [entry for entry in entries if entry["counted"] is not None]
    assert sum(entry["seen"] for entry in entries) == STORM
    _, shown, only_counted, _, lost = books(tracer.status)  # filtered: what the client received
    assert (shown, only_counted, lost) == (len(told), STORM - len(told), 0)
    assert last["totals"]["not_shown"]["aggregated"] == STORM - len(told)
    assert last["totals"]["shown"] == len(told) >= 50
    assert {(e["kind"], e["origin"], e["counted"]["alike"]) for e in counted} == {
        ("sent-passive", "local", "peer")
    }
    assert all(e["counted"]["first"] <= e["counted"]["last"] == e["time"] for e in counted)


def test_in_a_flood_fewer_are_told_than_the_rate_allows(routed: Lab) -> None:
    """Of what comes by the thousand, one more in detail is worth less than what it costs."""
    rate, burst_s = 100, 5
    tracer = Tracer("--netns", routed.name("server"), "--rate", str(rate))
    began, sent, packets = time.monotonic(), 0, syns(101)
    while time.monotonic() - began < 3:
        flood(routed, packets, 1009)
        sent += 1009
    spent = time.monotonic() - began
    tracer.wait_for(lambda: sum(e["seen"] for e in tracer.entries) >= sent, "all of them", 60)
    assert tracer.stop() == 0
    told = [entry for entry in tracer.entries if entry["counted"] is None]
    assert rate * burst_s <= len(told) < rate * burst_s + spent * rate / 2


def test_a_flood_hides_no_first_reset_of_another(routed: Lab) -> None:
    """Of one kind from one source, from many, to one port: others are told one by one."""
    netns = routed.inode("server")
    with routed.inside("server"):
        listener = socket.create_server((ADDRESSES["server"][0], 7000))
    with routed.inside("client"):
        victim = socket.create_connection(listener.getsockname()[:2], DEADLINE_S)
    peer, _ = listener.accept()
    with listener, peer:
        tracer = Tracer("--netns", str(netns), "--rate", "1")
        before = out_rsts(routed, "server")
        strays = [
            bytes(
                scapy_inet.IP(src=ADDRESSES["client"][0], dst=ADDRESSES["server"][0])
                / scapy_inet.TCP(sport=20_000 + n, dport=7997, flags="R", seq=n)
            )
            for n in range(101)
        ]
        flood(routed, strays, 3001)
        flood(routed, syns(997), 1009)  # one source
        flood(routed, syns(997, 7998, sources=97), 1009)  # answers that no host takes
        flood(routed, syns(3, port=7005), 1)
        linger_zero(victim)
        victim.close()
        poll_until(lambda: out_rsts(routed, "server") - before == 2019, "all answers")

        def told(kind: str, port: int) -> list[Json]:
            return [
                entry
                for entry in tracer.of(netns)
                if entry["kind"] == kind
                and entry["local"]["port"] == port
                and entry["counted"] is None
            ]

        tracer.wait_for(lambda: told("received-accepted", 7000) != [], "the one that killed")
        tracer.wait_for(lambda: told("sent-passive", 7005) != [], "the other port's")

        def seen() -> dict[str, int]:
            found = [e for e in tracer.of(netns) if e["amends"] is None]
            return {k: sum(e["seen"] for e in found if e["kind"] == k) for k in wanted}

        wanted = {"received-unmatched": 3001, "sent-passive": 2019, "received-accepted": 1}
        tracer.wait_for(lambda: seen() == wanted, f"{wanted}", 60)
        assert tracer.stop() == 0
    _, shown, only_counted, _, lost = books(tracer.status)
    assert (shown + only_counted, lost) == (sum(wanted.values()), 0)
    assert len(tracer.entries) < 500


def test_what_was_not_looked_at_is_lost_and_said(routed: Lab) -> None:
    """Nobody reads the output: resets are lost, which is said meanwhile, and the sum is right."""
    netns = str(routed.inode("server"))
    with tracing("-o", "json", "--netns", netns, "--no-aggregate") as process:
        assert process.stderr is not None
        before = out_rsts(routed, "server")
        poll = select.poll()
        poll.register(process.stderr, select.POLLIN)
        said = ""
        packets = syns(101)
        while "are lost" not in said:  # the pipe, the tracer's memory and the ring are finite
            flood(routed, packets, STORM)
            while poll.poll(2000):
                said += process.stderr.readline()
        sent = out_rsts(routed, "server") - before
        process.terminate()
        said += process.stderr.read()
        assert process.wait(DEADLINE_S) == 0
    _, shown, counted, _, lost = books(said)  # filtered: those that the other end received
    assert counted == 0
    assert lost == sent - shown > 0


def test_storm_loses_nothing(routed: Lab) -> None:
    """10,007 resets in one burst: each is shown, and the kernel's own counter agrees."""
    storm = Tracer("--netns", routed.name("server"), "--summary", "--no-aggregate")
    before = out_rsts(routed, "server")
    flood(routed, syns(101), STORM)
    poll_until(lambda: out_rsts(routed, "server") - before == STORM, "all resets")
    # An emulated machine judges some hundred a second.
    storm.wait_for(lambda: len(storm.entries) >= STORM, f"{STORM} entries", 10 * DEADLINE_S)
    assert storm.stop() == 0
    *entries, last = storm.entries
    assert len(entries) == STORM
    assert {e["kind"] for e in entries} == {"sent-passive"}
    assert [e["id"] for e in entries] == list(range(1, STORM + 1))
    assert last["totals"]["shown"] == STORM
    assert last["totals"]["not_shown"]["lost"] == 0


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
        tracer = Tracer(
            "--netns", routed.name("client"), "--kind", "sent", "--summary", "--no-aggregate"
        )
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
    assert last["totals"]["not_shown"]["lost"] == 0


FORGOTTEN = 500
"""Flows that the kernel side may keep in the test below: a flood is ten times as many."""


@pytest.mark.parametrize("to_listener", [True, False], ids=["half-open", "refused"])
def test_a_flood_of_syns_does_not_push_a_live_flow_out(to_listener: bool, routed: Lab) -> None:
    """What was learned of an idle connection is there when its reset comes."""
    netns = routed.inode("server")
    tracer = Tracer("--netns", str(netns), "--kind", "received-accepted", "--flows", str(FORGOTTEN))
    with routed.inside("server"):
        listener = socket.create_server((ADDRESSES["server"][0], 7000), backlog=1)
        flooded = socket.create_server((ADDRESSES["server"][0], 7998), backlog=64)
    with routed.inside("client"):
        victim = socket.create_connection(listener.getsockname()[:2], DEADLINE_S)
    peer, _ = listener.accept()
    with listener, flooded, peer:
        victim.sendall(b"x")
        assert peer.recv(1) == b"x"
        flood(routed, syns(5003, 7998 if to_listener else 7999, sources=97), 5003)
        linger_zero(victim)
        victim.close()
        tracer.wait_for(lambda: tracer.of(netns) != [], "the reset")
        assert tracer.stop() == 0
    (entry,) = tracer.entries
    assert entry["baseline"]["scope"] == "flow"
    assert entry["baseline"]["packets"] >= 3
