"""``rsttrace top`` in a real terminal of 80 columns and 24 lines: keys typed, screens compared."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rsttrace.demo.lab import Lab
from tests.lab.harness import linger_zero, poll_until

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="needs tmux")
CASES = Path(__file__).parents[1] / "cases"


class Terminal:
    """A terminal of its own, in tmux."""

    def __init__(self, socket: Path) -> None:
        self._tmux = ["tmux", "-S", str(socket), "-f", "/dev/null"]

    def _run(self, *words: str) -> str:
        ran = subprocess.run([*self._tmux, *words], check=True, capture_output=True, text=True)
        return ran.stdout

    def start(self, *options: str, environment: dict[str, str] | None = None) -> None:
        words = [f"{name}={value}" for name, value in (environment or {}).items()]
        command = shlex.join(["env", *words, sys.executable, "-m", "rsttrace", "top", *options])
        self._run("new-session", "-d", "-x", "80", "-y", "24", "-c", os.getcwd(), command)
        self._run("set-option", "-g", "remain-on-exit", "on")
        self._run("set-option", "-g", "escape-time", "0")

    def screen(self) -> str:
        return self._run("capture-pane", "-p")

    def colours(self) -> str:
        return self._run("capture-pane", "-p", "-e")

    def type(self, *keys: str) -> None:
        self._run("send-keys", *keys)

    def write(self, text: str) -> None:
        self._run("send-keys", "-l", text)

    def wait(self, text: str) -> str:
        def shown() -> bool:
            return text in self.screen()

        try:
            poll_until(shown, f"{text!r} on the screen")
        except AssertionError as error:
            raise AssertionError(f"{error}; there is:\n{self.screen()}") from None
        return self.screen()

    def ended(self) -> bool:
        return self._run("list-panes", "-F", "#{pane_dead}").strip() == "1"

    def close(self) -> None:
        subprocess.run([*self._tmux, "kill-server"], check=False, capture_output=True)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    made = Terminal(tmp_path / "tmux")
    yield made
    made.close()


def test_a_capture_is_looked_through_with_keys(terminal: Terminal) -> None:
    terminal.start("--utc", "-r", str(CASES / "any-honest.pcap"))
    screen = terminal.wait("[ended]  2 resets")
    assert "peer 2" in screen
    assert max(len(line) for line in screen.splitlines()) <= 80
    assert "10.130.2.2:80" in screen
    terminal.type("Tab")
    terminal.wait("      2  10.130.2.2")
    terminal.type("Down", "Enter")
    details = terminal.wait("rst: flags R")
    assert "PEER 97%" in details
    terminal.type("Escape")
    terminal.wait("[ended]")
    terminal.type("/")
    terminal.wait("words that a line must have")
    terminal.write("no socket listens")
    terminal.wait("filter: no socket listens")
    poll_until(lambda: terminal.screen().count("PEER 97%") == 1, "one line that fits")
    terminal.type("Escape")
    poll_until(lambda: terminal.screen().count("PEER 97%") == 2, "both lines again")
    terminal.type("Space")
    terminal.wait("[PAUSED]")
    terminal.type("q")
    poll_until(terminal.ended, "the end")


def test_what_is_listed_is_saved_and_nothing_is_overwritten(
    terminal: Terminal, tmp_path: Path
) -> None:
    terminal.start("-r", str(CASES / "pf-reset.pcap"))
    terminal.wait("1 reset")
    saved, there = tmp_path / "saved.jsonl", tmp_path / "there.jsonl"
    there.write_text("yesterday's")
    for path, answer in ((saved, "saved to"), (there, "File exists")):
        terminal.type("w")
        terminal.wait("save 1 reset to")
        terminal.type("C-a", "C-k")
        poll_until(lambda: "resets.jsonl" not in terminal.screen(), "an empty field")
        terminal.write(str(path))
        terminal.type("Enter")
        terminal.wait(answer)
    assert json.loads(saved.read_text())["origin"] == "forged"
    assert there.read_text() == "yesterday's"


def test_json_lines_are_sorted_and_saved_as_pcapng(terminal: Terminal, tmp_path: Path) -> None:
    files = [str(CASES / name) for name in ("any-honest.pcap", "pf-reset.pcap")]
    read = [sys.executable, "-m", "rsttrace", "read", "-o", "json", *files]
    log, saved = tmp_path / "node.jsonl", tmp_path / "saved.pcapng"
    log.write_bytes(subprocess.run(read, check=True, capture_output=True).stdout)
    terminal.start("--utc", "-r", str(log))
    terminal.wait("[ended]  3 resets")

    def verdicts() -> list[str]:
        return re.findall(r"(?:FORGED|PEER) \d+%", terminal.screen())

    before = verdicts()
    assert len(before) == 3
    for by in ("verdict", "remote", "who and why", "local"):
        terminal.type("s")
        terminal.wait(f"by {by}")
        if by == "verdict":
            poll_until(lambda: verdicts() == sorted(before), "the order of the verdicts")
    terminal.type("s")
    poll_until(lambda: verdicts() == before, "the order of time again")
    terminal.type("/")
    terminal.wait("words that a line must have")
    terminal.write("forged")
    terminal.wait("filter: forged")
    terminal.type("Enter")
    poll_until(lambda: terminal.screen().count("forged") == 2, "the field to be closed")
    terminal.type("p")
    terminal.wait("save 1 reset to")
    terminal.type("C-a", "C-k")
    poll_until(lambda: "resets.pcapng" not in terminal.screen(), "an empty field")
    terminal.write(str(saved))
    terminal.type("Enter")
    poll_until(lambda: saved.exists() and saved.stat().st_size > 0, "the file")
    terminal.type("q")
    poll_until(terminal.ended, "the end")
    again = [sys.executable, "-m", "rsttrace", "read", "-o", "json", str(saved)]
    ran = subprocess.run(again, check=True, capture_output=True, text=True)
    (line,) = ran.stdout.splitlines()
    assert json.loads(line)["remote"] == {"ip": "198.51.100.24", "port": 443}


COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])(?:;\d+)*m")
"""SGR with any colour (ECMA-48, 8.3.117); 39 and 49 are the terminal's own."""


