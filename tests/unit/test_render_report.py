"""The page of ``--report``: what it tells, how much it keeps, and that nothing in it acts."""

from __future__ import annotations

import dataclasses
import os
import re
import stat
from html.parser import HTMLParser
from pathlib import Path

import pytest

from rsttrace.errors import RsttraceError, UsageError
from rsttrace.model import NO_TIME, Cause, Endpoint, Entry, Origin, Process, SentData
from rsttrace.render import report as module
from rsttrace.render.report import Report, packets
from rsttrace.render.timeline import BINS, Timeline, draw
from tests.unit import test_render_samples as samples

HOSTILE = "</td><script>alert(1)</script>\x1b[31m\u202egpj"


class Page(HTMLParser):
    """What a browser would make of it: its text, by the id of what it is in."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(html)
        self.text = " ".join(" ".join(self.texts).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def named(self) -> set[str]:
        return {found for _, attributes in self.tags if (found := attributes.get("id"))}


def page(*entries: Entry, title: str = "TCP resets") -> Page:
    report = Report(title, utc=True)
    for entry in entries:
        report.add(entry)
    return Page(report.html([("made by", "rsttrace")], {"lost": 3, "filtered": 0}))


def test_a_page_tells_who_made_it_why_and_what_next() -> None:
    forged = samples.with_verdict(samples.FORGED, advice="ask whoever runs the firewall")
    found = page(dataclasses.replace(forged, id=1), dataclasses.replace(samples.PEER, id=2))
    assert "2 resets" in found.text
    assert "1 forged and 1 sent by the peer itself" in found.text
    assert "handed over by 00:d0:f8:22:33:44 (Ruijie Networks) = 192.168.1.1" in found.text
    assert "IP ID 13052 repeats our own packet" in found.text
    assert "ask whoever runs the firewall" in found.text
    assert "3306 → 51234 [RST]" in found.text
    assert "51234 → 3306 [PSH, ACK]" in found.text
    assert "lost 3" in found.text
    assert "filtered" not in found.text
    assert {"reset-1", "reset-2", "forged", "honest", "timeline", "causes"} <= found.named()


@pytest.mark.parametrize("entry", samples.SAMPLES.values(), ids=samples.SAMPLES)
def test_every_kind_of_entry_has_its_place(entry: Entry) -> None:
    found = page(entry)
    assert f"reset-{entry.amends or entry.id}" in found.named()
    assert str(entry.reset.remote) in found.text


def test_links_lead_to_what_is_there() -> None:
    found = page(*samples.SAMPLES.values())
    links = {a["href"] for tag, a in found.tags if tag == "a"}
    assert links
    assert {(href or "").lstrip("#") for href in links} <= found.named()


def test_nothing_is_fetched_and_nothing_of_a_stranger_s_acts() -> None:
    reset = dataclasses.replace(
        samples.FORGED.reset,
        process=Process(7, HOSTILE, 0),
        netns_name=HOSTILE,
        file=HOSTILE,
        cause=Cause(HOSTILE, HOSTILE),
    )
    entry = dataclasses.replace(samples.FORGED, reset=reset)
    entry = samples.with_verdict(entry, advice=HOSTILE, device_name=HOSTILE, cause=None)
    report = Report(HOSTILE)
    report.add(entry)
    report.note(HOSTILE)
    html = report.html([("command", HOSTILE)], {})
    found = Page(html)
    assert sum(tag == "script" for tag, _ in found.tags) == 1
    assert "alert(1)" in found.text  # shown, as text
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e]", html)
    for tag, attributes in found.tags:
        for name in ("src", "href", "action", "data", "srcset"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:,")), (tag, name, value)
    assert "url(" not in html
    assert "@import" not in html


def test_an_amended_entry_takes_the_place_of_the_first() -> None:
    first = dataclasses.replace(samples.UNSURE, id=1)
    later = dataclasses.replace(samples.FORGED, id=2, amends=1)
    found = page(first, later)
    assert "1 reset: 1 forged." in found.text
    assert "reset-1" in found.named()
    assert "reset-2" not in found.named()


def test_what_is_kept_is_bounded_and_the_rest_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MOST_ENTRIES", "MOST_OTHERS", "MOST_CONNECTIONS"):
        monkeypatch.setattr(module, name, 3)
    entries = [
        dataclasses.replace(
            samples.FORGED,
            id=number,
            reset=dataclasses.replace(samples.FORGED.reset, local=Endpoint("10.0.0.5", number)),
        )
        for number in range(1, 11)
    ]
    found = page(*entries)
    assert "10 resets: 10 forged." in found.text
    assert "7 more resets are counted above without details" in found.text
    assert "7 resets of other connections are counted above" in found.text


def test_no_reset_is_said() -> None:
    assert "No reset was seen." in page().text


def test_packets_come_in_order_of_time_and_the_reset_is_marked() -> None:
    rows = packets(samples.FORGED.reset)
    assert [row.marked for row in rows].count(True) == 1
    assert rows[-1].marked
    assert [row.after for row in rows] == ["-60 ms", "-20 ms", "-0.4 ms", "0"]
    assert [row.source for row in rows] == ["10.0.0.5", "10.9.8.7", "10.0.0.5", "10.9.8.7"]
    assert rows[-1].ip_id == "0x32fc DF"


def test_a_timeline_is_bounded_and_counts_right() -> None:
    timeline = Timeline()
    for number in range(10_000):
        timeline.add(samples.TIME + number * 7_777_777, Origin.FORGED)
    timeline.add(samples.TIME - 3_600_000_000_000, Origin.PEER)
    timeline.add(NO_TIME, Origin.PEER)
    drawn = draw(timeline)
    assert drawn is not None
    assert len(timeline.bins) <= BINS
    assert sum(sum(counts.values()) for counts in timeline.bins.values()) == 10_001
    for bar in drawn.bars:
        assert 0 <= bar.x <= bar.x + bar.width <= drawn.width + 0.2
        assert 0 <= bar.y <= bar.y + bar.height <= drawn.height + 0.2
    assert draw(Timeline()) is None


# ---- the file ----


def test_the_file_is_whole_or_not_there(tmp_path: Path) -> None:
    from rsttrace.commands.reporting import Reporting

    path = tmp_path / "report.html"
    path.write_text("yesterday's")
    made = Reporting(str(path), "TCP resets", utc=True, now_ns=samples.TIME)
    made.add(samples.FORGED)
    assert path.read_text() == "yesterday's"
    assert os.listdir(tmp_path) == ["report.html"]
    assert made.write({}, samples.TIME + 1)
    assert "1 reset: 1 forged." in Page(path.read_text()).text
    assert os.listdir(tmp_path) == ["report.html"]
    assert stat.S_IMODE(path.stat().st_mode) & 0o600 == 0o600


def test_data_of_a_connection_is_for_its_owner_alone(tmp_path: Path) -> None:
    from rsttrace.commands.reporting import Reporting

    path = tmp_path / "report.html"
    made = Reporting(str(path), "TCP resets", utc=True, now_ns=samples.TIME)
    sent = SentData(samples.TIME, samples.RST, b"password=secret")
    made.add(samples.with_reset(samples.FORGED, sent_data=sent))
    made.write({}, samples.TIME + 1)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("name", ["no/such/folder.html", "."])
def test_a_place_that_cannot_be_written_is_said_at_the_start(tmp_path: Path, name: str) -> None:
    from rsttrace.commands.reporting import Reporting

    with pytest.raises(RsttraceError, match="cannot write the report"):
        Reporting(str(tmp_path / name), "TCP resets", utc=True, now_ns=samples.TIME)


def test_a_page_that_cannot_be_written_is_a_warning(tmp_path: Path) -> None:
    from rsttrace.commands.reporting import Reporting

    said: list[str] = []
    folder = tmp_path / "folder"
    folder.mkdir()
    made = Reporting(str(folder / "report.html"), "TCP resets", utc=True, now_ns=samples.TIME)
    folder.rmdir()
    assert not made.write({}, samples.TIME + 1, said.append)
    assert "cannot write the report" in said[0]


@pytest.mark.parametrize("link", ["symbolic", "hard", "same"])
def test_a_page_never_replaces_what_is_read(tmp_path: Path, link: str) -> None:
    from rsttrace.commands.reporting import Reporting

    capture, page = tmp_path / "a.pcap", tmp_path / "report.html"
    capture.write_text("evidence")
    if link == "symbolic":
        page.symlink_to(capture)
    elif link == "hard":
        os.link(capture, page)
    else:
        page = capture
    with pytest.raises(UsageError, match="would overwrite"):
        Reporting(str(page), "", utc=True, now_ns=samples.TIME, inputs=[str(capture)])
    assert capture.read_text() == "evidence"
