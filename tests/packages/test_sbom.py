"""The SBOM of each package is valid CycloneDX, and names all that is really in it."""

from __future__ import annotations

import subprocess
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

from packages import VENDORED, deb, image, onefile, sbom
from rsttrace import __version__
from tests.unit.test_lock import pins

VALIDATOR = JsonStrictValidator(SchemaVersion.V1_6)


def places(components: Iterable[dict[str, Any]]) -> set[str]:
    """Where the components say that they are."""
    return {
        occurrence["location"]
        for each in components
        for occurrence in each.get("evidence", {}).get("occurrences", ())
    }


def missing(names: Iterable[str], text: str) -> set[str]:
    """What is there, by the first part of its path, that no component says is its own."""
    tops = {name.split("/")[0] for name in names}
    return tops - places(sbom.components(text)) - {sbom.NAME}


def check_libraries(text: str) -> None:
    """All that the lock pins, in that version, by the hash of one of its files, with a licence."""
    assert VALIDATOR.validate_str(text) is None
    first, *found = sbom.components(text)
    assert (first["name"], first["version"]) == ("rsttrace", __version__)
    python = [each for each in found if each["purl"].startswith("pkg:pypi/")]
    urls = [PackageURL.from_string(each["purl"]) for each in python]
    locked = VENDORED.read_text(encoding="utf-8")
    assert {url.name: url.version for url in urls} == pins(locked, "3.9")
    for each in python:
        (digest,) = each["hashes"]
        assert digest["alg"] == "SHA-256"
        assert f"--hash=sha256:{digest['content']}" in locked
        assert each["licenses"]
    for each in first, *python:
        assert places([each])


@pytest.fixture(scope="module")
def pyz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return onefile.build(tmp_path_factory.mktemp("zipapp"))


def test_the_one_file_says_what_is_in_it(pyz: Path) -> None:
    with zipfile.ZipFile(pyz) as archive:
        text = archive.read(sbom.NAME).decode()
        names = archive.namelist()
    check_libraries(text)
    assert missing(names, text) == {"LICENSES", "__main__.py"}
    assert missing([*names, "stowaway/x.py"], text) >= {"stowaway"}
    said = subprocess.run([str(pyz), "--version"], capture_output=True, text=True, check=True)
    assert f"SBOM: {sbom.NAME} in {pyz}\n" in said.stdout


@pytest.fixture(scope="module")
def unpacked(deb: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("unpacked")
    subprocess.run(["dpkg-deb", "-x", str(deb), str(target)], check=True)
    return target


def test_the_debian_package_says_what_is_in_it(unpacked: Path) -> None:
    home = unpacked / deb.HOME
    text = (home / sbom.NAME).read_text(encoding="utf-8")
    check_libraries(text)
    names = [path.relative_to(home).as_posix() for path in home.rglob("*")]
    assert len(names) > 1000
    assert missing(names, text) == set()


def test_the_image_says_what_is_in_it(deb: Path, tmp_path: Path) -> None:
    layer = tmp_path / "layer.tar"
    image.lay_out(layer, deb)
    root = tmp_path / "root"
    root.mkdir()
    subprocess.run(["tar", "-xf", str(layer), "-C", str(root), "--exclude=./dev/*"], check=True)
    text = (root / "usr/share/rsttrace" / sbom.IMAGE).read_text(encoding="utf-8")
    check_libraries(text)
    listed = subprocess.run(
        ["dpkg-query", f"--admindir={root}/var/lib/dpkg", "-W", "-f",
         "${db:Status-Status} ${Package} ${Version} ${Architecture}\\n"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    installed = {tuple(line.split()[1:]) for line in listed.splitlines()
                 if line.startswith("installed ")}  # fmt: skip
    assert len(installed) > 30
    urls = [PackageURL.from_string(each["purl"]) for each in sbom.components(text)]
    debian = {(u.name, u.version, u.qualifiers["arch"]) for u in urls if u.type == "deb"}
    assert debian == installed - {("rsttrace", __version__, "all")}
