"""Writes the parts of the documentation that are made from the code and from a real run.

    python3 -m tests.docs

They stand between two markers (``<!-- name -->``, ``<!-- end of name -->``) in docs/evidence.md and
docs/json.md. A unit test fails where a part is stale.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from rsttrace.judge.authors import GROUPS, NAMES, PRIORS, ROWS, STORIES, WORDS
from rsttrace.model import Author

ROOT = Path(__file__).resolve().parents[1]
EVIDENCE, JSON = ROOT / "docs" / "evidence.md", ROOT / "docs" / "json.md"
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
    """The example as JSON."""
    entry: dict[str, Any] = json.loads(run("-o", "json", "--utc").splitlines()[0])
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


PARTS: dict[Path, dict[str, Part]] = {
    EVIDENCE: {
        "explained": explained_part,
        "authors": authors_part,
        **{f"numbers {group}": partial(numbers_part, group) for group in GROUPS},
    },
    JSON: {"example": example_part, "names": names_part},
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
