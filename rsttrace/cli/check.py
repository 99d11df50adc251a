"""``rsttrace check``."""

from __future__ import annotations

from typing import Any

import click

from rsttrace.cli import trace
from rsttrace.cli.options import filter_options, fingerprints_option, plan_option, whose_options


class Check(click.Command):
    """Wrong usage is UNKNOWN in the chosen style, too: for Nagios 2 would be CRITICAL."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does."""
        given = list(args)
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            if "nagios" in given or "--style=nagios" in given:
                error.exit_code = 3  # type: ignore[misc]
            raise


@click.command("check", cls=Check)
@click.option(
    "--duration",
    metavar="TIME",
    default="30s",
    show_default=True,
    help="How long to watch: 30s, 2min.",
)
@click.option(
    "--fail-on",
    metavar="WORDS",
    default="forged",
    show_default=True,
    help="What is a problem: origins, authors, causes, findings, kinds, or any; with commas.",
)
@click.option(
    "--critical",
    metavar="N[/s|/min|/h]",
    default="1",
    show_default=True,
    help="So many of these, or so many in a time, are a problem.",
)
@click.option(
    "--warning",
    metavar="N[/s|/min|/h]",
    help="So many are worth a warning (an exit code of its own only for nagios).",
)
@click.option(
    "--style",
    type=click.Choice(["plain", "npd", "nagios", "json"]),
    default="plain",
    show_default=True,
    help="Whose line and exit codes: plain and json (0 ok, 1 problem, 2 unknown), npd "
    "(node-problem-detector: the same), nagios (0 to 3, with perfdata).",
)
@filter_options
@whose_options
@click.option("-i", "--iface", multiple=True, help="Only resets seen on this interface.")
@click.option("--netns", multiple=True, help="Only this network namespace, as for trace.")
@plan_option
@fingerprints_option
def command(**options: Any) -> int:
    """Watch for a while, then say in one line whether something resets connections.

    \b
    rsttrace check --duration 30s
    rsttrace check --style nagios --fail-on forged,listen-overflow --critical 10/min
    rsttrace check --style npd -p 6443 --fail-on received-accepted --critical 5
    """
    from rsttrace.commands import check

    others = trace.command.make_context("trace", []).params
    return check.run_command({**others, **options})
