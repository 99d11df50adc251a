"""`rsttrace locate` on real paths: real routers, real forgers, and traceroute and mtr beside it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest

from rsttrace.demo.lab import Lab
from rsttrace.enrich.holders import QUESTIONS, find_holders
from rsttrace.enrich.path import WINDOW, find_path
from rsttrace.enrich.replay import replay
from rsttrace.enrich.target import Limits, resolve
from rsttrace.render.schema import schema_text
from tests.lab.harness import (
    DEADLINE_S,
    Fence,
    Json,
    Tracer,
    expect_reset,
    mac_of,
    out_rsts,
    poll_until,
    skip_without,
    tracing,
)

ROUTERS = 5
SERVER = ("10.80.99.1", "fd80:99::1")
PORT, SHUT = 8080, 8081
PEER = f"{SERVER[0]}:{PORT}", f"[{SERVER[1]}]:{PORT}"
GATEWAY_MAC = "00:d0:f8:22:33:44"
BOX = [sys.executable, str(Path(__file__).parent / "box.py")]
FAMILIES = pytest.mark.parametrize("family", [4, 6], ids=["v4", "v6"])

SERVER_CODE = f"""
import socket, threading
listener = socket.create_server(("::", {PORT}), family=socket.AF_INET6, dualstack_ipv6=True)
print("serving", flush=True)
def serve(sock):
    try:
        while data := sock.recv(4096):
            if data == b"hello":  # to a trigger an answer could be faster than the reset
                sock.sendall(b"heard")
    except OSError:
        pass
    sock.close()
while True:
    sock, _ = listener.accept()
    threading.Thread(target=serve, args=(sock,), daemon=True).start()
"""


def near(number: int, family: int = 4) -> str:
    """The address with which router `number` answers: the one of its link towards the client."""
    return f"10.80.{number}.2" if family == 4 else f"fd80:{number}::2"


def build(lab: Lab) -> None:
    """client - r1 - … - r5 - server, both families; link n is 10.80.n.0/24 and fd80:n::/64."""
    path = ["client", *(f"r{number}" for number in range(1, ROUTERS + 1)), "server"]
    lab.add(*path)
    for role in path[1:-1]:
        lab.router(role)
        # Linux answers an address with an ICMP error once a second: tests ask more often
        lab.sysctl(role, net__ipv4__icmp_ratelimit=0, net__ipv6__icmp__ratelimit=0)
    for link, (left, right) in enumerate(zip(path, path[1:]), 1):
        macs = {"b_mac": GATEWAY_MAC} if link == 1 else {}
        lab.link(left, f"e{link}", right, f"w{link}", **macs)
        lab.addresses(left, f"e{link}", f"10.80.{link}.1/24", f"fd80:{link}::1/64")
        lab.addresses(right, f"w{link}", f"10.80.{link}.2/24", f"fd80:{link}::2/64")
    lab.addresses("server", "lo", f"{SERVER[0]}/32", f"{SERVER[1]}/128")
    for index, role in enumerate(path):
        if role != "server":
            lab.route(
                role,
                f"{SERVER[0]}/32 via 10.80.{index + 1}.2",
                f"{SERVER[1]}/128 via fd80:{index + 1}::2",
            )
        if index > 1:
            lab.route(role, f"10.80.1.0/24 via 10.80.{index}.1", f"fd80:1::/64 via fd80:{index}::1")


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A path of five routers. Each resets those who say FIXED-n, each copies the TTL for COPY-n."""
    with Lab("rstloc") as made:
        build(made)
        made.spawn("server", [sys.executable, "-c", SERVER_CODE], ready="serving")
        for number in range(1, ROUTERS + 1):
            made.spawn(f"r{number}", [*BOX, str(number)], ready="watching")
        yield made


@pytest.fixture(scope="module")
def witness(lab: Lab) -> Iterator[Tracer]:
    """A tracer that sees the client as a machine of its own."""
    made = Tracer("--viewpoint", "netns", "--netns", lab.name("client"), "--explain")
    try:
        yield made
    finally:
        made.stop()


def command(lab: Lab, *arguments: str) -> list[str]:
    netns = lab.name("client")
    return [sys.executable, "-m", "rsttrace", "locate", "--netns", netns, *arguments]


def run(
    lab: Lab, *arguments: str, stdin: str | None = None, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(lab, *arguments),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        input=stdin,
        env=env,
    )


VALIDATOR = jsonschema.Draft202012Validator(json.loads(schema_text()))


def found(lab: Lab, *arguments: str, stdin: str | None = None) -> Json:
    """What `locate -o json` says, checked against the schema."""
    done = run(lab, "-o", "json", *arguments, stdin=stdin)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    made = json.loads(line)
    VALIDATOR.validate(made)
    path: Json = made["path"]
    return path


