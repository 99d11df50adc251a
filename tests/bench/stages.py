"""What a reset costs on its way through Python: CPU time of each stage. No root needed.

Run as ``python -m tests.bench.stages``; also a part of ``make bench``. The events are made of the
bytes that the kernel side would send: resets received in a connection that was watched.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from rsttrace.commands.run import collect_seldom
from rsttrace.judge import fingerprints
from rsttrace.judge.verdict import judge
from rsttrace.kernel.decode import decode
from rsttrace.model import Entry, Kind, Reset
from rsttrace.render.json import entry_line
from tests.unit import builders as b

ROUNDS, EVENTS = 5, 500


def raw_events() -> list[bytes]:
    """Whole events: headers, socket, and both directions of a flow."""
    made = []
    for number in range(EVENTS):
        found = b.event(Kind.RECEIVED_ACCEPTED, ts=10**12 + number)
        b.headers(found.trigger, b.ipv4_bytes(), b.tcp_bytes("PA", seq=number))
        b.socket(found.sock)
        for half in (found.theirs, found.ours):
            b.fill(half, packets=12, ttl=47, has_syn=1, df_always=1, has_mac=1, mac=bytes(6))
            b.fill(half.syn, ttl=47, flags=2, window=64240)
            for place, seen in enumerate(half.recent):
                b.fill(seen, ts=10**12 - place, ttl=47, flags=24, seq=number + place)
        made.append(bytes(found))
    return made


def main() -> None:
    """Measure and print."""
    collect_seldom()
    events = raw_events()
    resets = [decode(raw, b.CONTEXT) for raw in events]
    told = [reset for reset in resets if isinstance(reset, Reset)]
    known = fingerprints.load(())
    entries = [Entry(id + 1, reset, judge(reset)) for id, reset in enumerate(told)]
    stages: dict[str, Callable[[], object]] = {
        "decode": lambda: [decode(raw, b.CONTEXT) for raw in events],
        "judge": lambda: [judge(reset, known, explain=False) for reset in told],
        "JSON line": lambda: [entry_line(entry) for entry in entries],
    }
    spent: dict[str, list[float]] = {name: [] for name in stages}
    for _ in range(ROUNDS):
        for name, work in stages.items():
            began = time.process_time()
            work()
            spent[name].append((time.process_time() - began) / EVENTS)
    base = statistics.median(spent["decode"])
    print(f"{EVENTS} events, from bytes to JSON")
    for name, seconds in spent.items():
        median = statistics.median(seconds)
        print(f"    {median / base:5.2f} x  {name}: {median * 1e6:.0f} µs a reset", flush=True)


if __name__ == "__main__":
    main()
