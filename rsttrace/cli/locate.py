"""``rsttrace locate``."""

from __future__ import annotations

from typing import Any

import click

from rsttrace.cli.options import finite, output_option, rights_options


@click.command("locate")
@output_option
@click.argument("peer", metavar="PEER[:PORT]", required=False)
@click.option(
    "--hops",
    type=click.IntRange(0, 254),
    help="How many hops away a forged reset was made, as trace says: put it on the path.",
)
@click.option(
    "--entry",
    type=click.File("r", encoding="utf-8", errors="surrogateescape"),
    help="Take peer and hops from the last forged entry in this file of JSON lines (-: stdin).",
)
@click.option("-4", "family", flag_value=4, type=int, help="Only IPv4 addresses of a name.")
@click.option("-6", "family", flag_value=6, type=int, help="Only IPv6 addresses of a name.")
@click.option(
    "--max-hops",
    type=click.IntRange(1, 64),
    default=30,
    show_default=True,
    help="Probe no farther than so many hops.",
)
@click.option(
    "--probes",
    type=click.IntRange(1, 10),
    default=3,
    show_default=True,
    help="Probes for each hop; with --replay, how often to repeat what was found.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(0.05, 10),
    callback=finite,
    default=2.0,
    show_default=True,
    help="Seconds to wait for an answer at most.",
)
@click.option("--dns", is_flag=True, help="Look up the names of the addresses found.")
@click.option("--netns", help="Probe from this namespace: a name, a path, an inode, pid:N.")
@click.option(
    "--probe-arp",
    is_flag=True,
    help="Also ask the link who has the peer's address, or our gateway's if the peer is behind it: "
    "3 ARP requests (IPv6: neighbour solicitations).",
)
@click.option(
    "--replay",
    is_flag=True,
    help="Open connections of our own and send --data (else what the --entry had sent) with rising "
    "TTL until a reset comes back.",
)
@click.option("--data", help="What --replay sends: this text.")
@click.option("--data-file", type=click.File("rb"), help="What --replay sends: this file's bytes.")
@rights_options
def command(**options: Any) -> None:
    """Find the devices on the path to a peer, and which of them resets.

    Sends SYNs with rising TTL to the port (80 if none is given), and UDP and ICMP to those who do
    not answer them. No connection is made, unless --replay asks for it.
    """
    from rsttrace.commands import locate

    if options["peer"] is None and options["entry"] is None:
        raise click.UsageError("give a PEER[:PORT], or --entry with a forged reset")
    locate.run_command(options)
