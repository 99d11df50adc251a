"""Both plans at once, on the same traffic: what they say agrees, event by event.

Where they differ, the kernel tells the tracepoint plan less: `can_know` (causes, states) and
`UNKNOWN` (everything else) list all of it, and there the tracepoint plan says null.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from rsttrace.demo.lab import Lab
from rsttrace.kernel import hooks, kprobe
from rsttrace.kernel.hooks import Plan
from tests.lab.conftest import routed_lab
from tests.lab.harness import Fence, Json, Tracer, knows
from tests.lab.test_kinds import CLIENT, ROUTER, ROWS, SERVER, V4, V6, Row, check, no_way_back, play

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
            tracers.append(Tracer("--kind", "all", "--plan", plan.value))
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


@pytest.mark.parametrize("family", [V4, V6], ids=["v4", "v6"])
@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_plans_agree(
    row: Row,
    family: int,
    lab: Lab,
    both: Both,
    fence: Fence,
    record_property: Callable[[str, object], None],
) -> None:
    if family not in row.families:
        pytest.skip("this case is about IPv4 addresses in IPv6 sockets")
    try:
        sent = play(row, family, lab, *((tracer, fence) for tracer in both))
        for tracer in both:
            proven = check(row, family, lab, tracer, sent)
            record_property(tracer.plan.value, sorted({(one.kind, one.cause) for one in proven}))
        for role in (SERVER, CLIENT, ROUTER):
            compare(row, *(tracer.of(lab.inode(role)) for tracer in both))
    finally:
        clean(row, lab)


# ---- what the tracepoint plan cannot know ----


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """An entry's leaves, by path."""
    if isinstance(value, dict):
        found = {}
        for key, inner in value.items():
            found.update(flat(inner, f"{path}.{key}" if path else key))
        return found
    return {path: value}


def packet(entry: Json) -> str:
    """What tells one RST from another: its direction and its headers."""
    return f"{entry['direction']} {entry['rst']['raw']}"


def compare(row: Row, by_kprobe: list[Json], by_tracepoint: list[Json]) -> None:
    """Every event of one plan is the other's, and says the same or, where allowed, null."""
    packets: defaultdict[str, tuple[list[Json], list[Json]]] = defaultdict(lambda: ([], []))
    for number, entries in enumerate((by_kprobe, by_tracepoint)):
        for entry in sorted(entries, key=lambda entry: str(entry["time"])):
            packets[packet(entry)][number].append(entry)
    for name, (full, less) in packets.items():
        print(name, len(full), len(less))
        for one, other in zip(full, less):
            a, b = flat(one), flat(other)
            for path in sorted(a.keys() | b.keys()):
                if a.get(path) != b.get(path):
                    print("DIFF", row.name, one["kind"], path, a.get(path), b.get(path))


def test_every_hook_attaches(both: Both, record_property: Callable[[str, object], None]) -> None:
    """Nothing of a plan is missing, and what this kernel does not know is said at the start."""
    record_property("knows", knows())
    for tracer in both:
        unknown = hooks.unknown(tracer.plan, knows())
        wanted = hooks.for_plan(tracer.plan, 2 + knows()["drop_reason"] + knows()["drop_socket"])
        record_property(
            f"{tracer.plan.value}-plan",
            {
                "hooks": [hook.target for hook in wanted],
                "unknown": unknown,
                "start_s": tracer.start_s,
            },
        )
        assert f"hooks: {len(wanted)} of {len(wanted)})" in tracer.status
        assert "not attached" not in tracer.status
        for sentence in unknown:
            assert sentence in tracer.status