def test_without_colour_the_words_say_it_and_the_chosen_line_is_reversed(
    terminal: Terminal,
) -> None:
    terminal.start("-r", str(CASES / "pf-reset.pcap"), environment={"NO_COLOR": "1"})
    terminal.wait("FORGED 99%")
    shown = terminal.colours()
    assert COLOUR.findall(shown) == []
    (line,) = (line for line in shown.splitlines() if "FORGED 99%" in line)
    assert re.search(r"\x1b\[(?:\d+;)*7(?:;\d+)*m", line)


def test_with_colour_there_is_colour(terminal: Terminal) -> None:
    terminal.start("-r", str(CASES / "pf-reset.pcap"))
    terminal.wait("FORGED 99%")
    assert COLOUR.findall(terminal.colours())


def test_a_terminal_as_old_as_the_vt100_shows_all_of_it(terminal: Terminal) -> None:
    terminal.start("-r", str(CASES / "pf-reset.pcap"), environment={"TERM": "vt100"})
    assert "198.51.100.24:443" in terminal.wait("FORGED 99%")


def test_live_resets_appear_with_their_rate(terminal: Terminal, routed: Lab) -> None:
    terminal.start("--netns", routed.name("server"))
    terminal.wait("tracing resets")
    with routed.inside("server"):
        import socket

        with socket.create_server(("10.71.2.2", 7411)) as listener:
            with routed.inside("client"):
                client = socket.create_connection(("10.71.2.2", 7411), 10)
            accepted, _ = listener.accept()
            linger_zero(accepted)
            accepted.close()
            client.close()
    screen = terminal.wait("LOCAL")
    assert "local 1" in screen
    assert "/s)" in screen
    terminal.type("Tab", "Tab")
    terminal.wait("/s)  linger: ")
    terminal.type("q")
    poll_until(terminal.ended, "the end")


def test_plain_lines_for_who_cannot_see_a_screen() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "rsttrace", "top", "--plain", "-r", str(CASES / "pf-reset.pcap")],
        check=True,
        capture_output=True,
        text=True,
    )
    assert ran.stdout.startswith("1 reset: 1 forged; last forged, between 10.9.1.5:40006 and ")
    assert "\x1b" not in ran.stdout
