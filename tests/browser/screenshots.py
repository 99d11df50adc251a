"""The pictures of README and docs, made from the demo's own cases: ``make screenshots``."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from tests.browser import chromium

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "docs" / "images"
CASES = ("pf-reset.pcap", "keepalive-race.pcap", "port-reuse.pcap", "any-honest.pcap")


def main() -> None:
    """Make them anew."""
    if chromium.PROGRAM is None:
        sys.exit("there is no chromium here: `make screenshots` installs it")
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        files = [f"tests/cases/{name}" for name in CASES]
        subprocess.run(
            [sys.executable, "-m", "rsttrace", "read", "--utc", "--report", str(page), *files],
            check=True,
            capture_output=True,
            cwd=ROOT,
        )
        chromium.picture(page, PICTURES / "report.png", width=1100, height=1500)


if __name__ == "__main__":
    main()
