"""Sends entries as log records to an OpenTelemetry collector, by OTLP over HTTP (``--otlp``).

Needs the extra ``rsttrace[otel]``. The library's own variables (OTEL_EXPORTER_OTLP_HEADERS,
OTEL_RESOURCE_ATTRIBUTES and so on) work as with any other program.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from rsttrace import home
from rsttrace.errors import DependencyError, UsageError

LOGS_PATH = "/v1/logs"
"""Where a collector takes logs (OTLP/HTTP), if the address names nothing else."""

TIMEOUT_S = 5.0
"""How long one batch may take, with all that is tried again."""

END_S = 5.0
"""How long the end of a run may wait for the last batches."""


def endpoint(text: str) -> str:
    """The address in full: ``http://collector:4318`` means its ``/v1/logs``.

    Raises:
        UsageError: it is no address of HTTP.
    """
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1)
    except ValueError:
        usable = False
    if not usable:
        raise UsageError(
            f"--otlp {text!a} is not an address of a collector",
            hint="write it as http://HOST:4318 (OTLP over HTTP; port 4317 is gRPC's)",
        )
    return text if parts.path.strip("/") else f"{text.rstrip('/')}{LOGS_PATH}"


class Otlp:
    """A connection to a collector. A context manager; records are sent in the background.

    A collector that is not there loses records, which are counted; it never holds up the trace.

    Args:
        address: see `endpoint`.
        resource: says who we are: name -> value.

    Raises (on entering):
        DependencyError: the extra is not installed.
    """

    def __init__(self, address: str, resource: Mapping[str, str]) -> None:
        self._address = address
        self._resource = dict(resource)
        self._given = 0
        self._counter: _Counting | None = None

    def __enter__(self) -> Otlp:
        try:
            from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
            from opentelemetry.sdk._logs import LoggerProvider
            from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
            from opentelemetry.sdk.resources import Resource
        except ImportError as error:
            raise DependencyError(
                f"--otlp needs OpenTelemetry's SDK and its OTLP exporter: {error}",
                hint=home.extra("otel"),
            ) from error
        self._words = _Words()
        exporter = OTLPLogExporter(endpoint=self._address, timeout=TIMEOUT_S)
        self._counter = _Counting(exporter)
        self._provider = LoggerProvider(Resource.create(self._resource), shutdown_on_exit=False)
        processor: Any = BatchLogRecordProcessor(self._counter)  # type: ignore[arg-type]
        self._provider.add_log_record_processor(processor)
        self._logger = self._provider.get_logger("rsttrace", self._resource["service.version"])
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.finish()
        self._words.close()

    def finish(self) -> None:
        """Send what waits, as far as there is time; nothing is sent after that."""
        assert self._counter is not None
        ending = threading.Thread(target=self._provider.shutdown, daemon=True)
        ending.start()
        ending.join(END_S)
        self._counter.shutdown()  # ends what is tried again and again

    def send(
        self,
        body: str,
        time_ns: int,
        severity: tuple[int, str],
        name: str,
        attributes: Mapping[str, Any],
    ) -> None:
        """Send one record, when its batch is due."""
        from opentelemetry._logs import LogRecord, SeverityNumber

        number, text = severity
        self._given += 1
        self._logger.emit(
            LogRecord(
                timestamp=time_ns,
                severity_number=SeverityNumber(number),
                severity_text=text,
                body=body,
                attributes=dict(attributes),
                event_name=name,
            )
        )

    @property
    def lost(self) -> int:
        """How many records the collector has not taken; after `finish`."""
        return self._given - (self._counter.taken if self._counter is not None else 0)

    @property
    def reason(self) -> str:
        """What the library said last."""
        return self._words.last


class _Counting:
    """An exporter that counts what the collector has taken."""

    def __init__(self, exporter: Any) -> None:
        self._exporter = exporter
        self.taken = 0
        self._ended = False

    def export(self, batch: Sequence[Any]) -> Any:
        """Send a batch."""
        result = self._exporter.export(batch)
        if result.name == "SUCCESS":
            self.taken += len(batch)
        return result

    def force_flush(self, timeout_millis: int = 10_000) -> bool:
        """Nothing waits here."""
        del timeout_millis
        return True

    def shutdown(self) -> None:
        """Stop trying."""
        if not self._ended:
            self._ended = True
            self._exporter.shutdown()


class _Words(logging.Handler):
    """Takes what the library logs, so that it does not reach the terminal; keeps the last of it."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.last = "no answer in time"
        self._logger = logging.getLogger("opentelemetry")
        self._propagated = self._logger.propagate
        self._logger.addHandler(self)
        self._logger.propagate = False

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        self.last = record.getMessage()

    def close(self) -> None:
        """Leave the library as it was."""
        self._logger.removeHandler(self)
        self._logger.propagate = self._propagated
        super().close()
