"""``make wheel``: the wheel, by this environment's hatchling, whose version the lock has."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from packages import BUILD, ROOT
from packages.deliver import deliver
from packages.epoch import epoch


def build(where: Path = BUILD / "wheel") -> Path:
    """Build the wheel in a folder of its own; returns its file.

    Raises:
        subprocess.CalledProcessError: hatchling failed.
    """
    shutil.rmtree(where, ignore_errors=True)
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(where)],
        cwd=ROOT,
        env={**os.environ, "SOURCE_DATE_EPOCH": str(epoch())},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    (made,) = where.glob("*.whl")
    return made


def main() -> None:
    """Build it, and put it into dist/."""
    deliver(build())


if __name__ == "__main__":
    main()
