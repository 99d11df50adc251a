"""The time that built files have."""

from __future__ import annotations

import os
import subprocess

from packages import ROOT


def epoch() -> int:
    """The time that built files have (reproducible-builds.org): of the last commit, else of now.

    `SOURCE_DATE_EPOCH` in the environment comes first.
    """
    given = os.environ.get("SOURCE_DATE_EPOCH")
    if given is not None:
        return int(given)
    command = ["git", "-c", f"safe.directory={ROOT}", "-C", str(ROOT), "log", "-1", "--format=%ct"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return int(done.stdout)
    except (OSError, subprocess.CalledProcessError, ValueError):
        return int((ROOT / "CHANGELOG.md").stat().st_mtime)
