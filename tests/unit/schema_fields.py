"""The fields of the JSON Schema, one by one, and the documentation's table of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from rsttrace.render.schema import schema_text


class Field(NamedTuple):
    """One field of the JSON: its dotted path (``evidence[].rule``), its types, its meaning."""

    path: str
    types: tuple[str, ...]
    description: str


def fields(kind: str) -> list[Field]:
    """Every field of an ``entry`` or a ``summary``, in the order in which it is written."""
    schema = json.loads(schema_text())
    return list(_walk(schema, schema["$defs"][kind], ""))


def field_table(kind: str) -> str:
    """The fields as the Markdown table of ``docs/json.md``."""
    rows = [
        f"| `{field.path}` | {' or '.join(field.types)} | {field.description} |"
        for field in fields(kind)
    ]
    return "\n".join(["| Field | Type | Meaning |", "|---|---|---|", *rows])


def _walk(schema: dict[str, Any], node: dict[str, Any], prefix: str) -> Iterator[Field]:
    for name, given in node.get("properties", {}).items():
        resolved = _resolve(schema, given)
        path = f"{prefix}{name}"
        yield Field(path, _types(resolved), resolved["description"])
        yield from _walk(schema, resolved, f"{path}.")
        if "items" in resolved:
            yield from _walk(schema, _resolve(schema, resolved["items"]), f"{path}[].")


def _resolve(schema: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    """The node with what its ``$ref`` refers to; its own words win."""
    if "$ref" not in node:
        return node
    target: dict[str, Any] = schema
    for step in node["$ref"].removeprefix("#/").split("/"):
        target = target[step]
    return {**target, **node}


def _types(node: dict[str, Any]) -> tuple[str, ...]:
    if "const" in node:
        return (str(node["const"]),)
    given = node["type"]
    return tuple(given) if isinstance(given, list) else (given,)
