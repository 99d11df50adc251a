"""``rsttrace fleet``."""

from __future__ import annotations

import click

from rsttrace.cli.options import output_option

store_option = click.option(
    "--store",
    default="chdb:rsttrace.fleet",
    show_default=True,
    envvar="RSTTRACE_STORE",
    help="chdb:PATH (in this process), or clickhouse://user:password@host:8123/database.",
)


since_option = click.option(
    "--since",
    metavar="TIME",
    default="7d",
    show_default=True,
    help="From then on: ISO 8601, 12h or 7d before the end, or all. Changes are told against the "
    "same time before.",
)
until_option = click.option("--until", metavar="TIME", help="Until then.")


@click.group("fleet")
def command() -> None:
    """The resets of many nodes together: which were really sent, which boxes forge.

    Needs clickhouse-connect and chDB: `pip install '.[fleet]'` in a clone (docs/install.md).
    """


@command.command("load")
@click.argument("files", nargs=-1, metavar="[FILE...]")
@click.option(
    "--incoming",
    is_flag=True,
    help="Load what Fluent Bit or Vector has put into the store's table of that name.",
)
@store_option
@click.option("--node", help="Whose lines these are; by default the host that each line names.")
@click.option(
    "--spool",
    default="rsttrace-spool",
    show_default=True,
    metavar="DIR",
    help="Where what comes through a pipe waits while the store is away.",
)
def load(files: tuple[str, ...], store: str, node: str | None, spool: str, incoming: bool) -> int:
    """Load what `rsttrace -o json` has written, plain or compressed (gzip, zstd); - is stdin.

    A file that grows is loaded again from where it was; nothing counts twice.
    """
    from rsttrace.commands import fleet

    if not files and not incoming:
        raise click.UsageError("name a file, - for stdin, or give --incoming")
    return fleet.load(store, files, node=node, spool=spool, incoming=incoming)


@command.command("report")
@store_option
@output_option
@since_option
@until_option
@click.option("--report", "page", metavar="FILE", help="Also write a page of HTML, for a ticket.")
def report(store: str, output: str, since: str, until: str | None, page: str | None) -> int:
    """Say which resets their senders really sent, which boxes forge, and why honest ones come."""
    from rsttrace.commands import fleet

    return fleet.report(store, output, since=since, until=until, page=page)


@command.command("entries")
@store_option
@output_option
@since_option
@until_option
@click.option(
    "--origin",
    type=click.Choice(["local", "peer", "forged", "inconclusive"]),
    help="Only resets made by these, as both ends together say.",
)
@click.option("-c", "--count", type=click.IntRange(min=1), help="At most so many.")
def entries(
    store: str, output: str, since: str, until: str | None, origin: str | None, count: int | None
) -> int:
    """Show entries as their nodes wrote them, amended by what the other end's own log says."""
    from rsttrace.commands import fleet

    return fleet.entries(store, output, since=since, until=until, verdict=origin, count=count)


@command.command("sql")
@click.argument("question", metavar="SQL")
@store_option
def sql(question: str, store: str) -> int:
    """Ask the views `resets`, `judged`, `watched`, `addresses`: rows as JSON lines."""
    from rsttrace.commands import fleet

    return fleet.ask(store, question)
