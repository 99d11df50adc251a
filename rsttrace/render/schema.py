"""The JSON Schema of the output, as shipped."""

from __future__ import annotations

from importlib import resources


def schema_text() -> str:
    """The JSON Schema (draft 2020-12) of every line of JSON that rsttrace writes."""
    return resources.files("rsttrace").joinpath("schema.json").read_text(encoding="utf-8")
