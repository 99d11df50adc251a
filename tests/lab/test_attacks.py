"""What went wrong once: each of these confused an earlier version on real packets."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator

import pytest
import scapy.layers.inet as scapy_inet

from rsttrace.demo.lab import Lab
from tests.lab.harness import (
    DEADLINE_S,
    Fence,
    Tracer,
    expect_reset,
    linger_zero,
    out_rsts,
    poll_until,
    send_ip,
    tracing,
)

F_SETPIPE_SZ = 1031  # fcntl(2); Python names it from 3.10 on


@pytest.fixture
def lan() -> Iterator[Lab]:
    """A host with a bridge and three guests on it, as container engines build it."""
    with Lab("rstlan") as lab:
        lab.add("host", "g1", "g2", "g3")
        lab.ip("host", "link add br0 type bridge", "link set br0 up")
        lab.addresses("host", "br0", "10.74.0.254/24")
        for number in (1, 2, 3):
            lab.link(f"g{number}", "eth0", "host", f"p{number}")
            lab.ip("host", f"link set p{number} master br0")
            lab.addresses(f"g{number}", "eth0", f"10.74.0.{number}/24")
        yield lab


def connected(
    lab: Lab, role: str, address: str, server: str
) -> tuple[socket.socket, socket.socket]:
    """(client in `role`, accepted in `server`)."""
    with lab.inside(server), socket.create_server((address, 7060)) as listener:
        with lab.inside(role):
            client = socket.create_connection((address, 7060), DEADLINE_S)
        accepted, _ = listener.accept()
    accepted.settimeout(DEADLINE_S)
    return client, accepted


def test_a_flooding_bridge_makes_no_resets_of_its_own(
    lan: Lab, tracer: Tracer, fence: Fence
) -> None:
    """The bridge has forgotten the guest's port: clones of the RST go to all of them."""
    fence.cross(tracer)
    tracer.forget()
    before = out_rsts(lan, "host")
    for _ in range(5):
        client, accepted = connected(lan, "host", "10.74.0.2", "g2")
        with client, accepted:
            lan.ip("host", "link set br0 type bridge fdb_flush")
            linger_zero(client)
            client.close()
            expect_reset(accepted)
    got = tracer.collect(lan.inode("g2"), 5)
    fence.cross(tracer)
    sent = [e for e in tracer.of(lan.inode("host")) if e["direction"] == "sent"]
    assert Counter(e["kind"] for e in sent) == {"sent-active": 5}
    assert out_rsts(lan, "host") - before == 5
    assert {(e["origin"], e["made_here"]["kind"]) for e in got} == {("peer", "sent-active")}


def test_macvlan_in_another_namespace(lan: Lab, tracer: Tracer, fence: Fence) -> None:
    """Its packets are seen once, at the lower device, in the lower device's namespace."""
    lan.add("pod")
    lan.ip("g1", f"link add mv0 link eth0 netns {lan.name('pod')} type macvlan mode bridge")
    lan.ip("pod", "link set mv0 up", "address add 10.74.0.9/24 dev mv0")
    fence.cross(tracer)
    tracer.forget()
    for _ in range(3):
        client, accepted = connected(lan, "pod", "10.74.0.2", "g2")
        with client, accepted:
            linger_zero(accepted)
            accepted.close()
            expect_reset(client)
        with lan.inside("pod"), socket.socket() as refused:
            assert refused.connect_ex(("10.74.0.2", 7999)) != 0
    got = tracer.collect(lan.inode("pod"), 6)
    fence.cross(tracer)
    assert len(tracer.of(lan.inode("pod"))) == 6
    assert Counter(e["cause"]["name"] for e in got) == {
        "connection-reset": 3,
        "connection-refused": 3,
    }
    assert {e["origin"] for e in got} == {"peer"}
    assert not [e for e in tracer.of(lan.inode("g1")) if e["direction"] == "received"]


