"""Debian's Prometheus scrapes the real exporter while the lab resets; its rules and panels work."""

from __future__ import annotations

import json
import re
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from rsttrace.demo.lab import Lab
from tests.lab.conftest import routed_lab
from tests.lab.harness import (
    ADDRESSES,
    TRACE,
    Tracer,
    expect_reset,
    forward,
    linger_zero,
    pair,
    poll_until,
    refuse,
    skip_without,
)

MONITORING = Path(__file__).parents[2] / "docs" / "monitoring"
BOARD = json.loads((MONITORING / "grafana.json").read_text())
PANELS = {panel["title"]: panel for panel in BOARD["panels"]}
NODE, CLIENT, ROUTER, SERVER = "node", "client", "router", "server"
FORGED = 'rsttrace_resets_total{origin="forged",kind="received-accepted"}'


@dataclass
class Watched:
    """A tracer and a Prometheus that scrapes it, in a namespace of their own."""

    lab: Lab
    tracer: Tracer

    def ask(self, path: str, **query: str) -> Any:
        """Data of Prometheus's HTTP API."""
        url = f"http://127.0.0.1:9090/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with self.lab.inside(NODE), urllib.request.urlopen(url, timeout=20) as answer:
            return json.load(answer)["data"]

    def query(self, expression: str) -> list[Any]:
        """What an instant query gives."""
        found: list[Any] = self.ask("query", query=expression)["result"]
        return found

    def firing(self) -> set[str]:
        """The names of the alerts that fire."""
        return {
            alert["labels"]["alertname"]
            for alert in self.ask("alerts")["alerts"]
            if alert["state"] == "firing"
        }


def configure(folder: Path) -> Path:
    """The documented configuration and rules, in a hurry: every second, and no `for:`."""
    rules = (MONITORING / "rules.yml").read_text()
    (folder / "rules.yml").write_text(re.sub(r"\bfor: \w+", "for: 0s", rules))
    config = (MONITORING / "prometheus.yml").read_text()
    hurried = re.sub(r"scrape_interval: \w+", "scrape_interval: 1s", config)
    path = folder / "prometheus.yml"
    path.write_text(f"global:\n  evaluation_interval: 1s\n{hurried}")
    return path


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    skip_without("prometheus", "promtool")
    folder = tmp_path_factory.mktemp("prometheus")
    with routed_lab("rstwatch") as lab:
        lab.add(NODE)
        into = ["ip", "netns", "exec", lab.name(NODE)]
        # Others of this machine may be reset meanwhile.
        ours = [f"--netns={lab.inode(role)}" for role in (CLIENT, ROUTER, SERVER)]
        tracer = Tracer("--metrics", "9741", *ours, program=[*into, *TRACE])
        try:
            lab.spawn(
                NODE,
                [
                    "prometheus",
                    f"--config.file={configure(folder)}",
                    f"--storage.tsdb.path={folder / 'data'}",
                    "--web.listen-address=127.0.0.1:9090",
                    "--enable-feature=exemplar-storage",
                ],
                ready="ready to receive web requests",
            )
            found = Watched(lab, tracer)
            # An increase is seen between two samples: the first has to be there before.
            poll_until(lambda: bool(found.query(FORGED)), "the first scrape")
            assert [sample["value"][1] for sample in found.query(FORGED)] == ["0"]
            play(lab)
            yield found
        finally:
            tracer.stop()


def has_data(watched: Watched, expression: str) -> bool:
    """Whether an instant query returns anything."""
    return bool(watched.query(expression))


def play(lab: Lab) -> None:
    """A refusal, an abort, and a firewall on the way that resets in the server's name."""
    refuse(lab, ADDRESSES["server"][0])
    with pair(lab, CLIENT, SERVER) as (client, accepted):
        linger_zero(accepted)
        accepted.close()
        expect_reset(client)
    with pair(lab, CLIENT, SERVER) as (client, accepted):
        client.sendall(b"hello")
        assert accepted.recv(99) == b"hello"
        lab.nft(ROUTER, forward("tcp dport 7000 reject with tcp reset"))
        client.sendall(b"question")
        expect_reset(client)