def address(path: Json, number: int) -> list[str]:
    ips: list[str] = path["hops"][number - 1]["ips"]
    return ips


def provoke(lab: Lab, word: str, family: int) -> int:
    """An ordinary connection that says a word and is reset; its port here."""
    with lab.inside("client"):
        sock = socket.create_connection((SERVER[family == 6], PORT), DEADLINE_S)
    with sock:
        sock.sendall(b"hello")
        assert sock.recv(100) == b"heard"
        port: int = sock.getsockname()[1]
        sock.sendall(word.encode())
        expect_reset(sock)
    return port


def forged_entry(lab: Lab, witness: Tracer, word: str, family: int) -> Json:
    """Provoke a reset and take what the tracer says of it."""
    witness.forget()
    port = provoke(lab, word, family)
    netns = lab.inode("client")

    def seen() -> list[Json]:
        entries = witness.of(netns)
        return [e for e in entries if e["direction"] == "received" and e["local"]["port"] == port]

    witness.wait_for(lambda: bool(seen()), "the reset")
    return seen()[0]


@FAMILIES
@pytest.mark.parametrize("number", range(1, ROUTERS + 1))
def test_the_right_hop(number: int, family: int, lab: Lab, witness: Tracer) -> None:
    """A forger in each router in turn, from the kernel's hook to the name of the router."""
    entry = forged_entry(lab, witness, f"FIXED-{number}", family)
    # a box that is one router from the peer leaves little evidence where there are no IP IDs
    assert entry["origin"] == "forged" or (family, number) in ((6, 4), (6, 5))
    assert entry["origin"] in ("forged", "inconclusive")
    assert entry["hops"]["rst"] == number - 1
    path = found(lab, "--entry", "-", stdin=json.dumps(entry) + "\n")
    assert path["entry"] == entry["id"]
    assert path["peer"] == {"ip": SERVER[family == 6], "port": PORT}
    assert path["distance"] == ROUTERS + 1
    assert [hop["ips"] for hop in path["hops"]] == [
        [near(n, family)] for n in range(1, ROUTERS + 1)
    ]
    placement = path["placement"]
    assert (placement["hop"], placement["sure"]) == (number, "likely")
    doubt = any("inconclusive" in note for note in placement["notes"])
    assert doubt == (entry["origin"] != "forged")
    before = near(number - 1, family) if number > 1 else "this host"
    after = near(number + 1, family) if number < ROUTERS else SERVER[family == 6]
    assert placement["text"] == (
        f"hop {number}, {near(number, family)}, between {before} and {after}"
    )


@FAMILIES
@pytest.mark.parametrize("mode", ["FIXED", "COPY"])
@pytest.mark.parametrize("number", range(1, ROUTERS + 1))
def test_a_replay_proves_the_hop(number: int, mode: str, family: int, lab: Lab) -> None:
    """Also where the box copies TTLs, and where its own reset dies on the way to us."""
    path = found(lab, PEER[family == 6], "--replay", "--data", f"x {mode}-{number} y")
    placement, attempts = path["replay"]["placement"], path["replay"]["attempts"]
    assert (placement["hop"], placement["sure"]) == (number, "proved")
    assert near(number, family) in placement["text"]
    lowest = min(a["ttl"] for a in attempts if a["reset_ttl"] is not None)
    if mode == "FIXED":
        assert lowest == number
    else:
        assert lowest == (2 * number - 1 if 2 * number - 1 <= ROUTERS + 1 else 54)
    assert len(attempts) <= ROUTERS + 1 + 1 + 3 * 2


def test_a_copier_is_not_taken_at_its_ttl(lab: Lab, witness: Tracer) -> None:
    """A copier at hop 2 looks as if it was at hop 3: the doubt is said."""
    entry = forged_entry(lab, witness, "COPY-2", 4)
    assert entry["hops"]["rst"] == 2
    path = found(lab, "--hops", "2", PEER[0])
    assert path["placement"]["hop"] == 3
    assert any(f"it is hop 2, {near(2)} instead" in n for n in path["placement"]["notes"])


def test_copied_from_the_peer(lab: Lab) -> None:
    """A reset with the peer's own hop count cannot be placed, and that is said."""
    path = found(lab, "--hops", str(ROUTERS), PEER[0])
    assert (path["placement"]["hop"], path["placement"]["sure"]) == (None, "unknown")
    assert "as the peer's own packets do" in path["placement"]["text"]
    path = found(lab, "--hops", "40", PEER[0])
    assert (path["placement"]["hop"], path["placement"]["sure"]) == (None, "unknown")
    assert "more than from the peer itself" in path["placement"]["text"]


