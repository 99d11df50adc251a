"""Writes the parts of the documentation that are made from the code and from a real run.

    python3 -m tests.docs

They stand between two markers (``<!-- name -->``, ``<!-- end of name -->``) in docs/evidence.md,
docs/json.md and docs/causes.md. A unit test fails where a part is stale.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from rsttrace import __version__
from rsttrace.judge.authors import GROUPS, NAMES, PRIORS, ROWS, STORIES, WORDS
from rsttrace.judge.why import ended_by_reset
from rsttrace.kernel import causes, drops, knowledge
from rsttrace.kernel.hooks import Plan
from rsttrace.model import AcceptQueue, Author, Cause, Kind, Socket, Timers
from tests.lab import test_causes, test_kinds

ROOT = Path(__file__).resolve().parents[1]
EVIDENCE, JSON, CAUSES = (ROOT / "docs" / f"{name}.md" for name in ("evidence", "json", "causes"))
EXAMPLE = "pf-reset.pcap"
"""The capture (tests/cases) that the examples come from."""

DEADLINE_S = 60

Part = Callable[[], str]


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def percent(share: float) -> str:
    """A probability in percent, with no more digits than it has."""
    return f"{share * 100:.4g}"


def authors_part() -> str:
    """Every author with its words and its prior."""
    whole = sum(PRIORS)
    rows = []
    for author in dict.fromkeys(author for _, author, _ in STORIES):
        stories = [(name, prior) for name, who, prior in STORIES if who is author]
        shares = [f"{100 * prior / whole:.2g} %" for _, prior in stories]
        columns = [f"`{name}`" for name, _ in stories]
        peer = "yes" if author.is_peer else "no"
        rows.append(
            [f"`{author.value}`", WORDS[author], peer, ", ".join(columns), " + ".join(shares)]
        )
    return table(["Author", "Who that is", "The peer", "Stories", "Of all resets"], rows)


def numbers_part(group: str) -> str:
    """A group's rows of the table, in percent, with their reasons."""
    header = ["%", *NAMES, "Why"]
    rows = [
        [f"`{name}`", *map(percent, row.likelihoods), row.why]
        for name, row in ROWS.items()
        if row.group == group
    ]
    return table(header, rows)


def run(*arguments: str) -> str:
    """What `rsttrace read` prints of the example, as a user in the captures' directory sees it."""
    command = [sys.executable, "-m", "rsttrace", "read", *arguments, EXAMPLE]
    environment = {**os.environ, "TZ": "UTC", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command,
        cwd=ROOT / "tests" / "cases",
        env=environment,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=True,
    )
    return done.stdout


def explained_part() -> str:
    """The example with the table behind its verdict."""
    lines = run("--explain", "--utc").rstrip("\n")
    return f"```\n{lines}\n```"


def example_entry() -> dict[str, Any]:
    """The example as JSON, as if another host had run it."""
    entry: dict[str, Any] = json.loads(run("-o", "json", "--utc").splitlines()[0])
    entry["run"] = {
        "id": "b5f04c1a7d5e4d0f9c3a8e2b6f7d1c90",
        "host": "web-1",
        "boot": "6f3c2f0e-5d0b-4f57-9a3c-1f6a7b1f2c3d",
        "version": __version__,
    }
    return entry


def example_part() -> str:
    """The example as an indented block."""
    return f"```json\n{json.dumps(example_entry(), indent=2)}\n```"


def names_part() -> str:
    """The names that an entry's `authors`, `group` and `rule` may have."""
    rows = [["`author`", ", ".join(f"`{author.value}`" for author in Author)]]
    rows.append(["`group`", ", ".join(f"`{group}`" for group in GROUPS)])
    for group in GROUPS:
        names = ", ".join(f"`{name}`" for name, row in ROWS.items() if row.group == group)
        rows.append([f"`rule` of group `{group}`", names])
    return table(["Field", "Names"], rows)


Pair = tuple[Kind, str]
"""A kind, and the name of a cause."""

LESS: tuple[tuple[Plan, dict[str, bool]], ...] = (
    (Plan.KPROBES, {"drop_reason": True, "reset_skb": True}),
    (Plan.TRACEPOINTS, {"drop_reason": True, "reset_skb": True}),
    (Plan.TRACEPOINTS, {}),
)
"""Plans on kernels that tell less, in the columns' order."""

ELSEWHERE = {
    "mptcp-fastclose": "`test_mptcp.py`",
    "mptcp-reset": "`test_mptcp.py`",
    "reset-handshake": "`test_fast_open.py`",
}
"""Causes that other lab tests make."""


MOST = 4
"""Rows that are named of each cause."""


