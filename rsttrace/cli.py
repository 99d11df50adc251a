"""The command line: click commands only. Sets the exit code.

Exit codes: 0 done (also when ended by Ctrl-C, SIGTERM, or a closed pipe), 1 a runtime error,
2 wrong usage.
"""

from __future__ import annotations

import contextlib
import io
import ipaddress
import math
import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rsttrace import __version__, limits
from rsttrace.errors import RsttraceError, UsageError
from rsttrace.model import Kind, Origin
from rsttrace.render.escape import safe

if TYPE_CHECKING:
    from rsttrace.commands.read import Filter
    from rsttrace.commands.run import Options

KIND_GROUPS = {
    "sent": tuple(kind for kind in Kind if kind.direction == "sent"),
    "received": tuple(kind for kind in Kind if kind.direction == "received"),
    "all": tuple(Kind),
}
MAX_FILTERS = 500
"""How often a filter may be repeated: the maps hold 1,024, a host name has several addresses."""

LONG_FILE = 16 << 20
"""Files from this size on, in bytes, take long enough to show progress."""

DEFAULT_KINDS = tuple(kind for kind in Kind if kind is not Kind.FORWARDED)


Decorator = Callable[[Any], Any]


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


output_option = click.option(
    "-o",
    "--output",
    type=click.Choice(["text", "json"]),
    default="text",
    help="text for people, or JSON, one object per line.",
)
plan_option = click.option(
    "--plan",
    type=click.Choice(["auto", "kprobes", "tracepoints"]),
    default="auto",
    help="Where to hook in; auto takes what this kernel has.",
)
write_option = click.option(
    "-w",
    "--write",
    metavar="FILE",
    help="Also write the resets and what provoked them to this pcapng file, with the verdicts as "
    "packet comments.",
)

count_option = click.option(
    "--count", type=click.IntRange(min=1), help="Stop after so many resets."
)
summary_option = click.option("--summary", is_flag=True, help="End with counts.")
explain_option = click.option("--explain", is_flag=True, help="Show every rule that was looked at.")
utc_option = click.option("--utc", is_flag=True, help="Times in UTC instead of local time.")
verbose_option = click.option(
    "-v", "--verbose", is_flag=True, help="Show headers, baseline, sockets, and all evidence."
)
color_option = click.option(
    "--color",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    help="auto: on a terminal, unless NO_COLOR is set.",
)

fingerprints_option = click.option(
    "--fingerprints",
    multiple=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Name devices by the fingerprints in this TOML file too (repeatable).",
)


host_option = click.option(
    "--host", multiple=True, help="Only resets from or to this address (repeatable)."
)
net_option = click.option(
    "--net", multiple=True, help="Only resets from or to this network (repeatable)."
)
port_option = click.option(
    "--port",
    multiple=True,
    type=click.IntRange(1, 65535),
    help="Only resets from or to this port (repeatable).",
)
kind_option = click.option(
    "--kind",
    multiple=True,
    type=click.Choice([*KIND_GROUPS, *(kind.value for kind in Kind)]),
    help="Only these kinds (repeatable); all but forwarded by default.",
)
origin_option = click.option(
    "--origin",
    multiple=True,
    type=click.Choice([origin.value for origin in Origin]),
    help="Only resets made by these (repeatable).",
)


