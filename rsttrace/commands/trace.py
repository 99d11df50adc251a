"""The run loop of live tracing: source -> enrich -> judge -> render."""

from __future__ import annotations

import contextlib
import platform
import sys
import time
from collections.abc import Callable
from typing import TextIO

from rsttrace.commands.holders import HolderFinder, holder_job_lines
from rsttrace.commands.locate import Locator, located_lines
from rsttrace.commands.run import (
    GRACE_S,
    POLL_S,
    Options,
    Presenter,
    Stuck,
    Writer,
    stop_on_signals,
    to_stderr,
)
from rsttrace.enrich import Enricher
from rsttrace.errors import RsttraceError
from rsttrace.kernel import hooks
from rsttrace.kernel.protocol import Report, Request
from rsttrace.kernel.source import LiveSource
from rsttrace.model import Entry, LatePacket, Reset
from rsttrace.render import json as render_json
from rsttrace.render.summary import Tally

LOCATE_S = 30.0
"""How long the end of a run waits for what ``--locate`` and ``--probe-arp`` still look for.

A signal cuts it short.
"""

BLIND_SPOTS = {
    "kprobes": "resets inside IPsec, and packets sent past the queueing layer (AF_XDP, "
    "PACKET_QDISC_BYPASS)",
    "tracepoints": "which firewall chain of this host rejected; resets inside IPsec, and packets "
    "sent past the queueing layer (AF_XDP, PACKET_QDISC_BYPASS)",
}
"""What a plan cannot see even with every hook attached."""


def started_line(report: Report) -> str:
    """The line that says everything is armed."""
    return (
        f"tracing resets on Linux {platform.release()} (plan: {report.plan}; "
        f"hooks: {report.attached} of {len(report.hooks)})"
    )


def unseen_lines(report: Report) -> list[str]:
    """What this run cannot see: one line for each hook that is not on, one for the plan itself."""
    lines = [
        f"  not attached: {hook.target} ({hook.error}); unseen: {hook.unseen}"
        for hook in report.hooks
        if not hook.attached
    ]
    if report.missing_fields:
        lines.append(f"  unknown on this kernel: {', '.join(report.missing_fields)}")
    unknown = hooks.unknown(hooks.Plan(report.plan), report.knows)
    if unknown:
        lines.append(f"  unknown on this kernel with this plan: {'; '.join(unknown)}")
    lines.append(f"  unseen with this plan: {BLIND_SPOTS[report.plan]}")
    return lines


