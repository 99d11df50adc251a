"""From the command line's options to what a run is given."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

from rsttrace.commands.run import Options
from rsttrace.judge import fingerprints
from rsttrace.model import Origin


def shown(options: Mapping[str, Any], **more: Any) -> Options:
    """What a run shows, from the options that trace, read and compare share, and `more`.

    Raises:
        RsttraceError: a file of fingerprints cannot be used.
    """
    return Options(
        output=options["output"],
        count=options["count"],
        origins=tuple(Origin(name) for name in options["origin"]),
        summary=options["summary"],
        explain=options["explain"],
        quiet=options["quiet"],
        verbose=options["verbose"],
        color=options["output"] == "text" and use_color(options["color"]),
        utc=options["utc"],
        fingerprints=fingerprints.load(options["fingerprints"]),
        write=options["write"],
        **more,
    )


def use_color(choice: str) -> bool:
    """Colour only on a terminal, and not where NO_COLOR is set (no-color.org)."""
    if choice != "auto":
        return choice == "always"
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")
