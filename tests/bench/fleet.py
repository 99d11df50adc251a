"""What ``rsttrace fleet`` costs: loading lines, and each question over many entries. Needs chDB.

    python -m tests.bench.fleet [MILLIONS [NODES [FOLDER]]]

Lines are loaded as a user loads them. The many entries are made by the store itself: half of them
sent, half received, each with its sender's entry, one in a thousand forged. A FOLDER that is named
is kept: what was made and joined there is not made again.
"""

from __future__ import annotations

import resource
import shutil
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path

from rsttrace.fleet.load import Loader, load_file
from rsttrace.fleet.report import answer, settle, whole_span
from rsttrace.fleet.store import Store
from tests.fleet import nodes as made
from tests.fleet.nodes import Node

LINES = 20_000

MAKE = """
INSERT INTO entries
SELECT
    concat('node', toString(here)) AS node, 'run' AS run, number AS key, 0 AS revision,
    fromUnixTimestamp64Nano({start} + intDiv(number, 2) * {step} + if(sent, 0, 3000000)) AS time,
    if(sent, 'sent', 'received') AS direction,
    if(sent, 'sent-active', 'received-accepted') AS kind,
    multiIf(sent, 'local', forged, 'forged', intDiv(number, 2) % 10 = 0, 'inconclusive', 'peer')
        AS origin,
    if(sent, 1, 0.97) AS confidence, if(forged, 5, -4) AS score,
    ['linger','no-socket','unread-data','time-wait','refused'][pair % 5 + 1] AS cause,
    'a sentence about it' AS summary, '' AS closed_by, NULL AS idle_s,
    toIPv6(concat('10.', toString(intDiv(here, 250)), '.0.', toString(here % 250 + 1))) AS local_ip,
    if(sent, 443, 1024 + pair % 60000) AS local_port,
    toIPv6(concat('10.', toString(intDiv(there, 250)), '.0.', toString(there % 250 + 1)))
        AS remote_ip,
    if(sent, 1024 + pair % 60000, 443) AS remote_port,
    'R' AS flags, toUInt32(cityHash64(pair, forged AND NOT sent)) AS seq, 0 AS ack, 60 AS ttl,
    toUInt16(pair) AS ip_id, if(sent, NULL, 4) AS hops_rst, if(sent, NULL, 4) AS hops_peer,
    if(forged, 'injector', 'peer-socket') AS author, '' AS device,
    if(sent, '', '00:d0:f8:22:33:44') AS mac, '' AS vendor, '' AS neighbor, 0 AS made_here,
    [] AS findings, concat('service', toString(a % 300)) AS owner, 'PA, data' AS trigger,
    toUInt32(pair) AS trigger_seq, toUInt16(pair + 1) AS trigger_ip_id, 1 AS seen,
    repeat('x', 40) AS json
FROM
(
    SELECT number, number % 2 = 0 AS sent, intDiv(number, 2) AS pair,
           cityHash64(pair) % {nodes} AS a,
           (a + 1 + cityHash64(pair, 1) % ({nodes} - 1)) % {nodes} AS b,
           if(sent, b, a) AS here, if(sent, a, b) AS there, pair % 1000 = 7 AS forged
    FROM numbers({count})
)
"""

RUNS = """
INSERT INTO runs
SELECT concat('node', toString(number)), 'run', '', '', since, until, since, until, 0, 0, 1
FROM (SELECT number, now() - INTERVAL 30 DAY AS since, now() + INTERVAL 1 DAY AS until
      FROM numbers({nodes}))
"""


def memory_mb() -> int:
    """The most memory that this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main() -> None:
    """Measure and print."""
    millions = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    count, nodes = int(millions * 1e6), int(sys.argv[2]) if len(sys.argv) > 2 else 2000
    kept = len(sys.argv) > 3
    folder = Path(sys.argv[3] if kept else tempfile.mkdtemp(dir="/var/tmp"))
    try:
        _load(folder)
        _ask(folder, count, nodes)
    finally:
        if not kept:
            shutil.rmtree(folder, ignore_errors=True)


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _load(folder: Path) -> None:
    """Lines as a user loads them. They are much alike: real ones take more room in the store."""
    where = folder / "loaded"
    shutil.rmtree(where, ignore_errors=True)
    a, b = Node("a", "10.0.0.1"), Node("b", "10.0.0.2")
    for number in range(LINES):
        made.forged(a, b, number % 20_000)
    path = folder / "a.jsonl"
    path.write_text(made.text([a]))
    with Store(f"chdb:{where}") as store:
        store.query("SELECT 1")
        began = time.process_time()
        load_file(Loader(store), store, str(path))
        spent = time.process_time() - began
    print(
        f"loading: {LINES / spent:,.0f} lines for a second of CPU; "
        f"{path.stat().st_size / LINES:,.0f} bytes a line, "
        f"{_size(where) / LINES:,.0f} in the store",
        flush=True,
    )


def _ask(folder: Path, count: int, nodes: int) -> None:
    with Store(f"chdb:{folder / 'many'}") as store:
        if whole_span(store) is None:
            began = time.monotonic()
            step = max(1, int(86400e9 / count) * 2)  # all of it in a day, which is over
            start = time.time_ns() - 2 * 86_400_000_000_000
            store.command(MAKE.format(count=count, nodes=nodes, step=step, start=start))
            store.command(RUNS.format(nodes=nodes))
            print(
                f"{count:,} entries of {nodes:,} nodes made in {time.monotonic() - began:.0f} s",
                flush=True,
            )
        span = whole_span(store)
        assert span is not None
        span = (span[0], span[1] + timedelta(milliseconds=1))
        if not store.query("SELECT count() AS n FROM other_ends")[0]["n"]:
            began = time.monotonic()
            settle(store, span)
            took_s = time.monotonic() - began
            print(f"    {took_s:6.1f} s  ask every other end; {memory_mb()} MB", flush=True)
        found = answer(store, span)
        for name, seconds in found.took_s.items():
            print(f"    {seconds:6.1f} s  {name}")
        print(f"    memory, at most: {memory_mb()} MB")
        totals = found.totals
        print(f"    {totals['sent_by_the_peer']:,} sent, {totals['never_sent']:,} never sent")
        for row in store.query(
            "SELECT table, sum(rows) AS n, sum(bytes_on_disk) AS size FROM system.parts"
            " WHERE active GROUP BY table ORDER BY size DESC"
        ):
            print(f"    {row['table']}: {row['n']:,} rows of {row['size'] / row['n']:.0f} bytes")


if __name__ == "__main__":
    main()
