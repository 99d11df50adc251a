"""One reset by a firewall's rule, told alike at both of its ends, each a machine of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rsttrace.demo.lab import Lab
from tests.lab.harness import FAMILIES, Json, Tracer, expect_reset, pair

pytestmark = pytest.mark.root

PORT = 7700

RULES = """table inet t {{
chain c {{
type filter hook {hook} priority 10
tcp dport {port} reject with tcp reset
}}
}}
"""


def told(lab: Lab, tracer: Tracer, role: str, kind: str) -> Json:
    """What a role's own tracer says of the reset."""

    def found() -> list[Json]:
        return [
            entry
            for entry in tracer.of(lab.inode(role))
            if entry["kind"] == kind and PORT in (entry["local"]["port"], entry["remote"]["port"])
        ]

    tracer.wait_for(lambda: bool(found()), f"{kind} at {role}")
    return found()[0]


def compared(folder: Path, ours: Json, theirs: Json) -> Json:
    """What `compare` says of our entry, with the other end's log beside it."""
    for name, entry in (("a.jsonl", ours), ("b.jsonl", theirs)):
        (folder / name).write_text(json.dumps(entry) + "\n")
    command = [sys.executable, "-m", "rsttrace", "compare", "a.jsonl", "b.jsonl", "-o", "json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    found: Json = next(line for line in lines if line.get("kind") == ours["kind"])
    return found


@FAMILIES
@pytest.mark.parametrize("role", ["server", "router"])
def test_a_firewall_is_named_at_both_ends(
    routed: Lab, machines: Tracer, tmp_path: Path, family: int, role: str
) -> None:
    machines.forget()
    with pair(routed, "client", "server", PORT, family) as (client, accepted):
        client.sendall(b"request")
        assert accepted.recv(100)
        accepted.sendall(b"answer")
        assert client.recv(100)
        hook = "input" if role == "server" else "forward"
        routed.exec(role, ["nft", "-f", "-"], text=RULES.format(hook=hook, port=PORT))
        client.sendall(b"one more")
        expect_reset(client)
        ours = told(routed, machines, "client", "received-accepted")
        theirs = told(routed, machines, role, "sent-netfilter")
        routed.exec(role, ["nft", "flush", "ruleset"])
    assert theirs["summary"] == "this host's firewall rejected it"
    found = compared(tmp_path, ours, theirs)
    if role == "server":
        assert (found["origin"], found["confidence"]) == ("peer", 1.0)
        assert found["summary"] == "the peer's own firewall rejected it"
        assert [share["author"] for share in found["authors"]] == ["peer-firewall"]
    else:  # that log does not make the peer guilty of a router's rule
        assert found["origin"] == "forged"
        assert found["authors"][0]["author"] == "reject"
