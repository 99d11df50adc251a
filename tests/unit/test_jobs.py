from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from rsttrace.commands.holders import HolderFinder
from rsttrace.commands.jobs import EVERY_S, MAX_WAITING, Worker
from rsttrace.enrich import Neighbors, NetnsDirectory
from rsttrace.errors import RsttraceError
from rsttrace.model import Evidence, Kind, NextHop
from tests.unit.test_render_samples import FORGED, NODE, with_reset, with_verdict

SECONDS = 20.0


@pytest.fixture
def clock() -> list[float]:
    return [100.0]


@pytest.fixture
def gate() -> threading.Event:
    return threading.Event()


@pytest.fixture
def work(clock: list[float], gate: threading.Event) -> Iterator[Worker[str, str]]:
    def run(
        job: str, directory: NetnsDirectory, neighbors: Neighbors, stopped: Callable[[], bool]
    ) -> str:
        assert gate.wait(SECONDS)
        if job == "fails":
            raise RsttraceError("it failed")
        if job == "breaks":
            raise OSError(99, "broken")
        if job == "surprises":
            raise ValueError("nobody thought of it")
        return job.upper()

    with Worker(run, "test", clock=lambda: clock[0]) as made:
        yield made
        gate.set()


def test_each_key_once_in_a_while(
    work: Worker[str, str], clock: list[float], gate: threading.Event
) -> None:
    gate.set()
    assert work.put("a", "one")
    assert not work.put("a", "again")
    assert work.results(SECONDS) == [("one", "ONE")]
    assert not work.busy
    clock[0] += EVERY_S
    assert work.put("a", "later")
    assert work.results(SECONDS) == [("later", "LATER")]
    assert (work.results(), work.left_out) == ([], 0)


def test_too_much_is_left_out_and_counted(work: Worker[str, str], gate: threading.Event) -> None:
    taken = [work.put(number, str(number)) for number in range(MAX_WAITING + 5)]
    # one of them may be under way already
    assert MAX_WAITING <= sum(taken) <= MAX_WAITING + 1
    assert work.left_out == len(taken) - sum(taken)
    assert work.busy
    gate.set()
    found = 0
    while work.busy:
        found += len(work.results(SECONDS))
    assert found == sum(taken)


@pytest.mark.parametrize(
    ("job", "words"),
    [
        ("fails", "it failed"),
        ("breaks", "probing failed: broken"),
        ("surprises", "probing failed: ValueError('nobody thought of it')"),
    ],
)
def test_errors_are_results(
    job: str, words: str, work: Worker[str, str], gate: threading.Event
) -> None:
    gate.set()
    work.put(1, job)
    ((_, found),) = work.results(SECONDS)
    assert isinstance(found, RsttraceError)
    assert words in found.what
    work.put(2, "next")
    assert work.results(SECONDS) == [("next", "NEXT")]


DOUBLE = Evidence("duplicate-address", 0.0, "twice", {"macs": ["a", "b"]})
HOP = NextHop(FORGED.reset.rst.src.ip, None, False, 2)
TWICE = with_verdict(
    with_reset(FORGED, next_hop=HOP, netns=NODE),
    findings=("duplicate-address",),
    evidence=(DOUBLE,),
)


class Asked(HolderFinder):
    """Takes the questions instead of asking them."""

    def put(self, key: object, job: object) -> bool:
        self.asked = job
        return True


def test_what_is_asked_for() -> None:
    asker = Asked()
    assert asker.ask(TWICE)
    assert asker.asked.ip == HOP.ip  # type: ignore[attr-defined]
    assert asker.asked.seen == ("a", "b")  # type: ignore[attr-defined]
    assert asker.asked.entry == TWICE.id  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "changes",
    [
        {"next_hop": None},
        {"next_hop": NextHop(HOP.ip, None, True, 2)},
        {"next_hop": NextHop("10.9.9.9", None, False, 2)},
        {"next_hop": NextHop(HOP.ip, None, False, 1, is_local=True)},
        {"netns": None},
        {"kind": Kind.FORWARDED},
        {"kind": Kind.SENT_PASSIVE},
    ],
)
def test_what_is_not(changes: dict[str, object]) -> None:
    assert not Asked().ask(with_reset(TWICE, **changes))
    assert not Asked().ask(with_verdict(TWICE, findings=()))