def test_a_firewall_that_resets_what_it_forwards(lab: Lab) -> None:
    """nftables' REJECT sees only what is forwarded: one TTL more, and still the same hop."""
    lab.nft(
        "r3",
        "table inet t {\nchain f {\ntype filter hook forward priority 0\n"
        f"tcp dport {PORT} @th,256,64 0x534543524554212e reject with tcp reset\n}}\n}}\n",
    )
    try:
        path = found(lab, PEER[0], "--replay", "--data", "SECRET!.")
    finally:
        lab.exec("r3", ["nft", "delete", "table", "inet", "t"])
    placement = path["replay"]["placement"]
    assert (placement["hop"], placement["sure"]) == (3, "proved")
    assert any("acts on what it forwards" in note for note in placement["notes"])


def test_bytes_that_provoke_nothing(lab: Lab) -> None:
    path = found(lab, PEER[0], "--replay", "--data", "harmless", "--timeout", "0.5")
    placement = path["replay"]["placement"]
    assert (placement["hop"], placement["sure"]) == (None, "unknown")
    assert "provoked no reset though they reached the peer" in placement["text"]
    ttls = [a["ttl"] for a in path["replay"]["attempts"]]
    assert ttls == [*range(1, ROUTERS + 2), 64]
    exceeded = [a["exceeded"] for a in path["replay"]["attempts"]]
    assert exceeded == [*(near(n) for n in range(1, ROUTERS + 1)), None, None]


@FAMILIES
def test_a_silent_hop(family: int, lab: Lab) -> None:
    """Router 3 sends no ICMP: its place is named all the same, its neighbours have addresses."""
    lab.nft(
        "r3",
        "table inet t {\nchain o {\ntype filter hook output priority 0\n"
        "icmp type time-exceeded drop\nicmpv6 type time-exceeded drop\n}\n}\n",
    )
    try:
        path = found(lab, PEER[family == 6], "--hops", "2")
    finally:
        lab.exec("r3", ["nft", "delete", "table", "inet", "t"])
    assert address(path, 3) == []
    assert address(path, 2) == [near(2, family)]
    assert address(path, 4) == [near(4, family)]
    placement = path["placement"]
    assert placement["hop"] == 3
    assert placement["text"] == f"hop 3, between {near(2, family)} and {near(4, family)}"
    assert any("answers no probe" in note for note in placement["notes"])


def test_a_hop_that_answers_icmp_only(lab: Lab) -> None:
    """Router 2 says nothing when TCP ends there: it is asked otherwise."""
    lab.nft(
        "r2",
        "table inet t {\nchain o {\ntype filter hook prerouting priority 0\n"
        "ip ttl 1 meta l4proto { tcp, udp } drop\n}\n}\n",
    )
    try:
        path = found(lab, PEER[0])
    finally:
        lab.exec("r2", ["nft", "delete", "table", "inet", "t"])
    assert address(path, 2) == [near(2)]
    assert {answer["method"] for answer in path["hops"][1]["answers"]} == {"icmp"}


def test_a_peer_that_drops_syns(lab: Lab) -> None:
    """ICMP finds the peer and the way where TCP gets no answer."""
    lab.nft(
        "server",
        "table inet t {\nchain i {\ntype filter hook input priority 0\n"
        f"tcp dport {SHUT} drop\n}}\n}}\n",
    )
    try:
        path = found(lab, f"{SERVER[0]}:{SHUT}", "--timeout", "0.5")
    finally:
        lab.exec("server", ["nft", "delete", "table", "inet", "t"])
    assert path["distance"] == ROUTERS + 1
    assert {answer["kind"] for answer in path["peer_hop"]["answers"]} >= {"echo"}
    assert [hop["ips"] for hop in path["hops"]] == [[near(n)] for n in range(1, ROUTERS + 1)]


def test_a_router_that_refuses(lab: Lab) -> None:
    lab.route("r3", "prohibit 10.80.98.0/24")
    for number, role in enumerate(("client", "r1", "r2"), 1):
        lab.route(role, f"10.80.98.0/24 via 10.80.{number}.2")
    path = found(lab, "10.80.98.1", "--timeout", "0.3")
    assert path["distance"] is None
    assert path["refused"]["ip"] == near(3)
    assert path["refused"]["detail"] == "administratively prohibited"
    # the kernel answers 5 of these a second (ip_error): hop 3's own may be among the rest, and what
    # comes behind it is asked until one is answered
    assert [hop["ips"] for hop in path["hops"]][:2] == [[near(1)], [near(2)]]
    assert all(hop["ips"] in ([], [near(3)]) for hop in path["hops"][2:])


