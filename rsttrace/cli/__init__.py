"""The command line: click's definitions, and nothing else of ours imports click.

What the options mean, and what the commands do, is in `rsttrace.commands`.

Exit codes: 0 done (also when ended by Ctrl-C, SIGTERM, or a closed pipe), 1 a runtime error,
2 wrong usage.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Any

import click

from rsttrace import __version__
from rsttrace.cli import compare, locate, others, read, top, trace
from rsttrace.errors import RsttraceError


class ReaderGone(Exception):
    """Nobody reads our output any more. Not an OSError: click would make that exit code 1."""


class DefaultTrace(click.Group):
    """``rsttrace`` is ``rsttrace trace``: with no command named, the options are trace's."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put ``trace`` in front unless a command, --help or --version comes first."""
        first = args[0] if args else ""
        if first not in self.commands and first not in ("--help", "-h", "--version"):
            args = ["trace", *args]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a closed pipe is no error."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise ReaderGone from None


@click.group(cls=DefaultTrace, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="rsttrace")
def cli() -> None:
    """Who resets your TCP connections? `rsttrace` alone is `rsttrace trace`."""


for _command in (
    trace.command,
    read.command,
    compare.command,
    locate.command,
    top.command,
    others.demo,
    others.doctor,
    others.schema,
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
        status = cli(standalone_mode=False)
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
        print(f"rsttrace: {error.strerror or error}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    sys.exit(status if isinstance(status, int) else 0)