def _together(*options: Decorator) -> Decorator:
    """Several options as one decorator."""

    def decorate(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


filter_options = _together(host_option, net_option, port_option, kind_option, origin_option)
show_options = _together(
    count_option,
    summary_option,
    explain_option,
    verbose_option,
    color_option,
    utc_option,
    fingerprints_option,
    write_option,
)


def _check_repeats(options: dict[str, Any], *names: str) -> None:
    """Raises UsageError where a filter is repeated too often."""
    for name in names:
        if len(options[name]) > MAX_FILTERS:
            raise UsageError(f"--{name} was given more than {MAX_FILTERS} times")


def _nets(hosts: tuple[str, ...], nets: tuple[str, ...]) -> tuple[tuple[str, int], ...]:
    """--host and --net as (address of 16 bytes in hex, prefix length of 128).

    Raises:
        UsageError: not an address, a name that does not resolve, or not a network.
    """
    found = []
    for host in hosts:
        try:
            addresses = [ipaddress.ip_address(host)]
        except ValueError:
            try:
                resolved = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            except (OSError, UnicodeError) as error:
                raise UsageError(
                    f"--host {host!r} is not an address, and as a name it does not resolve: "
                    f"{getattr(error, 'strerror', None) or error}",
                    hint="give an IPv4 or IPv6 address",
                ) from None
            addresses = [ipaddress.ip_address(item[4][0]) for item in resolved]
        found += [ipaddress.ip_network(address) for address in addresses]
    for net in nets:
        try:
            found.append(ipaddress.ip_network(net, strict=False))
        except ValueError as error:
            raise UsageError(f"--net: {error}", hint="write it as 10.0.0.0/8 or fd00::/8") from None
    rows = []
    for network in found:
        if network.version == 4:
            packed = b"\0" * 10 + b"\xff\xff" + network.network_address.packed
            rows.append((packed.hex(), network.prefixlen + 96))
        else:
            rows.append((network.network_address.packed.hex(), network.prefixlen))
    return tuple(dict.fromkeys(rows))


def _kinds(names: tuple[str, ...]) -> tuple[Kind, ...]:
    if not names:
        return DEFAULT_KINDS
    chosen: list[Kind] = []
    for name in names:
        chosen += KIND_GROUPS.get(name) or (Kind(name),)
    return tuple(dict.fromkeys(chosen))


def _shown(options: dict[str, Any], **more: Any) -> Options:
    """What a run shows, from the options that trace, read and compare share, and `more`."""
    from rsttrace.commands.run import Options
    from rsttrace.judge import fingerprints

    return Options(
        output=options["output"],
        count=options["count"],
        origins=tuple(Origin(name) for name in options["origin"]),
        summary=options["summary"],
        explain=options["explain"],
        verbose=options["verbose"],
        color=options["output"] == "text" and _color(options["color"]),
        utc=options["utc"],
        fingerprints=fingerprints.load(options["fingerprints"]),
        write=options["write"],
        **more,
    )


def _filter(options: dict[str, Any]) -> Filter:
    """Which resets of a capture are wanted."""
    from rsttrace.commands.read import Filter

    return Filter(
        kinds=_kinds(options["kind"]),
        nets=_nets(options["host"], options["net"]),
        ports=tuple(options["port"]),
    )


@cli.command()
@output_option
@click.option(
    "--duration", type=click.FloatRange(min=0, min_open=True), help="Stop after so many seconds."
)
@filter_options
@click.option("--iface", multiple=True, help="Only resets seen on this interface (repeatable).")
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
    help="How many flows to remember (about half a kB of kernel memory each).",
)
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
def trace(**options: Any) -> None:
    """Show every TCP reset that this node sends or receives, and who made it."""
    from rsttrace.commands import trace as tracing
    from rsttrace.enrich import NetnsDirectory
    from rsttrace.kernel.protocol import Request

    if options["duration"] is not None and not math.isfinite(options["duration"]):
        text = f"{options['duration']} is not a number of seconds"
        raise click.BadParameter(text, param_hint="--duration")
    _check_repeats(options, "host", "net", "port", "netns")
    directory = NetnsDirectory()
    request = Request(
        kinds=tuple(kind.value for kind in _kinds(options["kind"])),
        nets=_nets(options["host"], options["net"]),
        ports=tuple(options["port"]),
        netns=tuple(directory.resolve(spec) for spec in options["netns"]),
        baseline=not options["no_baseline"],
        flows=options["flows"],
        plan=options["plan"],
        payload=options["payload"],
    )
    tracing.trace(
        request,
        _shown(
            options,
            duration_s=options["duration"],
            ifaces=options["iface"],
            viewpoint_netns=options["viewpoint"] == "netns",
            hold_s=options["hold"],
            locate=options["locate"],
            probe_arp=options["probe_arp"],
        ),
    )


