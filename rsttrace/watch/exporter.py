"""The HTTP server that Prometheus scrapes (``--metrics``)."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import Any

from rsttrace.errors import ConfigError, UsageError

LOCAL = "127.0.0.1"
"""The address where none is given: metrics are nobody's business but this node's."""

HINT = "write it as PORT, ADDRESS:PORT or [ADDRESS]:PORT, for example 127.0.0.1:9741"


def parse_address(text: str) -> tuple[str, int]:
    """Address and port of ``9741``, ``:9741``, ``0.0.0.0:9741`` or ``[::1]:9741``.

    Port 0 lets the kernel choose one.

    Raises:
        UsageError: it is none of these.
    """
    host, _, port = text.rpartition(":")
    host = host or LOCAL
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise UsageError(f"--metrics {text!a}: an IPv6 address needs brackets", hint=HINT)
    if not (port.isascii() and port.isdigit() and int(port) < 1 << 16):
        raise UsageError(f"--metrics {text!a}: {port!a} is not a port", hint=HINT)
    with contextlib.suppress(OSError):
        found = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
        return str(found[0][4][0]), int(port)
    raise UsageError(f"--metrics {text!a}: {host!a} is no address and does not resolve", hint=HINT)


class Exporter:
    """Serves a registry at ``http://ADDRESS:PORT/metrics`` in a thread of its own.

    Text for Prometheus, or OpenMetrics (with exemplars) for those who ask for it. A context
    manager. From its start on it tells what the process itself takes; the rest is for others to
    register.

    Raises (on entering):
        ConfigError: the address or the port cannot be had.

    Attributes:
        registry: what is served.
    """

    def __init__(self, host: str, port: int) -> None:
        from prometheus_client import CollectorRegistry, ProcessCollector, disable_created_metrics

        # Else each counter has one more series, which tells nobody anything.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._host = host
        self._port = port
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)

    def __enter__(self) -> Exporter:
        from prometheus_client import start_http_server

        try:
            self._server, self._thread = start_http_server(
                self._port, self._host, registry=self.registry
            )
        except OSError as error:
            shown = _shown(self._host, self._port)
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise ConfigError(
                f"metrics cannot be served at {shown}: {reason}",
                hint="give --metrics an address of this host and a port that is free; "
                f"ss -ltnp 'sport = :{self._port}' shows who has this one",
            ) from error
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        """Where the metrics are."""
        address: Any = self._server.server_address
        return f"http://{_shown(*address[:2])}/metrics"


def _shown(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