def test_a_packet_that_waited_names_no_bystander(lan: Lab, tracer: Tracer, fence: Fence) -> None:
    """A raw packet and a socket's reset that leave when the neighbour is found, not when made."""
    client, accepted = connected(lan, "g1", "10.74.0.2", "g2")
    fence.cross(tracer)
    tracer.forget()
    with client, accepted:
        lan.ip("g2", "link set eth0 arp off")
        lan.ip("g1", "neigh flush all", "neigh flush dev eth0")
        packet = scapy_inet.IP(src="10.74.0.1", dst="10.74.0.2") / scapy_inet.TCP(
            sport=1, dport=2, flags="R", seq=77
        )
        send_ip(lan, "g1", packet)
        linger_zero(client)
        client.close()
        assert tracer.of(lan.inode("g1")) == []
        mac = lan.exec("g2", ["cat", "/sys/class/net/eth0/address"]).strip()
        lan.ip("g1", f"neigh replace 10.74.0.2 lladdr {mac} dev eth0")  # another process's doing
        sent = {e["kind"]: e for e in tracer.collect(lan.inode("g1"), 2)}
        expect_reset(accepted)
    assert set(sent) == {"sent-raw", "sent-active"}
    assert sent["sent-raw"]["process"]["pid"] in (None, os.getpid())
    assert sent["sent-active"]["cause"]["name"] == "linger"
    assert sent["sent-active"]["process"]["pid"] == os.getpid()
    assert sent["sent-active"]["actor"] is None


def test_a_raw_forgery_does_not_hide_behind_an_answer(
    lan: Lab, tracer: Tracer, fence: Fence
) -> None:
    """The stack decides on the same numbers, a firewall drops that, a process forges."""
    client, accepted = connected(lan, "g1", "10.74.0.2", "g2")
    rules = "table ip t {\nchain o {\ntype filter hook output priority 0\n"
    lan.nft("g3", rules + "tcp flags rst meta mark != 7 drop\n}\n}\n")
    fence.cross(tracer)
    tracer.forget()
    with client, accepted:
        with lan.inside("g1"):
            client.setsockopt(socket.IPPROTO_TCP, 19, 1)  # TCP_REPAIR: look at rcv_nxt
            client.setsockopt(socket.IPPROTO_TCP, 20, 1)
            rcv_nxt = client.getsockopt(socket.IPPROTO_TCP, 21) & 0xFFFFFFFF
            client.setsockopt(socket.IPPROTO_TCP, 19, -1)
        decoy = scapy_inet.IP(src="10.74.0.1", dst="10.74.0.3") / scapy_inet.TCP(
            sport=9, dport=10, flags="A", ack=rcv_nxt
        )
        send_ip(lan, "g1", decoy)
        forged = bytes(
            scapy_inet.IP(src="10.74.0.2", dst="10.74.0.1")
            / scapy_inet.TCP(
                sport=7060, dport=client.getsockname()[1], flags="R", seq=rcv_nxt, window=0
            )
        )
        with (
            lan.inside("g3"),
            socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw,
        ):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 7)
            raw.sendto(forged, ("10.74.0.1", 0))
        expect_reset(client)
    sent = tracer.collect(lan.inode("g3"), 1)
    got = tracer.collect(lan.inode("g1"), 1)
    assert [e["kind"] for e in sent] == ["sent-raw"]
    assert (got[0]["kind"], got[0]["origin"]) == ("received-accepted", "forged")


def test_a_reader_that_does_not_read_cannot_hold_the_end_up(lan: Lab) -> None:
    """stdout is a full pipe: --duration and SIGTERM still end the run."""
    for options, number in ((["--duration", "1"], None), ([], signal.SIGTERM)):
        with tracing("-o", "json", "--netns", lan.name("g1"), *options) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            fcntl.fcntl(process.stdout, F_SETPIPE_SZ, 4096)  # two entries fill it
            for _ in range(53):
                with lan.inside("g1"), socket.socket() as refused:
                    assert refused.connect_ex(("10.74.0.2", 7999)) != 0
            if number is not None:
                process.send_signal(number)
            assert process.wait(DEADLINE_S) == 0
            assert "nobody reads" in process.stderr.read()


