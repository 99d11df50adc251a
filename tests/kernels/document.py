"""Writes docs/kernels.md: what each kernel of the last run has and knows. Nothing in it is typed.

    python3 -m tests.kernels.document [DIRECTORY]

DIRECTORY is a run's (default: the newest below the cache) that had every kernel. What was found
is kept beside the document in docs/kernels.json, from which a unit test writes it again, and with
which every later run is compared.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from rsttrace.kernel.hooks import Plan
from rsttrace.kernel.knowledge import BLIND_SPOTS, KNOWLEDGE
from tests.kernels import build
from tests.kernels.kernels import GUESTS

DOCS = Path(__file__).resolve().parents[2] / "docs"
FACTS, DOCUMENT = DOCS / "kernels.json", DOCS / "kernels.md"
PLANS = ("kprobes", "tracepoints")

Facts = dict[str, dict[str, Any]]


class DocumentError(Exception):
    """The run is not one to write a document from; the message says why."""


def guest_facts(result: dict[str, Any]) -> dict[str, Any]:
    """What one guest's result.json says of its kernel; empty where the tests that tell failed."""
    tests = [test for session in result.get("sessions", ()) for test in session["tests"]]
    passed = [test["recorded"] for test in tests if test["outcome"] == "passed"]
    plans = {}
    for plan in PLANS:
        about = next((seen[f"{plan}-plan"] for seen in passed if f"{plan}-plan" in seen), None)
        if about is None:
            return {}
        proven = {tuple(pair) for seen in passed for pair in seen.get(plan, ())}
        plans[plan] = {
            "hooks": about["hooks"],
            "unknown": about["unknown"],
            "proven": sorted(list(pair) for pair in proven),
        }
    return {
        "release": result["release"],
        "python": result["python"],
        "bcc": result["bcc"],
        "knows": next(seen["knows"] for seen in passed if "knows" in seen),
        "plans": plans,
    }


def lasting(facts: dict[str, Any]) -> dict[str, Any]:
    """Of a guest's facts, those that a point release does not change."""
    return {name: facts[name] for name in ("knows", "plans")}


def differences(facts: Facts, documented: Facts) -> list[str]:
    """Guests of a run that are not as the document says."""
    return [
        f"{name}: hooks, knowledge or proven causes are not as docs/kernels.md says"
        for name, found in facts.items()
        if name not in documented or lasting(found) != lasting(documented[name])
    ]


def table(header: list[str], rows: list[list[str]]) -> list[str]:
    """A Markdown table."""
    return [
        f"| {' | '.join(header)} |",
        f"|{'---|' * len(header)}",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
    ]


def render(facts: Facts) -> str:
    """The document."""
    names = list(facts)
    titles = [f"{name.split('-')[0]}{', no BTF' * name.endswith('-headers')}" for name in names]
    lines = [
        "# Kernels",
        "",
        "Generated from a run of `make kernels` by `make kernels-doc`; do not edit. Each kernel ran"
        " in QEMU with the Python, bcc and LLVM of its own Debian release.",
        "",
        *table(
            ["kernel", "Debian", "Linux", "Python", "bcc"],
            [
                [
                    title,
                    next(guest.release for guest in GUESTS if guest.name == name),
                    *(facts[name]["release"], facts[name]["python"], facts[name]["bcc"]),
                ]
                for name, title in zip(names, titles)
            ],
        ),
        "## What a kernel tells",
        "",
        *table(
            ["", *titles],
            [
                [ability.text, *("yes" if facts[name]["knows"][key] else "no" for name in names)]
                for key, ability in KNOWLEDGE.items()
            ],
        ),
        "## Hooks",
        "",
        "**k**: used by the kprobe plan, **t**: by the tracepoint plan; attached on that kernel."
        " Empty: not needed there.",
        "",
    ]
    used = {
        (name, plan): [tuple(hook) for hook in facts[name]["plans"][plan]["hooks"]]
        for name in names
        for plan in PLANS
    }
    # In the order of the plans' own lists; the newest kernel needs the fewest.
    every = dict.fromkeys(hook for plan in PLANS for name in names for hook in used[name, plan])
    rows = []
    for hook in every:
        marks = ["".join(p[0] for p in PLANS if hook in used[name, p]) for name in names]
        rows.append([f"`{hook[0]}`", hook[1], *marks])
    lines += table(["hook", "type", *titles], rows)
    lines += ["## Not known", "", "Null in the output, or told by a less exact cause.", ""]
    for name, title in zip(names, titles):
        for plan in PLANS:
            unknown = facts[name]["plans"][plan]["unknown"]
            lines.append(f"- {title}, {plan} plan: {'; '.join(unknown) or 'nothing'}")
    lines += [
        "",
        *(
            f"On every kernel the {plan} plan does not see: {BLIND_SPOTS[Plan(plan)]}.\n"
            for plan in PLANS
        ),
        "## Kinds and causes proven",
        "",
        "By the rows of `tests/lab/test_kinds.py`, on real packets, with both plans at once (**k**,"
        " **t**).",
        "",
    ]
    pairs = sorted(
        {tuple(pair) for name in names for p in PLANS for pair in facts[name]["plans"][p]["proven"]}
    )
    rows = []
    for pair in pairs:
        marks = [
            "".join(p[0] for p in PLANS if list(pair) in facts[name]["plans"][p]["proven"])
            for name in names
        ]
        rows.append([*pair, *marks])
    lines += table(["kind", "cause", *titles], rows)
    return "\n".join(lines).rstrip() + "\n"


def read_run(directory: Path) -> Facts:
    """The facts of a run's guests.

    Raises:
        DocumentError: a kernel is missing or its tests did not pass.
    """
    facts = {}
    for guest in GUESTS:
        path = directory / f"{guest.name}.result.json"
        found = guest_facts(json.loads(path.read_text())) if path.exists() else {}
        if not found:
            raise DocumentError(f"{guest.name} did not pass in {directory}; run make kernels")
        facts[guest.name] = found
    return facts


def main() -> int:
    """The command line."""
    runs = sorted((build.cache() / "runs").glob("*"))
    chosen = [Path(argument) for argument in sys.argv[1:]] or runs[-1:]
    if not chosen:
        print("error: nothing was run yet; run make kernels", file=sys.stderr)
        return 1
    try:
        facts = read_run(chosen[0])
    except DocumentError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    FACTS.write_text(json.dumps(facts, indent=1) + "\n")
    DOCUMENT.write_text(render(facts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
