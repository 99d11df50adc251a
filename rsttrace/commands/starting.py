"""The start of a trace: the kernel side is loaded while the rest of us is still being imported.

Both take about as long. So this module imports little.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from rsttrace.commands.filters import KERNEL_PORTS, check_repeats, filter_of
from rsttrace.errors import RsttraceError
from rsttrace.kernel.loader import Loading
from rsttrace.kernel.protocol import Request


class Begun(NamedTuple):
    """What is to be loaded, and that on its way; ``None``: it cannot be, and `trace` says why."""

    request: Request
    loading: Loading | None


@contextmanager
def begin(options: Mapping[str, Any]) -> Iterator[Begun]:
    """Begin to load what the options ask for. What nobody has taken in the end is removed.

    Raises:
        UsageError: an option is not what it should be.
    """
    request, loading = request_of(options), None
    with contextlib.suppress(RsttraceError):
        loading = Loading(request)
    try:
        yield Begun(request, loading)
    finally:
        if loading is not None:
            loading.give_up()


def request_of(options: Mapping[str, Any]) -> Request:
    """What to load, with the filters that the kernel applies.

    Raises:
        UsageError: an option is not what it should be.
    """
    wanted = filter_of(options)
    check_repeats(options, "netns")
    return Request(
        kinds=tuple(kind.value for kind in wanted.kinds),
        nets=wanted.nets,
        ports=() if len(wanted.ports) > KERNEL_PORTS else wanted.ports,
        netns=_namespaces(options["netns"]),
        baseline=not options["no_baseline"],
        flows=options["flows"],
        plan=options["plan"],
        payload=options["payload"],
        rate=0 if options["no_aggregate"] else options["rate"],
    )


def _namespaces(specs: Sequence[str]) -> tuple[int, ...]:
    """Their inode numbers. Raises UsageError: there is no such namespace."""
    if not specs:
        return ()
    from rsttrace.enrich import NetnsDirectory

    directory = NetnsDirectory()
    return tuple(directory.resolve(spec) for spec in specs)
