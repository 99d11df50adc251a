"""The lab needs root on a real kernel; without it, say so. CI never skips."""

from __future__ import annotations

import os

import pytest

from rsttrace.enrich.netlink import Netlink


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        rooms = ("tests/lab", "tests/watch", "tests/runbooks")
        live = item.path.name == "test_live.py" or any(room in str(item.path) for room in rooms)
        if not live:
            continue
        item.add_marker(pytest.mark.root)
        if os.geteuid() != 0 and not os.environ.get("CI"):
            item.add_marker(pytest.mark.skip(reason="needs root: run `sudo make test`"))


@pytest.fixture
def dumps(monkeypatch: pytest.MonkeyPatch) -> list[Netlink]:
    """Who dumped its tables, each time that it was done."""
    made: list[Netlink] = []
    real = Netlink.dump_links

    def dump_links(netlink: Netlink) -> bool:
        made.append(netlink)
        return real(netlink)

    monkeypatch.setattr(Netlink, "dump_links", dump_links)
    return made
