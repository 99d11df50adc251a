"""What a killed ``rsttrace demo`` has left on this node, and how to be rid of it."""

from __future__ import annotations

from rsttrace.demo.lab import remove, stale


def leftover_lines() -> list[str]:
    """A line about namespaces of demos whose process is gone; none if there are none."""
    names = stale()
    if not names:
        return []
    what = "1 namespace is" if len(names) == 1 else f"{len(names)} namespaces are"
    return [f"  {what} left of a demo that was killed: `rsttrace demo --clean` removes them"]


def clean() -> str:
    """Remove them; says what was done."""
    names = stale()
    remove(names)
    left = set(stale()) & set(names)
    if left:
        return f"could not be removed: {', '.join(sorted(left))}"
    return f"removed: {len(names)} namespaces" if names else "nothing is left of any demo"
