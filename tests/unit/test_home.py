"""A folder or one zip file: what is beside the code is read, and our modules run as programs."""

from __future__ import annotations

import os
import subprocess
import zipfile
from pathlib import Path

import pytest

from rsttrace import home
from rsttrace.judge.fingerprints import BUILT_IN


def run(command: list[str], **environment: str) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd="/", env=environment, timeout=60
    )
    return done.stdout


def test_a_resource_is_a_path_in_a_folder_and_readable_in_a_zip_file(tmp_path: Path) -> None:
    assert isinstance(BUILT_IN, Path)
    archive = tmp_path / "rsttrace.pyz"
    with zipfile.ZipFile(archive, "w") as file:
        file.write(BUILT_IN, "rsttrace/judge/fingerprints.toml")
    packed = home.resource("rsttrace/judge/fingerprints.toml", root=archive)
    assert packed.read_bytes() == BUILT_IN.read_bytes()
    assert str(packed) == f"{archive}/rsttrace/judge/fingerprints.toml"


def test_a_module_of_ours_runs_from_anywhere_and_gets_its_arguments(tmp_path: Path) -> None:
    (tmp_path / "rsttrace").mkdir()
    (tmp_path / "rsttrace" / "__init__.py").write_text("raise SystemExit('not this one')")
    said = run(home.python("rsttrace", "schema"), PYTHONPATH=str(tmp_path))
    assert said.startswith('{\n  "$schema"')


def test_a_module_in_a_zip_file_runs_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tmp_path / "one.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("told.py", "import sys\nprint(__name__, *sys.argv[1:])")
    monkeypatch.setattr(home, "ROOT", archive)
    assert run(home.python("told", "a b", "-c")) == "__main__ a b -c\n"


@pytest.mark.parametrize(
    ("name", "written"), [("pcapng-trailing-isb.pcapng", False), ("keepalive-race.pcap", True)]
)
def test_captures_leave_nothing_at_home(tmp_path: Path, name: str, written: bool) -> None:
    """scapy would make its own folders there, and keep what it reads."""
    user = tmp_path / "user"
    user.mkdir()
    case = Path(__file__).parents[1] / "cases" / name
    options = ["-w", str(tmp_path / "o.pcapng")] if written else []
    environment = {"PATH": os.environ["PATH"], "HOME": str(user)}
    done = subprocess.run(
        home.python("rsttrace", "read", str(case), *options),
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "reset" in done.stderr
    assert not list(user.iterdir())
    assert not written or (tmp_path / "o.pcapng").stat().st_size