@cli.command()
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
def read(files: tuple[str, ...], **options: Any) -> int:
    """Show every TCP reset in captures (pcap, pcapng; also gzip; - is stdin), and who made it.

    Exit code 1 if a file cannot be read at all; a file that breaks off is read up to there.
    """
    from rsttrace.commands import read as reading

    _check_repeats(options, "host", "net", "port", "local")
    local = []
    for net in options["local"]:
        try:
            local.append(ipaddress.ip_network(net, strict=False))
        except ValueError as error:
            hint = "write it as 10.0.0.0/8, 10.0.0.5 or fd00::/8"
            raise UsageError(f"--local: {error}", hint=hint) from None
    if files.count("-") > 1:
        raise UsageError("standard input (-) can be read only once")
    return reading.read(
        files,
        _shown(options, hold_s=_hold(options["hold"], files)),
        _filter(options),
        local=local,
        flows=options["flows"],
        bar=_progress_bar,
    )


@cli.command()
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
def compare(a: str, b: str, **options: Any) -> int:
    """Compare two vantage points A and B of the same connections: who made each reset, and where.

    Each is a capture (pcap, pcapng; also gzip) or what `-o json` of this program has written there.
    The clocks need not agree. Exit code 1 if a file cannot be read.
    """
    from rsttrace.commands import compare as comparing

    _check_repeats(options, "host", "net", "port")
    return comparing.compare(
        (a, b),
        _shown(options, hold_s=60.0),
        _filter(options),
        flows=options["flows"],
        bar=_progress_bar,
    )


def _hold(asked: float | None, files: tuple[str, ...]) -> float:
    """A file's end is known: its verdicts can wait for it. Whoever watches a pipe cannot."""
    if asked is not None:
        return asked
    return 0.0 if "-" in files else 60.0


class _Progress:
    """A click progress bar that makes room for entries on the same terminal."""

    def __init__(self, update: Callable[[int], None]) -> None:
        self._update = update

    def __call__(self, count: int) -> None:
        """So many more bytes were read."""
        self._update(count)

    def clear(self) -> None:
        """Erase the bar's line; it comes back with the next update."""
        if sys.stdout.isatty():
            click.echo("\r\x1b[K", nl=False, err=True)


@contextlib.contextmanager
def _progress_bar(size: int, name: str) -> Iterator[_Progress | None]:
    """A bar on stderr for a long file, if that is a terminal."""
    if size < LONG_FILE or not sys.stderr.isatty():
        yield None
        return
    with click.progressbar(length=size, label=safe(os.path.basename(name)), file=sys.stderr) as bar:
        yield _Progress(bar.update)


def _color(choice: str) -> bool:
    """Colour only on a terminal, and not where NO_COLOR is set (no-color.org)."""
    if choice != "auto":
        return choice == "always"
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


@cli.command()
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
def locate(**options: Any) -> None:
    """Find the devices on the path to a peer, and which of them resets.

    Sends SYNs with rising TTL to the port (80 if none is given), and UDP and ICMP to those who do
    not answer them. No connection is made, unless --replay asks for it.
    """
    from rsttrace import jsonl
    from rsttrace.commands import locate as locating
    from rsttrace.commands.run import stop_on_signals
    from rsttrace.enrich import NetnsDirectory
    from rsttrace.enrich.target import Limits, resolve

    if not math.isfinite(options["timeout"]):
        raise click.BadParameter("that is not a number of seconds", param_hint="--timeout")
    clue = None
    if options["entry"] is not None:
        if options["hops"] is not None:
            raise UsageError("--hops and --entry say the same: give one of them")
        name = "standard input" if options["entry"].name == "<stdin>" else "the file of --entry"
        ip, port, clue = locating.clue_from(jsonl.texts(options["entry"]), name)
    elif options["hops"] is not None:
        clue = locating.Clue(options["hops"])
    if options["peer"] is not None:
        ip, port = _peer(options["peer"])
    elif options["entry"] is None:
        raise click.UsageError("give a PEER[:PORT], or --entry with a forged reset")
    netns = NetnsDirectory().resolve(options["netns"]) if options["netns"] is not None else None
    job = locating.Job(
        target=resolve(ip, port, options["family"]),
        limits=Limits(options["max_hops"], options["probes"], options["timeout"]),
        clue=clue,
        netns=netns,
        dns=options["dns"],
        data=_replay_data(options, clue.sent if clue is not None else None),
        probe_arp=options["probe_arp"],
    )
    with stop_on_signals() as stop:
        locating.locate(job, options["output"], stopped=lambda: stop.requested)


