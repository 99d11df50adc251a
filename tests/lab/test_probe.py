"""`trace --probe`: real peers are asked how far away they are, over a path of real routers."""

from __future__ import annotations

import contextlib
import re
import socket
import sys
from collections.abc import Iterator

import pytest

from rsttrace.demo.lab import Lab
from tests.lab.harness import (
    DEADLINE_S,
    TRACE,
    Json,
    Tracer,
    expect_reset,
    mac_of,
    skip_without,
    tracing,
)

ROUTERS = 4
OPEN, PICKY = 8080, 8081
"""PICKY listens, but a router rejects what comes to it after the handshake."""
SHUT, REJECTED = 9001, 9002
WALL = 2
"""The router that rejects: its RST passes one other, the peer's answers pass four."""
PEERS = 12
FAMILIES = pytest.mark.parametrize("family", [4, 6], ids=["v4", "v6"])

SERVER_CODE = f"""
import socket
listeners = []
for port in ({OPEN}, {PICKY}):
    family = socket.AF_INET6
    listeners.append(socket.create_server(("::", port), family=family, dualstack_ipv6=True))
print("serving", flush=True)
import signal; signal.pause()
"""


def peer(number: int, family: int) -> str:
    """The server has many addresses: each test talks to one that is new to the tracer."""
    return f"10.83.99.{number}" if family == 4 else f"fd83:99::{number}"


def build(lab: Lab) -> None:
    """client - r1 - … - r4 - server, both families; link n is 10.83.n.0/24 and fd83:n::/64."""
    path = ["client", *(f"r{number}" for number in range(1, ROUTERS + 1)), "server"]
    lab.add(*path)
    for role in path[1:-1]:
        lab.router(role)
    for link, (left, right) in enumerate(zip(path, path[1:]), 1):
        lab.link(left, f"e{link}", right, f"w{link}")
        lab.addresses(left, f"e{link}", f"10.83.{link}.1/24", f"fd83:{link}::1/64")
        lab.addresses(right, f"w{link}", f"10.83.{link}.2/24", f"fd83:{link}::2/64")
    for index, role in enumerate(path):
        if role != "server":
            lab.route(
                role,
                f"10.83.99.0/24 via 10.83.{index + 1}.2",
                f"fd83:99::/64 via fd83:{index + 1}::2",
            )
        if index > 1:
            lab.route(role, f"10.83.1.0/24 via 10.83.{index}.1", f"fd83:1::/64 via fd83:{index}::1")
    # a SYN-ACK that comes again tells who did not make the RST, too
    lab.sysctl("server", net__ipv4__tcp_synack_retries=0)
    for number in range(1, PEERS + 1):
        lab.addresses("server", "lo", f"{peer(number, 4)}/32", f"{peer(number, 6)}/128")
    lab.nft(
        f"r{WALL}",
        "table inet t {\nchain f {\ntype filter hook forward priority 0\n"
        f"tcp dport {REJECTED} reject with tcp reset\n"
        f"tcp dport {PICKY} tcp flags & (syn | ack | rst) == ack reject with tcp reset\n}}\n}}\n",
    )


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    skip_without("nft")
    with Lab("rstprb") as made:
        build(made)
        made.spawn("server", [sys.executable, "-c", SERVER_CODE], ready="serving")
        yield made


def where(lab: Lab) -> tuple[str, ...]:
    return ("--viewpoint", "netns", "--netns", lab.name("client"))


@pytest.fixture(scope="module")
def asker(lab: Lab) -> Iterator[Tracer]:
    """A tracer that asks."""
    made = Tracer(*where(lab), "--probe", "--kind", "all")
    try:
        yield made
    finally:
        status = made.stop()
        assert status == 0, made.status


def knock(lab: Lab, ip: str, port: int) -> int:
    """A connection that is refused, or reset at once; its port here."""
    with lab.inside("client"):
        sock = socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET)
    with sock:
        sock.settimeout(DEADLINE_S)
        with contextlib.suppress(ConnectionRefusedError, ConnectionResetError):
            sock.connect((ip, port))
            expect_reset(sock)
        local: int = sock.getsockname()[1]
    return local


def told(tracer: Tracer, ip: str) -> list[Json]:
    """The entries about a peer."""
    return [e for e in tracer.entries if e.get("remote", {}).get("ip") == ip]


def verdicts(tracer: Tracer, ip: str) -> dict[int, str]:
    """The last verdict of each reset of a peer, by its first entry."""
    return {e["amends"] or e["id"]: e["origin"] for e in told(tracer, ip)}


def amended(tracer: Tracer, ip: str) -> tuple[Json, Json]:
    """The first entry about a peer, and the one that amends it."""
    tracer.wait_for(
        lambda: any(e["amends"] for e in told(tracer, ip)), f"an amended entry about {ip}"
    )
    first, last = told(tracer, ip)[0], told(tracer, ip)[-1]
    assert last["amends"] == first["id"]
    return first, last