def test_two_signals_do_not_cut_the_demo_s_cleaning_short() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "rsttrace", "demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("#   the client sees"):
                break
        prefix = f"rsttrace-{process.pid}-"
        count = sum(name.startswith(prefix) for name in os.listdir("/run/netns"))
        process.send_signal(signal.SIGINT)
        poll_until(
            lambda: sum(n.startswith(prefix) for n in os.listdir("/run/netns")) < count,
            "the cleaning to begin",
        )
        process.send_signal(signal.SIGTERM)
        process.stdout.read()
        process.wait(DEADLINE_S)
    assert not [name for name in os.listdir("/run/netns") if name.startswith(prefix)]


def test_kill_9_of_the_demo_leaves_no_process_and_what_it_left_is_said_and_removed() -> None:
    command = [sys.executable, "-m", "rsttrace"]
    with subprocess.Popen(
        [*command, "demo"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("#   the client sees"):
                break
        prefix = f"rsttrace-{process.pid}-"
        names = [name for name in os.listdir("/run/netns") if name.startswith(prefix)]
        process.kill()
        process.wait(DEADLINE_S)

    def inside() -> list[str]:
        listed = [["ip", "netns", "pids", name] for name in names]
        ran = [subprocess.run(each, capture_output=True, text=True, check=True) for each in listed]
        return [pid for each in ran for pid in each.stdout.split()]

    assert names
    poll_until(lambda: not inside(), "its helpers to end")
    traced = subprocess.run(
        [*command, "--duration", "0.1"], capture_output=True, text=True, check=True
    )
    assert f"{len(names)} namespaces are left of a demo that was killed" in traced.stderr
    subprocess.run([*command, "demo", "--clean"], check=True, capture_output=True)
    assert not [name for name in os.listdir("/run/netns") if name.startswith(prefix)]


def test_a_spoofed_syn_does_not_wipe_what_the_flow_has_taught(
    lan: Lab, tracer: Tracer, fence: Fence
) -> None:
    """A rejected RST, then a SYN, then the RST that counts: all from a box, none from the peer."""
    lan.sysctl("g2", net__ipv4__ip_default_ttl=50)
    client, accepted = connected(lan, "g1", "10.74.0.2", "g2")
    fence.cross(tracer)
    tracer.forget()
    with client, accepted:
        for _ in range(3):
            client.send(b"x")
            accepted.recv(1)
            accepted.send(b"y")
            client.recv(1)
        port = client.getsockname()[1]
        with lan.inside("g1"):
            client.setsockopt(socket.IPPROTO_TCP, 19, 1)
            client.setsockopt(socket.IPPROTO_TCP, 20, 1)
            rcv_nxt = client.getsockopt(socket.IPPROTO_TCP, 21) & 0xFFFFFFFF
            client.setsockopt(socket.IPPROTO_TCP, 19, -1)
        header = scapy_inet.IP(src="10.74.0.2", dst="10.74.0.1", id=0, flags="DF")
        for flags, seq in (("R", rcv_nxt + 0x40000000), ("S", 1), ("S", 2), ("R", rcv_nxt)):
            send_ip(
                lan,
                "g3",
                header
                / scapy_inet.TCP(
                    sport=7060, dport=port, flags=flags, seq=seq & 0xFFFFFFFF, window=0
                ),
            )
        expect_reset(client)
    entries = [e for e in tracer.collect(lan.inode("g1"), 2) if e["direction"] == "received"]
    last = next(e for e in entries if e["kind"] == "received-accepted")
    assert last["baseline"]["syn_ttl"] == 50
    assert last["baseline"]["packets"] > 3