def connections(lab: Lab) -> set[str]:
    """The ends of every connection that the server knows of."""
    said = lab.exec("server", ["ss", "-Htan", "sport", "=", str(PORT)])
    return {" ".join(row.split()[3:]) for row in said.splitlines() if "LISTEN" not in row}


@FAMILIES
def test_nothing_stays_behind(family: int, lab: Lab) -> None:
    """No half-open connection, no accepted one; our kernel resets what the peer answers.

    A replay's connections are ended too: those that the box reset, and those that it did not.
    """
    before = out_rsts(lab, "client")
    open_before = connections(lab)
    path = found(lab, PEER[family == 6])
    assert path["peer_hop"]["answers"][0]["kind"] == "syn-ack"
    assert out_rsts(lab, "client") > before
    poll_until(
        lambda: not lab.exec("server", ["ss", "-Htan", "state", "syn-recv"]).strip(),
        "half-open connections to go",
    )
    assert connections(lab) == open_before
    for word, sure in (("FIXED-2", "proved"), ("harmless", "unknown")):
        path = found(lab, PEER[family == 6], "--replay", "--data", word, "--timeout", "0.5")
        assert path["replay"]["placement"]["sure"] == sure
        poll_until(lambda: connections(lab) <= open_before, "the connections to end")


def test_a_running_tracer_accuses_nobody(lab: Lab, tracer: Tracer, fence: Fence) -> None:
    """The resets that probes cause are ours, for want of a socket; at the peer, the client's."""
    fence.cross(tracer)
    tracer.forget()
    found(lab, PEER[0])
    fence.cross(tracer)
    mine = tracer.of(lab.inode("client"))
    assert mine
    assert {(e["kind"], e["origin"]) for e in mine} == {("sent-passive", "local")}
    for role in ("server", *(f"r{n}" for n in range(1, ROUTERS + 1))):
        assert all(e["origin"] != "forged" for e in tracer.of(lab.inode(role)))


def test_the_gateway_and_a_shut_port(lab: Lab) -> None:
    path = found(lab, f"{SERVER[0]}:{SHUT}")
    assert path["peer_hop"]["answers"][0]["kind"] == "rst"
    assert path["next_hop"]["mac"] == GATEWAY_MAC == mac_of(lab, "r1", "w1")
    assert path["next_hop"]["vendor"] == "FUJIAN STAR TERMINAL"
    assert path["next_hop"]["ip"] == near(1)
    assert path["source"] == "10.80.1.1"


def test_next_door_and_at_home(lab: Lab) -> None:
    path = found(lab, f"{near(1)}:{SHUT}")
    assert (path["distance"], path["hops"]) == (1, [])
    path = found(lab, f"10.80.1.1:{SHUT}")
    assert (path["distance"], path["hops"]) == (1, [])


def test_the_path_has_changed(lab: Lab, witness: Tracer) -> None:
    """Between the reset and the probes, r2 begins to send the server's way round by r6."""
    entry = forged_entry(lab, witness, "FIXED-4", 4)
    lab.add("r6")
    lab.router("r6")
    lab.link("r2", "x1", "r6", "x1")
    lab.link("r6", "x2", "r3", "x2")
    lab.addresses("r2", "x1", "10.81.1.1/24")
    lab.addresses("r6", "x1", "10.81.1.2/24")
    lab.addresses("r6", "x2", "10.81.2.1/24")
    lab.addresses("r3", "x2", "10.81.2.2/24")
    lab.route("r6", f"{SERVER[0]}/32 via 10.81.2.2", "10.80.1.0/24 via 10.81.1.1")
    lab.ip("r2", f"route replace {SERVER[0]}/32 via 10.81.1.2")
    try:
        one_way = found(lab, "--entry", "-", stdin=json.dumps(entry) + "\n")
        lab.ip("r3", "route replace 10.80.1.0/24 via 10.81.2.1")
        both_ways = found(lab, "--entry", "-", stdin=json.dumps(entry) + "\n")
    finally:
        lab.ip("r2", f"route replace {SERVER[0]}/32 via {near(3)}")
        lab.ip("r3", "route replace 10.80.1.0/24 via 10.80.3.1")
    # The way there has one more, the way back has not: r4's answers come over three, as the reset
    assert one_way["distance"] == ROUTERS + 2
    assert one_way["placement"]["hop"] == 5
    assert near(4) in one_way["placement"]["text"]
    assert one_way["placement"]["sure"] == "possible"
    assert any("not symmetric" in note for note in one_way["placement"]["notes"])
    assert both_ways["placement"]["sure"] == "possible"
    assert any("the path has changed" in note for note in both_ways["placement"]["notes"])


