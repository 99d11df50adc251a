"""Where nothing listens: what listens nearby."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator

import pytest

from rsttrace.demo.lab import Lab
from tests.lab.harness import (
    FAMILIES,
    V4,
    V6,
    Fence,
    Json,
    Tracer,
    poll_until,
    refuse,
    server_address,
)

PORT = 7990
LOOPBACK: dict[int, str] = {V4: "127.0.0.1", V6: "::1"}
ANY: dict[int, str] = {V4: "0.0.0.0", V6: "::"}


@contextlib.contextmanager
def listening(lab: Lab, role: str, ip: str, port: int) -> Iterator[None]:
    with lab.inside(role):
        sock = socket.socket(V6 if ":" in ip else V4)
    with sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if ":" in ip:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((ip, port))
        sock.listen()
        yield


def refused(lab: Lab, tracer: Tracer, address: str, end: str, name: str) -> Json:
    """Connect until that end of a refusal has a note, and it names the process.

    Other namespaces' sockets are listed now and then only, and so are the processes' files.
    """
    netns = lab.inode(end)

    def is_noted() -> bool:
        known = len(tracer.of(netns))
        refuse(lab, address, PORT)
        tracer.collect(netns, known + 1)
        return any(item["values"]["listeners"][0]["pid"] for item in notes(tracer, netns, name))

    poll_until(is_noted, f"the note {name}")
    return next(
        item for item in notes(tracer, netns, name) if item["values"]["listeners"][0]["pid"]
    )


def notes(tracer: Tracer, netns: int, name: str) -> list[Json]:
    """What the notes of this name in a namespace say."""
    return [
        item
        for entry in tracer.of(netns)
        for item in entry["evidence"]
        if item["rule"] == name and name in entry["findings"]
    ]


def noted(tracer: Tracer, netns: int, name: str) -> Json:
    """What the first note of this name in a namespace says."""
    tracer.wait_for(lambda: bool(notes(tracer, netns, name)), f"the note {name}")
    return notes(tracer, netns, name)[0]


@FAMILIES
@pytest.mark.parametrize(
    ("role", "where", "note"),
    [
        ("server", "loopback", "listens-local-only"),
        ("server", "other family", "listens-other-address"),
        ("router", "any", "listens-elsewhere"),
    ],
    ids=["loopback", "other-family", "other-namespace"],
)
def test_what_listens_nearby(
    routed: Lab, tracer: Tracer, fence: Fence, family: int, role: str, where: str, note: str
) -> None:
    """At the end that refused, and at the one that was refused on this node."""
    other = V4 if family == V6 else V6
    ip = {"loopback": LOOPBACK[family], "any": ANY[family], "other family": ANY[other]}[where]
    fence.cross(tracer)
    tracer.forget()
    with listening(routed, role, ip, PORT):
        for end in ("server", "client"):
            found = refused(routed, tracer, server_address("server", family), end, note)
            (listener,) = found["values"]["listeners"]
            assert listener["address"] == (f"[{ip}]:{PORT}" if ":" in ip else f"{ip}:{PORT}")
            assert listener["pid"] == os.getpid()
            assert listener["running_s"] > 0
            assert found["values"]["netns"] == routed.inode("server")
            assert str(PORT) in found["text"]
            if note == "listens-elsewhere":
                assert listener["netns_name"] == routed.name("router")


@FAMILIES
def test_a_listener_that_has_gone_and_the_programs_other_port(
    routed: Lab, tracer: Tracer, fence: Fence, family: int
) -> None:
    address = server_address("server", family)
    server = routed.inode("server")
    fence.cross(tracer)
    tracer.forget()
    with listening(routed, "server", address, 8081):
        with listening(routed, "server", address, PORT):
            refuse(routed, address, 7991)
            found = noted(tracer, server, "listens-other-port")
            addresses = [item["address"] for item in found["values"]["listeners"]]
            assert [text.rpartition(":")[2] for text in addresses] == [str(PORT), "8081"]
        tracer.forget()
        refuse(routed, address, PORT)
        gone = noted(tracer, server, "listener-gone")
        (listener,) = gone["values"]["listeners"]
        assert listener["address"].endswith(f":{PORT}")
        (left,) = noted(tracer, server, "listens-other-port")["values"]["listeners"]
        assert left["address"].endswith(":8081")


def test_as_a_machine_of_its_own_it_knows_nothing_of_others(
    routed: Lab, machines: Tracer, fence: Fence
) -> None:
    address = server_address("server", V4)
    fence.cross(machines)
    machines.forget()
    with listening(routed, "router", "0.0.0.0", PORT), listening(routed, "server", "127.0.0.1", 81):
        refuse(routed, address, PORT)
        noted(machines, routed.inode("server"), "listens-other-port")
    (entry,) = machines.collect(routed.inode("client"), 1)
    fence.cross(machines)
    assert not any(name.startswith("listen") for name in entry["findings"])
    seen = {name for entry in machines.of(routed.inode("server")) for name in entry["findings"]}
    assert "listens-elsewhere" not in seen
