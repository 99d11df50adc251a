"""rsttrace-check.service and its timer, in a systemd that the test boots."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.lab.harness import poll_until, skip_without
from tests.watch.booted import SYSTEMD, Booted
from tests.watch.test_service import COMMAND, UNITS, analyze

SERVICE, TIMER = "rsttrace-check.service", "rsttrace-check.timer"


@pytest.fixture(scope="module")
def system() -> Iterator[Booted]:
    skip_without(SYSTEMD, "systemctl", "unshare", "nsenter", "tar")
    unit = (UNITS / SERVICE).read_text(encoding="utf-8")
    files = {
        "/usr/bin/rsttrace": COMMAND,
        f"/etc/systemd/system/{SERVICE}": unit.replace("--duration 30s", "--duration 1s"),
        f"/etc/systemd/system/{TIMER}": (UNITS / TIMER)
        .read_text(encoding="utf-8")
        .replace("OnBootSec=2min", "OnActiveSec=0")
        .replace("RandomizedDelaySec=30s", ""),
    }
    with Booted(files) as system:
        yield system


def test_the_timer_runs_the_check(system: Booted) -> None:
    assert system.run("systemctl", "start", TIMER).returncode == 0

    def said() -> str:
        system.run("journalctl", "--sync")
        return system.run("journalctl", "-t", "rsttrace-check", "-o", "cat").stdout

    poll_until(lambda: bool(said()), "the line")
    assert re.search(r"^(OK: 0 of|CRITICAL: )[ \d,]+.* forged in 1 s", said(), re.MULTILINE), said()
    poll_until(lambda: system.show(SERVICE, "ActiveState") in ("inactive", "failed"), "the end")
    status = system.show(SERVICE, "ExecMainStatus")
    assert status == ("0" if said().startswith("OK") else "1")


def test_systemd_finds_nothing_wrong_with_the_units() -> None:
    skip_without("systemd-analyze")
    done = analyze("verify", "--man=no", str(UNITS / TIMER))
    wrong = [
        line
        for line in done.stderr.splitlines()
        if "rsttrace-check" in line and "is not executable" not in line  # not installed here
    ]
    assert wrong == []