def test_equal_ways(lab: Lab) -> None:
    """Two ways of equal cost, by ports: the hop has two addresses, and the doubt is said."""
    lab.add("twin3", "twin4")
    for role in ("twin3", "twin4"):
        lab.router(role)
        lab.sysctl(role, net__ipv4__icmp_ratelimit=0)
    ends = ("r2", "twin3", "twin4", "r5")
    for link, (left, right) in enumerate(zip(ends, ends[1:]), 1):
        lab.link(left, f"t{link}", right, f"t{link}")
        lab.addresses(left, f"t{link}", f"10.82.{link}.1/24")
        lab.addresses(right, f"t{link}", f"10.82.{link}.2/24")
    lab.route("twin3", f"{SERVER[0]}/32 via 10.82.2.2", "10.80.1.0/24 via 10.82.1.1")
    lab.route("twin4", f"{SERVER[0]}/32 via 10.82.3.2", "10.80.1.0/24 via 10.82.2.1")
    lab.sysctl("r2", net__ipv4__fib_multipath_hash_policy=1)
    lab.ip("r2", f"route replace {SERVER[0]}/32 nexthop via {near(3)} nexthop via 10.82.1.2")
    try:
        ways = {near(3), "10.82.1.2"}
        seen: set[str] = set()
        for _ in range(7):  # ports are chance: one run with ten flows misses one in 512
            path = found(lab, PEER[0], "--hops", "2", "--probes", "10")
            seen = set(address(path, 3))
            if seen == ways:
                break
        assert seen == ways
        # within one flow all probes went one way
        flows: dict[int, list[bool]] = {}
        for number in (3, 4):
            for answer in path["hops"][number - 1]["answers"]:
                twin = answer["ip"] in ("10.82.1.2", "10.82.2.2")
                flows.setdefault(answer["flow"], []).append(twin)
        assert len(flows) == 10
        assert all(sides in ([True] * 2, [False] * 2) for sides in flows.values())
    finally:
        lab.ip("r2", f"route replace {SERVER[0]}/32 via {near(3)}")
    placement = path["placement"]
    assert (placement["hop"], placement["sure"]) == (3, "possible")
    assert near(3) in placement["text"]
    assert "10.82.1.2" in placement["text"]
    assert any("the path divides" in note for note in placement["notes"])


def test_behind_nat(lab: Lab, witness: Tracer) -> None:
    """Router 2 gives the client another address; the hops behind it are named all the same."""
    lab.nft(
        "r2",
        "table ip t {\nchain p {\ntype nat hook postrouting priority 100\n"
        "ip saddr 10.80.1.0/24 oifname e3 masquerade\n}\n}\n",
    )
    lab.route("server", "10.80.3.0/24 via 10.80.6.1")
    lab.route("r5", "10.80.3.0/24 via 10.80.5.1")
    lab.route("r4", "10.80.3.0/24 via 10.80.4.1")
    try:
        entry = forged_entry(lab, witness, "FIXED-4", 4)
        path = found(lab, "--entry", "-", stdin=json.dumps(entry) + "\n")
        proof = found(lab, PEER[0], "--replay", "--data", "FIXED-4")
    finally:
        lab.exec("r2", ["nft", "delete", "table", "ip", "t"])
    assert [hop["ips"] for hop in path["hops"]] == [[near(n)] for n in range(1, ROUTERS + 1)]
    assert path["placement"]["hop"] == 4
    assert (proof["replay"]["placement"]["hop"], proof["replay"]["placement"]["sure"]) == (
        4,
        "proved",
    )


@FAMILIES
def test_as_traceroute_sees_it(family: int, lab: Lab) -> None:
    skip_without("traceroute")
    said = lab.exec(
        "client",
        ["traceroute", f"-{family}", "-n", "-T", "-p", str(PORT), "-q", "1", SERVER[family == 6]],
    )
    theirs = re.findall(r"^ *\d+  (\S+)", said, re.MULTILINE)
    path = found(lab, PEER[family == 6])
    ours = [*(hop["ips"][0] for hop in path["hops"]), path["peer_hop"]["ips"][0]]
    assert len(ours) == ROUTERS + 1
    assert ours == theirs


@FAMILIES
def test_as_mtr_sees_it(family: int, lab: Lab) -> None:
    skip_without("mtr")
    said = lab.exec(
        "client",
        ["mtr", f"-{family}", "-n", "-T", "-P", str(PORT), "-c", "1", "-C", SERVER[family == 6]],
    )
    rows = [line.split(",") for line in said.splitlines()[1:]]
    theirs = [row[5] for row in rows]
    path = found(lab, PEER[family == 6])
    assert [*(hop["ips"][0] for hop in path["hops"]), path["peer_hop"]["ips"][0]] == theirs


