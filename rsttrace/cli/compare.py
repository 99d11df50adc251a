"""``rsttrace compare``."""

from __future__ import annotations

from typing import Any

import click

from rsttrace.cli.options import filter_options, output_option, show_options
from rsttrace.cli.progress import progress_bar


@click.command("compare")
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@output_option
@filter_options
@show_options
@click.option(
    "--flows",
    type=click.IntRange(16, 4_000_000),
    default=65536,
    show_default=True,
    help="How many connections to remember of each.",
)
@click.option(
    "--until-a",
    metavar="TIME",
    help="A was watched until then, by its own clock, though its file may show nothing: a time in "
    "ISO 8601 with its zone, or 'end of day'.",
)
@click.option("--until-b", metavar="TIME", help="Likewise B.")
def command(a: str, b: str, **options: Any) -> int:
    """Compare two vantage points A and B of the same connections: who made each reset, and where.

    Each is a capture (pcap, pcapng; also gzip) or what `-o json` of this program has written there.

    \b
    rsttrace compare client.pcap server.pcap

    The clocks need not agree. Exit code 1 if a file cannot be read.
    """
    from rsttrace.commands import compare

    return compare.run_command((a, b), options, progress_bar)
