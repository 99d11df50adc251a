"""``rsttrace trace``: what this node's kernel tells, as it happens."""

from __future__ import annotations

import contextlib
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

from rsttrace.commands.audit import Audit
from rsttrace.commands.books import EVERY_S, Books, Losses, balance
from rsttrace.commands.filters import KERNEL_PORTS, filter_of
from rsttrace.commands.leftovers import leftover_lines
from rsttrace.commands.noting import Noting
from rsttrace.commands.options import shown
from rsttrace.commands.run import Options, Run
from rsttrace.commands.starting import Begun
from rsttrace.commands.stop import stop_on_signals
from rsttrace.commands.unasked import Unasked
from rsttrace.commands.watching import Watching
from rsttrace.commands.whose import whose
from rsttrace.commands.writer import GRACE_S, POLL_S, Stuck
from rsttrace.enrich import Enricher, NetnsDirectory, reach
from rsttrace.enrich.outrsts import out_rsts
from rsttrace.enrich.setns import inside
from rsttrace.errors import RsttraceError
from rsttrace.kernel import knowledge
from rsttrace.kernel.hooks import Plan
from rsttrace.kernel.loader import Loading, check_privileges
from rsttrace.kernel.protocol import Report, Request
from rsttrace.kernel.rights import effective, missing
from rsttrace.kernel.source import LiveSource
from rsttrace.model import Entry, LatePacket, Reset
from rsttrace.privileges.account import account
from rsttrace.privileges.giving import Giving

if TYPE_CHECKING:
    from rsttrace.commands.probing import Probing


NAMESPACES_LOOKED = 256
"""So many namespaces are looked into for an interface's name, about 0.3 ms each."""


def started_line(report: Report) -> str:
    """The line that says everything is armed."""
    return (
        f"tracing resets on Linux {platform.release()} (plan: {report.plan}; "
        f"hooks: {report.attached} of {len(report.hooks)})"
    )


def programs_line(report: Report) -> str:
    """Where the programs came from."""
    how = "kept from an earlier start" if report.kept else "compiled now"
    return f"  programs: {how} (bcc {report.bcc_version})"


def unseen_lines(report: Report, *, verbose: bool) -> list[str]:
    """What this run cannot see: one line for each hook that is not on.

    `verbose`: one for the plan itself, too, which is the same at every start (doctor says it).
    """
    lines = [
        f"  not attached: {hook.target} ({hook.error}); unseen: {hook.unseen}"
        for hook in report.hooks
        if not hook.attached
    ]
    if report.missing_fields:
        lines.append(f"  unknown on this kernel: {', '.join(report.missing_fields)}")
    plan = Plan(report.plan)
    unknown = knowledge.unknown(plan, report.knows)
    if unknown:
        lines.append(f"  unknown on this kernel with this plan: {'; '.join(unknown)}")
    if verbose:
        lines.append(f"  unseen with this plan: {knowledge.BLIND_SPOTS[plan]}")
    return lines


def rights_lines() -> list[str]:
    """What this run lacks for want of a capability: one line for each."""
    return [f"  without {right.name}: {right.without}" for right in missing(effective())]


def run_command(options: Mapping[str, Any], begun: Begun) -> int:
    """The command, from its options; the exit code.

    `begun`: what was begun with before this module was there.

    Raises:
        RsttraceError: an option is not what it should be, or nothing can be traced.
        BrokenPipeError: nobody reads any more.
    """
    return trace(begun.request, shown_of(options), loading=begun.loading)


def shown_of(options: Mapping[str, Any]) -> Options:
    """What to show.

    Raises:
        RsttraceError: an option is not what it should be.
    """
    ports = filter_of(options).ports
    return shown(
        options,
        duration_s=options["duration"],
        ifaces=options["iface"],
        ports=frozenset(ports if len(ports) > KERNEL_PORTS else ()),
        whose=whose(options),
        secrets=bool(options["payload"]),
        viewpoint_netns=options["viewpoint"] == "netns",
        hold_s=options["hold"],
        locate=options["locate"],
        probe_arp=options["probe_arp"],
        probe=options["probe"],
        metrics=options["metrics"],
        journal=options["journal"],
        otlp=options["otlp"],
        account=account(options["user"], keep_root=options["keep_root"]),
    )


@dataclass(frozen=True)
class Told:
    """Who is told of a trace beside, or instead of, those who read its output.

    `out` takes the lines, `say` those about the run. `armed` is called when everything is on,
    `entry` with each entry shown (also one of resets that were only counted), `books` at the end.
    """

    out: TextIO | None = None
    say: Callable[[str], None] | None = None
    armed: Callable[[], None] = lambda: None
    entry: Callable[[Entry], None] = lambda entry: None
    books: Callable[[Books], None] = lambda books: None


