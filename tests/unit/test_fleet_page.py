"""A fleet report's answers as text and as a page: nothing hostile gets through."""

from __future__ import annotations

from rsttrace.fleet.page import html
from rsttrace.fleet.text import NOTHING_BEFORE, text_lines
from tests.unit.fleet_answers import EVIL, answers


def test_the_text_says_all_of_it_in_harmless_lines() -> None:
    lines = text_lines(answers())
    text = "\n".join(lines)
    assert all(line.isprintable() for line in lines)
    assert lines[0].startswith("12,000 resets of 9 nodes, from 2026-09-21 00:00:05 to ")
    for words in (
        "router 2 of 4 on the way from ",
        "place unknown",
        "; new",
        "; 3 in the same time before",
        "and 2 boxes with fewer resets each",
        "1 hop away, handed over by 00:d0:f8:22:33:44 (",
        "10.0.0.2 port 80 (",
        "IP IDs from a counter of its own",
        "port 8080: 3 resets to 3 clients",
        "10.0.0.3 port 80 (",
        "is 3.2 s behind the others (8 nodes, 120 resets that both ends know of)",
        "10.0.0.9: 2 nodes",
    ):
        assert words in text, words


def test_nothing_hostile_gets_into_the_page() -> None:
    page = html(answers(), [("store", EVIL)])
    assert "<img" not in page
    assert "&lt;img src=x" in page
    assert "\x1b" not in page
    assert "\u202e" not in page
    assert "http:" not in page.replace("http-equiv", "")
    assert page.count("<details") == 2
    assert "( 1 ) -- [ 2: THE BOX ] -- ( 3 ) -- ( 4 ) -- b1" in page


def test_what_was_not_found_takes_no_room() -> None:
    names = ("boxes", "causes", "idle", "overflows", "unnatted", "changes", "clocks", "shared")
    nothing = answers(before=0, timeline=[], boxes_left=0, **{name: [] for name in names})
    page = html(nothing, [])
    assert "<table" not in page
    assert "<svg" not in page
    assert NOTHING_BEFORE.capitalize() in page
    assert len(text_lines(nothing)) == 4
