"""Options that several commands have."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from rsttrace.commands.filters import KIND_GROUPS
from rsttrace.commands.spans import duration_s
from rsttrace.errors import UsageError
from rsttrace.model import Kind, Origin

Decorator = Callable[[Any], Any]


def finite(context: click.Context, option: click.Parameter, value: float | None) -> float | None:
    """A click callback: no number of seconds is infinite, or none at all (nan)."""
    if value is not None and not math.isfinite(value):
        text = f"{value} is not a number of seconds"
        raise click.BadParameter(text, param_hint=option.opts[-1])
    return value


def duration(context: click.Context, option: click.Parameter, value: str | None) -> float | None:
    """A click callback: ``30``, ``30s``, ``2min``, ``1h`` as a number of seconds."""
    try:
        return None if value is None else duration_s(value)
    except UsageError:
        text = f"{value!a} is no duration: write it as 30, 30s or 2min"
        raise click.BadParameter(text, param_hint=option.opts[-1]) from None


def _together(*options: Decorator) -> Decorator:
    """Several options as one decorator."""

    def decorate(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


output_option = click.option(
    "-o",
    "--output",
    type=click.Choice(["text", "json", "logfmt"]),
    default="text",
    help="text for people; JSON, one object per line; or logfmt, key=value.",
)
plan_option = click.option(
    "--plan",
    type=click.Choice(["auto", "kprobes", "tracepoints"]),
    default="auto",
    help="Where to hook in; auto takes what this kernel has.",
)
write_option = click.option(
    "-w",
    "--write",
    metavar="FILE",
    help="Also write the resets and what provoked them to this pcapng file, with the verdicts as "
    "packet comments; -: to standard output, the text to standard error.",
)
rotate_option = click.option(
    "--rotate",
    metavar="SIZE|TIME",
    help="Begin the file of -w anew after so much (100M, 1GiB, 10min, 1d); full ones are FILE.1, "
    "FILE.2, ...",
)
keep_option = click.option(
    "--keep",
    metavar="N",
    type=click.IntRange(min=1),
    help="Keep the newest N full files of --rotate; by default all.",
)
report_option = click.option(
    "--report",
    metavar="FILE",
    help="End with a page of HTML, for a ticket: summary, connections, and for each reset who made "
    "it, the evidence, and the packets around it.",
)

count_option = click.option(
    "-c", "--count", type=click.IntRange(min=1), help="Stop after so many resets."
)
summary_option = click.option("--summary", is_flag=True, help="End with counts.")
explain_option = click.option("--explain", is_flag=True, help="Show everything that was looked at.")
utc_option = click.option("--utc", is_flag=True, help="Times in UTC instead of local time.")
each_option = click.option(
    "--each",
    is_flag=True,
    help="Show every reset, also the sixth that is alike within 10 s (text; so do -v, --explain).",
)
verbose_option = click.option(
    "-v", "--verbose", is_flag=True, help="Show headers, baseline, sockets, and all evidence."
)
quiet_option = click.option(
    "-q", "--quiet", is_flag=True, help="Leave out what to look at next (the line with the arrow)."
)
color_option = click.option(
    "--color",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    help="auto: on a terminal, unless NO_COLOR is set.",
)

fingerprints_option = click.option(
    "--fingerprints",
    multiple=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Name devices by the fingerprints in this TOML file too (repeatable).",
)

host_option = click.option(
    "--host", multiple=True, help="Only resets from or to this address (repeatable)."
)
net_option = click.option(
    "--net", multiple=True, help="Only resets from or to this network (repeatable)."
)
port_option = click.option(
    "-p",
    "--port",
    multiple=True,
    metavar="PORTS",
    help="Only resets from or to these ports: 443, 80,443 or 8000-8099 (repeatable).",
)
numeric_option = click.option(
    "-n",
    is_flag=True,
    expose_value=False,
    help="For those who are used to it from tcpdump: names are never looked up.",
)
kind_option = click.option(
    "--kind",
    multiple=True,
    type=click.Choice([*KIND_GROUPS, *(kind.value for kind in Kind)]),
    help="Only these kinds (repeatable); all but forwarded by default.",
)
origin_option = click.option(
    "--origin",
    multiple=True,
    type=click.Choice([origin.value for origin in Origin]),
    help="Only resets made by these (repeatable).",
)

whose_options = _together(
    click.option(
        "--pid",
        multiple=True,
        type=click.IntRange(1, 1 << 22),
        help="Only resets of this process (repeatable, as are the next).",
    ),
    click.option("--comm", multiple=True, help="Only of processes of this name, as ps shows it."),
    click.option("--unit", multiple=True, help="Only of this systemd unit, as nginx.service."),
    click.option("--container", multiple=True, help="Only of this container: an ID or a name."),
    click.option("--pod", multiple=True, help="Only of this Kubernetes pod: a name or a UID."),
    click.option("--namespace", multiple=True, help="Only of this Kubernetes namespace."),
)
rights_options = _together(
    click.option(
        "--user",
        metavar="NAME|UID",
        help="Become this user, without capabilities, once everything is open; by default nobody "
        "if started by root.",
    ),
    click.option("--keep-root", is_flag=True, help="Stay root instead."),
)
filter_options = _together(
    host_option, net_option, port_option, kind_option, origin_option, numeric_option
)
show_options = _together(
    count_option,
    summary_option,
    each_option,
    explain_option,
    verbose_option,
    quiet_option,
    color_option,
    utc_option,
    fingerprints_option,
    write_option,
    rotate_option,
    keep_option,
    report_option,
)