def asked(entry: Json) -> Json:
    """The one line of evidence about the question."""
    (found,) = [e for e in entry["evidence"] if e["text"].startswith("asked: ")]
    made: Json = found
    return made


def echoes(lab: Lab, family: int) -> int:
    """How many echo requests the server has got."""
    if family == 6:
        text = lab.exec("server", ["cat", "/proc/net/snmp6"])
        return int(re.search(r"^Icmp6InEchos\s+(\d+)", text, re.M)[1])  # type: ignore[index]
    lines = [line.split() for line in lab.exec("server", ["cat", "/proc/net/snmp"]).splitlines()]
    names, numbers = (line for line in lines if line[0] == "Icmp:")
    return int(dict(zip(names, numbers))["InEchos"])


@FAMILIES
def test_refused_by_a_firewall_on_the_way(family: int, lab: Lab, asker: Tracer) -> None:
    """First contact: nothing tells who refused. The peer's answer comes from farther away."""
    ip, before = peer(1, family), echoes(lab, family)
    knock(lab, ip, REJECTED)
    first, last = amended(asker, ip)
    assert (first["origin"], first["hops"]["peer"]) == ("inconclusive", None)
    assert (last["origin"], last["hops"]) == ("forged", {"rst": WALL - 1, "peer": ROUTERS})
    assert last["authors"][0]["author"] == "reject"
    word = "TTL" if family == 4 else "hop limit"
    assert asked(last)["text"] == (
        f"asked: the replies to 3 echoes came with {word} {64 - ROUTERS}, {ROUTERS} hops; "
        f"the RST with {64 - WALL + 1}"
    )
    assert asked(last)["rule"] == "asked-near"
    assert echoes(lab, family) == before + 3


@FAMILIES
def test_refused_by_the_peer(family: int, lab: Lab, asker: Tracer) -> None:
    ip, before = peer(2, family), echoes(lab, family)
    knock(lab, ip, SHUT)
    first, last = amended(asker, ip)
    assert first["origin"] == "inconclusive"
    assert last["origin"] == "peer"
    assert (asked(last)["rule"], asked(last)["values"]["method"]) == ("asked-same", "echo")
    assert echoes(lab, family) == before + 1


@FAMILIES
def test_one_question_for_a_peer_and_minute(family: int, lab: Lab, asker: Tracer) -> None:
    """However often it is reset; what it answered holds for the others at once."""
    ip, before = peer(3, family), echoes(lab, family)
    for _ in range(5):
        knock(lab, ip, SHUT)
    asker.wait_for(lambda: list(verdicts(asker, ip).values()) == ["peer"] * 5, "five verdicts")
    port = knock(lab, ip, SHUT)
    asker.wait_for(
        lambda: any(e["local"]["port"] == port for e in told(asker, ip)), "the last refusal"
    )
    (late,) = [e for e in told(asker, ip) if e["local"]["port"] == port]
    assert (late["origin"], late["amends"], asked(late)["rule"]) == ("peer", None, "asked-same")
    assert list(verdicts(asker, ip).values()) == ["peer"] * 6
    assert echoes(lab, family) == before + 1


@contextlib.contextmanager
def deaf(lab: Lab) -> Iterator[None]:
    """The server answers no echo meanwhile."""
    try:
        lab.sysctl("server", net__ipv4__icmp_echo_ignore_all=1, net__ipv6__icmp__echo_ignore_all=1)
        yield
    finally:
        lab.sysctl("server", net__ipv4__icmp_echo_ignore_all=0, net__ipv6__icmp__echo_ignore_all=0)


@FAMILIES
def test_a_peer_that_answers_a_syn_alone(family: int, lab: Lab, asker: Tracer) -> None:
    """What our kernel says to the SYN-ACK is no entry of its own."""
    ip = peer(4, family)
    with deaf(lab):
        ours = {knock(lab, ip, PICKY)}
        first, last = amended(asker, ip)
    assert first["origin"] == "inconclusive"
    assert last["origin"] == "forged"
    word = "TTL" if family == 4 else "hop limit"
    assert asked(last)["text"].startswith(
        f"asked: the SYN-ACK to 3 SYNs to port {PICKY} came with {word} {64 - ROUTERS}, "
    )
    fence = peer(5, family)
    knock(lab, fence, SHUT)
    amended(asker, fence)
    assert {e["local"]["port"] for e in told(asker, ip)} == ours
    assert all(e["direction"] == "received" for e in told(asker, ip))


def test_a_peer_that_answers_nothing(lab: Lab) -> None:
    """It stays open, and how many were silent is said at the end."""
    ip = peer(6, 4)
    with deaf(lab), tracing(*where(lab), "--probe", "--count", "1", "--explain") as process:
        knock(lab, ip, SHUT)
        out, err = process.communicate(timeout=2 * DEADLINE_S)
    assert process.returncode == 0
    assert "INCONCLUSIVE" in out
    assert "--probe: 1 of 1 peers gave no answer\n" in err


