"""`rsttrace compare` on real captures of both ends: the stories of the incident, and traps."""

from __future__ import annotations

import ipaddress
import json
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from rsttrace.demo.lab import Lab
from tests.lab import longpath
from tests.lab.harness import Json, Tracer, expect_reset, linger_zero
from tests.lab.longpath import PORT, ROUTERS, V4, V6, captured, connection, exchange

SHIFT_NS = 3_000_000_000
FAMILIES = pytest.mark.parametrize("family", [V4, V6], ids=["v4", "v6"])
PARTNERS = 7
"""Routers between r2 and the second host with the server's address: it is farther away."""


class Scene(NamedTuple):
    """Captures of one lab, and the client's port in each thing that happened."""

    folder: Path
    ports: dict[str, int]

    def file(self, name: str) -> Path:
        return self.folder / f"{name}.pcap"


def rewritten(
    source: Path, target: Path, change: Callable[[int, int, bytes], list[tuple[int, bytes]]]
) -> Path:
    """A pcap file (microseconds, as tcpdump writes it) with each packet changed, as editcap does.

    `change` takes a frame number, its time in ns and its bytes, and gives what to write instead.
    """
    data = source.read_bytes()
    made, at, frame = data[:24], 24, 0
    while at < len(data):
        seconds, rest, kept, length = struct.unpack_from("<IIII", data, at)
        packet = data[at + 16 : at + 16 + kept]
        at, frame = at + 16 + kept, frame + 1
        for time_ns, changed in change(frame, seconds * 10**9 + rest * 1000, packet):
            seconds, rest = divmod(time_ns, 10**9)
            made += struct.pack("<IIII", seconds, rest // 1000, len(changed), length) + changed
    target.write_bytes(made)
    return target


def shifted(source: Path, target: Path) -> Path:
    return rewritten(source, target, lambda _, time_ns, data: [(time_ns + SHIFT_NS, data)])


def compare(a: Path, b: Path, *options: str) -> tuple[Json, list[Json]]:
    """(the comparison, the entries)."""
    done = subprocess.run(
        [sys.executable, "-m", "rsttrace", "compare", "-o", "json", *options, str(a), str(b)],
        capture_output=True,
        text=True,
        check=True,
    )
    head, *rest = [json.loads(line) for line in done.stdout.splitlines()]
    return head["comparison"], rest


def resets_of(head: Json, port: int) -> dict[tuple[str, str], list[Json]]:
    """The resets of a connection, by the client's port: by point and direction."""
    found: dict[tuple[str, str], list[Json]] = {}
    for flow in head["flows"]:
        for reset in flow["resets"]:
            if port in (reset["src"]["port"], reset["dst"]["port"]):
                found.setdefault((reset["point"], reset["direction"]), []).append(reset)
    return found


def entries_of(entries: list[Json], port: int, direction: str = "received") -> list[Json]:
    return [
        entry
        for entry in entries
        if port in (entry["local"]["port"], entry["remote"]["port"])
        and entry["direction"] == direction
    ]


def accused(head: Json) -> set[int]:
    """The client's ports of connections with a RST that was never sent."""
    return {
        flow[point][0]["port"]
        for flow in head["flows"]
        for reset in flow["resets"]
        for point in [reset["point"].lower()]
        if reset["fate"] == "never-sent"
    }


# ---- what happens ----


def provoke(lab: Lab, family: int, keyword: str) -> int:
    """A request that a box answers; the client's port."""
    with connection(lab, family) as (client, accepted):
        exchange(client, accepted)
        client.sendall(keyword.encode() + b"?db=shop")
        expect_reset(client)
        expect_reset(accepted)
        return int(client.getsockname()[1])


def answered_with_keyword(lab: Lab, family: int, keyword: str) -> int:
    """An answer that a box turns into a RST."""
    with connection(lab, family) as (client, accepted):
        exchange(client, accepted)
        client.sendall(b"question")
        assert accepted.recv(99) == b"question"
        accepted.sendall(keyword.encode() + b" is the answer")
        expect_reset(client)
        return int(client.getsockname()[1])


def second_host(lab: Lab, family: int) -> int:
    """In the middle of a connection, the way to the server's address leads to another host."""
    bits = 32 if family == V4 else 128
    route = f"{longpath.server_ip(family)}/{bits}"
    with connection(lab, family) as (client, accepted):
        exchange(client, accepted)
        lab.route("r2", f"{route} via {partner_ip(1, family)}")
        try:
            client.sendall(b"question")
            expect_reset(client)
        finally:
            lab.ip("r2", f"route del {route} via {partner_ip(1, family)}")
        linger_zero(accepted)  # its own end knows nothing yet: an honest RST
        return int(client.getsockname()[1])


def honest_linger(lab: Lab, family: int) -> int:
    with connection(lab, family) as (client, accepted):
        exchange(client, accepted)
        linger_zero(client)
        port = int(client.getsockname()[1])
        client.close()
        expect_reset(accepted)
        return port


def honest_unread(lab: Lab, family: int) -> int:
    with connection(lab, family) as (client, accepted):
        exchange(client, accepted)
        client.sendall(b"never read")
        accepted.recv(1)
        accepted.close()
        expect_reset(client)
        return int(client.getsockname()[1])


def honest_no_socket(lab: Lab, family: int) -> int:
    """Data for a socket that is closed: R, IP ID 0."""
    with connection(lab, family) as (client, accepted):
        exchange(client, accepted)
        linger_zero(accepted)
        port = int(client.getsockname()[1])
        accepted.close()
        expect_reset(client)
    with lab.inside("client"), socket.socket(family) as other:
        other.settimeout(20)
        assert other.connect_ex((longpath.server_ip(family), PORT + 1)) != 0
    return port


def bulk(lab: Lab, family: int) -> int:
    """A megabyte both ways in large buffers, then an honest reset."""
    with connection(lab, family) as (client, accepted):
        for sender, receiver in ((client, accepted), (accepted, client)):
            sender.setblocking(False)
            sent = got = 0
            data = bytes(1 << 20)
            while got < len(data):
                if sent < len(data):
                    with suppress(BlockingIOError):
                        sent += sender.send(data[sent : sent + 65536])
                if sent > got:
                    got += len(receiver.recv(65536))
            sender.settimeout(20)
        linger_zero(accepted)
        port = int(client.getsockname()[1])
        accepted.close()
        expect_reset(client)
        return port


HONEST: dict[str, Callable[[Lab, int], int]] = {
    "linger": honest_linger,
    "unread": honest_unread,
    "no-socket": honest_no_socket,
    "bulk": bulk,
}


def partner_ip(link: int, family: int) -> str:
    """The far address of a link of the leased line: link 1 leaves r2."""
    return f"10.73.{link}.2" if family == V4 else f"fd73:{link}::2"


def leased_line(lab: Lab) -> None:
    """r2 - p1 … - second: a host with the server's address, which hears nothing of its own."""
    nodes = ["r2", *(f"p{number}" for number in range(1, PARTNERS + 1)), "second"]
    lab.add(*nodes[1:])
    for link, (left, right) in enumerate(zip(nodes, nodes[1:]), 1):
        left_if = "partner" if left == "r2" else "out"
        lab.link(left, left_if, right, "in")
        lab.addresses(left, left_if, f"10.73.{link}.1/24", f"fd73:{link}::1/64")
        lab.addresses(right, "in", f"10.73.{link}.2/24", f"fd73:{link}::2/64")
        lab.route(right, f"default via 10.73.{link}.1", f"default via fd73:{link}::1")
    for link, node in enumerate(nodes[1:-1], 2):
        lab.router(node)
        lab.route(
            node,
            f"{longpath.server_ip(V4)}/32 via {partner_ip(link, V4)}",
            f"{longpath.server_ip(V6)}/128 via {partner_ip(link, V6)}",
        )
    lab.addresses("second", "lo", f"{longpath.server_ip(V4)}/32", f"{longpath.server_ip(V6)}/128")


def both_key(router: int) -> str:
    return f"GET /r{router}?"


@contextmanager
def both_traced(lab: Lab, folder: Path) -> Iterator[None]:
    """A live tracer at each end, as on two machines: JSON lines as client.jsonl, server.jsonl."""
    tracers = {
        role: Tracer("--viewpoint", "netns", "--netns", str(lab.inode(role)), "--summary")
        for role in ("client", "server")
    }
    yield
    for role, tracer in tracers.items():
        tracer.wait_for(partial(fence_seen, tracer), "the fence")
        assert tracer.stop() == 0
        text = "".join(json.dumps(entry) + "\n" for entry in tracer.entries)
        (folder / f"{role}.jsonl").write_text(text)


def fence_seen(tracer: Tracer) -> bool:
    return any(
        longpath.FENCE_PORT in (entry["local"]["port"], entry["remote"]["port"])
        for entry in list(tracer.entries)
        if "id" in entry
    )


@pytest.fixture(scope="module", params=[V4, V6], ids=["v4", "v6"])
def scene(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """Everything happens once, captured and traced at both ends and captured at r4."""
    folder = tmp_path_factory.mktemp("scene")
    family = request.param
    ports: dict[str, int] = {}
    with Lab("rstcmp") as lab:
        longpath.build(lab)
        leased_line(lab)
        for router in range(1, ROUTERS + 1):
            more = (
                {"copy": "COPY/TTL"} if router == 3 else {"swap": "RESULT42"} if router == 5 else {}
            )
            longpath.middlebox(lab, f"r{router}", both=both_key(router), **more)
        places = {"client": ("client", "eth0"), "server": ("server", "eth0"), "r4": ("r4", "in")}
        with both_traced(lab, folder), captured(lab, folder, places, family):
            for router in range(1, ROUTERS + 1):
                ports[f"both-{router}"] = provoke(lab, family, both_key(router))
            ports["swap"] = answered_with_keyword(lab, family, "RESULT42")
            ports["copy"] = provoke(lab, family, "COPY/TTL")
            ports["second"] = second_host(lab, family)
            for name, act in HONEST.items():
                ports[name] = act(lab, family)
    return Scene(folder, ports)


@pytest.fixture(scope="module")
def found(scene: Scene) -> tuple[Json, list[Json]]:
    """The comparison of both ends, with B's clock 3 s ahead."""
    late = shifted(scene.file("server"), scene.folder / "server-late.pcap")
    return compare(scene.file("client"), late)


# ---- the stories ----


@pytest.mark.parametrize("router", range(1, ROUTERS + 1))
def test_a_firewall_that_resets_both_ends(
    router: int, scene: Scene, found: tuple[Json, list[Json]]
) -> None:
    """The first story, with the firewall at each hop in turn."""
    head, entries = found
    port = scene.ports[f"both-{router}"]
    resets = resets_of(head, port)
    assert {key: len(rows) for key, rows in resets.items()} == {
        ("A", "received"): 1,
        ("B", "received"): 1,
    }
    for (reset,) in resets.values():
        assert reset["fate"] == "never-sent"
        place = reset["position"]
        assert (place["hops_a"], place["hops_b"]) == (router - 1, ROUTERS - router)
        assert (place["hops_between"], place["sure"], place["kind"]) == (
            ROUTERS,
            "likely",
            "router",
        )
    assert resets["A", "received"][0]["trigger_arrived"] is False
    for entry in entries_of(entries, port):
        assert (entry["origin"], entry["confidence"]) == ("forged", 1.0)
        (proof,) = [item for item in entry["evidence"] if item["proof"]]
        assert proof["rule"] == "other-end"


def test_a_second_host_with_the_servers_address(
    scene: Scene, found: tuple[Json, list[Json]]
) -> None:
    """The second story: an honest answer, but not the server's."""
    head, entries = found
    port = scene.ports["second"]
    reset, *more = resets_of(head, port)["A", "received"]
    assert (reset["fate"], reset["trigger_arrived"]) == ("never-sent", False)
    assert [item["fate"] for item in more] == ["left"] * len(more)  # the server's own, later
    place = reset["position"]
    assert (place["hops_a"], place["hops_b"], place["kind"]) == (PARTNERS + 2, None, "elsewhere")
    (entry,) = [e for e in entries_of(entries, port) if e["frame"] == reset["frame"]]
    assert entry["origin"] == "forged"
    assert "duplicate-address" in entry["findings"]


def test_a_swapped_answer(scene: Scene, found: tuple[Json, list[Json]]) -> None:
    """The third story: the server's answer left it, and a RST with its IP ID arrived."""
    head, entries = found
    port = scene.ports["swap"]
    reset = resets_of(head, port)["A", "received"][0]
    assert (reset["fate"], reset["trigger_arrived"]) == ("never-sent", True)
    family = next(entry["family"] for entry in entries_of(entries, port))
    assert reset["swapped_frame"] is not None
    assert reset["swapped_sure"] is (family == 4)
    place = reset["position"]
    assert (place["hops_a"], place["hops_b"], place["sure"]) == (None, None, "unknown")
    _, answer = frame_of(scene.file("server"), reset["swapped_frame"])
    assert b"RESULT42 is the answer" in answer


def frame_of(path: Path, number: int) -> tuple[int, bytes]:
    """A frame's time in ns and its bytes, counted from 1."""
    frames: list[tuple[int, bytes]] = []

    def keep(frame: int, time_ns: int, data: bytes) -> list[tuple[int, bytes]]:
        frames.append((time_ns, data))
        return []

    rewritten(path, path.with_suffix(".copy"), keep)
    return frames[number - 1]


def test_a_copied_ttl(scene: Scene, found: tuple[Json, list[Json]]) -> None:
    head, _ = found
    for rows in resets_of(head, scene.ports["copy"]).values():
        for reset in rows:
            assert reset["fate"] == "never-sent"
            place = reset["position"]
            assert (place["hops_a"], place["hops_b"], place["kind"]) == (2, ROUTERS - 3, "copier")


# ---- and what must not be said ----


def test_honest_resets_are_the_peers(scene: Scene, found: tuple[Json, list[Json]]) -> None:
    head, entries = found
    for name in HONEST:
        port = scene.ports[name]
        for (_, direction), rows in resets_of(head, port).items():
            for reset in rows:
                assert reset["fate"] == ("left" if direction == "received" else "arrived"), name
        assert {e["origin"] for e in entries_of(entries, port)} == {"peer"}
    forged = {port for name, port in scene.ports.items() if name not in HONEST}
    assert accused(head) == forged
    assert {e["origin"] for e in entries if e["direction"] == "sent"} == {"local"}


def test_clocks_three_seconds_apart(found: tuple[Json, list[Json]]) -> None:
    clocks = found[0]["clocks"]
    assert clocks["lower_ns"] <= SHIFT_NS <= clocks["upper_ns"]
    assert abs(clocks["offset_ns"] - SHIFT_NS) <= clocks["error_ns"]
    assert clocks["steady"] is True
    assert (found[0]["ab"]["hops"], found[0]["ba"]["hops"]) == (ROUTERS, ROUTERS)


def test_packets_lost_are_those_that_the_boxes_dropped(
    scene: Scene, found: tuple[Json, list[Json]]
) -> None:
    head, _ = found
    # each keyword once, and the question that the second host got (its retransmissions: none)
    assert head["ab"]["lost"] == ROUTERS + 2
    assert head["ba"]["lost"] >= 1  # the swapped answer, and its retransmissions if there were any
    assert head["ab"]["injected"] == head["ba"]["injected"] == 0


def test_captured_twice(scene: Scene) -> None:
    """Each packet is in B's file twice, a microsecond apart, as from a mirror port."""
    double = rewritten(
        scene.file("server"),
        scene.folder / "double.pcap",
        lambda _, time_ns, data: [(time_ns, data), (time_ns + 1000, data)],
    )
    head, _ = compare(scene.file("client"), double)
    forged = {port for name, port in scene.ports.items() if name not in HONEST}
    assert accused(head) == forged
    assert head["ab"]["injected"] == head["ba"]["injected"] == 0


def first_reset_ns(scene: Scene) -> int:
    """When the first forged RST came in at A."""
    head, _ = compare(scene.file("client"), scene.file("server"))
    frame = resets_of(head, scene.ports["both-1"])["A", "received"][0]["frame"]
    return frame_of(scene.file("client"), frame)[0]


def test_a_capture_that_begins_late_accuses_nobody_of_before(scene: Scene) -> None:
    moment = first_reset_ns(scene)
    late = rewritten(
        scene.file("server"),
        scene.folder / "begins-late.pcap",
        lambda _, time_ns, data: [(time_ns, data)] if time_ns > moment + 1_000_000 else [],
    )
    head, entries = compare(scene.file("client"), late)
    port = scene.ports["both-1"]
    resets = [reset for rows in resets_of(head, port).values() for reset in rows]
    assert resets
    assert "A" in {reset["point"] for reset in resets}
    assert {reset["fate"] for reset in resets} == {"unknown"}
    assert all(reset["why"] for reset in resets)
    assert not [e for e in entries_of(entries, port) if any(i["proof"] for i in e["evidence"])]
    assert scene.ports["both-6"] in accused(head)


def test_a_capture_that_ends_early_accuses_nobody_of_after(scene: Scene) -> None:
    moment = first_reset_ns(scene)
    early = rewritten(
        scene.file("server"),
        scene.folder / "ends-early.pcap",
        lambda _, time_ns, data: [(time_ns, data)] if time_ns < moment - 20_000 else [],
    )
    head, entries = compare(scene.file("client"), early)
    assert accused(head) == set()
    (reset,) = resets_of(head, scene.ports["both-1"])["A", "received"]
    assert reset["fate"] == "unknown"
    assert not [e for e in entries if any(i["rule"] == "other-end" for i in e["evidence"])]


def test_a_capture_that_lost_packets_accuses_nobody(scene: Scene) -> None:
    """One in three is missing at B, as where the capture's buffer was too small."""
    holes = rewritten(
        scene.file("server"),
        scene.folder / "holes.pcap",
        lambda frame, time_ns, data: [(time_ns, data)] if frame % 3 else [],
    )
    head, _ = compare(scene.file("client"), holes)
    # Seen from B nothing is missing at A: what A never sent is still proved. From A it is not.
    assert not [
        reset
        for flow in head["flows"]
        for reset in flow["resets"]
        if reset["point"] == "A" and reset["fate"] == "never-sent" and not reset["swapped_sure"]
    ]


def test_a_point_in_the_middle(scene: Scene) -> None:
    """From the client to r4: what is beyond is told apart from what is between."""
    head, entries = compare(scene.file("client"), scene.file("r4"))
    assert head["ab"]["hops"] == 3
    for router in range(1, ROUTERS + 1):
        (reset,) = resets_of(head, scene.ports[f"both-{router}"])["A", "received"]
        if router < 4:
            assert reset["fate"] == "never-sent"
            assert (reset["position"]["hops_a"], reset["position"]["hops_b"]) == (
                router - 1,
                3 - router,
            )
        elif router > 4:
            assert (reset["fate"], reset["at_sender"]) == ("left", False)
            proofs = [
                item
                for entry in entries_of(entries, scene.ports[f"both-{router}"])
                if entry["file"].endswith("client.pcap")
                for item in entry["evidence"]
                if item["proof"]
            ]
            assert proofs == []


def test_logs_of_both_ends(scene: Scene) -> None:
    """JSON lines instead of captures: what was sent is proved, what was not is likely."""
    head, entries = compare(scene.folder / "client.jsonl", scene.folder / "server.jsonl")
    assert head["a"]["log"] is head["b"]["log"] is True
    assert head["ab"] is None
    for name in HONEST:
        got = entries_of(entries, scene.ports[name])
        assert {e["origin"] for e in got} == {"peer"}
        assert all(any(i["rule"] == "other-end" and i["proof"] for i in e["evidence"]) for e in got)
    forged = {port for name, port in scene.ports.items() if name not in HONEST}
    assert accused(head) <= forged
    assert scene.ports["both-2"] in accused(head)
    for entry in entries_of(entries, scene.ports["both-2"]):
        assert entry["origin"] == "forged"
        assert not any(item["proof"] for item in entry["evidence"])


def test_a_capture_and_a_log(scene: Scene) -> None:
    head, entries = compare(scene.file("client"), scene.folder / "server.jsonl")
    assert (head["a"]["log"], head["b"]["log"]) == (False, True)
    got = [
        entry
        for entry in entries_of(entries, scene.ports["unread"])
        if (entry["file"] or "").endswith("client.pcap")
    ]
    assert [(e["origin"], e["confidence"]) for e in got] == [("peer", 1.0)]


def same_ip(one: str, other: str) -> bool:
    return ipaddress.ip_address(one) == ipaddress.ip_address(other)


@FAMILIES
def test_nat_between_the_ends(family: int, tmp_path: Path) -> None:
    """r3 hides the client behind its own address; boxes before and behind it."""
    ports = {}
    with Lab("rstnat") as lab:
        longpath.build(lab)
        for router in (2, 5):
            longpath.middlebox(lab, f"r{router}", both=both_key(router))
        word = "ip" if family == V4 else "ip6"
        lab.nft(
            "r3",
            f"table {word} nat {{\nchain p {{\ntype nat hook postrouting priority 100\n"
            'oifname "out" masquerade random\n}\n}',
        )
        with captured(lab, tmp_path, family=family):
            for router in (2, 5):
                ports[router] = provoke(lab, family, both_key(router))
            honest = honest_unread(lab, family)
    late = shifted(tmp_path / "server.pcap", tmp_path / "late.pcap")
    head, entries = compare(tmp_path / "client.pcap", late)
    assert head["matched"]["initial-sequence-numbers"] == 4
    assert head["matched"]["one-sided"] == 0
    for flow in head["flows"]:
        assert same_ip(flow["a"][0]["ip"], longpath.client_ip(family))
        assert same_ip(flow["b"][0]["ip"], longpath.near(3, family))
        refused = flow["a"][1]["port"] == longpath.FENCE_PORT  # one sequence number is all there is
        assert flow["sure"] == ("likely" if refused else "sure")
    for router, port in ports.items():
        (reset,) = resets_of(head, port)["A", "received"]
        assert reset["fate"] == "never-sent"
        assert (reset["position"]["hops_a"], reset["position"]["hops_b"]) == (
            router - 1,
            ROUTERS - router,
        )
    assert accused(head) - set(ports.values()) == {
        flow["b"][0]["port"] for flow in head["flows"] if flow["a"][0]["port"] in ports.values()
    }
    assert {e["origin"] for e in entries_of(entries, honest)} == {"peer"}


@FAMILIES
def test_times_tell_the_side(family: int, tmp_path: Path) -> None:
    """A slow link in the middle: what answers long before the other end could is on our side."""
    with Lab("rstslow") as lab:
        longpath.build(lab, slow=3, seconds=0.3)  # an emulated box takes 0.1
        for router in (2, 5):
            longpath.middlebox(lab, f"r{router}", both=both_key(router))
        with captured(lab, tmp_path, family=family):
            ports = {router: provoke(lab, family, both_key(router)) for router in (2, 5)}
    head, _ = compare(tmp_path / "client.pcap", tmp_path / "server.pcap")
    within = {}
    for router, port in ports.items():
        (reset,) = resets_of(head, port)["A", "received"]
        position = reset["position"]
        assert (position["hops_a"], position["hops_b"]) == (router - 1, ROUTERS - router)
        within[router] = position["within"]
    assert within[2] is not None
    assert within[2] < 0.5
    assert within[5] is None  # a whole round trip later: it may be anywhere
