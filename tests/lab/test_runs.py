"""How often our programs run for one connection: what it costs, whatever a run of them takes."""

from __future__ import annotations

from collections import Counter

from tests.bench.packets import bench_lab, counted, resets
from tests.lab.harness import Tracer, bpf_programs
from tests.lab.programs import loaded

TURNS = 400
MOST = 40
"""Of a connection that is made and reset, both ends in one kernel: four or five packets, each seen
where it leaves and where it comes in; eight changes of state, each seen twice; the causes."""


def counts() -> tuple[Counter[str], Counter[str]]:
    """By program of ours, whoever holds it, its runs and its time (ns) so far."""
    runs: Counter[str] = Counter()
    time_ns: Counter[str] = Counter()
    for number in bpf_programs():
        try:
            one = loaded(number)
        except FileNotFoundError:
            continue  # gone meanwhile
        if one.name.startswith(("rt_", "kp_")):
            runs[one.name] += one.runs
            time_ns[one.name] += one.time_ns
    return runs, time_ns


def test_a_connection_runs_few_programs() -> None:
    """The figures are printed (pytest -s): the shape of the cost under this plan."""
    with bench_lab() as lab:
        tracer = Tracer("--rate", "20")
        try:
            with counted():
                runs_before, ns_before = counts()
                resets(lab, TURNS)
                runs_after, ns_after = counts()
        finally:
            tracer.stop()
    runs, time_ns = runs_after - runs_before, ns_after - ns_before
    whole = sum(time_ns.values())
    print(f"\n{TURNS} connections that are reset, plan {tracer.plan.value}")
    for name, count in runs.most_common():
        share = time_ns[name] / whole
        print(f"    {name:16} {count / TURNS:6.2f} runs each, {share:6.1%} of the time")
    assert min(runs["rt_netif_receiv"], runs["rt_net_dev_queu"]) >= 3 * TURNS
    assert sum(runs.values()) < MOST * TURNS
