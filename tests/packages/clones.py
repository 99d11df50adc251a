"""Clones of what is tested here, to build in: elsewhere, at another time, for another user."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from packages import ROOT
from packages.epoch import epoch

ODD = {
    "TZ": "Asia/Kathmandu",
    "LC_ALL": "tr_TR.UTF-8",
    "LANG": "de_DE.ISO-8859-1",
    "PYTHONHASHSEED": "4711",
    "HOME": "/nonexistent",
    "USER": "somebody",
}
"""An environment that may leave its mark on what is built."""


def tracked() -> list[str]:
    """Every file of the checkout that git has, and new ones that it would take."""
    command = ["git", "-c", f"safe.directory={ROOT}", "-C", str(ROOT), "ls-files", "-z"]
    listed = subprocess.run(
        [*command, "--cached", "--others", "--exclude-standard"],
        capture_output=True, check=True, text=True,
    )  # fmt: skip
    names = sorted(filter(None, listed.stdout.split("\0")))
    return [name for name in names if (ROOT / name).is_file()]


def clone(where: Path, umask: int = 0o022, when: int | None = None) -> Path:
    """A copy of the checkout, as git lays it out under this umask, with files of that time."""
    for name in tracked():
        target = where / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, target)
        executable = (ROOT / name).stat().st_mode & 0o100
        target.chmod((0o777 if executable else 0o666) & ~umask)
        if when is not None:
            os.utime(target, (when, when))
    return where


def built(module: str, where: Path, umask: int, odd: bool) -> Path:
    """What a module of `packages` builds in a clone, under this umask."""
    before = {path for path in where.glob("dist/*") if path.is_file()}
    environment = {**os.environ, **(ODD if odd else {}), "SOURCE_DATE_EPOCH": str(epoch())}
    subprocess.run(
        ["sh", "-c", f'umask {umask:o}; exec "$@"', "sh", sys.executable, "-m", module],
        cwd=where, env=environment, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    (made,) = {path for path in where.glob("dist/*") if path.is_file()} - before
    return made
