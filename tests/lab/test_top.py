"""``rsttrace top`` in a real terminal of 80 columns and 24 lines: keys typed, screens compared."""

from __future__ import annotations

import json
import os
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


def test_without_colour_the_words_say_it(terminal: Terminal) -> None:
    terminal.start("-r", str(CASES / "pf-reset.pcap"), environment={"NO_COLOR": "1"})
    terminal.wait("FORGED 99%")
    assert "\x1b[31m" not in terminal.colours()


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
