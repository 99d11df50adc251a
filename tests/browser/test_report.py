"""The page of ``--report`` in a real browser: it is drawn, says nothing, and asks for nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.browser import chromium

pytestmark = pytest.mark.skipif(
    chromium.PROGRAM is None, reason="no chromium here: `make browser` installs it"
)
CASES = Path(__file__).parents[1] / "cases"


def made(folder: Path, *files: Path) -> Path:
    page = folder / "report.html"
    command = [sys.executable, "-m", "rsttrace", "read", "--report", str(page), *map(str, files)]
    subprocess.run(command, check=True, capture_output=True)
    return page


def test_it_is_drawn_and_asks_for_nothing(tmp_path: Path) -> None:
    shown = chromium.look(made(tmp_path, CASES / "pf-reset.pcap", CASES / "keepalive-race.pcap"))
    assert shown.console == []
    assert "FORGED" in shown.dom
    assert "<button>connection</button>" in shown.dom  # its script ran: columns can be sorted


def test_a_page_that_asked_for_something_would_be_caught(tmp_path: Path) -> None:
    page = made(tmp_path, CASES / "pf-reset.pcap")
    page.write_text(page.read_text().replace("</body>", '<img src="http://192.0.2.1/x"></body>'))
    assert any("192.0.2.1" in said for said in chromium.look(page).console)


def test_a_hostile_name_stays_text(tmp_path: Path) -> None:
    hostile = tmp_path / "<img src=x onerror=console.log('caught')>.pcap"
    hostile.write_bytes((CASES / "pf-reset.pcap").read_bytes())
    shown = chromium.look(made(tmp_path, hostile))
    assert shown.console == []
    assert "<img" not in shown.dom
    assert "&lt;img" in shown.dom


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_picture_of_it_shows_ink_on_paper(tmp_path: Path, dark: bool) -> None:
    picture = tmp_path / "page.png"
    page = made(tmp_path, CASES / "pf-reset.pcap")
    chromium.picture(page, picture, width=800, height=600, dark=dark)
    data = picture.read_bytes()
    assert data.startswith(b"\x89PNG")
    assert len(data) > 20_000  # an empty page of this size has about 3 kB