def test_the_picture(lab: Lab) -> None:
    """80 columns, and plain ASCII where the locale asks for it."""
    utf8 = {**os.environ, "LC_ALL": "C.UTF-8"}
    drawn = run(lab, PEER[1], "--hops", "2", env=utf8)
    plain = run(lab, PEER[1], "--hops", "2", env={**os.environ, "LC_ALL": "C"})
    assert drawn.returncode == plain.returncode == 0
    assert drawn.stderr == plain.stderr == ""
    assert plain.stdout.isascii()
    assert not drawn.stdout.isascii()
    for line in (*drawn.stdout.splitlines(), *plain.stdout.splitlines()):
        assert len(line) <= 80
    lines = plain.stdout.splitlines()
    assert lines[0].startswith(f"path to [{SERVER[1]}]:{PORT}: {ROUTERS} hops away (")
    (marked,) = [line for line in lines if line.startswith(">")]
    assert marked.split()[1:3] == ["3", near(3, 6)]
    assert f"    |  {GATEWAY_MAC} (FUJIAN STAR TERMINAL), our gateway" in lines
    assert any(line.startswith("the forged reset: hop 3, ") for line in lines)


def test_a_replay_says_first_what_it_sends(lab: Lab) -> None:
    done = run(lab, PEER[0], "--replay", "--data", "FIXED-1\x1b[31m")
    assert done.returncode == 0
    assert "\x1b" not in done.stdout + done.stderr
    assert done.stderr.startswith('replay: sending 12 bytes, "FIXED-1\\x1b[31m", to ')
    assert "connections of its own" in done.stderr
    assert "by the replay: hop 1, " in done.stdout


def test_a_replay_that_cannot_connect(lab: Lab) -> None:
    done = run(lab, f"{SERVER[0]}:{SHUT}", "--replay", "--data", "x")
    assert (done.returncode, done.stdout) == (1, "")
    assert "cannot replay: no connection to 10.80.99.1 port 8081: Connection refused" in done.stderr


