"""The compiler's messages name the file and the line that a developer edits."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rsttrace.kernel import layout
from rsttrace.kernel.sources import SOURCES

COMPILE = """
import sys, tempfile
from pathlib import Path
from rsttrace.errors import KernelError
from rsttrace.kernel import hooks, layout
from rsttrace.kernel.facts import Facts
from rsttrace.kernel.program import compile_program, config_header, texts
from rsttrace.kernel.protocol import Request
from rsttrace.model import Kind

bpf = Path(sys.argv[1])
layout.bpf_directory = lambda: bpf
with tempfile.TemporaryDirectory() as name:
    facts = Facts()
    request = Request(kinds=tuple(k.value for k in Kind), flows=64, payload=64)
    text = config_header(request, facts, hooks.Plan.KPROBES, follows=True, direct=True)
    try:
        compile_program(texts(facts, text), facts, Path(name))
    except KernelError as error:
        print(error.what)
"""


@pytest.mark.parametrize("name", [*SOURCES, "socket.h"])
def test_an_error_is_told_where_it_is(name: str, tmp_path: Path) -> None:
    bpf = tmp_path / "bpf"
    shutil.copytree(str(layout.bpf_directory()), bpf)
    lines = (bpf / name).read_text().splitlines()
    line = max(number for number, text in enumerate(lines) if not text)
    lines[line] = "no_such_type number;"
    (bpf / name).write_text("\n".join(lines) + "\n")
    done = subprocess.run(
        [sys.executable, "-c", COMPILE, str(bpf)], capture_output=True, text=True, check=False
    )
    assert "does not compile" in done.stdout, done.stderr
    assert f"{bpf / name}:{line + 1}:" in done.stderr
    assert done.stderr.count("error:") == 1, done.stderr


SICK = """
set -e
mount --make-rprivate /
for place in /tmp /var/tmp /dev/shm /run; do
    mount --bind $place $place
    mount -o remount,bind,ro $place
done
exec "$@"
"""


@pytest.mark.parametrize("place", ["unset", "/proc/nowhere", "/"])
def test_it_starts_where_nothing_can_be_written(place: str) -> None:
    """A sick node: every folder for temporary files is read-only, and TMPDIR may name none."""
    environment = {**os.environ, "RSTTRACE_CACHE": ""}
    environment.pop("TMPDIR", None)
    if place != "unset":
        environment["TMPDIR"] = place
    tracer = [sys.executable, "-m", "rsttrace", "--duration", "0.1"]
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", SICK, "sh", *tracer],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "tracing resets" in done.stderr
