"""Asks the node beside a trace why it was so: its sockets, its rules, its tracked connections."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING

from rsttrace.commands.jobs import Worker
from rsttrace.commands.run import Run
from rsttrace.enrich import Neighbors, NetnsDirectory
from rsttrace.enrich.question import (
    Answer,
    Question,
    is_of_a_moment,
    question_about,
    question_key,
)
from rsttrace.errors import RsttraceError
from rsttrace.judge.history import Case
from rsttrace.limits import (
    NOTE_ANSWER_S,
    NOTE_ANSWERS,
    NOTE_CPU_S,
    NOTE_CPU_SHARE,
    NOTE_LAST_S,
    NOTE_QUESTIONS_AT_ONCE,
    NOTE_QUESTIONS_PER_S,
    NOTE_WAITING,
)
from rsttrace.model import Note, Reset

if TYPE_CHECKING:
    from rsttrace.enrich.escaped import Learned
    from rsttrace.enrich.inquiry import Inquiry

_SLICE_S = 0.1


class _Share:
    """What may be taken of a CPU: some at once, and a part of the time in the long run."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._owed, self._at, self._spent = 0.0, clock(), 0.0

    def is_left(self, spent: float) -> bool:
        """Whether there is some left, when so many seconds have been taken since the start."""
        now = self._clock()
        paid = (now - self._at) * NOTE_CPU_SHARE
        self._owed = max(0.0, self._owed - paid) + spent - self._spent
        self._at, self._spent = now, spent
        return self._owed < NOTE_CPU_S


class Noting:
    """Puts `Note`s on the resets of a trace, as their answers come. A context manager.

    Args:
        identity: of a namespace by its inode number, if it is known (`Reset.netns_identity`).
        learned: what the kernel side has learned of a connection.
        whole_node: also look into other namespaces than the reset's own.
        verbose: say what could not be looked at.
    """

    def __init__(
        self,
        identity: Callable[[int], int | None],
        learned: Learned | None,
        *,
        whole_node: bool = True,
        verbose: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._identity = identity
        self._verbose = verbose
        self._clock = clock
        # Listing rules may take seconds, for which nobody else must wait.
        self._workers = tuple(
            self._start(name, learned, whole_node) for name in ("rsttrace-rules", "rsttrace-notes")
        )
        self._waiting: dict[Hashable, list[Case]] = {}
        self._answers: OrderedDict[Hashable, tuple[float, tuple[Note, ...]]] = OrderedDict()
        self._left = float(NOTE_QUESTIONS_AT_ONCE)
        self._earned = clock()
        self._share = _Share(clock)
        self._told: set[str] = set()

    @staticmethod
    def _start(name: str, learned: Learned | None, whole_node: bool) -> Worker[Question, Answer]:
        found: list[Inquiry] = []

        def run(
            question: Question,
            directory: NetnsDirectory,
            neighbors: Neighbors,
            stopped: Callable[[], bool],
        ) -> Answer:
            if not found:  # imported and made with the first question, in the worker's thread
                from rsttrace.enrich.inquiry import Inquiry

                found.append(Inquiry(directory, neighbors.owns, learned, whole_node))
            return found[0].answer(question, stopped)

        return Worker(run, name, every_s=0.0)

    def __enter__(self) -> Noting:
        for worker in self._workers:
            worker.__enter__()
        return self

    def __exit__(self, *exc_info: object) -> None:
        for worker in self._workers:
            worker.__exit__(None, None, None)

    def ask(self, case: Case) -> None:
        """Ask what is worth asking about a reset, unless too much has been asked already."""
        key = question_key(case.reset, self._identity)
        if key is None:
            return
        waiting = self._waiting.get(key)
        if waiting is not None:
            if len(waiting) < NOTE_WAITING:
                waiting.append(case)
            return
        known = None if is_of_a_moment(key) else self._answers.get(key)
        if known is not None and self._clock() < known[0]:
            if known[1]:
                add(case.reset, known[1])
            return
        question = question_about(case.reset, key)
        is_of_rules = question.what == "rules"
        worker = self._workers[not is_of_rules]
        if self._may_ask(worker, is_of_rules) and worker.put(key, question):
            self._waiting[key] = [case]

    def _may_ask(self, worker: Worker[Question, Answer], is_of_rules: bool) -> bool:
        # Rules are listed anew only when they have changed.
        if not is_of_rules and not self._share.is_left(worker.cpu_s):
            return False
        now = self._clock()
        earned = (now - self._earned) * NOTE_QUESTIONS_PER_S
        self._left, self._earned = min(float(NOTE_QUESTIONS_AT_ONCE), self._left + earned), now
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def take(self, run: Run, seconds: float = 0.0) -> None:
        """Put what has been found on the resets; each worker is waited for so long, if it works."""
        if not self._waiting:
            return
        results = [item for worker in self._workers for item in worker.results(seconds)]
        for question, found in results:
            cases = self._waiting.pop(question.key, [])
            answer = Answer((), (found.what,)) if isinstance(found, RsttraceError) else found
            for text in answer.complaints:
                self._complain(run, text)
            self._answers[question.key] = (self._clock() + NOTE_ANSWER_S, answer.notes)
            self._answers.move_to_end(question.key)
            if len(self._answers) > NOTE_ANSWERS:
                self._answers.popitem(last=False)
            for case in cases:
                if add(case.reset, answer.notes):
                    run.history.noted(case)

    def finish(self, run: Run) -> None:
        """Wait for the answers that are still to come, as far as there is time."""
        until = self._clock() + NOTE_LAST_S
        while any(worker.busy for worker in self._workers) and self._clock() < until:
            self.take(run, _SLICE_S)

    def _complain(self, run: Run, text: str) -> None:
        if self._verbose and text not in self._told and len(self._told) < NOTE_WAITING:
            self._told.add(text)
            run.say(f"not looked at: {text}")


def add(reset: Reset, notes: tuple[Note, ...]) -> bool:
    """Put notes on a reset, each name once; whether there was a new one."""
    known = {note.name for note in reset.notes}
    new = tuple(note for note in notes if note.name not in known)
    reset.notes += new
    return bool(new)
