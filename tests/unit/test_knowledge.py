from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import pytest

from rsttrace.kernel import hooks
from rsttrace.kernel.hooks import Plan
from rsttrace.kernel.knowledge import BLIND_SPOTS, KNOWLEDGE, LIMITS, Told, left, look, unknown
from rsttrace.model import Kind

RECORDED = json.loads((Path(__file__).parents[2] / "docs/kernels.json").read_text())
"""What a run on every kernel found: each knows so much, each plan proved these kinds and causes."""

NEWEST = list(RECORDED)[-1]
EVERYTHING = dict.fromkeys(KNOWLEDGE, True)
NOTHING = dict.fromkeys(KNOWLEDGE, False)

KERNELS = pytest.mark.parametrize(
    ("kernel", "plan"), [(kernel, plan) for kernel in RECORDED for plan in Plan]
)


def test_a_kernel_that_knows_everything_keeps_nothing_back() -> None:
    assert RECORDED[NEWEST]["knows"] == EVERYTHING
    for plan, (kind, cause), tcp_drop in product(Plan, proven(NEWEST), (False, True)):
        told = Told(Kind(kind), cause, "ESTABLISHED")
        assert unknown(plan, EVERYTHING) == []
        assert left(told, plan, EVERYTHING, tcp_drop=tcp_drop) == told


def proven(kernel: str, plan: Plan = Plan.KPROBES) -> list[list[str]]:
    """The kinds and causes that a plan proved there."""
    found: list[list[str]] = RECORDED[kernel]["plans"][plan.value]["proven"]
    return found


@KERNELS
def test_the_words_are_those_of_the_document(kernel: str, plan: Plan) -> None:
    facts = RECORDED[kernel]
    assert unknown(plan, facts["knows"]) == facts["plans"][plan.value]["unknown"]


@KERNELS
def test_what_is_left_is_what_was_proven_on_each_kernel(kernel: str, plan: Plan) -> None:
    """The same traffic on all: what it proved on the newest, less what this one keeps back."""
    knows = RECORDED[kernel]["knows"]
    images = {}
    for kind, cause in proven(NEWEST):
        images[kind, cause] = {
            left(Told(Kind(kind), cause, None, mini), plan, knows, tcp_drop=drop)
            for drop, mini in product((False, True), repeat=2)
        }
    found = {(Kind(kind), cause) for kind, cause in proven(kernel, plan)}
    possible = {(one.kind, one.cause) for image in images.values() for one in image if one}
    assert found <= possible
    # What does not depend on how the stack frees the RST must be there.
    sure = {
        (one.kind, one.cause)
        for image in images.values()
        if len({(one.kind, one.cause) if one else None for one in image}) == 1
        for one in image
        if one
    }
    assert sure <= found


def test_every_limit_is_one_somewhere_and_changes_only_what_it_names() -> None:
    for limit in LIMITS:
        assert limit.lacks in KNOWLEDGE
        knows = {**EVERYTHING, limit.lacks: False}
        assert limit.text in unknown(Plan.TRACEPOINTS, knows)
        assert (limit.text in unknown(Plan.KPROBES, knows)) != limit.by_tracepoints
    accepted = Told(Kind.RECEIVED_ACCEPTED, "connection-reset", "ESTABLISHED")
    for plan, tcp_drop in product(Plan, (False, True)):
        assert left(accepted, plan, NOTHING, tcp_drop=tcp_drop) == accepted


def test_of_two_limits_for_one_thing_the_wider_is_told() -> None:
    text = "the socket of a received reset that was ignored, or that ended TIME_WAIT"
    assert text in unknown(Plan.TRACEPOINTS, {**EVERYTHING, "drop_socket": False})
    assert text not in unknown(Plan.TRACEPOINTS, NOTHING)


@pytest.mark.parametrize(
    ("arguments", "known"),
    [
        ({}, set()),
        ({"tcp_reset": ["sk"], "btf_trace_kfree_skb": ["skb", "location"]}, set()),
        ({"btf_trace_kfree_skb": ["", "", ""]}, {"drop_reason"}),
        ({"btf_trace_kfree_skb": ["", "", "", ""]}, {"drop_reason", "drop_socket"}),
        ({"tcp_reset": ["sk", "skb"], "btf_trace_tcp_send_reset": ["", ""]}, {"reset_skb"}),
        ({"btf_trace_tcp_send_reset": ["", "", ""]}, {"reset_reason"}),
        ({"btf_trace_sock_recv_length": ["", "", ""]}, {"reader"}),
    ],
)
def test_knowledge_is_looked_for_in_arguments(
    arguments: dict[str, list[str]], known: set[str]
) -> None:
    found = look(arguments.get)
    assert found.keys() == KNOWLEDGE.keys()
    assert {name for name, has in found.items() if has} == known


def test_hooks_are_chosen_by_what_a_kernel_knows() -> None:
    named = {name for hook in hooks.HOOKS for name in (hook.unless, hook.given)}
    assert named <= {None, *KNOWLEDGE}
    few, many = (set(hooks.for_plan(Plan.KPROBES, knows)) for knows in (EVERYTHING, NOTHING))
    assert {hook.unless for hook in many - few} == {"drop_reason", "drop_socket", "reader"}
    assert [hook.target for hook in few - many] == ["sock_recv_length"]


@KERNELS
def test_hooks_are_those_of_the_document(kernel: str, plan: Plan) -> None:
    facts = RECORDED[kernel]
    chosen = hooks.for_plan(plan, facts["knows"], payload=True)
    assert [hook.target for hook in chosen] == [
        target for target, _ in facts["plans"][plan.value]["hooks"]
    ]


def test_each_plan_says_what_it_never_sees() -> None:
    assert set(BLIND_SPOTS) == set(Plan)
