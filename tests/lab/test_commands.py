"""The commands that attach nothing, once each: on every kernel's own Python and libraries."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rsttrace.demo.lab import Lab
from tests.lab.harness import expect_reset, pair, poll_until, server_address
from tests.lab.test_compare import compare, resets_of
from tests.lab.test_kinds import CLIENT, ROUTER, SERVER, V4, chain
from tests.lab.test_read import read, tcpdump

pytestmark = pytest.mark.lean

LAST = b"what came before this is in the capture"


def test_read_and_compare(routed: Lab, tmp_path: Path) -> None:
    """A firewall on the router resets the client in the server's name."""
    files = [tmp_path / f"{role}.pcap" for role in (CLIENT, SERVER)]
    with tcpdump(routed, CLIENT, files[0]), tcpdump(routed, SERVER, files[1]):
        with pair(routed, CLIENT, SERVER) as (client, accepted):
            port = client.getsockname()[1]
            client.sendall(b"hello")
            assert accepted.recv(99) == b"hello"
            chain(routed, ROUTER, "forward", "tcp dport 7000 reject with tcp reset")
            client.sendall(b"question")
            expect_reset(client)
        routed.nft(ROUTER, "flush ruleset")
        with pair(routed, CLIENT, SERVER) as (client, _):
            client.sendall(LAST)
            poll_until(lambda: all(LAST in file.read_bytes() for file in files), "tcpdump")
    entry, *_ = read(files[0])
    assert entry["kind"] == "received-accepted"
    assert entry["local"]["port"] == port
    assert entry["hops"] == {"rst": 0, "peer": 1}
    head, _ = compare(files[0], files[1])
    (reset,) = resets_of(head, port)["A", "received"]
    assert reset["fate"] == "never-sent"
    assert reset["position"]["hops_a"] == 0


def test_locate(routed: Lab) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "rsttrace", "locate", "-o", "json"),
            *("--netns", routed.name(CLIENT), f"{server_address(SERVER, V4)}:7001"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    path = json.loads(done.stdout)["path"]
    assert [hop["ips"] for hop in path["hops"]] == [["10.71.1.254"]]
    assert path["peer_hop"]["answers"][0]["kind"] == "rst"
