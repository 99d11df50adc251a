"""Vendors of MAC addresses."""

from __future__ import annotations

import importlib.util
import zipfile
import zipimport
from pathlib import Path

import pytest

from rsttrace.enrich import vendor as module
from rsttrace.enrich.vendor import LOCAL, is_virtual_router, vendor

IEEE = {
    "oui36.csv": 'Registry,Assignment,Organization Name,Address\r\n'
    'MA-S,70B3D5F2F,"TELE ""X"", Inc.","Street, 1"\r\n',
    "mam.csv": "Registry,Assignment,Organization Name,Address\r\nMA-M,741AE09,Medium Ltd,\r\n",
    "oui.csv": "Registry,Assignment,Organization Name,Address\r\n"
    "MA-L,741AE0,IEEE Registration Authority,\r\nMA-L,FCFFFC,Newer Inc,\r\n",
}  # fmt: skip


@pytest.fixture
def ieee_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in IEEE.items():
        (tmp_path / name).write_bytes(text.encode())
    monkeypatch.setattr(module, "IEEE_DATA", str(tmp_path))


@pytest.fixture
def no_ieee_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IEEE_DATA", str(tmp_path / "none"))


@pytest.mark.usefixtures("no_ieee_data")
@pytest.mark.parametrize(
    ("mac", "expected"),
    [
        ("00:d0:f8:22:33:44", "FUJIAN STAR TERMINAL"),
        ("00-D0-F8-22-33-44", "FUJIAN STAR TERMINAL"),
        ("08:00:20:01:02:03", "Oracle Corporation"),
        ("00:00:5e:00:01:07", "IANA (a VRRP virtual router)"),
        ("00:00:0c:07:ac:01", "Cisco (an HSRP virtual router)"),
        ("52:54:00:12:34:56", LOCAL),
        ("02:42:ac:11:00:02", LOCAL),
        ("01:00:5e:00:00:01", None),
        ("33:33:00:00:00:01", None),
        ("ff:ff:ff:ff:ff:ff", None),
        ("00:00:00:00:00:00", None),
        ("", None),
        ("no mac", None),
        ("00:d0:f8:22:33", None),
        ("00:d0:f8:22:33:44:55", None),
        ("00:d0:f8:22:33:４4", None),
    ],
)
def test_vendor_by_netaddr_alone(mac: str, expected: str | None) -> None:
    assert vendor(mac) == expected


@pytest.mark.usefixtures("ieee_data")
@pytest.mark.parametrize(
    ("mac", "expected"),
    [
        ("70:b3:d5:f2:f0:01", 'TELE "X", Inc.'),
        ("74:1a:e0:90:00:01", "Medium Ltd"),
        # the block is split, and this part is in no file: nobody is named
        ("74:1a:e0:f0:00:01", None),
        ("fc:ff:fc:00:00:01", "Newer Inc"),
        ("00:d0:f8:22:33:44", "FUJIAN STAR TERMINAL"),
    ],
)
def test_smaller_blocks_of_ieee_data_win(mac: str, expected: str | None) -> None:
    assert vendor(mac) == expected


@pytest.mark.usefixtures("no_ieee_data")
def test_agrees_with_netaddr() -> None:
    netaddr = pytest.importorskip("netaddr")
    for prefix in ("00-00-0C", "00-1B-21", "10-E9-92", "AC-DE-48", "F4-F5-E8", "0C-00-00"):
        try:
            expected = netaddr.OUI(prefix).registration().org
        except netaddr.NotRegisteredError:
            expected = None
        assert vendor(prefix.replace("-", ":") + ":01:02:03") == expected
    iab = netaddr.EUI("00-50-C2-F7-10-01").iab.registration().org
    assert vendor("00:50:c2:f7:10:01") == iab.strip()


@pytest.mark.usefixtures("no_ieee_data")
def test_falls_back_to_netaddrs_interface(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_netaddr_file", lambda name: None)
    module._registered.cache_clear()
    assert vendor("00:d0:f8:22:33:44") == "FUJIAN STAR TERMINAL"
    assert vendor("fc:ff:fc:00:00:01") is None
    module._registered.cache_clear()


@pytest.mark.usefixtures("ieee_data")
def test_a_prefix_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    module._registered.cache_clear()
    read: list[str] = []
    line = module._line

    def counted(path: str, start: bytes) -> str | None:
        read.append(path)
        return line(path, start)

    monkeypatch.setattr(module, "_line", counted)
    vendor("fc:ff:fc:00:00:01")
    once = len(read)
    assert once > 0
    vendor("fc:ff:fc:00:0f:ff")
    assert len(read) == once


def test_virtual_routers() -> None:
    assert is_virtual_router("00:00:5E:00:02:0a")
    assert not is_virtual_router("00:00:5e:00:03:0a")


def test_from_a_zip_file_the_registry_is_copied_into_memory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The zip file need not be there, or be readable, when somebody asks."""
    packed = tmp_path / "all.zip"
    with zipfile.ZipFile(packed, "w") as file:
        file.writestr("netaddr/__init__.py", "raise AssertionError('imported')")
        file.writestr("netaddr/eui/oui.txt", "\n\n02-FF-FE   (hex)\t\tA MAKER\n")
    found = zipimport.zipimporter(str(packed)).find_spec("netaddr")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found)
    module._netaddr_file.cache_clear()
    try:
        names = module.files()
        packed.unlink()
        assert [name for name in names if name.startswith("/proc/self/fd/")] != []
        assert module._from_oui("02FFFE") == "A MAKER"
        assert module._from_oui("02FFFD") is None
    finally:
        module._netaddr_file.cache_clear()
