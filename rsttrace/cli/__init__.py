"""The command line: click's definitions, and nothing else of ours imports click.

What the options mean, and what the commands do, is in `rsttrace.commands`.

Exit codes: 0 done (also when ended by Ctrl-C, SIGTERM, or a closed pipe), 1 a runtime error,
2 wrong usage.
"""

from __future__ import annotations

import difflib
import io
import os
import sys
from typing import Any

import click
from click.shell_completion import CompletionItem

from rsttrace.cli import check, compare, fleet, locate, others, read, top, trace
from rsttrace.errors import RsttraceError


class ReaderGone(Exception):
    """Nobody reads our output any more. Not an OSError: click would make that exit code 1."""


class DefaultTrace(click.Group):
    """``rsttrace`` is ``rsttrace trace``: with no command named, the options are trace's."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put ``trace`` in front unless a command, --help or --version comes first.

        Raises:
            click.UsageError: what comes first is neither a command nor an option.
        """
        first = args[0] if args else ""
        if ctx.resilient_parsing and not args:  # completing the first word
            return super().parse_args(ctx, args)
        if first and not first.startswith("-") and first not in self.commands:
            raise click.UsageError(_no_command(first, list(self.commands)), ctx)
        if first not in self.commands and first not in ("--help", "-h", "--version"):
            args = ["trace", *args]
        return super().parse_args(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Commands; and options, which are trace's where no command is named."""
        found = super().shell_complete(ctx, incomplete)
        if incomplete.startswith("-"):
            found += trace.command.shell_complete(ctx, incomplete)
        return list({item.value: item for item in found}.values())

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a closed pipe is no error."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise ReaderGone from None


def _no_command(word: str, commands: list[str]) -> str:
    """What to say of a first word that is no command."""
    near = difflib.get_close_matches(word.lower(), commands, n=1, cutoff=0.6)
    if os.path.exists(word):
        meant = f"rsttrace read {word!a}"
    else:
        meant = f"rsttrace {near[0]}" if near else ""
    hint = f"did you mean `{meant}`?" if meant else f"there are {', '.join(sorted(commands))}"
    return f"there is no command {word!a}; {hint}"


def _show_version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    """A click callback: print the versions, and no more."""
    if wanted and not context.resilient_parsing:
        from rsttrace.commands import version

        click.echo("\n".join(version.lines()))
        context.exit()


@click.group(cls=DefaultTrace, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the versions of rsttrace, bcc, LLVM, libbpf, Python and the kernel, and the plan.",
)
def cli() -> None:
    """Who resets your TCP connections? `rsttrace` alone is `rsttrace trace`.

    \b
    sudo rsttrace                        every reset of this node, live
    sudo rsttrace -p 443 --explain       only port 443, with all that was looked at
    rsttrace read incident.pcap          every reset in a capture
    rsttrace compare client.pcap server.pcap
    sudo rsttrace doctor                 what this kernel offers
    rsttrace help trace                  the options of a command
    """


@click.command("help")
@click.argument("command", required=False)
@click.pass_context
def help_command(context: click.Context, command: str | None) -> None:
    """Show the help of a command."""
    parent = context.parent
    assert parent is not None
    if command is None:
        click.echo(parent.get_help())
        return
    found = cli.commands.get(command)
    if found is None:
        raise click.UsageError(_no_command(command, list(cli.commands)), parent)
    with click.Context(found, info_name=command, parent=parent) as inner:
        click.echo(found.get_help(inner))


for _command in (
    trace.command,
    read.command,
    compare.command,
    fleet.command,
    check.command,
    locate.command,
    top.command,
    others.demo,
    others.doctor,
    others.schema,
    help_command,
):
    cli.add_command(_command)


def main() -> None:
    """Entry point of the ``rsttrace`` command."""
    if sys.stderr is None:  # closed: status must not go into the data
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if sys.stdout is None:
        print("rsttrace: stdout is closed: there is nowhere to write to", file=sys.stderr)
        sys.exit(1)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a C locale must not end the trace
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status = cli(prog_name="rsttrace", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(0)  # Ctrl-C before tracing began
    except RsttraceError as error:
        print(f"rsttrace: {error}", file=sys.stderr)
        if error.log and "-v" in sys.argv:
            print(error.log, file=sys.stderr)
        sys.exit(error.exit_code)
    except (ReaderGone, BrokenPipeError):
        # Nobody reads any more: end quietly, also when Python flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:  # a full disk behind stdout, for one
        where = f"{error.filename!a}: " if isinstance(error.filename, str) else ""
        print(f"rsttrace: {where}{error.strerror or error}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    sys.exit(status if isinstance(status, int) else 0)
