"""What a collector is told: by the real exporter, to a real receiver that decodes OTLP."""

from __future__ import annotations

import gzip
import http.server
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)

from rsttrace.errors import UsageError
from rsttrace.model import Author, Container, Entry, Origin, Pod, Process, Share, Verdict
from rsttrace.render.json import entry_line
from rsttrace.render.otel import EVENT_NAME, OURS, SEVERITIES, attributes
from rsttrace.watch.otlp import Otlp, endpoint
from tests.unit import builders
from tests.unit.test_cli import main

RESOURCE = {"service.name": "rsttrace", "service.version": "1.2", "host.name": "node-7"}


class Receiver:
    """An OTLP receiver over HTTP. `status` is what it answers."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.paths: list[str] = []
        self.status = 200
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                data = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    data = gzip.decompress(data)
                request = ExportLogsServiceRequest()
                request.ParseFromString(data)
                receiver.paths.append(self.path)
                if receiver.status == 200:
                    receiver.requests.append(request)
                answer = ExportLogsServiceResponse().SerializeToString()
                self.send_response(receiver.status)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *arguments: object) -> None:
                del arguments

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    @property
    def records(self) -> list[Any]:
        return [
            record
            for request in self.requests
            for resource in request.resource_logs
            for scope in resource.scope_logs
            for record in scope.log_records
        ]

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    try:
        yield made
    finally:
        made.close()


def plain(attribute: Any) -> Any:
    """A value of OTLP as Python's."""
    kind = attribute.WhichOneof("value")
    if kind == "array_value":
        return [plain(one) for one in attribute.array_value.values]
    return getattr(attribute, kind)


def entry(origin: Origin = Origin.FORGED, **values: Any) -> Entry:
    shares = (Share(Author.REJECT, 0.9, "a firewall"),)
    verdict = Verdict(origin, 0.97, 3.0, authors=shares, findings=("idle-timeout",))
    return Entry(17, builders.reset(**values), verdict)


def send(otlp: Otlp, found: Entry) -> None:
    severity = SEVERITIES[found.verdict.origin]
    otlp.send("the line", found.reset.time_ns, severity, EVENT_NAME, attributes(found))


def test_an_entry_arrives_as_a_log_record(receiver: Receiver) -> None:
    found = entry(
        process=Process(4711, "nginx", 33),
        container=Container("0123abcd", "web"),
        pod=Pod("shop", "web-0", None),
    )
    with Otlp(endpoint(receiver.url), RESOURCE) as otlp:
        send(otlp, found)
    assert otlp.lost == 0
    assert receiver.paths == ["/v1/logs"]
    (request,) = receiver.requests
    (resource,) = request.resource_logs
    about = {one.key: plain(one.value) for one in resource.resource.attributes}
    assert RESOURCE.items() <= about.items()
    (record,) = receiver.records
    assert record.body.string_value == "the line"
    assert record.time_unix_nano == found.reset.time_ns
    assert (record.severity_number, record.severity_text) == (13, "WARN")
    assert record.event_name == EVENT_NAME
    told = {one.key: plain(one.value) for one in record.attributes}
    assert told["network.peer.address"] == builders.PEER
    assert told["network.peer.port"] == builders.PEER_PORT
    assert told["network.type"] == "ipv4"
    assert told["process.pid"] == 4711
    assert told["k8s.namespace.name"] == "shop"
    assert told["container.id"] == "0123abcd"
    assert told[OURS + "origin"] == "forged"
    assert told[OURS + "author"] == "reject"
    assert told[OURS + "findings"] == ["idle-timeout"]
    assert told[OURS + "json"] == entry_line(found)
    assert "k8s.pod.uid" not in told  # unknown


def test_every_origin_has_a_severity_of_its_own_rank(receiver: Receiver) -> None:
    assert SEVERITIES.keys() == set(Origin)
    with Otlp(endpoint(receiver.url), RESOURCE) as otlp:
        for origin in Origin:
            send(otlp, entry(origin))
    told = {
        plain(one.value): record.severity_number
        for record in receiver.records
        for one in record.attributes
        if one.key == OURS + "origin"
    }
    assert told == {origin.value: SEVERITIES[origin][0] for origin in Origin}
    assert max(told, key=lambda origin: told[origin]) == "forged"


def test_many_arrive_in_order(receiver: Receiver) -> None:
    with Otlp(endpoint(receiver.url), RESOURCE) as otlp:
        for number in range(1000):
            otlp.send(str(number), number + 1, (9, "INFO"), EVENT_NAME, {})
    assert [record.body.string_value for record in receiver.records] == [*map(str, range(1000))]
    assert otlp.lost == 0


def test_what_a_collector_refuses_is_counted(
    receiver: Receiver, capsys: pytest.CaptureFixture[str]
) -> None:
    receiver.status = 400
    with Otlp(endpoint(receiver.url), RESOURCE) as otlp:
        send(otlp, entry())
        send(otlp, entry())
    assert otlp.lost == 2
    assert "400" in otlp.reason
    assert capsys.readouterr().err == ""  # the library's own words are not for a terminal


def test_a_collector_that_is_not_there_is_counted() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        with Otlp(f"http://127.0.0.1:{port}/v1/logs", RESOURCE) as otlp:
            send(otlp, entry())
    assert otlp.lost == 1
    assert otlp.reason


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("http://collector:4318", "http://collector:4318/v1/logs"),
        ("https://collector/", "https://collector/v1/logs"),
        ("http://[::1]:4318", "http://[::1]:4318/v1/logs"),
        ("https://gateway/tenant/v1/logs", "https://gateway/tenant/v1/logs"),
    ],
)
def test_addresses(text: str, full: str) -> None:
    assert endpoint(text) == full


@pytest.mark.parametrize("text", ["", "collector:4318", "grpc://x:1", "http://", "http://x:y"])
def test_no_addresses(
    text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError):
        endpoint(text)
    assert main(monkeypatch, "--otlp", text) == 2
    assert "http://HOST:4318" in capsys.readouterr().err


def test_without_the_extra_it_says_what_to_install() -> None:
    code = (
        "import sys\n"
        "sys.modules['opentelemetry'] = None\n"
        "from rsttrace.cli import main\n"
        "sys.argv[1:] = ['--otlp', 'http://127.0.0.1:4318']\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout) == (1, "")
    what, hint = done.stderr.splitlines()
    assert what.startswith("rsttrace: --otlp needs OpenTelemetry's SDK")
    assert "pip install '.[otel]'" in hint
