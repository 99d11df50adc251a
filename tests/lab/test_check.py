"""`rsttrace check` for real, as a node-problem-detector, Nagios and a shell run it."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from rsttrace.demo.lab import Lab
from tests.lab.harness import PLAN, START_S, refuse
from tests.lab.test_kinds import ROUTER, chain

MONITORING = Path(__file__).parents[2] / "docs" / "monitoring"
NPD = json.loads((MONITORING / "node-problem-detector.json").read_text(encoding="utf-8"))
NAGIOS = (MONITORING / "nagios.cfg").read_text(encoding="utf-8")
PROGRAM = "/usr/bin/rsttrace"
GO_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
ADDRESS, PORT = "10.71.2.2", 7996


def ask(lab: Lab, command: list[str], resets: bool = True) -> tuple[int, str, str]:
    """Run a command that names the installed program, while the client is reset again and again."""
    assert command[0] == PROGRAM
    watched = ["--plan", PLAN, "--netns", lab.name("client")]
    process = subprocess.Popen(
        [sys.executable, "-m", "rsttrace", *command[1:], *watched],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while resets and process.poll() is None:
        refuse(lab, ADDRESS, PORT)
    out, err = process.communicate(timeout=START_S + 60)
    return process.returncode, out, err


@pytest.fixture
def forged(routed: Lab) -> Lab:
    """The router rejects in the server's name."""
    chain(routed, ROUTER, "forward", f"tcp dport {PORT} reject with tcp reset")
    return routed


def seconds(text: str) -> float:
    match = GO_DURATION.fullmatch(text)
    assert match is not None, text
    return float(match[1]) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600}[match[2]]


def shorter(arguments: list[str]) -> list[str]:
    """The command with a shorter look: the test has its resets at once."""
    at = arguments.index("--duration") + 1
    return [*arguments[:at], "3s", *arguments[at + 1 :]]


def test_the_configuration_is_one_for_custom_plugins() -> None:
    """As the page on custom plugin monitors of node-problem-detector says."""
    assert NPD["plugin"] == "custom"
    config = NPD["pluginConfig"]
    assert 0 < seconds(config["timeout"]) < seconds(config["invoke_interval"])
    assert config["max_output_length"] >= 80
    assert config["concurrency"] >= 1
    conditions = {condition["type"]: condition for condition in NPD["conditions"]}
    assert all(set(found) == {"type", "reason", "message"} for found in conditions.values())
    for rule in NPD["rules"]:
        assert rule["type"] in ("permanent", "temporary")
        assert (rule["type"] == "permanent") == (rule.get("condition") in conditions)
        assert rule["reason"]
        assert seconds(rule["timeout"]) <= seconds(config["timeout"])
        looks = rule["args"][rule["args"].index("--duration") + 1]
        assert seconds(looks) < seconds(rule["timeout"])  # or it is killed, and unknown


def test_node_problem_detector(forged: Lab) -> None:
    """It runs path and args, takes exit code and standard output, cut at max_output_length."""
    rule = NPD["rules"][0]
    code, out, _ = ask(forged, [rule["path"], *shorter(rule["args"])])
    message = out.strip()
    assert code == 1  # NonOK
    assert len(message) <= NPD["pluginConfig"]["max_output_length"]
    assert re.match(r"CRITICAL: \d+ forged in 3 s: \d+ ", message)
    forged.nft(ROUTER, "flush ruleset")
    code, out, _ = ask(forged, [rule["path"], *shorter(rule["args"])])
    assert code == 0
    assert re.fullmatch(r"OK: 0 of [1-9][\d,]* resets forged in 3 s\n", out)


def test_nagios(forged: Lab) -> None:
    (given,) = re.findall(r"command_line\s+(.*)", NAGIOS)
    (check,) = re.findall(r"check_command\s+(.*)", NAGIOS)
    name, *arguments = check.strip().split("!")
    assert f"command_name    {name}" in NAGIOS
    for number, argument in enumerate(arguments, 1):
        given = given.replace(f"$ARG{number}$", argument)
    assert "$" not in given
    command = shlex.split(given)
    code, out, _ = ask(forged, shorter(command[command.index(PROGRAM) :]))
    assert code == 2
    text, _, perfdata = out.strip().partition(" | ")
    assert text.startswith("RESETS CRITICAL - ")
    assert len(text) <= 80
    assert re.fullmatch(r"'forged'=\d+;1;0\.5;0 resets=\d+;;;0 rate=[\d.]+;;;0", perfdata)


def test_a_shell_gets_json_and_nothing_is_ok(routed: Lab) -> None:
    command = [PROGRAM, "check", "--duration", "1s", "--style", "json", "--fail-on", "any"]
    code, out, _ = ask(routed, command, resets=False)
    made = json.loads(out)["check"]
    assert (code, made["status"], made["matched"], made["worst"]) == (0, "ok", 0, None)
