"""How long something takes, as an option says it."""

from __future__ import annotations

import re

from rsttrace.errors import UsageError

PER = {"s": 1, "min": 60, "m": 60, "h": 3600}
"""The units, in seconds."""

_DURATION = re.compile(r"(\d{1,6}(?:\.\d{1,3})?)(s|min|m|h)?", re.ASCII)


def duration_s(text: str) -> float:
    """``30``, ``30s``, ``2min``, in seconds.

    Raises:
        UsageError: it is no duration.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None or not float(match[1]):
        raise UsageError(f"--duration {text!a} is no duration", hint="write it as 30s or 2min")
    return float(match[1]) * PER[match[2] or "s"]
