"""Two hosts with one address on one link: found by a reset, and confirmed by asking."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import jsonschema
import pytest

from rsttrace.demo.lab import Lab
from rsttrace.render.schema import schema_text
from tests.lab.harness import DEADLINE_S, Json, Tracer, mac_of, tracing

VALIDATOR = jsonschema.Draft202012Validator(json.loads(schema_text()))
CLIENT = "10.84.1.1", "fd84:1::1"
SHARED = "10.84.1.7", "fd84:1::7"
PORT = 7000
FAMILIES = pytest.mark.parametrize("family", [4, 6], ids=["v4", "v6"])
SILENT = (
    "table ip6 quiet {\nchain o {\ntype filter hook output priority 0\n"
    "icmpv6 type nd-neighbor-advert drop\n}\n}\n"
)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """client, first and second on one bridge; the latter two have the same addresses."""
    with Lab("rstdup") as made:
        made.add("bridge", "client", "first", "second")
        made.ip("bridge", "link add br0 type bridge mcast_snooping 0", "link set br0 up")
        for role in ("client", "first", "second"):
            made.link("bridge", role, role, "e0")
            made.ip("bridge", f"link set {role} master br0")
        made.addresses("client", "e0", f"{CLIENT[0]}/24", f"{CLIENT[1]}/64")
        for role in ("first", "second"):
            made.addresses(role, "e0", f"{SHARED[0]}/24", f"{SHARED[1]}/64")
        yield made


def point_at(lab: Lab, role: str, family: int) -> None:
    """The client's neighbour table gives the address to one of them."""
    mac, ip = mac_of(lab, role, "e0"), SHARED[family == 6]
    lab.ip("client", f"neigh replace {ip} lladdr {mac} dev e0 nud permanent")


def provoke(lab: Lab, family: int) -> None:
    """A connection to the first whose next packet reaches the second, which knows nothing of it."""
    kind = socket.AF_INET6 if family == 6 else socket.AF_INET
    point_at(lab, "first", family)
    with lab.inside("first"):
        listener = socket.create_server((SHARED[family == 6], PORT), family=kind)
    with listener, lab.inside("client"):
        client = socket.create_connection((SHARED[family == 6], PORT), DEADLINE_S)
        accepted, _ = listener.accept()
    with client, accepted:
        accepted.sendall(b"greeting")
        assert client.recv(100) == b"greeting"
        point_at(lab, "second", family)
        client.sendall(b"request")
        with pytest.raises(ConnectionResetError):
            client.recv(100)
        # the first one's own end must not be asked again
        point_at(lab, "first", family)


class Watch:
    """Counts the questions for the shared address that reach the second host."""

    def __init__(self, lab: Lab, family: int) -> None:
        self._family = family
        protocol = 0x86DD if family == 6 else 0x0806
        with lab.inside("second"):
            self._sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(protocol))
        self._sock.setblocking(False)
        self._target = socket.inet_pton(
            socket.AF_INET6 if family == 6 else socket.AF_INET, SHARED[family == 6]
        )

    def questions(self) -> int:
        count = 0
        with self._sock:
            while True:
                try:
                    packet, address = self._sock.recvfrom(2048)
                except BlockingIOError:
                    return count
                if address[2] == socket.PACKET_OUTGOING:
                    continue
                if self._family == 4:
                    count += packet[6:8] == b"\0\1" and packet[24:28] == self._target
                else:
                    count += packet[40:41] == b"\x87" and packet[48:64] == self._target


@FAMILIES
@pytest.mark.parametrize("both", [True, False], ids=["both", "one"])
def test_asked_after_a_reset(lab: Lab, family: int, both: bool) -> None:
    """Once, however many resets say so; who does not answer is still named."""
    if not both:
        lab.sysctl("second", net__ipv4__conf__all__arp_ignore=8)
        lab.nft("second", SILENT)
    tracer = Tracer("--viewpoint", "netns", "--netns", lab.name("client"), "--probe-arp")
    watch = Watch(lab, family)
    try:
        for _ in range(2):
            provoke(lab, family)
        tracer.wait_for(
            lambda: (
                any("address" in e for e in tracer.entries)
                and sum("duplicate-address" in e.get("findings", ()) for e in tracer.entries) >= 2
            ),
            "the answer, and both entries",
        )
    finally:
        status = tracer.stop()
        if not both:
            lab.sysctl("second", net__ipv4__conf__all__arp_ignore=0)
            lab.exec("second", ["nft", "delete", "table", "ip6", "quiet"])
    assert status == 0
    for made in tracer.entries:
        VALIDATOR.validate(made)
    first, second = (mac_of(lab, role, "e0") for role in ("first", "second"))
    entry = next(e for e in tracer.entries if "duplicate-address" in e.get("findings", ()))
    (check,) = [e["address"] for e in tracer.entries if "address" in e]
    assert check["entry"] == entry["id"]
    assert (check["ip"], check["method"]) == (SHARED[family == 6], "nd" if family == 6 else "arp")
    assert (check["netns"], check["ifname"]) == (lab.inode("client"), "e0")
    assert check["seen"] == [first, second]
    assert entry["neighbor"]["mac"] == second
    assert check["confirmed"] is both
    assert {item["mac"] for item in check["macs"]} == ({first, second} if both else {first})
    assert check["sent"] == watch.questions() == 3


