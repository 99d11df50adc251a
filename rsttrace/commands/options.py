"""From the command line's options to what a run is given."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rsttrace.commands.recording import STDOUT, rotation
from rsttrace.commands.run import Options
from rsttrace.errors import UsageError
from rsttrace.judge import fingerprints
from rsttrace.model import Origin


def shown(options: Mapping[str, Any], *, inputs: Sequence[str] = (), **more: Any) -> Options:
    """What a run shows, from the options that trace, read and compare share, and `more`.

    `inputs` are the files that it reads, beside those that the options name.

    Raises:
        UsageError: the options contradict each other.
        RsttraceError: a file of fingerprints cannot be used.
    """
    full = rotation(options["rotate"], options["keep"])
    if full is not None and options["write"] is None:
        raise UsageError("--rotate is for the file of -w: give that too")
    if options["write"] == STDOUT and options["output"] != "text":
        raise UsageError(
            f"-w - and -o {options['output']} both want standard output",
            hint="name a file with -w",
        )
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
        each=options["each"],
        fingerprints=fingerprints.load(options["fingerprints"]),
        write=options["write"],
        rotation=full,
        inputs=(*inputs, *map(str, options["fingerprints"])),
        report=options["report"],
        **more,
    )


def use_color(choice: str) -> bool:
    """Colour only on a terminal, and not where NO_COLOR is set (no-color.org)."""
    if choice != "auto":
        return choice == "always"
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")
