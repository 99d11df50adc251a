"""What a trace probes beside its work: ``--locate``, ``--probe`` and ``--probe-arp``."""

from __future__ import annotations

import contextlib
import time

from rsttrace.commands.asker import Asker
from rsttrace.commands.holders import HolderFinder, holder_job_lines
from rsttrace.commands.locator import Locator, located_lines
from rsttrace.commands.run import Options, Run
from rsttrace.commands.writer import POLL_S
from rsttrace.errors import PrivilegeError, RsttraceError
from rsttrace.model import Entry, Reset, Verdict

LOCATE_S = 30.0
"""How long the end of a run waits for what is still looked for. A signal cuts it short."""

_INDENT = "    "


class Probing:
    """Asks about the entries of a run, and shows what was found below them.

    Use it as a context manager.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._locator = Locator()
        self._finder = HolderFinder()
        self._asker = Asker()
        self._closing = contextlib.ExitStack()

    def __enter__(self) -> Probing:
        self._closing.enter_context(self._locator)
        self._closing.enter_context(self._finder)
        self._closing.enter_context(self._asker)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._closing.close()

    def ask(self, entry: Entry) -> None:
        """Look into an entry, if that was asked for and it is one for it."""
        if self._options.locate:
            self._locator.ask(entry)
        if self._options.probe_arp:
            self._finder.ask(entry)

    def ask_peer(self, reset: Reset, verdict: Verdict) -> None:
        """Ask the peer of a reset how far away it is, if that was asked for and may tell."""
        if self._options.probe:
            self._asker.ask(reset, verdict)

    def is_own(self, reset: Reset) -> bool:
        """Whether a reset is but the end of a question of ours to a peer."""
        return self._asker.is_own(reset)

    @property
    def busy(self) -> bool:
        """Whether something asked for has not been shown yet."""
        return self._locator.busy or self._finder.busy or self._asker.busy

    def show(self, run: Run, seconds: float = 0.0) -> None:
        """Show what has been found; waits for the first so long, if something is under way.

        Raises:
            BrokenPipeError: nobody reads any more.
            Stuck: nobody reads, and the run is to end.
        """
        output, plain, about = self._options.output, run.writer.plain, run.writer.about
        others = self._locator.busy or self._finder.busy
        self._take_answers(run, 0.0 if others else seconds)
        for job, holders in self._finder.results(0.0 if self._locator.busy else seconds):
            if isinstance(holders, RsttraceError):
                self._failed(run, holders, holders.what)
                continue
            run.writer.lines(holder_job_lines(job, holders, output, plain, _INDENT, about))
        for task, found in self._locator.results(seconds):
            if isinstance(found, RsttraceError):
                self._failed(run, found, f"no path to {task.target.ip}: {found.what}")
                continue
            lines = located_lines(task, found, output, plain, _INDENT, about)
            if output == "text" and task.clue is not None:
                lines.insert(0, f"{_INDENT}#{task.clue.entry}: where the forged reset was made")
            run.writer.lines(lines)

    def _take_answers(self, run: Run, seconds: float) -> None:
        """Have resets judged again by what their peers answered."""
        answers = self._asker.results(seconds)
        for job, probed in answers:
            if isinstance(probed, PrivilegeError):
                if not self._asker.refused:
                    self._failed(run, probed, f"--probe asks nobody: {probed.what}")
                self._asker.refused = True
            elif isinstance(probed, RsttraceError):
                self._failed(run, probed, f"{job.question.ip} was not asked: {probed.what}")
            else:
                self._asker.count(probed)
                run.history.answered(job.reset, probed)
        if answers:
            run.amend()

    def finish(self, run: Run) -> None:
        """Show what is still being looked for, as far as there is time and no signal comes."""
        until = time.monotonic() + LOCATE_S
        while self.busy and not run.stopped:
            if time.monotonic() >= until:
                break
            self.show(run, POLL_S)
        self.show(run)

    def tell_left_out(self, run: Run) -> None:
        """Say what there was no time for."""
        if count := self._locator.left_out:
            run.say(f"warning: {count} forged resets were not located: too many at once")
        if count := self._finder.left_out:
            run.say(f"warning: {count} addresses were not asked for: too many at once")
        if count := self._asker.left_out:
            run.say(f"warning: {count} peers were not asked: too many at once")
        if count := self._asker.unanswered:
            run.say(f"--probe: {count} of {count + self._asker.answered} peers gave no answer")

    def _failed(self, run: Run, error: RsttraceError, what: str) -> None:
        run.say(f"warning: {what}")
        if self._options.verbose and error.log:
            run.say(error.log)
