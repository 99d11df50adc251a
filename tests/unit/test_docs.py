"""The documentation of the evidence and of the JSON says what the code does."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import jsonschema
import pytest

from rsttrace.enrich.inquiry import NOTES
from rsttrace.judge import authors, findings
from rsttrace.judge.authors import GROUPS, NAMES, ROWS, STORIES, WORDS
from rsttrace.model import Author, Kind
from rsttrace.render.schema import schema_text
from tests import docs
from tests.docs import EVIDENCE, PARTS
from tests.lab import test_causes, test_kinds

EVIDENCE_TEXT = EVIDENCE.read_text(encoding="utf-8")
VALIDATOR = jsonschema.Draft202012Validator(json.loads(schema_text()))


def section(title: str) -> str:
    """What stands below a heading, up to the next one of its level or above."""
    level = title.partition(" ")[0]
    found = re.split(rf"^{re.escape(title)}$", EVIDENCE_TEXT, maxsplit=1, flags=re.MULTILINE)
    assert len(found) == 2, title
    return re.split(rf"^#{{1,{len(level)}}} ", found[1], maxsplit=1, flags=re.MULTILINE)[0]


def first_cells(text: str) -> list[str]:
    """The names in the first column of a section's tables, in order."""
    rows = re.findall(r"^\| ((?:`[\w-]+`(?:, )?)+) \|", text, re.MULTILINE)
    return [name for row in rows for name in re.findall(r"`([\w-]+)`", row)]


@pytest.mark.parametrize(
    ("path", "name"), [(path, name) for path, parts in PARTS.items() for name in parts]
)
def test_what_is_generated_is_up_to_date(path: Path, name: str) -> None:
    """Else: python3 -m tests.docs, and read the diff."""
    text = path.read_text(encoding="utf-8")
    assert docs.replaced(text, name, PARTS[path][name]()) == text


def test_every_cause_of_a_lab_row_has_a_sentence() -> None:
    made = {
        (Kind(one.kind), one.cause)
        for row in (*test_kinds.ROWS, *test_causes.ROWS)
        for one in (*row.server, *row.client, *row.router)
    }
    assert made - docs.sentences().keys() == set()
    assert len({name for _, name in made}) > 30


def test_what_is_promised_is_held_by_tests_that_there_are() -> None:
    root = EVIDENCE.parents[1]
    promised = set(re.findall(r"`(test_\w+)`", (root / "docs/reliability.md").read_text("utf-8")))
    made = {
        name
        for path in (root / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text("utf-8"), re.MULTILINE)
    }
    assert promised - made == set()
    assert len(promised) > 30


def test_markers_that_are_not_there_are_noticed() -> None:
    with pytest.raises(ValueError, match="no markers for 'nothing'"):
        docs.replaced(EVIDENCE_TEXT, "nothing", "")
    with pytest.raises(ValueError, match="no markers"):
        docs.replaced("<!-- x -->\n", "x", "")


@pytest.mark.parametrize("group", GROUPS)
def test_every_observation_is_described_in_its_group(group: str) -> None:
    text = section(f"### {group}").partition("<!-- numbers")[0]
    described = first_cells(text)
    assert sorted(described) == sorted(n for n, row in ROWS.items() if row.group == group)


def test_every_author_is_described() -> None:
    text = section("## The authors")
    assert re.findall(r"^### `([\w-]+)`$", text, re.MULTILINE) == [a.value for a in Author]
    for author in Author:
        assert re.search(r"\*\*Twins?:?\*\*", section(f"### `{author.value}`")), author


def test_every_finding_is_described() -> None:
    names = [finder.__name__.replace("_", "-") for finder in findings.FINDERS]
    assert first_cells(section("## Findings")) == names


def test_every_proof_is_described() -> None:
    assert set(first_cells(section("## What a verdict is"))) == {
        *("sent-hook", "made-here", "other-end")
    }


def test_the_documented_thresholds_are_the_thresholds() -> None:
    text = section("## What a verdict is")
    assert f"| **{authors.FORGED_FROM:.0%}** or more | `forged` |".replace("%", " %") in text
    assert f"| **{1 - authors.PEER_FROM:.0%}** or less | `peer` |".replace("%", " %") in text
    for share in (authors.FORGED_FROM, 1 - authors.PEER_FROM):
        assert f"{math.log(share / (1 - share)):+.2f}" in text


def test_numbers_are_written_as_they_are() -> None:
    assert [docs.percent(share) for share in (0.95, 0.00003, 0.003, 1.0)] == [
        *("95", "0.003", "0.3", "100")
    ]
    for group in GROUPS:
        lines = docs.numbers_part(group).splitlines()[2:]
        for line in lines:
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            row = ROWS[cells[0].strip("`")]
            numbers = [float(cell) / 100 for cell in cells[1 : 1 + len(STORIES)]]
            assert numbers == pytest.approx(row.likelihoods)
            assert cells[-1] == row.why


def test_a_reason_breaks_no_table() -> None:
    for text in (*(row.why for row in ROWS.values()), *WORDS.values()):
        assert "|" not in text
        assert "\n" not in text


def test_the_columns_are_the_stories() -> None:
    assert docs.numbers_part("timing").splitlines()[0].split(" | ")[1:-1] == list(NAMES)
    assert all(f"`{name}`" in docs.authors_part() for name in NAMES)


def test_the_example_is_an_entry_of_the_schema() -> None:
    entry = docs.example_entry()
    VALIDATOR.validate(entry)
    assert entry["origin"] == "forged"
    assert entry["authors"]
    assert entry["advice"]


def test_the_names_of_the_json_are_those_of_the_table() -> None:
    schema = json.loads(schema_text())
    listed = schema["$defs"]["entry"]["properties"]["authors"]["items"]["properties"]["author"]
    assert listed["enum"] == [author.value for author in Author]
    group = schema["$defs"]["evidence"]["properties"]["group"]["description"]
    assert re.findall(r"`([\w-]+)`", group) == list(GROUPS)
    found = schema["$defs"]["entry"]["properties"]["findings"]["description"]
    names = [finder.__name__.replace("_", "-") for finder in findings.FINDERS]
    assert re.findall(r"`([a-z]+(?:-[a-z]+)+)`", found) == [
        *names,
        *(name for name in NOTES if name not in names),
    ]


def test_every_note_of_the_node_is_described() -> None:
    assert first_cells(section("## What the node itself knows")) == list(NOTES)
