"""Programs that are kept between starts: loaded again without a compiler, and mended if broken."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import pytest

from rsttrace.demo.lab import Lab
from rsttrace.kernel import cache
from tests.lab.harness import V4, refuse, server_address, tracing

TOLD = {"received-accepted", "sent-passive"}
COMPILED, KEPT = "programs: compiled now", "programs: kept from an earlier start"


def start(lab: Lab, folder: Path | str) -> str:
    """What a tracer with this cache says of its programs, once it has told all of a refusal."""
    env = {**os.environ, cache.VARIABLE: str(folder)}
    options = ("-o", "json", "-v", "--count", "2", "--port", "7999", "--kind", "all")
    with tracing(*options, env=env) as process:
        refuse(lab, server_address("server", V4))
        assert process.stdout is not None
        assert process.stderr is not None
        out, status = process.stdout.read(), process.stderr.read()
    assert {json.loads(line)["kind"] for line in out.splitlines()} <= TOLD | {"forwarded"}
    assert len(out.splitlines()) == 2
    (said,) = (line.strip() for line in status.splitlines() if "programs: " in line)
    return said.partition(" (")[0]


def test_the_second_start_needs_no_compiler(routed: Lab, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    assert start(routed, folder) == COMPILED
    (kept,) = folder.iterdir()
    written = kept.stat().st_mtime_ns
    assert start(routed, folder) == KEPT
    assert [path.stat().st_mtime_ns for path in folder.iterdir()] == [written]


def test_without_a_folder_nothing_is_kept(routed: Lab) -> None:
    assert start(routed, "") == start(routed, "/proc/nowhere") == COMPILED


@pytest.mark.parametrize("damage", ["instructions", "maps"])
def test_a_program_that_the_kernel_refuses_is_compiled_anew(
    damage: str, routed: Lab, tmp_path: Path
) -> None:
    folder = tmp_path / "cache"
    assert start(routed, folder) == COMPILED
    (kept,) = folder.iterdir()
    whole = kept.read_text()
    made = json.loads(whole)
    if damage == "maps":
        made["maps"]["flows"]["kind"] = 999
    else:
        code, places = made["functions"]["rt_net_dev_queue"]
        raw = bytearray(base64.b64decode(code))
        raw[-8] = 0xFF  # no such instruction
        made["functions"]["rt_net_dev_queue"] = [base64.b64encode(raw).decode(), places]
    kept.write_text(json.dumps(made))
    assert start(routed, folder) == COMPILED
    assert json.loads(kept.read_text()) == json.loads(whole), "mended"