def trace(
    request: Request,
    options: Options,
    *,
    out: TextIO | None = None,
    status: Callable[[str], None] | None = None,
    entry_hook: Callable[[Entry], None] | None = None,
) -> None:
    """Trace until a signal, the duration, the count, or the reader ends it.

    Args:
        request: what to load, with the filters that the kernel applies.
        options: what to show.
        out: where entries go; stdout by default.
        status: takes lines about the run; stderr by default.
        entry_hook: called with each entry shown.

    Raises:
        RsttraceError: nothing can be traced.
        BrokenPipeError: nobody reads any more.
    """
    say = status or to_stderr
    with (
        stop_on_signals() as stop,
        Enricher(viewpoint_netns=options.viewpoint_netns) as enricher,
        LiveSource(request) as source,
        Locator() as locator,
        HolderFinder() as asker,
        contextlib.ExitStack() as stack,
    ):
        tally = Tally()
        ends = None if options.duration_s is None else time.monotonic() + options.duration_s

        def ended() -> bool:
            return stop.requested or (ends is not None and time.monotonic() >= ends)

        writer = Writer(options, out or sys.stdout, ended)

        def on_entry(entry: Entry) -> None:
            if options.locate:
                locator.ask(entry)
            if options.probe_arp:
                asker.ask(entry)
            if entry_hook is not None:
                entry_hook(entry)

        presenter = stack.enter_context(
            Presenter(
                options,
                writer,
                tally,
                wanted=lambda reset: on_iface(reset, options.ifaces, enricher),
                entry_hook=on_entry,
            )
        )
        history = presenter.history
        enricher.warm_up()
        say("\n".join([started_line(source.report), *unseen_lines(source.report)]))
        if options.verbose and source.log:
            say(source.log)

        def show(items: list[Reset | LatePacket], *, ending: bool = False) -> bool:
            """Take in a batch, show what is due; true when there is no more to do."""
            for item in items:
                if isinstance(item, Reset):
                    enricher.enrich(item)
                history.add(item, time.monotonic_ns())
            return presenter.show(None if ending else time.monotonic_ns())

        def show_found(seconds: float = 0.0) -> None:
            for question, check in asker.results(0.0 if locator.busy else seconds):
                if isinstance(check, RsttraceError):
                    say(f"warning: {check.what}")
                    continue
                stream = out or sys.stdout
                writer.lines(holder_job_lines(question, check, options.output, stream, "    "))
            for job, found in locator.results(seconds):
                if isinstance(found, RsttraceError):
                    say(f"warning: no path to {job.target.ip}: {found.what}")
                    continue
                stream = out or sys.stdout
                lines = located_lines(job, found, options.output, stream, indent="    ")
                if options.output == "text" and job.clue is not None:
                    lines.insert(0, f"    #{job.clue.entry}: where the forged reset was made")
                writer.lines(lines)

        done = False
        try:
            while not done and not ended():
                wait_s = POLL_S if ends is None else min(POLL_S, ends - time.monotonic())
                if (due_ns := history.next_due_ns()) is not None:
                    wait_s = min(wait_s, (due_ns - time.monotonic_ns()) / 1e9)
                done = show(source.wait(max(0.0, wait_s)))
                enricher.tidy()
                show_found()
                for target in source.attach_late():
                    say(f"now attached: {target}")
                if writer.abandoned():
                    raise BrokenPipeError
            source.detach()
            grace = time.monotonic() + GRACE_S
            while not done and (rest := source.drain()):
                done = show(rest)
                if time.monotonic() > grace:
                    break
            if not done:
                show([], ending=True)
            until = time.monotonic() + LOCATE_S
            while (locator.busy or asker.busy) and not stop.requested and time.monotonic() < until:
                show_found(POLL_S)
            show_found()
        except Stuck:
            say("warning: nobody reads the output; ending without the rest")
        if locator.left_out:
            say(f"warning: {locator.left_out} forged resets were not located: too many at once")
        if asker.left_out:
            say(f"warning: {asker.left_out} addresses were not asked for: too many at once")
        counts = source.counts().values()
    seen_by_kernel = sum(row[0] for row in counts)
    lost = sum(row[2] for row in counts)
    # Of those that the kernel told of, some were filtered here, some (--count, a backlog at the
    # end) never looked at.
    filtered = sum(row[1] for row in counts) + seen_by_kernel - presenter.shown
    tally.not_shown(filtered=filtered, aggregated=0, lost=lost)
    if late_lost := source.late_lost():
        say(
            f"warning: {late_lost} packets that came after a reset are lost: verdicts may lack them"
        )
    if lost:
        say(f"warning: {lost} resets are missing above: the ring buffer was full")
    if options.summary:
        with contextlib.suppress(Stuck):
            if options.output == "json":
                writer.lines([render_json.object_line(tally.object())])
            else:
                writer.lines(tally.text_lines())


def on_iface(reset: Reset, names: tuple[str, ...], enricher: Enricher) -> bool:
    """Whether the packet was seen on one of these interfaces (empty: any)."""
    if not names:
        return True
    seen = {found.ifname for found in (reset.neighbor, reset.ingress) if found is not None}
    for frame in (reset.frame, reset.ingress_frame):
        if frame is not None:
            seen.add(enricher.ifname(frame.netns, frame.ifindex))
    return any(name in seen for name in names)