def test_the_answer_comes_after_the_count(lab: Lab) -> None:
    """With --count 1 the run waits for the answer, and shows the entry again."""
    with tracing(*where(lab), "--probe", "--count", "1") as process:
        knock(lab, peer(7, 4), SHUT)
        out, _ = process.communicate(timeout=2 * DEADLINE_S)
    assert process.returncode == 0
    first, second = [line for line in out.splitlines() if line[:1] != " "]
    assert "INCONCLUSIVE" in first
    assert " PEER " in second


def test_what_a_filter_hides_is_asked_about_too(lab: Lab) -> None:
    """A doubtful reset is not shown with --origin forged, until it is one."""
    ip = peer(8, 4)
    with tracing(*where(lab), "--probe", "--origin", "forged", "--count", "1") as process:
        knock(lab, ip, REJECTED)
        out, _ = process.communicate(timeout=2 * DEADLINE_S)
    assert process.returncode == 0
    assert "FORGED" in out.splitlines()[0]
    assert "+ asked: the replies to 3 echoes came with TTL 60, 4 hops; the RST with 63" in out


def test_without_the_right_to_ask(lab: Lab) -> None:
    """One clear warning, and the trace goes on."""
    skip_without("setpriv")
    program = ["setpriv", "--bounding-set", "-net_raw", "--inh-caps", "-net_raw", *TRACE]
    tracer = Tracer(*where(lab), "--probe", program=program)
    try:
        for number in (9, 10, 11):
            knock(lab, peer(number, 4), SHUT)
            tracer.wait_for(lambda n=number: bool(told(tracer, peer(n, 4))), "the entry")  # type: ignore[misc]
        tracer.wait_for(lambda: "asks nobody" in tracer.status, "the warning")
    finally:
        status = tracer.stop()
    assert status == 0
    assert tracer.status.count("warning:") == 1
    assert "warning: --probe asks nobody: " in tracer.status


CLIENT, SHARED = ("10.84.9.1", "fd84:9::1"), ("10.84.9.7", "fd84:9::7")


@pytest.fixture(scope="module")
def link() -> Iterator[Lab]:
    """client, first and second on one bridge; the latter two have the same addresses.

    What the client sends to the first goes there, but for what begins with a word.
    """
    skip_without("nft")
    with Lab("rstprb2") as made:
        made.add("bridge", "client", "first", "second")
        made.ip("bridge", "link add br0 type bridge mcast_snooping 0", "link set br0 up")
        for role in ("client", "first", "second"):
            made.link("bridge", role, role, "e0")
            made.ip("bridge", f"link set {role} master br0")
        made.addresses("client", "e0", f"{CLIENT[0]}/24", f"{CLIENT[1]}/64")
        for role in ("first", "second"):
            made.addresses(role, "e0", f"{SHARED[0]}/24", f"{SHARED[1]}/64")
        first, second = (mac_of(made, role, "e0") for role in ("first", "second"))
        client = mac_of(made, "client", "e0")
        for ip, here in zip(SHARED, CLIENT):
            made.ip("client", f"neigh replace {ip} lladdr {first} dev e0 nud permanent")
            # an advertisement for the second one's question would go to the first
            made.ip("second", f"neigh replace {here} lladdr {client} dev e0 nud permanent")
        made.nft(
            "bridge",
            "table bridge t {\nchain p {\ntype filter hook prerouting priority -300\n"
            f'iif "client" tcp dport {OPEN} @th,256,64 0x{b"ELSEWHER".hex()} '
            f"ether daddr set {second}\n}}\n}}\n",
        )
        yield made


@FAMILIES
def test_on_our_own_link_the_link_is_asked(family: int, link: Lab) -> None:
    """All are as near there; who has the address is the question."""
    ip = SHARED[family == 6]
    kind = socket.AF_INET6 if family == 6 else socket.AF_INET
    tracer = Tracer(*where(link), "--probe")
    try:
        with link.inside("first"):
            listener = socket.create_server((ip, OPEN), family=kind)
        with listener, link.inside("client"):
            client = socket.create_connection((ip, OPEN), DEADLINE_S)
            accepted, _ = listener.accept()
        with client, accepted:
            accepted.sendall(b"greeting")
            assert client.recv(100) == b"greeting"
            client.sendall(b"ELSEWHERE")
            expect_reset(client)
        entry, last = amended(tracer, ip)
    finally:
        status = tracer.stop()
    assert status == 0
    first, second = (mac_of(link, role, "e0") for role in ("first", "second"))
    assert entry["authors"][0]["author"] in ("injector", "second-host")
    assert entry["authors"][0]["probability"] < 0.9
    assert last["origin"] == "forged"
    assert last["authors"][0]["author"] == "second-host"
    assert asked(last)["rule"] == "asked-two-holders"
    assert set(asked(last)["values"]["macs"]) == {first, second}
    assert asked(last)["text"].endswith(f" say to have {ip}; the RST came from {second}")
