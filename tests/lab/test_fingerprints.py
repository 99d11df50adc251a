"""Real forgers are named: their own programs, not packets made after their source."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rsttrace.demo.lab import Lab
from tests.lab.harness import Tracer, expect_reset, pair, skip_without


@pytest.fixture
def as_one_machine(routed: Lab) -> Iterator[Tracer]:
    """A tracer that does not use what only this node knows: who wrote the packet."""
    netns = str(routed.inode("client"))
    tracer = Tracer("--viewpoint", "netns", "--netns", netns, "--kind", "received", "--explain")
    yield tracer
    tracer.stop()


def test_tcpkill_is_named(routed: Lab, as_one_machine: Tracer) -> None:
    skip_without("tcpkill")
    with pair(routed, "client", "server") as (client, accepted):
        for text in (b"one", b"two"):  # what the server's packets look like, before
            client.sendall(text)
            assert accepted.recv(9) == text
            accepted.sendall(text)
            assert client.recv(9) == text
        routed.spawn("router", ["tcpkill", "-i", "cl0", "port", "7000"], ready="listening on")
        client.sendall(b"three")
        expect_reset(client)
    (entry,) = as_one_machine.collect(routed.inode("client"), 1)[:1]
    assert entry["kind"] == "received-accepted"
    assert entry["origin"] in ("forged", "inconclusive")
    assert entry["device"] == {"name": "tcpkill", "fingerprint": "tcpkill", "reason": None}
    (line,) = [item for item in entry["considered"] if item["rule"] == "fingerprint"]
    assert line["weight"] == 0
    assert "ip_id random, df lost" in line["text"]


def test_a_firewall_is_named(routed: Lab, as_one_machine: Tracer) -> None:
    with pair(routed, "client", "server") as (client, accepted):
        client.sendall(b"one")
        assert accepted.recv(9) == b"one"
        accepted.sendall(b"two")
        assert client.recv(9) == b"two"
        routed.nft(
            "router",
            """table ip filter {
                chain leaving {
                    type filter hook forward priority 0
                    tcp dport 7000 reject with tcp reset
                }
            }""",
        )
        client.sendall(b"three")
        expect_reset(client)
    (entry,) = as_one_machine.collect(routed.inode("client"), 1)[:1]
    assert (entry["rst"]["ttl"], entry["baseline"]["ttl"]) == (64, 63)
    (line,) = [item for item in entry["considered"] if item["rule"] == "fingerprint"]
    assert "like netfilter-reject: " in line["text"]
    assert entry["score"] > 0  # one hop less than the server, all along
    assert entry["device"]["fingerprint"] == "netfilter-reject"
