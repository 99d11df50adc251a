"""``--probe-arp``: who has an address of our own link, by asking all that are on it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from rsttrace.commands.jobs import Worker
from rsttrace.commands.run import machine_form
from rsttrace.enrich import Neighbors, NetnsDirectory
from rsttrace.enrich.holders import find_holders
from rsttrace.enrich.vendor import vendor
from rsttrace.model import AddressHolders, Entry, Holder
from rsttrace.render.holders import holders_lines, holders_object
from rsttrace.render.json import About


@dataclass(frozen=True)
class HolderJob:
    """Whose address, and on which interface; `seen` MACs had it in packets, `entry` is about it."""

    ip: str
    netns: int
    ifindex: int
    seen: tuple[str, ...] = ()
    entry: int | None = None


def run_holder_job(
    job: HolderJob,
    directory: NetnsDirectory,
    neighbors: Neighbors,
    stopped: Callable[[], bool] = lambda: False,
) -> AddressHolders:
    """Ask, and say where the MACs that answer are to be found.

    Raises:
        RsttraceError: see `rsttrace.enrich.holders.find_holders`; the namespace is gone.
    """
    netns, ifindex = job.netns, job.ifindex
    netns_path = directory.way_into(netns)
    began = time.monotonic_ns()
    macs, sent = find_holders(job.ip, ifindex, netns_path=netns_path, stopped=stopped)
    duration = time.monotonic_ns() - began
    holders = tuple(
        Holder(mac, vendor(mac), count, neighbors.bridge_port(netns, ifindex, mac))
        for mac, count in macs.items()
    )
    return AddressHolders(
        ip=job.ip,
        method="nd" if ":" in job.ip else "arp",
        netns=netns,
        ifindex=ifindex,
        ifname=neighbors.ifname(netns, ifindex),
        sent=sent,
        holders=holders,
        duration_ns=duration,
        seen=job.seen,
    )


def holder_job_lines(
    job: HolderJob,
    found: AddressHolders,
    output: str,
    plain: bool,
    indent: str = "",
    about: About | None = None,
) -> list[str]:
    """What was found, as lines of text or as one line of JSON (with `about`, the run)."""
    if output != "text":
        return [machine_form(output)(holders_object(found, entry=job.entry), about)]
    lines = holders_lines(found, plain=plain, indent=indent)
    if job.entry is not None:
        lines.insert(0, f"{indent}#{job.entry}: whether the address is there twice")
    return lines


class HolderFinder(Worker[HolderJob, AddressHolders]):
    """Confirms duplicate addresses beside a running trace, each once in `EVERY_S`."""

    def __init__(self) -> None:
        super().__init__(run_holder_job, "rsttrace-holders")

    def ask(self, entry: Entry) -> bool:
        """Check an entry's peer if its address seems to be on our own link twice.

        True if it will be.
        """
        reset, hop = entry.reset, entry.reset.next_hop
        if (
            "duplicate-address" not in entry.verdict.findings
            or reset.kind.direction != "received"
            or reset.netns is None
            or hop is None
            or hop.is_gateway
            or hop.is_local
            or hop.ifindex is None
            or hop.ip != reset.rst.src.ip
        ):
            return False
        values = next(
            (item.values for item in entry.verdict.evidence if item.rule == "duplicate-address"), {}
        )
        seen = tuple(str(mac) for mac in values.get("macs", ()))
        number = entry.id if entry.amends is None else entry.amends
        job = HolderJob(hop.ip, reset.netns, hop.ifindex, seen, number)
        return self.put((reset.netns, hop.ifindex, hop.ip), job)