def _replay_data(options: dict[str, Any], sent: bytes | None) -> bytes | None:
    """The bytes that --replay sends; those that the entry has in it (`sent`) unless told others.

    Raises:
        UsageError: there are none, or too many, or nobody asked for a replay.
    """
    from rsttrace.enrich.replay import MAX_DATA

    given = [name for name in ("data", "data_file") if options[name] is not None]
    if not options["replay"]:
        if given:
            raise UsageError(
                f"--{given[0].replace('_', '-')} is what --replay sends",
                hint="add --replay to have it sent",
            )
        return None
    if len(given) > 1 or not (given or sent):
        raise UsageError(
            "--replay sends what you give it: one of --data and --data-file, or an --entry that "
            "rsttrace wrote with --payload",
            hint="the bytes that provoked the reset, such as --data 'GET /x'",
        )
    data = sent or b""
    if options["data"] is not None:
        data = os.fsencode(options["data"])
    elif options["data_file"] is not None:
        data = options["data_file"].read(MAX_DATA + 1)
    if not 0 < len(data) <= MAX_DATA:
        raise UsageError(f"--replay sends 1 to {MAX_DATA} bytes, as fit one packet")
    return data


def _peer(text: str) -> tuple[str, int]:
    """``10.0.0.1:3306``, ``[2001:db8::1]:443``, ``db.example``… as host and port (80).

    Raises:
        UsageError: the port is no port, or there is no host.
    """
    host, port = text, ""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        if rest and not rest.startswith(":"):
            raise UsageError(f"{text!r}: a colon and the port come after the bracket")
        port = rest[1:]
        if rest == ":":
            port = "?"
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
        port = port or "?"
    if not host:
        raise UsageError(f"{text!r} names no host", hint="write it as 10.0.0.1:443")
    if not port:
        return host, 80
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise UsageError(f"{text!r}: the port is not a number from 1 to 65535")
    return host, int(port)


@cli.command()
@explain_option
@color_option
def demo(explain: bool, color: str) -> None:
    """Show real verdicts on a live lab of network namespaces (needs root)."""
    from rsttrace.demo.play import play

    play(color=_color(color), explain=explain)


@cli.command()
@output_option
@click.option("-v", "--verbose", is_flag=True, help="Show what compiler and verifier printed.")
@plan_option
def doctor(output: str, verbose: bool, plan: str) -> int:
    """Say what this kernel offers, which plan runs, and what is missing.

    Exit code 0 if tracing works here, 1 if not.
    """
    from rsttrace.kernel.doctor import diagnose
    from rsttrace.render.json import object_line

    diagnosis = diagnose(plan)
    if output == "json":
        click.echo(object_line(diagnosis.object()))
    else:
        click.echo("\n".join(diagnosis.text_lines()))
    if verbose and diagnosis.log:
        click.echo(diagnosis.log, err=True)
    return 0 if diagnosis.works else 1


@cli.command()
def schema() -> None:
    """Print the JSON Schema of `-o json`."""
    from rsttrace.render.schema import schema_text

    click.echo(schema_text(), nl=False)


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


if __name__ == "__main__":
    main()
