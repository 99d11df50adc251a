"""``rsttrace locate``: the path to a peer, and a forged reset on it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from rsttrace import jsonl
from rsttrace.commands.about import about_run
from rsttrace.commands.clue import Clue, clue_from
from rsttrace.commands.holders import HolderJob, holder_job_lines, run_holder_job
from rsttrace.commands.locator import Job, located_lines, run_job
from rsttrace.commands.run import to_stderr
from rsttrace.commands.stop import stop_on_signals
from rsttrace.enrich import Neighbors, NetnsDirectory
from rsttrace.enrich.replay import MAX_DATA
from rsttrace.enrich.target import Limits, resolve
from rsttrace.errors import UsageError
from rsttrace.model import Path
from rsttrace.privileges.account import account
from rsttrace.privileges.giving import Giving
from rsttrace.render.escape import ascii_only


def run_command(options: Mapping[str, Any]) -> None:
    """The command, from its options: PEER or ``--entry`` is among them.

    Raises:
        UsageError: an option is not what it should be.
        RsttraceError: the path cannot be probed.
        BrokenPipeError: nobody reads.
    """
    job = _job(options)
    become = account(options["user"], keep_root=options["keep_root"])
    with stop_on_signals() as stop, Giving(become) as giving:
        giving.give_up(probes=True)
        for line in giving.lines(verbose=False):
            to_stderr(line)
        locate(job, options["output"], stopped=lambda: stop.requested)


def _job(options: Mapping[str, Any]) -> Job:
    clue = None
    if options["entry"] is not None:
        if options["hops"] is not None:
            raise UsageError("--hops and --entry say the same: give one of them")
        name = "standard input" if options["entry"].name == "<stdin>" else "the file of --entry"
        ip, port, clue = clue_from(jsonl.texts(options["entry"]), name)
    elif options["hops"] is not None:
        clue = Clue(options["hops"])
    if options["peer"] is not None:
        ip, port = parse_peer(options["peer"])
    netns = NetnsDirectory().resolve(options["netns"]) if options["netns"] is not None else None
    return Job(
        target=resolve(ip, port, options["family"]),
        limits=Limits(options["max_hops"], options["probes"], options["timeout"]),
        clue=clue,
        netns=netns,
        dns=options["dns"],
        data=_replay_data(options, clue.sent if clue is not None else None),
        probe_arp=options["probe_arp"],
    )


def _replay_data(options: Mapping[str, Any], sent: bytes | None) -> bytes | None:
    """The bytes that --replay sends; those that the entry has in it (`sent`) unless told others.

    Raises:
        UsageError: there are none, or too many, or nobody asked for a replay.
    """
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


def parse_peer(text: str) -> tuple[str, int]:
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


def locate(job: Job, output: str, *, stopped: Callable[[], bool] = lambda: False) -> None:
    """The command: run a job and print what it found.

    Raises:
        RsttraceError: the path cannot be probed.
        BrokenPipeError: nobody reads.
    """
    directory, about = NetnsDirectory(), about_run()
    with Neighbors(directory) as neighbors:
        located = run_job(job, directory, neighbors, stopped=stopped, say=to_stderr)
        plain = ascii_only(sys.stdout)
        _print(located_lines(job, located, output, plain, about=about))
        if not job.probe_arp or stopped():
            return
        asked = _holder_job(job, located.path)
        if asked is None:
            to_stderr("no address to ask for: the peer is this host itself, or there is no way")
            return
        found = run_holder_job(asked, directory, neighbors, stopped)
        _print(holder_job_lines(asked, found, output, plain, about=about))


def _print(lines: list[str]) -> None:
    for line in lines:
        print(line)
    sys.stdout.flush()


def _holder_job(job: Job, path: Path) -> HolderJob | None:
    """The next hop's address: the peer's own if it is on our link."""
    hop = path.next_hop
    if hop is None or hop.is_local or hop.ifindex is None:
        return None
    netns = os.stat("/proc/self/ns/net").st_ino if job.netns is None else job.netns
    mac = job.clue.mac if job.clue is not None and not hop.is_gateway else None
    return HolderJob(hop.ip, netns, hop.ifindex, (mac,) if mac else ())
