"""Kernels that hide their addresses or are locked down.

What only the boot command line decides has its guest in tests/kernels/variants.py.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from rsttrace.demo.lab import Lab
from tests.lab.harness import (
    ADDRESSES,
    PASSED,
    REFUSED,
    RESET,
    ROLES,
    SENT_LINGER,
    SENT_REFUSAL,
    TRACE,
    V4,
    V6,
    Fence,
    Tracer,
    bpf_programs,
    cause,
    expect_reset,
    linger_zero,
    pair,
    poll_until,
    refuse,
    server_address,
    skip_without,
)

LOCKDOWN = Path("/sys/kernel/security/lockdown")


@pytest.fixture
def hidden_addresses() -> Iterator[None]:
    """kernel.kptr_restrict=2: nobody, not even root, sees a kernel address in /proc/kallsyms."""
    path = Path("/proc/sys/kernel/kptr_restrict")
    before = path.read_text()
    path.write_text("2")
    try:
        yield
    finally:
        path.write_text(before)


def test_kptr_restrict(hidden_addresses: None, routed: Lab, tracer: Tracer) -> None:
    """Everything is hooked that is hooked without it."""
    del hidden_addresses
    with open("/proc/kallsyms", encoding="ascii", errors="replace") as symbols:
        assert symbols.readline().startswith("0000000000000000 ")
    mine = Tracer("--netns", routed.name("client"), "--netns", routed.name("server"))
    try:
        hooks = re.compile(r"plan: \w+; hooks: (\d+) of (\d+)")
        found, usual = hooks.search(mine.status), hooks.search(tracer.status)
        assert found is not None
        assert usual is not None
        assert found[0] == usual[0]
        for family in (V4, V6):
            refuse(routed, server_address("server", family))
            with pair(routed, "client", "server", family=family) as (client, accepted):
                linger_zero(accepted)
                accepted.close()
                expect_reset(client)
        entries = mine.collect(routed.inode("client"), 4)
        assert Counter(map(cause, entries)) == {REFUSED: 2, RESET: 2}
        entries = mine.collect(routed.inode("server"), 4)
        assert Counter(map(cause, entries)) == {SENT_REFUSAL: 2, SENT_LINGER: 2}
    finally:
        mine.stop()


def locked_down(mode: str) -> None:
    """Skip unless the kernel was booted so."""
    state = LOCKDOWN.read_text() if LOCKDOWN.exists() else "(no lockdown)"
    if f"[{mode}]" not in state:
        pytest.skip(f"not booted with lockdown={mode}: see the variant lockdown-{mode}")


def leftovers() -> set[str]:
    """rsttrace's private directories."""
    return {path.name for path in Path(tempfile.gettempdir()).glob("rsttrace-*")}


def test_lockdown_confidentiality() -> None:
    """BPF may not read kernel memory: one clear error, exit code 1, nothing left."""
    locked_down("confidentiality")
    programs, directories = bpf_programs(), leftovers()
    tracer = Tracer(wait=False)
    assert tracer.process.wait(120) == 1
    tracer.stop()
    assert tracer.entries == []
    what, todo = tracer.status.splitlines()
    assert what.startswith("rsttrace: ")
    assert "lockdown" in what
    assert "confidentiality" in what
    assert todo.startswith("  what to do: ")
    assert "lockdown=integrity" in todo
    poll_until(lambda: not bpf_programs() - programs, "the programs to be gone")
    assert leftovers() == directories
    command = [sys.executable, "-m", "rsttrace", "doctor"]
    doctor = subprocess.run(command, check=False, capture_output=True, text=True)
    assert doctor.returncode == 1
    assert re.search(r"^ +failed +lockdown .*\[confidentiality\]", doctor.stdout, re.MULTILINE)
    assert "Traceback" not in doctor.stdout + doctor.stderr
    assert not bpf_programs() - programs


def test_lockdown_integrity(routed: Lab, tracer: Tracer, fence: Fence) -> None:
    """Reading is allowed, by kprobes as well: nothing is missing."""
    locked_down("integrity")
    hooks = re.search(r"hooks: (\d+) of (\d+)", tracer.status)
    assert hooks is not None
    assert hooks[1] == hooks[2]
    fence.cross(tracer)
    tracer.forget()
    for family in (V4, V6):
        refuse(routed, server_address("server", family))
        with pair(routed, "client", "server", family=family) as (client, accepted):
            linger_zero(accepted)
            accepted.close()
            expect_reset(client)
    tracer.collect(routed.inode("client"), 4)
    fence.cross(tracer)
    assert {role: Counter(map(cause, tracer.of(routed.inode(role)))) for role in ROLES} == {
        "client": {REFUSED: 2, RESET: 2},
        "router": {PASSED: 4},
        "server": {SENT_REFUSAL: 2, SENT_LINGER: 2},
    }


@pytest.mark.parametrize("rights", [("bpf", "perfmon"), ("bpf", "perfmon", "sys_admin")])
def test_with_few_capabilities_it_says_what_it_lacks(routed: Lab, rights: tuple[str, ...]) -> None:
    """As nobody, who gains no privileges either: resets, verdicts and processes are there."""
    skip_without("setpriv")
    some = ",".join(f"+{name}" for name in rights)
    few = ["--inh-caps", f"-all,{some}", "--ambient-caps", f"-all,{some}"]
    user = ["--reuid", "65534", "--regid", "65534", "--clear-groups", "--no-new-privs"]
    bound = ["--bounding-set", f"-all,{some}"]
    tracer = Tracer(
        "--netns", routed.name("client"), program=["setpriv", *user, *few, *bound, *TRACE]
    )
    try:
        refuse(routed, ADDRESSES["server"][0], 7999)
        (entry,) = tracer.collect(routed.inode("client"), 1)
    finally:
        tracer.stop()
    assert (entry["origin"], entry["process"]["pid"]) == ("peer", os.getpid())
    enters = "sys_admin" in rights
    assert entry["neighbor"]["ip"] == ("10.71.1.254" if enters else None)
    assert entry["neighbor"]["mac"] is not None
    lines = tracer.status.splitlines()
    lacks = [line.split()[1] for line in lines if line.startswith("  without CAP_")]
    assert lacks == [
        *([] if enters else ["CAP_SYS_ADMIN:"]),
        "CAP_SYS_PTRACE:",
        "CAP_NET_ADMIN:",
        "CAP_NET_RAW:",
    ]
