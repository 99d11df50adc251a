"""Containers, pods and units: real cgroups, laid out as each runtime lays them out.

The processes are real, and are moved there before they open a socket, as runtimes do.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from rsttrace.demo.lab import Lab
from tests.lab.harness import DEADLINE_S, Fence, Tracer, linger_zero, server_address

pytestmark = pytest.mark.root

PORT = 7800

SERVER = """
import os, socket, sys
with open(sys.argv[1] + "/cgroup.procs", "w") as file:
    file.write(str(os.getpid()))
listener = socket.create_server((sys.argv[2], int(sys.argv[3])))
print("listening", flush=True)
while True:
    sock, _ = listener.accept()
    asked = sock.recv(100)
    print("asked", flush=True)
    if asked == b"close":  # what comes later is answered without a socket
        sock.close()
        print("closed", flush=True)
        continue
    try:
        while sock.recv(100):
            pass
    except ConnectionError:
        pass
    sock.close()
"""

ID, POD = os.urandom(32).hex(), str(uuid.uuid4())
_POD = POD.replace("-", "_")
_SLICES = f"kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{_POD}.slice"

LAYOUTS = {
    "containerd": (f"{_SLICES}/cri-containerd-{ID}.scope", f"cri-containerd-{ID}.scope"),
    "containerd-cgroupfs": (f"kubepods/burstable/pod{POD}/{ID}", None),
    "containerd-without-systemd": (f"system.slice/{_SLICES[-60:]}:cri-containerd:{ID}", None),
    "cri-o": (f"{_SLICES}/crio-{ID}.scope/container", f"crio-{ID}.scope"),
    "docker": (f"system.slice/docker-{ID}.scope", f"docker-{ID}.scope"),
    "docker-cgroupfs": (f"docker/{ID}", None),
    "docker-with-systemd-inside": (
        f"system.slice/docker-{ID}.scope/system.slice/nginx.service",
        f"docker-{ID}.scope",
    ),
    "podman": (f"machine.slice/libpod-{ID}.scope/container", f"libpod-{ID}.scope"),
    "podman-pod": (
        f"machine.slice/machine-libpod_pod_{os.urandom(32).hex()}.slice/libpod-{ID}.scope",
        f"libpod-{ID}.scope",
    ),
    "podman-rootless": (
        f"user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope/container",
        "user@1000.service",
    ),
    "unit": ("system.slice/rsttrace-lab.service", "rsttrace-lab.service"),
    "session": ("user.slice/user-0.slice/session-77.scope", "session-77.scope"),
}
"""By runtime: the cgroup's path, and the unit that it belongs to."""


def hierarchy() -> Path:
    """Where cgroup version 2 is mounted."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        mount, _, kind = line.partition(" - ")
        if kind.startswith("cgroup2 ") and mount.split()[3] == "/":
            return Path(mount.split()[4])
    pytest.skip("this machine mounts no cgroup version 2 hierarchy")


@contextlib.contextmanager
def cgroup(path: str) -> Iterator[Path]:
    """A cgroup with those above it; removed with those that were made."""
    top = hierarchy()
    made = [top / path, *(top / path).parents]
    made = [each for each in made if top in each.parents and not each.exists()]
    (top / path).mkdir(parents=True)
    try:
        yield top / path
    finally:
        ends = time.monotonic() + DEADLINE_S
        for each in made:
            while each.exists():
                try:
                    each.rmdir()
                except OSError:  # its last process is still ending
                    assert time.monotonic() < ends
                    os.sched_yield()


@contextlib.contextmanager
def names() -> Iterator[None]:
    """What each runtime leaves on the node's disk of a container's and a pod's name."""
    var = Path("/var")
    written = {
        var / f"log/pods/shop_web-0_{POD}/nginx/0.log": "",
        var / f"log/containers/web-0_shop_nginx-{ID}.log": "",
        var / f"lib/docker/containers/{ID}/config.v2.json": json.dumps({"Name": "/web"}),
        var / "lib/containers/storage/rsttracelab-containers/containers.json": json.dumps(
            [{"id": ID, "names": ["web"]}]
        ),
    }
    made: list[Path] = []
    for file, text in written.items():
        made += [each for each in file.parents if not each.exists()]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    try:
        yield
    finally:
        for file in written:
            file.unlink()
        for folder in sorted(set(made), key=lambda each: -len(each.parts)):
            shutil.rmtree(folder, ignore_errors=True)