def test_ctrl_c_shows_what_is_known(lab: Lab) -> None:
    """Interrupted while it waits for a peer that never answers."""
    lab.route("r5", "blackhole 10.80.97.0/24")
    for number, role in enumerate(("client", "r1", "r2", "r3", "r4"), 1):
        lab.route(role, f"10.80.97.0/24 via 10.80.{number}.2")
    # its own first probe, which the last router swallows, says that it is at work
    with lab.inside("r5"):
        watch = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
    with watch:
        watch.settimeout(DEADLINE_S)
        process = subprocess.Popen(
            command(lab, "10.80.97.1", "--timeout", "10"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            while watch.recv(100)[16:20] != socket.inet_aton("10.80.97.1"):
                pass
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=DEADLINE_S)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait()
    assert (process.returncode, err) == (0, "")
    assert "stopped early" in out


def test_somebody_nearer_answers_for_the_peer(lab: Lab) -> None:
    """Router 3 refuses in the peer's name what the peer would take; ICMP goes through."""
    lab.nft(
        "r3",
        "table inet t {\nchain f {\ntype filter hook forward priority 0\n"
        f"tcp dport {PORT} reject with tcp reset\n}}\n}}\n",
    )
    try:
        path = found(lab, PEER[0], "--hops", "2")
    finally:
        lab.exec("r3", ["nft", "delete", "table", "inet", "t"])
    assert path["peer_hop"]["back"] == [2]
    assert path["echo_hops"] == ROUTERS
    assert any("answers TCP in its name" in note for note in path["placement"]["notes"])
    assert found(lab, PEER[0])["echo_hops"] == ROUTERS


def test_names(lab: Lab, tmp_path: Path) -> None:
    """From the resolver (its hosts file), and harmless: whoever owns an address chose its name."""
    hosts = tmp_path / "hosts"
    hosts.write_text(f"{near(1)} gateway.example\n{near(2)} evil\x1b[2J.example\n")
    script = f'mount --bind {hosts} /etc/hosts && exec "$@"'
    wrapped = ["unshare", "--mount", "sh", "-c", script, "sh"]
    done = subprocess.run(
        [*wrapped, *command(lab, PEER[0], "--dns")],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert any(line.endswith("gateway.example") for line in lines)
    assert "    |  evil\\x1b[2J.example" in done.stdout.replace("\u2502", "|").splitlines()
    assert "\x1b" not in done.stdout
    assert not any("example" in line for line in run(lab, PEER[0]).stdout.splitlines())


@pytest.mark.parametrize("gives_up", [False, True], ids=["asking", "given-up"])
def test_nobody_at_that_address(gives_up: bool, lab: Lab) -> None:
    """On our own link: this host's own kernel finds nobody, and says so when it gives up."""
    peer = "10.80.1.78" if gives_up else "10.80.1.77"
    try:
        if gives_up:
            lab.sysctl(
                "client",
                net__ipv4__neigh__e1__mcast_solicit=1,
                net__ipv4__neigh__e1__retrans_time_ms=50,
            )
        path = found(lab, peer, "--timeout", "0.2")
        done = run(lab, peer, "--timeout", "0.2")
    finally:
        lab.sysctl(
            "client",
            net__ipv4__neigh__e1__mcast_solicit=3,
            net__ipv4__neigh__e1__retrans_time_ms=1000,
        )
    assert (path["distance"], path["hops"], path["peer_hop"]) == (None, [], None)
    if gives_up:
        assert path["refused"]["ip"] == path["source"]
    assert done.returncode == 0
    assert done.stdout.startswith(f"path to {peer}:80: it does not answer, not even on our link")


def sent_syns(lab: Lab) -> int:
    """How many SYNs the first router's counter saw."""
    found = re.search(r"packets (\d+)", lab.exec("r1", ["nft", "list", "table", "inet", "t"]))
    assert found is not None
    return int(found[1])


def test_the_gateway_vanishes_on_the_way(lab: Lab) -> None:
    """Then this host says "host unreachable"; the routers that had answered stay in the list."""
    count = "table inet t {\nchain i {\ntype filter hook prerouting priority 0\n%s\n}\n}\n"
    syns = count % f"tcp dport {PORT} counter"
    drop = count % f"ip daddr {SERVER[0]} drop"
    lab.nft("r1", syns)
    lab.nft(f"r{ROUTERS}", drop)
    lab.sysctl(
        "client", net__ipv4__neigh__e1__mcast_solicit=1, net__ipv4__neigh__e1__retrans_time_ms=50
    )
    try:
        process = subprocess.Popen(
            command(lab, PEER[0], "-o", "json", "--timeout", "1"), stdout=subprocess.PIPE, text=True
        )
        # one with a whole TTL, and three flows to each of the first window's places
        poll_until(lambda: sent_syns(lab) > Limits.probes * WINDOW, "the SYNs")
        lab.sysctl("r1", net__ipv4__conf__w1__arp_ignore=8)  # it answers no ARP request
        lab.exec("client", ["ip", "neigh", "flush", "dev", "e1"])
        out, _ = process.communicate(timeout=DEADLINE_S)
    finally:
        process.kill()
        process.wait()
        lab.sysctl("r1", net__ipv4__conf__w1__arp_ignore=0)
        lab.sysctl(
            "client",
            net__ipv4__neigh__e1__mcast_solicit=3,
            net__ipv4__neigh__e1__retrans_time_ms=1000,
        )
        for role in ("r1", f"r{ROUTERS}"):
            lab.exec(role, ["nft", "delete", "table", "inet", "t"])
    path = json.loads(out)["path"]
    shown = [hop["ips"] for hop in path["hops"]]
    assert shown == [[near(number)] for number in range(1, ROUTERS)]
    assert path["refused"] is None


def test_no_way_there(lab: Lab) -> None:
    done = run(lab, "10.99.0.1")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[0] == (
        "rsttrace: there is no way to 10.99.0.1: Network is unreachable"
    )


def test_our_own_firewall_is_named(lab: Lab) -> None:
    lab.nft(
        "client",
        "table inet t {\nchain o {\ntype filter hook output priority 0\n"
        f"tcp dport {SHUT} drop\n}}\n}}\n",
    )
    try:
        done = run(lab, f"{SERVER[0]}:{SHUT}")
    finally:
        lab.exec("client", ["nft", "delete", "table", "inet", "t"])
    assert (done.returncode, done.stdout) == (1, "")
    assert "this host's firewall does not let TCP probes out" in done.stderr


@pytest.fixture
def crowded() -> Iterator[None]:
    """Every descriptor up to 1,024 is in use: select(2) knows none from there on."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
    with contextlib.ExitStack() as held:
        while held.enter_context(open("/dev/null", "rb")).fileno() < 1024:
            pass
        yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("crowded")
def test_many_open_files(lab: Lab) -> None:
    """In one process, as beside a trace whose node has many namespaces."""
    with lab.inside("client"):
        limits, target = Limits(), resolve(SERVER[0], PORT)
        path = find_path(target, limits)
        attempts = replay(target, b"FIXED-2", limits, path.distance)
        holders, asked = find_holders(near(1), socket.if_nametoindex("e1"))
    assert [hop.ips for hop in path.hops] == [(near(number),) for number in range(1, ROUTERS + 1)]
    assert min(attempt.ttl for attempt in attempts if attempt.reset_ttl is not None) == 2
    assert (list(holders), asked) == ([GATEWAY_MAC], QUESTIONS)


@FAMILIES
def test_a_replay_of_what_the_trace_saw(family: int, lab: Lab) -> None:
    """`trace --payload`, then `locate --entry --replay`: the trigger's own first bytes."""
    with_payload = ("--payload", "64", "--netns", lab.name("client"))
    tracing = Tracer("--viewpoint", "netns", *with_payload)
    try:
        provoke(lab, "FIXED-2", family)
        tracing.wait_for(
            lambda: any(e.get("origin") == "forged" for e in tracing.entries), "a forged reset"
        )
    finally:
        tracing.stop()
    forged = next(e for e in tracing.entries if e.get("origin") == "forged")
    assert forged["sent_data"] is not None, tracing.status
    assert b"FIXED-2" in bytes.fromhex(forged["sent_data"]["payload"])
    placement = found(lab, "--entry", "-", "--replay", stdin=json.dumps(forged))["replay"][
        "placement"
    ]
    assert (placement["hop"], placement["sure"]) == (2, "proved")


@FAMILIES
def test_located_while_tracing(family: int, lab: Lab) -> None:
    """`trace --locate`: the path follows the entry, once for a peer however often it is reset."""
    tracing = Tracer("--viewpoint", "netns", "--netns", lab.name("client"), "--locate")
    try:
        for _ in range(3):
            provoke(lab, "FIXED-2", family)
        tracing.wait_for(
            lambda: (
                sum(e.get("origin") == "forged" for e in tracing.entries) >= 3
                and any("path" in e for e in tracing.entries)
            ),
            "three entries and a path",
        )
    finally:
        status = tracing.stop()
    assert status == 0
    for made in tracing.entries:
        VALIDATOR.validate(made)
    (path,) = [e["path"] for e in tracing.entries if "path" in e]
    first = next(e for e in tracing.entries if e.get("origin") == "forged")
    assert path["entry"] == first["id"]
    assert path["netns"] == lab.inode("client")
    assert path["placement"]["hop"] == 2
    assert path["placement"]["text"].startswith(f"hop 2, {near(2, family)}, between ")


def test_located_before_the_end(lab: Lab) -> None:
    """With --count 1 the run waits for the path; text, below the entry."""
    where = ("--viewpoint", "netns", "--netns", lab.name("client"))
    with tracing(*where, "--origin", "forged", "--count", "1", "--locate") as process:
        provoke(lab, "FIXED-3", 4)
        out, _ = process.communicate(timeout=2 * DEADLINE_S)
    assert process.returncode == 0
    assert "    #1: where the forged reset was made\n    path to 10.80.99.1:8080: " in out
    assert f"\n    the forged reset: hop 3, {near(3)}, between {near(2)} and {near(4)}" in out


@FAMILIES
def test_the_picture_of_an_entry(family: int, lab: Lab) -> None:
    """`--explain` draws the way from what the entry knows: no probe is sent."""
    options = ("--viewpoint", "netns", "--netns", lab.name("client"), "--origin", "forged")
    plain = {**os.environ, "LC_ALL": "C"}
    with tracing(*options, "--count", "1", "--explain", env=plain) as process:
        port = provoke(lab, "FIXED-3", family)
        out, _ = process.communicate(timeout=2 * DEADLINE_S)
    assert process.returncode == 0
    lines = [line[4:] for line in out.splitlines()]
    start = next(at for at, line in enumerate(lines) if line.startswith("    o  "))
    end = next(at for at, line in enumerate(lines) if line.startswith("    6  "))
    here = "10.80.1.1" if family == 4 else "[fd80:1::1]"
    there = SERVER[0] if family == 4 else f"[{SERVER[1]}]"
    assert lines[start] == f"    o  {here}:{port} (this host, netns {lab.name('client')})"
    gateway = f"    1  {GATEWAY_MAC} (FUJIAN STAR TERMINAL) = {near(1, family)}, our gateway, on e1"
    assert " ".join(" ".join(lines[start + 1 : start + 3]).split()).startswith(
        " ".join(gateway.split())
    )
    (device,) = [at for at, line in enumerate(lines) if line.startswith(">")]
    assert start < device < end
    assert lines[device - 1] == "    |  1 hop"
    assert lines[device].startswith(">   3  made in the name of the server: FORGED ")
    assert lines[device + 1].startswith("    |  it passed 2 routers on its way to us")
    assert lines[end - 1] == "    |  2 hops"
    assert lines[end] == f"    6  {there}:{PORT}, the server"
    assert all(len(line) + 4 <= 80 and line.isascii() for line in lines[start : end + 1])
