"""The manual pages: docs/rsttrace.8.md, and a page of each command, through lowdown(1)."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path

import click

from packages import ROOT
from rsttrace import __version__
from rsttrace.cli import cli

SOURCE = ROOT / "docs" / "rsttrace.8.md"

SECTIONS = {
    "trace": "OPTIONS OF TRACE",
    "read": "READING CAPTURES",
    "locate": "LOCATE",
    "compare": "COMPARE",
}
"""The section of the whole manual that a command's page repeats."""


def pages() -> dict[str, str]:
    """The Markdown of every page by its name, headings on the first level."""
    whole = SOURCE.read_text(encoding="utf-8").partition("\n")[2]  # without the title
    whole = re.sub(r"^#(#+ )", r"\1", whole, flags=re.MULTILINE)
    parts = dict(re.findall(r"^# (.+)\n((?:(?!# ).*\n?)*)", whole, re.MULTILINE))
    made = {"rsttrace": whole}
    others = [f"**rsttrace-{name}**(8)" for name in sorted(cli.commands)]
    made["rsttrace"] = whole.rstrip() + ", " + ", ".join(others) + "\n"
    for name, command in cli.commands.items():
        section = SECTIONS.get(name)
        made[f"rsttrace-{name}"] = _page(name, command, parts[section] if section else "")
    return made


def _page(name: str, command: click.Command, section: str) -> str:
    context = click.Context(command, info_name=f"rsttrace {name}")
    text = re.sub(r"\s+", " ", (command.help or "").partition("\f")[0]).strip()
    first = re.split(r"\.(?:\s|$)", text)[0]
    lines = [
        f"# NAME\n\nrsttrace-{name} – {first[:1].lower()}{first[1:]}\n",
        f"# SYNOPSIS\n\n    rsttrace {name} {' '.join(command.collect_usage_pieces(context))}\n",
        f"# DESCRIPTION\n\n{text}\n",
        "# OPTIONS\n",
    ]
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None:
            lines.append(f"`{record[0]}`\n: {_words(record[1])}\n")
    if section:
        lines.append(f"# IN DETAIL\n\n{section.strip()}\n")
    lines.append("# SEE ALSO\n\n**rsttrace**(8)\n")
    return "\n".join(lines)


def _words(text: str) -> str:
    """Plain text as Markdown."""
    return re.sub(r"([\\*_<>\[\]])", r"\\\1", text)


def roff(name: str, text: str, epoch: int) -> str:
    """A page as man(7) reads it."""
    date = time.strftime("%Y-%m-%d", time.gmtime(epoch))
    fields = {
        "title": name,
        "section": "8",
        "date": date,
        "source": f"rsttrace {__version__}",
        "volume": "System Manager's Manual",
    }
    options = [word for key, value in fields.items() for word in ("-M", f"{key}={value}")]
    done = subprocess.run(
        ["lowdown", "-s", "-Tman", "--parse-no-intraemph", "--out-no-smarty", *options],
        input=text, capture_output=True, text=True, check=True,
    )  # fmt: skip
    # whatis(1) wants the hyphen, and manual pages have code in bold.
    return done.stdout.replace(" – ", r" \- ", 1).replace(r"\fC", r"\fB")


def write(directory: Path, epoch: int) -> list[Path]:
    """Write every page to a folder."""
    directory.mkdir(parents=True, exist_ok=True)
    made = []
    for name, text in sorted(pages().items()):
        made.append(directory / f"{name}.8")
        made[-1].write_text(roff(name, text, epoch), encoding="utf-8")
    return made