def test_what_was_traced_is_what_was_scraped(watched: Watched) -> None:
    def scraped() -> dict[str, int]:
        found = watched.query("sum by (origin) (rsttrace_resets_total) > 0")
        return {row["metric"]["origin"]: int(row["value"][1]) for row in found}

    def traced() -> dict[str, int]:
        origins = [e["origin"] for e in watched.tracer.entries if e["amends"] is None]
        return {origin: origins.count(origin) for origin in set(origins)}

    watched.tracer.wait_for(lambda: traced().get("forged", 0) > 0, "the forged reset")
    poll_until(lambda: scraped() == traced(), "all resets to be scraped")
    assert {"forged", "local", "peer"} <= scraped().keys()


def test_the_alert_of_a_forged_reset_fires_and_no_other(watched: Watched) -> None:
    poll_until(lambda: "RsttraceForgedResets" in watched.firing(), "the alert")
    # hooks: what this kernel lacks
    assert watched.firing() - {"RsttraceHookMissing"} == {"RsttraceForgedResets"}


def test_an_exemplar_leads_to_its_entry(watched: Watched) -> None:
    def exemplars() -> list[Any]:
        given = {"query": FORGED, "start": "0", "end": "4102444800"}
        return list(watched.ask("query_exemplars", **given))

    poll_until(lambda: bool(exemplars()), "an exemplar")
    (series,) = exemplars()
    ids = [int(one["labels"]["entry_id"]) for one in series["exemplars"]]
    entries = {entry["id"]: entry for entry in watched.tracer.entries}
    assert {entries[number]["origin"] for number in ids} == {"forged"}


@pytest.mark.parametrize("title", PANELS)
def test_every_query_of_the_dashboard_returns_data(title: str, watched: Watched) -> None:
    for target in PANELS[title]["targets"]:
        expression = target["expr"].replace("$instance", ".*")
        expression = expression.replace("$__rate_interval", "1m").replace("$__range", "1h")
        assert "$" not in expression
        poll_until(partial(has_data, watched, expression), f"data of {title}")
        metric = watched.query(expression)[0]["metric"]
        for label in re.findall(r"{{(\w+)}}", target["legendFormat"]):
            assert label in metric


def test_the_variable_of_the_dashboard_finds_the_node(watched: Watched) -> None:
    (variable,) = [v for v in BOARD["templating"]["list"] if v["type"] == "query"]
    name, label = re.findall(r"\w+", variable["query"]["query"])[1:]
    values = watched.ask(f"label/{label}/values", **{"match[]": name})
    assert values == ["127.0.0.1:9741"]


def test_z_the_alert_of_a_tracer_that_is_gone_fires(watched: Watched) -> None:
    """The last one: it ends the tracer."""
    assert watched.tracer.stop() == 0
    poll_until(lambda: "RsttraceDown" in watched.firing(), "the alert")


@pytest.mark.parametrize(
    "command",
    ["check rules rules.yml", "check config prometheus.yml",
     "test rules rules.test.yml"],
)  # fmt: skip
def test_promtool(command: str) -> None:
    skip_without("promtool")
    done = subprocess.run(
        ["promtool", *command.split()],
        cwd=MONITORING,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tested_firing_and_silent() -> None:
    alerts = re.findall(r"alert: (\w+)", (MONITORING / "rules.yml").read_text())
    tests = (MONITORING / "rules.test.yml").read_text()
    assert len(alerts) == 10
    for alert in alerts:
        told = re.findall(
            rf"alertname: {alert}\b,?\s+exp_alerts:(?: (\[\])| \[\{{()|\n +- ())", tests
        )
        assert len(told) >= 2, alert
        assert {bool(silent) for silent, *_ in told} == {True, False}, alert


def test_the_dashboard_asks_for_what_the_rules_and_the_exporter_know() -> None:
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"]) > 10
    cells = [
        (x, y)
        for panel in BOARD["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
