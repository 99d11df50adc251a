"""Both plans at once, on the same traffic: what they say agrees, event by event.

Where they differ, the kernel tells the tracepoint plan less: `rsttrace.kernel.knowledge` (kinds,
causes, states) and the lists below (everything else) name all of it, by what the kernel has.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from rsttrace.demo.lab import Lab
from rsttrace.enrich.inquiry import NOTES
from rsttrace.kernel import hooks, knowledge, kprobe, loader
from rsttrace.kernel.facts import Facts
from rsttrace.kernel.hooks import Plan
from rsttrace.kernel.protocol import Request
from tests.lab import programs, test_causes
from tests.lab.conftest import routed_lab
from tests.lab.harness import (
    Fence,
    Json,
    Tracer,
    expect_reset,
    knows,
    linger_zero,
    pair,
)
from tests.lab.test_kinds import (
    CLIENT,
    ROUTER,
    ROWS,
    SERVER,
    V4,
    Row,
    can_know,
    check,
    no_way_back,
    play,
    seen,
)

Both = tuple[Tracer, Tracer]

pytestmark = pytest.mark.skipif(
    not kprobe.available(), reason="this kernel has no kprobes: there is only one plan"
)


@pytest.fixture(scope="module")
def fence() -> Iterator[Fence]:
    """Marks a place in both outputs."""
    with Lab("rstbothfence") as lab:
        yield Fence(lab)


@pytest.fixture(scope="module")
def both() -> Iterator[Both]:
    """A tracer with each plan: kprobes, tracepoints."""
    tracers: list[Tracer] = []
    try:
        for plan in Plan:
            tracers.append(Tracer("--kind", "all", "--plan", plan.value, "--payload", "64"))
        yield tracers[0], tracers[1]
    finally:
        for tracer in tracers:
            tracer.stop()


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """One lab for all rows: building it takes longer than a row."""
    with routed_lab("rstboth") as lab:
        yield lab


def clean(row: Row, lab: Lab) -> None:
    """Undo a row's set-up."""
    if row.setup is no_way_back:
        lab.ip(SERVER, "route del blackhole 10.71.1.0/24", "route del blackhole fd71:1::/64")
    else:
        for role in (SERVER, CLIENT, ROUTER):
            lab.nft(role, "flush ruleset")
            lab.sysctl(role, net__ipv4__tcp_rfc1337=0, net__ipv4__tcp_abort_on_overflow=0)


CASES = [
    pytest.param(
        row,
        family,
        id=f"{row.name}-{'v4' if family == V4 else 'v6'}",
        # Every row of what there is on each kernel over one of its families, in turns.
        marks=[pytest.mark.lean]
        * (row in ROWS and row.families[number % len(row.families)] == family),
    )
    for number, row in enumerate([*ROWS, *test_causes.ROWS])
    for family in row.families
]


@pytest.mark.parametrize(("row", "family"), CASES)
def test_plans_agree(
    row: Row,
    family: int,
    lab: Lab,
    both: Both,
    fence: Fence,
    record_property: Callable[[str, object], None],
) -> None:
    try:
        sent = play(row, family, lab, *((tracer, fence) for tracer in both))
        for tracer in both:
            proven = check(row, family, lab, tracer, sent)
            record_property(tracer.plan.value, sorted({(one.kind, one.cause) for one in proven}))
        for role in (SERVER, CLIENT, ROUTER):
            compare(row, *(tracer.of(lab.inode(role)) for tracer in both))
    finally:
        clean(row, lab)


@pytest.mark.lean
def test_what_was_sent_is_kept(lab: Lab, both: Both, fence: Fence) -> None:
    """--payload: its program passes every kernel's verifier, however the compiler wrote it."""
    for tracer in both:
        fence.cross(tracer)
        tracer.forget()
    with pair(lab, CLIENT, SERVER) as (client, accepted):
        client.sendall(b"GET /shop HTTP/1.1\r\n\r\n")
        assert accepted.recv(99)
        linger_zero(accepted)
        accepted.close()
        expect_reset(client)
    for tracer in both:
        (entry,) = tracer.collect(lab.inode(CLIENT), 1)
        assert entry["sent_data"] is not None, tracer.status
        assert entry["sent_data"]["text"] == "GET /shop"