def sentences() -> dict[Pair, str]:
    """A sentence for every kind and cause that the decoder can say."""
    found: dict[Pair, str] = {}

    def add(kind: Kind, cause: Cause) -> None:
        found.setdefault((kind, cause.name), cause.text)

    socket = Socket(None, None, None, None, 1, None, None)
    timers = Timers(90_500, 3, 0, None, 60_000, 10_000, 3)
    alive = replace(socket, timers=timers)
    hurried = replace(socket, timers=replace(timers, user_timeout_ms=30_000))
    full = replace(socket, accept_queue=AcceptQueue(129, 128, aborts=True))
    for reason in (None, *causes.PASSIVE):
        for state, flags in product((None, "LISTEN", "FIN_WAIT2", "TIME_WAIT"), ("S", "PA", "A")):
            data = "P" in flags
            for of in (socket, full):
                add(
                    Kind.SENT_PASSIVE,
                    causes.sent_passive(reason, state, flags, data=data, socket=of),
                )
    add(Kind.SENT_PASSIVE, causes.sent_passive(None, None, "A", probed=False))
    add(Kind.SENT_PASSIVE, causes.sent_passive(None, "SYN_SENT", "SA"))
    add(Kind.SENT_PASSIVE, ended_by_reset("data", 20_000_000))
    add(Kind.SENT_PASSIVE, causes.sent_passive(None, "LISTEN", "S", options="mptcp 8001"))
    for reason in (*causes.ACTIVE, None):
        for now, by_task in product(("CLOSE", "FIN_WAIT2"), (True, False)):
            for of in (alive, hurried):
                add(Kind.SENT_ACTIVE, causes.sent_active(reason, now, by_task, socket=of))
    add(Kind.SENT_ACTIVE, causes.sent_active(None, "CLOSE", True, options="mptcp 7"))
    add(Kind.SENT_ACTIVE, causes.sent_active(None, "CLOSE", False, options="mptcp 8002"))
    add(Kind.SENT_ACTIVE, causes.sent_active(None, None, by_task=False))
    add(Kind.SENT_NETFILTER, causes.firewall("input"))
    add(Kind.SENT_RAW, causes.RAW_SOCKET)
    for state in ("ESTABLISHED", *causes.ACCEPTED):
        add(Kind.RECEIVED_ACCEPTED, causes.received(Kind.RECEIVED_ACCEPTED, None, state))
    for kind in (Kind.RECEIVED_ACCEPTED, Kind.RECEIVED_REJECTED):
        add(kind, causes.received(kind, None, "TIME_WAIT", minisocket=True))
    for reason, state in product(
        ("TCP_RESET", None), ("ESTABLISHED", "LISTEN", "SYN_RECV", "SYN_SENT")
    ):
        add(Kind.RECEIVED_REJECTED, causes.received(Kind.RECEIVED_REJECTED, reason, state))
    add(Kind.RECEIVED_UNMATCHED, causes.received(Kind.RECEIVED_UNMATCHED, None, None))
    for reason in drops.DROPS:
        add(Kind.RECEIVED_REJECTED, causes.received(Kind.RECEIVED_REJECTED, reason, "ESTABLISHED"))
    add(Kind.FORWARDED, causes.received(Kind.FORWARDED, None, None))
    return found


def causes_part() -> str:
    """Every cause with its sentence, the rows that make it, and what is left of it elsewhere."""
    rows: dict[Pair, dict[str, tuple[str, ...]]] = defaultdict(dict)
    for row in (*test_kinds.ROWS, *test_causes.ROWS):
        for one in (*row.server, *row.client, *row.router):
            kind = Kind(one.kind)
            told = knowledge.Told(kind, one.cause, one.state, row.minisocket)
            rows[kind, one.cause][row.name] = tuple(
                less_part(told, knowledge.left(told, plan, knows, tcp_drop=row.tcp_drop))
                for plan, knows in LESS
            )
    by_reason = {name for name, _ in drops.DROPS.values()}
    lines = []
    for (kind, name), text in sorted(sentences().items(), key=lambda item: item[0][0].value):
        made = rows.get((kind, name), {})
        if not made and kind is Kind.RECEIVED_REJECTED and name in by_reason:
            continue  # in the other table
        tests = ", ".join([*made][:MOST]) + ", …" * (len(made) > MOST) or ELSEWHERE.get(name, "")
        less = [", ".join(dict.fromkeys(filter(None, cells))) for cells in zip(*made.values())]
        lines.append([kind.value, f"`{name}`", text, tests, *(less or [""] * len(LESS))])
    return table(["Kind", "Cause", "Such as", "Rows", "k-", "t-", "t--"], lines)


def less_part(told: knowledge.Told, found: knowledge.Told | None) -> str:
    """What is left of what is told, if that is less."""
    if found is None:
        return "not seen"
    if found.cause != told.cause:
        return f"`{found.cause}`"
    return "" if found.state == told.state else "no state"


def drops_part() -> str:
    """The kernel's reasons by their causes."""
    reasons: dict[tuple[str, str], list[str]] = defaultdict(list)
    for reason, cause in drops.DROPS.items():
        reasons[cause].append(f"`{reason}`")
    return table(
        ["Cause", "Sentence", "Reasons of the kernel"],
        [[f"`{name}`", text, ", ".join(found)] for (name, text), found in reasons.items()],
    )


PARTS: dict[Path, dict[str, Part]] = {
    EVIDENCE: {
        "explained": explained_part,
        "authors": authors_part,
        **{f"numbers {group}": partial(numbers_part, group) for group in GROUPS},
    },
    JSON: {"example": example_part, "names": names_part},
    CAUSES: {"causes": causes_part, "drops": drops_part},
}
"""Each document's parts by the names of their markers."""


def replaced(text: str, name: str, part: str) -> str:
    """A document with one part made anew; ValueError where the markers are missing."""
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    before, found, rest = text.partition(begin)
    _, found_end, after = rest.partition(end)
    if not (found and found_end):
        raise ValueError(f"there are no markers for {name!r}")
    return f"{before}{begin}{part}\n{end}{after}"


def render(path: Path) -> str:
    """A document with its parts made anew."""
    text = path.read_text(encoding="utf-8")
    for name, part in PARTS[path].items():
        text = replaced(text, name, part())
    return text


def main() -> None:
    """Write all of them."""
    for path in PARTS:
        path.write_text(render(path), encoding="utf-8")


if __name__ == "__main__":
    main()
