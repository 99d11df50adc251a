"""What the helper says of processes, and for how long it is believed."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from rsttrace.privileges import asking
from rsttrace.privileges.asking import HelpedOwners


class Node:
    """Answers as the helper does, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.answers: dict[str, Any] = {}

    def __call__(self, *question: Any) -> Any:
        self.asked.append(question)
        return self.answers[question[0]]


@pytest.fixture
def node() -> Node:
    return Node()


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands, for what is believed."""
    time = [1000.0]
    known = asking._Believed
    monkeypatch.setattr(asking, "_Believed", lambda: known(lambda: time[0]))
    return time


@pytest.fixture
def owners(node: Node, now: list[float]) -> Iterator[HelpedOwners]:
    del now
    made = HelpedOwners(node)
    yield made
    made.close()


def test_a_running_process_is_asked_about_once_a_second(
    owners: HelpedOwners, node: Node, now: list[float]
) -> None:
    node.answers["unit_of_process"] = "first.service"
    with subprocess.Popen(["sleep", "60"]) as process:
        assert owners.unit_of_process(process.pid) == "first.service"
        node.answers["unit_of_process"] = "second.service"
        now[0] += asking.CGROUP_BELIEVED_S / 2
        assert owners.unit_of_process(process.pid) == "first.service"
        now[0] += asking.CGROUP_BELIEVED_S
        assert owners.unit_of_process(process.pid) == "second.service"
        process.kill()
    assert len(node.asked) == 2


def test_who_has_its_number_later_is_asked_about_anew(owners: HelpedOwners, node: Node) -> None:
    node.answers["container_of_process"] = [["a" * 12, None], None]
    with subprocess.Popen(["sleep", "60"]) as process:
        owners.container_of_process(process.pid)
        process.kill()
    node.answers["container_of_process"] = [None, None]
    assert owners.container_of_process(process.pid) == (None, None)
    assert len(node.asked) == 2


def test_only_a_holder_that_was_found_is_believed(
    owners: HelpedOwners, node: Node, now: list[float]
) -> None:
    """A walk that was put off may be made the next moment."""
    node.answers["process"] = (None, True)
    assert owners.process(7, 1) is None
    assert owners.put_off
    node.answers["process"] = ([42, "nginx"], False)
    assert owners.process(7, 1) == (42, "nginx")
    node.answers["process"] = ([43, "other"], False)
    assert owners.process(7, 1) == (42, "nginx")
    assert owners.process(8, 1) == (43, "other")
    now[0] += asking.BELIEVED_S
    assert owners.process(7, 1) == (43, "other")
    assert len(node.asked) == 4
