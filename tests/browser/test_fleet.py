"""The page of ``fleet report --report`` in a real browser, with hostile names all over it."""

from __future__ import annotations

from pathlib import Path

import pytest

from rsttrace.fleet.page import html
from tests.browser import chromium
from tests.unit.fleet_answers import EVIL, answers

pytestmark = pytest.mark.skipif(
    chromium.PROGRAM is None, reason="no chromium here: `make browser` installs it"
)


@pytest.fixture
def page(tmp_path: Path) -> Path:
    made = tmp_path / "fleet.html"
    made.write_text(html(answers(), [("store", EVIL)]), encoding="utf-8")
    return made


def test_it_is_drawn_asks_for_nothing_and_hostile_names_stay_text(page: Path) -> None:
    shown = chromium.look(page)
    assert shown.console == []
    assert "<img" not in shown.dom
    assert "&lt;img" in shown.dom
    assert "THE BOX" in shown.dom
    assert "<button>resets</button>" in shown.dom  # its script ran: columns can be sorted


def test_unescaped_it_would_be_caught(page: Path) -> None:
    page.write_text(page.read_text(encoding="utf-8").replace("&lt;img src=x", "<img src=x", 1))
    shown = chromium.look(page)
    assert shown.console != [] or "<img" in shown.dom


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_picture_of_it_shows_ink_on_paper(page: Path, tmp_path: Path, dark: bool) -> None:
    picture = tmp_path / "page.png"
    chromium.picture(page, picture, width=800, height=600, dark=dark)
    data = picture.read_bytes()
    assert data.startswith(b"\x89PNG")
    assert len(data) > 20_000  # an empty page of this size has about 3 kB
