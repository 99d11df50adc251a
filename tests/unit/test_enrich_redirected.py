"""Whose an address is, as this machine's own kernel tells."""

from __future__ import annotations

import pytest

from rsttrace.enrich.redirected import has_address


@pytest.mark.parametrize("ip", ["127.0.0.1", "::1"])
def test_our_own_addresses(ip: str) -> None:
    assert has_address(ip)


@pytest.mark.parametrize("ip", ["192.0.2.1", "2001:db8::1", "127.0.0.2"])
def test_addresses_of_nobody_here(ip: str) -> None:
    assert not has_address(ip)
