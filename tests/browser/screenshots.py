"""The pictures of README and docs, made from the demo's own cases: ``make screenshots``."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from pathlib import Path

from textual.widgets import DataTable

from rsttrace.top.app import Top
from rsttrace.top.feed import Feed
from tests.browser import chromium

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "docs" / "images"
CASES = (
    "keepalive-pool.pcap",
    "counting-ttl.pcap",
    "code-in-window.pcap",
    "pf-reset.pcap",
    "port-reuse.pcap",
    "escaped-nat-client.pcap",
    "any-honest.pcap",
)


def read(*options: str) -> str:
    """What ``rsttrace read`` says of the cases."""
    files = [f"tests/cases/{name}" for name in CASES]
    command = [sys.executable, "-m", "rsttrace", "read", "--utc", *options, *files]
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout


def screen(log: Path) -> None:
    """``rsttrace top``, drawn by Textual itself."""
    with Feed(str(log)) as feed:

        async def look() -> None:
            app = Top(feed, log.name, {}, utc=True)
            async with app.run_test(size=(116, 28)) as pilot:
                while not feed.ended or not app.query_one("#rows", DataTable).row_count:
                    await pilot.pause(0.1)
                await pilot.pause(1)
                app.save_screenshot(str(PICTURES / "top.svg"))

        asyncio.run(look())


def main() -> None:
    """Make them anew."""
    if chromium.PROGRAM is None:
        sys.exit("there is no chromium here: `make screenshots` installs it")
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        page, log = Path(folder) / "report.html", Path(folder) / "node-17.jsonl"
        read("--report", str(page))
        chromium.picture(page, PICTURES / "report.png", width=1100, height=1500)
        log.write_text(read("-o", "json"))
        screen(log)


if __name__ == "__main__":
    main()