# ---- what the tracepoint plan cannot know ----

OWN = frozenset(
    {
        "id",
        "run.id",
        "amends",
        "time",
        "trigger.age_ms",
        "sent_data.age_ms",
        "cause.closed_ms",
        "cause.idle_s",
    }
    | {"socket.timers.silent_ms"}
)
"""Each tracer numbers its own entries and reads the clock itself. (Where a probe hands over the
trigger it has no age.)"""

ASKED = frozenset(NOTES)
"""Findings that each tracer asks the node for, in its own time."""

TIME = re.compile(r"\b\d+(\.\d+)? (µs|ms|s)\b")
"""A length of time in a sentence."""

LOOKED_UP = frozenset(
    {"process.pid", "process.comm", "unit"}
    | {f"next_hop.{field}" for field in ("ip", "mac", "is_gateway", "ifindex")}
)
"""Looked up once the event has arrived, in /proc or by netlink: null where the process or a change
of routes was faster, in either plan."""

HEADERS_OF_TRIGGER = frozenset(
    f"trigger.{field}" for field in ("raw", "length", "options", "reserved", "tos")
)
"""What there is no record of for a packet seen earlier; only a probe hands the packet over."""


def may_be_null(path: str, full: Json, row: Row) -> bool:
    """Whether the tracepoint plan may say null where the kprobe plan's entry is `full`."""
    kind, group = full["kind"], path.partition(".")[0]
    silent = not knows()["reset_reason"]  # tcp_send_reset, without a full socket
    if path == "made_here.hook":
        return True
    if group == "made_here":  # whose it was is known by what was answered
        return silent and path in ("made_here.pid", "made_here.comm")
    if path in HEADERS_OF_TRIGGER:
        return kind == "sent-netfilter" or (kind == "sent-passive" and silent)
    if group in ("socket", "process"):
        less = can_know(row, seen(full), Plan.TRACEPOINTS, knows())
        return less is not None and less.state is None is not seen(full).state
    return False


def may_say_less(path: str, full: Json, row: Row) -> bool:
    """Whether it may use other, less exact words; `check` has seen that they are the right ones."""
    kind = full["kind"]
    if path == "trigger.ttl":  # ip_forward() counts down, then comes the firewall
        return kind == "sent-netfilter" and row.name == "netfilter-forward"
    if kind == "sent-netfilter":  # the chain
        return path in ("cause.text", "summary")
    if path not in ("kind", "cause.name", "cause.text", "summary", "advice"):
        return False
    return can_know(row, seen(full), Plan.TRACEPOINTS, knows()) != seen(full)


def leaves(value: Any, path: str = "") -> dict[str, Any]:
    """An entry's leaves, by path; of evidence, the rules and their weights (texts have times).

    Without timing, aftermath and the number of copies: each tracer takes its own times, and waits
    its own time for what comes after a reset; one may lie just within its limit.
    """
    if path == "evidence":
        steady = [
            found
            for found in value
            if found["group"] not in ("timing", "aftermath")
            and found["rule"] not in {*ASKED, *OF_SEVERAL}
        ]
        return {path: {found["rule"]: found["weight"] for found in steady}}
    if path == "findings":
        return {path: [name for name in value if name not in ASKED]}
    if isinstance(value, dict):
        found: dict[str, Any] = {}
        for key, inner in value.items():
            found.update(leaves(inner, f"{path}.{key}" if path else key))
        return found
    return {path: value}


OF_SEVERAL = frozenset({"tripled", "moves-on"})
"""What is told by the resets that came after this one, too."""

WEIGHED = frozenset({"confidence", "score", "authors"})
"""What follows from the weights."""

WEAK = 1.0
"""Evidence that weighs less (in nats) may be shown by one tracer alone: see `leaves`."""


