"""Where what is built goes."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from packages import DIST, ROOT


def deliver(made: Path) -> None:
    """Put what was built into dist/, and say so."""
    DIST.mkdir(exist_ok=True)
    target = Path(shutil.copy(made, DIST / made.name))
    print(f"{target.relative_to(ROOT)}: {made.stat().st_size / 1e6:.1f} MB", file=sys.stderr)
