"""The commands with few options: demo, doctor, schema."""

from __future__ import annotations

import click

from rsttrace.cli.options import color_option, explain_option, output_option, plan_option


@click.command()
@explain_option
@color_option
@click.option("--clean", is_flag=True, help="Only remove what demos that were killed have left.")
def demo(explain: bool, color: str, clean: bool) -> None:
    """Show real verdicts on a live lab of network namespaces (needs root)."""
    from rsttrace.commands import leftovers
    from rsttrace.commands.options import use_color
    from rsttrace.demo.play import play

    if clean:
        click.echo(leftovers.clean())
        return
    play(color=use_color(color), explain=explain)


@click.command()
@output_option
@click.option("-v", "--verbose", is_flag=True, help="Show what compiler and verifier printed.")
@plan_option
def doctor(output: str, verbose: bool, plan: str) -> int:
    """Say what this kernel offers, which plan runs, and what is missing.

    Exit code 0 if tracing works here, 1 if not.
    """
    from rsttrace.commands.doctor import run_command

    return run_command(output, verbose=verbose, plan=plan)


@click.command()
def schema() -> None:
    """Print the JSON Schema of `-o json`."""
    from rsttrace.render.schema import schema_text

    click.echo(schema_text(), nl=False)
