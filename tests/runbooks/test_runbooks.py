"""Every command of the runbooks does what they say, in a lab where that fault is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.harness import skip_without
from tests.runbooks.runner import (
    RUNBOOKS,
    Block,
    Command,
    Stage,
    blocks,
    differences,
    documents,
    shape,
)
from tests.runbooks.scenes import SCENES

BLOCKS = [block for path in documents() for block in blocks(path)]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    skip_without("nft", "conntrack", "tcpdump")
    with Stage(tmp_path_factory.mktemp("runbooks")) as stage:
        yield stage


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.name)
def test_a_block_prints_what_it_says(block: Block, stage: Stage) -> None:
    """Else: sudo .venv/bin/python -m tests.runbooks, and read the difference."""
    for documented, real in zip(block.commands, stage.play(block)):
        assert differences(documented, real) == [], "\n".join(real.output)


# ---- the documents themselves ----


def test_there_is_a_runbook_for_each_question_and_a_list_of_them() -> None:
    names = {path.stem for path in documents()}
    assert {
        *("connection-reset-by-peer", "firewall-or-vpn", "which-box"),
        *("kubernetes", "idle-connections"),
    } <= names
    listed = set(re.findall(r"\]\(([\w-]+)\.md\)", (RUNBOOKS / "README.md").read_text()))
    assert listed == names


@pytest.mark.parametrize("path", documents(), ids=lambda path: path.stem)
def test_every_command_that_is_shown_is_run(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("```console") == len(blocks(path)) > 2
    for block in blocks(path):
        assert block.scene in SCENES
        assert block.until is not None or not any(
            command.goes_on and "tcpdump" not in command.words for command in block.commands
        )
    fences = re.findall(r"^```(\w*)$", text, re.MULTILINE)
    assert set(fences) == {"console", ""}


@pytest.mark.parametrize("path", documents(), ids=lambda path: path.stem)
def test_every_step_that_is_pointed_to_is_there(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    steps = re.findall(r"^## (\d+)\. ", text, re.MULTILINE)
    assert steps == [str(number + 1) for number in range(len(steps))]
    assert len(steps) >= 3
    pointed = set(re.findall(r"\bstep (\d+)", text))
    assert pointed
    assert pointed <= set(steps)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2026-11-29T14:07:28.282 IN  FORGED 97%", "2026-11-30T01:00:00.000 IN  FORGED 99%", True),
        ("IN  FORGED 97%", "IN  PEER 97%", False),
        ("IN  PEER 97%  refused  [python[4711], uid 0]", "IN  PEER 97%  refused", True),
        ("    + TTL 63, 1.2 ms before", "    + TTL 61, 400 µs before", True),
        ("by a box, 1 hop away", "by a box, 2 hops away", False),
        ("by 52:43:31:6a:19:05 (A (b or c)) = us", "by d2:b7:0b:5b:a1:d0 (A (b or c)) = us", True),
        ("10.1.0.5:51234 <- 10.9.8.7:3306", "10.1.0.5:40001 <- 10.9.8.7:3306", True),
        ("10.1.0.5:51234 <- 10.9.8.7:3306", "10.1.0.5:51234 -> 10.9.8.7:3306", False),
        ("10.1.0.5:51234 <- 10.9.8.7:3306", "10.1.0.6:51234 <- 10.9.8.7:3306", False),
    ],
)
def test_shapes(one: str, other: str, same: bool) -> None:
    assert (shape(one) == shape(other)) is same


def test_a_line_that_is_not_printed_is_a_difference() -> None:
    documented = Command("", "rsttrace", ["received  PEER 97%", "    + seen", "    + more"])
    assert differences(documented, Command("", "", ["received  PEER 99%", "    + more"])) == []
    assert differences(documented, Command("", "", ["received  FORGED 99%", "    + more"])) == [
        "received  PEER 97%"
    ]
    assert differences(documented, Command("", "", ["received  PEER 99%", "    + x"])) == ["+ seen"]
