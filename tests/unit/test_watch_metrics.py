"""What Prometheus is told: scraped from the real exporter, read by prometheus-client's parsers."""

from __future__ import annotations

import re
import socket
import threading
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as plain_text

from rsttrace.commands.watching import finding_names
from rsttrace.errors import ConfigError, UsageError
from rsttrace.model import Author, Cause, Endpoint, Entry, Kind, Origin, Share, Verdict
from rsttrace.watch import metrics
from rsttrace.watch.exporter import Exporter, parse_address
from rsttrace.watch.metrics import KernelSide, Metrics
from tests.unit import builders
from tests.unit.test_cli import main, run

OPEN = "application/openmetrics-text; version=1.0.0"
Samples = dict[tuple[str, frozenset[tuple[str, str]]], Any]


@pytest.fixture
def exporter() -> Iterator[Exporter]:
    with Exporter("127.0.0.1", 0) as exporter:
        yield exporter


def scrape(exporter: Exporter, accept: str = OPEN) -> str:
    request = urllib.request.Request(exporter.url, headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=20) as answer:
        text: str = answer.read().decode()
    return text


def samples(exporter: Exporter) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample
        for family in open_metrics(scrape(exporter))  # type: ignore[no-untyped-call]
        for sample in family.samples
    }


def value(found: Samples, name: str, **labels: str) -> float:
    number: float = found[f"rsttrace_{name}", frozenset(labels.items())].value
    return number


def verdict(origin: Origin, *authors: tuple[Author, float], **values: Any) -> Verdict:
    shares = tuple(Share(author, share, "") for author, share in authors)
    return Verdict(origin, None, 0.0, authors=shares, **values)


FORGED = verdict(
    Origin.FORGED, (Author.REJECT, 0.7), (Author.PEER_SOCKET, 0.2), findings=("idle-timeout",)
)
PEER = verdict(Origin.PEER, (Author.PEER_SOCKET, 0.9))


def test_an_entry_counts_in_each_family(exporter: Exporter) -> None:
    told = Metrics(exporter.registry, finding_names())
    told.add(Entry(17, builders.reset(), FORGED))
    told.add(Entry(18, builders.reset(), FORGED))
    found = samples(exporter)
    kind = Kind.RECEIVED_ACCEPTED.value
    assert value(found, "resets_total", kind=kind, origin="forged") == 2
    assert value(found, "resets_total", kind=kind, origin="peer") == 0
    assert value(found, "authors_total", origin="forged", author="reject") == 2
    cause = {"kind": kind, "origin": "forged", "cause": "connection-reset"}
    assert value(found, "causes_total", **cause) == 2
    assert value(found, "findings_total", finding="idle-timeout") == 2
    exemplars = {sample.exemplar.labels["entry_id"] for sample in found.values() if sample.exemplar}
    assert exemplars == {"18"}


def test_an_amendment_is_no_reset_of_its_own(exporter: Exporter) -> None:
    told = Metrics(exporter.registry)
    told.add(Entry(1, builders.reset(), PEER))
    told.add(Entry(2, builders.reset(), FORGED, amends=1))
    told.add(Entry(3, builders.reset(), FORGED, amends=1))  # no other verdict than the last
    found = samples(exporter)
    kind = Kind.RECEIVED_ACCEPTED.value
    assert value(found, "resets_total", kind=kind, origin="peer") == 1
    assert value(found, "resets_total", kind=kind, origin="forged") == 0
    assert value(found, "amended_total", was="peer", origin="forged") == 1
    assert sum(s.value for (name, _), s in found.items() if name == "rsttrace_amended_total") == 1


@pytest.mark.parametrize(
    ("given", "word"),
    [
        (PEER, "peer-socket"),
        (FORGED, "reject"),
        (verdict(Origin.FORGED, (Author.REJECT, 0.5), (Author.INJECTOR, 0.5)), "several"),
        (verdict(Origin.FORGED, (Author.PEER_SOCKET, 0.6), (Author.SWAP, 0.4)), "several"),
        (verdict(Origin.FORGED), "several"),
        (verdict(Origin.LOCAL), None),
        (verdict(Origin.INCONCLUSIVE, (Author.REJECT, 0.9)), None),  # accuses nobody
    ],
)
def test_only_a_verdict_that_names_somebody_has_an_author(given: Verdict, word: str | None) -> None:
    assert metrics.author(given) == word


