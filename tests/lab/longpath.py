"""client - r1 … r6 - server, IPv4 and IPv6, with a capture at each end."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from rsttrace.compare.survey import survey
from rsttrace.demo.lab import Lab
from rsttrace.errors import CaptureError
from tests.lab.harness import no_offload, poll_until

ROUTERS = 6
NODES = ["client", *(f"r{number}" for number in range(1, ROUTERS + 1)), "server"]
SLOW = str(Path(__file__).with_name("slowwire.py"))
BOX = str(Path(__file__).with_name("middlebox.py"))
FENCE_PORT = 9
PATIENT = "rto_min 10s"
"""Of a host's route: a box may be slow to answer, but what it answers is sent once only."""
PORT = 7000

V4, V6 = socket.AF_INET, socket.AF_INET6


def near(link: int, family: int = V4) -> str:
    """The address of a link's end on the client's side; link 0 is the client's."""
    return f"10.72.{link}.1" if family == V4 else f"fd72:{link}::1"


def far(link: int, family: int = V4) -> str:
    """The address of a link's end on the server's side."""
    return f"10.72.{link}.2" if family == V4 else f"fd72:{link}::2"


def client_ip(family: int) -> str:
    """The client's address."""
    return near(0, family)


def server_ip(family: int) -> str:
    """The server's address."""
    return far(ROUTERS, family)


def build(lab: Lab, slow: int | None = None, seconds: float = 0.0) -> None:
    """Namespaces, cables, addresses and routes; neighbours are resolved.

    `slow`: the link on which each frame takes so many seconds.
    """
    lab.add(*NODES)
    for link, (left, right) in enumerate(zip(NODES, NODES[1:])):
        left_if = "eth0" if left == "client" else "out"
        right_if = "eth0" if right == "server" else "in"
        if link == slow:
            lab.add("wire")
            lab.link(left, left_if, "wire", "left")
            lab.link("wire", "right", right, right_if)
            for role, interface in ((left, left_if), (right, right_if)):
                no_offload(lab, role, interface)
            lab.spawn(
                "wire", [sys.executable, SLOW, "left", "right", str(seconds)], ready="carrying"
            )
        else:
            lab.link(left, left_if, right, right_if)
        lab.addresses(left, left_if, f"{near(link)}/24", f"{near(link, V6)}/64")
        lab.addresses(right, right_if, f"{far(link)}/24", f"{far(link, V6)}/64")
    for number, role in enumerate(NODES):
        if role != "server":
            more = f" {PATIENT}" if role == "client" else ""
            lab.route(role, *(f"default via {far(number, family)}{more}" for family in (V4, V6)))
        if role not in ("client", "server"):
            lab.router(role)
        if number > 1:
            v4, v6 = (near(number - 1, family) for family in (V4, V6))
            if role == "server":
                lab.route(role, f"default via {v4} {PATIENT}", f"default via {v6} {PATIENT}")
                continue
            for link in range(number - 1):
                lab.route(role, f"10.72.{link}.0/24 via {v4}", f"fd72:{link}::/64 via {v6}")
    for family in (V4, V6):
        fence(lab, family)


def fence(lab: Lab, family: int = V4) -> None:
    """A refused connection, whose honest RST is the last packet of both captures."""
    with lab.inside("client"), socket.socket(family) as sock:
        sock.settimeout(20)
        assert sock.connect_ex((server_ip(family), FENCE_PORT)) != 0


def middlebox(lab: Lab, role: str, **rules: str) -> None:
    """Make a router one that drops and resets what begins with a keyword; mode=keyword.

    The firewall rule wants eight bytes, and the TCP header to have timestamps.
    """
    assert all(len(keyword) == 8 for keyword in rules.values())
    rule = "\n".join(
        f"tcp dport 1-65535 @th,256,64 0x{keyword.encode().hex()} drop"
        for keyword in rules.values()
    )
    lab.nft(
        role, f"table inet box {{\nchain f {{\ntype filter hook forward priority 0\n{rule}\n}}\n}}"
    )
    words = [f"{mode}={keyword}" for mode, keyword in rules.items()]
    lab.spawn(role, [sys.executable, BOX, *words], ready="forging")


class Captures:
    """tcpdump at two places, by name."""

    def __init__(self, lab: Lab, folder: Path, places: dict[str, tuple[str, str]]) -> None:
        self._lab = lab
        self.paths = {name: folder / f"{name}.pcap" for name in places}
        self._processes = []
        for name, (role, interface) in places.items():
            process = subprocess.Popen(
                ["ip", "netns", "exec", lab.name(role), "tcpdump", "-Z", "root", "-i", interface,
                 "-n", "--immediate-mode", "-U", "-s", "160", "-B", "8192",
                 "-w", str(self.paths[name]), "tcp"],
                stderr=subprocess.PIPE,
                text=True,
            )  # fmt: skip
            self._processes.append(process)
            assert process.stderr is not None
            for line in process.stderr:
                if "listening on" in line:
                    break

    def wait_for_reset(self, port: int) -> None:
        """Wait until each file holds a RST from or to a port."""
        for path in self.paths.values():
            poll_until(partial(_holds_reset, path, port), f"a RST in {path.name}")

    def stop(self) -> None:
        """End tcpdump."""
        for process in self._processes:
            process.terminate()
            assert process.stderr is not None
            process.stderr.read()
            process.wait()
            process.stderr.close()


def _holds_reset(path: Path, port: int) -> bool:
    try:
        found = survey(str(path), 1000)
    except CaptureError:  # not even its header is written yet
        return False
    return any(flow.resets and port in {e.port for e in flow.ends} for flow in found.flows)


@contextmanager
def captured(
    lab: Lab, folder: Path, places: dict[str, tuple[str, str]] | None = None, family: int = V4
) -> Iterator[Captures]:
    """Capture at the client's and the server's interface while inside; then all is written."""
    places = places or {"client": ("client", "eth0"), "server": ("server", "eth0")}
    captures = Captures(lab, folder, places)
    try:
        yield captures
        fence(lab, family)
        captures.wait_for_reset(FENCE_PORT)
    finally:
        captures.stop()


@contextmanager
def connection(
    lab: Lab, family: int, port: int = PORT, where: str = "server"
) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection from client to server: (client, accepted); both are closed at the end."""
    with lab.inside(where):
        listener = socket.socket(family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((server_ip(family), port))
        listener.listen(8)
    with lab.inside("client"):
        client = socket.socket(family)
    client.settimeout(20)
    with listener, client:
        client.connect((server_ip(family), port))
        accepted, _ = listener.accept()
        accepted.settimeout(20)
        with accepted:
            yield client, accepted


def exchange(client: socket.socket, accepted: socket.socket, rounds: int = 2) -> None:
    """Some ordinary traffic."""
    for _ in range(rounds):
        client.sendall(b"question")
        assert accepted.recv(99) == b"question"
        accepted.sendall(b"a long enough answer")
        assert client.recv(99) == b"a long enough answer"
