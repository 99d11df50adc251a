"""Containers and pods in cgroup version 1 hierarchies.

A machine without version 2 is the variant cgroup-v1 of tests/kernels/variants.py.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from rsttrace.demo.lab import Lab
from tests.lab.harness import (
    ADDRESSES,
    DEADLINE_S,
    RESET,
    Fence,
    Tracer,
    cause,
    linger_zero,
)

CLIENT_IN_CGROUP = """
import os, socket, sys
with open(sys.argv[1] + "/cgroup.procs", "w") as file:
    file.write(str(os.getpid()))
sock = socket.create_connection((sys.argv[2], 7500))
print("connected", flush=True)
while True:
    try:
        sock.recv(1)
    except OSError:
        pass
"""


def cgroup2_is_mounted() -> bool:
    """Whether this machine has a version 2 hierarchy."""
    return " - cgroup2 " in Path("/proc/self/mountinfo").read_text()


@pytest.mark.parametrize("machine", ["hybrid", "cgroup-v1-only"])
def test_cgroup_v1(machine: str, routed: Lab, tracer: Tracer, fence: Fence, tmp_path: Path) -> None:
    """The container and pod are found by the process where version 1 hierarchies hold them."""
    if machine == "hybrid" and not cgroup2_is_mounted():
        pytest.skip("this machine mounts no cgroup version 2 hierarchy")
    if machine != "hybrid" and cgroup2_is_mounted():
        pytest.skip("this machine mounts cgroup version 2: see the variant cgroup-v1")
    container, pod = os.urandom(32).hex(), str(uuid.uuid4())
    hierarchy = tmp_path / "v1"
    hierarchy.mkdir()
    name = f"none,name=rsttrace{os.getpid()}"
    command = ["mount", "-t", "cgroup", "-o", name, "none", str(hierarchy)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode and "unknown filesystem type" in done.stderr:
        pytest.skip(f"this kernel has no cgroup version 1: {done.stderr.strip()}")
    assert not done.returncode, done.stderr
    group = hierarchy / "kubepods" / "burstable" / f"pod{pod}" / container
    try:
        group.mkdir(parents=True)
        with routed.inside("server"):
            listener = socket.create_server((ADDRESSES["server"][0], 7500))
        fence.cross(tracer)
        tracer.forget()
        with listener:
            listener.settimeout(DEADLINE_S)
            arguments = [str(group), ADDRESSES["server"][0]]
            pid = routed.spawn(
                "client", [sys.executable, "-c", CLIENT_IN_CGROUP, *arguments], ready="connected"
            )
            accepted, _ = listener.accept()
            linger_zero(accepted)
            accepted.close()
            (entry,) = tracer.collect(routed.inode("client"), 1)
        assert cause(entry) == RESET
        assert entry["process"]["pid"] == pid
        assert entry["container"] is not None
        assert entry["container"]["id"] == container
        assert entry["pod"]["uid"] == pod
    finally:
        routed.close()  # the process in the group
        for directory in (group, *list(group.parents)[:3]):
            with contextlib.suppress(OSError):
                directory.rmdir()
        subprocess.run(["umount", str(hierarchy)], check=True)
