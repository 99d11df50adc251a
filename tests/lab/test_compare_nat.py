"""`rsttrace compare` with NAT between the ends: what escapes it, and who answers before it."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

from rsttrace.demo.lab import Lab
from tests.lab import longpath
from tests.lab.harness import Json, expect_reset, provoke
from tests.lab.longpath import PORT, V4, V6, captured, exchange
from tests.lab.test_compare import FAMILIES, compare, entries_of, resets_of, rewritten, same_ip
from tests.unit import captures

NAT = 3
"""The router that translates."""

SERVICE: dict[int, str] = {V4: "10.72.99.9", V6: "fd72:99::9"}
SERVICE_PORT = 80

PAYLOAD = b"x" * 777
HEADERS: dict[int, int] = {V4: 20 + 32, V6: 40 + 32}
"""IP, and TCP with timestamps."""


def translate(lab: Lab, family: int) -> None:
    """The NAT router sends a service's connections to the server, and hides the client.

    A packet of our payload's length passes it untracked, as conntrack leaves out of NAT what it
    calls invalid: with the addresses that it has.
    """
    word, length = ("ip" if family == V4 else "ip6"), HEADERS[family] + len(PAYLOAD)
    server = longpath.server_ip(family)
    target = f"{server}:{PORT}" if family == V4 else f"[{server}]:{PORT}"
    lab.nft(
        f"r{NAT}",
        f"table {word} t {{\n"
        "chain raw {\ntype filter hook prerouting priority -300\n"
        f"meta length {length} notrack\n}}\n"
        "chain to {\ntype nat hook prerouting priority -100\n"
        f"{word} daddr {SERVICE[family]} tcp dport {SERVICE_PORT} dnat to {target}\n}}\n"
        "chain from {\ntype nat hook postrouting priority 100\n"
        f'oifname "out" tcp dport {PORT + 1} masquerade random\n}}\n}}',
    )


@contextmanager
def served(
    lab: Lab, family: int, address: str, port: int, listening: int = PORT
) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection from the client to an address, accepted by the server: (client, accepted)."""
    with lab.inside("server"):
        listener = socket.socket(family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((longpath.server_ip(family), listening))
        listener.listen(8)
    with lab.inside("client"):
        client = socket.socket(family)
    client.settimeout(20)
    with listener, client:
        client.connect((address, port))
        accepted, _ = listener.accept()
        accepted.settimeout(20)
        with accepted:
            exchange(client, accepted, rounds=3)
            yield client, accepted


def escapes(head: Json) -> list[Json]:
    return [item for flow in head["flows"] for item in flow["findings"]]


def never_sent(head: Json) -> list[Json]:
    return [
        reset
        for flow in head["flows"]
        for reset in flow["resets"]
        if reset["fate"] in ("never-sent", "never-arrived")
    ]


@FAMILIES
def test_an_answer_that_escapes_nat(family: int, tmp_path: Path) -> None:
    """The client's kernel knows no connection with the server's own address, and resets it."""
    with Lab("rstesc") as lab:
        longpath.build(lab)
        translate(lab, family)
        with (
            captured(lab, tmp_path, family=family),
            served(lab, family, SERVICE[family], SERVICE_PORT) as (client, accepted),
        ):
            accepted.sendall(PAYLOAD)
            expect_reset(accepted)
            client.sendall(b"is anybody there?")
            expect_reset(client)
    head, entries = compare(tmp_path / "client.pcap", tmp_path / "server.pcap")
    assert head["matched"]["escaped"] == 1
    assert head["matched"]["ambiguous"] == head["matched"]["one-sided"] == 0
    (escape,) = escapes(head)
    own = {"ip": longpath.server_ip(family), "port": PORT}
    service = {"ip": SERVICE[family], "port": SERVICE_PORT}
    assert (escape["name"], escape["point"], escape["packets"]) == ("escaped-nat", "A", 1)
    assert (escape["src"], escape["wanted_src"]) == (own, service)
    assert "its answer came from " in escape["text"]
    assert escape["text"].endswith("it was not translated back")
    assert escape["reset_frame"] is not None
    found = [entry for entry in entries if "escaped-nat" in entry["findings"]]
    assert {(entry["direction"], entry["remote"]["port"] == PORT) for entry in found} == {
        ("sent", True),
        ("received", False),
    }
    assert never_sent(head) == []
    assert {entry["origin"] for entry in entries} == {"peer", "local"}


@FAMILIES
def test_a_request_that_escapes_nat(family: int, tmp_path: Path) -> None:
    """It comes to the server from the client's own address, where it belongs to no connection."""
    with Lab("rstesc") as lab:
        longpath.build(lab)
        translate(lab, family)
        server = longpath.server_ip(family)
        with (
            captured(lab, tmp_path, family=family),
            served(lab, family, server, PORT + 1, PORT + 1) as (client, _),
        ):
            client.sendall(PAYLOAD)
            expect_reset(client)
    head, entries = compare(tmp_path / "client.pcap", tmp_path / "server.pcap")
    (escape,) = escapes(head)
    assert escape["point"] == "B"
    assert same_ip(escape["src"]["ip"], longpath.client_ip(family))
    assert same_ip(escape["wanted_src"]["ip"], longpath.near(NAT, family))
    assert escape["text"].endswith("it was not translated")
    found = {entry["direction"] for entry in entries if "escaped-nat" in entry["findings"]}
    assert found == {"sent", "received"}
    assert never_sent(head) == []


def with_statistics(source: Path, target: Path, end_ns: int) -> Path:
    """A pcap file (microseconds) as pcapng, that says of itself until when it was watched."""
    made = [captures.section(), captures.interface(resolution=9)]

    def take(frame: int, time_ns: int, data: bytes) -> list[tuple[int, bytes]]:
        made.append(captures.enhanced(data, ticks=time_ns))
        return []

    rewritten(source, target, take)
    made.append(captures.statistics(taken=end_ns, end=end_ns, counts={4: len(made) - 2, 5: 0}))
    target.write_bytes(b"".join(made))
    return target


def last_ns(path: Path) -> int:
    """The time of the last packet."""
    data, at, found = path.read_bytes(), 24, 0
    while at < len(data):
        seconds, rest, kept = struct.unpack_from("<III", data, at)
        at, found = at + 16 + kept, seconds * 10**9 + rest * 1000
    return found


@FAMILIES
def test_a_node_in_between_that_answers(family: int, tmp_path: Path) -> None:
    """From some moment on the NAT router rejects; the server's capture shows nothing any more."""
    with Lab("rstnode") as lab:
        longpath.build(lab)
        translate(lab, family)
        with (
            captured(lab, tmp_path, family=family),
            served(lab, family, SERVICE[family], SERVICE_PORT) as (client, _),
        ):
            lab.nft(
                f"r{NAT}",
                "table inet r {\nchain f {\ntype filter hook forward priority 0\n"
                f"tcp dport {PORT} reject with tcp reset\n}}\n}}",
            )
            port = int(client.getsockname()[1])
            provoke(client, b"is anybody there?")
    whole = tmp_path / "server.pcap"
    head, _ = compare(tmp_path / "client.pcap", whole)
    (reset,) = resets_of(head, port)["A", "received"]
    moment = reset_ns(tmp_path / "client.pcap", reset["frame"])
    client_until = rewritten(
        tmp_path / "client.pcap",
        tmp_path / "until.pcap",
        lambda _, time_ns, data: [(time_ns, data)] if time_ns <= moment else [],
    )
    quiet = rewritten(
        whole,
        tmp_path / "quiet.pcap",
        lambda _, time_ns, data: [(time_ns, data)] if time_ns < moment else [],
    )
    end_ns = last_ns(whole)
    late = datetime.fromtimestamp(end_ns // 10**9 + 1, timezone.utc).strftime("%FT%TZ")
    ended = with_statistics(quiet, tmp_path / "quiet.pcapng", end_ns)
    for file, options, fate in (
        (quiet, (), "unknown"),
        (quiet, ("--until-b", late), "never-sent"),
        (ended, (), "never-sent"),
        (whole, (), "never-sent"),
    ):
        head, entries = compare(client_until, file, *options)
        (reset,) = resets_of(head, port)["A", "received"]
        assert reset["fate"] == fate, (file.name, options)
        if fate == "never-sent":
            assert reset["position"]["hops_a"] == NAT - 1
            (entry,) = (e for e in entries_of(entries, port) if e["frame"] == reset["frame"])
            assert (entry["origin"], entry["confidence"]) == ("forged", 1.0)


def reset_ns(path: Path, frame: int) -> int:
    """The time of a frame, counted from 1."""
    found: list[int] = []

    def keep(number: int, time_ns: int, data: bytes) -> list[tuple[int, bytes]]:
        found.append(time_ns)
        return []

    rewritten(path, path.with_suffix(".copy"), keep)
    return found[frame - 1]