def trace(
    request: Request,
    options: Options,
    told: Told | None = None,
    *,
    loading: Loading | None = None,
) -> int:
    """Trace until a signal, the duration, the count, or the reader ends it.

    Args:
        request: what to load, with the filters that the kernel applies.
        options: what to show.
        told: who else is told.
        loading: the request, if it is being loaded already.

    Returns:
        The exit code: 0, or 1 if an output could not be written to the end.

    Raises:
        RsttraceError: nothing can be traced.
        BrokenPipeError: nobody reads any more.
    """
    told = told or Told()
    check_privileges()
    lacking, leftovers = rights_lines(), leftover_lines()
    with (
        stop_on_signals() as stop,
        Giving(options.account) as giving,
        Watching(options) as watching,
        Enricher(viewpoint_netns=options.viewpoint_netns) as enricher,
        LiveSource(request, enricher.warm_up, loading) as source,
        watching.armed(source),
        Noting(
            enricher.directory.identity,
            source.learned,
            whole_node=not options.viewpoint_netns,
            verbose=options.verbose,
        ) as noting,
        probing_for(options) as probing,
        Run(
            options,
            stop,
            out=told.out,
            status=told.say,
            live=True,
            wanted=lambda reset: (
                on_port(reset, options.ports)
                and options.whose(reset)
                and on_iface(reset, options.ifaces, enricher)
            ),
            entry_hook=each(probing.ask, watching.tell, told.entry),
            judged_hook=probing.ask_peer,
            unwanted_hook=watching.tell_unwanted,
            counted_hook=each(watching.tell_counted, told.entry),
            title=f"TCP resets on {platform.node()}",
        ) as run,
    ):
        giving.give_up(source, probes=options.locate or options.probe or options.probe_arp)
        audit = Audit(lambda: out_rsts(enricher.directory), source.counts)
        run.say(
            "\n".join(
                [
                    started_line(source.report),
                    *watching.lines(),
                    *unseen_lines(source.report, verbose=options.verbose),
                    *lacking,
                    *leftovers,
                    *giving.lines(verbose=options.verbose),
                ]
            )
        )
        for name in unknown_ifaces(options.ifaces, request.netns, enricher.directory):
            run.say(
                f"warning: there is no interface {name!a}; its resets are shown once there is one "
                "(`ip -br link` lists them)"
            )
        if options.verbose:
            run.say(programs_line(source.report))
            if source.log:
                run.say(source.log)
        try:
            watching.ready(source.report, run.writer.about)
            told.armed()
            _Tracing(run, source, enricher, probing, noting, watching, giving, audit).run()
        except Stuck:
            run.say("warning: nobody reads the output; ending without the rest")
        probing.tell_left_out(run)
        for line in watching.last_lines():
            run.say(line)
        told.books(_end(run, source, audit))
    return 1 if run.failed else 0


def each(*hooks: Callable[[Entry], None]) -> Callable[[Entry], None]:
    """Several hooks as one."""

    def hook(entry: Entry) -> None:
        for one in hooks:
            one(entry)

    return hook


def probing_for(options: Options) -> Probing | Unasked:
    """What probes beside the trace, as far as that is asked for."""
    if not (options.locate or options.probe_arp or options.probe):
        return Unasked()
    from rsttrace.commands.probing import Probing

    return Probing(options)


