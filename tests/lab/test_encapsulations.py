"""`rsttrace read` of tcpdump's captures of real tunnels, tags, and a router's interfaces."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from rsttrace.demo.lab import Lab
from tests.lab.harness import (
    ADDRESSES,
    FAMILIES,
    V4,
    linger_zero,
    load_module,
    need,
    pair,
    poll_until,
    refuse,
    resolve,
    server_address,
)
from tests.lab.test_read import read, tcpdump

UNDER = {"client": "192.0.2.1", "server": "192.0.2.2"}
INNER = {"client": ("10.72.0.1", "fd72::1"), "server": ("10.72.0.2", "fd72::2")}


class Row(NamedTuple):
    """A tunnel: commands that make it, the last one `t0`; `module` may have to be loaded.

    `{here}` and `{there}` are the addresses below it.
    """

    name: str
    commands: tuple[str, ...]
    families: tuple[int, ...] = (4, 6)
    module: str = ""


ROWS = [
    Row("vlan", ("link add link eth0 name t0 type vlan id 7",)),
    Row(
        "qinq",
        (
            "link add link eth0 name o0 type vlan proto 802.1ad id 100",
            "link set o0 up",
            "link add link o0 name t0 type vlan id 7",
        ),
    ),
    Row(
        "vlan-3",
        (
            "link add link eth0 name o0 type vlan id 100",
            "link add link o0 name o1 type vlan id 101",
            "link set o0 up",
            "link set o1 up",
            "link add link o1 name t0 type vlan proto 802.1ad id 7",
        ),
    ),
    Row("vxlan", ("link add t0 type vxlan id 7 dstport 4789 local {here} remote {there}",)),
    Row(
        "vlan-in-vxlan",
        (
            "link add v0 type vxlan id 7 dstport 8472 local {here} remote {there}",
            "link set v0 up",
            "link add link v0 name t0 type vlan id 9",
        ),
    ),
    Row("geneve", ("link add t0 type geneve id 7 remote {there}",), module="geneve"),
    Row("gre", ("link add t0 type gre local {here} remote {there}",), module="ip_gre"),
    Row("gre-key", ("link add t0 type gre local {here} remote {there} key 5 csum seq",)),
    Row("gretap", ("link add t0 type gretap local {here} remote {there}",)),
    Row(
        "erspan-2",
        ("link add t0 type erspan seq key 5 local {here} remote {there} erspan_ver 1 erspan 1",),
    ),
    Row(
        "erspan-3",
        (
            "link add t0 type erspan seq key 5 local {here} remote {there} erspan_ver 2 "
            "erspan_dir ingress erspan_hwid 1",
        ),
    ),
    Row("ipip", ("link add t0 type ipip local {here} remote {there}",), (4,), "ipip"),
    Row("sit", ("link add t0 type sit local {here} remote {there}",), (6,), "sit"),
]


@contextmanager
def tunnel(row: Row) -> Iterator[Lab]:
    """client - server, and the tunnel between them."""
    with Lab("rstencap") as lab:
        if row.module:
            load_module(row.module)
        ends = {"here": "192.0.2.1", "there": "192.0.2.2"}
        probe = row.commands[-1].format(**ends).replace("link o0", "link p0")
        probe = probe.replace("link o1", "link p0").replace("link v0", "link p0")
        need(row.name, lab, f"ip {probe.replace('eth0', 'p0')}")
        lab.add("client", "server")
        lab.link("client", "eth0", "server", "eth0")
        for here, there in (("client", "server"), ("server", "client")):
            lab.addresses(here, "eth0", f"{UNDER[here]}/24")
            ends = {"here": UNDER[here], "there": UNDER[there]}
            lab.ip(here, *(command.format(**ends) for command in row.commands), "link set t0 up")
            v4, v6 = INNER[here]
            lab.addresses(here, "t0", f"{v4}/24", f"{v6}/64")
        resolve(lab, "client", *(INNER["server"][family == 6] for family in row.families))
        yield lab


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_tunnel(row: Row, tmp_path: Path) -> None:
    """A refused connection in it, at the client's end of the cable: read, and nothing is left."""
    with tunnel(row) as lab:
        for family in row.families:
            path = tmp_path / f"capture-{family}"
            with tcpdump(lab, "client", path, only="not arp"):
                refuse(lab, INNER["server"][family == 6])
                poll_until(lambda path=path: bool(read(path)), "tcpdump's RST")  # type: ignore[misc]
            (found,) = read(path)
            assert (found["cause"]["name"], found["family"]) == ("connection-refused", family)
            assert found["remote"] == {"ip": INNER["server"][family == 6], "port": 7999}
            assert found["kind"] == "received-accepted"
            assert "not read" not in said(path)


def said(path: Path) -> str:
    """What `rsttrace read` says of a capture on stderr."""
    command = [sys.executable, "-m", "rsttrace", "read", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stderr


@FAMILIES
def test_a_router_captured_on_any(family: int, routed: Lab, tmp_path: Path) -> None:
    """Each RST passes two of its interfaces: one entry, from what the receiver's side shows."""
    path = tmp_path / "capture"
    address = server_address("server", family)
    with tcpdump(routed, "router", path, interface="any", only="not arp"):
        refuse(routed, address)
        with pair(routed, "client", "server", family=family) as (client, accepted):
            client.sendall(b"question")
            assert accepted.recv(100) == b"question"
            linger_zero(accepted)
            accepted.close()
        poll_until(lambda: sum(len(e["sightings"]) for e in read(path)) >= 4, "both RSTs")
    refused, ended = read(path)
    assert (refused["cause"]["name"], ended["cause"]["name"]) == (
        "connection-refused",
        "connection-reset",
    )
    for entry in (refused, ended):
        first, last = entry["sightings"]
        assert (first["ttl"], last["ttl"]) == (64, 63)
        assert first["interface"] != last["interface"]
        assert entry["frame"] == last["frame"]
        assert entry["rst"]["ttl"] == 63
        assert entry["origin"] != "forged"
        assert entry["local"]["ip"] == ADDRESSES["client"][family != V4]
    assert (ended["baseline"]["syn_ttl"], ended["baseline"]["ttl"]) == (63, 63)
    assert ended["origin"] == "peer"
