"""The store of a fleet's entries: ClickHouse, in this process (chDB) or a server.

One client for both (clickhouse-connect), one SQL for both (the ``.sql`` files beside this one).
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rsttrace import files, home
from rsttrace.errors import DependencyError, RsttraceError, UsageError

DEFAULT = "chdb:rsttrace.fleet"

HINT = home.extra("fleet")

Row = Sequence[Any]


class StoreAway(RsttraceError):
    """The store does not answer now; it may later."""


def sql(name: str) -> str:
    """The text of one of the SQL files."""
    return resources.files("rsttrace.fleet").joinpath(f"{name}.sql").read_text(encoding="utf-8")


def statements(text: str) -> list[str]:
    """The statements of a file, without comments that stand on lines of their own."""
    lines = [line for line in text.splitlines() if not line.startswith("--")]
    found = re.split(r";\s*(?:\n|$)", "\n".join(lines))
    return [each.strip() for each in found if each.strip()]


class Store:
    """A store, with its tables, opened when it is first asked. A context manager.

    Args:
        url: ``chdb:PATH``, ``clickhouse://[user[:password]@]host[:port][/database]``, or the same
            with ``clickhouses`` for TLS.

    Raises:
        UsageError: it is no such address.
        DependencyError: the client is not installed.
    """

    def __init__(self, url: str = DEFAULT) -> None:
        try:
            import clickhouse_connect
            from clickhouse_connect.driver import exceptions
        except ImportError as error:
            raise DependencyError(
                f"`rsttrace fleet` needs clickhouse-connect: {error}", hint=HINT
            ) from None
        logging.getLogger("clickhouse_connect").addHandler(logging.NullHandler())  # we tell it
        self.url = url
        self._errors = exceptions.Error
        self._away = exceptions.OperationalError
        self._arguments = _arguments(url)
        self._connect = clickhouse_connect.get_client
        self._client: Any = None

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._client is not None:
            with contextlib.suppress(Exception):
                self._client.close()

    def _open(self) -> Any:
        """The client; at first it is made, and the tables with it: a server may be away till then.

        Raises: see `query`.
        """
        if self._client is None:
            self._make_folder()
            try:
                client = self._connect(**self._arguments)
            except ImportError as error:
                raise DependencyError(
                    f"the store {shown(self.url)} needs chDB: {error}", hint=HINT
                ) from None
            except self._errors as error:
                if "path" not in self._arguments or isinstance(error, self._away):
                    raise
                raise RsttraceError(
                    f"the store {shown(self.url)} cannot be opened: {_first_line(error)}",
                    hint="is another process using it? chDB takes one at a time, a server many",
                ) from None
            for name in ("schema", "views"):
                for statement in statements(sql(name)):
                    client.command(statement)
            self._client = client
        return self._client

    def _make_folder(self) -> None:
        """chDB would make its folder for all to read."""
        path = self._arguments.get("path")
        if path is None:
            return
        try:
            files.own_folder(path)
        except OSError as error:
            raise RsttraceError(
                f"the store {shown(self.url)} cannot be used: {error.strerror}",
                hint="name a folder of your own with --store chdb:PATH, or one that can be made",
            ) from None

    def command(self, text: str, parameters: Mapping[str, Any] | None = None) -> None:
        """Do something that gives nothing back.

        Raises: see `query`.
        """
        with self._told():
            self._open().command(text, parameters=dict(parameters or {}))

    def query(self, text: str, parameters: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """What a SELECT gives, each row by the names of its columns.

        Raises:
            DependencyError: chDB is not installed.
            StoreAway: the store does not answer.
            RsttraceError: it refuses.
        """
        with self._told():
            found = self._open().query(text, parameters=dict(parameters or {}))
        names = found.column_names
        return [dict(zip(names, row)) for row in found.result_rows]

    def insert(self, table: str, names: Sequence[str], rows: Sequence[Row]) -> None:
        """Add rows, all or none.

        Raises: see `query`.
        """
        if not rows:
            return
        with self._told():
            self._open().insert(table, rows, column_names=names)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Errors of the client as ours."""
        try:
            yield
        except self._away as error:
            raise StoreAway(
                f"the store {shown(self.url)} does not answer: {_first_line(error)}",
                hint="is it up, and may this host reach it?",
            ) from None
        except self._errors as error:
            raise RsttraceError(
                f"the store {shown(self.url)} refuses: {_first_line(error)}"
            ) from None


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:500] if text else type(error).__name__


def _arguments(url: str) -> dict[str, Any]:
    """What clickhouse-connect is given."""
    scheme, colon, rest = url.partition(":")
    if colon and scheme == "chdb" and rest:
        if rest.removeprefix("//") == "memory":
            return {"interface": "chdb"}
        return {"interface": "chdb", "path": str(Path(rest).absolute())}
    if scheme in ("clickhouse", "clickhouses"):
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise UsageError(f"--store {shown(url)}: {error}") from None
        if parts.hostname:
            secure = scheme == "clickhouses"
            return {
                "host": parts.hostname,
                "port": port or (8443 if secure else 8123),
                "username": parts.username or "default",
                "password": parts.password or "",
                "database": parts.path.lstrip("/") or "default",
                "secure": secure,
            }
    raise UsageError(
        f"--store {shown(url)} names no store",
        hint="write chdb:PATH, or clickhouse://user:password@host:8123/database",
    )


def shown(url: str) -> str:
    """A store's address without its password."""
    return re.sub(r"(//[^:/@]*):[^@]*@", r"\1:...@", url)