def test_no_label_takes_what_comes_from_outside(
    exporter: Exporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither addresses nor ports nor names; and of causes there is an end."""
    monkeypatch.setattr(metrics, "CAUSES_MOST", 2)
    told = Metrics(exporter.registry, finding_names())
    before = len(samples(exporter))
    for number in range(20):
        packet = builders.rst(
            src=Endpoint(f"10.9.8.{number}", 3000 + number),
        )
        cause = Cause(f"cause-{number}", "")
        told.add(Entry(number, builders.reset(packet, cause=cause), FORGED))
    text = scrape(exporter)
    assert len(samples(exporter)) == before + 3
    assert 'cause="other"' in text
    # Labels alone: a count of anything (Python's own objects) may hold these digits.
    values = re.findall(r'="((?:[^"\\]|\\.)*)"', text)
    assert values
    assert not [value for value in values if re.search(r"10\.9\.8|30[01]\d", value)]


def test_every_label_has_a_bounded_set_of_values(exporter: Exporter) -> None:
    Metrics(exporter.registry, finding_names())
    labels = {
        name
        for family in open_metrics(scrape(exporter))  # type: ignore[no-untyped-call]
        for sample in family.samples
        for name in sample.labels
    }
    assert labels == {"kind", "origin", "author", "finding", "was"}


def side(counts: dict[Kind, tuple[int, ...]], hooks: list[tuple[str, bool]]) -> KernelSide:
    return KernelSide(
        {"version": "1", "kernel": "6.1"}, lambda: dict(counts), lambda: 4, lambda: list(hooks)
    )


def test_the_kernel_sides_counts_are_read_at_each_scrape_until_it_goes(
    exporter: Exporter,
) -> None:
    counts: dict[Kind, tuple[int, ...]] = {Kind.FORWARDED: (1, 2, 3, 4)}
    hooks = [("tcp_reset", True), ("tcp_reset", False), ("nf_send_reset", True)]
    kernel = side(counts, hooks)
    exporter.registry.register(kernel)
    found = samples(exporter)
    assert value(found, "build_info", version="1", kernel="6.1") == 1
    assert value(found, "late_packets_lost_total") == 4
    assert value(found, "hook_attached", hook="tcp_reset") == 0
    assert value(found, "hook_attached", hook="nf_send_reset") == 1
    for outcome, number in zip(metrics.OUTCOMES, (1, 2, 3, 4)):
        labels = {"kind": "forwarded", "outcome": outcome}
        assert value(found, "kernel_resets_total", **labels) == number
    counts[Kind.FORWARDED] = (5, 2, 3, 4)
    delivered = {"kind": "forwarded", "outcome": "delivered"}
    assert value(samples(exporter), "kernel_resets_total", **delivered) == 5
    kernel.close()
    counts.clear()
    assert value(samples(exporter), "kernel_resets_total", **delivered) == 5


def test_plain_text_for_those_who_do_not_ask_for_openmetrics(exporter: Exporter) -> None:
    told = Metrics(exporter.registry)
    told.add(Entry(1, builders.reset(), PEER))
    told.add_unwanted()
    text = scrape(exporter, "text/plain")
    assert "entry_id" not in text
    found = {sample.name: sample.value for family in plain_text(text) for sample in family.samples}
    assert found["rsttrace_unwanted_total"] == 1
    assert found["process_resident_memory_bytes"] > 1e6


def test_scrapes_during_a_trace_see_whole_metrics(exporter: Exporter) -> None:
    told = Metrics(exporter.registry)
    counting = threading.Event()

    def count() -> None:
        for number in range(3000):
            told.add(Entry(number + 1, builders.reset(), PEER))
        counting.set()

    thread = threading.Thread(target=count)
    thread.start()
    last = 0.0
    while not counting.is_set():
        now = value(samples(exporter), "resets_total", kind="received-accepted", origin="peer")
        assert now >= last
        last = now
    thread.join()
    found = samples(exporter)
    assert value(found, "resets_total", kind="received-accepted", origin="peer") == 3000


# ---- where it is served ----


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("9741", ("127.0.0.1", 9741)),
        (":9741", ("127.0.0.1", 9741)),
        ("0.0.0.0:9741", ("0.0.0.0", 9741)),
        ("[::1]:0", ("::1", 0)),
        ("localhost:1", ("127.0.0.1", 1)),
    ],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) in (address, (address[0].replace("127.0.0.1", "::1"), address[1]))


@pytest.mark.parametrize(
    "text", ["", "x", "1.2.3.4", "1.2.3.4:", "1.2.3.4:65536", "::1:9741", "no.such.invalid:1", "²"]
)
def test_no_addresses(
    text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError, match="--metrics"):
        parse_address(text)
    assert main(monkeypatch, "--metrics", text) == 2
    assert "[ADDRESS]:PORT" in capsys.readouterr().err


def test_ipv6() -> None:
    with Exporter("::1", 0) as exporter:
        assert exporter.url.startswith("http://[::1]:")
        assert "process_cpu" in scrape(exporter)


def test_a_port_that_is_taken_is_said_before_anything_is_loaded() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError), Exporter("127.0.0.1", port):
            pass
        status, out, err = run("--metrics", str(port))
    assert (status, out) == (1, "")
    assert err.splitlines() == [
        f"rsttrace: metrics cannot be served at 127.0.0.1:{port}: Address already in use",
        "  what to do: give --metrics an address of this host and a port that is free; "
        f"ss -ltnp 'sport = :{port}' shows who has this one",
    ]


def test_an_address_of_another_host() -> None:
    status, _, err = run("--metrics", "192.0.2.1:9741")
    assert status == 1
    assert "192.0.2.1:9741: Cannot assign requested address" in err


def test_the_port_is_free_again_afterwards() -> None:
    with Exporter("127.0.0.1", 0) as first:
        port = int(first.url.rpartition(":")[2].partition("/")[0])
    with Exporter("127.0.0.1", port) as second:
        assert "process_cpu" in scrape(second)