class Server:
    """A real server in a cgroup, in the lab's namespace `server`."""

    def __init__(self, lab: Lab, group: Path) -> None:
        with lab.inside("server"):
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-c", SERVER, str(group)),
                    *(server_address("server", socket.AF_INET), str(PORT)),
                ],
                stdout=subprocess.PIPE,
                text=True,
            )
        self.expect("listening")

    def expect(self, word: str) -> None:
        """Wait until it says so."""
        assert self.process.stdout is not None
        assert self.process.stdout.readline().strip() == word

    def stop(self) -> None:
        """End it."""
        self.process.kill()
        self.process.communicate()


@contextlib.contextmanager
def serving(lab: Lab, layout: str) -> Iterator[Server]:
    """A server in a cgroup as a runtime lays it out."""
    with cgroup(LAYOUTS[layout][0]) as group:
        server = Server(lab, group)
        try:
            yield server
        finally:
            server.stop()


def ask(lab: Lab, server: Server, how: str) -> None:
    """A connection that ends with a reset: received by an open socket, or sent after its close."""
    with lab.inside("client"):
        client = socket.create_connection((server_address("server", socket.AF_INET), PORT))
    with client:
        if how == "received":
            client.sendall(b"stay")
            server.expect("asked")
            linger_zero(client)
            return
        client.sendall(b"close")
        server.expect("asked")
        server.expect("closed")
        client.sendall(b"one more")


@pytest.mark.parametrize("how", ["received", "sent"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_whose_it_is(routed: Lab, tracer: Tracer, fence: Fence, layout: str, how: str) -> None:
    fence.cross(tracer)
    tracer.forget()
    with names(), serving(routed, layout) as server:
        ask(routed, server, how)
        (entry,) = tracer.collect(routed.inode("server"), 1)
    assert entry["direction"] == how
    assert entry["process"]["pid"] == server.process.pid
    if layout not in ("unit", "session"):
        assert entry["container"]["id"] == ID
    else:
        assert entry["container"] is None
    if "kubepods" in LAYOUTS[layout][0]:
        assert entry["pod"] == {"namespace": "shop", "name": "web-0", "uid": POD}
    else:
        assert entry["pod"] is None
    assert entry["unit"] == LAYOUTS[layout][1]


def test_names(routed: Lab, tracer: Tracer, fence: Fence) -> None:
    """As the node's files have them; the kubelet's before a runtime's own."""
    fence.cross(tracer)
    tracer.forget()
    with names(), serving(routed, "containerd") as server:
        ask(routed, server, "received")
        (entry,) = tracer.collect(routed.inode("server"), 1)
    assert entry["container"]["name"] == "nginx"


WANTED = {
    "--unit=rsttrace-lab": ["unit"],
    "--pod=web-0": ["containerd"],
    "--namespace=shop": ["containerd"],
    f"--container={ID[:12]}": ["containerd", "docker"],  # one ID serves all layouts here
}
"""By filter, which of the servers it shows."""


def test_filters(routed: Lab) -> None:
    """``--unit`` and its like show those, and no others: also of a socket that is closed."""
    tracers = {option: Tracer(option, "--netns", routed.name("server")) for option in WANTED}
    pids = {}
    try:
        for layout in ("session", "unit", "containerd", "docker"):
            with names(), serving(routed, layout) as server:
                pids[layout] = server.process.pid
                for how in ("received", "sent"):
                    ask(routed, server, how)
                for option, layouts in WANTED.items():  # before the cgroup is removed
                    if layout in layouts:
                        shown = tracers[option]
                        count = 2 * (layouts.index(layout) + 1)
                        shown.wait_for(lambda: len(resets(shown)) >= count, option)  # noqa: B023
    finally:
        for tracer in tracers.values():
            tracer.stop()
    assert {option: resets(tracer) for option, tracer in tracers.items()} == {
        option: [pids[layout] for layout in layouts for _ in range(2)]
        for option, layouts in WANTED.items()
    }


def resets(tracer: Tracer) -> list[int]:
    """The processes of the resets that it has shown, each once."""
    return [
        entry["process"]["pid"]
        for entry in tracer.entries
        if "kind" in entry and entry["amends"] is None
    ]
