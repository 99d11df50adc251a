"""Tells those who watch a trace from outside (`rsttrace.watch`), as far as that is asked for."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterator

from rsttrace import __version__
from rsttrace.commands.run import Options
from rsttrace.judge import findings
from rsttrace.kernel.protocol import Report
from rsttrace.kernel.source import LiveSource
from rsttrace.model import Entry, Origin
from rsttrace.render.journal import journal_fields
from rsttrace.render.text import entry_lines
from rsttrace.watch.exporter import Exporter, parse_address
from rsttrace.watch.journal import Journal
from rsttrace.watch.metrics import KernelSide, Metrics
from rsttrace.watch.systemd import Notifier

FIRST_PID_NAMESPACE = 0xEFFFFFFC
"""PROC_PID_INIT_INO (include/linux/proc_ns.h): its ids are those that the kernel side tells."""


class Watching:
    """Those who are told of a trace. A context manager: entering opens what they need.

    Raises (on entering):
        RsttraceError: one of them cannot be reached or served.
    """

    def __init__(self, options: Options) -> None:
        self._address = parse_address(options.metrics) if options.metrics is not None else None
        self._journal = Journal() if options.journal else None
        self._options = options
        self._same_pids = os.stat("/proc/self/ns/pid").st_ino == FIRST_PID_NAMESPACE
        self._own_netns = os.stat("/proc/self/ns/net").st_ino
        self._exporter: Exporter | None = None
        self._metrics: Metrics | None = None
        self._notifier = Notifier()
        self._hooks = ""
        self._shown = 0
        self._forged = 0
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Watching:
        with contextlib.ExitStack() as stack:
            if self._address is not None:
                self._exporter = stack.enter_context(Exporter(*self._address))
                self._metrics = Metrics(self._exporter.registry, finding_names())
            if self._journal is not None:
                stack.enter_context(self._journal)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    @contextlib.contextmanager
    def armed(self, source: LiveSource) -> Iterator[None]:
        """While the kernel side is there."""
        with contextlib.ExitStack() as stack:
            if self._exporter is not None:
                side = _kernel_side(source)
                self._exporter.registry.register(side)
                stack.callback(side.close)
            yield

    def lines(self) -> list[str]:
        """What the user is told at the start."""
        return [f"  metrics: {self._exporter.url}"] if self._exporter is not None else []

    def ready(self, report: Report) -> None:
        """Everything is armed."""
        self._hooks = f"plan {report.plan}, {report.attached} of {len(report.hooks)} hooks"
        self._notifier.ready()
        self.turn()

    def turn(self) -> None:
        """The loop has gone round once more."""
        counted = f"{self._shown:,} resets shown, {self._forged:,} forged"
        self._notifier.alive(f"{self._hooks}: {counted}")

    def stopping(self) -> None:
        """The end has begun."""
        self._notifier.stopping()

    def tell(self, entry: Entry) -> None:
        """An entry was shown."""
        if entry.amends is None:
            self._shown += 1
            self._forged += entry.verdict.origin is Origin.FORGED
        if self._metrics is not None:
            self._metrics.add(entry)
        self.tell_counted(entry)

    def tell_counted(self, entry: Entry) -> None:
        """An entry was shown of resets that were only counted: metrics have the kernel's count."""
        if self._journal is not None:
            utc = self._options.utc
            line, *_ = entry_lines(entry, utc=utc, own_netns=self._own_netns)
            self._journal.send(journal_fields(entry, line, same_pids=self._same_pids))

    def last_lines(self) -> list[str]:
        """What the user is told at the end."""
        if self._journal is None or not self._journal.lost:
            return []
        lost, reason = self._journal.lost, self._journal.reason
        return [f"warning: {lost} entries are missing in the journal: {reason}"]

    def tell_unwanted(self) -> None:
        """A reset was judged, and a filter left it out."""
        if self._metrics is not None:
            self._metrics.add_unwanted()


def finding_names() -> list[str]:
    """The names of all findings."""
    from rsttrace.enrich.inquiry import NOTES

    return [*(finder.__name__.replace("_", "-") for finder in findings.FINDERS), *NOTES]


def _kernel_side(source: LiveSource) -> KernelSide:
    report = source.report
    return KernelSide(
        {
            "version": __version__,
            "kernel": platform.release(),
            "plan": report.plan,
            "bcc": report.bcc_version,
        },
        source.counts,
        source.late_lost,
        lambda: [(hook.target, hook.attached) for hook in report.hooks],
    )
