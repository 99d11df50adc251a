"""A node that lacks something, or has little of it: it works, or says in one sentence why not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rsttrace.demo.lab import Lab
from rsttrace.kernel import cache
from rsttrace.kernel.headers import directory as headers
from tests.lab.harness import (
    ADDRESSES,
    PLAN,
    START_S,
    TRACE,
    Tracer,
    poll_until,
    refuse,
    skip_without,
)
from tests.lab.residue import residue

COMPILES = {**os.environ, cache.VARIABLE: ""}

CONTROLLER = Path("/sys/fs/cgroup/memory")
"""Of version 1; of version 2 it is one among others in /sys/fs/cgroup."""

FEW = [
    "setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--no-new-privs",
    "--inh-caps", "-all,+bpf,+perfmon", "--ambient-caps", "-all,+bpf,+perfmon",
    "--bounding-set", "-all,+bpf,+perfmon",
]  # fmt: skip


def started(
    *before: str, shell: str = "", env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """A short run; `shell` is done before it in the same process, `before` runs it."""
    command = [*before, sys.executable, "-m", "rsttrace", "trace", "--plan", PLAN]
    return subprocess.run(
        ["sh", "-c", f'{shell}\nexec "$@"', "sh", *command, "--duration", "0.1"],
        capture_output=True,
        text=True,
        check=False,
        timeout=START_S,
        env=env or COMPILES,
    )


def failure(done: subprocess.CompletedProcess[str]) -> str:
    """The one error of a run that did not start: what, and what to do."""
    assert (done.returncode, done.stdout) == (1, "")
    what, todo = done.stderr.splitlines()
    assert what.startswith("rsttrace: ")
    assert todo.startswith("  what to do: ")
    return done.stderr


@contextmanager
def memory_limit(name: str, size: int) -> Iterator[Path]:
    """A control group with so much memory (bytes)."""
    first = (CONTROLLER / "memory.limit_in_bytes").exists()
    group = (CONTROLLER if first else CONTROLLER.parent) / f"rsttrace-{name}-{os.getpid()}"
    if not first:
        try:
            (group.parent / "cgroup.subtree_control").write_text("+memory")
        except OSError as error:
            pytest.skip(f"no memory controller to be had: {error}")
    group.mkdir()
    try:
        (group / ("memory.limit_in_bytes" if first else "memory.max")).write_text(str(size))
        yield group
    finally:
        poll_until(lambda: not (group / "cgroup.procs").read_text(), "its processes to end")
        group.rmdir()


def test_out_of_memory_while_loading_is_said() -> None:
    """The compiler is killed in its control group, or finds no address space: nothing is left."""
    before = residue()
    with memory_limit("oom", 60 << 20) as group:
        done = started(shell=f"echo $$ >{group}/cgroup.procs")
    assert "there is not enough memory" in failure(done)
    done = started(shell="ulimit -v 120000")
    assert "there is not enough memory" in failure(done)
    assert "failed to map segment" in done.stderr
    poll_until(lambda: residue() <= before, "nothing to be left")


def test_memory_that_may_not_be_locked_is_not_needed() -> None:
    """Before 5.11 maps count as locked memory (97306be45fbe)."""
    done = started(shell="ulimit -l 0")
    assert done.returncode == 0, done.stderr


PLACES = """
set -e
mount --make-rprivate /
mount -t tmpfs -o noexec,mode=1777 none /mnt && mkdir -m 1777 /mnt/noexec /mnt/readonly
mount --bind /mnt/readonly /mnt/readonly && mount -o remount,bind,ro /mnt/readonly
exec "$@"
"""


@pytest.mark.parametrize(
    "place", ["noexec", pytest.param("readonly", marks=pytest.mark.slow), "missing"]
)
def test_whatever_tmpdir_is_it_starts(place: str) -> None:
    """Also where no tmpfs of its own is to be had, for want of CAP_SYS_ADMIN."""
    skip_without("setpriv")
    inside = ["unshare", "--mount", "sh", "-c", PLACES, "sh", *FEW]
    done = started(*inside, env={**COMPILES, "TMPDIR": f"/mnt/{place}"})
    assert done.returncode == 0, done.stderr
    assert "tracing resets" in done.stderr


@pytest.mark.parametrize("content", ["", "no BTF at all"], ids=["empty", "mangled"])
def test_without_btf_that_can_be_read_it_takes_headers_or_says_so(
    content: str, tmp_path: Path
) -> None:
    btf = Path("/sys/kernel/btf/vmlinux")
    if not btf.exists():
        pytest.skip("this kernel has no BTF at all")
    (tmp_path / "btf").write_text(content)
    mount = f'mount --make-rprivate / && mount --bind {tmp_path}/btf {btf} && exec "$@"'
    done = started("unshare", "--mount", "sh", "-c", mount, "sh")
    if headers() is not None:
        assert done.returncode == 0, done.stderr
        return
    assert f"no usable BTF at {btf}" in failure(done)
    assert "headers" in done.stderr


def test_where_proc_hides_processes_it_says_no_wrong_one(routed: Lab) -> None:
    """hidepid=2, without CAP_SYS_PTRACE: as nobody it sees nobody's processes but its own."""
    skip_without("setpriv")
    hide = 'mount --make-rprivate / && mount -t proc -o hidepid=2 proc /proc && exec "$@"'
    program = ["unshare", "--mount", "sh", "-c", hide, "sh", *FEW, *TRACE]
    tracer = Tracer("--netns", str(routed.inode("client")), program=program)
    try:
        refuse(routed, ADDRESSES["server"][0])
        (entry,) = tracer.collect(routed.inode("client"), 1)
    finally:
        assert tracer.stop() == 0
    assert entry["origin"] == "peer"
    # the kernel side saw who connected; /proc would have told the command
    assert entry["process"]["pid"] == os.getpid()
    assert entry["netns_name"] in (None, routed.name("client"))
