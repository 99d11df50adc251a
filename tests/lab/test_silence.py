"""Nothing is said to the network unless it is asked for: every call of every process is watched."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from rsttrace.demo.lab import Lab
from tests.lab.harness import DEADLINE_S, skip_without, tracing

CASE = Path(__file__).parents[1] / "cases" / "reason-in-payload.pcap"
RSTTRACE = [sys.executable, "-m", "rsttrace"]
SPEAKS = re.compile(
    r"\b(?:connect|bind|listen|accept4?|send(?:to|msg|mmsg))\(\d+<(?:TCP|UDP|RAW|PACKET|PING|ICMP)"
    r"|\b(?:connect|bind|send(?:to|msg|mmsg))\(.*AF_(?:INET6?|PACKET|VSOCK)\b"
)
MADE = re.compile(r"\bsocket\(AF_(?!UNIX|NETLINK)\w+, .*")
ASKS_INTERFACES = re.compile(
    r"socket\(AF_INET6?, SOCK_DGRAM\|SOCK_CLOEXEC, IPPROTO_IP(?:\)| <unfinished )"
)
"""A socket that is never bound or connected: for ioctl(2) (SIOCGIFNAME, netdevice(7))."""


def watched(log: Path) -> list[str]:
    return ["strace", "-f", "-qq", "-yy", "-e", "trace=%network", "-o", str(log)]


def spoken(log: Path) -> list[str]:
    """The calls by which something was, or could be, said to the network."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return [
        line
        for line in lines
        if SPEAKS.search(line) or (MADE.search(line) and not ASKS_INTERFACES.search(line))
    ]


@pytest.fixture(autouse=True)
def _strace() -> None:
    skip_without("strace")


@pytest.mark.parametrize(
    "code",
    [
        "socket.socket().connect_ex(('127.0.0.1', 9))",
        "socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9))",
        "socket.socket(socket.AF_INET6).listen()",
        "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
    ],
)
def test_what_speaks_is_seen(code: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = [*watched(log), sys.executable, "-c", f"import socket; {code}"]
    subprocess.run(command, check=False, timeout=DEADLINE_S, stderr=subprocess.DEVNULL)
    assert len(spoken(log)) >= 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["schema"],
        ["doctor"],
        ["read", str(CASE), "-w", "{out}.pcapng", "--report", "{out}.html", "--summary"],
        ["compare", str(CASE), str(CASE)],
        ["top", "--plain", "-r", str(CASE)],
        ["check", "--duration", "0.5s"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_no_command_speaks(arguments: list[str], tmp_path: Path) -> None:
    log, out = tmp_path / "log", str(tmp_path / "out")
    subprocess.run(
        [*watched(log), *RSTTRACE, *(word.format(out=out) for word in arguments)],
        check=False, timeout=DEADLINE_S * 4, capture_output=True,
    )  # fmt: skip
    assert log.exists()
    assert spoken(log) == []


def test_a_trace_speaks_to_nobody(tmp_path: Path) -> None:
    """With all that it asks the node about a reset: processes, neighbours, rules, sockets."""
    log = tmp_path / "log"
    with Lab("rstmute") as lab:
        lab.add("node")
        command = [*watched(log), "nsenter", f"--net=/run/netns/{lab.name('node')}"]
        options = ("--netns", lab.name("node"), "--count", "2", "-v", "--explain", "--summary")
        with tracing(*options, through=command) as process:
            code = "import socket; socket.socket().connect_ex(('127.0.0.1', 81))"
            lab.exec("node", [sys.executable, "-c", code])
            out, _ = process.communicate(timeout=DEADLINE_S * 4)
    assert "127.0.0.1:81" in out
    assert "AF_NETLINK" in log.read_text(errors="replace"), "it did ask this node"
    assert spoken(log) == []
