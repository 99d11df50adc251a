"""Headless Chromium as a tool: what a page looks like, says to the console, and asks for."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser")

QUIET = (
    "--headless",
    "--no-sandbox",  # it refuses to run as root with it; the page is our own
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
"""Without these it asks its maker's servers for things of its own."""


@dataclass(frozen=True)
class Shown:
    """A page as a browser showed it: `dom` after its scripts ran, `console` what was said there.

    A page that forbids itself every request (Content-Security-Policy) has each attempt there.
    """

    dom: str
    console: list[str]


def _run(url: str, *options: str, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
    assert PROGRAM is not None
    with tempfile.TemporaryDirectory() as home:
        return subprocess.run(
            [PROGRAM, *QUIET, f"--user-data-dir={home}", *options, url],
            check=True,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )


def look(page: Path) -> Shown:
    """Open a page and say what happened."""
    ran = _run(page.resolve().as_uri(), "--dump-dom", "--enable-logging=stderr", "--v=0")
    return Shown(ran.stdout, re.findall(r'CONSOLE.*?"(.*)"', ran.stderr))


def picture(page: Path, to: Path, *, width: int, height: int, dark: bool = False) -> None:
    """A picture of the top of a page as a PNG file."""
    more = ["--blink-settings=preferredColorScheme=0"] if dark else []
    _run(
        page.resolve().as_uri(),
        f"--window-size={width},{height}",
        f"--screenshot={to}",
        *more,
    )
