"""The wheel is the same to the byte, whoever builds it, where and when."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

import pytest

from packages import ROOT
from packages.epoch import epoch
from rsttrace import __version__
from tests.packages.clones import built, clone


def test_it_is_the_same_when_somebody_else_builds_it(tmp_path: Path) -> None:
    here = built("packages.wheel", clone(tmp_path / "here"), 0o022, odd=False)
    other = clone(tmp_path / "deep" / "er", umask=0o077, when=1_000_000_000)
    there = built("packages.wheel", other, 0o077, odd=True)
    assert here.name == f"rsttrace-{__version__}-py3-none-any.whl"
    assert here.read_bytes() == there.read_bytes()
    with zipfile.ZipFile(here) as archive:
        names = set(archive.namelist())
    assert {"rsttrace/cli/__init__.py", "rsttrace/bpf/event.h", "rsttrace/schema.json"} <= names
    assert all(name.startswith(("rsttrace/", "rsttrace-")) for name in names)


def test_its_time_is_the_last_commit_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "12345")
    assert epoch() == 12345
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    said = subprocess.run(
        ["git", "-c", f"safe.directory={ROOT}", "-C", str(ROOT), "show", "-s", "--format=%ct"],
        capture_output=True, text=True, check=False,
    ).stdout  # fmt: skip
    assert epoch() == int(said or (ROOT / "CHANGELOG.md").stat().st_mtime)
