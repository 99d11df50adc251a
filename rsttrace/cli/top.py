"""``rsttrace top``."""

from __future__ import annotations

import click

from rsttrace.cli.options import utc_option


@click.command("top", context_settings={"ignore_unknown_options": True})
@click.option(
    "-r",
    "--read",
    "file",
    metavar="FILE",
    help="Show a capture, or JSON lines of this program, instead of this node's kernel.",
)
@click.option("--plain", is_flag=True, help="Lines instead of a screen: for screen readers, logs.")
@click.option(
    "--every",
    type=click.FloatRange(0.2, 3600),
    default=5.0,
    show_default=True,
    help="Seconds from one plain line to the next.",
)
@utc_option
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="[OPTIONS OF trace]...")
def command(
    file: str | None, plain: bool, every: float, utc: bool, options: tuple[str, ...]
) -> int:
    """Watch resets as they happen: rates, who makes them, and of each one why.

    All options of `rsttrace trace` that filter can be given too (with -r those of `rsttrace read`).
    In the screen ? says what the keys do.
    """
    from rsttrace.commands import top

    return top.run_command(file, options, plain=plain, every_s=every, utc=utc)
