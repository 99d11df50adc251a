"""What a run has seen, as metrics for Prometheus.

No label is an address, a port or a name from outside: each set of labels is small and known before
it is seen (causes: `CAUSES_MOST`). Counters of known labels begin with 0, since ``increase()`` does
not see the step by which a series comes into being.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from rsttrace.model import Author, Entry, Kind, Origin, Verdict

if TYPE_CHECKING:
    from prometheus_client import Counter
    from prometheus_client.metrics_core import Metric
    from prometheus_client.registry import CollectorRegistry

CAUSES_MOST = 256
"""How many causes have a counter of their own; there are about 120. The rest is `OTHER`."""

OTHER = "other"
SEVERAL = "several"
"""The author where none has more than half of the probability."""

REMEMBERED = 4096
"""How many entries an amendment can still be compared with."""

OUTCOMES = ("delivered", "filtered", "lost", "counted")
"""What the kernel side did with a reset: the columns of `LiveSource.counts`."""

_TELLS_AUTHOR = (Origin.PEER, Origin.FORGED)


def author(verdict: Verdict) -> str | None:
    """Who made it, in one word; None where the verdict names nobody (local, inconclusive)."""
    if verdict.origin not in _TELLS_AUTHOR:
        return None
    peers = verdict.origin is Origin.PEER
    shares = [share for share in verdict.authors if share.author.is_peer is peers]
    best = max(shares, key=lambda share: share.probability, default=None)
    return best.author.value if best is not None and best.probability > 0.5 else SEVERAL


class Metrics:
    """Counts entries, and shows what the kernel side counts, in a registry.

    Args:
        registry: where the metrics go.
        findings: every finding that a verdict may have.
    """

    def __init__(self, registry: CollectorRegistry, findings: Iterable[str] = ()) -> None:
        from prometheus_client import Counter

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"rsttrace_{name}", text, labels, registry=registry)

        self._registry = registry
        self._resets = counter("resets", "Resets shown, by the first verdict.", "kind", "origin")
        self._authors = counter(
            "authors", "Resets of the peer, and forged ones, by who made them.", "origin", "author"
        )
        self._causes = counter("causes", "Resets shown, by cause.", "kind", "origin", "cause")
        self._findings = counter("findings", "Findings beside a first verdict.", "finding")
        self._amended = counter(
            "amended", "Verdicts that became another one later.", "was", "origin"
        )
        self._filtered = counter("unwanted", "Resets judged, then left out by a filter.")
        self._seen_causes: set[str] = set()
        self._recent: OrderedDict[int, Origin] = OrderedDict()
        for kind in Kind:
            for origin in Origin:
                self._resets.labels(kind.value, origin.value)
        for one in Author:
            origin = Origin.PEER if one.is_peer else Origin.FORGED
            self._authors.labels(origin.value, one.value)
        for origin in _TELLS_AUTHOR:
            self._authors.labels(origin.value, SEVERAL)
        for name in findings:
            self._findings.labels(name)
        for was in Origin:
            for origin in Origin:
                if was is not origin:
                    self._amended.labels(was.value, origin.value)

    def add(self, entry: Entry) -> None:
        """Count an entry; one that amends another is no reset of its own."""
        verdict = entry.verdict
        key = entry.id if entry.amends is None else entry.amends
        was = self._recent.get(key)
        self._recent[key] = verdict.origin
        if len(self._recent) > REMEMBERED:
            self._recent.popitem(last=False)
        if entry.amends is not None:
            if was is not None and was is not verdict.origin:
                self._amended.labels(was.value, verdict.origin.value).inc()
            return
        kind, origin = entry.reset.kind.value, verdict.origin.value
        exemplar = {"entry_id": str(entry.id)}
        self._resets.labels(kind, origin).inc(exemplar=exemplar)
        self._causes.labels(kind, origin, self._cause(entry.cause.name)).inc(exemplar=exemplar)
        maker = author(verdict)
        if maker is not None:
            self._authors.labels(origin, maker).inc(exemplar=exemplar)
        for finding in verdict.findings:
            self._findings.labels(_label(finding)).inc(exemplar=exemplar)

    def add_unwanted(self) -> None:
        """Count a reset that a filter left out after it was judged."""
        self._filtered.inc()

    def _cause(self, name: str) -> str:
        name = _label(name)
        if name not in self._seen_causes:
            if len(self._seen_causes) >= CAUSES_MOST:
                return OTHER
            self._seen_causes.add(name)
        return name


def _label(name: str) -> str:
    """What UTF-8 can carry: one lone surrogate would fail each scrape from then on."""
    return name.encode("utf-8", "replace").decode()


class KernelSide:
    """What the kernel side has counted and which hooks are on: read when somebody asks.

    A collector of prometheus-client. After `close` it goes on to say what was true then.

    Args:
        build: version, kernel, plan and the like.
        counts: kind -> how many resets had each of `outcomes`.
        late_lost: how many late packets were lost.
        hooks: each hook's target, and whether it is on. Two hooks may have one target.
    """

    def __init__(
        self,
        build: Mapping[str, str],
        counts: Callable[[], Mapping[Kind, Sequence[int]]],
        late_lost: Callable[[], int],
        hooks: Callable[[], Iterable[tuple[str, bool]]],
        outcomes: Sequence[str] = OUTCOMES,
    ) -> None:
        self._build = dict(build)
        self._counts = counts
        self._late_lost = late_lost
        self._hooks = hooks
        self._outcomes = outcomes
        self._lock = threading.Lock()
        self._last: list[Metric] | None = None

    def collect(self) -> Iterator[Metric]:
        """The metrics now."""
        with self._lock:
            made = self._last if self._last is not None else self._made()
        yield from made

    def close(self) -> None:
        """The kernel side goes away: keep what it says last."""
        with self._lock:
            self._last = self._made()

    def _made(self) -> list[Metric]:
        from prometheus_client.core import (
            CounterMetricFamily,
            GaugeMetricFamily,
            InfoMetricFamily,
        )

        build = InfoMetricFamily("rsttrace_build", "What runs, and on what.", value=self._build)
        kernel = CounterMetricFamily(
            "rsttrace_kernel_resets",
            "Resets that the kernel side saw, by what it did with them.",
            labels=("kind", "outcome"),
        )
        for kind, numbers in self._counts().items():
            for outcome, number in zip(self._outcomes, numbers):
                kernel.add_metric((kind.value, outcome), number)
        late = CounterMetricFamily(
            "rsttrace_late_packets_lost",
            "Packets after a reset that could not be told: verdicts may lack them.",
            value=self._late_lost(),
        )
        hook = GaugeMetricFamily(
            "rsttrace_hook_attached", "Whether a hook is on (1) or not (0).", labels=("hook",)
        )
        on: dict[str, bool] = {}
        for target, attached in self._hooks():
            on[target] = on.get(target, True) and attached
        for target, attached in on.items():
            hook.add_metric((target,), int(attached))
        return [build, kernel, late, hook]
