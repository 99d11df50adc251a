"""``rsttrace trace``."""

from __future__ import annotations

from typing import Any

import click

from rsttrace import limits
from rsttrace.cli.options import (
    duration,
    filter_options,
    output_option,
    plan_option,
    rights_options,
    show_options,
    whose_options,
)


@click.command("trace")
@output_option
@click.option(
    "--duration",
    metavar="TIME",
    callback=duration,
    help="Stop after so long: 60 (seconds), 30s, 2min.",
)
@filter_options
@whose_options
@click.option(
    "-i", "--iface", multiple=True, help="Only resets seen on this interface (repeatable)."
)
@click.option(
    "--netns",
    multiple=True,
    help="Only this network namespace: a name, a path, an inode, pid:N, or self (repeatable).",
)
@click.option(
    "--no-baseline",
    is_flag=True,
    help="Do not learn what flows look like: less overhead, weaker verdicts.",
)
@show_options
@click.option(
    "--viewpoint",
    type=click.Choice(["node", "netns"]),
    default="node",
    help="node: use what only this node knows; netns: judge as if each namespace were a machine.",
)
@plan_option
@click.option(
    "--flows",
    type=click.IntRange(16, 4_000_000),
    default=limits.FLOWS,
    show_default=True,
    help="How many flows to remember (about 1.2 kB of kernel memory each), and half as many that "
    "are not confirmed by both ends.",
)
@click.option(
    "--rate",
    type=click.IntRange(1, 1_000_000),
    default=limits.RATE,
    show_default=True,
    help="How many resets a second that are alike are shown one by one, after five times as many "
    "at once; the others are counted.",
)
@click.option("--no-aggregate", is_flag=True, help="Show every reset one by one, also in a storm.")
@click.option(
    "--hold",
    type=click.FloatRange(0, 60),
    default=0.1,
    show_default=True,
    help="Seconds that a verdict waits for late evidence; what comes later amends it.",
)
@click.option(
    "--payload",
    type=click.IntRange(0, limits.PAYLOAD_MAX),
    default=0,
    help="Keep and show so many bytes of what we sent before a reset (may hold secrets).",
)
@click.option(
    "--locate",
    is_flag=True,
    help="Probe the path to the peer of a forged reset, each peer at most once a minute.",
)
@click.option(
    "--probe-arp",
    is_flag=True,
    help="Ask the link who has an address that seems to be there twice: 3 ARP requests (IPv6: "
    "neighbour solicitations), each address at most once a minute.",
)
@click.option(
    "--probe",
    is_flag=True,
    help="Ask the peer of a doubtful reset how far away it is: by an echo, else a SYN, each at "
    "most once a minute.",
)
@click.option(
    "--metrics",
    metavar="[ADDR:]PORT",
    help="Serve metrics for Prometheus there (by default at 127.0.0.1 only).",
)
@click.option(
    "--journal",
    is_flag=True,
    help="Also send each entry to journald, with fields (journalctl RSTTRACE_ORIGIN=forged).",
)
@click.option(
    "--otlp",
    metavar="URL",
    help="Also send each entry as a log record to this OpenTelemetry collector (OTLP over HTTP, "
    "http://HOST:4318; needs rsttrace[otel]).",
)
@rights_options
def command(**options: Any) -> int:
    """Show every TCP reset that this node sends or receives, and who made it.

    \b
    rsttrace -p 443 -c 10                the next ten of port 443
    rsttrace --origin forged --locate    what something on the path made, and where
    rsttrace -o json --duration 60 --summary > node.jsonl
    rsttrace -w resets.pcapng --rotate 1d --keep 7
    """
    from rsttrace.commands import starting

    with starting.begin(options) as begun:
        from rsttrace.commands import trace

        return trace.run_command(options, begun)
