"""``rsttrace demo``: real resets in a lab, and what rsttrace says of them, live."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from types import FrameType
from typing import NamedTuple

from rsttrace import home, programs
from rsttrace.demo.lab import Lab
from rsttrace.errors import LabError

ROUTERS = 17
"""Routers between client and server: the server's packets arrive with TTL 64 - 17 = 47."""

CLIENT_IP, SERVER_IP = "10.66.0.1", "10.66.18.1"
GATEWAY_MAC = "00:d0:f8:22:33:44"  # as in the incident: registered to a maker of network gear

DEADLINE_S = 20.0
ENTRY = re.compile(r"^(\x1b\[[0-9;]*m)*\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.")

# The box: its forwarding rules. TCP with timestamps has its payload at byte 32 (bit 256).
FIREWALL = """
table ip box {
    set rejected { type ipv4_addr . inet_service . ipv4_addr . inet_service; flags dynamic; }
    chain forward {
        type filter hook forward priority 0; policy accept;
        tcp dport 80 @th,256,64 0x474554202f757365 drop comment "GET /use: the forger answers"
        tcp dport 80 @th,256,64 0x474554202f61646d add @rejected { ip saddr . tcp sport . ip daddr . tcp dport } reject with tcp reset comment "GET /adm"
        ip daddr . tcp dport . ip saddr . tcp sport @rejected reject with tcp reset
    }
}
"""  # noqa: E501


class Act(NamedTuple):
    """One thing that happens: `command` runs at the client; `entries` resets follow from it."""

    title: str
    command: tuple[str, ...]
    entries: int


ACTS = (
    Act("an honest request: nothing is reset", ("get", SERVER_IP, "/"), 0),
    Act(
        'the incident: "GET /use…" makes a box on the path reset both ends in the other\'s name,\n'
        "# with the IP ID copied from the request",
        ("get", SERVER_IP, "/", "/use?db=shop"),
        2,
    ),
    Act(
        'a firewall rule (nftables: reject with tcp reset) for "GET /adm…", both ways:\n'
        "# the server is reset when it next speaks",
        ("get", SERVER_IP, "/", "/admin"),
        2,
    ),
    Act(
        "an honest reset: nobody listens on the server's port 81",
        ("get", f"{SERVER_IP}:81", "/"),
        2,
    ),
    Act(
        "an honest reset: the server closes without reading all of a POST",
        ("get", SERVER_IP, "/", "POST /form"),
        2,
    ),
    Act(
        "an honest reset: the client closes with SO_LINGER 0",
        ("linger", SERVER_IP, "/"),
        2,
    ),
)


def build(lab: Lab) -> None:
    """client - gateway - box - 15 more routers - server. The box forges; the rest only routes."""
    routers = ["gateway", "box", *(f"r{number}" for number in range(3, ROUTERS + 1))]
    path = ["client", *routers, "server"]
    lab.add(*path)
    for number, (near, far) in enumerate(zip(path, path[1:])):
        macs = {"b_mac": GATEWAY_MAC} if near == "client" else {}
        near_if, far_if = ("eth0" if near == "client" else "out"), "in"
        lab.link(near, near_if, far, "eth0" if far == "server" else far_if, **macs)
        lab.addresses(near, near_if, f"10.66.{number}.1/30" if number else f"{CLIENT_IP}/30")
        far_ip = f"10.66.{number}.2/30"
        lab.addresses(far, "eth0" if far == "server" else far_if, far_ip)
    lab.addresses("server", "lo", f"{SERVER_IP}/32")
    for index, role in enumerate(path):
        if role != "server":
            lab.route(role, f"{SERVER_IP}/32 via 10.66.{index}.2")
        if role != "client":
            lab.route(role, f"10.66.0.0/30 via 10.66.{index - 1}.1") if index > 1 else None
        if role not in ("client", "server"):
            lab.router(role)
    lab.nft("box", FIREWALL)


class Watcher:
    """``rsttrace`` itself, as a user would run it, with its output passed on."""

    def __init__(self, options: list[str]) -> None:
        self._shown = 0
        self._rest = b""
        self._process = programs.start(
            home.python("rsttrace", "trace", *options),
            programs.own_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def armed(self) -> None:
        """Wait for the line that says so.

        Raises:
            LabError: it ended instead.
        """
        assert self._process.stderr is not None
        for line in self._process.stderr:
            print(line.decode(errors="replace").rstrip(), file=sys.stderr, flush=True)
            if b"tracing resets" in line:
                return
        raise LabError("rsttrace did not start: its message is above")

    def show(self, entries: int) -> None:
        """Pass on the output until so many more resets have been shown.

        Raises:
            LabError: they do not come.
        """
        wanted = self._shown + entries
        ends = time.monotonic() + DEADLINE_S
        while self._shown < wanted:
            self._read(max(0.0, ends - time.monotonic()))
            if time.monotonic() >= ends or self._process.poll() is not None:
                raise LabError(
                    f"only {self._shown + entries - wanted} of {entries} resets were seen"
                )
        while self._read(0.3):  # the evidence below the last one
            pass

    def _read(self, seconds: float) -> bool:
        assert self._process.stdout is not None
        poll = select.poll()
        poll.register(self._process.stdout, select.POLLIN)
        if not poll.poll(seconds * 1000):
            return False
        data = os.read(self._process.stdout.fileno(), 65536)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            text = line.decode(errors="replace")
            self._shown += bool(ENTRY.match(text))
            print(text, flush=True)
        return bool(data)

    def finish(self) -> None:
        """End it; pass on what is left (the summary)."""
        self._process.terminate()
        while self._read(DEADLINE_S):
            pass
        self._process.wait()

    def close(self) -> None:
        """Make sure that it is gone."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()


@contextlib.contextmanager
def _interrupted_once() -> Iterator[None]:
    """SIGTERM cleans up as Ctrl-C does, and a second signal does not cut the cleaning short."""
    numbers = (signal.SIGINT, signal.SIGTERM)

    def interrupt(number: int, frame: FrameType | None) -> None:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = [signal.signal(number, interrupt) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before):
            signal.signal(number, handler)


def play(*, color: bool, explain: bool) -> None:
    """Build the lab, run the acts, show what rsttrace says, clean up.

    Raises:
        RsttraceError: the lab cannot be built, tracing does not work, or a reset was not seen.
    """
    program = home.python("rsttrace.demo.web")
    with _interrupted_once(), Lab() as lab:
        print(
            f"building a lab: client - gateway - box - {ROUTERS - 2} routers - server", flush=True
        )
        build(lab)
        lab.spawn("server", [*program, "serve", "0.0.0.0"], ready="serving")
        lab.spawn("box", home.python("rsttrace.demo.forger", "GET /use"), ready="forging")
        options = ["--viewpoint", "netns", "--summary"]
        for role in ("client", "server"):
            options += ["--netns", lab.name(role)]
        if explain:
            options.append("--explain")
        options += ["--color", "always" if color else "never"]
        print(f"$ rsttrace {' '.join(options[:-2])}", flush=True)
        watcher = Watcher(options)
        try:
            watcher.armed()
            for act in ACTS:
                print(f"\n# {act.title}", flush=True)
                said = lab.exec("client", [*program, *act.command])
                print(
                    "".join(f"#   the client sees: {line}\n" for line in said.splitlines()), end=""
                )
                watcher.show(act.entries)
            print(flush=True)
            watcher.finish()
        finally:
            watcher.close()
