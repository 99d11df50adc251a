"""Who and what most resets of a run are about: peers, services' ports, processes, pods."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from rsttrace import model
from rsttrace.render.escape import safe

TABLES = ("peers", "ports", "processes", "pods", "containers")
NAMED = 5
"""So many of each are named at the end."""

KEPT = 1000
"""So many different names are counted in each table; of more, those that came least are forgotten,
and what comes back later is counted from there."""

Named = tuple[str, int]


class Top:
    """Counts names. Memory does not grow with their number."""

    def __init__(self) -> None:
        self._counters: dict[str, Counter[str]] = {table: Counter() for table in TABLES}

    def add(self, reset: model.Reset) -> None:
        """Count a reset."""
        for table, name in _names(reset):
            counter = self._counters[table]
            if name not in counter and len(counter) >= KEPT:
                kept = counter.most_common(KEPT // 2)
                counter.clear()
                counter.update(dict(kept))
            counter[name] += 1

    def tables(self) -> dict[str, list[Named]]:
        """The most frequent of each, raw, with their counts."""
        return {
            table: sorted(counter.items(), key=lambda item: (-item[1], item[0]))[:NAMED]
            for table, counter in self._counters.items()
        }

    def text_lines(self) -> list[str]:
        """For people; tables in which nothing was counted are left out."""
        return [
            f"top {table}: {', '.join(f'{safe(name, 253)} ({count:,})' for name, count in found)}"
            for table, found in self.tables().items()
            if found
        ]


def _names(reset: model.Reset) -> Iterator[tuple[str, str]]:
    yield "peers", reset.remote.ip
    yield "ports", str(min(reset.local.port, reset.remote.port))  # the service's, mostly
    process, pod, container = reset.process, reset.pod, reset.container
    if process is not None and process.comm:
        yield "processes", process.comm
    if pod is not None and (name := pod.name or pod.uid):
        yield "pods", f"{pod.namespace}/{name}" if pod.namespace else name
    if container is not None and (pod is None or not (pod.name or pod.uid)):
        yield "containers", container.name or container.id