def weights(entry: Json) -> set[tuple[str, float]]:
    """All evidence with its weights."""
    return {(found["rule"], found["weight"]) for found in entry["evidence"]}


def say_the_same(one: dict[str, float], other: dict[str, float]) -> bool:
    """Whether all that weighs was found by both.

    How much it weighs depends on all that was seen, so also on what came within one's wait alone.
    """
    alone = one.keys() ^ other.keys()
    return all(abs({**one, **other}[rule]) < WEAK for rule in alone)


def timeless(text: str | None) -> str | None:
    """A sentence without the times in it."""
    return None if text is None else TIME.sub("some time", text)


def compare(row: Row, by_kprobe: list[Json], by_tracepoint: list[Json]) -> None:
    """Every event of one plan is the other's, and says the same or, where allowed, less."""
    packets: defaultdict[str, tuple[list[Json], list[Json]]] = defaultdict(lambda: ([], []))
    for number, entries in enumerate((by_kprobe, by_tracepoint)):
        for entry in sorted(entries, key=lambda entry: str(entry["time"])):
            packets[f"{entry['direction']} {entry['rst']['raw']}"][number].append(entry)
    for every, less_entries in packets.values():
        full_entries = [
            full for full in every if can_know(row, seen(full), Plan.TRACEPOINTS, knows())
        ]
        assert len(full_entries) == len(less_entries)
        for full, less in zip(full_entries, less_entries):
            one, other = leaves(full), leaves(less)
            for path in (one.keys() | other.keys()) - OWN:
                a, b = one.get(path), other.get(path)
                if a == b or (path in LOOKED_UP and None in (a, b)):
                    continue
                if path == "process.listener":  # who accepted, only kprobes tell
                    continue
                if path in ("cause.text", "summary") and timeless(a) == timeless(b):
                    continue
                if path == "evidence" and say_the_same(a or {}, b or {}):
                    continue
                if path == "advice" and ASKED & {*full["findings"], *less["findings"]}:
                    continue
                if path in WEIGHED and weights(full) != weights(less):
                    continue
                allowed = (
                    may_be_null(path, full, row) if b is None else may_say_less(path, full, row)
                )
                assert allowed, (path, a, b, full, less)


def kind_of(hook: hooks.Hook) -> str:
    """How a hook hooks in."""
    return "kprobe" if hook.kprobe else "cgroup program" if hook.cgroup else "raw tracepoint"


@pytest.mark.lean
def test_packets_are_read_by_loads_where_the_types_are_known(both: Both) -> None:
    wanted = programs.TRACING if Facts().source == "btf" else programs.RAW_TRACEPOINT
    for tracer in both:
        layer = programs.packet_layer(tracer.process.pid)
        types = {side: program.type for side, program in layer.items()}
        if types == {"in": wanted, "out": wanted}:
            continue
        loaded = loader.load(Request(("received-accepted",), plan=tracer.plan.value, kept=False))
        loaded.close()
        pytest.fail(f"{types}, not {wanted}; the verifier's words: {loaded.log[-4000:]}")


def said(tracer: Tracer, sentence: str) -> bool:
    return sentence in tracer.status


@pytest.mark.lean
def test_every_hook_attaches(both: Both, record_property: Callable[[str, object], None]) -> None:
    """Nothing of a plan is missing, and what this kernel does not know is said at the start."""
    record_property("knows", knows())
    for tracer in both:
        unknown = knowledge.unknown(tracer.plan, knows())
        wanted = hooks.for_plan(tracer.plan, knows(), payload=True)
        record_property(
            f"{tracer.plan.value}-plan",
            {
                "hooks": [[hook.target, kind_of(hook)] for hook in wanted],
                "unknown": unknown,
                "start_s": tracer.start_s,
            },
        )
        assert f"hooks: {len(wanted)} of {len(wanted)})" in tracer.status
        assert "not attached" not in tracer.status
        for sentence in unknown:
            tracer.wait_for(partial(said, tracer, sentence), sentence)
