"""``rsttrace read``."""

from __future__ import annotations

from typing import Any

import click

from rsttrace import limits
from rsttrace.cli.options import filter_options, output_option, show_options
from rsttrace.cli.progress import progress_bar


@click.command("read")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@output_option
@click.option(
    "--local",
    multiple=True,
    metavar="NET",
    help="This network is our side (repeatable); by default inferred for each file.",
)
@filter_options
@show_options
@click.option(
    "--flows",
    type=click.IntRange(16, 4_000_000),
    default=limits.FLOWS,
    show_default=True,
    help="How many flows to remember.",
)
@click.option(
    "--hold",
    type=click.FloatRange(0, 3600),
    help="Seconds of the capture's time that a verdict waits for late evidence; what comes later "
    "amends it. By default 60 for files, 0 for standard input.",
)
def command(files: tuple[str, ...], **options: Any) -> int:
    """Show every TCP reset in captures (pcap, pcapng; also gzip; - is stdin), and who made it.

    What `-o json` has written is shown again.

    \b
    rsttrace read incident.pcap --explain
    tcpdump -U -w - tcp | rsttrace read -
    rsttrace read node.jsonl --origin forged -w forged.pcapng

    Exit code 1 if a file cannot be read at all; a file that breaks off is read up to there.
    """
    from rsttrace.commands import read

    return read.run_command(files, options, progress_bar)
