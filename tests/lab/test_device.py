"""Where to walk to: the bridge's port and the switch that a neighbour is behind, seen for real."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import jsonschema
import pytest

from rsttrace.demo.lab import Lab
from rsttrace.render.schema import schema_text
from tests.lab.harness import DEADLINE_S, Json, mac_of, poll_until, skip_without, tracing

VALIDATOR = jsonschema.Draft202012Validator(json.loads(schema_text()))
GATEWAY, OTHER = "10.83.1.1", "10.83.1.2"
NAME = "sw\x1b[2J1"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """node (br0 over p1 and p2) - gateway at p1, and a host behind it; another host at p2."""
    with Lab("rstdev") as made:
        made.add("node", "gateway", "other", "far")
        made.ip("node", "link add br0 type bridge", "link set br0 up")
        for port, role in (("p1", "gateway"), ("p2", "other")):
            made.link("node", port, role, "e0")
            made.ip("node", f"link set {port} master br0")
        made.addresses("node", "br0", "10.83.1.9/24")
        made.addresses("gateway", "e0", f"{GATEWAY}/24")
        made.addresses("other", "e0", f"{OTHER}/24")
        made.link("gateway", "e1", "far", "e0")
        made.addresses("gateway", "e1", "10.83.2.2/24")
        made.addresses("far", "e0", "10.83.2.1/24")
        made.route("far", "default via 10.83.2.2")
        made.router("gateway")
        made.route("node", f"default via {GATEWAY}")
        yield made


def inside(lab: Lab, *command: str) -> list[str]:
    """Not `ip netns exec`, which hides parts of /sys."""
    return ["nsenter", f"--net=/run/netns/{lab.name('node')}", *command]


OWN_RUN = """
set -e
mount --make-rprivate /
mount --rbind /run/netns "$1/netns"
mount --rbind "$1" /run
shift
exec "$@"
"""


def with_run(folder: Path, *command: str) -> list[str]:
    """A command for which a folder is /run: lldpd's socket is there, and nobody else's lldpd."""
    return ["unshare", "--mount", "sh", "-c", OWN_RUN, "sh", str(folder), *command]


ENVIRONMENT = {**os.environ, "LC_ALL": "C"}


def refusal(lab: Lab, target: str, *options: str, run: Path | None = None) -> str:
    """What a tracer in the node's namespace prints of one refused connection."""
    limits = ("--netns", "self", "--count", "1", "--kind", "received")
    through = inside(lab, *(with_run(run) if run else ()))
    with tracing(*limits, *options, through=through, env=ENVIRONMENT) as process:
        code = f"import socket; socket.socket().connect_ex(({target!r}, 81))"
        subprocess.run(inside(lab, sys.executable, "-c", code), check=True, timeout=DEADLINE_S)
        out, _ = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0
    return out


def locate(lab: Lab, *options: str, run: Path | None = None) -> str:
    command = [sys.executable, "-m", "rsttrace", "locate", "10.83.2.1:80", "--timeout", "0.2"]
    done = subprocess.run(
        inside(lab, *(with_run(run) if run else ()), *command, "--max-hops", "2", *options),
        capture_output=True, text=True, check=True, timeout=60, env=ENVIRONMENT,
    )  # fmt: skip
    return done.stdout


def test_the_bridges_port(lab: Lab) -> None:
    for target, port, role in ((GATEWAY, "p1", "gateway"), (OTHER, "p2", "other")):
        entry: Json = json.loads(refusal(lab, target, "-o", "json"))
        VALIDATOR.validate(entry)
        found = entry["neighbor"]
        assert found["mac"] == mac_of(lab, role, "e0")
        assert (found["bridge"]["name"], found["bridge"]["port"]) == ("br0", port)
        assert found["switch"] is None
    said = f"    {mac_of(lab, 'other', 'e0')}: behind port p2 of this node's bridge br0"
    assert refusal(lab, OTHER, "-v").splitlines().count(said) == 1


def test_locates_first_hop(lab: Lab) -> None:
    """The route leads over the bridge: its port is learnt from its forwarding table."""
    made = json.loads(locate(lab, "-o", "json"))
    VALIDATOR.validate(made)
    assert made["path"]["next_hop"]["ifname"] == "br0"
    assert made["path"]["next_hop"]["bridge"]["port"] == "p1"
    assert "    |  behind port p1 of this node's bridge br0\n" in locate(lab)


def answer(*command: str) -> str | None:
    """What lldpcli prints; ``None``: its lldpd does not answer yet."""
    done = subprocess.run(command, check=False, timeout=20, capture_output=True, text=True)
    return None if done.returncode else done.stdout


def answers(*command: str) -> bool:
    return answer(*command) is not None


@pytest.fixture
def lldp_run(lab: Lab) -> Iterator[Path]:
    """A /run in which the node's lldpd listens; the gateway's has a hostile name."""
    skip_without("lldpd", "lldpcli")
    with tempfile.TemporaryDirectory() as name:
        run, ours = Path(name, "run"), Path(name, "gateway.sock")
        for folder in (run.parent, run, run / "netns", run / "lldpd"):
            folder.mkdir(exist_ok=True)
            folder.chmod(0o755)  # lldpd becomes another user
        lab.spawn("node", with_run(run, "lldpd", "-d", "-r", "-I", "p1"))
        lab.spawn("gateway", ["lldpd", "-d", "-u", str(ours), "-I", "e0"])
        node = with_run(run, "lldpcli")
        gateway = ["lldpcli", "-u", str(ours)]
        for client in (node, gateway):
            poll_until(partial(answers, *client, "show", "chassis"), "lldpd to answer")
        for words in (
            ["configure", "system", "hostname", NAME],
            ["configure", "ports", "e0", "lldp", "portidsubtype", "local", "Gi1/0/7",
             "description", "rack 4"],
            ["configure", "lldp", "tx-interval", "1"],
        ):  # fmt: skip
            assert answers(*gateway, *words)

        def announced() -> bool:
            said = answer(*node, "-f", "json0", "show", "neighbors") or ""
            return "Gi1/0/7" in said and "rack 4" in said and '"sw' in said

        poll_until(announced, "the announcement to arrive")
        yield run


def test_the_switch_that_lldp_tells_of(lab: Lab, lldp_run: Path) -> None:
    entry: Json = json.loads(refusal(lab, GATEWAY, "-o", "json", run=lldp_run))
    VALIDATOR.validate(entry)
    switch = entry["neighbor"]["switch"]
    assert (switch["ifname"], switch["name"]) == ("p1", NAME)
    assert (switch["port"], switch["port_text"]) == ("Gi1/0/7", "rack 4")
    text = refusal(lab, GATEWAY, "-v", run=lldp_run)
    assert "\x1b" not in text
    plugged = f"p1 is plugged into sw\\x1b[2J1 ({switch['id']}), port Gi1/0/7 (rack 4), says LLDP"
    assert plugged in text
    # nobody announces anything at the other port
    other: Json = json.loads(refusal(lab, OTHER, "-o", "json", run=lldp_run))
    assert other["neighbor"]["switch"] is None
    assert other["neighbor"]["bridge"]["port"] == "p2"
    assert "    |  p1 is plugged into sw\\x1b[2J1 (" in locate(lab, run=lldp_run)