def run(lab: Lab, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rsttrace", "locate", "--netns", lab.name("client"), *arguments],
        capture_output=True, text=True, timeout=60, check=True, env={**os.environ, "LC_ALL": "C"},
    )  # fmt: skip


@FAMILIES
def test_asked_by_locate(lab: Lab, family: int) -> None:
    point_at(lab, "first", family)
    ip = SHARED[family == 6]
    done = run(lab, ip, "--probe-arp")
    lines = done.stdout.splitlines()
    asked = "neighbour solicitations" if family == 6 else "ARP requests"
    assert f"{ip} on e0: confirmed: 2 MACs answer to 3 {asked}" in lines
    for role in ("first", "second"):
        start = f"  {mac_of(lab, role, 'e0')} ("
        assert any(line.startswith(start) and line.endswith(": 3 answers") for line in lines)
    path, check = (json.loads(line) for line in run(lab, ip, "--probe-arp", "-o", "json").stdout
                   .splitlines())  # fmt: skip
    VALIDATOR.validate(path)
    VALIDATOR.validate(check)
    assert check["address"]["entry"] is None
    assert check["address"]["confirmed"] is True


@FAMILIES
def test_nobody_is_asked_without_being_told(lab: Lab, family: int) -> None:
    point_at(lab, "first", family)
    watch = Watch(lab, family)
    assert "answer" not in run(lab, SHARED[family == 6]).stdout
    assert watch.questions() == 0


@FAMILIES
def test_an_address_that_nobody_has(lab: Lab, family: int) -> None:
    ip = "10.84.1.77" if family == 4 else "fd84:1::77"
    done = run(lab, ip, "--probe-arp", "--timeout", "0.1")
    assert f"{ip} on e0: not confirmed: nobody answers to 3 " in done.stdout


def test_this_host_itself_is_not_asked(lab: Lab) -> None:
    done = run(lab, CLIENT[0], "--probe-arp")
    assert "answer" not in done.stdout
    assert done.stderr.startswith("no address to ask for: the peer is this host itself")


def test_on_the_bridge_both_ports_are_named(lab: Lab) -> None:
    """Asked from the host that has the bridge."""
    lab.addresses("bridge", "br0", "10.84.1.9/24")
    command = [sys.executable, "-m", "rsttrace", "locate", "--netns", lab.name("bridge"),
               SHARED[0], "--probe-arp", "-o", "json"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    check: Json = json.loads(done.stdout.splitlines()[1])["address"]
    assert {item["mac"]: item["bridge"]["port"] for item in check["macs"]} == {
        mac_of(lab, role, "e0"): role for role in ("first", "second")
    }


def test_the_text_below_an_entry(lab: Lab) -> None:
    """With --count 1 the run waits for the answer."""
    where = ("--viewpoint", "netns", "--netns", lab.name("client"))
    with tracing(*where, "--kind", "received", "--count", "1", "--probe-arp", "-v") as process:
        provoke(lab, 4)
        out, _ = process.communicate(timeout=2 * DEADLINE_S)
    assert process.returncode == 0
    first, second = (mac_of(lab, role, "e0") for role in ("first", "second"))
    found = f"{SHARED[0]} is on our own link with two MACs: {first} and {second}"
    assert f"    ! duplicate-address: {found}\n" in out
    below = out.partition("    #1: whether the address is there twice\n")[2]
    assert below.startswith(f"    {SHARED[0]} on e0: confirmed: 2 MACs answer to 3 ARP requests\n")


def test_a_signal_ends_it_early(lab: Lab) -> None:
    """What is known so far is shown, and the trace ends cleanly while it asks."""
    tracer = Tracer("--viewpoint", "netns", "--netns", lab.name("client"), "--probe-arp")
    try:
        provoke(lab, 4)
        tracer.wait_for(
            lambda: any("duplicate-address" in e.get("findings", ()) for e in tracer.entries),
            "the entry",
        )
    finally:
        status = tracer.stop()
    assert status == 0