class _Tracing:
    """The loop of a run: what the kernel tells is enriched, judged and shown as it comes."""

    def __init__(
        self,
        run: Run,
        source: LiveSource,
        enricher: Enricher,
        probing: Probing | Unasked,
        noting: Noting,
        watching: Watching,
        giving: Giving,
        audit: Audit,
    ) -> None:
        self._run = run
        self._source = source
        self._enricher = enricher
        self._probing = probing
        self._noting = noting
        self._watching = watching
        self._giving = giving
        self._audit = audit
        self._losses = Losses(lambda: source.counts().values(), run.say)
        self._counts_due = time.monotonic() + EVERY_S
        run.writer.while_waiting(self._losses.tell)

    def run(self) -> None:
        """Until something ends it, and then what is left.

        Raises:
            BrokenPipeError: nobody reads any more.
            Stuck: nobody reads, and the run is to end.
        """
        run, source = self._run, self._source
        while not run.full and not run.ended():
            if by_ns := source.date_was_set():
                run.date_was_set(by_ns)
            self._show(source.wait(self._wait_s()))
            self._losses.tell()
            self._show_counted()
            self._enricher.tidy()
            self._probing.show(run)
            self._watching.turn()
            for target in source.attach_late():
                run.say(f"now attached: {target}")
            run.look_after_readers()
            self._giving.check(run.say)
        self._watching.stopping()
        self._audit.end()
        source.detach()
        self._show_rest()
        self._probing.finish(run)

    def _wait_s(self) -> float:
        """How long to wait for the next reset, in seconds: something else may be due before."""
        wait_s = self._run.left_s(POLL_S)
        due_ns = self._run.history.next_due_ns()
        if due_ns is not None:
            wait_s = min(wait_s, (due_ns - time.monotonic_ns()) / 1e9)
        return max(0.0, wait_s)

    def _show(self, items: list[Reset | LatePacket]) -> None:
        """Take in a batch, show what is due."""
        if items:
            self._enricher.turn()
        for item in items:
            if isinstance(item, Reset):
                if self._probing.is_own(item):
                    self._run.filtered += 1
                    continue
                self._enricher.enrich(item)
                if item.unread:
                    self._run.show_unread(item)
                    continue
            case = self._run.history.add(item, time.monotonic_ns())
            if case is not None:
                self._noting.ask(case)
        self._enricher.again()
        self._noting.take(self._run)
        self._run.show(time.monotonic_ns())

    def _show_counted(self, *, at_the_end: bool = False) -> None:
        """Show what was only counted in the last second."""
        now = time.monotonic()
        if now < self._counts_due and not at_the_end:
            return
        self._counts_due = now + EVERY_S
        self._enricher.turn()
        for reset in self._source.counted(all_of_them=at_the_end):
            self._enricher.enrich(reset)
            self._run.show_counted(reset)

    def _show_rest(self) -> None:
        """Show what the probes had told before they were detached, as far as there is time."""
        grace = time.monotonic() + GRACE_S
        while not self._run.full and (rest := self._source.drain()):
            self._show(rest)
            if time.monotonic() > grace:
                break
        self._noting.finish(self._run)
        if self._run.full:
            self._run.amend()
        else:
            self._run.show(None)
            self._show_counted(at_the_end=True)


def _end(run: Run, source: LiveSource, audit: Audit) -> Books:
    """Say what is missing, and end with counts."""
    books = balance(source.counts().values(), shown=run.shown, filtered=run.filtered, full=run.full)
    if source.blind:
        run.say(
            "warning: the kernel's counts could not be read to the end, for want of the helper: "
            "what was lost or only counted since is not known"
        )
    if late_lost := source.late_lost():
        run.say(
            f"warning: {late_lost} packets that came after a reset are lost: verdicts may lack them"
        )
    if books.lost:
        run.say(
            f"warning: {books.lost:,} resets are missing above: there was no room for them, or the"
            " run ended before they were looked at"
        )
    if not source.blind and (line := audit.line()) is not None:
        run.say(line)
    run.say(books.line)
    run.summarize(books.filtered, aggregated=books.aggregated, lost=books.lost)
    return books


def unknown_ifaces(
    names: tuple[str, ...], namespaces: tuple[int, ...], directory: NetnsDirectory
) -> list[str]:
    """Those of the names that no interface has, in these namespaces (none: in any of the node).

    Where a node has more namespaces than are looked into, none is said to be unknown.
    """
    missing = set(names)
    wanted = namespaces or tuple(directory.all())
    for inode in wanted[:NAMESPACES_LOOKED]:
        if not missing:
            break
        with contextlib.suppress(RsttraceError, OSError):
            missing -= inside(directory.way_into(inode), interfaces)
    return [name for name in names if name in missing and len(wanted) <= NAMESPACES_LOOKED]


def interfaces() -> set[str]:
    """The names of the interfaces of the thread's namespace (proc_pid_net(5), dev).

    Raises:
        OSError: they cannot be read.
    """
    lines = reach.read_file("dev").splitlines()[2:]
    return {line.rpartition(":")[0].strip() for line in lines}


def on_port(reset: Reset, ports: frozenset[int]) -> bool:
    """Whether an end has one of these ports, as the socket sees it or on the wire (empty: any)."""
    ends = (reset.local, reset.remote, reset.rst.src, reset.rst.dst)
    return not ports or any(end.port in ports for end in ends)


def on_iface(reset: Reset, names: tuple[str, ...], enricher: Enricher) -> bool:
    """Whether the packet was seen on one of these interfaces (empty: any)."""
    if not names:
        return True
    seen = {found.ifname for found in (reset.neighbor, reset.ingress) if found is not None}
    for frame in (reset.frame, reset.ingress_frame):
        if frame is not None and frame.netns is not None and frame.ifindex is not None:
            seen.add(enricher.ifname(frame.netns, frame.ifindex))
    return any(name in seen for name in names)
