"""rsttrace.service, in a systemd that the test boots."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.harness import PLAN, poll_until, skip_without
from tests.watch.booted import SYSTEMD, THERE, Booted

UNITS = Path(__file__).parents[2] / "docs" / "systemd"
UNIT = (UNITS / "rsttrace.service").read_text(encoding="utf-8")
DEFAULTS = (UNITS / "rsttrace.default").read_text(encoding="utf-8")
NAME = "rsttrace.service"
EXPOSURE_MOST = 4.0
"""What systemd-analyze says of the unit; tracing needs CAP_SYS_ADMIN, which is most of it."""

COMMAND = f"""#!/bin/sh
cd {THERE} && exec .venv/bin/python -m rsttrace "$@" --plan {PLAN}
"""

REFUSE = """
import errno, socket
with socket.socket() as client:
    assert client.connect_ex(("127.0.0.1", 9)) == errno.ECONNREFUSED
"""

SCRAPE = """
import urllib.request
print(urllib.request.urlopen("http://127.0.0.1:9741/metrics", timeout=20).read().decode())
"""


@pytest.fixture(scope="module")
def system() -> Iterator[Booted]:
    skip_without(SYSTEMD, "systemctl", "unshare", "nsenter", "tar")
    files = {
        "/usr/bin/rsttrace": COMMAND,
        f"/etc/systemd/system/{NAME}": UNIT,
        "/etc/default/rsttrace": DEFAULTS,
    }
    with Booted(files) as system:
        yield system


@pytest.fixture
def service(system: Booted) -> Iterator[Booted]:
    """The system with the service started."""
    done = system.run("systemctl", "start", NAME)
    assert done.returncode == 0, done.stderr + system.run("journalctl", "-u", NAME).stdout
    yield system
    system.run("systemctl", "stop", NAME)
    system.run("systemctl", "reset-failed", NAME)


def journal(system: Booted, *matches: str) -> list[dict[str, Any]]:
    assert system.run("journalctl", "--sync").returncode == 0
    done = system.run("journalctl", "-o", "json", "--all", *matches)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_it_is_active_once_it_is_armed(service: Booted) -> None:
    """`systemctl start` returns then: the very next reset is in the journal."""
    assert service.show(NAME, "ActiveState") == "active"
    assert re.fullmatch(
        r"plan \w+, \d+ of \d+ hooks: [\d,]+ resets shown, [\d,]+ forged",
        service.show(NAME, "StatusText"),
    )
    assert service.python(REFUSE).returncode == 0
    netns = service.run("stat", "-Lc", "%i", "/proc/self/ns/net").stdout.strip()
    found: list[dict[str, Any]] = []

    def arrived() -> bool:
        mine = f"RSTTRACE_NETNS={netns}"  # others of this machine may be reset meanwhile
        found[:] = journal(
            service, f"_SYSTEMD_UNIT={NAME}", "RSTTRACE_CAUSE=connection-refused", mine
        )
        return bool(found)

    poll_until(arrived, "the entry")
    entry = json.loads(found[0]["RSTTRACE_JSON"])
    assert entry["origin"] == "peer"
    assert entry["process"]["comm"].startswith("python")
    assert "OBJECT_PID" not in found[0]  # the kernel's number is another one's in this namespace
    poll_until(lambda: ": 0 resets" not in service.show(NAME, "StatusText"), "the status")
    said = [one["MESSAGE"] for one in journal(service, "-t", "rsttrace", "_TRANSPORT=stdout")]
    assert [line for line in said if "tracing resets" in line]
    assert [line for line in said if "not attached" in line] == []


def test_the_journal_gives_the_json_lines_back(service: Booted) -> None:
    assert service.python(REFUSE).returncode == 0
    poll_until(lambda: bool(journal(service, "RSTTRACE_ORIGIN=peer")), "an entry")
    lines = service.run(
        *("journalctl", "-t", "rsttrace", "-o", "cat", "--output-fields=RSTTRACE_JSON")
    ).stdout.splitlines()
    assert lines
    assert {json.loads(line)["schema"] for line in lines} == {1}


REJECT = """table inet t {
chain i {
type filter hook input priority 0; tcp dport 9 reject with tcp reset
}
}"""


def test_it_sees_into_other_namespaces_from_its_sandbox(service: Booted) -> None:
    """One that came later, with a firewall of its own: its name, its rules, its processes."""
    inside = "ip netns exec later"
    script = (
        f"ip netns add later && ip -n later link set lo up && echo '{REJECT}' | {inside} nft -f -"
    )
    assert service.run("sh", "-c", script).returncode == 0
    assert service.run(*inside.split(), sys.executable, "-c", REFUSE).returncode == 0
    found: list[dict[str, Any]] = []

    def arrived() -> bool:
        found[:] = journal(service, "RSTTRACE_NETNS_NAME=later", "RSTTRACE_FINDING=rejecting-rule")
        return len(found) > 1

    poll_until(arrived, "both ends")
    kinds = {one["RSTTRACE_KIND"]: one for one in found}
    assert kinds.keys() == {"sent-netfilter", "received-accepted"}
    assert kinds["received-accepted"]["RSTTRACE_COMM"].startswith("python")


def test_the_options_of_etc_default_count(service: Booted) -> None:
    assert "rsttrace_build_info{" in service.python(SCRAPE).stdout


def test_it_ends_cleanly_and_leaves_nothing(service: Booted) -> None:
    assert service.run("systemctl", "stop", NAME).returncode == 0
    assert service.show(NAME, "Result") == "success"
    assert service.show(NAME, "ExecMainStatus") == "0"


def test_compiled_programs_are_kept_between_starts(service: Booted) -> None:
    kept = service.run("ls", "/var/cache/rsttrace").stdout
    assert kept
    assert service.run("systemctl", "restart", NAME).returncode == 0
    assert service.run("ls", "/var/cache/rsttrace").stdout == kept


def test_one_that_hangs_is_started_anew(service: Booted) -> None:
    """The watchdog, in a hurry."""
    hurried = "[Service]\nWatchdogSec=1\nRestartSec=0\n"
    folder = f"/run/systemd/system/{NAME}.d"
    script = f"mkdir -p {folder} && printf %s '{hurried}' >{folder}/test.conf"
    assert service.run("sh", "-c", script).returncode == 0
    try:
        assert service.run("systemctl", "daemon-reload").returncode == 0
        assert service.run("systemctl", "restart", NAME).returncode == 0
        first = service.show(NAME, "MainPID")
        since = service.show(NAME, "WatchdogTimestampMonotonic")
        poll_until(
            lambda: service.show(NAME, "WatchdogTimestampMonotonic") != since, "signs of life"
        )
        assert service.show(NAME, "MainPID") == first
        service.signal(NAME, signal.SIGSTOP)
        poll_until(lambda: service.show(NAME, "NRestarts") == "1", "the restart")
        poll_until(lambda: service.show(NAME, "ActiveState") == "active", "the second start")
        assert service.show(NAME, "MainPID") != first
    finally:
        service.run("rm", "-r", folder)
        service.run("systemctl", "daemon-reload")


def test_options_that_are_wrong_fail_the_start_with_a_reason(system: Booted) -> None:
    wrong = "RSTTRACE_OPTIONS=--metrics nonsense"
    system.run(
        "sh", "-c", f"mv /etc/default/rsttrace /tmp/kept && echo '{wrong}' >/etc/default/rsttrace"
    )
    try:
        assert system.run("systemctl", "start", NAME).returncode != 0
        system.run("systemctl", "stop", NAME)
        said = [one["MESSAGE"] for one in journal(system, f"_SYSTEMD_UNIT={NAME}")]
        assert [line for line in said if "'nonsense' is not a port" in line]
    finally:
        system.run("mv", "/tmp/kept", "/etc/default/rsttrace")
        system.run("systemctl", "reset-failed", NAME)


# ---- the unit's text ----


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    skip_without("systemd-analyze")
    return subprocess.run(
        ["systemd-analyze", *arguments], capture_output=True, text=True, check=False, timeout=60
    )


def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    """But for the program and the man page, which only the package installs."""
    program = tmp_path / "rsttrace"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    text = UNIT.replace("/usr/bin/rsttrace", str(program)).replace("man:rsttrace(8)", "man:ls(1)")
    unit = tmp_path / NAME
    unit.write_text(text)
    done = analyze("verify", "--man=no", str(unit))
    assert (done.returncode, done.stderr) == (0, "")


def test_it_may_do_no_more_than_was_decided() -> None:
    done = analyze("security", "--offline=true", "--no-pager", str(UNITS / NAME))
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze cannot look at a file (before 250)")
    score = re.search(r"Overall exposure level for rsttrace\.service: ([\d.]+)", done.stdout)
    assert score is not None, done.stdout + done.stderr
    assert float(score[1]) <= EXPOSURE_MOST


def test_the_options_in_the_defaults_are_options() -> None:
    from rsttrace.cli.trace import command

    known = {name for parameter in command.params for name in parameter.opts}
    named = set(re.findall(r"(?<![\w-])--\w[\w-]*", DEFAULTS + UNIT))
    assert "--metrics" in named
    assert named <= known
